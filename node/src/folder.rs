//! The data folder: where things stand in it, its format version, its lock.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::SpawnError;
use crate::store::StoreError;

/// Version of everything in the folder; a folder with a higher one is refused.
pub(crate) const FORMAT: u32 = 1;

/// An open data folder; the lock is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    is_new: bool,
    _lock: File,
}

impl Folder {
    /// Opens or makes the folder, takes its lock, and checks its version.
    ///
    /// The version is looked at before the lock file is made, so that a newer folder stays untouched.
    pub(crate) fn open(path: &Path) -> Result<Self, SpawnError> {
        let known = check_format(path)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| io("create", path, source))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| io("open", &lock_path, source))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            return Err(if error == rustix::io::Errno::WOULDBLOCK {
                SpawnError::Locked {
                    path: path.to_owned(),
                }
            } else {
                io("lock", &lock_path, error.into())
            });
        }
        // Somebody may have written the version while this process waited for its turn.
        let is_new = !known && !check_format(path)?;
        Ok(Self {
            path: path.to_owned(),
            is_new,
            _lock: lock,
        })
    }

    /// Whether no start has ended well here yet.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Writes the version: from here on what is missing in the folder is a loss, not a first start.
    pub(crate) fn begun(&self) -> Result<(), SpawnError> {
        if self.is_new {
            write_durably(
                &self.path.join("format"),
                format!("{FORMAT}\n").as_bytes(),
                0o644,
            )?;
        }
        Ok(())
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where key files stand.
    pub(crate) fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// Where the journal stands.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }
}

/// Says whether the folder carries a version, and refuses one that is newer or no version at all.
fn check_format(path: &Path) -> Result<bool, SpawnError> {
    let file = path.join("format");
    let text = match fs::read(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return check_ours(path).map(|()| false);
        }
        Ok(bytes) => String::from_utf8_lossy(&bytes)
            .trim()
            .chars()
            .take(40)
            .collect::<String>(),
        Err(source) => return Err(io("read", &file, source)),
    };
    match text.parse::<u32>() {
        Ok(version) if version == FORMAT => Ok(true),
        _ => Err(SpawnError::NewerFormat {
            path: path.to_owned(),
            found: text,
            known: FORMAT,
        }),
    }
}

/// Refuses a folder that has no version and something else than what a first start leaves before it.
fn check_ours(path: &Path) -> Result<(), SpawnError> {
    const EXPECTED: [&str; 4] = ["lock", "keys", "format.tmp", "cairn.toml"];
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io("read", path, source)),
    };
    for entry in entries {
        let name = entry
            .map_err(|source| io("read", path, source))?
            .file_name();
        if !EXPECTED.iter().any(|expected| name == *expected) {
            let found = name.to_string_lossy().chars().take(80).collect();
            return Err(SpawnError::NotOurs {
                path: path.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

/// Writes a file whole or not at all: temporary name, fsync, rename, fsync of the folder.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SpawnError> {
    let temporary = path.with_extension("tmp");
    let folder = path
        .parent()
        .expect("invariant: a file in the data folder has a parent");
    let write = || -> std::io::Result<()> {
        if temporary.exists() {
            fs::remove_file(&temporary)?;
        }
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| io("write", path, source))
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> SpawnError {
    SpawnError::Store(StoreError::Io {
        operation,
        path: path.to_owned(),
        source,
    })
}
