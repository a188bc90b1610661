//! Fetching files from peers: one download a file, however many wait for it.
//!
//! Whoever needs a file gets an [`Arriving`]; the first one begins the download, the last one gone stops
//! it. What was verified stays: a later fetch goes on from there, after a crash too. A file counts as
//! stored once all its digests were computed and equal the claim.

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, GitOid, RepositoryId, Sha256};
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::store::{Digests, Store, StoreError};
use crate::swarm::Swarm;

/// A file that is claimed to exist, by a verified head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The repository that claims it.
    pub repository: RepositoryId,
    /// Where it stands there, for messages.
    pub path: String,
    /// Content id.
    pub blake3: Blake3,
    /// Bytes.
    pub size: u64,
    /// Claimed SHA-256.
    pub sha256: Sha256,
    /// Claimed git blob id; absent for LFS files, whose git id is the pointer's.
    pub git: Option<GitOid>,
}

/// Why a file could not be fetched.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody that can be reached has what is missing.
    #[error("no peer that can be reached has {path} ({hash})")]
    NoProvider {
        /// The file.
        path: String,
        /// Its hash.
        hash: Blake3,
    },
    /// The bytes are those of the BLAKE3, and another digest is not what the commit claims.
    #[error("{path}: its {digest} is not the one that its commit claims: the commit is invalid")]
    Disagrees {
        /// The file.
        path: String,
        /// Which digest: `sha256`, `git oid`, `size`.
        digest: &'static str,
    },
    /// Larger than what is fetched from peers.
    #[error("{path} has {size} bytes, at most {max} are fetched", max = cairn_protocol::limits::FETCH_BYTES_MAX)]
    TooLarge {
        /// The file.
        path: String,
        /// Its bytes.
        size: u64,
    },
    /// This node speaks to no peers.
    #[error("this node is not connected to others")]
    Offline,
    /// The store failed.
    #[error("{0}")]
    Store(std::sync::Arc<StoreError>),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// A file on its way here; cheap to clone. Dropping the last one stops the download.
#[derive(Debug, Clone)]
pub struct Arriving {}

impl Arriving {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// Verified bytes of a range, at least one and at most to the end of a piece; waits until they are here,
    /// and fetches them before what nobody waits for. `offset` is below the size.
    pub async fn read(&self, offset: u64, len_max: u64) -> Result<Bytes, FetchError> {
        let _ = (offset, len_max);
        todo!()
    }

    /// Waits until the whole file is here, all digests were computed and equal the claim, and it is stored.
    pub async fn finished(&self) -> Result<Digests, FetchError> {
        todo!()
    }

    /// Bytes here by now, and bytes that came over the network.
    pub fn progress(&self) -> (u64, u64) {
        todo!()
    }
}

/// A download under way, as it is shown.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Transfer {
    /// The file's content id.
    pub hash: String,
    /// Its path in the repository that asked for it first.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Verified bytes here.
    pub done: u64,
    /// Bytes a second over the last seconds.
    pub rate: u64,
    /// Peer ids it comes from now.
    pub peers: Vec<String>,
}

/// All downloads of a node; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {}

impl Fetcher {
    /// Call within a tokio runtime; everything ends at `stop`.
    pub(crate) fn spawn(store: Store, blobs: Blobs, swarm: Swarm, stop: CancellationToken) -> Self {
        let _ = (store, blobs, swarm, stop);
        todo!()
    }

    /// Joins the download of a file, or begins it. May be called from any thread.
    pub(crate) fn fetch(&self, wanted: Wanted) -> Arriving {
        let _ = wanted;
        todo!()
    }

    /// Downloads under way.
    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        todo!()
    }
}
