//! Manifests: beside each git tree, what a reader needs to know of its entries.
//!
//! One manifest a directory, entries in the tree's order. A manifest holds no authority over git's tree:
//! it repeats mode, name and oid of every entry, so that [`Manifest::tree_bytes`] hashes to its
//! [`Manifest::tree`] or the manifest is wrong.

mod columns;

use std::cmp::Ordering;

use crate::format::{FormatError, Reader, check_count, small};
use crate::git::{self, Mode};
use crate::hash::{Blake3, GitOid, Sha256};
use crate::limits::{DIRECTORY_ENTRIES_MAX, OBJECT_BYTES_MAX};
use crate::pointer::Pointer;

const WHAT: &str = "manifest";
const MAGIC: [u8; 8] = *b"cairnmf1";

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

impl EntryKind {
    /// The kind of that number.
    fn from_number(number: u8) -> Option<Self> {
        let kinds = [
            Self::File,
            Self::Lfs,
            Self::Directory,
            Self::Symlink,
            Self::Gitlink,
        ];
        kinds.get(usize::from(number)).copied()
    }

    /// Whether a tree entry of that mode can be of this kind.
    fn fits(self, mode: Mode) -> bool {
        match self {
            Self::File | Self::Lfs => matches!(mode, Mode::File | Mode::Executable),
            Self::Directory => mode == Mode::Directory,
            Self::Symlink => mode == Mode::Symlink,
            Self::Gitlink => mode == Mode::Gitlink,
        }
    }
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

    /// The canonical pointer of an LFS file; `None` for other kinds, and where its pointer is another.
    pub fn canonical_pointer(&self) -> Option<Pointer> {
        match (self.kind, self.pointer, self.sha256, self.size) {
            (EntryKind::Lfs, None, Some(sha256), Some(size)) => Some(Pointer { sha256, size }),
            _ => None,
        }
    }

    /// Git's order of the entries of a tree; equal for two of one name that are both directories, or both not.
    pub fn order(&self, other: &Self) -> Ordering {
        git::order(self.key(), other.key())
    }

    fn git_mode(&self) -> Option<Mode> {
        Mode::from_octal(self.mode).filter(|mode| self.kind.fits(*mode))
    }

    fn key(&self) -> git::Key<'_> {
        (&self.name, self.kind == EntryKind::Directory)
    }

    fn rule(&self, rule: &'static str) -> FormatError {
        FormatError::Rule {
            what: WHAT,
            place: format!("entry {:?}", String::from_utf8_lossy(&self.name)),
            rule,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&small::<u16>(self.name.len()).to_le_bytes());
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(self.oid.as_bytes());
        out.push(self.kind as u8);
        columns::write(self, out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let length = usize::from(reader.u16("length of a name")?);
        let name = reader.bytes(length, "name")?;
        let mode = reader.u32("mode")?;
        let oid = reader.oid("oid")?;
        let kind = reader.u8("kind")?;
        let kind = EntryKind::from_number(kind).ok_or_else(|| {
            let place = format!("entry {:?}", String::from_utf8_lossy(name));
            reader.rule(place, "kinds are numbered from 0 to 4")
        })?;
        let mut entry = Self::new(name, mode, oid, kind);
        columns::read(&mut entry, reader)?;
        Ok(entry)
    }
}

