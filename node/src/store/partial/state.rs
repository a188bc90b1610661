//! One partial file: its bytes, which pieces of them are here, and which of those a power cut would leave.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cairn_protocol::git::BlobHasher;
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::limits::PIECE_BYTES;
use cairn_protocol::piece::{PieceList, PieceSet, piece_count, piece_len};
use parking_lot::{Mutex, MutexGuard, RwLock};
use sha2::Digest as _;

use super::super::flats::read_path;
use super::super::{Digests, StoreError};
use super::held;
use super::keeper::Work;
use super::table::{bytes_of, invalid};
use crate::buffers::Buffer;
use crate::files::{FileError, Files, OpenFile, sync_dir_or_end, sync_or_end};

/// Bytes of pieces that are not durable yet from which on a step is made, however recent they are.
const STEP_BYTES: u64 = 32 << 20;
/// Bytes of pieces that are not durable yet at which whoever writes waits for the step.
///
/// So much that a step's own time, which the disk takes for however few bytes, costs no throughput.
const BEHIND_BYTES_MAX: u64 = 256 << 20;
/// Pieces that wait in memory for earlier ones to be hashed first; later ones are read back when it is their turn.
const WAITING_PIECES_MAX: u64 = 16;
/// Pieces that one write reads back to be hashed: more would keep its caller waiting.
const READ_BACK_PIECES: u32 = 2;

/// Where the files of a partial file stand.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) folder: PathBuf,
    pub(super) data: PathBuf,
    pub(super) pieces: PathBuf,
    pub(super) held: PathBuf,
}

/// A partial file that is open.
pub(in super::super) struct State {
    pub(super) files: Arc<dyn Files>,
    pub(super) hash: Blake3,
    pub(super) list: Arc<PieceList>,
    pub(super) places: Places,
    pub(super) file: OpenFile,
    reserve_bytes: u64,
    /// Held for reading by who writes pieces, for writing by who ends that.
    pub(super) gate: RwLock<()>,
    /// Held by who writes bytes.
    writing: Mutex<()>,
    progress: Mutex<Progress>,
    pub(super) ledger: Mutex<Ledger>,
    order: Mutex<Order>,
    /// Bytes of the pieces that are here, also for who has not opened it.
    held_bytes: Arc<AtomicU64>,
    work: Arc<Work>,
}

impl std::fmt::Debug for State {
    /// Without what it shares with others, which has it in turn.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// Whether pieces may still come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// It is a stored blob now.
    Finished(Digests),
    /// Its files are removed; what is open can still be read.
    Removed,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    held: PieceSet,
    /// Pieces that an earlier process verified: the disk may have changed them since.
    trusted: PieceSet,
    /// Bytes of pieces that came after the last step began.
    behind_bytes: u64,
    /// The keeper knows that a step is wanted.
    is_queued: bool,
}

/// The file that says which pieces are durable.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    file: Option<OpenFile>,
    step: u64,
    /// What the last step noted.
    noted: Option<PieceSet>,
    /// All files have durable names, and the piece list durable bytes.
    is_named: bool,
    /// The files are gone, or about to be.
    pub(super) is_closed: bool,
}

/// SHA-256 of the pieces as they come, as far as they come in order.
#[derive(Debug)]
struct Order {
    next: u64,
    waiting: BTreeMap<u64, Vec<Bytes>>,
    /// Nothing while a thread hashes.
    hasher: Option<sha2::Sha256>,
    /// Some of it was read from the disk, which may have been wrong.
    trusts_disk: bool,
}

impl Ledger {
    /// Whether there is such a file.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some()
    }
}

impl Order {
    fn new() -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
            hasher: Some(sha2::Sha256::new()),
            trusts_disk: false,
        }
    }
}

/// What the bytes on the disk come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) sha256: Sha256,
    /// Nothing where it was not asked for, or where the bytes were made to collide with others.
    pub(super) git: Option<GitOid>,
}

/// What a state begins with.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) files: Arc<dyn Files>,
    pub(super) hash: Blake3,
    pub(super) list: Arc<PieceList>,
    pub(super) places: Places,
    pub(super) reserve_bytes: u64,
    pub(super) held_bytes: Arc<AtomicU64>,
    pub(super) work: Arc<Work>,
}

impl Start {
    /// Makes the files of a file of which nothing is here.
    pub(super) fn create(self) -> Result<State, StoreError> {
        let size = self.list.size();
        leave_reserve(&*self.files, &self.places, size, self.reserve_bytes)?;
        let file = self.files.create(&self.places.data)?;
        self.files.truncate(&file, size)?;
        if let Some(pieces) = self.list.encode() {
            let file = self.files.create(&self.places.pieces)?;
            self.files.write_all_at(&file, &pieces, 0)?;
        }
        let none = PieceSet::empty(size);
        Ok(self.state(file, Ledger::default(), none.clone(), none))
    }

