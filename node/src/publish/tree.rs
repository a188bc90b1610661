//! Git trees and manifests of a commit: what an earlier one had, and what becomes of some of its paths.
//!
//! Only folders on the way to an edited path are read and written; all others are taken over by their ids.
//! So a commit costs what it changes, and not what the repository holds.

use std::collections::{BTreeMap, HashMap};

use cairn_protocol::git::{Mode, ObjectKind, TreeEntry, encode_tree, object_oid};
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::limits::DIRECTORY_ENTRIES_MAX;
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
use cairn_protocol::path::{RepoPath, fold};
use cairn_protocol::pointer::Pointer;
use cairn_protocol::xet::XetHash;

use super::PublishError;
use super::contents::BATCH_BYTES_MAX;
use crate::repos::Reader;
use crate::store::{Batch, Digests, Store};

/// One file of a commit, its content stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Bytes.
    pub size: u64,
    /// Content id.
    pub blake3: Blake3,
    /// LFS oid.
    pub sha256: Sha256,
    /// Git blob oid; `None` for LFS, whose oid is the pointer's.
    pub git: Option<GitOid>,
    /// What xet calls the content, where that is known.
    pub xet: Option<XetHash>,
    /// Whether git's mode says so.
    pub executable: bool,
}

impl Stored {
    /// A file of that content; `digests.git` decides whether it is kept as a git blob or as LFS.
    pub fn of(digests: &Digests, executable: bool) -> Self {
        Self {
            size: digests.size,
            blake3: digests.blake3,
            sha256: digests.sha256,
            git: digests.git,
            xet: None,
            executable,
        }
    }
}

/// Edits of paths, later ones over earlier ones.
#[derive(Debug, Default)]
pub(super) struct Edits {
    root: Folder,
}

/// What becomes of a folder.
#[derive(Debug, Default)]
struct Folder {
    /// What was in it goes.
    is_removed: bool,
    folders: BTreeMap<String, Folder>,
    files: BTreeMap<String, File>,
}

/// What becomes of a file.
#[derive(Debug)]
enum File {
    Put(Stored),
    /// It goes; it must be there.
    Removed,
    /// It goes if it is there: it was put there before, by the same edits.
    Dropped,
}

impl Edits {
    /// A file stands there, whatever did before.
    pub(super) fn put(&mut self, path: &RepoPath, stored: Stored) {
        let (folder, name) = self.place(path);
        folder.files.insert(name.to_owned(), File::Put(stored));
    }

    /// The file that stands there goes.
    pub(super) fn remove(&mut self, path: &RepoPath) {
        let (folder, name) = self.place(path);
        let gone = match folder.files.get(name) {
            Some(File::Put(_)) => File::Dropped,
            _ => File::Removed,
        };
        folder.files.insert(name.to_owned(), gone);
    }

    /// The folder that stands there goes, with all below it.
    pub(super) fn remove_folder(&mut self, path: &RepoPath) {
        let (folder, name) = self.place(path);
        let removed = Folder {
            is_removed: true,
            ..Folder::default()
        };
        folder.folders.insert(name.to_owned(), removed);
    }

    fn place<'a>(&mut self, path: &'a RepoPath) -> (&mut Folder, &'a str) {
        let (folders, name) = match path.as_str().rsplit_once('/') {
            Some((folders, name)) => (Some(folders), name),
            None => (None, path.as_str()),
        };
        let folders = folders.into_iter().flat_map(|folders| folders.split('/'));
        let folder = folders.fold(&mut self.root, |folder, name| {
            folder.folders.entry(name.to_owned()).or_default()
        });
        (folder, name)
    }
}

/// Puts every changed tree and manifest into the batch; returns the root tree's oid and the root manifest's
/// hash.
///
/// [`PublishError::Missing`] where what is to go does not stand there, [`PublishError::Refused`] where a
/// file and a folder, or two names that differ by case alone, would stand beside each other.
pub(super) fn write(
    store: &Store,
    reader: &Reader,
    batch: &mut Batch,
    base: Option<Blake3>,
    edits: &Edits,
) -> Result<(GitOid, Blake3), PublishError> {
    let mut writer = Writer {
        store,
        reader,
        batch,
    };
    match writer.folder(base, &edits.root, "")? {
        Some(written) => Ok(written),
        None => writer.finish(Vec::new(), ""),
    }
}

struct Writer<'a> {
    store: &'a Store,
    reader: &'a Reader,
    batch: &'a mut Batch,
}

