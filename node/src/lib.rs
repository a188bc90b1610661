//! One Cairn peer: its store, its repositories, its keys.
//!
//! [`Node::spawn`] opens a data folder under an exclusive lock and is all that the gateway and the
//! command line see. Calls are blocking unless they say otherwise: an async caller goes through
//! `spawn_blocking`.

pub mod config;
pub mod control;
pub mod files;
pub mod journal;
pub mod repos;
pub mod store;

mod node;

pub use config::Config;
pub use node::{Node, SpawnError};
