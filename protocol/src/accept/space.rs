//! All that is known of one namespace.

use std::collections::BTreeMap;

use crate::hash::{RecordId, RepositoryId};
use crate::key::PublicKey;
use crate::name::{RepoKind, RepoName};
use crate::record::{
    Account, Attestation, Body, Change, Freshness, Head, NamesTarget, Namespace, Record,
    Repository, Visibility,
};

use super::accounts::Accounts;
use super::attested::{AllAttested, Attested};
use super::chain::{Base, Chain, Place, Rule};
use super::changes::{Changes, Staged};
use super::course::Course;
use super::held::{Carried, HeadItem, Held, Origin};
use super::pool::{Pool, Waiting};
use super::tree::{Planted, Tree};
use super::{Refusal, Verdict, anew};

/// State of one namespace: its records, and what follows from them.
#[derive(Debug, Clone, Default)]
pub(super) struct Space {
    pub(super) tree: Tree,
    pub(super) course: Option<Course>,
    repositories: BTreeMap<RepositoryId, Held>,
    pub(super) names: BTreeMap<(RepoKind, RepoName), Chain<Option<NamesTarget>>>,
    pub(super) freshness: BTreeMap<Visibility, Chain<Freshness>>,
    changes: Changes,
    pub(super) accounts: Accounts,
    attested: BTreeMap<RepositoryId, AllAttested>,
}

/// Calls `$run` with the rule of a repository's heads.
macro_rules! with_heads_rule {
    ($course:expr, $changes:expr, $repository:expr, $base:expr, |$rule:ident| $run:expr) => {{
        let (course, changes, repository): (&Course, &Changes, RepositoryId) =
            ($course, $changes, $repository);
        let entitled = |epoch: u64, key: &PublicKey| course.is_home(epoch, key);
        let ready = |epoch: u64, head: &HeadItem| changes.are_ready(repository, epoch, head);
        let $rule = Rule {
            epoch: course.epoch(),
            base: $base,
            entitled: &entitled,
            ready: &ready,
        };
        $run
    }};
}

impl Space {
    pub(super) fn is_empty(&self) -> bool {
        self.tree.is_empty()
            && self.repositories.is_empty()
            && self.names.is_empty()
            && self.freshness.is_empty()
            && self.changes.is_empty()
            && self.accounts.is_empty()
            && self.attested.is_empty()
    }

    pub(super) fn repository(&self, id: &RepositoryId) -> Option<&Held> {
        self.repositories.get(id)
    }

    /// Whether a record waits for something; `None` where it is not known.
    pub(super) fn waits(&self, record: &Record) -> Option<bool> {
        let id = record.id();
        match (record.body(), record.header().repository) {
            (Body::Namespace(_), _) => self.tree.waits(&id),
            (Body::Repository(_), _) => {
                let held = self.repositories.get(&RepositoryId::from(id))?;
                Some(held.origin.as_ref()?.ticket.is_some())
            }
            (Body::Change(_), _) => self.changes.waits(&id),
            (Body::Head(_), repository) => {
                let held = self.repositories.get(&repository?)?;
                held.heads.waits(&anew::place_of(record))
            }
            (Body::Names(body), _) => {
                let chain = self.names.get(&(body.kind, body.name.clone()))?;
                chain.waits(&anew::place_of(record))
            }
            (Body::Attestation(_), repository) => {
                let attested = self.attested.get(&repository?)?.get(&id)?;
                Some(attested.ticket.is_some())
            }
            (Body::Freshness(body), _) => {
                let chain = self.freshness.get(&body.visibility)?;
                chain.waits(&anew::place_of(record))
            }
            (Body::Account(body), _) => self.accounts.waits(&body.key, &anew::place_of(record)),
        }
    }

    /// Where a repository's heads stand, from the one in force back.
    pub(super) fn heads(&self, id: &RepositoryId, max: usize) -> Vec<Place> {
        let found = self.with_heads(id, |held, rule| {
            Some(held.heads.history(rule).take(max).collect())
        });
        found.unwrap_or_default()
    }

    /// Where a head stands, if it is the one in force or one that this replaced.
    pub(super) fn head(&self, id: &RepositoryId, head: &RecordId) -> Option<Place> {
        self.with_heads(id, |held, rule| {
            let place = held.heads.place_of(head)?;
            held.heads.is_in_history(place, rule).then_some(place)
        })
    }

    /// Repositories, whether the epoch in force has them or not.
    pub(super) fn repositories(&self) -> impl Iterator<Item = &RepositoryId> {
        self.repositories.keys()
    }

