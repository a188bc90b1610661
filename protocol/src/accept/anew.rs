//! Chains that are begun anew in each epoch: names, freshness and accounts; how they are read, and what they show.

use std::collections::BTreeMap;

use crate::hash::{NamespaceId, RecordId};
use crate::key::PublicKey;
use crate::name::{RepoKind, RepoName};
use crate::record::{Freshness, Link, NamesTarget, Record, Visibility};

use super::chain::{Base, Chain, Fact, Place, Rule};
use super::course::Course;
use super::pool::{Pool, Waiting};
use super::{AccountView, Ledger, Refusal, Verdict};

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

/// Seq and prev of the next record of a chain, unless the namespace is frozen.
pub(super) fn next<T>(
    course: &Course,
    chain: Option<&Chain<T>>,
    entitled: &dyn Fn(u64, &PublicKey) -> bool,
) -> Option<Link> {
    if course.frozen.is_some() {
        return None;
    }
    let Some(chain) = chain else {
        return Some(Link { seq: 1, prev: None });
    };
    chain.next(&rule(course.epoch(), entitled))
}

impl Ledger {
    /// What a folded name leads to; `None` for one that was never given, or was released.
    pub fn name(
        &self,
        namespace: &NamespaceId,
        kind: RepoKind,
        name: &RepoName,
    ) -> Option<&NamesTarget> {
        let chain = self
            .spaces
            .get(namespace)?
            .names
            .get(&(kind, name.clone()))?;
        chain.current()?.1.item.as_ref()
    }

    /// All names of a namespace that lead somewhere, by kind and folded name.
    pub fn names(
        &self,
        namespace: &NamespaceId,
    ) -> impl Iterator<Item = (RepoKind, &RepoName, &NamesTarget)> {
        let names = self.spaces.get(namespace).map(|space| &space.names);
        names
            .into_iter()
            .flatten()
            .filter_map(|((kind, name), chain)| {
                let target = chain.current()?.1.item.as_ref()?;
                Some((*kind, name, target))
            })
    }

    /// The newest freshness, and its record.
    pub fn freshness(
        &self,
        namespace: &NamespaceId,
        visibility: Visibility,
    ) -> Option<(RecordId, &Freshness)> {
        let chain = self.spaces.get(namespace)?.freshness.get(&visibility)?;
        let ((_, id), fact) = chain.current()?;
        Some((id, &fact.item))
    }

    /// Seq and prev of the next record of a name, where the home may sign one.
    pub fn next_name(
        &self,
        namespace: &NamespaceId,
        kind: RepoKind,
        name: &RepoName,
    ) -> Option<Link> {
        let space = self.spaces.get(namespace)?;
        let (course, chain) = (
            space.course.as_ref()?,
            space.names.get(&(kind, name.clone())),
        );
        next(course, chain, &|epoch, key| course.is_home(epoch, key))
    }

    /// Seq and prev of the next freshness, where one may be signed.
    pub fn next_freshness(&self, namespace: &NamespaceId, visibility: Visibility) -> Option<Link> {
        let space = self.spaces.get(namespace)?;
        let (course, chain) = (space.course.as_ref()?, space.freshness.get(&visibility));
        next(course, chain, &|epoch, key| course.freshens(epoch, key))
    }

    /// What is in force for an account's key: entitled, or revoked.
    pub fn account(&self, namespace: &NamespaceId, key: &PublicKey) -> Option<AccountView<'_>> {
        self.spaces.get(namespace)?.accounts.current(key)
    }

    /// All accounts of a namespace, by key, the revoked among them.
    pub fn accounts(&self, namespace: &NamespaceId) -> impl Iterator<Item = AccountView<'_>> {
        let space = self.spaces.get(namespace);
        space.into_iter().flat_map(|space| space.accounts.iter())
    }

    /// Seq and prev of the next record of an account, where one may be signed.
    pub fn next_account(&self, namespace: &NamespaceId, key: &PublicKey) -> Option<Link> {
        let space = self.spaces.get(namespace)?;
        space.accounts.next(space.course.as_ref()?, key)
    }
}
