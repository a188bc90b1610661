//! Commit objects.

use crate::git::GitError;
use crate::hash::GitOid;

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    /// Name; undecodable bytes of foreign commits are shown as replacement characters.
    pub name: String,
    /// Mail address, or whatever stands in its place.
    pub email: String,
    /// Seconds since the Unix epoch; 0 where a foreign commit has no sensible time.
    pub time_s: u64,
}

/// A commit to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCommit {
    /// The root tree.
    pub tree: GitOid,
    /// Parents, first the one that was built upon.
    pub parents: Vec<GitOid>,
    /// Who made the content.
    pub author: Signature,
    /// Who made the commit.
    pub committer: Signature,
    /// The whole message, written as it is.
    pub message: String,
}

impl NewCommit {
    /// The object's bytes, times in UTC.
    ///
    /// Refuses NUL, newlines, `<` and `>` in names and addresses, NUL in messages, and what exceeds
    /// `limits`.
    pub fn encode(&self) -> Result<Vec<u8>, GitError> {
        todo!()
    }
}

/// What a commit object says. The object itself is kept verbatim; this is never written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitObject {
    /// The root tree.
    pub tree: GitOid,
    /// Parents in their order.
    pub parents: Vec<GitOid>,
    /// Who made the content.
    pub author: Signature,
    /// Who made the commit.
    pub committer: Signature,
    /// First line of the message.
    pub title: String,
    /// The rest of the message, without blank lines at either end.
    pub body: String,
}

impl CommitObject {
    /// Reads a commit object of any origin: signed, with unknown headers, in an odd encoding.
    pub fn parse(_bytes: &[u8]) -> Result<Self, GitError> {
        todo!()
    }
}