    /// Opens what an earlier process left, and hashes what is in doubt again; nothing where it is of no use.
    pub(super) fn load(self) -> Result<Option<State>, StoreError> {
        let size = self.list.size();
        let files = &*self.files;
        let file = match files.open_write(&self.places.data) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if files.stat(&file)?.size != size {
            return Ok(None);
        }
        if let Some(pieces) = self.list.encode()
            && read_path(files, &self.places.pieces, pieces.len())?.as_ref() != Some(&pieces)
        {
            return Ok(None);
        }
        let mut ledger = Ledger::default();
        let mut held = PieceSet::empty(size);
        match files.open_write(&self.places.held) {
            Ok(file) => {
                if let Some(newest) = held::read(files, &file, size)? {
                    (ledger.step, held) = newest;
                }
                ledger.file = Some(file);
            }
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error.into()),
        }
        let trusted = held.clone();
        let found = find_pieces(files, &file, &self.list, &mut held)?;
        let state = self.state(file, ledger, held, trusted);
        state.progress.lock().behind_bytes = found;
        Ok(Some(state))
    }

    fn state(self, file: OpenFile, ledger: Ledger, held: PieceSet, trusted: PieceSet) -> State {
        let size = self.list.size();
        self.held_bytes
            .store(bytes_of(&held, size), Ordering::Relaxed);
        State {
            files: self.files,
            hash: self.hash,
            list: self.list,
            places: self.places,
            file,
            reserve_bytes: self.reserve_bytes,
            gate: RwLock::default(),
            writing: Mutex::default(),
            progress: Mutex::new(Progress {
                phase: Phase::Open,
                held,
                trusted,
                behind_bytes: 0,
                is_queued: false,
            }),
            ledger: Mutex::new(ledger),
            order: Mutex::new(Order::new()),
            held_bytes: self.held_bytes,
            work: self.work,
        }
    }
}

/// Adds the pieces that are on the disk though nothing says so; their bytes.
fn find_pieces(
    files: &dyn Files,
    file: &OpenFile,
    list: &PieceList,
    held: &mut PieceSet,
) -> Result<u64, StoreError> {
    let (mut found, mut index) = (0, 0);
    let mut buffer = Vec::new();
    while index < held.count() {
        if held.contains(index) {
            index += 1;
            continue;
        }
        let offset = index * PIECE_BYTES;
        if list.size() > 0 {
            match files.data_from(file, offset)? {
                None => break,
                Some(at) if at >= offset + PIECE_BYTES => {
                    index = at / PIECE_BYTES;
                    continue;
                }
                Some(_) => {}
            }
        }
        if read_piece(files, file, list.size(), index, &mut buffer)? && list.verify(index, &buffer)
        {
            held.insert(index);
            found += buffer.len() as u64;
        }
        index += 1;
    }
    Ok(found)
}

/// Reads a piece; whether all of it was there.
fn read_piece(
    files: &dyn Files,
    file: &OpenFile,
    size: u64,
    index: u64,
    buffer: &mut Vec<u8>,
) -> Result<bool, FileError> {
    let len = piece_len(index, size).unwrap_or(0);
    buffer.resize(usize::try_from(len).expect("invariant: a piece fits"), 0);
    Ok(files.read_at(file, buffer, index * PIECE_BYTES)? == buffer.len())
}

fn leave_reserve(
    files: &dyn Files,
    places: &Places,
    bytes: u64,
    reserve_bytes: u64,
) -> Result<(), StoreError> {
    if files.free_bytes(&places.folder)? < bytes.saturating_add(reserve_bytes) {
        return Err(StoreError::Full {
            path: places.data.clone(),
        });
    }
    Ok(())
}

impl State {
    pub(super) fn phase(&self) -> Phase {
        self.progress.lock().phase
    }

    /// Takes no more pieces; the gate must be held for writing.
    pub(super) fn close(&self, phase: Phase) {
        self.progress.lock().phase = phase;
        self.order.lock().waiting.clear();
    }

    pub(super) fn held(&self) -> PieceSet {
        self.progress.lock().held.clone()
    }

