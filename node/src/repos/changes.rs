//! What differs between two trees.
//!
//! Both are walked side by side; folders of one id are passed over, so that the cost is that of what differs.

use std::time::Instant;

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, GitOid};
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};

use super::commit::{FileEntry, file};
use super::reader::too_deep;
use super::{Reader, RepoError};

/// A file that differs between two trees: other bytes, another mode, or only in one of them. One that becomes
/// a link, or was one, is two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path from the root, as git has it.
    pub path: Vec<u8>,
    /// What stood there; `None` for a file that was added.
    pub old: Option<Side>,
    /// What stands there; `None` for a file that was deleted.
    pub new: Option<Side>,
}

/// A file in one of two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Git's mode, as a number.
    pub mode: u32,
    /// Git's id of the blob (of the pointer, where LFS), or of the commit where it is another repository's.
    pub oid: GitOid,
    /// What git has there.
    pub text: Text,
}

/// What git has of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// The bytes themselves: an LFS pointer, or the line that stands for a commit of another repository.
    Here(Bytes),
    /// A file's content, or a symbolic link's target.
    File(FileEntry),
    /// Of its content nothing is known here.
    Unknown,
}

/// The files that differ between two root manifests, in git's order, as far as `bounds` let one look.
pub(super) fn between(
    reader: &Reader,
    old: &Blake3,
    new: &Blake3,
    bounds: &Bounds,
) -> Result<Changes, RepoError> {
    let mut walk = Walk {
        reader,
        bounds,
        found: Changes::default(),
    };
    walk.folder(&[], Some(old), Some(new), 0)?;
    Ok(walk.found)
}

/// How far is looked. Few manifests can stand for any number of folders, with nothing in them.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Files that differ.
    pub files: usize,
    /// When to stop.
    pub until: Instant,
}

/// What differs.
#[derive(Debug, Default)]
pub struct Changes {
    /// Files, in git's order.
    pub files: Vec<Change>,
    /// It took too long: more may differ.
    pub is_late: bool,
}

struct Walk<'a> {
    reader: &'a Reader,
    bounds: &'a Bounds,
    found: Changes,
}

impl Walk<'_> {
    fn folder(
        &mut self,
        prefix: &[u8],
        old: Option<&Blake3>,
        new: Option<&Blake3>,
        depth: usize,
    ) -> Result<(), RepoError> {
        if let Some(either) = old.or(new) {
            too_deep(depth, either)?;
        }
        let read = |hash: Option<&Blake3>| hash.map(|hash| self.reader.manifest(hash)).transpose();
        let (old, new) = (read(old)?, read(new)?);
        let entries = |manifest| Option::map_or(manifest, &[][..], |it: &Manifest| &it.entries);
        let mut olds = entries(old.as_deref()).iter().peekable();
        let mut news = entries(new.as_deref()).iter().peekable();
        while self.found.files.len() < self.bounds.files {
            self.found.is_late |= Instant::now() > self.bounds.until;
            if self.found.is_late {
                break;
            }
            let (old, new) = match (olds.peek(), news.peek()) {
                (None, None) => break,
                (Some(old), Some(new)) => {
                    let order = old.order(new);
                    (order.is_le(), order.is_ge())
                }
                (old, new) => (old.is_some(), new.is_some()),
            };
            let old = old.then(|| olds.next()).flatten();
            let new = new.then(|| news.next()).flatten();
            self.entry(prefix, old, new, depth)?;
        }
        Ok(())
    }

    /// What stands under one name; where both do, they are both folders, or both not.
    fn entry(
        &mut self,
        prefix: &[u8],
        old: Option<&ManifestEntry>,
        new: Option<&ManifestEntry>,
        depth: usize,
    ) -> Result<(), RepoError> {
        let same = |(old, new): (&ManifestEntry, &ManifestEntry)| {
            (old.mode, old.oid) == (new.mode, new.oid)
        };
        let Some(either) = old.or(new).filter(|_| !old.zip(new).is_some_and(same)) else {
            return Ok(());
        };
        let mut path = [prefix, &either.name].concat();
        if either.kind == EntryKind::Directory {
            path.push(b'/');
            let below = |entry: Option<&ManifestEntry>| entry.and_then(|entry| entry.manifest);
            return self.folder(&path, below(old).as_ref(), below(new).as_ref(), depth + 1);
        }
        let side = |entry: Option<&ManifestEntry>| entry.map(|it| self.side(it)).transpose();
        match (side(old)?, side(new)?) {
            // A file that becomes a link goes, and another one comes.
            (Some(old), Some(new)) if old.mode >> 12 != new.mode >> 12 => {
                self.push(path.clone(), Some(old), None);
                self.push(path, None, Some(new));
            }
            (old, new) => self.push(path, old, new),
        }
        Ok(())
    }

    fn push(&mut self, path: Vec<u8>, old: Option<Side>, new: Option<Side>) {
        self.found.files.push(Change { path, old, new });
    }

    fn side(&self, entry: &ManifestEntry) -> Result<Side, RepoError> {
        let text = match (entry.kind, entry.canonical_pointer(), entry.pointer) {
            (_, Some(pointer), _) => Text::Here(pointer.encode().into()),
            (_, None, Some(pointer)) => Text::Here(self.reader.blob(&pointer)?),
            (EntryKind::Gitlink, ..) => {
                Text::Here(format!("Subproject commit {}\n", entry.oid).into())
            }
            (EntryKind::File | EntryKind::Symlink, ..) => {
                file(entry).map_or(Text::Unknown, Text::File)
            }
            _ => Text::Unknown,
        };
        Ok(Side {
            mode: entry.mode,
            oid: entry.oid,
            text,
        })
    }
}
