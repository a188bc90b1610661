//! Tree objects: one directory each, entries in git's own order.

use std::cmp::Ordering;

use gix_object::tree::{EntryMode, EntryRef, name_order};
use gix_object::{TreeRef, TreeRefIter, WriteTo};

use crate::git::{GitError, check_count};
use crate::hash::GitOid;
use crate::limits::{DIRECTORY_ENTRIES_MAX, OBJECT_BYTES_MAX};

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
pub fn encode_tree(mut entries: Vec<TreeEntry>) -> Result<Vec<u8>, GitError> {
    entries.sort_by(|a, b| order(key(a), key(b)));
    check_entries(&entries, key)?;
    let bytes = write_sorted(
        entries
            .iter()
            .map(|entry| (entry.mode, &*entry.name, &entry.oid)),
    );
    check_count("tree", "bytes", bytes.len(), OBJECT_BYTES_MAX)?;
    Ok(bytes)
}

/// Reads a tree object, strictly: what does not re-encode to the same bytes is refused.
pub fn parse_tree(bytes: &[u8]) -> Result<Vec<TreeEntry>, GitError> {
    check_count("tree", "bytes", bytes.len(), OBJECT_BYTES_MAX)?;
    let mut entries = Vec::new();
    let mut rest = TreeRefIter::from_bytes(bytes, gix_hash::Kind::Sha1);
    loop {
        let at = rest.offset_to_next_entry(bytes);
        let refuse = |rule| GitError::Tree { at, rule };
        let Some(entry) = rest.next() else { break };
        let entry = entry.map_err(|_| refuse("an entry is cut off, or its mode is no number"))?;
        let mode = Mode::from_octal(entry.mode.value().into())
            .ok_or_else(|| refuse("the mode is none that git writes"))?;
        let oid = entry.oid.as_bytes().try_into().map(GitOid::from_bytes);
        entries.push(TreeEntry {
            mode,
            name: entry.filename.to_vec(),
            oid: oid.map_err(|_| refuse("the id is no SHA-1"))?,
        });
    }
    check_entries(&entries, key)?;
    let again = write_sorted(
        entries
            .iter()
            .map(|entry| (entry.mode, &*entry.name, &entry.oid)),
    );
    match again.iter().zip(bytes).position(|(a, b)| a != b) {
        None if again.len() == bytes.len() => Ok(entries),
        at => Err(GitError::Tree {
            at: at.unwrap_or(again.len().min(bytes.len())),
            rule: "a mode is not written as git writes it",
        }),
    }
}

/// Name and whether it is a directory: what git sorts trees by.
pub(crate) type Key<'a> = (&'a [u8], bool);

fn key(entry: &TreeEntry) -> Key<'_> {
    (&entry.name, entry.mode == Mode::Directory)
}

/// Git's order: a directory's name compares as if it ended in `/`.
pub(crate) fn order(a: Key<'_>, b: Key<'_>) -> Ordering {
    name_order(a.0, a.1, b.0, b.1)
}

/// Checks what holds for the entries of every tree: how many, their names, their order, none twice.
pub(crate) fn check_entries<T>(
    entries: &[T],
    key: impl for<'a> Fn(&'a T) -> Key<'a>,
) -> Result<(), GitError> {
    check_count("tree", "entries", entries.len(), DIRECTORY_ENTRIES_MAX)?;
    for entry in entries {
        check_name(key(entry).0)?;
    }
    for pair in entries.windows(2) {
        let (a, b) = (key(&pair[0]), key(&pair[1]));
        match order(a, b) {
            Ordering::Less => {}
            Ordering::Equal => return Err(GitError::Duplicate(shown(a.0))),
            Ordering::Greater => {
                return Err(GitError::Name {
                    name: shown(b.0),
                    rule: "it is not in git's order",
                });
            }
        }
    }
    // A file and a directory of one name are not neighbours where another name sorts between them.
    for (name, _) in entries.iter().map(&key).filter(|(_, directory)| *directory) {
        let file = entries.binary_search_by(|entry| order(key(entry), (name, false)));
        if file.is_ok() {
            return Err(GitError::Duplicate(shown(name)));
        }
    }
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), GitError> {
    let rule = if name.is_empty() {
        "it is empty"
    } else if name.len() > usize::from(u16::MAX) {
        "it is longer than 65535 bytes"
    } else if name.contains(&b'/') {
        "it has a slash"
    } else if name.contains(&0) {
        "it has a NUL"
    } else {
        return Ok(());
    };
    Err(GitError::Name {
        name: shown(name),
        rule,
    })
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect()
}

