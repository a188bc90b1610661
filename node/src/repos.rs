//! Repositories as readers see them: names, revisions, trees, histories, cards.
//!
//! Everything here is read from verified heads and manifests; nothing is shown that did not verify.
//! Blocking: reads go to the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_protocol::hash::{Blake3, GitOid, RepositoryId, Sha256};
use cairn_protocol::name::RepoKind;

use crate::store::StoreError;

/// Why a repository, revision or path could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// No such repository that the caller may see.
    #[error("repository {0} not found")]
    NotFound(String),
    /// No such branch, tag or commit.
    #[error("Invalid rev id: {0}")]
    Revision(String),
    /// No such file or folder in that commit.
    #[error("Entry not found: {0}")]
    Entry(String),
    /// A short commit id that fits several commits.
    #[error("revision {0} is ambiguous: give more digits")]
    Ambiguous(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored metadata that does not parse or verify.
    #[error("repository metadata is damaged: {0}")]
    Damaged(String),
}

/// All repositories that this node can show.
#[derive(Debug, Clone)]
pub struct Repos;

/// What a name leads to.
#[derive(Debug, Clone)]
pub enum Found {
    /// The repository itself (the name matched, perhaps in another case, or is a local alias of it).
    Repo(Repo),
    /// The repository was renamed: its current `namespace/name`.
    Redirect(String),
}

impl Repos {
    /// Finds a repository by `namespace/name` or a one-segment alias.
    pub fn find(&self, _kind: RepoKind, _id: &str) -> Result<Found, RepoError> {
        todo!()
    }

    /// Every repository of a kind, by id; cheap to call (the list is kept in memory).
    pub fn list(&self, _kind: RepoKind) -> Vec<Repo> {
        todo!()
    }

    /// Rises whenever any name, head or alias changes: a cache keyed by it never shows the past.
    pub fn generation(&self) -> u64 {
        todo!()
    }
}

/// One repository at its current head; cheap to clone, and a snapshot: a later push is another one.
#[derive(Debug, Clone)]
pub struct Repo {
    inner: Arc<()>,
}

/// The model card's fields that listings and filters read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardView {
    /// The whole YAML front matter as JSON, `null` where there is none.
    pub data: serde_json::Value,
    /// Tags as the hub shows them: the card's `tags`, then `license:x`, `language`, `dataset:x`, library…
    pub tags: Vec<String>,
    /// `pipeline_tag`.
    pub pipeline_tag: Option<String>,
    /// `library_name`.
    pub library_name: Option<String>,
}

impl Repo {
    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        todo!()
    }

    /// What it holds.
    pub fn kind(&self) -> RepoKind {
        todo!()
    }

    /// `namespace/name` in its canonical form (the namespace as its hash name).
    pub fn full_name(&self) -> &str {
        todo!()
    }

    /// The namespace part of [`Self::full_name`].
    pub fn namespace(&self) -> &str {
        todo!()
    }

    /// Key that signed the head, as `ed25519:` and hex.
    pub fn signer(&self) -> &str {
        todo!()
    }

    /// Epoch and seq of the head.
    pub fn version(&self) -> (u64, u64) {
        todo!()
    }

    /// Two heads of one seq were signed: this shows the last agreed one.
    pub fn is_frozen(&self) -> bool {
        todo!()
    }

    /// Whether its content is kept by `gc` whatever else happens.
    pub fn is_pinned(&self) -> bool {
        todo!()
    }

    /// Seconds since the Unix epoch at which the repository record was signed.
    pub fn created_at(&self) -> u64 {
        todo!()
    }

    /// Seconds since the Unix epoch of the head.
    pub fn last_modified(&self) -> u64 {
        todo!()
    }

    /// Full ref name (`refs/heads/main`, `refs/tags/v1`) → commit that it leads to (tags peeled).
    pub fn refs(&self) -> &BTreeMap<String, GitOid> {
        todo!()
    }

    /// The card of the default branch.
    pub fn card(&self) -> &CardView {
        todo!()
    }

    /// The default branch's commit, `None` where nothing was pushed to it yet.
    pub fn default_commit(&self) -> Option<GitOid> {
        todo!()
    }

    /// Resolves a branch, tag, full ref name, `HEAD`, commit id or unambiguous prefix (5+ digits) of one.
    pub fn commit(&self, _revision: &str) -> Result<Commit, RepoError> {
        todo!()
    }
}

/// A commit that can be read; cheap to clone.
#[derive(Debug, Clone)]
pub struct Commit {
    inner: Arc<()>,
}

/// What a commit object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Git object id.
    pub oid: GitOid,
    /// First line of the message.
    pub title: String,
    /// The rest of the message, without the blank line before it.
    pub message: String,
    /// Author's name.
    pub author: String,
    /// Committer time in seconds since the Unix epoch.
    pub time: u64,
    /// Parents' ids.
    pub parents: Vec<GitOid>,
}

/// A file or folder of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the repository's root, `/` between components, unquoted.
    pub path: String,
    /// What stands there.
    pub kind: EntryKind,
    /// Git oid of the blob (of the pointer, where LFS) or tree.
    pub oid: GitOid,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A file.
    File(FileEntry),
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Bytes of the content (not of the LFS pointer).
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Sha256,
    /// BLAKE3 of the content; unknown in partial mirrors.
    pub blake3: Option<Blake3>,
    /// For LFS files: bytes of the pointer text.
    pub pointer_size: Option<u64>,
    /// Whether git's mode says executable.
    pub executable: bool,
}

impl Commit {
    /// The commit object's fields.
    pub fn info(&self) -> &CommitInfo {
        todo!()
    }

    /// What stands at a path (`""` is the root folder); `None` where nothing does.
    pub fn entry(&self, _path: &str) -> Result<Option<Entry>, RepoError> {
        todo!()
    }

    /// Entries below a folder, depth first in path order, after the path `after`, at most `limit`.
    ///
    /// Recursive listings include the folders themselves. [`RepoError::Entry`] where `dir` is no folder.
    pub fn tree(
        &self,
        _dir: &str,
        _recursive: bool,
        _after: Option<&str>,
        _limit: usize,
    ) -> Result<Vec<Entry>, RepoError> {
        todo!()
    }

    /// This commit and its ancestors, newest first, after `skip` of them, at most `limit`.
    pub fn log(&self, _skip: u64, _limit: usize) -> Result<Vec<CommitInfo>, RepoError> {
        todo!()
    }

    /// How many commits [`Self::log`] holds in all.
    pub fn count(&self) -> Result<u64, RepoError> {
        todo!()
    }

    /// For each path the newest commit that changed it.
    pub fn last_changes(&self, _paths: &[&str]) -> Result<Vec<CommitInfo>, RepoError> {
        todo!()
    }

    /// Bytes of all files below a folder.
    pub fn size(&self, _dir: &str) -> Result<u64, RepoError> {
        todo!()
    }
}
