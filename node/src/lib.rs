//! One Cairn peer: its store, its repositories, its keys.
//!
//! [`Node::spawn`] opens a data folder under an exclusive lock and is all that the gateway and the
//! command line see. Calls are blocking unless they say otherwise: an async caller goes through
//! `spawn_blocking`.

pub mod accounts;
pub mod config;
pub mod control;
pub mod fetch;
pub mod files;
pub mod journal;
pub mod permission;
pub mod publish;
pub mod repos;
pub mod store;

mod access;
mod audit;
mod backup;
mod blobs;
mod buffers;
mod cache;
mod counters;
mod folder;
mod follow;
mod garbage;
mod keys;
mod network;
mod node;
mod pull;
mod staging;
mod swarm;
pub mod xet;

pub use audit::{AuditReport, Damage};
pub use backup::{BackupError, BackupReport, restore};
pub use cache::CacheUse;
pub use config::{Config, NetworkConfig};
pub use counters::{Downloads, RECENT_DAYS, Reader};
pub use node::{Node, SpawnError, UploadError};
pub use swarm::{PeerInfo, SwarmError};
