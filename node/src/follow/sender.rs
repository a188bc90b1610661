//! Sends stored records to one peer, in bounded parts, waiting for room in its queue.
//!
//! What a peer is too slow for is dropped: it gets it when sets are compared.

use std::time::Duration;
use std::vec::IntoIter;

use cairn_protocol::hash::RecordId;
use cairn_protocol::key::PublicKey;
use cairn_protocol::spread::message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blocking;
use crate::store::Store;
use crate::swarm::{SendError, Swarm};

/// Groups of records that wait for one peer.
const GROUPS_MAX: usize = 64;
/// Records read at a time.
const READ_AT_ONCE: usize = 128;
/// Bytes of records from which on no further one is read before they are sent: slow peers may be many.
const READ_BYTES: usize = 128 << 10;
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
                let mut rest = ids.into_iter();
                while rest.len() > 0 {
                    let Some(later) = send_part(&peer, rest, &store, &swarm).await else {
                        tracing::debug!(%peer, "records dropped: the peer does not take them");
                        break;
                    };
                    rest = later;
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

/// Sends the first of them, and returns the others; nothing where the peer takes no more.
async fn send_part(
    peer: &PublicKey,
    mut ids: IntoIter<RecordId>,
    store: &Store,
    swarm: &Swarm,
) -> Option<IntoIter<RecordId>> {
    let store = store.clone();
    let read = blocking(move || {
        let (mut envelopes, mut bytes) = (Vec::new(), 0);
        for id in ids.by_ref().take(READ_AT_ONCE) {
            match store.record(&id) {
                Ok(Some(envelope)) => {
                    bytes += envelope.len();
                    envelopes.push(envelope);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%id, %error, "a record for a peer could not be read");
                }
            }
            if bytes >= READ_BYTES {
                break;
            }
        }
        (message::pack(envelopes), ids)
    });
    let (frames, ids) = read.await?;
    for frame in frames {
        let (mut pause, mut waited) = (PAUSES.0, Duration::ZERO);
        loop {
            match swarm.send(peer, frame.clone()) {
                Ok(()) => break,
                Err(SendError::NotConnected) => return None,
                Err(SendError::Full) if waited >= PROGRESS_TIMEOUT => return None,
                Err(SendError::Full) => {
                    tokio::time::sleep(pause).await;
                    waited += pause;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }
    Some(ids)
}
