//! A key of somebody who may publish in a namespace, without being named by its root.

use crate::hash::{Blake3, RepositoryId};
use crate::json::Object;
use crate::key::PublicKey;

use super::members::{Members, texts};
use super::{RecordError, scope};

/// An account record: one chain for each namespace and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose changes are entitled, in this namespace only.
    pub key: PublicKey,
    /// BLAKE3 of a blob with the holder's plain name and a random salt, which can be dropped without
    /// breaking the chain.
    pub holder: Option<Blake3>,
    /// Where; all repositories of the namespace if absent.
    pub repositories: Option<Vec<RepositoryId>>,
    /// Which refs, as patterns in which `*` stands for any text; all if absent.
    pub refs: Option<Vec<String>>,
    /// Seconds since the Unix epoch after which the home takes in nothing more from the key. Never
    /// decides whether a record is accepted.
    pub end: Option<u64>,
    /// From this record on the home takes in nothing from the key; the record itself grants nothing.
    pub revoked: bool,
}

impl Account {
    pub(super) const MEMBERS: &[&str] =
        &["key", "holder", "repositories", "refs", "end", "revoked"];

    /// Whether it lets its key move that ref of that repository.
    pub fn publishes(&self, repository: &RepositoryId, reference: &str) -> bool {
        let (repositories, refs) = (self.repositories.as_deref(), self.refs.as_deref());
        !self.revoked && scope::covers(repositories, refs, repository, reference)
    }

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let key: PublicKey = members.parsed("key")?;
        if !key.signs_records() {
            return Err(members.wrong("key", "is a key that signs no records"));
        }
        Ok(Self {
            key,
            holder: members.parsed_or_null("holder")?,
            repositories: scope::repositories(members)?,
            refs: scope::refs(members)?,
            end: members.integer_or_null("end")?,
            revoked: members.boolean("revoked")?,
        })
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        payload.set("key", self.key.to_string());
        payload.set("holder", self.holder.map(|hash| hash.to_hex()));
        payload.set("repositories", self.repositories.as_deref().map(texts));
        payload.set("refs", self.refs.as_deref().map(texts));
        payload.set("end", self.end);
        payload.set("revoked", self.revoked);
    }
}
