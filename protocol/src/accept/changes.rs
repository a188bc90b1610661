//! Changes: what publishers signed, and which of it heads may take in.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::{RecordId, RepositoryId};
use crate::key::PublicKey;
use crate::record::Record;

use super::held::HeadItem;
use super::pool::{Pool, Ticket, Waiting};

/// A change record, as far as heads rest on it.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    pub(super) repository: RepositoryId,
    pub(super) epoch: u64,
    pub(super) signer: PublicKey,
    pub(super) reference: Box<str>,
    entitled: bool,
    /// While it waits for its signer's right.
    ticket: Option<Ticket>,
}

impl Staged {
    /// A change that a key signs in an epoch.
    pub(super) fn new(
        epoch: u64,
        signer: PublicKey,
        repository: RepositoryId,
        reference: &str,
    ) -> Self {
        Self {
            repository,
            epoch,
            signer,
            reference: reference.into(),
            entitled: false,
            ticket: None,
        }
    }
}

/// All changes of a namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    staged: BTreeMap<RecordId, Staged>,
    /// Those whose signer is not entitled, as far as is known, by signer.
    unentitled: BTreeSet<(PublicKey, RecordId)>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    pub(super) fn contains(&self, id: &RecordId) -> bool {
        self.staged.contains_key(id)
    }

    /// Whether a change that is known waits for its signer's right.
    pub(super) fn waits(&self, id: &RecordId) -> Option<bool> {
        Some(self.staged.get(id)?.ticket.is_some())
    }

    /// Whether a head's changes are known, entitled, and of its repository and epoch.
    pub(super) fn are_ready(&self, repository: RepositoryId, epoch: u64, head: &HeadItem) -> bool {
        head.changes.iter().all(|id| {
            self.staged.get(id).is_some_and(|change| {
                change.entitled && change.repository == repository && change.epoch == epoch
            })
        })
    }

    /// Adds a change whose signer is entitled.
    pub(super) fn add(&mut self, id: RecordId, mut change: Staged) {
        change.entitled = true;
        self.staged.insert(id, change);
    }

    /// Adds a change whose signer may yet be entitled.
    pub(super) fn hold(&mut self, record: &Record, mut change: Staged, pool: &mut Pool) {
        let id = record.id();
        let waiting = Waiting::Change(record.namespace(), id);
        change.ticket = Some(pool.admit(false, record.envelope().len(), waiting));
        self.unentitled.insert((change.signer, id));
        self.staged.insert(id, change);
    }

    pub(super) fn forget(&mut self, id: &RecordId) {
        if let Some(change) = self.staged.remove(id) {
            self.unentitled.remove(&(change.signer, *id));
        }
    }

    /// Judges anew those that wait for a right; gives the repositories of those that got it.
    pub(super) fn extend(
        &mut self,
        entitled: &dyn Fn(&Staged) -> bool,
        pool: &mut Pool,
    ) -> BTreeSet<RepositoryId> {
        let waiting = self.unentitled.iter().copied().collect();
        self.entitle(waiting, entitled, pool)
    }

    /// As [`Self::extend`], only those of one signer.
    pub(super) fn extend_for(
        &mut self,
        signer: PublicKey,
        entitled: &dyn Fn(&Staged) -> bool,
        pool: &mut Pool,
    ) -> BTreeSet<RepositoryId> {
        let (low, high) = ([0; RecordId::SIZE].into(), [0xff; RecordId::SIZE].into());
        let waiting = self.unentitled.range((signer, low)..=(signer, high));
        let waiting = waiting.copied().collect();
        self.entitle(waiting, entitled, pool)
    }

    fn entitle(
        &mut self,
        waiting: Vec<(PublicKey, RecordId)>,
        entitled: &dyn Fn(&Staged) -> bool,
        pool: &mut Pool,
    ) -> BTreeSet<RepositoryId> {
        let mut touched = BTreeSet::new();
        for (signer, id) in waiting {
            if let Some(change) = self.staged.get_mut(&id)
                && entitled(change)
            {
                change.entitled = true;
                pool.release(&mut change.ticket);
                self.unentitled.remove(&(signer, id));
                touched.insert(change.repository);
            }
        }
        touched
    }

    /// Judges all of them anew.
    pub(super) fn restart(&mut self, entitled: &dyn Fn(&Staged) -> bool, pool: &mut Pool) {
        self.unentitled.clear();
        for (id, change) in &mut self.staged {
            change.entitled = entitled(change);
            if change.entitled {
                pool.release(&mut change.ticket);
            } else {
                self.unentitled.insert((change.signer, *id));
            }
        }
    }
}
