//! What a disk holds after a power cut: files by what was synced, names by what was synced of their folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::recorder::Call;

/// What of the things that were never synced a power cut left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing of them: neither bytes nor names.
    Nothing,
    /// All names, but no byte that was not synced.
    Names,
    /// All names and lengths, with zeros where bytes were not synced.
    NamesAndLengths,
    /// All bytes of the files that kept their old names, but no new name.
    Bytes,
    /// Everything.
    Everything,
}

impl Left {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Names,
        Self::NamesAndLengths,
        Self::Bytes,
        Self::Everything,
    ];
}

/// A disk as the process sees it, and as it would be found after a power cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    files: BTreeMap<usize, Bytes>,
    seen: Names,
    durable: Names,
    /// Changes of names that no sync has reached, in order, and the file that a rename moves.
    waiting: Vec<(Call, Option<usize>)>,
}

#[derive(Debug, Clone, Default)]
struct Bytes {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
}

impl Names {
    fn apply(&mut self, call: &Call) {
        match call {
            Call::Create { file, path } => {
                self.files.insert(path.clone(), *file);
            }
            Call::Rename { from, to } => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            Call::Remove { path } => {
                self.files.remove(path);
            }
            Call::CreateDir { path } => {
                self.folders.insert(path.clone());
            }
            _ => {}
        }
    }
}

impl Disk {
    /// Takes a call over.
    pub(crate) fn apply(&mut self, call: &Call) {
        match call {
            Call::Write {
                file,
                offset,
                bytes,
            } => {
                let seen = &mut self.files.entry(*file).or_default().seen;
                let start = usize::try_from(*offset).unwrap();
                seen.resize(seen.len().max(start + bytes.len()), 0);
                seen[start..start + bytes.len()].copy_from_slice(bytes);
            }
            Call::Truncate { file, len } => {
                let len = usize::try_from(*len).unwrap();
                self.files.entry(*file).or_default().seen.resize(len, 0);
            }
            Call::Sync { file } => {
                let bytes = self.files.entry(*file).or_default();
                bytes.durable.clone_from(&bytes.seen);
            }
            Call::SyncDir { path } => self.sync_names(path),
            names => {
                let moved = match names {
                    Call::Rename { from, .. } => self.seen.files.get(from).copied(),
                    _ => None,
                };
                self.seen.apply(names);
                self.waiting.push((names.clone(), moved));
                if let Call::Create { file, .. } = names {
                    self.files.entry(*file).or_default();
                }
            }
        }
    }

    /// Makes the changes of one folder durable; a rename is one change, whichever folder is synced.
    fn sync_names(&mut self, folder: &Path) {
        let is_in = |path: &Path| path.parent() == Some(folder);
        let mut still_waiting: Vec<(Call, Option<usize>)> = Vec::new();
        for (call, moved) in std::mem::take(&mut self.waiting) {
            let reached = match &call {
                Call::Create { path, .. } | Call::Remove { path } | Call::CreateDir { path } => {
                    is_in(path)
                }
                Call::Rename { from, to } => is_in(from) || is_in(to),
                _ => false,
            };
            match &call {
                _ if !reached => still_waiting.push((call, moved)),
                Call::Rename { from, to } => {
                    // The old name may never have been durable, and is not any more.
                    still_waiting.retain(
                        |(call, _)| !matches!(call, Call::Create { path, .. } if path == from),
                    );
                    self.durable.files.remove(from);
                    self.durable
                        .files
                        .extend(moved.map(|file| (to.clone(), file)));
                }
                _ => self.durable.apply(&call),
            }
        }
        self.waiting = still_waiting;
    }

    /// What a power cut leaves now.
    pub(crate) fn image(&self, left: Left) -> Image {
        let names = match left {
            Left::Nothing | Left::Bytes => &self.durable,
            Left::Names | Left::NamesAndLengths | Left::Everything => &self.seen,
        };
        let files = names.files.iter().map(|(path, file)| {
            let bytes = &self.files[file];
            let content = match left {
                Left::Nothing | Left::Names => bytes.durable.clone(),
                Left::Bytes | Left::Everything => bytes.seen.clone(),
                Left::NamesAndLengths => {
                    let mut content = bytes.durable.clone();
                    content.resize(bytes.seen.len(), 0);
                    content
                }
            };
            (path.clone(), content)
        });
        Image {
            folders: names.folders.clone(),
            files: files.collect(),
        }
    }
}

/// What a disk holds.
#[derive(Debug)]
pub(crate) struct Image {
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Image {
    /// Equal for equal images.
    pub(crate) fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for folder in &self.folders {
            hasher
                .update(folder.as_os_str().as_encoded_bytes())
                .update(b"/\0");
        }
        for (path, bytes) in &self.files {
            hasher
                .update(path.as_os_str().as_encoded_bytes())
                .update(b"\0");
            hasher
                .update(&(bytes.len() as u64).to_le_bytes())
                .update(bytes);
        }
        hasher.finalize()
    }

    /// Makes the files in an empty folder; those in folders that were lost are lost with them.
    pub(crate) fn write(&self, dir: &Path) {
        for folder in &self.folders {
            if folder
                .parent()
                .is_none_or(|parent| dir.join(parent).is_dir())
            {
                fs::create_dir_all(dir.join(folder)).unwrap();
            }
        }
        for (path, bytes) in &self.files {
            let path = dir.join(path);
            if path.parent().is_some_and(Path::is_dir) {
                fs::write(path, bytes).unwrap();
            }
        }
    }
}
