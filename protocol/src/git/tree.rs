//! Tree objects: one directory each, entries in git's own order.

use crate::git::GitError;
use crate::hash::GitOid;

/// What a tree entry is. Other modes that git once wrote are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A file, `100644`.
    File,
    /// A file that may be run, `100755`.
    Executable,
    /// A tree, `40000`.
    Directory,
    /// A symbolic link, `120000`.
    Symlink,
    /// A commit of another repository (a submodule), `160000`.
    Gitlink,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 5] = [
        Self::File,
        Self::Executable,
        Self::Directory,
        Self::Symlink,
        Self::Gitlink,
    ];

    /// The number that git writes in octal digits.
    pub const fn octal(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Gitlink => 0o160_000,
        }
    }

    /// The mode of that number.
    pub fn from_octal(octal: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.octal() == octal)
    }
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TreeEntry {
    /// What it is.
    pub mode: Mode,
    /// Name within the directory; any bytes but NUL and `/`, so also names that we refuse at our doors.
    pub name: Vec<u8>,
    /// Id of the blob, tree or commit.
    pub oid: GitOid,
}

/// Writes a tree object of these entries, in git's order whatever theirs was.
///
/// Refuses names that git's trees can't hold, and two entries of one name.
pub fn encode_tree(_entries: Vec<TreeEntry>) -> Result<Vec<u8>, GitError> {
    todo!()
}

/// Reads a tree object, strictly: what does not re-encode to the same bytes is refused.
pub fn parse_tree(_bytes: &[u8]) -> Result<Vec<TreeEntry>, GitError> {
    todo!()
}