    pub(super) fn has(&self, index: u64) -> bool {
        self.progress.lock().held.contains(index)
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// The same, to go on being told.
    pub(super) fn shared_held_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.held_bytes)
    }

    fn absent(&self) -> StoreError {
        StoreError::Absent { hash: self.hash }
    }

    /// Stores a piece.
    pub(super) fn write(self: &Arc<Self>, index: u64, parts: &[Bytes]) -> Result<(), StoreError> {
        let size = self.list.size();
        let len = parts.iter().map(|part| part.len() as u64).sum();
        if piece_len(index, size) != Some(len) {
            return Err(invalid(format!(
                "{len} bytes are not piece {index} of {size} bytes"
            )));
        }
        let _open = self.gate.read();
        {
            let progress = self.progress.lock();
            match progress.phase {
                Phase::Removed => return Err(self.absent()),
                Phase::Open if !progress.held.contains(index) => {}
                Phase::Open | Phase::Finished(_) => return Ok(()),
            }
        }
        leave_reserve(&*self.files, &self.places, len, self.reserve_bytes)?;
        {
            // The system lets one write to a file at a time, and has others spin until then.
            let _alone = self.writing.lock();
            self.files
                .write_all_vectored_at(&self.file, parts, index * PIECE_BYTES)?;
        }
        let behind_bytes = {
            let mut progress = self.progress.lock();
            if progress.held.insert(index) {
                progress.behind_bytes += len;
                self.held_bytes.fetch_add(len, Ordering::Relaxed);
            }
            self.want_step(&mut progress);
            progress.behind_bytes
        };
        self.hash_in_order(index, parts);
        if behind_bytes >= BEHIND_BYTES_MAX {
            self.step()?;
        }
        Ok(())
    }

    /// Has the keeper make a step: soon where much waits for it, within a second otherwise.
    fn want_step(self: &Arc<Self>, progress: &mut Progress) {
        let is_much = progress.behind_bytes >= STEP_BYTES;
        if is_much || !progress.is_queued {
            progress.is_queued = true;
            self.work.add(self, is_much);
        }
    }

    /// Has what was found at the opening noted, where anything was.
    pub(super) fn opened(self: &Arc<Self>) {
        let mut progress = self.progress.lock();
        if progress.behind_bytes > 0 {
            self.want_step(&mut progress);
        }
    }

    fn hash_in_order(&self, index: u64, parts: &[Bytes]) {
        let mut order = self.order.lock();
        if (order.next..order.next + WAITING_PIECES_MAX).contains(&index) {
            order.waiting.insert(index, parts.to_vec());
        }
        // Another thread that hashes comes by here before it puts the hasher back.
        let Some(mut hasher) = order.hasher.take() else {
            return;
        };
        let mut read_back = 0;
        loop {
            let next = order.next;
            if let Some(parts) = order.waiting.remove(&next) {
                MutexGuard::unlocked(&mut order, || {
                    for part in &parts {
                        hasher.update(part);
                    }
                });
            } else if read_back < READ_BACK_PIECES && self.has(next) {
                read_back += 1;
                let mut buffer = Vec::new();
                let is_read = MutexGuard::unlocked(&mut order, || {
                    let is_read = self.read_piece(next, &mut buffer).unwrap_or(false);
                    if is_read {
                        hasher.update(&buffer);
                    }
                    is_read
                });
                if !is_read {
                    break;
                }
                order.trusts_disk = true;
            } else {
                break;
            }
            order.next = next + 1;
            order.waiting.remove(&next);
        }
        order.hasher = Some(hasher);
    }

    fn read_piece(&self, index: u64, buffer: &mut Vec<u8>) -> Result<bool, FileError> {
        read_piece(&*self.files, &self.file, self.list.size(), index, buffer)
    }

    /// Bytes of a piece that is here; verified where `always`, or where only an earlier process did that.
    pub(super) fn read(self: &Arc<Self>, index: u64, always: bool) -> Result<Bytes, StoreError> {
        let is_trusted = {
            let progress = self.progress.lock();
            if !progress.held.contains(index) {
                return Err(self.absent());
            }
            progress.trusted.contains(index)
        };
        let len = piece_len(index, self.list.size()).unwrap_or(0);
        let mut buffer = Buffer::new(usize::try_from(len).expect("invariant: a piece fits"));
        let is_right = self
            .files
            .read_at(&self.file, &mut buffer, index * PIECE_BYTES)?
            == buffer.len()
            && (!(is_trusted || always) || self.list.verify(index, &buffer));
        if !is_right {
            self.lose(index);
            return Err(self.absent());
        }
        if is_trusted {
            self.progress.lock().trusted.remove(index);
        }
        Ok(buffer.freeze())
    }

    /// Takes note that a piece is not on the disk as it came.
    fn lose(self: &Arc<Self>, index: u64) {
        tracing::warn!(hash = %self.hash, index, "a piece was damaged on the disk: it is fetched again");
        self.order.lock().trusts_disk = true;
        let mut progress = self.progress.lock();
        progress.trusted.remove(index);
        if progress.phase == Phase::Open && progress.held.remove(index) {
            let len = piece_len(index, self.list.size()).unwrap_or(0);
            self.held_bytes.fetch_sub(len, Ordering::Relaxed);
            self.want_step(&mut progress);
        }
    }

    /// Makes the pieces that are here durable, and then notes that they are.
    pub(super) fn step(&self) -> Result<(), StoreError> {
        let files = &*self.files;
        let mut ledger = self.ledger.lock();
        let (held, behind_bytes) = {
            let mut progress = self.progress.lock();
            progress.is_queued = false;
            (progress.held.clone(), progress.behind_bytes)
        };
        if ledger.is_closed || (behind_bytes == 0 && ledger.noted.as_ref() == Some(&held)) {
            return Ok(());
        }
        sync_or_end(files, &self.file)?;
        self.progress.lock().behind_bytes -= behind_bytes;
        if !ledger.is_named && self.list.values().len() > 1 {
            sync_or_end(files, &files.open_write(&self.places.pieces)?)?;
        }
        let file = if let Some(file) = &ledger.file {
            file.clone()
        } else {
            // One that a failed attempt left says nothing yet.
            if files.stat_path(&self.places.held)?.is_some() {
                files.remove(&self.places.held)?;
            }
            files.create(&self.places.held)?
        };
        ledger.file = Some(file.clone());
        let (offset, bytes) = held::encode(ledger.step + 1, self.list.size(), &held);
        files.write_all_at(&file, &bytes, offset)?;
        sync_or_end(files, &file)?;
        ledger.step += 1;
        if !ledger.is_named {
            sync_dir_or_end(files, &self.places.folder)?;
            ledger.is_named = true;
        }
        ledger.noted = Some(held);
        Ok(())
    }

    /// SHA-256 of all pieces, read back as far as they did not come in order; and whether that matters.
    ///
    /// Nothing where a piece is missing. The gate must be held for writing.
    pub(super) fn sha256(self: &Arc<Self>) -> Result<Option<(Sha256, bool)>, StoreError> {
        let mut order = self.order.lock();
        let mut hasher = order
            .hasher
            .take()
            .expect("invariant: nobody hashes while the gate is held for writing");
        order.waiting.clear();
        let mut buffer = Vec::new();
        let mut outcome = Ok(true);
        while order.next < piece_count(self.list.size()) {
            outcome = self.read_piece(order.next, &mut buffer);
            if !matches!(outcome, Ok(true)) {
                break;
            }
            hasher.update(&buffer);
            order.trusts_disk = true;
            order.next += 1;
        }
        order.hasher = Some(hasher.clone());
        let (next, trusts_disk) = (order.next, order.trusts_disk);
        drop(order);
        if !outcome? {
            self.lose(next);
            return Ok(None);
        }
        let sha256 = Sha256::from_bytes(hasher.finalize().into());
        Ok(Some((sha256, trusts_disk)))
    }

    /// Git's id of the bytes on the disk; nothing where they were made to collide with others.
    pub(super) fn git(self: &Arc<Self>) -> Result<Option<GitOid>, StoreError> {
        let mut hasher = BlobHasher::new(self.list.size());
        let mut buffer = Vec::new();
        for index in 0..piece_count(self.list.size()) {
            if !self.read_piece(index, &mut buffer)? {
                return Ok(None);
            }
            hasher.update(&buffer);
        }
        Ok(hasher.finish().ok())
    }

    /// Reads everything anew and verifies it; nothing where a piece was changed, and is missing now.
    pub(super) fn recompute(self: &Arc<Self>, git: bool) -> Result<Option<Others>, StoreError> {
        let size = self.list.size();
        let mut sha256 = sha2::Sha256::new();
        let mut oid = git.then(|| BlobHasher::new(size));
        let mut buffer = Vec::new();
        let mut lost = Vec::new();
        for index in 0..piece_count(size) {
            if !self.read_piece(index, &mut buffer)? || !self.list.verify(index, &buffer) {
                lost.push(index);
            } else if lost.is_empty() {
                sha256.update(&buffer);
                if let Some(oid) = &mut oid {
                    oid.update(&buffer);
                }
            }
        }
        // What was hashed is of no use where a piece was wrong: it is hashed again when all are here.
        *self.order.lock() = Order {
            trusts_disk: true,
            ..Order::new()
        };
        if !lost.is_empty() {
            for index in lost {
                self.lose(index);
            }
            return Ok(None);
        }
        Ok(Some(Others {
            sha256: Sha256::from_bytes(sha256.finalize().into()),
            git: oid.and_then(|oid| oid.finish().ok()),
        }))
    }
}

/// Removes the files of a partial file, as far as they are there.
///
/// The bytes go last, so that what a crash leaves says too little of them, and never too much.
pub(super) fn remove_files(files: &dyn Files, places: &Places) -> Result<(), StoreError> {
    for path in [&places.held, &places.pieces, &places.data] {
        match files.remove(path) {
            Err(error) if !error.is_absent() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
