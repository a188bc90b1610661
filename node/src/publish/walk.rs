//! What a folder holds: every file with the state it was seen in, or the first name that can't be published.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_protocol::limits::COMMIT_FILES_MAX;
use cairn_protocol::path::{RepoPath, fold};
use ignore::gitignore::Gitignore;

use super::PublishError;
use super::contents::{SETTLED_NS, now_ns};

/// What the file system said of a file: if none of it changed, its bytes did not either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i128,
    pub(super) ctime_ns: i128,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// One file to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Where its bytes are.
    pub(super) source: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) executable: bool,
}

/// Files by their path in the repository, in path order.
pub(super) type Files = BTreeMap<RepoPath, Found>;

/// Lists a folder: `.git` and `.cache/huggingface` at any depth and what the root's `.gitignore` names are left
/// out, as the hub's own clients do. Links are followed within the folder only.
pub(super) fn walk(dir: &Path) -> Result<Files, PublishError> {
    let root = fs::canonicalize(dir).map_err(|source| PublishError::read(dir, source))?;
    let ignored = root.join(".gitignore");
    let ignore = if ignored.is_file() {
        let (ignore, error) = Gitignore::new(&ignored);
        if let Some(error) = error {
            tracing::warn!(%error, ".gitignore read in part");
        }
        ignore
    } else {
        Gitignore::empty()
    };
    let mut walk = Walk {
        root,
        ignore,
        files: Files::new(),
        folded: BTreeMap::new(),
    };
    walk.folder(&walk.root.clone(), "")?;
    Ok(walk.files)
}

/// Waits until every file is older than the kernel's clock ticks, a fraction of a second at most, so that a
/// later change of any of them shows in its times.
pub(super) fn settled(files: &Files) {
    let newest = files
        .values()
        .map(|f| f.stamp.mtime_ns.max(f.stamp.ctime_ns))
        .max();
    let Some(newest) = newest else { return };
    let left = newest + SETTLED_NS - now_ns();
    if (1..=SETTLED_NS).contains(&left) {
        std::thread::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(0)));
    }
}

/// The first path that is in one listing only, or differs.
pub(super) fn difference<'a>(one: &'a Files, other: &'a Files) -> Option<&'a RepoPath> {
    let in_other = one
        .iter()
        .find(|(path, found)| other.get(path) != Some(found));
    in_other
        .or_else(|| other.iter().find(|(path, _)| !one.contains_key(path)))
        .map(|(path, _)| path)
}

struct Walk {
    root: PathBuf,
    ignore: Gitignore,
    files: Files,
    /// Folded path → path, so that no two differ by case alone.
    folded: BTreeMap<String, String>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<(), PublishError> {
        let fail = |source| PublishError::read(folder, source);
        for item in fs::read_dir(folder).map_err(fail)? {
            let item = item.map_err(fail)?;
            let source = item.path();
            let name = item.file_name();
            let Some(name) = name.to_str() else {
                return Err(PublishError::Refused {
                    path: format!("{prefix}{}", item.file_name().to_string_lossy()),
                    reason: "its name is not UTF-8".to_owned(),
                });
            };
            let path = format!("{prefix}{name}");
            let link = fs::symlink_metadata(&source)
                .map_err(|source_error| PublishError::read(&source, source_error))?;
            if is_left_out(&path) {
                continue;
            }
            if link.is_dir() {
                if !self.ignore.matched(&source, true).is_ignore() {
                    check(&path)?;
                    self.fold(&path)?;
                    self.folder(&source, &format!("{path}/"))?;
                }
            } else if !self.ignore.matched(&source, false).is_ignore() {
                self.file(source, &path, &link)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, source: PathBuf, path: &str, link: &Metadata) -> Result<(), PublishError> {
        let refuse = |reason: &str| PublishError::Refused {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let repo_path = check(path)?;
        let (source, metadata) = if link.is_symlink() {
            let target = fs::canonicalize(&source)
                .map_err(|_| refuse("it is a symbolic link that leads nowhere"))?;
            if !target.starts_with(&self.root) {
                return Err(refuse(
                    "it is a symbolic link out of the folder; copy the file in",
                ));
            }
            let inside = target.strip_prefix(&self.root).unwrap_or(&target);
            if inside.to_str().is_none_or(is_left_out)
                || self
                    .ignore
                    .matched_path_or_any_parents(&target, false)
                    .is_ignore()
            {
                return Err(refuse("it is a symbolic link to a file that is left out"));
            }
            let metadata =
                fs::metadata(&target).map_err(|error| PublishError::read(&source, error))?;
            if metadata.is_dir() {
                return Err(refuse("it is a symbolic link to a folder; copy the folder"));
            }
            (target, metadata)
        } else {
            (source, link.clone())
        };
        if !metadata.is_file() {
            let kind = metadata.file_type();
            return Err(refuse(if kind.is_fifo() {
                "it is a named pipe"
            } else if kind.is_socket() {
                "it is a socket"
            } else {
                "it is a device"
            }));
        }
        self.fold(path)?;
        if self.files.len() >= COMMIT_FILES_MAX {
            return Err(refuse("the folder holds more files than one commit may"));
        }
        let executable = metadata.mode() & 0o100 != 0;
        let stamp = Stamp::of(&metadata);
        self.files.insert(
            repo_path,
            Found {
                source,
                stamp,
                executable,
            },
        );
        Ok(())
    }

    fn fold(&mut self, path: &str) -> Result<(), PublishError> {
        match self.folded.insert(fold(path), path.to_owned()) {
            Some(other) => Err(PublishError::Refused {
                path: path.to_owned(),
                reason: format!("it differs from {other:?} by letter case alone"),
            }),
            None => Ok(()),
        }
    }
}

/// What the hub's clients leave out, too: git's own files and download caches, at any depth.
fn is_left_out(path: &str) -> bool {
    let mut components = path.split('/').peekable();
    while let Some(component) = components.next() {
        if component == ".git"
            || (component == ".cache" && components.peek() == Some(&"huggingface"))
        {
            return true;
        }
    }
    false
}

fn check(path: &str) -> Result<RepoPath, PublishError> {
    path.parse().map_err(PublishError::Path)
}
