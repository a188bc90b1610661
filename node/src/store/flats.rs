//! Flat files: where they stand, how they get there, and when one may be served without being read.
//!
//! A file is written under `tmp/`, synced, renamed to `blobs/ab/<hash>`, and counts only when a digests
//! frame in the log says so. That frame has the inode, times and hour of the last full verification; a file
//! that is no longer the same one, or was not verified for long, is read in full before it is served.

use std::collections::HashSet;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_protocol::hash::Blake3;
use cairn_protocol::piece::{PieceList, piece_count};
use parking_lot::{Mutex, MutexGuard};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::facts::{Facts, FlatFacts, Said, damaged_frame, evicted_frame};
use super::index::SharedIndex;
use super::intake::{self, Copy, Running, Taken};
use super::key::Key;
use super::log::Log;
use super::readers::AllReaders;
use super::{Digests, FlatFile, StoreError, StoreOptions};
use crate::files::{FileError, Files, OpenFile, sync_dir_or_end, sync_or_end};

/// Flat files that are kept open; another one is opened when it is asked for.
const OPEN_FILES_MAX: usize = 256;
/// Bytes of piece lists that are kept with their open files; others are read when they are asked for.
const OPEN_LISTS_BYTES_MAX: u64 = 64 << 20;
/// Locks that keep two threads from changing one file; files that share one wait for each other.
const LOCKS: usize = 64;
/// How often a file that changes while it is verified is read again.
const VERIFICATIONS_MAX: u32 = 3;

/// All flat files of a store.
#[derive(Debug)]
pub(super) struct Flats {
    files: Arc<dyn Files>,
    dir: PathBuf,
    index: SharedIndex,
    verification_max_age: Duration,
    reserve_bytes: u64,
    open: Cache<Blake3, Arc<Served>>,
    by_piece: Cache<Blake3, Arc<ByPiece>, ListWeight>,
    locks: Vec<Mutex<()>>,
    pub(super) readers: AllReaders,
    /// Folders below `blobs/` that are known to be durable.
    made: Mutex<HashSet<u8>>,
    temporary: AtomicU64,
}

/// An open file, and what it was when it was verified.
#[derive(Debug)]
struct Served {
    file: OpenFile,
    facts: FlatFacts,
    size: u64,
}

/// An open file and its piece list.
#[derive(Debug)]
pub(super) struct ByPiece {
    pub(super) file: OpenFile,
    pub(super) list: Arc<PieceList>,
}

/// Weighs a file by its list, and by the least that an open one costs.
#[derive(Debug, Clone)]
struct ListWeight;

impl Weighter<Blake3, Arc<ByPiece>> for ListWeight {
    fn weight(&self, _: &Blake3, by_piece: &Arc<ByPiece>) -> u64 {
        let least = OPEN_LISTS_BYTES_MAX / OPEN_FILES_MAX as u64;
        (by_piece.list.values().len() as u64 * 32).max(least)
    }
}

/// A file below `tmp/`, removed unless it is put in its place.
#[derive(Debug)]
struct Temporary<'a> {
    files: &'a dyn Files,
    file: OpenFile,
    placed: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = self.files.remove(self.file.path())
        {
            // It goes at the next start.
            let path = self.file.path().display();
            tracing::warn!(%path, source = %error.source, "a temporary file could not be removed");
        }
    }
}

