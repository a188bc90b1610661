//! What is kept of one neighbour.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::budget::Budget;
use super::recent::Recent;
use crate::hash::{NamespaceId, RecordId};

/// Ids that are remembered of what a neighbour has; of older ones it may be told again.
const HAS_MAX: usize = 1 << 13;

/// How far a comparison that this node began has come.
#[derive(Debug)]
pub(super) enum Step {
    /// All together were sent.
    Total,
    /// The summaries were sent.
    Summary,
    /// A round over this namespace was sent, the so-manieth.
    Round(NamespaceId, usize),
}

/// A comparison that this node began.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) step: Step,
    /// When it is given up, if nothing comes.
    pub(super) until: Duration,
    /// Namespaces that differ and were not gone through.
    pub(super) queue: VecDeque<NamespaceId>,
    /// Records that were offered in it.
    pub(super) offered: usize,
}

/// One neighbour.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) greeted: bool,
    pub(super) budget: Budget,
    /// Records that it sent, or was told of.
    pub(super) has: Recent<()>,
    pub(super) comparison: Option<Comparison>,
    pub(super) compare_at: Duration,
    /// Comparisons in a row that found a difference.
    pub(super) differed: u32,
    /// Whether there was more to compare, or to ask for, than was taken in at once.
    pub(super) again: bool,
    /// Up to where its summaries were answered.
    pub(super) answered_to: Option<NamespaceId>,
    /// Records that it has, to be asked for in this order.
    pub(super) wants: VecDeque<RecordId>,
    /// Records that it was asked for and has not sent.
    pub(super) asked: BTreeSet<RecordId>,
    /// When asking is given up, if nothing comes.
    pub(super) asked_until: Duration,
    /// When to ask again for what others were asked for.
    pub(super) ask_at: Option<Duration>,
}

impl Peer {
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            greeted: false,
            budget: Budget::new(now),
            has: Recent::new(HAS_MAX),
            comparison: None,
            compare_at: now,
            differed: 0,
            again: false,
            answered_to: None,
            wants: VecDeque::new(),
            asked: BTreeSet::new(),
            asked_until: now,
            ask_at: None,
        }
    }

    /// When something is due.
    pub(super) fn next_tick(&self, compares: bool) -> Option<Duration> {
        if !self.greeted {
            return None;
        }
        let until = self.comparison.as_ref().map(|comparison| comparison.until);
        let compare = compares.then(|| until.unwrap_or(self.compare_at));
        let asked = (!self.asked.is_empty()).then_some(self.asked_until);
        [compare, asked, self.ask_at].into_iter().flatten().min()
    }
}