/// Writes entries that [`check_entries`] has passed.
pub(crate) fn write_sorted<'a>(
    entries: impl Iterator<Item = (Mode, &'a [u8], &'a GitOid)>,
) -> Vec<u8> {
    let entries = entries.map(|(mode, name, oid)| EntryRef {
        mode: EntryMode::from(kind(mode)),
        filename: name.into(),
        oid: gix_hash::oid::try_from_bytes(oid.as_bytes())
            .expect("invariant: a git oid is a SHA-1"),
    });
    let tree = TreeRef {
        entries: entries.collect(),
    };
    let mut bytes = Vec::new();
    tree.write_to(&mut bytes)
        .expect("invariant: names have no NUL, and memory takes all bytes");
    bytes
}

fn kind(mode: Mode) -> gix_object::tree::EntryKind {
    use gix_object::tree::EntryKind;
    match mode {
        Mode::File => EntryKind::Blob,
        Mode::Executable => EntryKind::BlobExecutable,
        Mode::Directory => EntryKind::Tree,
        Mode::Symlink => EntryKind::Link,
        Mode::Gitlink => EntryKind::Commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mode: Mode, name: &str) -> TreeEntry {
        TreeEntry {
            mode,
            name: name.into(),
            oid: GitOid::from_bytes([7; 20]),
        }
    }

    fn raw(mode: &str, name: &str) -> Vec<u8> {
        [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &[7; 20]].concat()
    }

    #[test]
    fn entries_are_put_in_gits_order() {
        let entries = vec![
            entry(Mode::Directory, "a"),
            entry(Mode::File, "a.b"),
            entry(Mode::File, "a0"),
            entry(Mode::File, "B"),
        ];
        let bytes = encode_tree(entries).unwrap();
        let names: Vec<_> = parse_tree(&bytes)
            .unwrap()
            .into_iter()
            .map(|e| e.name)
            .collect();
        assert_eq!(
            names,
            [
                b"B".to_vec(),
                b"a.b".to_vec(),
                b"a".to_vec(),
                b"a0".to_vec()
            ]
        );
    }

    #[test]
    fn two_entries_of_one_name_are_refused_wherever_they_stand() {
        for (one, other) in [
            (Mode::File, Mode::File),
            (Mode::File, Mode::Executable),
            (Mode::File, Mode::Directory),
            (Mode::Directory, Mode::Gitlink),
        ] {
            let entries = vec![entry(one, "a"), entry(Mode::File, "a.b"), entry(other, "a")];
            assert_eq!(encode_tree(entries), Err(GitError::Duplicate("a".into())));
        }
        let twice = [raw("100644", "a"), raw("100644", "a.b"), raw("40000", "a")].concat();
        assert_eq!(parse_tree(&twice), Err(GitError::Duplicate("a".into())));
    }

    #[test]
    fn names_that_git_cannot_hold_are_refused_and_odd_ones_are_kept() {
        for bad in ["", "a/b", "a\0b"] {
            let result = encode_tree(vec![entry(Mode::File, bad)]);
            assert!(matches!(result, Err(GitError::Name { .. })), "{bad:?}");
        }
        for odd in [".git", "..", "CON", "a\nb"] {
            let entries = vec![entry(Mode::File, odd)];
            assert_eq!(
                parse_tree(&encode_tree(entries.clone()).unwrap()),
                Ok(entries)
            );
        }
    }

    #[test]
    fn what_git_would_write_otherwise_is_refused() {
        for (case, bytes) in [
            ("padded mode", raw("040000", "a")),
            ("group-writable file", raw("100664", "a")),
            ("no mode", raw("", "a")),
            ("long mode", raw("0100644", "a")),
            ("cut off", raw("100644", "a")[..20].to_vec()),
            ("order", [raw("100644", "b"), raw("100644", "a")].concat()),
            (
                "order of a directory",
                [raw("40000", "a"), raw("100644", "a.b")].concat(),
            ),
            ("empty name", raw("100644", "")),
            ("slash", raw("100644", "a/b")),
        ] {
            assert!(parse_tree(&bytes).is_err(), "{case}");
        }
        assert_eq!(parse_tree(b""), Ok(vec![]));
    }
}
