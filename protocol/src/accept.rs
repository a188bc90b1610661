//! Acceptance: what the records known so far add up to.
//!
//! A pure function without a clock. The state of a [`Ledger`] depends on the set of records it was
//! given, not on their order; the only exception is what had to be dropped for want of room, and is
//! asked for again. Signatures are verified before ([`Record::parse`]); here it is decided whether
//! the signer was entitled, which of two records wins, and where two exclude each other.
//!
//! Invariants:
//! - a head with a lower (epoch, seq) never replaces one with a higher within a course of the
//!   namespace: a repository goes back only by its root's new epoch, or by proof that its home signed
//!   two heads of one version;
//! - two heads of one version, signed by the home, stop the repository below them, and two namespace
//!   records of one version the namespace, whichever was seen first;
//! - no head is shown whose chain within the epoch, or one of whose changes, is unknown.

mod accounts;
mod anew;
mod attested;
mod chain;
mod changes;
mod course;
mod held;
mod pool;
mod space;
mod tree;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use view::{AccountView, HeadView, NamespaceView, RepositoryView};

use crate::hash::{Blake3, NamespaceId, RecordId, RepositoryId};
use crate::key::PublicKey;
use crate::record::{Attestation, Body, Namespace, Record, Rows};

use chain::{Fact, Place, Standing};
use held::{Carried, HeadItem};
use pool::{Pool, Ticket, Waiting};
use space::Space;
use tree::Planted;

/// Why a record can never be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The signer had no right to sign this in that epoch.
    #[error("its signer was not entitled to it in that epoch")]
    NotEntitled,
    /// The repository is another namespace's.
    #[error("its repository belongs to another namespace")]
    OtherNamespace,
    /// A namespace record signed by a key that is neither root nor recovery.
    #[error("a signer is neither a root key, old or new, nor the recovery key")]
    Stranger,
    /// A namespace record with too few signatures of the old or the new root.
    #[error("fewer root keys signed than the threshold asks")]
    Threshold,
    /// A namespace record whose epoch and seq are not the next after those of its `prev`.
    #[error("its epoch and seq do not follow those of `prev`")]
    Version,
    /// A namespace record that changes the home within an epoch.
    #[error("the home can change only with a new epoch")]
    Home,
    /// A namespace record that changes the recovery key without that key's signature.
    #[error("only the recovery key can replace itself")]
    Recovery,
    /// A namespace record that carries rows into the first epoch, or others within an epoch.
    #[error("what an epoch takes over is said once, when it begins")]
    Carried,
    /// An attestation about a repository of which as many with lower ids are kept as there may be.
    #[error("enough attestations with lower ids are kept of its repository")]
    Crowded,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the state.
    Accepted,
    /// It was given before.
    Known,
    /// Valid, and it changes nothing: of an epoch that is over, or on a branch that lost.
    Kept,
    /// Something that it rests on is missing: a record before it, a change, rows, an epoch, or a
    /// grant that may yet come.
    Waiting,
    /// It stands at or above two records of one version, of which neither counts: these.
    Frozen([RecordId; 2]),
    /// It will never be accepted, and is not kept.
    Refused(Refusal),
}

impl Verdict {
    fn of(standing: Standing, proof: impl FnOnce() -> Option<[RecordId; 2]>) -> Self {
        match standing {
            Standing::Connected => Self::Accepted,
            Standing::Older => Self::Kept,
            Standing::Gap => Self::Waiting,
            Standing::Forked => proof().map_or(Self::Waiting, Self::Frozen),
        }
    }
}

/// Rows that were given.
#[derive(Debug, Clone)]
struct HeldRows {
    rows: Arc<Rows>,
    /// While no namespace record names them.
    ticket: Option<Ticket>,
}

