//! Which files are LFS: decided as the hub's preupload does, since it fixes commit ids for ever.
//!
//! A file is LFS where `.gitattributes` says `filter=lfs` for its path, where it is larger than
//! `REGULAR_BYTES_MAX`, or where its first bytes hold a NUL (git's own test for binary content). Empty
//! files are always regular.

use crate::name::RepoKind;
use crate::path::RepoPath;

/// How a file is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// As a git blob.
    Regular,
    /// As content of its own, with a pointer in git.
    Lfs,
}

/// The `.gitattributes` files of one commit.
#[derive(Debug, Clone, Default)]
pub struct Attributes {}

impl Attributes {
    /// Reads the `.gitattributes` file at the repository's root; lines that git ignores are ignored.
    pub fn parse(_bytes: &[u8]) -> Self {
        todo!()
    }

    /// Adds the `.gitattributes` file of a folder (`""` is the root, `a/b` one below), in any order.
    pub fn add(&mut self, _dir: &str, _bytes: &[u8]) {
        todo!()
    }

    /// Whether git would give this path to the LFS filter.
    pub fn is_lfs(&self, _path: &RepoPath) -> bool {
        todo!()
    }
}

/// Decides for a file of `size` bytes; `sample` is its beginning, at least `SAMPLE_BYTES` where it has
/// as many.
pub fn decide(_attributes: &Attributes, _path: &RepoPath, _size: u64, _sample: &[u8]) -> Storage {
    todo!()
}

/// The `.gitattributes` that is committed where a repository brings none: the hub's own, to the byte.
pub fn default_attributes(_kind: RepoKind) -> &'static str {
    todo!()
}
