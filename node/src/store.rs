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

mod batch;
mod flats;
mod partial;
mod pieces;
mod readers;
mod sweep;
mod verify;

mod intake;

mod facts;
mod index;
mod key;
mod lease;
mod log;
mod uses;
mod view_keeper;
mod views;

use std::fs::File;
use std::io::Read as Source;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, GitOid, RecordId, Sha256};
use cairn_protocol::limits::FLAT_BYTES_MIN;
use cairn_protocol::piece::PieceList;
use parking_lot::RwLock;

pub use batch::Batch;
pub(crate) use intake::Running;
pub(crate) use key::LinkKind;
pub use lease::Lease;
pub use partial::{Claim, FinishError, Partial};
pub use pieces::Pieces;
pub use readers::Reading;
pub use sweep::{AllBut, Exclusive, Live, SweepReport};
pub use verify::Finding;

use crate::files::segments::{Appender, Folder, Location};
use crate::files::{FileError, Files};
use facts::Said;
use flats::Flats;
use index::{BadFrame, Index, Read, SharedIndex};
use key::Key;
use lease::Leases;
use log::Log;
use partial::Partials;
use readers::Readers;
use uses::{USES_VIEW, Uses};
use view_keeper::{Replay, ViewKeeper, ViewSlot};

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
    readers: Readers,
}

impl FlatFile {
    /// A file of which no store knows that it is read.
    pub fn new(file: Arc<File>, path: PathBuf, size: u64) -> Self {
        Self {
            file,
            path,
            size,
            readers: Readers::default(),
        }
    }

