//! Content-addressed storage: small blobs and records in a segment log, large ones as flat files.
//!
//! What a caller may rely on, whatever happens to the process or the power:
//!
//! * What [`Batch::commit`] and [`Store::import`] answered is there, whole, at every later start.
//! * A byte that does not match its hash is never handed out. A flat file is handed out without being
//!   read only while its inode, size and times are those of its last full verification, and that is recent.
//! * The log alone says what is stored. The sled views only say where, and may vanish at any time.
//!
//! `docs/store.md` has the folder, the frames byte by byte, and what each crash leaves. Which blobs are
//! still needed is not known here: the caller marks them for [`Exclusive::sweep`].

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, GitOid, Sha256};

use crate::files::{FileError, Files};

/// All digests of one blob that this node computed itself from the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Content id.
    pub blake3: Blake3,
    /// LFS oid and hub `ETag`.
    pub sha256: Sha256,
    /// Git blob oid, where it was asked for (what git stores as a blob).
    pub git: Option<GitOid>,
    /// Bytes.
    pub size: u64,
}

/// A stored blob, ready to be read.
#[derive(Debug, Clone)]
pub enum Content {
    /// Small enough to stand in the log: in memory, checked against its hash.
    Small(Bytes),
    /// A flat file whose last full verification is recent and whose inode, size and times are unchanged.
    Flat(FlatFile),
}

/// A flat file that may be served without re-reading it first.
#[derive(Debug, Clone)]
pub struct FlatFile {
    /// Open for reading.
    pub file: Arc<File>,
    /// Where it stands, for other programs and messages.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

impl Content {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Flat(flat) => flat.size,
        }
    }
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused a file operation.
    #[error("{operation} {path}")]
    Io {
        /// What was tried, as a verb: `write`, `rename`.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// No room on the device.
    #[error("no space left on the device that holds {path}: free some, or run `cairn gc`")]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Stored bytes that no longer match their hash; never served again.
    #[error("stored content {hash} is damaged ({path}): it no longer matches its hash")]
    Damaged {
        /// The hash that the bytes should have.
        hash: Blake3,
        /// Where they stand.
        path: PathBuf,
    },
    /// Not stored here.
    #[error("content {hash} is not stored on this node")]
    Absent {
        /// The hash that was asked for.
        hash: Blake3,
    },
    /// A log or journal frame that is neither whole nor an incomplete last one.
    #[error("{path} is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the bad frame begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A source that grew or shrank while it was read.
    #[error("the source changed while it was read: {expected} bytes announced, {found} found")]
    Changed {
        /// Bytes that were announced.
        expected: u64,
        /// Bytes read, or one more than announced where there were more.
        found: u64,
    },
    /// The source could not be read.
    #[error("read the source")]
    Source(#[source] std::io::Error),
    /// Bytes made to collide with others under SHA-1: no git object id can be given to them.
    #[error(
        "the content carries a SHA-1 collision attack: git could not tell it from other content"
    )]
    Collision,
    /// More than the store takes in one piece.
    #[error("{what} of {size} bytes is larger than the limit of {max}")]
    TooLarge {
        /// What was given.
        what: &'static str,
        /// Its bytes.
        size: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// An earlier failure left the store unable to write; a restart repairs it.
    #[error("the store takes no writes after an earlier failure: restart the node")]
    Stopped,
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        if error.is_full() {
            Self::Full { path: error.path }
        } else {
            Self::Io {
                operation: error.operation,
                path: error.path,
                source: error.source,
            }
        }
    }
}

/// How a store is kept.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Bytes of memory that sled may use as its cache; 0 does without sled, and reads the log instead.
    pub view_cache_bytes: u64,
    /// Age of a flat file's last full verification from which it is verified again before it is served.
    pub verification_max_age: Duration,
    /// Bytes from which on a segment of the log is closed and the next one begun.
    pub segment_bytes: u64,
    /// Bytes of the device that content leaves free, so that records can still be written.
    pub reserve_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            view_cache_bytes: 16 << 20,
            verification_max_age: Duration::from_hours(30 * 24),
            segment_bytes: 64 << 20,
            reserve_bytes: 8 << 20,
        }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blobs, small and large.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the segment log.
    pub log_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
}

/// Something that [`Store::verify_all`] found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The blob, where the damage could be told to be one's.
    pub hash: Option<Blake3>,
    /// Where it stood.
    pub path: PathBuf,
    /// What was wrong.
    pub reason: String,
    /// Whether it was put right from what is stored (a piece list made anew).
    pub healed: bool,
}

/// What [`Exclusive::sweep`] freed, or would free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Blobs that nothing needed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files without a place in the log, left by interrupted imports or an earlier sweep.
    pub strays: u64,
    /// Bytes by which files and log shrank, or would shrink.
    pub freed_bytes: u64,
}

/// The store; cheap to clone. Closed, with its views marked whole, when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<()>,
}

