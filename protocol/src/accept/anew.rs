//! Chains that are begun anew in each epoch: names and freshness.

use std::collections::BTreeMap;

use crate::key::PublicKey;
use crate::record::Record;

use super::chain::{Base, Chain, Fact, Place, Rule};
use super::course::Course;
use super::pool::{Pool, Waiting};
use super::{Refusal, Verdict};

fn always<T>(_: u64, _: &T) -> bool {
    true
}

/// Their rule: nothing that a record takes in can be missing.
pub(super) fn rule<T>(epoch: u64, entitled: &dyn Fn(u64, &PublicKey) -> bool) -> Rule<'_, T> {
    Rule {
        epoch,
        base: Base::Anew,
        entitled,
        ready: &always,
    }
}

/// A record of a chain that is begun anew in each epoch.
pub(super) struct Entered<'a> {
    pub(super) record: &'a Record,
    pub(super) course: Option<&'a Course>,
    pub(super) entitled: &'a dyn Fn(u64, &PublicKey) -> bool,
    /// Whether it is settled for good which keys are entitled in an epoch.
    pub(super) settled: fn(&Course, u64) -> bool,
    pub(super) waiting: Waiting,
}

impl Entered<'_> {
    pub(super) fn insert_into<K: Ord, T>(
        self,
        chains: &mut BTreeMap<K, Chain<T>>,
        key: K,
        item: T,
        pool: &mut Pool,
    ) -> Verdict {
        let place = place_of(self.record);
        let epoch = place.0.0;
        let in_force = self.course.map_or(0, Course::epoch);
        if chains.get(&key).is_some_and(|chain| chain.contains(&place)) {
            return Verdict::Known;
        }
        let signer = self.record.header().signers[0];
        let entitled = epoch <= in_force && (self.entitled)(epoch, &signer);
        if !entitled
            && self
                .course
                .is_some_and(|course| (self.settled)(course, epoch))
        {
            return Verdict::Refused(Refusal::NotEntitled);
        }
        let fact = fact_of(self.record, item, entitled, self.waiting, pool);
        let rule = rule(in_force, self.entitled);
        let chain = chains.entry(key).or_default();
        if chain.is_empty() {
            chain.restart(&rule, pool);
        }
        if !entitled {
            chain.hold(place, fact);
            return Verdict::Waiting;
        }
        let standing = chain.enter(place, fact, &rule, pool);
        Verdict::of(standing, || chain.proof(&rule))
    }
}

/// A fact that waits until it is connected.
pub(super) fn fact_of<T>(
    record: &Record,
    item: T,
    vouched: bool,
    waiting: Waiting,
    pool: &mut Pool,
) -> Fact<T> {
    Fact {
        prev: record.header().chain.and_then(|link| link.prev),
        signer: record.header().signers[0],
        ticket: Some(pool.admit(vouched, record.envelope().len(), waiting)),
        item,
    }
}

pub(super) fn place_of(record: &Record) -> Place {
    let seq = record.header().chain.map_or(0, |link| link.seq);
    ((record.header().epoch, seq), record.id())
}

/// Forgets a record that waited, and its chain if nothing is left of it.
pub(super) fn forget<K: Ord, T>(chains: &mut BTreeMap<K, Chain<T>>, key: &K, place: &Place) {
    if let Some(chain) = chains.get_mut(key) {
        chain.forget(place);
        if chain.is_empty() {
            chains.remove(key);
        }
    }
}