/// Records, and what they add up to.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    spaces: BTreeMap<NamespaceId, Space>,
    /// Which namespace a repository's record names.
    repositories: BTreeMap<RepositoryId, NamespaceId>,
    rows: BTreeMap<Blake3, HeldRows>,
    /// Which namespaces have a record that takes over rows.
    carried: BTreeMap<Blake3, BTreeSet<NamespaceId>>,
    pool: Pool,
}

impl Ledger {
    /// Takes a record in, together with all that waited for it.
    pub fn insert(&mut self, record: &Record) -> Verdict {
        let namespace = record.namespace();
        if let (Some(repository), true) =
            (record.header().repository, record.body().is_in_repository())
            && self
                .repositories
                .get(&repository)
                .is_some_and(|known| *known != namespace)
        {
            return Verdict::Refused(Refusal::OtherNamespace);
        }
        let verdict = match record.body() {
            Body::Namespace(body) => self.insert_namespace(record, body),
            _ => self.insert_under(record, namespace),
        };
        self.forget_overflow();
        if self.spaces.get(&namespace).is_some_and(Space::is_empty) {
            self.spaces.remove(&namespace);
        }
        verdict
    }

    /// Takes in rows that namespace records name by their hash.
    pub fn insert_rows(&mut self, rows: Rows) -> Verdict {
        let hash = rows.hash();
        if self.rows.contains_key(&hash) {
            return Verdict::Known;
        }
        let named = self.carried.get(&hash).cloned().unwrap_or_default();
        let bytes = rows.len() * 64;
        let ticket = named
            .is_empty()
            .then(|| self.pool.admit(false, bytes, Waiting::Rows(hash)));
        let rows = Arc::new(rows);
        self.rows.insert(hash, HeldRows { rows, ticket });
        for namespace in &named {
            self.restart(namespace);
        }
        self.forget_overflow();
        if named.is_empty() {
            Verdict::Waiting
        } else {
            Verdict::Accepted
        }
    }

    fn insert_under(&mut self, record: &Record, namespace: NamespaceId) -> Verdict {
        let carried = self.carried_by(&namespace);
        let space = self.spaces.entry(namespace).or_default();
        let pool = &mut self.pool;
        match (record.body(), record.header().repository) {
            (Body::Repository(body), _) => {
                let verdict = space.insert_repository(record, body, &carried, pool);
                if !matches!(verdict, Verdict::Refused(_)) {
                    self.repositories.insert(record.id().into(), namespace);
                }
                verdict
            }
            (Body::Change(body), Some(repository)) => {
                space.insert_change(record, body, repository, pool)
            }
            (Body::Head(body), Some(repository)) => {
                space.insert_head(record, body, repository, &carried, pool)
            }
            (Body::Names(body), _) => {
                let name = (body.kind, body.name.clone());
                space.insert_names(record, name, body.target.clone(), pool)
            }
            (Body::Freshness(body), _) => space.insert_freshness(record, body, pool),
            (Body::Account(body), _) => space.insert_account(record, body, pool),
            (Body::Attestation(body), Some(repository)) => {
                space.insert_attestation(record, body, repository, pool)
            }
            (Body::Namespace(_) | Body::Change(_) | Body::Head(_) | Body::Attestation(_), _) => {
                unreachable!("invariant: changes, heads and attestations name a repository")
            }
        }
    }

    fn insert_namespace(&mut self, record: &Record, body: &Namespace) -> Verdict {
        let namespace = record.namespace();
        let space = self.spaces.entry(namespace).or_default();
        if space.tree.contains(&record.id()) {
            return Verdict::Known;
        }
        match space.plant(record, body, &mut self.pool) {
            Planted::Refused(refusal) => return Verdict::Refused(refusal),
            Planted::Orphaned => return Verdict::Waiting,
            Planted::Grown(grown) => self.grow(namespace, &grown),
        }
        let course = self
            .spaces
            .get(&namespace)
            .and_then(|space| space.course.as_ref());
        match course {
            Some(course) if course.path.iter().rev().any(|id| *id == record.id()) => {
                Verdict::Accepted
            }
            Some(course) => course.frozen.map_or(Verdict::Kept, Verdict::Frozen),
            None => Verdict::Waiting,
        }
    }

