//! Parts of large files, written where they belong into one file until all of them are here.
//!
//! `uploads/{account}-{sha256}/`: `whole` has the bytes, and an empty file named by a part's number says that the
//! part is there, made once its bytes were synced. What is said to be there after a crash is whole, and need not
//! be sent again; what nobody completes is removed after a day.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use cairn_protocol::hash::Sha256;
use parking_lot::{Mutex, RwLock};

use super::chains::Chains;
use crate::accounts::AccountId;
use crate::files::{Files as _, OpenFile, RealFiles};
use crate::store::{Running, StoreError};

/// How long parts wait for the others.
const WAIT: Duration = Duration::from_hours(24);
/// Bytes of the disk that parts leave free.
const RESERVE_BYTES: u64 = 64 << 20;
/// Bytes that are copied at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Name of the file that has the bytes.
const WHOLE: &str = "whole";

/// Held for reading by who writes a part, for writing by who takes the whole away.
type Turn = Arc<RwLock<()>>;

/// Where parts are kept.
#[derive(Debug)]
pub(crate) struct Parts {
    dir: PathBuf,
    turns: Mutex<HashMap<PathBuf, Weak<RwLock<()>>>>,
    chains: Chains,
}

/// Which part of what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) account: &'a AccountId,
    pub(crate) sha256: &'a Sha256,
    /// From 1.
    pub(crate) number: u32,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Parts {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            dir: data.join("uploads"),
            turns: Mutex::default(),
            chains: Chains::default(),
        }
    }

    fn folder(&self, account: &AccountId, sha256: &Sha256) -> PathBuf {
        self.dir.join(format!("{account}-{}", sha256.to_hex()))
    }

    fn turn(&self, folder: &Path) -> Turn {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(folder).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Turn::default();
        turns.insert(folder.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Keeps a part; durable on return. [`StoreError::Changed`] where the source has not exactly its bytes.
    pub(crate) fn put(&self, part: &Part<'_>, source: &mut dyn Read) -> Result<(), StoreError> {
        let folder = self.folder(part.account, part.sha256);
        let fail = |operation: &'static str, source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull => StoreError::Full {
                path: folder.clone(),
            },
            _ => StoreError::Io {
                operation,
                path: folder.clone(),
                source,
            },
        };
        let turn = self.turn(&folder);
        let _turn = turn.read();
        make_durably(&folder).map_err(|error| fail("create", error))?;
        let free = rustix::fs::statvfs(&folder)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| fail("ask for free space at", error.into()))?;
        if free < part.length.saturating_add(RESERVE_BYTES) {
            return Err(StoreError::Full { path: folder });
        }
        let path = folder.join(WHOLE);
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| fail("open a file in", error))?;
        let file = RealFiles.open_write(&path)?;
        let range = part.offset..part.offset + part.length;
        let mut running = self.chains.begin(&folder, &range);
        let written = match &mut running {
            Some(running) => running.take(source, part.length, &RealFiles, &file),
            None => copy(source, part, &file),
        };
        let running = running.filter(|_| written.is_ok());
        self.chains.end(&folder, &range, running);
        written?;
        let done = || -> io::Result<()> {
            file.file().sync_all()?;
            File::create(folder.join(part.number.to_string()))?;
            File::open(&folder)?.sync_all()
        };
        done().map_err(|error| fail("keep a part in", error))
    }

    /// Hands the whole file out, with nobody writing to it, if all its parts are there, and its hashes as far as
    /// they were made when it was written; then lets go of it.
    ///
    /// [`StoreError::Changed`] where one is missing: it has to be sent first.
    pub(crate) fn take<T>(
        &self,
        account: &AccountId,
        sha256: &Sha256,
        size: u64,
        count: u64,
        use_it: impl FnOnce(&Path, Option<Running>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let folder = self.folder(account, sha256);
        let turn = self.turn(&folder);
        let _turn = turn.write();
        let path = folder.join(WHOLE);
        let found = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let all = (1..=count).all(|part| folder.join(part.to_string()).exists());
        if !all || found != size {
            let found = found.min(size.saturating_sub(1));
            return Err(StoreError::Changed {
                expected: size,
                found,
            });
        }
        let used = use_it(&path, self.chains.take(&folder));
        // Other bytes than were promised are no use to anybody, either.
        if matches!(used, Ok(_) | Err(StoreError::Disagrees { .. }))
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            tracing::warn!(%error, folder = %folder.display(), "parts not removed");
        }
        used
    }

    /// Removes what has waited for too long.
    pub(crate) fn expire(&self, now: SystemTime) {
        for folder in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = folder.path();
            let turn = self.turn(&path);
            let Some(_turn) = turn.try_write() else {
                continue;
            };
            let age = fs::metadata(path.join(WHOLE))
                .or_else(|_| folder.metadata())
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|changed| now.duration_since(changed).ok());
            if age.is_none_or(|age| age <= WAIT) {
                continue;
            }
            self.chains.take(&path);
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(%error, folder = %path.display(), "parts not removed");
            }
        }
    }
}

/// Writes a part where it belongs.
fn copy(source: &mut dyn Read, part: &Part<'_>, file: &OpenFile) -> Result<(), StoreError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut found = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::Source(error)),
        };
        let at = part.offset + found;
        found += read as u64;
        if found > part.length {
            break;
        }
        RealFiles.write_all_at(file, &buffer[..read], at)?;
    }
    if found != part.length {
        return Err(StoreError::Changed {
            expected: part.length,
            found,
        });
    }
    Ok(())
}

/// Makes a folder and the one that it is in, where they are missing; their names are durable on return.
pub(crate) fn make_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    for above in folder.ancestors().skip(1).take(2) {
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_or_not_there_and_stand_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let parts = Parts::new(dir.path());
        let (account, sha256) = (AccountId::from_bytes([1; 16]), Sha256::from_bytes([2; 32]));
        let put = |number, offset, bytes: &[u8]| {
            let part = Part {
                account: &account,
                sha256: &sha256,
                number,
                offset,
                length: 3,
            };
            parts.put(&part, &mut &*bytes)
        };
        let take = || {
            parts.take(&account, &sha256, 6, 2, |path, _| {
                Ok(fs::read_to_string(path).unwrap())
            })
        };
        put(2, 3, b"def").unwrap();
        assert!(put(1, 0, b"ab").is_err() && put(1, 0, b"abcd").is_err());
        assert!(take().is_err(), "the first is missing");
        put(1, 0, b"xyz").unwrap();
        put(1, 0, b"abc").unwrap();
        parts.expire(SystemTime::now() + WAIT / 2);
        assert_eq!(take().unwrap(), "abcdef");
        assert!(take().is_err(), "it was taken");

        put(1, 0, b"abc").unwrap();
        put(2, 3, b"def").unwrap();
        let disagrees = StoreError::Disagrees { found: sha256 };
        let taken = parts.take::<()>(&account, &sha256, 6, 2, |_, _| Err(disagrees));
        assert!(
            taken.is_err() && take().is_err(),
            "wrong bytes are let go of"
        );
        put(1, 0, b"abc").unwrap();
        parts.expire(SystemTime::now() + WAIT * 2);
        put(2, 3, b"def").unwrap();
        assert!(take().is_err(), "the first has waited for too long");
    }
}
