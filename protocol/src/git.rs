//! Git's objects: kept verbatim, read for their fields, and written as git itself writes them.
//!
//! Ids are SHA-1, so all hashing here detects the known collision attacks: bytes that carry one are
//! refused where they come in ([`BlobHasher`]), and where an id is compared ([`object_oid`]) they get an
//! id of their own that matches no claim.

mod commit;
mod tree;

use sha1_checked::{Digest, Sha1};

pub use commit::{CommitObject, NewCommit, Signature};
pub(crate) use tree::{Key, check_entries, order, write_sorted};
pub use tree::{Mode, TreeEntry, encode_tree, parse_tree};

use crate::hash::GitOid;

/// Why bytes or fields are not a valid git object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// More of something than `limits` allows.
    #[error("the {what} has {count} {of}, more than the {max} that are allowed")]
    TooMany {
        /// Which object.
        what: &'static str,
        /// What there is too much of.
        of: &'static str,
        /// How many there are.
        count: u64,
        /// How many there may be.
        max: u64,
    },
    /// A tree's bytes are not what git writes for any tree.
    #[error("the tree is not valid at byte {at}: {rule}")]
    Tree {
        /// Offset of the entry.
        at: usize,
        /// What is wrong there.
        rule: &'static str,
    },
    /// A tree entry's name that git's trees can't hold.
    #[error("tree entry {name:?} is not valid: {rule}")]
    Name {
        /// The name, as well as it can be shown.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Two entries of one tree have one name.
    #[error("the tree has two entries named {0:?}")]
    Duplicate(String),
    /// A commit's bytes have no tree, author, committer or message where git puts them.
    #[error("the commit object does not parse: {0}")]
    Commit(String),
    /// A field that would change the meaning of the lines after it.
    #[error("the commit's {field} can't be written: {rule}")]
    Field {
        /// Which field.
        field: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// More or fewer bytes were hashed than had been announced.
    #[error("{got} bytes were hashed for a blob of {announced}")]
    Size {
        /// Bytes announced in the object's header.
        announced: u64,
        /// Bytes that came.
        got: u64,
    },
    /// The bytes are crafted to share their SHA-1 with others.
    #[error("the content carries a SHA-1 collision attack")]
    Collision,
}

/// The four kinds of git object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// Content of a file, or an LFS pointer.
    Blob,
    /// A directory.
    Tree,
    /// A commit.
    Commit,
    /// An annotated tag.
    Tag,
}

impl ObjectKind {
    /// The word in the object's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Commit => "commit",
            Self::Tag => "tag",
        }
    }
}

/// The id of a whole object in memory.
///
/// Bytes that carry a collision attack get another id than plain SHA-1 gives, so that they never match
/// the id that they were crafted for.
pub fn object_oid(kind: ObjectKind, bytes: &[u8]) -> GitOid {
    let mut hasher = header(kind, bytes.len() as u64);
    hasher.update(bytes);
    GitOid::from_bytes((*hasher.try_finalize().hash()).into())
}

/// Hashes a blob that does not fit in memory, or that is hashed otherwise in the same pass.
#[derive(Debug, Clone)]
pub struct BlobHasher {
    hasher: Sha1,
    announced: u64,
    got: u64,
}

impl BlobHasher {
    /// Begins a blob of exactly `size` bytes, which git hashes before the content.
    pub fn new(size: u64) -> Self {
        Self {
            hasher: header(ObjectKind::Blob, size),
            announced: size,
            got: 0,
        }
    }

    /// The next bytes of the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.got += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// The id; an error where the size was another one, or the bytes carry a collision attack.
    pub fn finish(self) -> Result<GitOid, GitError> {
        if self.got != self.announced {
            return Err(GitError::Size {
                announced: self.announced,
                got: self.got,
            });
        }
        let result = self.hasher.try_finalize();
        if result.has_collision() {
            return Err(GitError::Collision);
        }
        Ok(GitOid::from_bytes((*result.hash()).into()))
    }
}

fn header(kind: ObjectKind, size: u64) -> Sha1 {
    let mut hasher = Sha1::new();
    hasher.update(format!("{} {size}\0", kind.as_str()).as_bytes());
    hasher
}

fn check_count(
    what: &'static str,
    of: &'static str,
    count: usize,
    max: usize,
) -> Result<(), GitError> {
    if count <= max {
        Ok(())
    } else {
        Err(GitError::TooMany {
            what,
            of,
            count: count as u64,
            max: max as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_git() {
        let cases: [(ObjectKind, &[u8], &str); 4] = [
            (
                ObjectKind::Blob,
                b"",
                "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
            ),
            (
                ObjectKind::Blob,
                b"hello\n",
                "ce013625030ba8dba906f756967f9e9ca394464a",
            ),
            (
                ObjectKind::Tree,
                b"",
                "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
            ),
            (
                ObjectKind::Blob,
                b"what is up, doc?",
                "bd9dbf5aae1a3862dd1526723246b20206e5fc37",
            ),
        ];
        for (kind, bytes, oid) in cases {
            assert_eq!(object_oid(kind, bytes).to_hex(), oid);
        }
    }

    #[test]
    fn a_blob_hashed_in_parts_has_the_same_id() {
        let content = vec![7; 100_000];
        let mut hasher = BlobHasher::new(content.len() as u64);
        content.chunks(999).for_each(|part| hasher.update(part));
        assert_eq!(hasher.finish(), Ok(object_oid(ObjectKind::Blob, &content)));
    }

    #[test]
    fn a_blob_of_another_size_than_announced_has_no_id() {
        let mut hasher = BlobHasher::new(3);
        hasher.update(b"four");
        assert_eq!(
            hasher.finish(),
            Err(GitError::Size {
                announced: 3,
                got: 4
            })
        );
    }
}
