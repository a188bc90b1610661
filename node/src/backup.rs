//! Backups: everything that can't be had again from peers, copied while the node serves.
//!
//! ```text
//! cairn-backup.json    which state counts, and what it is of; written last, so that a backup counts whole
//! lock                 held while one is made or restored
//! state-<n>/           journal, keys, log and side files, as in a data folder
//! blobs/ab/<64 hex>    contents of 64 KiB and more, and their piece lists; shared by all states
//! ```
//!
//! The journal is copied before the log: whatever it says was durable in the log by then. Contents in files of
//! their own are copied once, since they never change; those of repositories of others that nobody pinned
//! are left out, for they are a cache. While a backup is made nothing is swept.

mod copy;
mod guard;

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_protocol::hash::Blake3;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub(crate) use self::guard::Guard;

use self::copy::{copy_blob, copy_file, copy_folder, made_durably, sync};
use crate::SpawnError;
use crate::accounts::Account;
use crate::control::Progress;
use crate::files::RealFiles;
use crate::folder::{FORMAT, Folder, write_durably};
use crate::garbage;
use crate::journal::{Entry, Journal};
use crate::node::{Inner, now_s};
use crate::repos::RepoError;
use crate::store::{Store, StoreError, StoreOptions};

/// Says what the backup is.
const MANIFEST: &str = "cairn-backup.json";
/// Folders of a state, in the order in which they are copied.
const FOLDERS: [&str; 5] = ["journal", "keys", "log", "xorbs", "uploads"];
/// Files of a data folder that are no state.
const LEFT_OUT: [&str; 3] = ["lock", "control.sock", "format"];

