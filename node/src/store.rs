//! Content-addressed storage: small blobs and records in a segment log, large ones as flat files.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, GitOid, Sha256};

/// All digests of one blob that this node computed itself from the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Content id.
    pub blake3: Blake3,
    /// LFS oid and hub `ETag`.
    pub sha256: Sha256,
    /// Git blob oid, where it was asked for (what git stores as a blob).
    pub git: Option<GitOid>,
    /// Bytes.
    pub size: u64,
}

/// A stored blob, ready to be read.
#[derive(Debug, Clone)]
pub enum Content {
    /// Small enough to stand in the log: in memory, checked against its hash.
    Small(Bytes),
    /// A flat file whose last full verification is recent and whose inode, size and times are unchanged.
    Flat(FlatFile),
}

/// A flat file that may be served without re-reading it first.
#[derive(Debug, Clone)]
pub struct FlatFile {
    /// Open for reading.
    pub file: Arc<File>,
    /// Where it stands, for other programs and messages.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Flat(flat) => flat.size,
        }
    }
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused a file operation.
    #[error("{operation} {path}")]
    Io {
        /// What was tried, as a verb: `write`, `rename`.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// No room on the device.
    #[error("no space left on the device that holds {path}: free some, or run `cairn gc`")]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Stored bytes that no longer match their hash; never served again.
    #[error("stored content {hash} is damaged ({path}): it no longer matches its hash")]
    Damaged {
        /// The hash that the bytes should have.
        hash: Blake3,
        /// Where they stand.
        path: PathBuf,
    },
    /// Not stored here.
    #[error("content {hash} is not stored on this node")]
    Absent {
        /// The hash that was asked for.
        hash: Blake3,
    },
    /// A log or journal frame that is neither whole nor an incomplete last one.
    #[error("{path} is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the bad frame begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}
