//! Records that replace one another under one home: heads, names, freshness, accounts.
//!
//! A chain keeps every fact that a record of it stated, and from these, for the epoch in force, the
//! *tip*: the newest that is connected, through `prev`, to where the epoch begins. Two entitled
//! records of one version are a *fork*: the tip stays below it, whichever came first.
//!
//! Invariant: tip and fork are functions of the facts and the rule alone. The next record costs a
//! few look-ups; only another rule (a namespace record, rows) walks through all facts.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::hash::RecordId;
use crate::key::PublicKey;
use crate::record::Link;

use super::pool::{Pool, Ticket};

/// Epoch, then seq.
pub(super) type Version = (u64, u64);
/// Version, then id: where a fact stands.
pub(super) type Place = (Version, RecordId);

/// What one record stated.
#[derive(Debug, Clone)]
pub(super) struct Fact<T> {
    pub(super) prev: Option<RecordId>,
    pub(super) signer: PublicKey,
    /// While it waits.
    pub(super) ticket: Option<Ticket>,
    pub(super) item: T,
}

/// What the first record of the epoch must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Base {
    /// There is no place for records of this epoch, as far as is known.
    #[default]
    Nowhere,
    /// Whatever it names: the chain is begun anew in each epoch.
    Anew,
    /// This record, or none.
    After(Option<RecordId>),
}

/// By what a chain is read.
pub(super) struct Rule<'a, T> {
    /// The epoch in force.
    pub(super) epoch: u64,
    /// What its first record must follow.
    pub(super) base: Base,
    /// Whether a key may sign records of this chain in an epoch, up to the one in force.
    pub(super) entitled: &'a dyn Fn(u64, &PublicKey) -> bool,
    /// Whether all that a record takes in is known.
    pub(super) ready: &'a dyn Fn(u64, &T) -> bool,
}

/// How a chain stands after a record was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is in the state.
    Connected,
    /// It is of an epoch that is over.
    Older,
    /// Something that it rests on is missing.
    Gap,
    /// It stands at or above a fork.
    Forked,
}

/// Facts, and what follows from them.
#[derive(Debug, Clone)]
pub(super) struct Chain<T> {
    facts: BTreeMap<Place, Fact<T>>,
    epoch: u64,
    base: Base,
    /// Where the base's own fact stands.
    base_at: Option<Place>,
    tip: Option<(u64, RecordId)>,
    fork: Option<u64>,
}

impl<T> Default for Chain<T> {
    fn default() -> Self {
        Self {
            facts: BTreeMap::new(),
            epoch: 0,
            base: Base::Nowhere,
            base_at: None,
            tip: None,
            fork: None,
        }
    }
}

/// All places of a version.
fn at(version: Version) -> RangeInclusive<Place> {
    let (low, high) = ([0; RecordId::SIZE], [0xff; RecordId::SIZE]);
    (version, low.into())..=(version, high.into())
}

