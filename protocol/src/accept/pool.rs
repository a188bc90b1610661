//! Records that wait for what they rest on: so many and so large, and no more.
//!
//! The oldest makes room for the newest, and what a known key signed stays longer than what nobody
//! vouches for, so that a stranger can push out only strangers' records. What was dropped is asked
//! for again when something needs it.

use std::collections::BTreeMap;

use crate::hash::{Blake3, NamespaceId, RecordId, RepositoryId};
use crate::key::PublicKey;
use crate::limits::{RECORDS_WAITING_BYTES_MAX, RECORDS_WAITING_MAX};
use crate::name::{RepoKind, RepoName};
use crate::record::Visibility;

use super::chain::Place;

/// A place in the queue; the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    vouched: bool,
    arrival: u64,
}

/// What waits, and where its state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Waiting {
    Namespace(NamespaceId, RecordId),
    Repository(NamespaceId, RepositoryId),
    Change(NamespaceId, RecordId),
    Head(NamespaceId, RepositoryId, Place),
    Names(NamespaceId, (RepoKind, RepoName), Place),
    Freshness(NamespaceId, Visibility, Place),
    Attestation(NamespaceId, RepositoryId, RecordId),
    Account(NamespaceId, PublicKey, Place),
    Rows(Blake3),
}

/// All that waits, in the order in which it would be dropped.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    count_max: usize,
    bytes_max: usize,
    arrivals: u64,
    bytes: usize,
    queue: BTreeMap<Ticket, (usize, Waiting)>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(RECORDS_WAITING_MAX, RECORDS_WAITING_BYTES_MAX)
    }
}

impl Pool {
    const fn new(count_max: usize, bytes_max: usize) -> Self {
        Self {
            count_max,
            bytes_max,
            arrivals: 0,
            bytes: 0,
            queue: BTreeMap::new(),
        }
    }

    /// Lets something wait; `vouched` if a key that is entitled signed it.
    pub(super) fn admit(&mut self, vouched: bool, bytes: usize, waiting: Waiting) -> Ticket {
        let ticket = Ticket {
            vouched,
            arrival: self.arrivals,
        };
        self.arrivals += 1;
        self.bytes += bytes;
        self.queue.insert(ticket, (bytes, waiting));
        ticket
    }

    /// It waits no longer: it is in the state, or forgotten.
    pub(super) fn release(&mut self, ticket: &mut Option<Ticket>) {
        if let Some((bytes, _)) = ticket.take().and_then(|ticket| self.queue.remove(&ticket)) {
            self.bytes -= bytes;
        }
    }

    /// What must be forgotten now, one at a time, until all are within the limits.
    pub(super) fn overflow(&mut self) -> Option<Waiting> {
        let within = self.queue.len() <= self.count_max && self.bytes <= self.bytes_max;
        // One alone may be larger than the limit: rows are.
        if within || self.queue.len() == 1 {
            return None;
        }
        let (_, (bytes, waiting)) = self.queue.pop_first()?;
        self.bytes -= bytes;
        Some(waiting)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(byte: u8) -> Waiting {
        Waiting::Rows([byte; 32].into())
    }

    #[test]
    fn the_oldest_goes_first_and_strangers_before_known_keys() {
        let mut pool = Pool::new(3, 100);
        pool.admit(true, 1, rows(0));
        pool.admit(false, 1, rows(1));
        pool.admit(false, 1, rows(2));
        assert_eq!(pool.overflow(), None);
        pool.admit(true, 1, rows(3));
        assert_eq!(pool.overflow(), Some(rows(1)));
        assert_eq!(pool.overflow(), None);
        pool.admit(true, 1, rows(4));
        pool.admit(true, 1, rows(5));
        assert_eq!(pool.overflow(), Some(rows(2)));
        assert_eq!(pool.overflow(), Some(rows(0)));
        assert_eq!(pool.overflow(), None);
    }

    #[test]
    fn bytes_count_and_what_is_released_no_longer_does() {
        let mut pool = Pool::new(10, 100);
        let mut first = Some(pool.admit(false, 60, rows(0)));
        pool.admit(false, 60, rows(1));
        pool.release(&mut first);
        assert_eq!(first, None);
        assert_eq!(pool.overflow(), None);
        pool.admit(false, 1000, rows(2));
        assert_eq!(pool.overflow(), Some(rows(1)));
        assert_eq!(pool.overflow(), None, "one alone stays");
    }
}