impl Manifest {
    /// A manifest of these entries, sorted into the tree's order; refuses what breaks the format's rules.
    pub fn new(tree: Blake3, mut entries: Vec<ManifestEntry>) -> Result<Self, FormatError> {
        entries.sort_by(|a, b| git::order(a.key(), b.key()));
        let manifest = Self { tree, entries };
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest's bytes.
    ///
    /// # Panics
    ///
    /// Where the entries break the format's rules; those of [`Self::new`] and [`Self::decode`] never do.
    pub fn encode(&self) -> Vec<u8> {
        if let Err(error) = self.check() {
            panic!("invariant: a manifest is checked before it is written: {error}");
        }
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(self.tree.as_bytes());
        out.extend_from_slice(&small::<u32>(self.entries.len()).to_le_bytes());
        for entry in &self.entries {
            entry.write(&mut out);
        }
        out
    }

    /// Reads a manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, MAGIC, bytes)?;
        let tree = reader.blake3("tree")?;
        let count = reader.u32("count of entries")? as usize;
        check_count(WHAT, "entries", count, DIRECTORY_ENTRIES_MAX)?;
        let entries = (0..count)
            .map(|_| ManifestEntry::read(&mut reader))
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        let manifest = Self { tree, entries };
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks the rules that hold for written and read manifests alike.
    fn check(&self) -> Result<(), FormatError> {
        git::check_entries(&self.entries, ManifestEntry::key).map_err(|error| match error {
            git::GitError::TooMany { of, count, max, .. } => FormatError::TooMany {
                what: WHAT,
                of,
                count,
                max,
            },
            error => FormatError::Rule {
                what: WHAT,
                place: error.to_string(),
                rule: "entries are those of a git tree",
            },
        })?;
        let mut size = MAGIC.len() + Blake3::SIZE + 4;
        for entry in &self.entries {
            if entry.git_mode().is_none() {
                return Err(entry.rule("the mode is none of its kind"));
            }
            columns::check(entry)?;
            size += 2 + entry.name.len() + 4 + GitOid::SIZE + 1 + columns::size(entry);
        }
        check_count(WHAT, "bytes", size, OBJECT_BYTES_MAX)
    }

    /// The entry of that name.
    pub fn find(&self, name: &[u8]) -> Option<&ManifestEntry> {
        // Where a name stands depends on whether it is a directory's, which the caller does not know.
        let found = [false, true].into_iter().find_map(|directory| {
            self.entries
                .binary_search_by(|entry| git::order(entry.key(), (name, directory)))
                .ok()
        })?;
        // A file named `a/`, if there were one, would stand where the directory `a` does.
        Some(&self.entries[found]).filter(|entry| entry.name == name)
    }

    /// The git tree that these entries make; its BLAKE3 must be [`Self::tree`].
    ///
    /// # Panics
    ///
    /// Where the entries break the format's rules; those of [`Self::new`] and [`Self::decode`] never do.
    pub fn tree_bytes(&self) -> Vec<u8> {
        git::write_sorted(self.entries.iter().map(|entry| {
            let mode = entry
                .git_mode()
                .expect("invariant: the mode was checked against the kind");
            (mode, &*entry.name, &entry.oid)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blake3(byte: u8) -> Blake3 {
        Blake3::from_bytes([byte; 32])
    }

    fn file(name: &str) -> ManifestEntry {
        let oid = GitOid::from_bytes([1; 20]);
        let mut entry = ManifestEntry::new(name, 0o100_644, oid, EntryKind::File);
        entry.size = Some(10);
        entry.sha256 = Some(Sha256::from_bytes([2; 32]));
        entry.blake3 = Some(blake3(3));
        entry
    }

    fn directory(name: &str) -> ManifestEntry {
        let oid = GitOid::from_bytes([4; 20]);
        let mut entry = ManifestEntry::new(name, 0o040_000, oid, EntryKind::Directory);
        entry.manifest = Some(blake3(5));
        entry
    }

    fn lfs(name: &str) -> ManifestEntry {
        ManifestEntry {
            kind: EntryKind::Lfs,
            ..file(name)
        }
    }

    fn manifest(entries: Vec<ManifestEntry>) -> Result<Manifest, FormatError> {
        Manifest::new(Blake3::from_bytes([9; 32]), entries)
    }

    #[test]
    fn entries_stand_in_the_trees_order_and_are_found_by_name() {
        let entries = vec![directory("a"), file("a.b"), file("a0"), lfs("model.bin")];
        let manifest = manifest(entries).unwrap();
        let names: Vec<_> = manifest.entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, [&b"a.b"[..], b"a", b"a0", b"model.bin"]);
        for entry in &manifest.entries {
            assert_eq!(manifest.find(&entry.name), Some(entry));
        }
        for absent in ["", "a.", "a/", "b", "z"] {
            assert_eq!(manifest.find(absent.as_bytes()), None);
        }
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn the_tree_that_entries_make_is_gits() {
        let manifest = manifest(vec![directory("a"), file("a.b")]).unwrap();
        let tree = git::parse_tree(&manifest.tree_bytes()).unwrap();
        assert_eq!(tree[0].name, b"a.b");
        assert_eq!(
            (tree[1].mode, tree[1].oid),
            (Mode::Directory, GitOid::from_bytes([4; 20]))
        );
    }

    #[test]
    fn columns_fit_the_kind() {
        let kind = |kind, mode, change: &dyn Fn(&mut ManifestEntry)| {
            let mut entry = ManifestEntry::new("x", mode, GitOid::from_bytes([1; 20]), kind);
            change(&mut entry);
            manifest(vec![entry]).is_ok()
        };
        let size = |entry: &mut ManifestEntry| entry.size = Some(1);
        let sha256 = |entry: &mut ManifestEntry| entry.sha256 = Some(Sha256::from_bytes([1; 32]));
        // A regular file may be known by its id only; who knows its BLAKE3 has read it whole.
        assert!(kind(EntryKind::File, 0o100_644, &|_| {}));
        assert!(kind(EntryKind::File, 0o100_755, &size));
        assert!(!kind(EntryKind::File, 0o100_644, &|entry| entry.blake3 =
            Some(blake3(1))));
        assert!(!kind(EntryKind::File, 0o100_644, &|entry| entry.pointer =
            Some(blake3(1))));
        assert!(!kind(EntryKind::File, 0o100_644, &|entry| entry.manifest =
            Some(blake3(1))));
        assert!(!kind(EntryKind::File, 0o100_664, &size));
        // An LFS file's pointer says size and SHA-256.
        assert!(!kind(EntryKind::Lfs, 0o100_644, &size));
        assert!(!kind(EntryKind::Lfs, 0o100_644, &sha256));
        let lfs = |entry: &mut ManifestEntry| {
            size(entry);
            sha256(entry);
        };
        assert!(kind(EntryKind::Lfs, 0o100_644, &lfs));
        assert!(!kind(EntryKind::Lfs, 0o120_000, &lfs));
        assert!(kind(EntryKind::Lfs, 0o100_755, &|entry| {
            lfs(entry);
            entry.blake3 = Some(blake3(1));
            entry.xet = Some([1; 32]);
            entry.pointer = Some(blake3(2));
        }));
        // A directory has its manifest and nothing else.
        assert!(!kind(EntryKind::Directory, 0o040_000, &|_| {}));
        assert!(kind(EntryKind::Directory, 0o040_000, &|entry| entry
            .manifest =
            Some(blake3(1))));
        assert!(!kind(EntryKind::Directory, 0o040_000, &|entry| {
            entry.manifest = Some(blake3(1));
            size(entry);
        }));
        assert!(kind(EntryKind::Symlink, 0o120_000, &lfs));
        assert!(!kind(EntryKind::Symlink, 0o120_000, &|entry| entry.xet =
            Some([1; 32])));
        assert!(kind(EntryKind::Gitlink, 0o160_000, &|_| {}));
        assert!(!kind(EntryKind::Gitlink, 0o160_000, &size));
    }

    #[test]
    fn unknown_columns_are_carried() {
        let mut entry = file("a");
        entry.unknown = vec![(7, vec![]), (200, vec![1, 2, 3]), (255, vec![0; 65_535])];
        let manifest = manifest(vec![entry]).unwrap();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn unknown_columns_that_have_another_encoding_are_refused() {
        for unknown in [
            vec![(6, vec![])],
            vec![(0, vec![])],
            vec![(8, vec![]), (7, vec![])],
            vec![(7, vec![]), (7, vec![])],
            vec![(7, vec![0; 65_536])],
        ] {
            let mut entry = file("a");
            entry.unknown = unknown;
            assert!(manifest(vec![entry]).is_err());
        }
    }

    #[test]
    fn bytes_that_would_re_encode_otherwise_are_refused() {
        let bytes = manifest(vec![file("a")]).unwrap().encode();
        let changed = |at: usize, to: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + to.len()].copy_from_slice(to);
            Manifest::decode(&bytes)
        };
        let kind = 44 + 2 + 1 + 4 + 20;
        assert!(changed(kind, &[0]).is_ok());
        assert!(changed(kind, &[5]).is_err(), "kind");
        assert!(changed(kind + 1, &[2]).is_err(), "count of columns");
        assert!(changed(kind + 2, &[2]).is_err(), "column order");
        assert!(changed(kind + 2, &[0]).is_err(), "column 0");
        assert!(changed(kind + 3, &[7]).is_err(), "length of a size");
        assert!(
            changed(40, &2u32.to_le_bytes()).is_err(),
            "count of entries"
        );
        assert!(
            changed(40, &100_001u32.to_le_bytes()).is_err(),
            "count of entries"
        );
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "{end}");
        }
        assert!(Manifest::decode(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn the_pointer_is_known_where_it_is_canonical() {
        let mut entry = lfs("a");
        let pointer = entry.canonical_pointer().unwrap();
        assert_eq!(
            (Some(pointer.sha256), Some(pointer.size)),
            (entry.sha256, entry.size)
        );
        entry.pointer = Some(blake3(1));
        assert_eq!(entry.canonical_pointer(), None);
        assert_eq!(file("a").canonical_pointer(), None);
    }

    #[test]
    fn the_largest_directory_is_read_and_every_entry_found() {
        let entries = (0..DIRECTORY_ENTRIES_MAX).map(|index| lfs(&format!("{index:06}.bin")));
        let manifest = manifest(entries.collect()).unwrap();
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&manifest));
        // A linear search would make this test take minutes.
        for entry in &manifest.entries {
            assert_eq!(manifest.find(&entry.name), Some(entry));
        }
        let mut entries = manifest.entries;
        entries.push(file("one more"));
        assert!(matches!(
            Manifest::new(manifest.tree, entries),
            Err(FormatError::TooMany { count: 100_001, .. })
        ));
    }
}
