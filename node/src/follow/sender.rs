//! Sends stored records to one peer, in bounded parts, waiting for room in its queue.
//!
//! What a peer is too slow for is dropped: it gets it when sets are compared.

use std::time::Duration;

use cairn_protocol::hash::RecordId;
use cairn_protocol::key::PublicKey;
use cairn_protocol::spread::message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blocking;
use crate::store::Store;
use crate::swarm::{SendError, Swarm};

/// Groups of records that wait for one peer.
const GROUPS_MAX: usize = 256;
/// Records read at a time.
const READ_AT_ONCE: usize = 128;
/// First and longest pause before a full queue is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// Time in which a peer must take at least one frame.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// The queue to one peer.
#[derive(Debug)]
pub(super) struct Sender {
    groups: mpsc::Sender<Vec<RecordId>>,
    stop: CancellationToken,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sender {
    /// Starts it; it ends when dropped.
    pub(super) fn spawn(
        peer: PublicKey,
        store: Store,
        swarm: Swarm,
        stop: &CancellationToken,
    ) -> Self {
        let (groups, mut waiting) = mpsc::channel::<Vec<RecordId>>(GROUPS_MAX);
        let stop = stop.child_token();
        let ended = stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Some(ids) = waiting.recv().await {
                for part in ids.chunks(READ_AT_ONCE) {
                    if !send_part(&peer, part.to_vec(), &store, &swarm).await {
                        tracing::debug!(%peer, "records dropped: the peer does not take them");
                        break;
                    }
                }
            }
        }));
        Self {
            groups,
            stop: ended,
        }
    }

    /// Queues records.
    pub(super) fn send(&self, ids: Vec<RecordId>) {
        if self.groups.try_send(ids).is_err() {
            tracing::debug!("records dropped: too many wait for a peer");
        }
    }
}

/// Whether the peer took all of them.
async fn send_part(peer: &PublicKey, ids: Vec<RecordId>, store: &Store, swarm: &Swarm) -> bool {
    let store = store.clone();
    let read = blocking(move || {
        let envelopes = ids.into_iter().filter_map(|id| match store.record(&id) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::warn!(%id, %error, "a record for a peer could not be read");
                None
            }
        });
        message::pack(envelopes)
    });
    let Some(frames) = read.await else {
        return false;
    };
    for frame in frames {
        let (mut pause, mut waited) = (PAUSES.0, Duration::ZERO);
        loop {
            match swarm.send(peer, frame.clone()) {
                Ok(()) => break,
                Err(SendError::NotConnected) => return false,
                Err(SendError::Full) if waited >= PROGRESS_TIMEOUT => return false,
                Err(SendError::Full) => {
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }
    true
}
