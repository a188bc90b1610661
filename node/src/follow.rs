//! Following: records from peers become repositories that can be read here.
//!
//! Drives [`cairn_protocol::spread`] over the swarm, stores what is accepted, fetches the metadata of each
//! new head, and shows it once all of that is here: a reader never sees half a commit.

use cairn_protocol::record::Record;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::blobs::Blobs;
use crate::repos::Repos;
use crate::store::Store;
use crate::swarm::{Swarm, SwarmEvent};

/// What following needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) repos: Repos,
    pub(crate) access: Access,
    pub(crate) swarm: Swarm,
    pub(crate) blobs: Blobs,
}

/// The running follower; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Follower {}

impl Follower {
    /// Begins to follow. Call within a tokio runtime; everything ends at `stop`.
    pub(crate) fn spawn(
        parts: Parts,
        events: mpsc::Receiver<SwarmEvent>,
        stop: CancellationToken,
    ) -> Self {
        let _ = (parts, events, stop);
        todo!()
    }

    /// Records that this node made or took in by itself, stored and in the state: they are pushed.
    pub(crate) fn published(&self, records: &[Record]) {
        let _ = records;
        todo!()
    }
}
