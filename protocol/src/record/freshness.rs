//! What was newest, and until when that is worth believing.

use std::fmt;
use std::str::FromStr;

use crate::hash::Blake3;
use crate::json::Object;

use super::RecordError;
use super::members::Members;
use super::namespace::words;

/// A freshness record: one chain for each namespace and visibility.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Which repositories it speaks of.
    pub visibility: Visibility,
    /// BLAKE3 of the rows of repositories and heads.
    pub root: Blake3,
    /// Seconds since the Unix epoch; compared where it is shown, never where it is accepted.
    pub good_until: u64,
}

words!(
    /// Who may see a repository.
    Visibility {
        /// Everybody.
        Public = "public",
        /// Its members.
        Private = "private",
    }
);

impl Freshness {
    pub(super) const MEMBERS: &[&str] = &["visibility", "root", "good_until"];

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            visibility: members.parsed("visibility")?,
            root: members.parsed("root")?,
            good_until: members.integer("good_until")?,
        })
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        payload.set("visibility", self.visibility.to_string());
        payload.set("root", self.root.to_hex());
        payload.set("good_until", self.good_until);
    }
}