    /// Keeps it from being evicted while it is read.
    pub fn reading(&self) -> Reading {
        self.readers.enter()
    }
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
    /// Content that was fetched on demand has a bound, and this does not fit into it.
    #[error(
        "no room in the cache for {size} bytes: its bound is {bound} bytes, and nothing more can be evicted"
    )]
    CacheFull {
        /// Bytes of the file.
        size: u64,
        /// Bytes that cached content may have now.
        bound: u64,
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
    /// The bytes are not those that were promised.
    #[error("the content has SHA-256 {found}, which is not what was promised")]
    Disagrees {
        /// What they have.
        found: Sha256,
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

impl StoreError {
    /// The same error for another caller who waited for the same write.
    pub(crate) fn again(&self) -> Self {
        let io = |source: &std::io::Error| match source.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code),
            None => std::io::Error::new(source.kind(), source.to_string()),
        };
        match self {
            Self::Io {
                operation,
                path,
                source,
            } => Self::Io {
                operation,
                path: path.clone(),
                source: io(source),
            },
            Self::Full { path } => Self::Full { path: path.clone() },
            Self::CacheFull { size, bound } => Self::CacheFull {
                size: *size,
                bound: *bound,
            },
            Self::Damaged { hash, path } => Self::Damaged {
                hash: *hash,
                path: path.clone(),
            },
            Self::Absent { hash } => Self::Absent { hash: *hash },
            Self::Corrupt {
                path,
                offset,
                reason,
            } => Self::Corrupt {
                path: path.clone(),
                offset: *offset,
                reason: reason.clone(),
            },
            Self::Changed { expected, found } => Self::Changed {
                expected: *expected,
                found: *found,
            },
            Self::Disagrees { found } => Self::Disagrees { found: *found },
            Self::Source(source) => Self::Source(io(source)),
            Self::Collision => Self::Collision,
            Self::TooLarge { what, size, max } => Self::TooLarge {
                what,
                size: *size,
                max: *max,
            },
            Self::Stopped => Self::Stopped,
        }
    }
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

/// The store; cheap to clone. Closed, with its views marked whole, when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// In the order of closing: the log ends with a mark, then the views are brought up to it.
#[derive(Debug)]
struct Inner {
    log: Log,
    flats: Flats,
    partials: Partials,
    uses: Uses,
    leases: Arc<Leases>,
    /// Held for writing while a sweep removes things, for reading while a verification may note some.
    sweeping: RwLock<()>,
    index: SharedIndex,
    _views: ViewKeeper,
}

impl Store {
    /// Opens (or makes) the store in a folder that exists, and that nothing else has open.
    ///
    /// Reads the log once: every frame is checked, and every record's envelope handed to `on_record` in
    /// the order of writing. An incomplete last frame is cut off, a rotten blob passed over;
    /// [`StoreError::Corrupt`] at any other bad frame.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        options: &StoreOptions,
        on_record: &mut dyn FnMut(&[u8]),
    ) -> Result<Self, StoreError> {
        let folder = Folder {
            files: Arc::clone(&files),
            dir: dir.join("log"),
            magic: facts::MAGIC,
            may_rot: Some(facts::BLOB),
        };
        let slot = ViewSlot::new(dir.join("views"), options.view_cache_bytes);
        let mut replay = Replay::begin(&slot);
        let index = Arc::new(Index::new(folder.clone(), slot));
        let appender = read_log(&folder, &index, &mut replay, on_record)?;
        replay.finish(&index);
        let flats = Flats::open(Arc::clone(&files), dir, Arc::clone(&index), options)?;
        let is_whole = |hash: &Blake3| -> Result<bool, StoreError> {
            Ok(!index.is_damaged(hash)
                && (index.find(&Key::blob(hash))?.is_some() || flats.facts(hash)?.is_some()))
        };
        let partials = Partials::open(files, dir, options, &is_whole, &|hash| flats.path(hash))?;
        let uses = Uses::new(View {
            index: Arc::clone(&index),
            name: USES_VIEW.into(),
        });
        let spawn_failed = |source| StoreError::Io {
            operation: "start a thread for",
            path: dir.to_owned(),
            source,
        };
        let views = ViewKeeper::spawn(Arc::clone(&index)).map_err(spawn_failed)?;
        let log = Log::spawn(appender, Arc::clone(&index), options).map_err(spawn_failed)?;
        let leases = Arc::default();
        Ok(Self {
            inner: Arc::new(Inner {
                log,
                flats,
                partials,
                uses,
                leases,
                sweeping: RwLock::default(),
                index,
                _views: views,
            }),
        })
    }

    /// Begins a group of blobs and records that one sync makes durable.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// Stores content of any size, reading it once from a source; durable on return.
    ///
    /// `progress` is told the bytes read so far. [`StoreError::Changed`] where the source has not exactly
    /// `size` bytes. Many small files are cheaper in a [`Batch`].
    pub fn import(
        &self,
        source: &mut dyn Source,
        size: u64,
        git: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digests, StoreError> {
        self.import_if(source, size, git, &|_| true, progress)
    }

    /// The same, but only if its digests are as they should be; [`StoreError::Disagrees`] where not.
    pub fn import_if(
        &self,
        source: &mut dyn Source,
        size: u64,
        git: bool,
        agrees: &dyn Fn(&Digests) -> bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digests, StoreError> {
        if size >= FLAT_BYTES_MIN {
            let _lease = self.lease();
            return self
                .inner
                .flats
                .import(&self.inner.log, source, size, git, agrees, progress);
        }
        let mut bytes = Vec::new();
        source
            .take(size + 1)
            .read_to_end(&mut bytes)
            .map_err(StoreError::Source)?;
        let found = bytes.len() as u64;
        if found != size {
            return Err(StoreError::Changed {
                expected: size,
                found,
            });
        }
        progress(size);
        let mut batch = self.batch();
        let (digests, added) = batch.put_if(bytes.into(), git, agrees)?;
        if !added {
            return Err(StoreError::Disagrees {
                found: digests.sha256,
            });
        }
        batch.commit()?;
        Ok(digests)
    }

    /// Makes a file of this folder's file system, that nobody writes to, stored content: it is read once, where it
    /// was not hashed when it was written, and moved if its digests are as they should be; durable on return. It
    /// stays where content of that hash is stored already.
    pub(crate) fn adopt(
        &self,
        path: &Path,
        size: u64,
        hashed: Option<Running>,
        agrees: &dyn Fn(&Digests) -> bool,
    ) -> Result<Digests, StoreError> {
        if size < FLAT_BYTES_MIN {
            let mut file = File::open(path).map_err(StoreError::Source)?;
            return self.import_if(&mut file, size, false, agrees, &mut |_| {});
        }
        let _lease = self.lease();
        let inner = &self.inner;
        inner.flats.adopt(&inner.log, path, size, hashed, agrees)
    }

    /// Opens content for reading; [`StoreError::Absent`] and [`StoreError::Damaged`] are answers.
    ///
    /// A flat file that may have changed since it was last verified is read in full first.
    pub fn content(&self, hash: &Blake3) -> Result<Content, StoreError> {
        let Inner {
            log, flats, index, ..
        } = &*self.inner;
        if index.is_damaged(hash) {
            return Err(flats.damaged(hash));
        }
        if let Some(flat) = flats.cached(hash) {
            self.inner.uses.note(hash);
            return Ok(Content::Flat(flat));
        }
        if let Some(bytes) = self.small(hash)? {
            return Ok(Content::Small(bytes));
        }
        if flats.facts(hash)?.is_some() {
            // Not a lease: whoever marks for a sweep reads, too.
            let _reading = self.inner.sweeping.read();
            if let Some(flat) = flats.admit(log, hash)? {
                self.inner.uses.note(hash);
                return Ok(Content::Flat(flat));
            }
        }
        Err(StoreError::Absent { hash: *hash })
    }

    /// A small blob, checked against its hash.
    fn small(&self, hash: &Blake3) -> Result<Option<Bytes>, StoreError> {
        let index = &self.inner.index;
        let found = match index.find(&Key::blob(hash)) {
            Ok(None) => return Ok(None),
            Ok(Some(found)) => found,
            Err(StoreError::Corrupt { path, offset, .. }) => {
                tracing::error!(%hash, path = %path.display(), offset, "stored content is damaged");
                index.set_damaged(hash);
                return Err(StoreError::Damaged { hash: *hash, path });
            }
            Err(error) => return Err(error),
        };
        let path = index.segment_path(found.location.segment);
        let bytes = Bytes::from(found.payload).slice(Blake3::SIZE..);
        if Blake3::of(&bytes) != *hash {
            index.set_damaged(hash);
            return Err(StoreError::Damaged { hash: *hash, path });
        }
        Ok(Some(bytes))
    }

    /// A whole blob in memory, checked against its hash; at most `OBJECT_BYTES_MAX`.
    pub fn blob(&self, hash: &Blake3) -> Result<Bytes, StoreError> {
        match self.content(hash)? {
            Content::Small(bytes) => Ok(bytes),
            Content::Flat(flat) => {
                let bytes = flats::read_whole(&flat)?;
                if Blake3::of(&bytes) != *hash {
                    // Found without a change of its times: what is served unread would be wrong too.
                    self.verify(hash)?;
                    return Err(StoreError::Damaged {
                        hash: *hash,
                        path: flat.path,
                    });
                }
                Ok(bytes.into())
            }
        }
    }

    /// Whether a blob is stored, and not known to be damaged.
    pub fn contains(&self, hash: &Blake3) -> Result<bool, StoreError> {
        let Inner { flats, index, .. } = &*self.inner;
        if index.is_damaged(hash) {
            return Ok(false);
        }
        match index.find(&Key::blob(hash)) {
            Ok(Some(_)) => Ok(true),
            Ok(None) => Ok(flats.facts(hash)?.is_some()),
            // Its frame is rotten: nobody is kept from fetching it again.
            Err(StoreError::Corrupt { path, offset, .. }) => {
                tracing::error!(%hash, path = %path.display(), offset, "stored content is damaged");
                index.set_damaged(hash);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A stored record's envelope.
    pub fn record(&self, id: &RecordId) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.index.find(&Key::record(id))?;
        Ok(found.map(|found| found.payload))
    }

    /// Begins to store a file piece by piece, or goes on with what is there; reads what is in doubt again.
    ///
    /// All who ask for the same file share one. [`StoreError::Full`] where the whole would not fit.
    pub fn partial(&self, hash: &Blake3, list: &PieceList) -> Result<Partial, StoreError> {
        let state = self.inner.partials.get(hash, list)?;
        Ok(Partial::new(self.clone(), state))
    }

    /// Files that are stored in part: hash, bytes of the whole, bytes on the disk.
    pub fn partials(&self) -> Vec<(Blake3, u64, u64)> {
        self.inner.partials.all()
    }

    /// A stored blob by its pieces, whole or in part; [`StoreError::Absent`] where nothing of it is here.
    ///
    /// Cheap: a file that may have changed is not read in full, since every piece is verified when it is
    /// read.
    pub fn pieces(&self, hash: &Blake3) -> Result<Pieces, StoreError> {
        let Inner {
            log,
            flats,
            index,
            partials,
            uses,
            ..
        } = &*self.inner;
        let is_damaged = index.is_damaged(hash);
        if !is_damaged {
            if let Some(bytes) = self.small(hash)? {
                return Ok(Pieces::small(hash, bytes));
            }
            let _reading = self.inner.sweeping.read();
            if let Some(open) = flats.by_piece(log, hash)? {
                uses.note(hash);
                return Ok(Pieces::flat(hash, self.clone(), open));
            }
        }
        if let Some(state) = partials.find(hash)? {
            return Ok(Pieces::partial(Partial::new(self.clone(), state)));
        }
        Err(if is_damaged {
            flats.damaged(hash)
        } else {
            StoreError::Absent { hash: *hash }
        })
    }

    /// Removes a flat or partial file that can be fetched again; bytes freed, none where there is no such
    /// file. Who has it open reads on, and its room is free when the last of them closes it.
    ///
    /// Whether somebody counts on it (a pin, a push that goes on) is for the caller to know.
    pub fn evict(&self, hash: &Blake3) -> Result<u64, StoreError> {
        let Inner {
            log,
            flats,
            partials,
            uses,
            ..
        } = &*self.inner;
        let _reading = self.inner.sweeping.read();
        let freed = partials.remove(hash)? + flats.evict(log, hash)?;
        uses.forget(hash);
        Ok(freed)
    }

    /// Keeps a flat file from being evicted, for who is about to read it.
    pub fn reading(&self, hash: &Blake3) -> Reading {
        self.inner.flats.readers.of(hash).enter()
    }

    /// Whether somebody reads a flat file now, and said so.
    pub fn is_read(&self, hash: &Blake3) -> bool {
        self.inner.flats.readers.are_reading(hash)
    }

    /// Removes a file that is stored in part, and nothing that is stored whole; bytes freed.
    pub fn discard(&self, hash: &Blake3) -> Result<u64, StoreError> {
        self.inner.partials.remove(hash)
    }

    /// Hands out hash and size of every stored flat file, in no order; reads the log for it.
    pub fn flats(&self, on_flat: &mut dyn FnMut(Blake3, u64)) -> Result<(), StoreError> {
        let index = &self.inner.index;
        let _reading = self.inner.sweeping.read();
        for segment in 1..=index.last_segment() {
            let mut found = Vec::new();
            index.each_frame(segment, &mut |read| {
                if let Read::Frame(frame) = read
                    && let Some(Said::Digests(facts)) = Said::read(frame.kind, frame.payload)
                    && facts.flat.is_some()
                {
                    found.push((facts.digests, frame.offset));
                }
                Ok(())
            })?;
            for (digests, offset) in found {
                // Older frames about the same file say nothing any more.
                let newest = index.find(&Key::digests(&digests.blake3))?;
                let is_newest = newest.is_some_and(|newest| {
                    (newest.location.segment, newest.location.offset) == (segment, offset)
                });
                if is_newest && !index.is_damaged(&digests.blake3) {
                    on_flat(digests.blake3, digests.size);
                }
            }
        }
        Ok(())
    }

    /// Bytes of all stored flat files.
    pub fn flat_bytes(&self) -> u64 {
        self.inner.index.flat_bytes()
    }

    /// Takes note that a file is wanted: it is the most recently used one now.
    pub(crate) fn wanted(&self, hash: &Blake3) {
        self.inner.uses.note(hash);
    }

    /// When a flat file was last asked for: larger is later, 0 is never, or forgotten.
    pub fn last_use(&self, hash: &Blake3) -> u64 {
        self.inner.uses.last(hash)
    }

    /// Digests of a stored blob, where they were computed when it was stored.
    pub fn digests(&self, hash: &Blake3) -> Result<Option<Digests>, StoreError> {
        self.stored(&Key::digests(hash))
    }

    /// The stored blob with this SHA-256.
    pub fn by_sha256(&self, sha256: &Sha256) -> Result<Option<Digests>, StoreError> {
        self.stored(&Key::sha256(sha256))
    }

    /// The stored blob with this git blob id.
    pub fn by_git(&self, oid: &GitOid) -> Result<Option<Digests>, StoreError> {
        self.stored(&Key::git(oid))
    }

    /// The blob that a name which is not ours leads to, if it is here.
    pub(crate) fn linked(
        &self,
        kind: LinkKind,
        name: &[u8; 32],
    ) -> Result<Option<Blake3>, StoreError> {
        let Some(found) = self.inner.index.find(&Key::link(kind, name))? else {
            return Ok(None);
        };
        let Said::Link { blob, .. } = found.said() else {
            return Ok(None);
        };
        Ok(self.contains(&blob)?.then_some(blob))
    }

    /// Every blob that a link leads to, perhaps more than once.
    pub(crate) fn links(
        &self,
        on_link: &mut dyn FnMut(LinkKind, Blake3),
    ) -> Result<(), StoreError> {
        let index = &self.inner.index;
        for segment in 1..=index.last_segment() {
            index.each_frame(segment, &mut |read| {
                if let Read::Frame(frame) = read
                    && let Some(Said::Link { kind, blob, .. }) =
                        Said::read(frame.kind, frame.payload)
                    && let Some(kind) = LinkKind::from_number(kind)
                {
                    on_link(kind, blob);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn stored(&self, key: &Key) -> Result<Option<Digests>, StoreError> {
        let Some(found) = self.inner.index.find(key)? else {
            return Ok(None);
        };
        let Said::Digests(facts) = found.said() else {
            return Ok(None);
        };
        Ok(self
            .contains(&facts.digests.blake3)?
            .then_some(facts.digests))
    }

    /// Hands out every record's envelope again, in the order of writing.
    pub fn records(&self, on_record: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        let index = &self.inner.index;
        for segment in 1..=index.last_segment() {
            index.each_frame(segment, &mut |read| match read {
                Read::Frame(frame) => {
                    if let Some(Said::Record { envelope }) = Said::read(frame.kind, frame.payload) {
                        on_record(envelope);
                    }
                    Ok(())
                }
                Read::Bad(BadFrame {
                    rest: Some((facts::BLOB, _)),
                    ..
                }) => Ok(()),
                Read::Bad(bad) => Err(bad.error),
            })?;
        }
        Ok(())
    }

    /// Keeps [`Exclusive`] away as long as it is held; waits while one is held.
    ///
    /// Whoever has one may take more without waiting.
    pub fn lease(&self) -> Lease {
        Leases::lease(&self.inner.leases)
    }

    /// Rises whenever somebody gets the store for himself: what was seen to be stored before, and that no
    /// lease kept since, may be gone. Stays the same while one has a lease.
    pub(crate) fn sweeps(&self) -> u64 {
        self.inner.leases.sweeps()
    }

    /// Waits for all leases, batches and imports to end, and keeps new ones waiting.
    pub fn exclusive(&self) -> Exclusive {
        Exclusive::new(self.clone())
    }

    /// Throws the views away and makes them anew from the log.
    pub fn rebuild_views(&self) {
        self.inner.index.views.rebuild();
    }

    /// What is stored.
    pub fn stats(&self) -> Stats {
        self.inner.index.stats()
    }

    /// Rises whenever content is found damaged, or stored again that was: what was handed out before may be what it is about.
    pub fn alarms(&self) -> u64 {
        self.inner.index.alarms()
    }

    /// Blobs that were found damaged and not stored again since, with the digests that they had where
    /// those were computed.
    pub fn damaged(&self) -> Result<Vec<(Blake3, Option<Digests>)>, StoreError> {
        let index = &self.inner.index;
        let digests = |hash: Blake3| {
            let found = index.find(&Key::digests(&hash))?;
            Ok(match found.as_ref().map(|found| found.said()) {
                Some(Said::Digests(facts)) => (hash, Some(facts.digests)),
                _ => (hash, None),
            })
        };
        index.damaged().into_iter().map(digests).collect()
    }

    /// A named map of small values that may be lost at any time.
    pub fn view(&self, name: &str) -> View {
        View {
            index: Arc::clone(&self.inner.index),
            name: name.into(),
        }
    }
}

fn read_log(
    folder: &Folder,
    index: &Index,
    replay: &mut Replay,
    on_record: &mut dyn FnMut(&[u8]),
) -> Result<Appender, StoreError> {
    let (appender, earlier_bytes) = Appender::open(folder.clone(), &[], &mut |segment, frame| {
        let Some(said) = Said::read(frame.kind, frame.payload) else {
            return Err(StoreError::Corrupt {
                path: folder.path(segment),
                offset: frame.offset,
                reason: format!(
                    "a frame of kind {} that this release does not know",
                    frame.kind
                ),
            });
        };
        let keys = Key::of(&said);
        index.read(segment, &said, &keys);
        if let Said::Record { envelope } = said {
            on_record(envelope);
        }
        replay.see(
            keys,
            Location {
                segment,
                offset: frame.offset,
                len: frame.len(),
            },
        );
        Ok(())
    })?;
    index.opened(
        appender.segment(),
        appender.len(),
        earlier_bytes + appender.len(),
    );
    Ok(appender)
}

/// A named map of small values that may be lost at any time: a cache that outlives the process.
#[derive(Debug, Clone)]
pub struct View {
    index: SharedIndex,
    name: Arc<str>,
}

impl View {
    /// The value last put, or nothing.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let views = self.index.views.current()?;
        match views.named_get(&self.name, key) {
            Ok(value) => value,
            Err(error) => {
                self.index.views.failed(&views, &error);
                None
            }
        }
    }

    /// Keeps a value, as long as it lasts.
    pub fn put(&self, key: &[u8], value: &[u8]) {
        if let Some(views) = self.index.views.current()
            && let Err(error) = views.named_put(&self.name, key, value)
        {
            self.index.views.failed(&views, &error);
        }
    }
}

/// A store with its defaults, on the real disk.
#[cfg(test)]
pub(crate) fn open_store(dir: &Path) -> Store {
    let options = StoreOptions::default();
    Store::open(
        Arc::new(crate::files::RealFiles),
        dir,
        &options,
        &mut |_| {},
    )
    .unwrap()
}
