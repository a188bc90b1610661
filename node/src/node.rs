//! The node: one data folder, opened once.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_protocol::hash::Blake3;

use crate::config::Config;
use crate::repos::Repos;
use crate::store::{Content, StoreError};

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// Another process has the folder open.
    #[error("another cairn process has {path} open")]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error(
        "{path} has data format {found}, newer than the {known} that this cairn knows: use the release that wrote it, or a later one"
    )]
    NewerFormat {
        /// The data folder.
        path: PathBuf,
        /// Version found.
        found: String,
        /// Version known.
        known: u32,
    },
    /// A key file that others could read, or that is no key.
    #[error("key file {path}: {reason}")]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A running node; cheap to clone. The folder is closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<()>,
}

impl Node {
    /// Opens (or makes) the data folder and brings the node up.
    pub fn spawn(_config: Config) -> Result<Self, SpawnError> {
        todo!()
    }

    /// Repositories to read.
    pub fn repos(&self) -> &Repos {
        todo!()
    }

    /// Opens content for reading; [`StoreError::Damaged`] and [`StoreError::Absent`] are answers, not faults.
    pub fn content(&self, _hash: &Blake3) -> Result<Content, StoreError> {
        todo!()
    }

    /// libp2p peer id of the node key.
    pub fn peer_id(&self) -> &str {
        todo!()
    }

    /// Hash name of the node's own namespace.
    pub fn namespace(&self) -> &str {
        todo!()
    }

    /// Multiaddresses that peers can dial (none until the node speaks to peers).
    pub fn listen_addrs(&self) -> Vec<String> {
        Vec::new()
    }

    /// Tells the node where its gateway answers, for `status`.
    pub fn set_gateway_url(&self, _url: String) {
        todo!()
    }
}