    /// Follows records that a namespace's tree has grown.
    fn grow(&mut self, namespace: NamespaceId, grown: &[RecordId]) {
        let Some(space) = self.spaces.get_mut(&namespace) else {
            return;
        };
        let bodies = grown.iter().filter_map(|id| space.tree.get(id));
        for hash in bodies.filter_map(|(_, body)| body.carried) {
            self.carried.entry(hash).or_default().insert(namespace);
            if let Some(held) = self.rows.get_mut(&hash) {
                self.pool.release(&mut held.ticket);
            }
        }
        if space.follow() {
            self.restart(&namespace);
        } else {
            space.extend(&mut self.pool);
        }
    }

    fn restart(&mut self, namespace: &NamespaceId) {
        let carried = self.carried_by(namespace);
        if let Some(space) = self.spaces.get_mut(namespace) {
            space.restart(&carried, &mut self.pool);
        }
    }

    /// The rows that a namespace's epoch in force takes over.
    fn carried_by(&self, namespace: &NamespaceId) -> Carried {
        let course = self
            .spaces
            .get(namespace)
            .and_then(|space| space.course.as_ref());
        let Some(hash) = course.and_then(course::Course::carried) else {
            return Carried::Nothing;
        };
        self.rows.get(&hash).map_or(Carried::Missing, |held| {
            Carried::Rows(Arc::clone(&held.rows))
        })
    }

    /// Forgets the oldest of what waits, until the rest is within the limits.
    fn forget_overflow(&mut self) {
        while let Some(waiting) = self.pool.overflow() {
            let namespace = match &waiting {
                Waiting::Rows(hash) => {
                    self.rows.remove(hash);
                    continue;
                }
                Waiting::Repository(namespace, id) => {
                    self.repositories.remove(id);
                    namespace
                }
                Waiting::Namespace(namespace, _)
                | Waiting::Change(namespace, _)
                | Waiting::Head(namespace, ..)
                | Waiting::Names(namespace, ..)
                | Waiting::Freshness(namespace, ..)
                | Waiting::Attestation(namespace, ..)
                | Waiting::Account(namespace, ..) => namespace,
            };
            if let Some(space) = self.spaces.get_mut(namespace) {
                space.forget(&waiting);
                if space.is_empty() {
                    self.spaces.remove(namespace);
                }
            }
        }
    }

    /// How many records and rows wait for something.
    pub fn waiting(&self) -> usize {
        self.pool.len()
    }

