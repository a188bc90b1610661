//! How many connections each peer has to us.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cairn_protocol::key::PublicKey;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Connections of all peers; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    all: Arc<Mutex<All>>,
    peer_max: usize,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    /// Number of each, and what ends it; the newest last.
    peers: HashMap<PublicKey, VecDeque<(u64, CancellationToken)>>,
}

/// One of them, while it lasts.
#[derive(Debug)]
pub(super) struct Entered {
    connections: Connections,
    peer: PublicKey,
    number: u64,
    /// Says that it must end.
    pub(super) end: CancellationToken,
}

impl Connections {
    /// At most so many of one peer.
    pub(super) fn new(peer_max: usize) -> Self {
        Self {
            all: Arc::default(),
            peer_max,
        }
    }

    /// Counts one more. Where it is one too many, the oldest ends: one that was cut off by a crash at the
    /// other end is not waited for.
    pub(super) fn enter(&self, peer: PublicKey) -> Entered {
        let end = CancellationToken::new();
        let mut all = self.all.lock();
        let number = all.next;
        all.next += 1;
        let of_peer = all.peers.entry(peer).or_default();
        of_peer.push_back((number, end.clone()));
        if of_peer.len() > self.peer_max
            && let Some((_, oldest)) = of_peer.pop_front()
        {
            oldest.cancel();
        }
        drop(all);
        Entered {
            connections: self.clone(),
            peer,
            number,
            end,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let peers = &mut self.connections.all.lock().peers;
        if let Some(of_peer) = peers.get_mut(&self.peer) {
            of_peer.retain(|(number, _)| *number != self.number);
            if of_peer.is_empty() {
                peers.remove(&self.peer);
            }
        }
    }
}