impl Writer<'_> {
    /// Writes a folder; nothing where it would be empty, since git has no empty folders.
    fn folder(
        &mut self,
        base: Option<Blake3>,
        edits: &Folder,
        path: &str,
    ) -> Result<Option<(GitOid, Blake3)>, PublishError> {
        let base = match base.filter(|_| !edits.is_removed) {
            Some(hash) => self.reader.manifest(&hash)?.entries.clone(),
            None => Vec::new(),
        };
        let before: HashMap<&[u8], &ManifestEntry> =
            base.iter().map(|entry| (&*entry.name, entry)).collect();
        let mut entries = Vec::with_capacity(before.len() + edits.files.len());
        for (name, below) in &edits.folders {
            let here = format!("{path}{name}");
            let old = before.get(name.as_bytes()).copied();
            let is_folder = old.is_some_and(|entry| entry.kind == EntryKind::Directory);
            if below.is_removed && !is_folder {
                return Err(PublishError::Missing { path: here });
            }
            let manifest = old.filter(|_| is_folder).map(|entry| {
                let lacks = || PublishError::Refused {
                    path: here.clone(),
                    reason: "what it holds has not reached this node".to_owned(),
                };
                entry.manifest.ok_or_else(lacks)
            });
            let written = self.folder(manifest.transpose()?, below, &format!("{here}/"))?;
            let file = edits.files.get(name);
            let stays_file = match file {
                Some(File::Put(_)) => true,
                Some(File::Removed | File::Dropped) => false,
                None => old.is_some() && !is_folder,
            };
            if stays_file && written.is_some() {
                return Err(PublishError::Refused {
                    path: here,
                    reason: "a file of that name stands where the folder would".to_owned(),
                });
            }
            if let Some((oid, manifest)) = written {
                let mode = Mode::Directory.octal();
                entries.push(ManifestEntry {
                    manifest: Some(manifest),
                    ..ManifestEntry::new(name.as_str(), mode, oid, EntryKind::Directory)
                });
            } else if stays_file && file.is_none() {
                // Nothing was to be put below it after all.
                entries.extend(old.cloned());
            }
        }
        for (name, edit) in &edits.files {
            let here = || format!("{path}{name}");
            let old = before.get(name.as_bytes());
            let is_folder = old.is_some_and(|entry| entry.kind == EntryKind::Directory);
            match edit {
                File::Put(_) if is_folder && !edits.folders.contains_key(name) => {
                    return Err(PublishError::Refused {
                        path: here(),
                        reason: "a folder of that name stands where the file would".to_owned(),
                    });
                }
                File::Put(stored) => entries.push(entry_of(name, stored)),
                File::Removed if old.is_none() || is_folder => {
                    return Err(PublishError::Missing { path: here() });
                }
                File::Dropped if is_folder && !edits.folders.contains_key(name) => {
                    entries.extend(old.map(|entry| (*entry).clone()));
                }
                File::Removed | File::Dropped => {}
            }
        }
        let edited = |name: &[u8]| {
            std::str::from_utf8(name).is_ok_and(|name| {
                edits.files.contains_key(name) || edits.folders.contains_key(name)
            })
        };
        entries.extend(base.iter().filter(|entry| !edited(&entry.name)).cloned());
        if entries.is_empty() {
            return Ok(None);
        }
        let (old, new): (Vec<_>, Vec<_>) = entries
            .iter()
            .partition(|entry| before.contains_key(&*entry.name));
        no_new_folds_alike(&old, &new, path)?;
        self.finish(entries, path).map(Some)
    }

    fn finish(
        &mut self,
        entries: Vec<ManifestEntry>,
        path: &str,
    ) -> Result<(GitOid, Blake3), PublishError> {
        let refuse = |reason: String| PublishError::Refused {
            path: path.to_owned(),
            reason,
        };
        if entries.len() > DIRECTORY_ENTRIES_MAX {
            return Err(refuse(format!(
                "a folder may hold at most {DIRECTORY_ENTRIES_MAX} entries"
            )));
        }
        let tree = entries.iter().map(|entry| {
            Ok(TreeEntry {
                mode: Mode::from_octal(entry.mode)
                    .ok_or_else(|| refuse(format!("mode {:o} is none of git's", entry.mode)))?,
                name: entry.name.clone(),
                oid: entry.oid,
            })
        });
        let tree = tree.collect::<Result<_, PublishError>>()?;
        let bytes = encode_tree(tree).map_err(|error| refuse(error.to_string()))?;
        let oid = object_oid(ObjectKind::Tree, &bytes);
        let manifest = Manifest::new(Blake3::of(&bytes), entries)
            .map_err(|error| refuse(error.to_string()))?;
        self.batch.put(bytes.into());
        if self.batch.len_bytes() > BATCH_BYTES_MAX {
            std::mem::replace(self.batch, self.store.batch()).commit()?;
        }
        Ok((oid, self.batch.put(manifest.encode().into())))
    }
}

fn entry_of(name: &str, stored: &Stored) -> ManifestEntry {
    let mode = if stored.executable {
        Mode::Executable
    } else {
        Mode::File
    };
    let pointer = Pointer {
        sha256: stored.sha256,
        size: stored.size,
    };
    let (kind, oid) = match stored.git {
        Some(oid) => (EntryKind::File, oid),
        None => (EntryKind::Lfs, pointer.oid()),
    };
    ManifestEntry {
        size: Some(stored.size),
        sha256: Some(stored.sha256),
        blake3: Some(stored.blake3),
        xet: stored.xet.map(|hash| *hash.as_bytes()),
        ..ManifestEntry::new(name, mode.octal(), oid, kind)
    }
}

/// File systems that fold case would show one of two such names for the other.
fn no_new_folds_alike(
    old: &[&ManifestEntry],
    new: &[&ManifestEntry],
    path: &str,
) -> Result<(), PublishError> {
    if new.is_empty() {
        return Ok(());
    }
    let name = |entry: &ManifestEntry| String::from_utf8_lossy(&entry.name).into_owned();
    let old = old.iter().map(|entry| name(entry));
    let mut folded: HashMap<String, String> = old.map(|name| (fold(&name), name)).collect();
    for entry in new {
        let name = name(entry);
        if let Some(other) = folded.insert(fold(&name), name.clone()) {
            return Err(PublishError::Refused {
                path: format!("{path}{name}"),
                reason: format!("it differs from {other:?} by letter case alone"),
            });
        }
    }
    Ok(())
}