    /// A namespace whose first record is known.
    pub fn namespace(&self, id: &NamespaceId) -> Option<NamespaceView<'_>> {
        let space = self.spaces.get(id)?;
        let course = space.course.as_ref()?;
        let record = *course.path.last()?;
        let ((epoch, seq), body) = space.tree.get(&record)?;
        Some(NamespaceView {
            id: *id,
            record,
            epoch,
            seq,
            body,
            frozen: course.frozen,
            lacks_rows: matches!(self.carried_by(id), Carried::Missing),
        })
    }

    /// All namespaces whose first record is known.
    pub fn namespaces(&self) -> impl Iterator<Item = NamespaceView<'_>> {
        self.spaces.keys().filter_map(|id| self.namespace(id))
    }

    /// A repository that its namespace's epoch in force has.
    pub fn repository(&self, id: &RepositoryId) -> Option<RepositoryView<'_>> {
        let namespace = *self.repositories.get(id)?;
        let space = self.spaces.get(&namespace)?;
        let known = space.repository(id)?;
        let agreed = space.course.as_ref()?.frozen.is_none();
        let body = known.body()?;
        let current = known.heads.current();
        let (frozen, next, ready) = space.with_heads(id, |known, rule| {
            let ready =
                current.is_some_and(|(((epoch, _), _), fact)| (rule.ready)(epoch, &fact.item));
            Some((known.heads.proof(rule), known.heads.next(rule), ready))
        })?;
        let head = current
            .filter(|_| ready)
            .map(|(place, fact)| head_view(place, fact));
        Some(RepositoryView {
            id: *id,
            namespace,
            body,
            head,
            frozen,
            next: next.filter(|_| agreed),
        })
    }

    /// A repository's head in force and those that it replaced, newest first, at most so many.
    pub fn heads(&self, id: &RepositoryId, max: usize) -> Vec<HeadView<'_>> {
        let known = || {
            self.repository(id)?.head?;
            let space = self.spaces.get(self.repositories.get(id)?)?;
            Some((space, space.repository(id)?))
        };
        let Some((space, held)) = known() else {
            return Vec::new();
        };
        let places = space.heads(id, max);
        let facts = places
            .into_iter()
            .map(|place| (place, held.heads.fact(&place)));
        facts
            .filter_map(|(place, fact)| Some(head_view(place, fact?)))
            .collect()
    }

    /// One head of a repository: the one in force, or one that it replaced; `None` for any other.
    pub fn head(&self, id: &RepositoryId, head: &RecordId) -> Option<HeadView<'_>> {
        self.repository(id)?.head?;
        let space = self.spaces.get(self.repositories.get(id)?)?;
        let place = space.head(id, head)?;
        let fact = space.repository(id)?.heads.fact(&place)?;
        Some(head_view(place, fact))
    }

    /// What was found of a repository, by whomever: record, signer, finding; at most `ATTESTATIONS_MAX`.
    pub fn attestations(
        &self,
        id: &RepositoryId,
    ) -> impl Iterator<Item = (RecordId, PublicKey, &Attestation)> {
        let namespace = self.repositories.get(id);
        let space = namespace.and_then(|namespace| self.spaces.get(namespace));
        space.into_iter().flat_map(|space| space.attestations(id))
    }

    /// Whether a record that was given waits for something; `None` where it was refused or forgotten.
    pub fn waits(&self, record: &Record) -> Option<bool> {
        self.spaces.get(&record.namespace())?.waits(record)
    }

    /// Repositories that name a namespace, in its epoch in force or not.
    pub fn repositories_of(
        &self,
        namespace: &NamespaceId,
    ) -> impl Iterator<Item = &RepositoryId> + use<'_> {
        let space = self.spaces.get(namespace);
        space.into_iter().flat_map(Space::repositories)
    }

    /// All repositories, by id.
    pub fn repositories(&self) -> impl Iterator<Item = RepositoryView<'_>> {
        self.repositories
            .keys()
            .filter_map(|id| self.repository(id))
    }

    /// Whether changes of a ref that a key signs in the epoch in force are accepted: a role or an account
    /// gave it the right at some time. What was dropped, revoked or has ended since, the home looks at
    /// before it takes one in.
    pub fn may_publish(
        &self,
        namespace: &NamespaceId,
        key: &PublicKey,
        repository: &RepositoryId,
        reference: &str,
    ) -> bool {
        let space = self.spaces.get(namespace);
        space.is_some_and(|space| space.may_publish(key, repository, reference))
    }

    /// The head, in the history of the one in force, that took a change in.
    pub fn taken_in(&self, repository: &RepositoryId, change: &RecordId) -> Option<RecordId> {
        let space = self.spaces.get(self.repositories.get(repository)?)?;
        space.taken_in(repository, change)
    }
}

fn head_view(((epoch, seq), id): Place, fact: &Fact<HeadItem>) -> HeadView<'_> {
    HeadView {
        id,
        epoch,
        seq,
        time: fact.item.time,
        signer: fact.signer,
        refs: fact.item.refs,
        changes: &fact.item.changes,
        card: &fact.item.shown.card,
        settings: &fact.item.shown.settings,
    }
}