    /// Forgets what no longer waits.
    pub(super) fn forget(&mut self, waiting: &Waiting) {
        match waiting {
            Waiting::Namespace(_, id) => self.tree.forget(id),
            Waiting::Repository(_, id) => {
                if let Some(held) = self.repositories.get_mut(id) {
                    held.origin = None;
                }
                self.drop_if_empty(id);
            }
            Waiting::Change(_, id) => self.changes.forget(id),
            Waiting::Head(_, id, place) => {
                if let Some(held) = self.repositories.get_mut(id) {
                    held.forget_head(place);
                }
                self.drop_if_empty(id);
            }
            Waiting::Names(_, name, place) => anew::forget(&mut self.names, name, place),
            Waiting::Freshness(_, visibility, place) => {
                anew::forget(&mut self.freshness, visibility, place);
            }
            Waiting::Attestation(_, repository, id) => {
                if let Some(attested) = self.attested.get_mut(repository) {
                    attested.forget(id);
                    if attested.is_empty() {
                        self.attested.remove(repository);
                    }
                }
            }
            Waiting::Account(_, key, place) => self.accounts.forget(key, place),
            Waiting::Rows(_) => {}
        }
    }

    fn drop_if_empty(&mut self, id: &RepositoryId) {
        if self.repositories.get(id).is_some_and(Held::is_empty) {
            self.repositories.remove(id);
        }
    }

    /// Follows records that the tree has grown; `true` if more than grants was added.
    pub(super) fn follow(&mut self) -> bool {
        self.tree.follow(&mut self.course)
    }

    /// Follows new grants: nothing that was in the state leaves it.
    pub(super) fn extend(&mut self, pool: &mut Pool) {
        let Some(course) = &self.course else { return };
        self.accounts.extend(course, pool);
        let entitled = |change: &Staged| publishes(course, &self.accounts, change);
        for id in self.changes.extend(&entitled, pool) {
            self.advance(id, pool);
        }
        self.restart_freshness(pool);
    }

    /// Follows another course, or other rows: everything is read anew.
    pub(super) fn restart(&mut self, carried: &Carried, pool: &mut Pool) {
        let Some(course) = &self.course else { return };
        self.accounts.restart(course, pool);
        let entitled = |change: &Staged| publishes(course, &self.accounts, change);
        self.changes.restart(&entitled, pool);
        let entitled = |epoch: u64, key: &PublicKey| course.is_home(epoch, key);
        for chain in self.names.values_mut() {
            chain.restart(&anew::rule(course.epoch(), &entitled), pool);
        }
        let ids: Vec<RepositoryId> = self.repositories.keys().copied().collect();
        for id in ids {
            self.restart_repository(id, carried, pool);
        }
        self.restart_freshness(pool);
    }

    fn restart_freshness(&mut self, pool: &mut Pool) {
        let Some(course) = &self.course else { return };
        let entitled = |epoch: u64, key: &PublicKey| course.freshens(epoch, key);
        for chain in self.freshness.values_mut() {
            chain.restart(&anew::rule(course.epoch(), &entitled), pool);
        }
    }

    /// Reads a repository's record and heads anew.
    fn restart_repository(&mut self, id: RepositoryId, carried: &Carried, pool: &mut Pool) {
        let (Some(course), Some(held)) = (&self.course, self.repositories.get_mut(&id)) else {
            return;
        };
        held.rebase(id, course, carried, pool);
        with_heads_rule!(course, &self.changes, id, held.base, |rule| {
            held.heads.restart(&rule, pool);
        });
        if is_settled(held)
            && let Some(attested) = self.attested.get_mut(&id)
        {
            attested.settle(pool);
        }
    }

    /// Moves a repository's head over what has become connected.
    fn advance(&mut self, id: RepositoryId, pool: &mut Pool) {
        let (Some(course), Some(held)) = (&self.course, self.repositories.get_mut(&id)) else {
            return;
        };
        with_heads_rule!(course, &self.changes, id, held.base, |rule| {
            held.heads.advance(&rule, pool);
        });
    }

    pub(super) fn plant(&mut self, record: &Record, body: &Namespace, pool: &mut Pool) -> Planted {
        let waiting = Waiting::Namespace(record.namespace(), record.id());
        self.tree
            .plant(record.id(), record.header(), body, pool, |pool| {
                pool.admit(false, record.envelope().len(), waiting)
            })
    }

