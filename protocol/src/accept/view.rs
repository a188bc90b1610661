//! What the state looks like from outside.

use crate::hash::{Blake3, NamespaceId, RecordId, RepositoryId};
use crate::json::Object;
use crate::key::PublicKey;
use crate::record::{Account, Card, Head, Link, Namespace, Repository};

/// A namespace as its record in force says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceView<'a> {
    /// Its id.
    pub id: NamespaceId,
    /// The record in force.
    pub record: RecordId,
    /// Epoch of that record.
    pub epoch: u64,
    /// Seq of that record within the epoch.
    pub seq: u64,
    /// What it says.
    pub body: &'a Namespace,
    /// Two records of which neither counts: the last agreed one is in force, and no home signs,
    /// until the recovery key has named one.
    pub frozen: Option<[RecordId; 2]>,
    /// The rows that the epoch takes over are not known, so none of the repositories in them is.
    pub lacks_rows: bool,
}

/// A repository that the namespace's epoch in force has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryView<'a> {
    /// Its id.
    pub id: RepositoryId,
    /// The namespace that it belongs to.
    pub namespace: NamespaceId,
    /// What its first record says.
    pub body: &'a Repository,
    /// The newest head whose whole chain of this epoch, and all changes in it, are known.
    pub head: Option<HeadView<'a>>,
    /// Two heads of one version, signed by the home: proof of equivocation. The head above is the
    /// last that was agreed.
    pub frozen: Option<[RecordId; 2]>,
    /// Seq and prev of the next head, where the home may sign one: not while the repository or the
    /// namespace is frozen, nor while a later head is known that isn't connected yet.
    pub next: Option<Link>,
}

/// A head in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadView<'a> {
    /// The head record.
    pub id: RecordId,
    /// Its epoch, which may be before that of the namespace.
    pub epoch: u64,
    /// Its seq within the epoch.
    pub seq: u64,
    /// When it was signed, in seconds since the Unix epoch.
    pub time: u64,
    /// The home that signed it.
    pub signer: PublicKey,
    /// BLAKE3 of the refs blob.
    pub refs: Blake3,
    /// Change records that it takes in.
    pub changes: &'a [RecordId],
    /// What listings and filters read.
    pub card: &'a Card,
    /// Settings that peers honour.
    pub settings: &'a Object,
}

/// What is in force for an account: its newest record of the epoch in force, all before it known.
///
/// It may be a revocation. Where [`super::Ledger::next_account`] has no answer, a later record is known than
/// this, or two of one version: the home then takes in nothing from the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountView<'a> {
    /// The account record.
    pub id: RecordId,
    /// Its epoch, that of the namespace.
    pub epoch: u64,
    /// Its seq within the epoch.
    pub seq: u64,
    /// When it was signed, in seconds since the Unix epoch.
    pub time: u64,
    /// Who signed it.
    pub signer: PublicKey,
    /// What it says.
    pub body: &'a Account,
}

impl HeadView<'_> {
    /// The body of the head's record.
    pub fn to_body(&self) -> Head {
        Head {
            refs: self.refs,
            changes: self.changes.to_vec(),
            card: self.card.clone(),
            settings: self.settings.clone(),
        }
    }
}
