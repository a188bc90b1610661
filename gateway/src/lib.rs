//! HTTP over a node: the API that the tools of this field already speak.
//!
//! [`Gateway`] serves one [`cairn_node::Node`]. Each family of routes is one module with a
//! `fn routes() -> Router<Gateway>`; handlers parse, call the node on a blocking thread, and shape the
//! reply. No handler touches the store's files, except the one module that serves their bytes.
//!
//! In the order to be read: [`server`] accepts and bounds connections (`tls` has their certificate), `entry` is what every request
//! and answer passes, `content` serves files (over [`sendfile`] and [`range`]), `hub` answers questions
//! about repositories, `operations` says how the gateway itself is.

pub mod server;

pub mod range;
pub mod sendfile;

mod accounts;
mod auth;
mod body;
mod config;
mod content;
mod dates;
mod downloads;
mod entry;
mod error;
mod gateway;
mod hub;
mod intake;
mod lfs;
mod metrics;
mod operations;
mod publish;
mod reply;
mod repo;
mod right;
mod tls;
mod url;
mod xet;

pub use config::Config;
pub use gateway::Gateway;
pub use tls::{Tls, TlsError};
