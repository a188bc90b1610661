//! Xorbs that accounts sent and no shard has named whole yet: files in `xorbs/{account}/`.
//!
//! Verified before they are written; written under a temporary name, synced, renamed. A file is the chunk list,
//! where in the xorb each chunk ends (u32), then the xorb as it came. What no shard names is removed after a day.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cairn_protocol::limits::XORB_CHUNKS_MAX;
use cairn_protocol::xet::{Chunk, XetHash, Xorb};

use super::format::{CHUNK_BYTES, read_chunks, write_chunks};
use crate::accounts::AccountId;
use crate::staging::make_durably;
use crate::store::StoreError;

/// How long a xorb waits for its shards.
const WAIT: Duration = Duration::from_hours(24);
/// Bytes of the disk that xorbs leave free.
const RESERVE_BYTES: u64 = 64 << 20;

/// Where they are.
#[derive(Debug)]
pub(crate) struct SentXorbs {
    dir: PathBuf,
    temporary: AtomicU64,
}

/// One that was sent, open for reading.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) chunks: Vec<Chunk>,
    /// Where in the file each chunk ends; the first begins at `start`.
    ends: Vec<u64>,
    start: u64,
    file: File,
}

impl Sent {
    /// Unpacks one chunk.
    pub(super) fn unpack(&self, index: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let beyond = || io::Error::other("a chunk beyond the end of its xorb");
        let end = *self.ends.get(index).ok_or_else(beyond)?;
        let begin = match index.checked_sub(1) {
            Some(before) => self.ends[before],
            None => self.start,
        };
        let length = usize::try_from(end - begin).map_err(io::Error::other)?;
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
        }
    }

    fn path(&self, account: &AccountId, hash: &XetHash) -> PathBuf {
        self.dir.join(account.to_string()).join(hash.to_string())
    }

    /// Keeps a verified xorb; durable on return. Says whether it was new.
    pub(super) fn put(
        &self,
        account: &AccountId,
        hash: &XetHash,
        chunks: &[Chunk],
        xorb: &Xorb<'_>,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
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
        if path.exists() {
            return Ok(false);
        }
        make_durably(&folder).map_err(|error| fail("create", error))?;
        let free = rustix::fs::statvfs(&folder)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| fail("ask for free space at", error.into()))?;
        if free < (bytes.len() as u64).saturating_add(RESERVE_BYTES) {
            return Err(StoreError::Full { path });
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{number}.tmp"));
        let write = || -> io::Result<()> {
            // Left by a process that ended in between.
            if temporary.exists() {
                fs::remove_file(&temporary)?;
            }
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            let mut head = Vec::new();
            write_chunks(&mut head, chunks);
            for place in xorb.places() {
                head.extend_from_slice(&place.end.to_le_bytes());
            }
            file.write_all(&head)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&folder)?.sync_all()
        };
        match write() {
            Ok(()) => Ok(true),
            Err(error) => {
                drop(fs::remove_file(&temporary));
                Err(fail("write", error))
            }
        }
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

/// Opens a file that [`SentXorbs::put`] wrote; nothing where it is another.
fn open(path: &Path) -> io::Result<Option<Sent>> {
    #[allow(clippy::disallowed_methods, reason = "the caller adds the path")]
    let file = File::open(path)?;
    let mut number = [0; 4];
    file.read_exact_at(&mut number, 0)?;
    let number = u32::from_le_bytes(number) as usize;
    if number > XORB_CHUNKS_MAX {
        return Ok(None);
    }
    let (list, all) = (4 + number * CHUNK_BYTES, 4 + number * (CHUNK_BYTES + 4));
    let mut head = vec![0; all];
    file.read_exact_at(&mut head, 0)?;
    let Some(chunks) = read_chunks(&mut &head[..list]) else {
        return Ok(None);
    };
    let start = all as u64;
    let ends = head[list..]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|end| start + u64::from(u32::from_le_bytes(*end)))
        .collect();
    Ok(Some(Sent {
        chunks,
        ends,
        start,
        file,
    }))
}
