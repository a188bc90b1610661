//! Parts of large files, each a file of its own until all of them are here.
//!
//! `uploads/{account}-{sha256}/{part}`: written under a temporary name, synced, renamed. What is there after a
//! crash is whole, and need not be sent again; what nobody completes is removed after a day.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cairn_protocol::hash::Sha256;

use crate::accounts::AccountId;
use crate::store::StoreError;

/// How long parts wait for the others.
const WAIT: Duration = Duration::from_hours(24);
/// Bytes of the disk that parts leave free.
const RESERVE_BYTES: u64 = 64 << 20;
/// Bytes that are copied at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Where parts are kept.
#[derive(Debug)]
pub(crate) struct Parts {
    dir: PathBuf,
    temporary: AtomicU64,
}

impl Parts {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            dir: data.join("uploads"),
            temporary: AtomicU64::new(0),
        }
    }

    fn folder(&self, account: &AccountId, sha256: &Sha256) -> PathBuf {
        self.dir.join(format!("{account}-{}", sha256.to_hex()))
    }

    /// Keeps a part of exactly so many bytes; durable on return. Returns its BLAKE3 in hex.
    pub(crate) fn put(
        &self,
        account: &AccountId,
        sha256: &Sha256,
        part: u32,
        length: u64,
        source: &mut dyn Read,
    ) -> Result<String, StoreError> {
        let folder = self.folder(account, sha256);
        let fail = |operation: &'static str, source: io::Error| StoreError::Io {
            operation,
            path: folder.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| fail("create", error))?;
        let free = rustix::fs::statvfs(&folder)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| fail("ask for free space at", error.into()))?;
        if free < length.saturating_add(RESERVE_BYTES) {
            return Err(StoreError::Full { path: folder });
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{part}.{number}.tmp"));
        let written = copy(&temporary, length, source);
        let hash = match written {
            Ok(hash) => hash,
            Err(error) => {
                drop(fs::remove_file(&temporary));
                return Err(error);
            }
        };
        fs::rename(&temporary, folder.join(part.to_string()))
            .and_then(|()| File::open(&folder)?.sync_all())
            .map_err(|error| fail("keep a part in", error))?;
        Ok(hash)
    }

    /// All parts from the first to the last, one after another.
    ///
    /// [`StoreError::Changed`] where one is missing: it has to be sent first.
    pub(crate) fn open(
        &self,
        account: &AccountId,
        sha256: &Sha256,
        size: u64,
        count: u64,
    ) -> Result<Whole, StoreError> {
        let folder = self.folder(account, sha256);
        let mut found = 0;
        for part in 1..=count {
            match fs::metadata(folder.join(part.to_string())) {
                Ok(metadata) => found += metadata.len(),
                Err(_) => break,
            }
        }
        if found != size {
            return Err(StoreError::Changed {
                expected: size,
                found,
            });
        }
        Ok(Whole {
            folder,
            next: 1,
            count,
            now: None,
        })
    }

    /// Removes all parts of a file.
    pub(crate) fn forget(&self, account: &AccountId, sha256: &Sha256) {
        let folder = self.folder(account, sha256);
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::debug!(%error, folder = %folder.display(), "parts not removed");
        }
    }

    /// Removes what has waited for too long.
    pub(crate) fn expire(&self, now: SystemTime) {
        for folder in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let age = folder
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|changed| now.duration_since(changed).ok());
            if age.is_some_and(|age| age > WAIT)
                && let Err(error) = fs::remove_dir_all(folder.path())
            {
                tracing::warn!(%error, folder = %folder.path().display(), "parts not removed");
            }
        }
    }
}

fn copy(path: &Path, length: u64, source: &mut dyn Read) -> Result<String, StoreError> {
    let fail = |operation: &'static str, source: io::Error| match source.kind() {
        io::ErrorKind::StorageFull => StoreError::Full { path: path.into() },
        _ => StoreError::Io {
            operation,
            path: path.into(),
            source,
        },
    };
    // Left by a process that ended in between.
    if path.exists() {
        fs::remove_file(path).map_err(|error| fail("remove", error))?;
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| fail("create", error))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut found = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::Source(error)),
        };
        found += read as u64;
        if found > length {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read])
            .map_err(|error| fail("write", error))?;
    }
    if found != length {
        return Err(StoreError::Changed {
            expected: length,
            found,
        });
    }
    file.sync_all().map_err(|error| fail("sync", error))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Parts read one after another.
#[derive(Debug)]
pub(crate) struct Whole {
    folder: PathBuf,
    next: u64,
    count: u64,
    now: Option<File>,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.now {
                let read = file.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.now = None;
            }
            if self.next > self.count {
                return Ok(0);
            }
            self.now = Some(File::open(self.folder.join(self.next.to_string()))?);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_or_not_there_and_are_read_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let parts = Parts::new(dir.path());
        let (account, sha256) = (AccountId::from_bytes([1; 16]), Sha256::from_bytes([2; 32]));
        let put =
            |part, length, bytes: &[u8]| parts.put(&account, &sha256, part, length, &mut &*bytes);
        put(2, 3, b"def").unwrap();
        assert!(put(1, 3, b"ab").is_err() && put(1, 3, b"abcd").is_err());
        assert!(
            parts.open(&account, &sha256, 6, 2).is_err(),
            "the first is missing"
        );
        put(1, 3, b"xyz").unwrap();
        let etag = put(1, 3, b"abc").unwrap();
        assert_eq!(etag, blake3::hash(b"abc").to_hex().as_str());

        let mut whole = String::new();
        let mut reader = parts.open(&account, &sha256, 6, 2).unwrap();
        reader.read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "abcdef");
        parts.expire(SystemTime::now() + WAIT / 2);
        assert!(parts.open(&account, &sha256, 6, 2).is_ok());
        parts.expire(SystemTime::now() + WAIT * 2);
        assert!(parts.open(&account, &sha256, 6, 2).is_err());
    }
}
