//! Xorbs that accounts sent and no shard has named whole yet: files in `xorbs/{account}/`.
//!
//! Written under a temporary name while they come, verified, synced, renamed. A file is the xorb as it came, then
//! the chunk list, where in the xorb each chunk ends (u32), and the xorb's length (u64). What no shard names is removed after a day.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cairn_protocol::limits::{XET_CHUNK_PACKED_BYTES_MAX, XORB_BYTES_MAX, XORB_CHUNKS_MAX};
use cairn_protocol::xet::{Chunk, XetHash, Xorb};
use parking_lot::{Mutex, MutexGuard};

use super::XetError;
use super::format::{CHUNK_BYTES, read_chunks, write_chunks};
use crate::accounts::AccountId;
use crate::staging::make_durably;
use crate::store::StoreError;

/// How long a xorb waits for its shards.
const WAIT: Duration = Duration::from_hours(24);
/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes of a chunk with its header, at most.
const CHUNK_MAX: u64 = XET_CHUNK_PACKED_BYTES_MAX as u64 + 8;
/// Bytes of the disk that xorbs leave free.
const RESERVE_BYTES: u64 = 64 << 20;

/// Where they are.
#[derive(Debug)]
pub(crate) struct SentXorbs {
    dir: PathBuf,
    temporary: AtomicU64,
    /// Held while a xorb is in memory.
    verifying: Mutex<()>,
    turn: Mutex<()>,
}

/// One that was sent, open for reading.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) chunks: Vec<Chunk>,
    /// Where each chunk ends.
    ends: Vec<u64>,
    file: File,
}

impl Sent {
    /// Unpacks one chunk.
    pub(super) fn unpack(&self, index: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let beyond = || io::Error::other("a chunk beyond the end of its xorb");
        let end = *self.ends.get(index).ok_or_else(beyond)?;
        let begin = match index.checked_sub(1) {
            Some(before) => self.ends[before],
            None => 0,
        };
        let length = end.checked_sub(begin).filter(|length| *length <= CHUNK_MAX);
        let length = usize::try_from(length.ok_or_else(beyond)?).map_err(io::Error::other)?;
        let mut packed = vec![0; length];
        self.file.read_exact_at(&mut packed, begin)?;
        // A chunk with its header is a xorb of one chunk.
        Xorb::parse(&packed)
            .and_then(|xorb| xorb.unpack(0, out))
            .map_err(io::Error::other)
    }
}