impl Flats {
    /// Makes the folders where they are missing, and removes what interrupted imports left.
    pub(super) fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        index: SharedIndex,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        for name in ["blobs", "damaged", "tmp"] {
            files.create_dir(&dir.join(name))?;
        }
        sync_dir_or_end(&*files, dir)?;
        let tmp = dir.join("tmp");
        for name in files.list(&tmp)? {
            files.remove(&tmp.join(name))?;
        }
        Ok(Self {
            files,
            dir: dir.to_owned(),
            index,
            verification_max_age: options.verification_max_age,
            reserve_bytes: options.reserve_bytes,
            open: Cache::new(OPEN_FILES_MAX),
            by_piece: Cache::with_weighter(OPEN_FILES_MAX, OPEN_LISTS_BYTES_MAX, ListWeight),
            locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
            readers: AllReaders::default(),
            made: Mutex::default(),
            temporary: AtomicU64::new(0),
        })
    }

    /// The store's folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The way to the disk.
    pub(super) fn files(&self) -> &dyn Files {
        &*self.files
    }

    /// Where a file stands that is whole.
    pub(super) fn path(&self, hash: &Blake3) -> PathBuf {
        let hex = hash.to_hex();
        self.dir.join("blobs").join(&hex[..2]).join(hex)
    }

    /// Where its piece list stands, if it has one.
    pub(super) fn pieces_path(&self, hash: &Blake3) -> PathBuf {
        self.path(hash).with_extension("pieces")
    }

    /// Where a file stands that did not match its hash.
    pub(super) fn damaged_path(&self, hash: &Blake3) -> PathBuf {
        self.dir.join("damaged").join(hash.to_hex())
    }

    /// What the log says of a flat file; nothing where it has none of that hash.
    pub(super) fn facts(&self, hash: &Blake3) -> Result<Option<(Facts, FlatFacts)>, StoreError> {
        Ok(self
            .index
            .find(&Key::digests(hash))?
            .and_then(|found| match found.said() {
                Said::Digests(facts) => facts.flat.map(|flat| (facts, flat)),
                _ => None,
            }))
    }

    /// The same, where the file is also as it was when it was last verified.
    pub(super) fn intact(&self, hash: &Blake3) -> Result<Option<(Facts, FlatFacts)>, StoreError> {
        let Some((facts, flat)) = self.facts(hash)? else {
            return Ok(None);
        };
        let stat = self.files.stat_path(&self.path(hash))?;
        let is_intact = !self.index.is_damaged(hash) && stat.is_some_and(|stat| flat.is_of(&stat));
        Ok(is_intact.then_some((facts, flat)))
    }

    /// Forgets an open file, before it is removed or replaced.
    pub(super) fn forget(&self, hash: &Blake3) {
        self.open.remove(hash);
        self.by_piece.remove(hash);
    }

    /// Stores content from a file; durable on return.
    pub(super) fn import(
        &self,
        log: &Log,
        source: &mut dyn Read,
        size: u64,
        git: bool,
        agrees: &dyn Fn(&Digests) -> bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digests, StoreError> {
        self.leave_reserve(size)?;
        let temporary = self.temporary()?;
        let copy = Copy {
            files: &*self.files,
            file: &temporary.file,
            offset: 0,
        };
        let taken = intake::take(source, size, git, Some(copy), progress)?;
        if !agrees(&taken.digests) {
            return Err(StoreError::Disagrees {
                found: taken.digests.sha256,
            });
        }
        sync_or_end(&*self.files, &temporary.file)?;
        self.place_temporary(log, temporary, &taken)
    }

    /// Makes a file that is written already, and that nobody writes to, a stored one: it is moved, and read before
    /// where it was not hashed when it was written.
    pub(super) fn adopt(
        &self,
        log: &Log,
        path: &Path,
        size: u64,
        hashed: Option<Running>,
        agrees: &dyn Fn(&Digests) -> bool,
    ) -> Result<Digests, StoreError> {
        let file = self.files.open_write(path)?;
        let taken = if let Some(hashed) = hashed.filter(|hashed| hashed.hashed() == size) {
            hashed.finish()?
        } else {
            let source = self.files.open_read(path)?;
            intake::take(&mut &**source.file(), size, false, None, &mut |_| {})?
        };
        if !agrees(&taken.digests) {
            return Err(StoreError::Disagrees {
                found: taken.digests.sha256,
            });
        }
        sync_or_end(&*self.files, &file)?;
        let _lock = self.lock(&taken.digests.blake3);
        self.place(log, &file, &taken, &mut false)
    }

    /// Stores content from memory; durable on return.
    pub(super) fn put(&self, log: &Log, bytes: &[u8], taken: &Taken) -> Result<(), StoreError> {
        self.leave_reserve(bytes.len() as u64)?;
        let temporary = self.temporary()?;
        self.files.write_all_at(&temporary.file, bytes, 0)?;
        sync_or_end(&*self.files, &temporary.file)?;
        self.place_temporary(log, temporary, taken)?;
        Ok(())
    }

    fn leave_reserve(&self, size: u64) -> Result<(), StoreError> {
        if self.files.free_bytes(&self.dir)? < size.saturating_add(self.reserve_bytes) {
            return Err(StoreError::Full {
                path: self.dir.clone(),
            });
        }
        Ok(())
    }

    fn temporary(&self) -> Result<Temporary<'_>, StoreError> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let file = self
            .files
            .create(&self.dir.join("tmp").join(number.to_string()))?;
        Ok(Temporary {
            files: &*self.files,
            file,
            placed: false,
        })
    }

    fn place_temporary(
        &self,
        log: &Log,
        mut temporary: Temporary<'_>,
        taken: &Taken,
    ) -> Result<Digests, StoreError> {
        let _lock = self.lock(&taken.digests.blake3);
        let Temporary { file, placed, .. } = &mut temporary;
        self.place(log, file, taken, placed)
    }

    /// Makes a complete partial file a stored one; it stays where it is on an error.
    pub(super) fn place_partial(
        &self,
        log: &Log,
        file: &OpenFile,
        path: &Path,
        taken: &Taken,
    ) -> Result<Digests, StoreError> {
        let hash = taken.digests.blake3;
        let _lock = self.lock(&hash);
        if self.intact(&hash)?.is_none() {
            sync_or_end(&*self.files, file)?;
        }
        let mut moved = false;
        let placed = self.place(log, file, taken, &mut moved);
        if placed.is_err() && moved {
            // Absent to every reader, and not to be lost: the next start would take it back, too.
            self.files.rename(&self.path(&hash), path)?;
        }
        placed
    }

    /// Gives a synced file its name, and says so in the log; the file's lock must be held.
    fn place(
        &self,
        log: &Log,
        file: &OpenFile,
        taken: &Taken,
        moved: &mut bool,
    ) -> Result<Digests, StoreError> {
        let hash = taken.digests.blake3;
        let known = self.facts(&hash)?;
        let mut digests = taken.digests;
        digests.git = digests
            .git
            .or(known.and_then(|(facts, _)| facts.digests.git));
        if let Some((facts, flat)) = self.intact(&hash)? {
            if facts.digests != digests {
                let flat = Some(flat);
                let renewed = true;
                log.append(vec![
                    Facts {
                        digests,
                        flat,
                        renewed,
                    }
                    .frame(),
                ])?;
            }
            return Ok(digests);
        }
        let folder = self.make_folder(&hash)?;
        if let Some(pieces) = &taken.pieces {
            self.place_pieces(&hash, pieces)?;
        }
        self.forget(&hash);
        let path = self.path(&hash);
        self.files.rename(file.path(), &path)?;
        *moved = true;
        sync_dir_or_end(&*self.files, &folder)?;
        let stat = self.files.stat(&file.renamed(&path))?;
        let flat = Some(FlatFacts::new(stat, now()));
        let renewed = known.is_some() && !self.index.is_damaged(&hash);
        log.append(vec![
            Facts {
                digests,
                flat,
                renewed,
            }
            .frame(),
        ])?;
        Ok(digests)
    }

    fn place_pieces(&self, hash: &Blake3, pieces: &[u8]) -> Result<(), StoreError> {
        let mut temporary = self.temporary()?;
        self.files.write_all_at(&temporary.file, pieces, 0)?;
        sync_or_end(&*self.files, &temporary.file)?;
        self.files
            .rename(temporary.file.path(), &self.pieces_path(hash))?;
        temporary.placed = true;
        Ok(())
    }

    fn make_folder(&self, hash: &Blake3) -> Result<PathBuf, StoreError> {
        let path = self.path(hash);
        let folder = path
            .parent()
            .expect("invariant: below `blobs/ab`")
            .to_owned();
        let first = hash.as_bytes()[0];
        let mut made = self.made.lock();
        if !made.contains(&first) {
            self.files.create_dir(&folder)?;
            sync_dir_or_end(&*self.files, &self.dir.join("blobs"))?;
            made.insert(first);
        }
        Ok(folder)
    }

    /// A file that is open and as it was when it was last verified, at no more cost than asking the system.
    pub(super) fn cached(&self, hash: &Blake3) -> Option<FlatFile> {
        let served = self.open.get(hash)?;
        if self.is_fresh(&served).ok()? {
            return Some(self.flat_file(hash, &served));
        }
        None
    }

    fn is_fresh(&self, served: &Served) -> Result<bool, StoreError> {
        let stat = self.files.stat(&served.file)?;
        // Also where the clock was wrong: a date far ahead proves nothing.
        let age = now().abs_diff(served.facts.verified_at);
        Ok(stat.size == served.size
            && served.facts.is_of(&stat)
            && age < self.verification_max_age.as_secs())
    }

    fn flat_file(&self, hash: &Blake3, served: &Served) -> FlatFile {
        FlatFile {
            file: Arc::clone(served.file.file()),
            path: self.path(hash),
            size: served.size,
            readers: self.readers.of(hash),
        }
    }

    /// Opens a file to be served, and reads all of it first where it may have changed.
    pub(super) fn admit(&self, log: &Log, hash: &Blake3) -> Result<Option<FlatFile>, StoreError> {
        let _lock = self.lock(hash);
        if let Some(file) = self.cached(hash) {
            return Ok(Some(file));
        }
        let Some((facts, flat)) = self.facts(hash)? else {
            return Ok(None);
        };
        if self.index.is_damaged(hash) {
            return Err(self.damaged(hash));
        }
        let file = self.open_file(log, hash, &facts)?;
        let mut served = Served {
            file,
            facts: flat,
            size: facts.digests.size,
        };
        if !self.is_fresh(&served)? {
            served.facts = self.verify_open(log, &facts, &served.file, &mut |_| {})?.0;
        }
        let flat_file = self.flat_file(hash, &served);
        self.open.insert(*hash, Arc::new(served));
        Ok(Some(flat_file))
    }

    /// Reads all of a file; says whether its piece list had to be made anew.
    pub(super) fn verify(
        &self,
        log: &Log,
        facts: &Facts,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, StoreError> {
        let hash = &facts.digests.blake3;
        let _lock = self.lock(hash);
        if self.index.is_damaged(hash) {
            return Err(self.damaged(hash));
        }
        let file = self.open_file(log, hash, facts)?;
        let (_, healed) = self.verify_open(log, facts, &file, progress)?;
        self.forget(hash);
        Ok(healed)
    }

    /// Opens a file to be read piece by piece, each verified: its times do not matter.
    ///
    /// Nothing where the log has none. A piece list that is missing or damaged is made anew from the file.
    pub(super) fn by_piece(
        &self,
        log: &Log,
        hash: &Blake3,
    ) -> Result<Option<Arc<ByPiece>>, StoreError> {
        if let Some(by_piece) = self.by_piece.get(hash) {
            return Ok(Some(by_piece));
        }
        let _lock = self.lock(hash);
        let Some((facts, _)) = self.facts(hash)? else {
            return Ok(None);
        };
        if self.index.is_damaged(hash) {
            return Err(self.damaged(hash));
        }
        let file = self.open_file(log, hash, &facts)?;
        let mut list = self.piece_list(&facts)?;
        if list.is_none() {
            self.verify_open(log, &facts, &file, &mut |_| {})?;
            list = self.piece_list(&facts)?;
        }
        let list = list.ok_or_else(|| self.quarantine(log, &facts))?;
        let list = Arc::new(list);
        let by_piece = Arc::new(ByPiece { file, list });
        self.by_piece.insert(*hash, Arc::clone(&by_piece));
        Ok(Some(by_piece))
    }

    /// The list that stands beside a file, where it is right.
    fn piece_list(&self, facts: &Facts) -> Result<Option<PieceList>, StoreError> {
        let Digests {
            blake3: hash, size, ..
        } = facts.digests;
        let bytes = match piece_count(size) {
            1 => None,
            count => {
                let len = usize::try_from(32 * count).expect("invariant: sizes are bounded");
                read_path(&*self.files, &self.pieces_path(&hash), len)?
            }
        };
        Ok(PieceList::decode(bytes.as_deref(), size, &hash).ok())
    }

    /// Takes note that a piece that was read is not what it should be; the answer for who read it.
    pub(super) fn piece_damaged(&self, log: &Log, hash: &Blake3, file: &OpenFile) -> StoreError {
        let _lock = self.lock(hash);
        let found = || -> Result<bool, StoreError> {
            let there = self.files.stat_path(&self.path(hash))?;
            Ok(there.is_some_and(|there| {
                self.files
                    .stat(file)
                    .is_ok_and(|stat| stat.inode == there.inode)
            }))
        };
        match (found(), self.facts(hash)) {
            (Ok(true), Ok(Some((facts, _)))) if !self.index.is_damaged(hash) => {
                self.quarantine(log, &facts)
            }
            // What stands there now is another file: only the one that was open is wrong.
            (Ok(_), Ok(_)) => {
                self.forget(hash);
                self.damaged(hash)
            }
            (Err(error), _) | (_, Err(error)) => error,
        }
    }

    /// Removes a file that the log then no longer has; its bytes. None where there is no such file.
    pub(super) fn evict(&self, log: &Log, hash: &Blake3) -> Result<u64, StoreError> {
        let _lock = self.lock(hash);
        let Some((facts, _)) = self.facts(hash)? else {
            return Ok(0);
        };
        if self.index.is_damaged(hash) {
            return Ok(0);
        }
        let size = facts.digests.size;
        log.append(vec![evicted_frame(hash, size)])?;
        self.forget(hash);
        for path in [self.pieces_path(hash), self.path(hash)] {
            match self.files.remove(&path) {
                Err(error) if !error.is_absent() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(size)
    }

    fn open_file(&self, log: &Log, hash: &Blake3, facts: &Facts) -> Result<OpenFile, StoreError> {
        match self.files.open_read(&self.path(hash)) {
            Ok(file) => Ok(file),
            Err(error) if error.is_absent() => Err(self.quarantine(log, facts)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads an open file in full, and takes note that it is what it should be, or that it is not.
    fn verify_open(
        &self,
        log: &Log,
        facts: &Facts,
        file: &OpenFile,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(FlatFacts, bool), StoreError> {
        let Digests {
            blake3: hash,
            size,
            git,
            ..
        } = facts.digests;
        for _ in 0..VERIFICATIONS_MAX {
            let before = self.files.stat(file)?;
            // A handle of its own: the one that is served has no position that anybody relies on.
            let source = self.files.open_read(file.path())?;
            if self.files.stat(&source)? != before {
                continue;
            }
            let source = Arc::into_inner(source.into_file())
                .expect("invariant: nobody else has the handle that was just opened");
            let taken = match intake::take(&mut &source, size, git.is_some(), None, progress) {
                Ok(taken) => taken,
                Err(StoreError::Changed { .. }) => return Err(self.quarantine(log, facts)),
                Err(StoreError::Source(source)) => {
                    let path = file.path().to_owned();
                    return Err(StoreError::Io {
                        operation: "read",
                        path,
                        source,
                    });
                }
                Err(error) => return Err(error),
            };
            if self.files.stat(file)? != before {
                continue;
            }
            if taken.digests != facts.digests {
                return Err(self.quarantine(log, facts));
            }
            let healed = self.heal_pieces(&hash, taken.pieces.as_deref())?;
            let flat = FlatFacts::new(before, now());
            let renewed = Facts {
                digests: facts.digests,
                flat: Some(flat),
                renewed: true,
            };
            if let Err(error) = log.append(vec![renewed.frame()]) {
                // The bytes are good all the same: they are only read once more after a restart.
                tracing::warn!(%hash, %error, "a verification could not be noted");
            }
            return Ok((flat, healed));
        }
        // Something writes to it all the time: no reading of it means anything.
        Err(self.quarantine(log, facts))
    }

    /// Replaces a piece list that is not the one just computed; says whether it was.
    fn heal_pieces(&self, hash: &Blake3, pieces: Option<&[u8]>) -> Result<bool, StoreError> {
        let Some(pieces) = pieces else {
            return Ok(false);
        };
        let path = self.pieces_path(hash);
        let stored = read_path(&*self.files, &path, pieces.len())?;
        if stored.as_deref() == Some(pieces) {
            return Ok(false);
        }
        tracing::warn!(path = %path.display(), "a piece list was damaged: it is made anew");
        self.place_pieces(hash, pieces)?;
        sync_dir_or_end(
            &*self.files,
            path.parent().expect("invariant: below `blobs/ab`"),
        )?;
        Ok(true)
    }

    /// Takes a file out of use for good, until the right bytes are stored again.
    ///
    /// Even where none of it can be written down, it is not served again by this process.
    fn quarantine(&self, log: &Log, facts: &Facts) -> StoreError {
        let Digests {
            blake3: hash, size, ..
        } = facts.digests;
        self.forget(&hash);
        tracing::error!(%hash, path = %self.path(&hash).display(), "stored content is damaged");
        if let Err(error) = self.set_aside(&hash) {
            tracing::error!(%hash, %error, "damaged content could not be moved");
        }
        self.index.set_damaged(&hash);
        if let Err(error) = log.append(vec![damaged_frame(&hash, size)]) {
            tracing::error!(%hash, %error, "damaged content could not be noted");
        }
        self.damaged(&hash)
    }

    fn set_aside(&self, hash: &Blake3) -> Result<(), StoreError> {
        let path = self.path(hash);
        if self.files.stat_path(&path)?.is_none() {
            return Ok(());
        }
        self.files.rename(&path, &self.damaged_path(hash))?;
        sync_dir_or_end(&*self.files, &self.dir.join("damaged"))?;
        sync_dir_or_end(
            &*self.files,
            path.parent().expect("invariant: below `blobs/ab`"),
        )?;
        Ok(())
    }

    /// The answer for content that is known to be damaged.
    pub(super) fn damaged(&self, hash: &Blake3) -> StoreError {
        StoreError::Damaged {
            hash: *hash,
            path: self.damaged_path(hash),
        }
    }

    fn lock(&self, hash: &Blake3) -> MutexGuard<'_, ()> {
        self.locks[usize::from(hash.as_bytes()[31]) % LOCKS].lock()
    }
}

/// The bytes of a file that should have so many; nothing where it has not, or is not there.
pub(super) fn read_path(
    files: &dyn Files,
    path: &Path,
    len: usize,
) -> Result<Option<Vec<u8>>, FileError> {
    let file = match files.open_read(path) {
        Ok(file) => file,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; len + 1];
    let read = files.read_at(&file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok((read == len).then_some(bytes))
}

/// Reads a whole flat file into memory.
pub(super) fn read_whole(flat: &FlatFile) -> Result<Vec<u8>, StoreError> {
    let too_large = || StoreError::TooLarge {
        what: "an object",
        size: flat.size,
        max: cairn_protocol::limits::OBJECT_BYTES_MAX as u64,
    };
    let size = usize::try_from(flat.size)
        .ok()
        .filter(|size| *size <= cairn_protocol::limits::OBJECT_BYTES_MAX)
        .ok_or_else(too_large)?;
    let mut bytes = vec![0; size];
    flat.file
        .read_exact_at(&mut bytes, 0)
        .map_err(|source| StoreError::Io {
            operation: "read",
            path: flat.path.clone(),
            source,
        })?;
    Ok(bytes)
}

/// Seconds since the Unix epoch: only ages of verifications are taken from it.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
