//! The download of one file from several providers: who is asked for which pieces.
//!
//! A state machine without clock or sockets. The rule is simple, a scheduler proper comes later: what a
//! reader waits for goes first, else the lowest missing piece; each provider has one request of a few
//! pieces under way; one that makes no progress is left, one that lied is dropped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::key::PublicKey;
use crate::piece::PieceSet;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A provider offers these pieces (replaces what it offered before).
    Offer(PublicKey, PieceSet),
    /// A provider is gone, or has nothing any more.
    Gone(PublicKey),
    /// A verified piece came from a provider and was written.
    Piece(PublicKey, u64),
    /// A provider's request ended: all sent, refused, or cut off.
    Ended(PublicKey),
    /// A provider sent bytes that do not verify.
    Lied(PublicKey),
    /// A reader waits for these pieces, or (empty) no longer for any.
    Wanted(Vec<Range<u64>>),
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a provider for these pieces, in this order.
    Ask(PublicKey, Range<u64>),
    /// Cut a provider's request off: it made no progress.
    Abandon(PublicKey),
    /// Ask for more providers: none that is left offers what is missing.
    Starving,
}

/// The download's state.
#[derive(Debug, Clone)]
pub struct Download {
    held: PieceSet,
    providers: BTreeMap<PublicKey, ()>,
}

impl Download {
    /// Begins with what is held already; `seed` breaks ties among providers.
    pub fn new(held: PieceSet, seed: u64) -> Self {
        let _ = seed;
        Self {
            held,
            providers: BTreeMap::new(),
        }
    }

    /// Takes an event in; `now` is monotonic.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let _ = (now, event, &self.providers);
        todo!()
    }

    /// What is held by now.
    pub fn held(&self) -> &PieceSet {
        &self.held
    }
}
