//! Commit entries: where to find a commit, its files and its parents by BLAKE3.

use crate::format::FormatError;
use crate::hash::{Blake3, GitOid};

/// One commit, as the head's refs and its children's entries lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitEntry {
    /// Git's id of the commit.
    pub commit: GitOid,
    /// BLAKE3 of the commit object.
    pub object: Blake3,
    /// BLAKE3 of the root directory's manifest; unknown in partial mirrors.
    pub manifest: Option<Blake3>,
    /// BLAKE3 of each parent's commit entry, in the commit's order; unknown in shallow histories.
    pub parents: Vec<Option<Blake3>>,
}

impl CommitEntry {
    /// The commit entry's bytes.
    ///
    /// # Panics
    ///
    /// Where there are more parents than `PARENTS_MAX`; a commit that parses has no more.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a commit entry.
    pub fn decode(_bytes: &[u8]) -> Result<Self, FormatError> {
        todo!()
    }
}
