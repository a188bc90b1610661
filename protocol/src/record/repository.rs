//! A repository begins.

use crate::json::Object;
use crate::name::{RepoKind, RepoName};

use super::members::Members;
use super::{Nonce, RecordError};

/// A repository record; its id is the repository's, which everything else names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// What it holds, for ever.
    pub kind: RepoKind,
    /// Its first name, as first given; what it is called now, names records say.
    pub name: RepoName,
    /// Makes two repositories of one name two.
    pub nonce: Nonce,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
}

impl Repository {
    pub(super) const MEMBERS: &[&str] = &["kind", "name", "nonce", "created_at"];

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            kind: members.parsed("kind")?,
            name: members.parsed("name")?,
            nonce: members.parsed("nonce")?,
            created_at: members.integer("created_at")?,
        })
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        payload.set("kind", self.kind.as_str());
        payload.set("name", self.name.as_str());
        payload.set("nonce", self.nonce.to_string());
        payload.set("created_at", self.created_at);
    }
}
