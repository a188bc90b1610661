//! The peers that can be sent frames now, as every thread sees them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::FRAME_BYTES_MAX;
use libp2p::PeerId;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::session::{QueuedBytes, reserve};
use super::{PeerInfo, SendError};

/// Frames that wait for one peer; at more, sending says that it is full.
pub(super) const QUEUE_FRAMES_MAX: usize = 256;
/// Bytes of frames that wait for one peer; at more, sending says that it is full.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes of frames that wait for all peers together; at more, sending says that it is full.
const QUEUES_BYTES_MAX: usize = 64 << 20;
/// Bytes of frames that wait for one peer whatever waits for the others: some that take nothing must not
/// keep the rest from hearing anything.
const QUEUE_BYTES_MIN: usize = 160 << 10;

/// A frame in a queue, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Queued {
    frame: Vec<u8>,
    counts: [Arc<AtomicUsize>; 2],
}

impl Queued {
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        for count in &self.counts {
            count.fetch_sub(self.frame.len(), Ordering::AcqRel);
        }
    }
}

#[derive(Debug)]
struct Entry {
    queue: mpsc::Sender<Queued>,
    queued: QueuedBytes,
    info: Info,
}

/// What is shown of a peer.
#[derive(Debug, Clone)]
pub(super) struct Info {
    pub(super) peer: PeerId,
    pub(super) address: String,
    pub(super) agent: String,
    pub(super) since: Instant,
    pub(super) inbound: bool,
    pub(super) rtt_ms: Option<f64>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    entries: RwLock<HashMap<PublicKey, Entry>>,
    queued: QueuedBytes,
}

impl Peers {
    /// Adds a peer, and gives what is sent to it.
    pub(super) fn insert(&self, key: PublicKey, info: Info) -> mpsc::Receiver<Queued> {
        let (queue, receiver) = mpsc::channel(QUEUE_FRAMES_MAX);
        let entry = Entry {
            queue,
            queued: QueuedBytes::default(),
            info,
        };
        self.entries.write().insert(key, entry);
        receiver
    }

    pub(super) fn remove(&self, key: &PublicKey) {
        self.entries.write().remove(key);
    }

    /// Changes what is shown of a peer.
    pub(super) fn update(&self, key: &PublicKey, change: impl FnOnce(&mut Info)) {
        if let Some(entry) = self.entries.write().get_mut(key) {
            change(&mut entry.info);
        }
    }

    pub(super) fn keys(&self) -> Vec<PublicKey> {
        self.entries.read().keys().copied().collect()
    }

    pub(super) fn infos(&self) -> Vec<PeerInfo> {
        let entries = self.entries.read();
        let mut infos: Vec<_> = entries
            .iter()
            .map(|(key, entry)| PeerInfo {
                peer_id: entry.info.peer.to_string(),
                key: key.to_string(),
                address: entry.info.address.clone(),
                agent: entry.info.agent.clone(),
                connected_s: entry.info.since.elapsed().as_secs(),
                inbound: entry.info.inbound,
                rtt_ms: entry.info.rtt_ms,
            })
            .collect();
        infos.sort_by(|a, b| a.peer_id.cmp(&b.peer_id));
        infos
    }

    /// Queues a frame.
    pub(super) fn send(&self, key: &PublicKey, frame: Vec<u8>) -> Result<(), SendError> {
        if !(1..=FRAME_BYTES_MAX).contains(&frame.len()) {
            tracing::error!(bytes = frame.len(), "a frame beyond its limit was not sent");
            return Err(SendError::Full);
        }
        let entries = self.entries.read();
        let entry = entries.get(key).ok_or(SendError::NotConnected)?;
        let (own, all, bytes) = (&entry.queued, &self.queued, frame.len());
        if !reserve(own, bytes, QUEUE_BYTES_MAX) {
            return Err(SendError::Full);
        }
        if own.load(Ordering::Acquire) <= QUEUE_BYTES_MIN {
            all.fetch_add(bytes, Ordering::AcqRel);
        } else if !reserve(all, bytes, QUEUES_BYTES_MAX) {
            own.fetch_sub(bytes, Ordering::AcqRel);
            return Err(SendError::Full);
        }
        let counts = [own.clone(), all.clone()];
        let queued = Queued { frame, counts };
        entry.queue.try_send(queued).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_take_nothing_do_not_keep_the_others_from_hearing_anything() {
        let peers = Peers::default();
        let insert = |number: u8| {
            let key = PublicKey::Ed25519([number; 32]);
            let info = Info {
                peer: PeerId::random(),
                address: String::new(),
                agent: String::new(),
                since: Instant::now(),
                inbound: true,
                rtt_ms: None,
            };
            (key, peers.insert(key, info))
        };
        let stuck: Vec<_> = (0..20).map(insert).collect();
        for (key, _) in &stuck {
            while peers.send(key, vec![0; FRAME_BYTES_MAX]).is_ok() {}
        }
        let (key, mut queue) = insert(20);
        assert_eq!(
            peers.send(&key, vec![0; FRAME_BYTES_MAX]),
            Err(SendError::Full)
        );
        for _ in 0..3 {
            assert_eq!(peers.send(&key, vec![0; 50 << 10]), Ok(()));
        }
        let mut more = 0;
        while peers.send(&key, vec![0; 50 << 10]).is_ok() {
            more += 1;
        }
        assert_eq!(more, 0, "a part, and no more");
        drop(stuck);
        assert_eq!(peers.send(&key, vec![0; FRAME_BYTES_MAX]), Ok(()));
        queue.close();
        while queue.try_recv().is_ok() {}
        assert_eq!(peers.queued.load(Ordering::Acquire), 0);
    }
}