    pub(super) fn insert_repository(
        &mut self,
        record: &Record,
        body: &Repository,
        carried: &Carried,
        pool: &mut Pool,
    ) -> Verdict {
        let id = RepositoryId::from(record.id());
        let epoch = record.header().epoch;
        let signer = record.header().signers[0];
        let known = self.repositories.get(&id);
        if known.is_some_and(|held| held.origin.is_some()) {
            return Verdict::Known;
        }
        let entitled = match self.is_home(epoch, &signer) {
            Ok(entitled) => entitled,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        let waiting = Waiting::Repository(record.namespace(), id);
        let ticket = (!entitled).then(|| pool.admit(false, record.envelope().len(), waiting));
        let held = self.repositories.entry(id).or_default();
        held.origin = Some(Origin {
            epoch,
            signer,
            body: body.clone(),
            ticket,
        });
        self.restart_repository(id, carried, pool);
        let in_force = self.repositories[&id].base != Base::Nowhere;
        match (in_force, entitled, carried) {
            (true, ..) => Verdict::Accepted,
            (false, false, _) | (_, _, Carried::Missing) => Verdict::Waiting,
            (false, true, _) => Verdict::Kept,
        }
    }

    pub(super) fn insert_change(
        &mut self,
        record: &Record,
        body: &Change,
        repository: RepositoryId,
        pool: &mut Pool,
    ) -> Verdict {
        if self.changes.contains(&record.id()) {
            return Verdict::Known;
        }
        let (epoch, signer) = (record.header().epoch, record.header().signers[0]);
        let change = Staged::new(epoch, signer, repository, &body.reference);
        match &self.course {
            Some(course) if publishes(course, &self.accounts, &change) => {
                self.changes.add(record.id(), change);
            }
            Some(course) if course.changes_are_settled(epoch) => {
                return Verdict::Refused(Refusal::NotEntitled);
            }
            _ => {
                self.changes.hold(record, change, pool);
                return Verdict::Waiting;
            }
        }
        self.advance(repository, pool);
        let in_force = self.course.as_ref().map(Course::epoch);
        if in_force == Some(epoch) {
            Verdict::Accepted
        } else {
            Verdict::Kept
        }
    }

    pub(super) fn insert_head(
        &mut self,
        record: &Record,
        body: &Head,
        repository: RepositoryId,
        carried: &Carried,
        pool: &mut Pool,
    ) -> Verdict {
        let place = anew::place_of(record);
        let epoch = place.0.0;
        let held = self.repositories.get(&repository);
        if held.is_some_and(|held| held.heads.contains(&place)) {
            return Verdict::Known;
        }
        let signer = record.header().signers[0];
        let entitled = match self.is_home(epoch, &signer) {
            Ok(entitled) => entitled,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        if held.is_none() {
            self.repositories.insert(repository, Held::default());
            self.restart_repository(repository, carried, pool);
        }
        let held = self.repositories.entry(repository).or_default();
        let item = held.item(place.0, record.header().time, body);
        let waiting = Waiting::Head(record.namespace(), repository, place);
        let fact = anew::fact_of(record, item, entitled, waiting, pool);
        let takes = body.changes.iter().map(|change| (*change, place));
        held.takes.extend(takes);
        let Some(course) = self.course.as_ref().filter(|_| entitled) else {
            held.heads.hold(place, fact);
            return Verdict::Waiting;
        };
        with_heads_rule!(course, &self.changes, repository, held.base, |rule| {
            let standing = held.heads.enter(place, fact, &rule, pool);
            Verdict::of(standing, || held.heads.proof(&rule))
        })
    }

    pub(super) fn insert_names(
        &mut self,
        record: &Record,
        name: (RepoKind, RepoName),
        target: Option<NamesTarget>,
        pool: &mut Pool,
    ) -> Verdict {
        let waiting = Waiting::Names(record.namespace(), name.clone(), anew::place_of(record));
        let course = self.course.as_ref();
        let entitled =
            |epoch: u64, key: &PublicKey| course.is_some_and(|course| course.is_home(epoch, key));
        let entered = anew::Entered {
            record,
            course,
            entitled: &entitled,
            settled: Course::home_is_settled,
            waiting,
        };
        entered.insert_into(&mut self.names, name, target, pool)
    }

    pub(super) fn insert_freshness(
        &mut self,
        record: &Record,
        body: &Freshness,
        pool: &mut Pool,
    ) -> Verdict {
        let waiting =
            Waiting::Freshness(record.namespace(), body.visibility, anew::place_of(record));
        let course = self.course.as_ref();
        let entitled =
            |epoch: u64, key: &PublicKey| course.is_some_and(|course| course.freshens(epoch, key));
        let entered = anew::Entered {
            record,
            course,
            entitled: &entitled,
            settled: Course::grants_are_settled,
            waiting,
        };
        entered.insert_into(&mut self.freshness, body.visibility, body.clone(), pool)
    }

    /// What it grants counts for changes that wait for it.
    pub(super) fn insert_account(
        &mut self,
        record: &Record,
        body: &Account,
        pool: &mut Pool,
    ) -> Verdict {
        let course = self.course.as_ref();
        let verdict = self.accounts.insert(record, body, course, pool);
        let (Some(course), Verdict::Accepted | Verdict::Kept | Verdict::Frozen(_)) =
            (course, verdict)
        else {
            return verdict;
        };
        let (accounts, place) = (&self.accounts, anew::place_of(record));
        let entitled = |change: &Staged| accounts.publishes_by(&place, course, change);
        for id in self.changes.extend_for(body.key, &entitled, pool) {
            self.advance(id, pool);
        }
        verdict
    }

    /// Whether a key may sign changes of a ref in the epoch in force.
    pub(super) fn may_publish(
        &self,
        key: &PublicKey,
        repository: &RepositoryId,
        reference: &str,
    ) -> bool {
        self.course.as_ref().is_some_and(|course| {
            let change = Staged::new(course.epoch(), *key, *repository, reference);
            publishes(course, &self.accounts, &change)
        })
    }

    /// Anybody may attest: what it is worth is for the reader to say.
    pub(super) fn insert_attestation(
        &mut self,
        record: &Record,
        body: &Attestation,
        repository: RepositoryId,
        pool: &mut Pool,
    ) -> Verdict {
        let id = record.id();
        let known = self.repositories.get(&repository).is_some_and(is_settled);
        let attested = self.attested.entry(repository).or_default();
        if attested.get(&id).is_some() {
            return Verdict::Known;
        }
        if !attested.has_room(&id) {
            // What waits may be forgotten, and so leave room again.
            return if known {
                Verdict::Refused(Refusal::Crowded)
            } else {
                Verdict::Waiting
            };
        }
        let waiting = Waiting::Attestation(record.namespace(), repository, id);
        let ticket = (!known).then(|| pool.admit(false, record.envelope().len(), waiting));
        let made = Attested {
            signer: record.header().signers[0],
            body: body.clone(),
            ticket,
        };
        attested.add(id, made, pool);
        if known {
            Verdict::Accepted
        } else {
            Verdict::Waiting
        }
    }

    pub(super) fn attestations(
        &self,
        id: &RepositoryId,
    ) -> impl Iterator<Item = (RecordId, PublicKey, &Attestation)> {
        let settled = self.repositories.get(id).is_some_and(is_settled);
        let attested = self.attested.get(id).filter(|_| settled);
        let all = attested.into_iter().flat_map(AllAttested::iter);
        all.map(|(id, made)| (*id, made.signer, &made.body))
    }

    /// Whether a key is the home of an epoch, as far as is known; an error if it never will be.
    fn is_home(&self, epoch: u64, key: &PublicKey) -> Result<bool, Refusal> {
        match &self.course {
            Some(course) if course.is_home(epoch, key) => Ok(true),
            Some(course) if course.home_is_settled(epoch) => Err(Refusal::NotEntitled),
            _ => Ok(false),
        }
    }

    /// Runs with a repository and the rule of its heads.
    pub(super) fn with_heads<R>(
        &self,
        id: &RepositoryId,
        run: impl FnOnce(&Held, &Rule<'_, HeadItem>) -> Option<R>,
    ) -> Option<R> {
        let (course, held) = (self.course.as_ref()?, self.repositories.get(id)?);
        with_heads_rule!(course, &self.changes, *id, held.base, |rule| run(
            held, &rule
        ))
    }

    /// The first head in the history of the one in force that took a change in.
    pub(super) fn taken_in(&self, id: &RepositoryId, change: &RecordId) -> Option<RecordId> {
        let first = ((0, 0), RecordId::from_bytes([0; RecordId::SIZE]));
        self.with_heads(id, |held, rule| {
            held.takes
                .range((*change, first)..)
                .take_while(|(taken, _)| taken == change)
                .find(|(_, place)| held.heads.is_in_history(*place, rule))
                .map(|(_, (_, head))| *head)
        })
    }
}

/// Whether a repository's record is known, and its signer was the home of its epoch.
fn is_settled(held: &Held) -> bool {
    let origin = held.origin.as_ref();
    origin.is_some_and(|origin| origin.ticket.is_none())
}

/// Whether a change's signer may publish there: by a role, or by an account.
fn publishes(course: &Course, accounts: &Accounts, change: &Staged) -> bool {
    let (epoch, signer) = (change.epoch, &change.signer);
    course.publishes(epoch, signer, &change.repository, &change.reference)
        || accounts.publish(course, change)
}
