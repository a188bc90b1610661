//! Spread: how records reach every node that follows them (design §5).
//!
//! A state machine without clock, sockets or randomness of its own; the node performs its actions, a
//! simulation too. A new record is pushed to each neighbour once, by id; on connect and by timer two
//! neighbours compare what they have, one set a namespace, and exchange the difference; what was learnt
//! that way is pushed on. Envelopes are parsed and their signatures verified here; whether a record is
//! accepted is the ledger's to say, which the caller reports back by [`Input::Taken`].
//!
//! Invariant: a record is pushed to a neighbour at most once, and never to the one it came from.

pub mod message;

use std::time::Duration;

use crate::hash::{NamespaceId, RecordId};
use crate::key::PublicKey;
use crate::record::Record;

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A neighbour can be talked to.
    Connected(PublicKey),
    /// It can't any more.
    Disconnected(PublicKey),
    /// A neighbour sent a frame.
    Frame(PublicKey, Vec<u8>),
    /// A record is in the state and stored: one of our own, or the answer to [`Action::Take`].
    Taken(Known),
    /// The answer to [`Action::Take`] for a record that will never be accepted.
    Refused(RecordId),
    /// The answer to [`Action::Take`] for a record that waits for another, or that could not be stored now:
    /// it may be offered again.
    NotNow(RecordId),
    /// Time passed.
    Tick,
}

/// What reconciliation needs to know of a stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: RecordId,
    /// Its namespace (of a namespace's first record: the one it begins).
    pub namespace: NamespaceId,
    /// Its time of signing, the sort key of reconciliation.
    pub time: u64,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send a frame.
    Send(PublicKey, Vec<u8>),
    /// Send the envelopes of these records, in this order, packed by [`message::pack`].
    SendRecords(PublicKey, Vec<RecordId>),
    /// Take a verified record in, and say what became of it.
    Take(PublicKey, Box<Record>),
    /// A neighbour told about itself.
    Met(PublicKey, message::Hello),
    /// Part from a neighbour.
    Drop(PublicKey, Reason),
}

/// Why a neighbour is parted from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It speaks no version that we speak.
    #[error("it speaks spread versions {0} to {1}, this node {ours} to {ours}", ours = message::VERSION)]
    Version(u16, u16),
    /// A frame that is none.
    #[error("it sent a malformed frame: {0}")]
    Malformed(String),
    /// An envelope that does not verify.
    #[error("it sent a record that does not verify: {0}")]
    Forged(String),
    /// More than it may send.
    #[error("it sent more than it may: {0}")]
    Flood(&'static str),
}

/// Settings of a machine.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this node tells of itself.
    pub hello: message::Hello,
    /// Time between two comparisons with one neighbour.
    pub reconcile_every: Duration,
    /// Whether sets are compared at all; off only to show that it is needed.
    pub reconcile: bool,
}

/// The state of one node's spread.
#[derive(Debug)]
pub struct Spread {
    config: Config,
}

impl Spread {
    /// Begins with what is stored already; `seed` is what random choices are drawn from.
    pub fn new(config: Config, known: impl IntoIterator<Item = Known>, seed: u64) -> Self {
        let _ = (known.into_iter().count(), seed);
        Self { config }
    }

    /// Takes an input in; `now` is monotonic. Every returned action must be performed, in order.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Action> {
        let _ = (now, input, &self.config);
        todo!()
    }

    /// When [`Input::Tick`] is due next.
    pub fn next_tick(&self) -> Option<Duration> {
        todo!()
    }
}
