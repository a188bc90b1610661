//! Attestations about one repository: so many, and no more.
//!
//! Anybody may sign any number, so those with the lowest ids are kept: which these are depends on the set
//! alone, and whoever wants to fill a log has to try longer and longer for each next one.

use std::collections::BTreeMap;

use crate::hash::RecordId;
use crate::key::PublicKey;
use crate::limits::ATTESTATIONS_MAX;
use crate::record::Attestation;

use super::pool::{Pool, Ticket};

#[derive(Debug, Clone)]
pub(super) struct Attested {
    pub(super) signer: PublicKey,
    pub(super) body: Attestation,
    /// While its repository is not known.
    pub(super) ticket: Option<Ticket>,
}

/// What is kept of one repository.
#[derive(Debug, Clone, Default)]
pub(super) struct AllAttested(BTreeMap<RecordId, Attested>);

impl AllAttested {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<&Attested> {
        self.0.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RecordId, &Attested)> {
        self.0.iter()
    }

    /// Whether one with this id would be kept.
    pub(super) fn has_room(&self, id: &RecordId) -> bool {
        self.0.len() < ATTESTATIONS_MAX
            || self.0.last_key_value().is_some_and(|(last, _)| id < last)
    }

    /// Adds one that there is room for; the one with the highest id makes it.
    pub(super) fn add(&mut self, id: RecordId, attested: Attested, pool: &mut Pool) {
        self.0.insert(id, attested);
        if self.0.len() > ATTESTATIONS_MAX
            && let Some((_, mut out)) = self.0.pop_last()
        {
            pool.release(&mut out.ticket);
        }
    }

    pub(super) fn forget(&mut self, id: &RecordId) {
        self.0.remove(id);
    }

    /// Their repository is known.
    pub(super) fn settle(&mut self, pool: &mut Pool) {
        for attested in self.0.values_mut() {
            pool.release(&mut attested.ticket);
        }
    }
}