/// Why a backup could not be made, or not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file or folder.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The backup would stand in the folder that it is of.
    #[error("{} is in the data folder itself", .0.display())]
    Inside(PathBuf),
    /// Somebody makes or restores it at this moment.
    #[error("the backup in {} is in use by another command", .0.display())]
    Busy(PathBuf),
    /// There is something else in the folder.
    #[error("{} is neither empty nor a backup", .0.display())]
    Strange(PathBuf),
    /// There is no backup, or none that this release can read.
    #[error("there is no backup in {}: {reason}", path.display())]
    NoBackup {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something would be written over.
    #[error("the data folder {} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The folder or the keys.
    #[error(transparent)]
    Folder(#[from] Box<SpawnError>),
    /// The store or the journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A repository could not be read.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

impl BackupError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Inside(_) => "name a folder on another disk",
            Self::Strange(_) => "name an empty folder, or one that has a backup",
            Self::Busy(_) => "wait until it has ended",
            Self::NoBackup { .. } => "`cairn backup DIR` makes one",
            Self::NotEmpty(_) => "name another one with `--data`, or move what is there away",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

impl From<SpawnError> for BackupError {
    fn from(error: SpawnError) -> Self {
        Self::Folder(Box::new(error))
    }
}

/// What the manifest says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// Format of the data folder.
    format: u32,
    /// Release that made it.
    release: String,
    /// Which state counts.
    state: u64,
    /// When it was begun, in seconds since the Unix epoch.
    begun: u64,
    /// The node's own namespace.
    namespace: String,
    /// What the journal said of accounts while the log was copied: else a private namespace that was made
    /// meanwhile would be one of which nobody knows that it is private.
    accounts: Vec<Entry>,
}

/// What was copied.
#[derive(Debug, Clone, Default, Serialize)]
pub struct BackupReport {
    /// Contents in files of their own.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of these that were copied now, and of all else.
    pub copied_bytes: u64,
    /// Contents that were missing or other than their names say, and are not in the copy.
    pub damaged: Vec<Blake3>,
    /// When the backup was begun, in seconds since the Unix epoch.
    pub begun: u64,
}

/// Makes a backup, or brings one up to date; durable on return, and until then the one before counts.
pub(crate) fn backup(
    node: &Inner,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<BackupReport, BackupError> {
    let data = node.folder.path();
    let data = &fs::canonicalize(data).map_err(BackupError::io("find", data))?;
    let there = to.ancestors().find(|folder| folder.exists());
    let is_inside = there
        .map(fs::canonicalize)
        .transpose()
        .map_err(BackupError::io("find", to))?
        .is_some_and(|there| there.starts_with(data));
    if is_inside {
        return Err(BackupError::Inside(to.to_owned()));
    }
    made_durably(to)?;
    let _lock = lock(to)?;
    let before = match read_manifest(to) {
        Ok(manifest) => manifest.state,
        Err(_) if is_empty(to)? => 0,
        Err(error) => return Err(error),
    };
    remove_states(to, before)?;
    let mut manifest = Manifest {
        format: FORMAT,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        state: before + 1,
        begun: now_s(),
        namespace: node.namespace_name.clone(),
        accounts: Vec::new(),
    };
    let mut report = BackupReport {
        begun: manifest.begun,
        ..BackupReport::default()
    };
    let state = state_of(to, manifest.state);
    made_durably(&state)?;
    // What the journal says is stored stays so until it is copied.
    let _lease = node.store.lease();
    let accounts: HashSet<Account> = node.accounts.all().into_iter().collect();
    for name in FOLDERS {
        report.copied_bytes += copy_folder(&data.join(name), &state.join(name))?;
    }
    let now = node.accounts.all().into_iter();
    let since = now.filter(|account| !accounts.contains(account));
    manifest.accounts = since.map(|account| Entry::from(&account)).collect();
    report.copied_bytes += copy_side_files(data, &state)?;
    sync(&state)?;

    let kept = garbage::kept(node)?;
    let mut flats = Vec::new();
    node.store.flats(&mut |hash, size| {
        if kept.contains(&hash) {
            flats.push((hash, size));
        }
    })?;
    let total = flats.iter().map(|(_, size)| size).sum();
    for (hash, size) in &flats {
        progress(Progress {
            what: format!("copying {hash}"),
            done: report.bytes,
            total,
        });
        match copy_blob(data, to, hash, *size, false)? {
            Some(copied) => report.copied_bytes += copied,
            None => report.damaged.push(*hash),
        }
        report.blobs += 1;
        report.bytes += size;
    }
    write_manifest(to, &manifest)?;
    // The one before counts no more.
    remove_states(to, manifest.state)?;
    let flats: HashSet<Blake3> = flats.into_iter().map(|(hash, _)| hash).collect();
    copy::remove_other_blobs(to, &flats)?;
    Ok(report)
}

/// Makes a data folder of a backup; the folder must be empty.
///
/// The home signs nothing before it has caught up with a peer, unless nothing was signed since: `is_newest`.
pub fn restore(
    from: &Path,
    data: &Path,
    is_newest: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<BackupReport, BackupError> {
    let manifest = read_manifest(from)?;
    let _lock = lock(from)?;
    if !is_empty(data)? {
        return Err(BackupError::NotEmpty(data.to_owned()));
    }
    // Taken for a data folder only once it is whole: the format is written last.
    let folder = Folder::open(data)?;
    let state = state_of(from, manifest.state);
    let mut report = BackupReport {
        begun: manifest.begun,
        ..BackupReport::default()
    };
    for name in FOLDERS {
        report.copied_bytes += copy_folder(&state.join(name), &data.join(name))?;
    }
    report.copied_bytes += copy_side_files(&state, data)?;
    let store = Store::open(
        Arc::new(RealFiles),
        data,
        &StoreOptions::default(),
        &mut |_| {},
    )?;
    let mut flats = Vec::new();
    store.flats(&mut |hash, size| flats.push((hash, size)))?;
    let total = flats.iter().map(|(_, size)| size).sum();
    for (hash, size) in flats {
        progress(Progress {
            what: format!("copying {hash}"),
            done: report.bytes,
            total,
        });
        let is_there = copy::blob_path(from, &hash).exists();
        let copied = if is_there {
            copy_blob(from, data, &hash, size, true)?
        } else {
            None
        };
        if let Some(copied) = copied {
            report.blobs += 1;
            report.copied_bytes += copied;
            report.bytes += size;
            continue;
        }
        // Fetched again when somebody asks for it.
        store.evict(&hash)?;
        if is_there {
            report.damaged.push(hash);
        }
    }
    drop(store);
    let (journal, _) = Journal::open(Arc::new(RealFiles), &folder.journal())?;
    for account in manifest.accounts {
        journal.append(account)?;
    }
    if !is_newest {
        journal.append(Entry::Restored {
            backup: manifest.begun,
        })?;
    }
    drop(journal);
    sync(data)?;
    folder.begun()?;
    Ok(report)
}

fn state_of(backup: &Path, number: u64) -> PathBuf {
    backup.join(format!("state-{number}"))
}

fn read_manifest(backup: &Path) -> Result<Manifest, BackupError> {
    let refuse = |reason: String| BackupError::NoBackup {
        path: backup.to_owned(),
        reason,
    };
    let text = fs::read(backup.join(MANIFEST)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound
            if fs::read_dir(backup).is_ok_and(|mut dir| dir.next().is_some()) =>
        {
            BackupError::Strange(backup.to_owned())
        }
        _ => refuse(format!("{MANIFEST}: {error}")),
    })?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| refuse(format!("{MANIFEST}: {error}")))?;
    if manifest.format != FORMAT {
        return Err(refuse(format!(
            "it has format {}, made by release {}; this release reads format {FORMAT}",
            manifest.format, manifest.release
        )));
    }
    Ok(manifest)
}

fn write_manifest(backup: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let bytes =
        serde_json::to_vec_pretty(manifest).expect("invariant: a manifest has string keys only");
    Ok(write_durably(&backup.join(MANIFEST), &bytes, 0o600)?)
}

/// Keeps other commands away from a backup as long as it is held.
fn lock(backup: &Path) -> Result<File, BackupError> {
    let path = backup.join("lock");
    let file = copy::open_new(&path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BackupError::Busy(backup.to_owned())),
        Err(error) => Err(BackupError::io("lock", &path)(error.into())),
    }
}

/// Whether a folder is missing, or has nothing in it but a lock.
fn is_empty(folder: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().all(|entry| entry.file_name() == "lock")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(BackupError::io("read", folder)(error)),
    }
}

/// Files that stand in the data folder itself: settings, known peers, counters.
fn copy_side_files(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let mut copied = 0;
    for entry in fs::read_dir(from)
        .map_err(BackupError::io("read", from))?
        .flatten()
    {
        let name = entry.file_name();
        let is_state = !LEFT_OUT.iter().any(|left_out| name == *left_out)
            && entry
                .path()
                .extension()
                .is_none_or(|extension| extension != "tmp");
        if is_state && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            copied += copy_file(&entry.path(), &to.join(&name))?;
        }
    }
    Ok(copied)
}

/// Removes every state but one.
fn remove_states(backup: &Path, kept: u64) -> Result<(), BackupError> {
    let kept = state_of(backup, kept);
    for entry in fs::read_dir(backup)
        .map_err(BackupError::io("read", backup))?
        .flatten()
    {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with("state-") && path != kept {
            fs::remove_dir_all(&path).map_err(BackupError::io("remove", &path))?;
        }
    }
    Ok(())
}
