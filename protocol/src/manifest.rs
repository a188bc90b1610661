//! Manifests: beside each git tree, what a reader needs to know of its entries.
//!
//! One manifest a directory, entries in the tree's order. A manifest holds no authority over git's tree:
//! it repeats mode, name and oid of every entry, so that [`Manifest::tree_bytes`] hashes to its
//! [`Manifest::tree`] or the manifest is wrong.

use crate::format::FormatError;
use crate::hash::{Blake3, GitOid, Sha256};

/// The manifest of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// BLAKE3 of the git tree object.
    pub tree: Blake3,
    /// One for each entry of the tree, in its order.
    pub entries: Vec<ManifestEntry>,
}

/// What stands at an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A file that git stores itself.
    File = 0,
    /// A file that git stores a pointer to.
    Lfs = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link; its content is the target.
    Symlink = 3,
    /// A commit of another repository.
    Gitlink = 4,
}

/// One entry of a directory. Fields that are `None` are unknown, or have no meaning for the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Name within the directory.
    pub name: Vec<u8>,
    /// Git's mode, as a number (`0o100644`).
    pub mode: u32,
    /// Git's id of the blob (of the pointer, where LFS), tree or commit.
    pub oid: GitOid,
    /// What stands there.
    pub kind: EntryKind,
    /// Bytes of the content, not of the pointer.
    pub size: Option<u64>,
    /// SHA-256 of the content.
    pub sha256: Option<Sha256>,
    /// BLAKE3 of the content.
    pub blake3: Option<Blake3>,
    /// Xet hash of the content.
    pub xet: Option<[u8; 32]>,
    /// BLAKE3 of a directory's manifest.
    pub manifest: Option<Blake3>,
    /// BLAKE3 of an LFS pointer that is not in the canonical form.
    pub pointer: Option<Blake3>,
    /// Columns that we don't know, by ascending number, written back as they came.
    pub unknown: Vec<(u8, Vec<u8>)>,
}

impl ManifestEntry {
    /// An entry of which only mode, name, oid and kind are known; the caller sets what else it knows.
    pub fn new(name: impl Into<Vec<u8>>, mode: u32, oid: GitOid, kind: EntryKind) -> Self {
        Self {
            name: name.into(),
            mode,
            oid,
            kind,
            size: None,
            sha256: None,
            blake3: None,
            xet: None,
            manifest: None,
            pointer: None,
            unknown: Vec::new(),
        }
    }
}

impl Manifest {
    /// A manifest of these entries, sorted into the tree's order; refuses what breaks the format's rules.
    pub fn new(_tree: Blake3, _entries: Vec<ManifestEntry>) -> Result<Self, FormatError> {
        todo!()
    }

    /// The manifest's bytes.
    ///
    /// # Panics
    ///
    /// Where the entries break the format's rules; those of [`Self::new`] and [`Self::decode`] never do.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a manifest.
    pub fn decode(_bytes: &[u8]) -> Result<Self, FormatError> {
        todo!()
    }

    /// The entry of that name.
    pub fn find(&self, _name: &[u8]) -> Option<&ManifestEntry> {
        todo!()
    }

    /// The git tree that these entries make; its BLAKE3 must be [`Self::tree`].
    pub fn tree_bytes(&self) -> Vec<u8> {
        todo!()
    }
}
