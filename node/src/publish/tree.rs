//! Git trees and manifests of a commit, from the leaves up.

use std::collections::BTreeMap;

use cairn_protocol::git::{Mode, ObjectKind, TreeEntry, encode_tree, object_oid};
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::limits::DIRECTORY_ENTRIES_MAX;
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
use cairn_protocol::path::RepoPath;
use cairn_protocol::pointer::Pointer;

use super::PublishError;
use super::contents::BATCH_BYTES_MAX;
use crate::store::{Batch, Store};

/// One file of the commit, its content stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) size: u64,
    pub(super) blake3: Blake3,
    pub(super) sha256: Sha256,
    /// Git blob oid; `None` for LFS, whose oid is the pointer's.
    pub(super) git: Option<GitOid>,
    pub(super) executable: bool,
}

#[derive(Default)]
struct Folder<'a> {
    folders: BTreeMap<&'a str, Folder<'a>>,
    files: BTreeMap<&'a str, &'a Stored>,
}

/// Puts every tree and manifest into the batch; returns the root tree's oid and the root manifest's hash.
pub(super) fn write(
    store: &Store,
    batch: &mut Batch,
    files: &BTreeMap<RepoPath, Stored>,
) -> Result<(GitOid, Blake3), PublishError> {
    let mut root = Folder::default();
    for (path, stored) in files {
        let (folders, name) = match path.as_str().rsplit_once('/') {
            Some((folders, name)) => (Some(folders), name),
            None => (None, path.as_str()),
        };
        let folder = folders
            .into_iter()
            .flat_map(|folders| folders.split('/'))
            .fold(&mut root, |folder, name| {
                folder.folders.entry(name).or_default()
            });
        folder.files.insert(name, stored);
    }
    write_folder(store, batch, &root, "")
}

fn write_folder(
    store: &Store,
    batch: &mut Batch,
    folder: &Folder<'_>,
    path: &str,
) -> Result<(GitOid, Blake3), PublishError> {
    if folder.files.len() + folder.folders.len() > DIRECTORY_ENTRIES_MAX {
        return Err(PublishError::Refused {
            path: path.to_owned(),
            reason: format!("a folder may hold at most {DIRECTORY_ENTRIES_MAX} entries"),
        });
    }
    let mut entries = Vec::with_capacity(folder.files.len() + folder.folders.len());
    for (name, below) in &folder.folders {
        let (oid, manifest) = write_folder(store, batch, below, &format!("{path}{name}/"))?;
        let mode = Mode::Directory.octal();
        let entry = ManifestEntry::new(*name, mode, oid, EntryKind::Directory);
        entries.push(ManifestEntry {
            manifest: Some(manifest),
            ..entry
        });
    }
    for (name, stored) in &folder.files {
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
        entries.push(ManifestEntry {
            size: Some(stored.size),
            sha256: Some(stored.sha256),
            blake3: Some(stored.blake3),
            ..ManifestEntry::new(*name, mode.octal(), oid, kind)
        });
    }
    let tree: Vec<TreeEntry> = entries
        .iter()
        .map(|entry| TreeEntry {
            mode: Mode::from_octal(entry.mode).expect("invariant: modes made just above"),
            name: entry.name.clone(),
            oid: entry.oid,
        })
        .collect();
    let invalid = |error: &dyn std::fmt::Display| PublishError::Refused {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let bytes = encode_tree(tree).map_err(|error| invalid(&error))?;
    let oid = object_oid(ObjectKind::Tree, &bytes);
    let manifest = Manifest::new(Blake3::of(&bytes), entries).map_err(|error| invalid(&error))?;
    batch.put(bytes.into());
    if batch.len_bytes() > BATCH_BYTES_MAX {
        std::mem::replace(batch, store.batch()).commit()?;
    }
    Ok((oid, batch.put(manifest.encode().into())))
}
