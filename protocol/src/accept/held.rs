//! A repository: its record, its heads, and what these take in.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::hash::{Blake3, RecordId, RepositoryId};
use crate::json::Object;
use crate::key::PublicKey;
use crate::record::{Card, Head, Repository, Rows};

use super::chain::{Base, Chain, Place, Version};
use super::course::Course;
use super::pool::{Pool, Ticket};

/// The rows that the epoch in force takes over.
#[derive(Debug, Clone)]
pub(super) enum Carried {
    /// It takes over nothing.
    Nothing,
    /// Not known yet.
    Missing,
    /// These.
    Rows(Arc<Rows>),
}

/// What a head says, without what its place says already.
#[derive(Debug, Clone)]
pub(super) struct HeadItem {
    pub(super) time: u64,
    pub(super) refs: Blake3,
    pub(super) changes: Box<[RecordId]>,
    /// Shared along a chain for as long as it stays the same.
    pub(super) shown: Arc<Shown>,
}

/// What seldom changes from head to head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) card: Card,
    pub(super) settings: Object,
}

/// A repository record.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) epoch: u64,
    pub(super) signer: PublicKey,
    pub(super) body: Repository,
    pub(super) ticket: Option<Ticket>,
}

/// A repository: its record, if known, and its heads.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) origin: Option<Origin>,
    /// What the first head of the epoch in force must follow.
    pub(super) base: Base,
    pub(super) heads: Chain<HeadItem>,
    /// Where each change stands in a head, connected or not.
    pub(super) takes: BTreeSet<(RecordId, Place)>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.origin.is_none() && self.heads.is_empty()
    }

    /// What its record says, if the epoch in force has it.
    pub(super) fn body(&self) -> Option<&Repository> {
        let origin = self.origin.as_ref()?;
        (self.base != Base::Nowhere).then_some(&origin.body)
    }

    /// Finds where its heads begin in the epoch in force.
    pub(super) fn rebase(
        &mut self,
        id: RepositoryId,
        course: &Course,
        carried: &Carried,
        pool: &mut Pool,
    ) {
        self.base = Base::Nowhere;
        let Some(origin) = &mut self.origin else {
            return;
        };
        if !course.is_home(origin.epoch, &origin.signer) {
            return;
        }
        pool.release(&mut origin.ticket);
        if origin.epoch == course.epoch() {
            self.base = Base::After(None);
        } else if let Carried::Rows(rows) = carried {
            self.base = rows.get(&id).map_or(Base::Nowhere, Base::After);
        }
    }

    /// What a head says, as it is kept.
    pub(super) fn item(&self, (epoch, seq): Version, time: u64, head: &Head) -> HeadItem {
        let shown = Shown {
            card: head.card.clone(),
            settings: head.settings.clone(),
        };
        let before = self.heads.any_at((epoch, seq - 1));
        let shown = before
            .map(|fact| &fact.item.shown)
            .filter(|before| ***before == shown)
            .map_or_else(|| Arc::new(shown), Arc::clone);
        HeadItem {
            time,
            refs: head.refs,
            changes: head.changes.as_slice().into(),
            shown,
        }
    }

    /// Forgets a head that waited.
    pub(super) fn forget_head(&mut self, place: &Place) {
        let forgotten = self.heads.forget(place);
        for change in forgotten.iter().flat_map(|fact| &fact.item.changes) {
            self.takes.remove(&(*change, *place));
        }
    }
}
