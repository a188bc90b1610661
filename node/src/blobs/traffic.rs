//! Bytes of content to and from each peer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_protocol::key::PublicKey;
use parking_lot::Mutex;

/// Peers that are counted; beyond, the one with the fewest bytes is forgotten.
const PEERS_MAX: usize = 4_096;

/// Counts of one peer.
#[derive(Debug, Default)]
pub(super) struct Counts {
    sent: AtomicU64,
    taken: AtomicU64,
}

impl Counts {
    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_taken(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (get(&self.sent), get(&self.taken))
    }
}

/// Counts of all peers.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    peers: Mutex<HashMap<PublicKey, Arc<Counts>>>,
}

impl Traffic {
    /// Where a peer's bytes are counted.
    pub(super) fn of(&self, peer: &PublicKey) -> Arc<Counts> {
        let mut peers = self.peers.lock();
        if let Some(counts) = peers.get(peer) {
            return Arc::clone(counts);
        }
        if peers.len() >= PEERS_MAX {
            let least = peers.iter().min_by_key(|(_, counts)| {
                let (sent, taken) = counts.get();
                sent.saturating_add(taken)
            });
            if let Some(least) = least.map(|(peer, _)| *peer) {
                peers.remove(&least);
            }
        }
        Arc::clone(peers.entry(*peer).or_default())
    }

    /// Peer, bytes sent, bytes taken; only those with any.
    pub(super) fn all(&self) -> Vec<(PublicKey, u64, u64)> {
        let peers = self.peers.lock();
        let all = peers.iter().map(|(peer, counts)| {
            let (sent, taken) = counts.get();
            (*peer, sent, taken)
        });
        all.filter(|(_, sent, taken)| sent + taken > 0).collect()
    }
}