impl Store {
    /// Opens (or makes) the store in a folder that exists, and that nothing else has open.
    ///
    /// Reads the log once: every frame is checked, and every record's envelope handed to `on_record` in
    /// the order of writing. An incomplete last frame is cut off; [`StoreError::Corrupt`] at any other bad one.
    pub fn open(
        _files: Arc<dyn Files>,
        _dir: &Path,
        _options: StoreOptions,
        _on_record: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, StoreError> {
        todo!()
    }

    /// Begins a group of blobs and records that one sync makes durable.
    pub fn batch(&self) -> Batch {
        todo!()
    }

    /// Stores content of any size, reading it once from its current position; durable on return.
    ///
    /// `progress` is told the bytes read so far. [`StoreError::Changed`] where the file has not exactly
    /// `size` bytes. Many small files are cheaper in a [`Batch`].
    pub fn import(
        &self,
        _file: File,
        _size: u64,
        _git: bool,
        _progress: &mut dyn FnMut(u64),
    ) -> Result<Digests, StoreError> {
        todo!()
    }

    /// Opens content for reading; [`StoreError::Absent`] and [`StoreError::Damaged`] are answers.
    pub fn content(&self, _hash: &Blake3) -> Result<Content, StoreError> {
        todo!()
    }

    /// A whole blob in memory, checked against its hash; at most `OBJECT_BYTES_MAX`.
    pub fn blob(&self, _hash: &Blake3) -> Result<Bytes, StoreError> {
        todo!()
    }

    /// Whether a blob is stored, and not known to be damaged.
    pub fn contains(&self, _hash: &Blake3) -> Result<bool, StoreError> {
        todo!()
    }

    /// Digests of a stored blob, where they were computed when it was stored.
    pub fn digests(&self, _hash: &Blake3) -> Result<Option<Digests>, StoreError> {
        todo!()
    }

    /// The stored blob with this SHA-256.
    pub fn by_sha256(&self, _sha256: &Sha256) -> Result<Option<Digests>, StoreError> {
        todo!()
    }

    /// The stored blob with this git blob id.
    pub fn by_git(&self, _oid: &GitOid) -> Result<Option<Digests>, StoreError> {
        todo!()
    }

    /// Hands out every record's envelope again, in the order of writing.
    pub fn records(&self, _on_record: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        todo!()
    }

    /// Reads and hashes a blob in full; [`StoreError::Damaged`] where it does not match, and never served again.
    pub fn verify(&self, _hash: &Blake3) -> Result<(), StoreError> {
        todo!()
    }

    /// Verifies every frame of the log and every blob; `progress` is told bytes done and in all.
    pub fn verify_all(
        &self,
        _progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Finding>, StoreError> {
        todo!()
    }

    /// Keeps [`Exclusive`] away as long as it is held; waits while one is held.
    pub fn lease(&self) -> Lease {
        todo!()
    }

    /// Waits for all leases, batches and imports to end, and keeps new ones waiting.
    pub fn exclusive(&self) -> Exclusive {
        todo!()
    }

    /// Throws the views away and makes them anew from the log.
    pub fn rebuild_views(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// What is stored.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// A named map of small values that may be lost at any time.
    pub fn view(&self, _name: &str) -> View {
        todo!()
    }
}

/// Blobs and records that are stored together; holds a lease from its beginning.
#[derive(Debug)]
pub struct Batch;

impl Batch {
    /// Adds a blob without further digests: git objects, manifests, our own formats.
    pub fn put(&mut self, _bytes: Bytes) -> Blake3 {
        todo!()
    }

    /// Adds a file's content with its digests; with `git`, its git blob id among them.
    pub fn put_with(&mut self, _bytes: Bytes, _git: bool) -> Result<Digests, StoreError> {
        todo!()
    }

    /// Adds a record's envelope.
    pub fn record(&mut self, _envelope: Vec<u8>) {
        todo!()
    }

    /// Bytes added so far: commit, and begin another, before this gets large.
    pub fn len_bytes(&self) -> u64 {
        todo!()
    }

    /// Stores all of it, in the order it was added; durable on return. What is stored already is left out.
    pub fn commit(self) -> Result<(), StoreError> {
        todo!()
    }
}

/// Keeps what is stored from being swept, from the first import of a push to its head.
#[derive(Debug)]
pub struct Lease;

/// The store without anybody who adds to it: the time to mark what is needed, and to sweep the rest.
#[derive(Debug)]
pub struct Exclusive;

impl Exclusive {
    /// Removes every blob that is not in `live`; records always stay. With `dry_run` only says what it would do.
    pub fn sweep(
        &self,
        _live: &HashSet<Blake3>,
        _dry_run: bool,
    ) -> Result<SweepReport, StoreError> {
        todo!()
    }
}

/// A named map of small values that may be lost at any time: a cache that outlives the process.
#[derive(Debug, Clone)]
pub struct View;

impl View {
    /// The value last put, or nothing.
    pub fn get(&self, _key: &[u8]) -> Option<Vec<u8>> {
        todo!()
    }

    /// Keeps a value, as long as it lasts.
    pub fn put(&self, _key: &[u8], _value: &[u8]) {
        todo!()
    }
}
