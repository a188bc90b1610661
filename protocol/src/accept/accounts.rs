//! Accounts: keys that are let publish by account records, which keys of the root's choice sign.
//!
//! Two things follow from these records. The chain of a key says what its home takes in from it now: the newest
//! connected record. Whether a change is accepted, each entitled record of its epoch decides by itself, were it
//! replaced, revoked or forked since, or stood above a gap: as with the roles that a namespace record gives, the
//! records of an epoch only ever add to what is accepted in it, and so their order matters nothing.
//!
//! Invariant: once its signer is entitled, an account record waits no more, and is never dropped; changes may
//! rest on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::key::PublicKey;
use crate::record::{Account, Link, Record};

use super::anew;
use super::chain::{Chain, Fact, Place};
use super::changes::Staged;
use super::course::Course;
use super::pool::{Pool, Waiting};
use super::{AccountView, Verdict};

/// What one account record says.
#[derive(Debug, Clone)]
struct Granted {
    time: u64,
    body: Account,
}

/// The account records of one namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    chains: BTreeMap<PublicKey, Chain<Granted>>,
    /// Those whose signer is not entitled, as far as is known.
    unentitled: BTreeSet<(PublicKey, Place)>,
}

/// Whether a change rests on this record among others.
fn grants(course: &Course, fact: &Fact<Granted>, change: &Staged) -> bool {
    let (repository, reference) = (&change.repository, &*change.reference);
    fact.item.body.publishes(repository, reference)
        && course.entitles(change.epoch, &fact.signer, repository, reference)
}

impl Accounts {
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Whether any record lets a change's signer publish there.
    pub(super) fn publish(&self, course: &Course, change: &Staged) -> bool {
        let Some(chain) = self.chains.get(&change.signer) else {
            return false;
        };
        // Mostly the newest does.
        let mut facts = chain.facts_of(change.epoch).rev();
        facts.any(|(_, fact)| grants(course, fact, change))
    }

    /// Whether one record lets a change's signer publish there.
    pub(super) fn publishes_by(&self, place: &Place, course: &Course, change: &Staged) -> bool {
        let chain = self.chains.get(&change.signer);
        let fact = chain.and_then(|chain| chain.fact(place));
        place.0.0 == change.epoch && fact.is_some_and(|fact| grants(course, fact, change))
    }

    pub(super) fn insert(
        &mut self,
        record: &Record,
        body: &Account,
        course: Option<&Course>,
        pool: &mut Pool,
    ) -> Verdict {
        let place = anew::place_of(record);
        let entitled = |epoch: u64, key: &PublicKey| {
            course.is_some_and(|course| course.signs_accounts(epoch, key))
        };
        let entered = anew::Entered {
            record,
            course,
            entitled: &entitled,
            settled: Course::grants_are_settled,
            waiting: Waiting::Account(record.namespace(), body.key, place),
        };
        let item = Granted {
            time: record.header().time,
            body: body.clone(),
        };
        let verdict = entered.insert_into(&mut self.chains, body.key, item, pool);
        if matches!(verdict, Verdict::Known | Verdict::Refused(_)) {
            return verdict;
        }
        if !entitled(place.0.0, &record.header().signers[0]) {
            self.unentitled.insert((body.key, place));
            return verdict;
        }
        if let Some(chain) = self.chains.get_mut(&body.key) {
            chain.release(&place, pool);
        }
        match verdict {
            // Above a gap it is not in force, and what it grants counts.
            Verdict::Waiting => Verdict::Accepted,
            other => other,
        }
    }

    /// Follows new roles: records that waited for them count.
    pub(super) fn extend(&mut self, course: &Course, pool: &mut Pool) {
        let mut touched = BTreeSet::new();
        let chains = &mut self.chains;
        self.unentitled.retain(|(key, place)| {
            let Some(chain) = chains.get_mut(key) else {
                return false;
            };
            let signer = chain.fact(place).map(|fact| fact.signer);
            let entitled = signer.is_some_and(|signer| course.signs_accounts(place.0.0, &signer));
            if entitled {
                chain.release(place, pool);
                touched.insert(*key);
            }
            !entitled
        });
        let entitled = |epoch: u64, key: &PublicKey| course.signs_accounts(epoch, key);
        for key in touched {
            if let Some(chain) = self.chains.get_mut(&key) {
                chain.restart(&anew::rule(course.epoch(), &entitled), pool);
            }
        }
    }

    /// Follows another course: everything is read anew.
    pub(super) fn restart(&mut self, course: &Course, pool: &mut Pool) {
        self.unentitled.clear();
        let entitled = |epoch: u64, key: &PublicKey| course.signs_accounts(epoch, key);
        for (key, chain) in &mut self.chains {
            chain.restart(&anew::rule(course.epoch(), &entitled), pool);
            let facts = chain.facts().map(|(place, fact)| (*place, fact.signer));
            let (count, wait): (Vec<_>, Vec<_>) =
                facts.partition(|((version, _), signer)| entitled(version.0, signer));
            for (place, _) in count {
                chain.release(&place, pool);
            }
            let wait = wait.into_iter().map(|(place, _)| (*key, place));
            self.unentitled.extend(wait);
        }
    }

    /// Whether a record that is known waits for its signer's role.
    pub(super) fn waits(&self, key: &PublicKey, place: &Place) -> Option<bool> {
        Some(self.chains.get(key)?.fact(place)?.ticket.is_some())
    }

    pub(super) fn forget(&mut self, key: &PublicKey, place: &Place) {
        anew::forget(&mut self.chains, key, place);
        self.unentitled.remove(&(*key, *place));
    }

    /// What is in force for a key.
    pub(super) fn current(&self, key: &PublicKey) -> Option<AccountView<'_>> {
        let (((epoch, seq), id), fact) = self.chains.get(key)?.current()?;
        Some(AccountView {
            id,
            epoch,
            seq,
            time: fact.item.time,
            signer: fact.signer,
            body: &fact.item.body,
        })
    }

    /// All that is in force, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = AccountView<'_>> {
        self.chains.keys().filter_map(|key| self.current(key))
    }

    /// Seq and prev of a key's next record.
    pub(super) fn next(&self, course: &Course, key: &PublicKey) -> Option<Link> {
        let chain = self.chains.get(key);
        anew::next(course, chain, &|epoch, key| {
            course.signs_accounts(epoch, key)
        })
    }
}