impl SentXorbs {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            dir: data.join("xorbs"),
            temporary: AtomicU64::new(0),
            verifying: Mutex::default(),
            turn: Mutex::default(),
        }
    }

    fn path(&self, account: &AccountId, hash: &XetHash) -> PathBuf {
        self.dir.join(account.to_string()).join(hash.to_string())
    }

    /// Held by who changes where the chunks of xorbs stand.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Takes a xorb in and keeps it, if it is what its hash says; durable on return. Says whether it was new.
    ///
    /// It goes to the disk while it comes, so that slow senders hold no memory; one at a time is then verified.
    pub(super) fn put(
        &self,
        account: &AccountId,
        hash: &XetHash,
        source: &mut dyn Read,
    ) -> Result<bool, XetError> {
        let path = self.path(account, hash);
        let folder = self.dir.join(account.to_string());
        let fail = |operation: &'static str, source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull => StoreError::Full { path: path.clone() },
            _ => StoreError::Io {
                operation,
                path: path.clone(),
                source,
            },
        };
        make_durably(&folder).map_err(|error| fail("create", error))?;
        let free = rustix::fs::statvfs(&folder)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| fail("ask for free space at", error.into()))?;
        if free < (XORB_BYTES_MAX as u64).saturating_add(RESERVE_BYTES) {
            return Err(StoreError::Full { path }.into());
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = Temporary(folder.join(format!("{number}.tmp")));
        // Left by a process that ended in between.
        if temporary.0.exists() {
            fs::remove_file(&temporary.0).map_err(|error| fail("remove", error))?;
        }
        let mut file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&temporary.0)
            .map_err(|error| fail("create", error))?;
        let length = spool(source, &mut file)?;

        let _alone = self.verifying.lock();
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|error| fail("read", error))?;
        let xorb = Xorb::parse(&bytes)?;
        let chunks = xorb.verify(hash, |_, _| {})?;
        let now = SystemTime::now();
        if let Ok(file) = OpenOptions::new().write(true).open(&path) {
            // Sent again: it waits as long as if it were new.
            file.set_modified(now)
                .map_err(|error| fail("touch", error))?;
            return Ok(false);
        }
        let mut tail = Vec::new();
        write_chunks(&mut tail, &chunks);
        for place in xorb.places() {
            tail.extend_from_slice(&place.end.to_le_bytes());
        }
        tail.extend_from_slice(&(length as u64).to_le_bytes());
        let mut keep = || -> io::Result<()> {
            file.write_all(&tail)?;
            file.sync_all()?;
            fs::rename(&temporary.0, &path)?;
            File::open(&folder)?.sync_all()
        };
        keep().map_err(|error| fail("write", error))?;
        Ok(true)
    }

    /// A xorb that an account sent; nothing where it did not, or its file is no such file.
    pub(super) fn get(
        &self,
        account: &AccountId,
        hash: &XetHash,
    ) -> Result<Option<Sent>, StoreError> {
        let path = self.path(account, hash);
        match open(&path) {
            Ok(sent) => Ok(sent),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io {
                operation: "read",
                path,
                source,
            }),
        }
    }

    /// Lets go of a xorb whose chunks all stand in files.
    pub(super) fn remove(&self, account: &AccountId, hash: &XetHash) {
        let path = self.path(account, hash);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a xorb was not removed");
        }
    }

    /// Removes what no shard came for.
    pub(crate) fn expire(&self, now: SystemTime) {
        for folder in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let age = file
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .ok()
                    .and_then(|changed| now.duration_since(changed).ok());
                if age.is_some_and(|age| age > WAIT)
                    && let Err(error) = fs::remove_file(file.path())
                {
                    tracing::warn!(%error, path = %file.path().display(), "a xorb was not removed");
                }
            }
        }
    }
}

/// Writes what comes, as long as it can be a xorb; returns how much it was.
fn spool(source: &mut dyn Read, file: &mut File) -> Result<usize, XetError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut length = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::Source(error).into()),
        };
        length += read;
        if length > XORB_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "a xorb",
                size: length as u64,
                max: XORB_BYTES_MAX as u64,
            }
            .into());
        }
        file.write_all(&buffer[..read])
            .map_err(|source| StoreError::Io {
                operation: "write",
                path: "xorbs".into(),
                source,
            })?;
    }
}

/// A file that goes with this, unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// Opens a file that [`SentXorbs::put`] wrote; nothing where it is another.
fn open(path: &Path) -> io::Result<Option<Sent>> {
    #[allow(clippy::disallowed_methods, reason = "the caller adds the path")]
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut length = [0; 8];
    let Some(end) = len.checked_sub(8) else {
        return Ok(None);
    };
    file.read_exact_at(&mut length, end)?;
    let length = u64::from_le_bytes(length);
    let tail_bytes_max = (4 + XORB_CHUNKS_MAX * (CHUNK_BYTES + 4)) as u64;
    let Some(tail) = end
        .checked_sub(length)
        .filter(|tail| *tail <= tail_bytes_max)
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; usize::try_from(tail).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, length)?;
    let mut rest = &bytes[..];
    let Some(chunks) = read_chunks(&mut rest) else {
        return Ok(None);
    };
    let (ends, odd) = rest.as_chunks::<4>();
    if ends.len() != chunks.len() || !odd.is_empty() {
        return Ok(None);
    }
    let ends = ends.iter().map(|end| u64::from(u32::from_le_bytes(*end)));
    Ok(Some(Sent {
        chunks,
        ends: ends.collect(),
        file,
    }))
}