impl<T> Chain<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        self.facts.contains_key(place)
    }

    pub(super) fn forget(&mut self, place: &Place) -> Option<Fact<T>> {
        self.facts.remove(place)
    }

    /// Any fact of a version.
    pub(super) fn any_at(&self, version: Version) -> Option<&Fact<T>> {
        self.facts.range(at(version)).next().map(|(_, fact)| fact)
    }

    /// All facts, by version and id.
    pub(super) fn facts(&self) -> impl Iterator<Item = (&Place, &Fact<T>)> {
        self.facts.iter()
    }

    /// The facts of one epoch, by seq and id.
    pub(super) fn facts_of(
        &self,
        epoch: u64,
    ) -> impl DoubleEndedIterator<Item = (&Place, &Fact<T>)> {
        let (low, high) = (at((epoch, 0)), at((epoch, u64::MAX)));
        self.facts.range(*low.start()..=*high.end())
    }

    /// Adds the fact of a record that an entitled key signed, in an epoch up to that in force.
    pub(super) fn enter(
        &mut self,
        place: Place,
        fact: Fact<T>,
        rule: &Rule<'_, T>,
        pool: &mut Pool,
    ) -> Standing {
        let ((epoch, seq), id) = place;
        self.facts.insert(place, fact);
        if epoch < rule.epoch {
            self.release(&place, pool);
            if rule.base != Base::After(Some(id)) {
                return Standing::Older;
            }
            self.base_at = Some(place);
            return if self.tip.is_some() {
                Standing::Older
            } else if (rule.ready)(epoch, &self.facts[&place].item) {
                Standing::Connected
            } else {
                Standing::Gap
            };
        }
        if self.entitled_at(seq, rule).nth(1).is_some() {
            self.fork_at(seq, rule, pool);
        } else {
            self.advance(rule, pool);
        }
        if self.fork.is_some_and(|fork| fork <= seq) {
            Standing::Forked
        } else if self.tip.is_some_and(|(tip, _)| tip >= seq) {
            Standing::Connected
        } else {
            Standing::Gap
        }
    }

    /// Adds the fact of a record of which nothing is known that would entitle its signer.
    pub(super) fn hold(&mut self, place: Place, fact: Fact<T>) {
        self.facts.insert(place, fact);
    }

    /// Reads all facts by another rule.
    pub(super) fn restart(&mut self, rule: &Rule<'_, T>, pool: &mut Pool) {
        self.epoch = rule.epoch;
        self.base = rule.base;
        self.base_at = None;
        self.tip = None;
        self.fork = None;
        let (mut settled, mut forks) = (Vec::new(), Vec::new());
        let mut before = None;
        for (place, fact) in &self.facts {
            let ((epoch, seq), id) = *place;
            if epoch > rule.epoch {
                break;
            }
            if !(rule.entitled)(epoch, &fact.signer) {
                continue;
            }
            if epoch < rule.epoch {
                settled.extend(fact.ticket.map(|_| *place));
                if rule.base == Base::After(Some(id)) {
                    self.base_at = Some(*place);
                }
            } else if before.replace(seq) == Some(seq) {
                forks.push(seq);
            }
        }
        for place in settled {
            self.release(&place, pool);
        }
        for seq in forks {
            self.fork_at(seq, rule, pool);
        }
        self.advance(rule, pool);
    }

    /// Moves the tip over all that is connected by now.
    pub(super) fn advance(&mut self, rule: &Rule<'_, T>, pool: &mut Pool) {
        loop {
            let (seq, prev) = match (self.tip, self.base) {
                (Some((tip, id)), _) => (tip + 1, Some(id)),
                (None, Base::After(prev)) => (1, prev),
                (None, Base::Anew) => (1, None),
                (None, Base::Nowhere) => return,
            };
            if self.fork.is_some_and(|fork| fork <= seq) {
                return;
            }
            let Some((id, fact)) = self.entitled_at(seq, rule).next() else {
                return;
            };
            let follows = fact.prev == prev || (self.tip.is_none() && self.base == Base::Anew);
            if !follows || !(rule.ready)(rule.epoch, &fact.item) {
                return;
            }
            self.tip = Some((seq, id));
            self.release(&((rule.epoch, seq), id), pool);
        }
    }

    /// Two records of one version: neither counts, and both are kept.
    fn fork_at(&mut self, seq: u64, rule: &Rule<'_, T>, pool: &mut Pool) {
        let forked: Vec<RecordId> = self.entitled_at(seq, rule).map(|(id, _)| id).collect();
        for id in forked {
            self.release(&((rule.epoch, seq), id), pool);
        }
        let fork = self.fork.map_or(seq, |fork| fork.min(seq));
        self.fork = Some(fork);
        if self.tip.is_some_and(|(tip, _)| tip >= fork) {
            // Below the lowest fork each version has one record, and the tip has passed them all.
            let below = fork - 1;
            let id = self.entitled_at(below, rule).next().map(|(id, _)| id);
            self.tip = id.map(|id| (below, id));
        }
    }

    /// The entitled records of a version of the epoch in force, by id.
    fn entitled_at<'a>(
        &'a self,
        seq: u64,
        rule: &'a Rule<'_, T>,
    ) -> impl Iterator<Item = (RecordId, &'a Fact<T>)> {
        self.facts
            .range(at((rule.epoch, seq)))
            .filter(|(_, fact)| (rule.entitled)(rule.epoch, &fact.signer))
            .map(|((_, id), fact)| (*id, fact))
    }

    /// A record waits no longer.
    pub(super) fn release(&mut self, place: &Place, pool: &mut Pool) {
        if let Some(fact) = self.facts.get_mut(place) {
            pool.release(&mut fact.ticket);
        }
    }

    /// Seq of the tip; 0 before the epoch's first record.
    pub(super) fn tip_seq(&self) -> u64 {
        self.tip.map_or(0, |(seq, _)| seq)
    }

    /// The tip, or before the epoch's first record, what it must follow.
    pub(super) fn current(&self) -> Option<(Place, &Fact<T>)> {
        let tip = self.tip.map(|(seq, id)| ((self.epoch, seq), id));
        let place = tip.or(self.base_at)?;
        self.facts.get(&place).map(|fact| (place, fact))
    }

    /// Whether a record is the current one, or one that this replaced.
    pub(super) fn is_in_history(&self, place: Place, rule: &Rule<'_, T>) -> bool {
        let ((epoch, seq), id) = place;
        if epoch == rule.epoch {
            let connected = || self.entitled_at(seq, rule).any(|(other, _)| other == id);
            return seq <= self.tip_seq() && connected();
        }
        let mut older = self.base_at;
        while let Some(at) = older.filter(|at| at.0 > place.0) {
            older = self.before(at, rule);
        }
        older == Some(place)
    }

    /// The current record and those that it replaced, newest first.
    pub(super) fn history<'a>(
        &'a self,
        rule: &'a Rule<'a, T>,
    ) -> impl Iterator<Item = Place> + use<'a, T> {
        let first = self.current().map(|(place, _)| place);
        std::iter::successors(first, move |place| match place.0 {
            (epoch, 1) if epoch == rule.epoch => self.base_at,
            (epoch, seq) if epoch == rule.epoch => {
                let before = self.entitled_at(seq - 1, rule).next();
                before.map(|(id, _)| ((epoch, seq - 1), id))
            }
            _ => self.before(*place, rule),
        })
    }

    /// Where a record stands, if it is known.
    pub(super) fn place_of(&self, id: &RecordId) -> Option<Place> {
        self.facts
            .keys()
            .rev()
            .find(|(_, known)| known == id)
            .copied()
    }

    pub(super) fn fact(&self, place: &Place) -> Option<&Fact<T>> {
        self.facts.get(place)
    }

    /// Whether a record that is known waits for something.
    pub(super) fn waits(&self, place: &Place) -> Option<bool> {
        let fact = self.facts.get(place)?;
        let forked = place.0.0 == self.epoch && self.fork.is_some_and(|fork| fork <= place.0.1);
        Some(fact.ticket.is_some() && !forked)
    }

    /// Where the record stands that this one replaced, if it is known and its signer entitled.
    fn before(&self, place: Place, rule: &Rule<'_, T>) -> Option<Place> {
        let prev = self.facts.get(&place)?.prev?;
        let (epoch, seq) = place.0;
        let before = if seq > 1 {
            ((epoch, seq - 1), prev)
        } else {
            let below = ..*at((epoch, 0)).start();
            let mut older = self.facts.range(below).rev();
            *older.find(|((_, id), _)| *id == prev)?.0
        };
        let fact = self.facts.get(&before)?;
        (rule.entitled)(before.0.0, &fact.signer).then_some(before)
    }

    /// The two lowest ids at the lowest fork.
    pub(super) fn proof(&self, rule: &Rule<'_, T>) -> Option<[RecordId; 2]> {
        let mut forked = self.entitled_at(self.fork?, rule).map(|(id, _)| id);
        Some([forked.next()?, forked.next()?])
    }

    /// What the next record must say, if one may be signed: not where the chain is forked, and not
    /// where a later record is known already, which would be forked by it.
    pub(super) fn next(&self, rule: &Rule<'_, T>) -> Option<Link> {
        let seq = self.tip_seq() + 1;
        let (low, high) = (at((self.epoch, seq)), at((self.epoch, u64::MAX)));
        let mut later = self.facts.range(*low.start()..=*high.end());
        if self.fork.is_some() || later.any(|(_, fact)| (rule.entitled)(self.epoch, &fact.signer)) {
            return None;
        }
        let prev = match (self.tip, self.base) {
            (_, Base::Nowhere) => return None,
            (Some((_, id)), _) => Some(id),
            (None, Base::After(prev)) => prev,
            (None, Base::Anew) => self.newest_before(rule),
        };
        Some(Link { seq, prev })
    }

    /// The newest entitled record of the epochs before.
    fn newest_before(&self, rule: &Rule<'_, T>) -> Option<RecordId> {
        let below = ..*at((self.epoch, 0)).start();
        let mut older = self.facts.range(below).rev();
        older
            .find(|(((epoch, _), _), fact)| (rule.entitled)(*epoch, &fact.signer))
            .map(|((_, id), _)| *id)
    }
}
