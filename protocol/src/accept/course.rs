//! The course of a namespace: its epochs, and whose signature counts in each.

use std::collections::BTreeMap;

use crate::hash::{Blake3, RecordId, RepositoryId};
use crate::key::PublicKey;
use crate::record::{Delegation, Namespace, Role};

/// What follows from the namespace records that won.
#[derive(Debug, Clone, Default)]
pub(super) struct Course {
    /// The records, from the first to the one in force.
    pub(super) path: Vec<RecordId>,
    /// Two records, after the last of the path, of which neither counts.
    pub(super) frozen: Option<[RecordId; 2]>,
    /// Epoch n at index n - 1.
    epochs: Vec<Epoch>,
    /// Whether a record of the path names a recovery key, which could replace all after it.
    recoverable: bool,
}

/// One epoch; its home and what it carries are the same in all its records.
#[derive(Debug, Clone)]
struct Epoch {
    home: PublicKey,
    carried: Option<Blake3>,
    /// What any record of the epoch granted: a key that loses its role is refused by the home at
    /// once, and by everybody from the next epoch on; what was taken in before stays valid.
    granted: BTreeMap<PublicKey, Vec<Delegation>>,
    /// Whether any key was given the role to sign account records.
    has_accounts: bool,
    /// Whether a recovery key could still replace its first record.
    home_is_open: bool,
    /// Whether a recovery key could still replace one of its records, or the one that ends it.
    grants_are_open: bool,
}

impl Course {
    /// Adds the next record of the path.
    pub(super) fn push(&mut self, id: RecordId, epoch: u64, body: &Namespace) {
        self.path.push(id);
        if epoch > self.epoch() {
            self.epochs.push(Epoch {
                home: body.home,
                carried: body.carried,
                granted: BTreeMap::new(),
                has_accounts: false,
                home_is_open: self.recoverable,
                grants_are_open: true,
            });
        }
        let Some(epoch) = self.epochs.last_mut() else {
            return;
        };
        self.recoverable |= body.recovery.is_some();
        epoch.grants_are_open = self.recoverable;
        for delegation in &body.delegated {
            epoch.has_accounts |= delegation.roles.contains(&Role::Account);
            let granted = epoch.granted.entry(delegation.key).or_default();
            if !granted.contains(delegation) {
                granted.push(delegation.clone());
            }
        }
    }

    /// The epoch in force.
    pub(super) fn epoch(&self) -> u64 {
        self.epochs.len() as u64
    }

    /// Hash of the rows that the epoch in force takes over.
    pub(super) fn carried(&self) -> Option<Blake3> {
        self.epochs.last().and_then(|epoch| epoch.carried)
    }

    fn at(&self, epoch: u64) -> Option<&Epoch> {
        self.epochs
            .get(usize::try_from(epoch.checked_sub(1)?).ok()?)
    }

    /// Whether a key is the home of an epoch.
    pub(super) fn is_home(&self, epoch: u64, key: &PublicKey) -> bool {
        self.at(epoch).is_some_and(|epoch| epoch.home == *key)
    }

    /// Whether it is settled for good which key is the home of an epoch.
    pub(super) fn home_is_settled(&self, epoch: u64) -> bool {
        self.at(epoch).is_some_and(|epoch| !epoch.home_is_open)
    }

    /// Whether it is settled for good which keys have roles in an epoch: not in that in force.
    pub(super) fn grants_are_settled(&self, epoch: u64) -> bool {
        let settled = self.at(epoch).is_some_and(|epoch| !epoch.grants_are_open);
        settled && epoch < self.epoch()
    }

    /// Whether a key may sign freshness in an epoch.
    pub(super) fn freshens(&self, epoch: u64, key: &PublicKey) -> bool {
        let freshens = |delegation: &Delegation| delegation.roles.contains(&Role::Freshness);
        self.is_home(epoch, key) || self.grants(epoch, key).iter().any(freshens)
    }

    /// Whether a key may sign account records in an epoch.
    pub(super) fn signs_accounts(&self, epoch: u64, key: &PublicKey) -> bool {
        let signs = |delegation: &Delegation| delegation.roles.contains(&Role::Account);
        self.grants(epoch, key).iter().any(signs)
    }

    /// Whether account records that a key signs in an epoch count for a ref: they give no right
    /// beyond where the root gave the role.
    pub(super) fn entitles(
        &self,
        epoch: u64,
        key: &PublicKey,
        repository: &RepositoryId,
        reference: &str,
    ) -> bool {
        self.grants(epoch, key)
            .iter()
            .any(|delegation| delegation.entitles(repository, reference))
    }

    /// Whether it is settled for good which changes of an epoch are entitled, by roles or by
    /// accounts: while any key may sign account records there, another may come.
    pub(super) fn changes_are_settled(&self, epoch: u64) -> bool {
        let may_come = self.at(epoch).is_some_and(|epoch| epoch.has_accounts);
        self.grants_are_settled(epoch) && !may_come
    }

    /// Whether a key was given the role to sign changes of a ref in an epoch.
    pub(super) fn publishes(
        &self,
        epoch: u64,
        key: &PublicKey,
        repository: &RepositoryId,
        reference: &str,
    ) -> bool {
        self.grants(epoch, key)
            .iter()
            .any(|delegation| delegation.publishes(repository, reference))
    }

    fn grants(&self, epoch: u64, key: &PublicKey) -> &[Delegation] {
        self.at(epoch)
            .and_then(|epoch| epoch.granted.get(key))
            .map_or(&[], Vec::as_slice)
    }
}
