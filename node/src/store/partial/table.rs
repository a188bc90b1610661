//! All partial files of a store: what an earlier process left, and one state for each that is open.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::PIECE_BYTES;
use cairn_protocol::piece::{PieceList, PieceSet, piece_count, piece_len};
use parking_lot::{Mutex, MutexGuard};

use super::super::flats::read_path;
use super::super::{StoreError, StoreOptions};
use super::held;
use super::keeper::{Keeper, Work};
use super::state::{self, Phase, Places, Start, State};
use crate::files::{Files, sync_dir_or_end};

/// Locks that keep two threads from opening one file; files that share one wait for each other.
const LOCKS: usize = 64;

/// All partial files of a store.
#[derive(Debug)]
pub(in super::super) struct Partials {
    files: Arc<dyn Files>,
    dir: PathBuf,
    reserve_bytes: u64,
    known: Mutex<HashMap<Blake3, Known>>,
    locks: Vec<Mutex<()>>,
    /// A note of held pieces was removed, and may come back after a power cut.
    ledger_removed: AtomicBool,
    work: Arc<Work>,
    _keeper: Keeper,
}

/// A file of which something is on the disk.
#[derive(Debug)]
struct Known {
    size: u64,
    held_bytes: Arc<AtomicU64>,
    open: Weak<State>,
}

/// What stands in the folder of one hash.
#[derive(Debug, Default)]
struct Left {
    data: bool,
    pieces: bool,
    held: bool,
}

impl Partials {
    /// Makes the folder where it is missing, and looks what an earlier process left in it.
    ///
    /// `is_whole` says whether a blob is stored, `flat` where its file would stand.
    pub(in super::super) fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        options: &StoreOptions,
        is_whole: &dyn Fn(&Blake3) -> Result<bool, StoreError>,
        flat: &dyn Fn(&Blake3) -> PathBuf,
    ) -> Result<Self, StoreError> {
        let folder = dir.join("partial");
        if files.stat_path(&folder)?.is_none() {
            files.create_dir(&folder)?;
            sync_dir_or_end(&*files, dir)?;
        }
        let work = Arc::new(Work::default());
        let keeper = Keeper::spawn(Arc::clone(&work)).map_err(|source| StoreError::Io {
            operation: "start a thread for",
            path: folder.clone(),
            source,
        })?;
        let partials = Self {
            files,
            dir: folder,
            reserve_bytes: options.reserve_bytes,
            known: Mutex::default(),
            locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
            ledger_removed: AtomicBool::new(false),
            work,
            _keeper: keeper,
        };
        partials.look(is_whole, flat)?;
        Ok(partials)
    }

    fn look(
        &self,
        is_whole: &dyn Fn(&Blake3) -> Result<bool, StoreError>,
        flat: &dyn Fn(&Blake3) -> PathBuf,
    ) -> Result<(), StoreError> {
        let mut all: BTreeMap<Blake3, Left> = BTreeMap::new();
        for name in self.files.list(&self.dir)? {
            let (stem, end) = name.split_once('.').unwrap_or((&name, ""));
            let left = stem.parse().ok().map(|hash| all.entry(hash).or_default());
            match (left, end) {
                (Some(left), "") => left.data = true,
                (Some(left), "pieces") => left.pieces = true,
                (Some(left), "held") => left.held = true,
                _ => {
                    let path = self.dir.join(&name);
                    tracing::warn!(path = %path.display(), "no partial file has this name: removed");
                    self.files.remove(&path)?;
                }
            }
        }
        for (hash, left) in all {
            let places = self.places(&hash);
            // Whatever of it is removed here may come back after a power cut, too.
            self.ledger_removed.fetch_or(left.held, Ordering::AcqRel);
            if is_whole(&hash)? {
                state::remove_files(&*self.files, &places)?;
                continue;
            }
            if !left.data && !self.take_back(&places, &flat(&hash))? {
                state::remove_files(&*self.files, &places)?;
                continue;
            }
            if let Some(known) = self.glance(&places, &left)? {
                self.known.lock().insert(hash, known);
            } else {
                tracing::warn!(%hash, "what is left of a partial file is of no use: removed");
                state::remove_files(&*self.files, &places)?;
            }
        }
        Ok(())
    }

    /// Takes a file back that was given its name when the process ended before the log said so.
    fn take_back(&self, places: &Places, flat: &Path) -> Result<bool, StoreError> {
        if self.files.stat_path(flat)?.is_none() {
            return Ok(false);
        }
        self.files.rename(flat, &places.data)?;
        sync_dir_or_end(&*self.files, &places.folder)?;
        Ok(true)
    }

    /// Whether what stands there can be a partial file, without reading all of it.
    fn glance(&self, places: &Places, left: &Left) -> Result<Option<Known>, StoreError> {
        let Some(stat) = self.files.stat_path(&places.data)? else {
            return Ok(None);
        };
        let size = stat.size;
        let has_list = match self.files.stat_path(&places.pieces)? {
            Some(stat) => stat.size == 32 * piece_count(size) && size > PIECE_BYTES,
            None => (1..=PIECE_BYTES).contains(&size),
        };
        if !has_list {
            return Ok(None);
        }
        let mut held = None;
        if left.held {
            let file = self.files.open_read(&places.held)?;
            held = held::read(&*self.files, &file, size)?;
        }
        let bytes = held.map_or(0, |(_, held)| bytes_of(&held, size));
        Ok(Some(Known {
            size,
            held_bytes: Arc::new(AtomicU64::new(bytes)),
            open: Weak::new(),
        }))
    }

    fn places(&self, hash: &Blake3) -> Places {
        let data = self.dir.join(hash.to_hex());
        Places {
            folder: self.dir.clone(),
            pieces: data.with_extension("pieces"),
            held: data.with_extension("held"),
            data,
        }
    }

    fn lock(&self, hash: &Blake3) -> MutexGuard<'_, ()> {
        self.locks[usize::from(hash.as_bytes()[31]) % LOCKS].lock()
    }

    fn opened(&self, hash: &Blake3) -> Option<Arc<State>> {
        self.known.lock().get(hash)?.open.upgrade()
    }

    fn start(&self, hash: &Blake3, list: Arc<PieceList>, held_bytes: Arc<AtomicU64>) -> Start {
        Start {
            files: Arc::clone(&self.files),
            hash: *hash,
            list,
            places: self.places(hash),
            reserve_bytes: self.reserve_bytes,
            held_bytes,
            work: Arc::clone(&self.work),
        }
    }

    fn keep(&self, state: State) -> Arc<State> {
        let state = Arc::new(state);
        self.known.lock().insert(
            state.hash,
            Known {
                size: state.list.size(),
                held_bytes: state.shared_held_bytes(),
                open: Arc::downgrade(&state),
            },
        );
        state.opened();
        state
    }

    /// The file with this list, begun where nothing of it is here.
    pub(in super::super) fn get(
        &self,
        hash: &Blake3,
        list: &PieceList,
    ) -> Result<Arc<State>, StoreError> {
        if PieceList::root(list.values(), list.size()) != *hash {
            return Err(invalid(format!("this piece list is not that of {hash}")));
        }
        let _opening = self.lock(hash);
        if let Some(state) = self.opened(hash) {
            // The list proves how many pieces there are; only the last one proves how long it is.
            if state.list.size() != list.size() {
                return Err(invalid(format!(
                    "{hash} is being stored with {} bytes, not with {}",
                    state.list.size(),
                    list.size()
                )));
            }
            return Ok(state);
        }
        let list = Arc::new(list.clone());
        let places = self.places(hash);
        let is_known = self.known.lock().contains_key(hash);
        if is_known {
            let start = self.start(hash, Arc::clone(&list), Arc::default());
            if let Some(state) = start.load()? {
                return Ok(self.keep(state));
            }
            tracing::warn!(%hash, "what is left of a partial file is of no use: begun anew");
            self.ledger_removed.store(true, Ordering::Release);
            state::remove_files(&*self.files, &places)?;
            self.known.lock().remove(hash);
        }
        if self.ledger_removed.swap(false, Ordering::AcqRel) {
            // Or else it might speak, after a power cut, of the file that is made now.
            sync_dir_or_end(&*self.files, &self.dir)?;
        }
        match self.start(hash, list, Arc::default()).create() {
            Ok(state) => Ok(self.keep(state)),
            Err(error) => {
                if let Err(error) = state::remove_files(&*self.files, &places) {
                    tracing::warn!(%hash, %error, "a partial file could not be removed");
                }
                Err(error)
            }
        }
    }

    /// The file as far as it is here, by the list that stands beside it.
    pub(in super::super) fn find(&self, hash: &Blake3) -> Result<Option<Arc<State>>, StoreError> {
        let _opening = self.lock(hash);
        if let Some(state) = self.opened(hash) {
            return Ok(Some(state));
        }
        let size = self.known.lock().get(hash).map(|known| known.size);
        let Some(size) = size else {
            return Ok(None);
        };
        let places = self.places(hash);
        let bytes = match piece_count(size) {
            1 => None,
            count => {
                let len = usize::try_from(32 * count).expect("invariant: sizes are bounded");
                read_path(&*self.files, &places.pieces, len)?
            }
        };
        let state = match PieceList::decode(bytes.as_deref(), size, hash) {
            Ok(list) => self.start(hash, Arc::new(list), Arc::default()).load()?,
            Err(_) => None,
        };
        if let Some(state) = state {
            return Ok(Some(self.keep(state)));
        }
        tracing::warn!(%hash, "what is left of a partial file is of no use: removed");
        self.ledger_removed.store(true, Ordering::Release);
        state::remove_files(&*self.files, &places)?;
        self.known.lock().remove(hash);
        Ok(None)
    }

    /// Hash, bytes of the whole, and bytes on the disk of each.
    pub(in super::super) fn all(&self) -> Vec<(Blake3, u64, u64)> {
        let known = self.known.lock();
        let all = known.iter();
        all.map(|(hash, known)| (*hash, known.size, known.held_bytes.load(Ordering::Relaxed)))
            .collect()
    }

    /// Ends a file that is open: as another phase has it, its files are removed.
    ///
    /// The gate must be held for writing, or it must be ours alone.
    pub(super) fn end(&self, state: &State, phase: Phase) -> Result<(), StoreError> {
        let mut ledger = state.ledger.lock();
        ledger.is_closed = true;
        state.close(phase);
        if ledger.has_file() {
            self.ledger_removed.store(true, Ordering::Release);
        }
        self.known.lock().remove(&state.hash);
        state::remove_files(&*self.files, &state.places)
    }

    /// Removes a file that is open or not; the bytes of it that were here.
    pub(in super::super) fn remove(&self, hash: &Blake3) -> Result<u64, StoreError> {
        let _opening = self.lock(hash);
        if let Some(state) = self.opened(hash) {
            let _closed = state.gate.write();
            if state.phase() != Phase::Open {
                return Ok(0);
            }
            let bytes = state.held_bytes();
            self.end(&state, Phase::Removed)?;
            return Ok(bytes);
        }
        let Some(known) = self.known.lock().remove(hash) else {
            return Ok(0);
        };
        self.ledger_removed.store(true, Ordering::Release);
        state::remove_files(&*self.files, &self.places(hash))?;
        Ok(known.held_bytes.load(Ordering::Relaxed))
    }
}

/// A request that nothing on the disk is to blame for.
pub(super) fn invalid(reason: String) -> StoreError {
    StoreError::Source(std::io::Error::new(
        std::io::ErrorKind::InvalidInput,
        reason,
    ))
}

/// Bytes of the pieces of a set.
pub(super) fn bytes_of(held: &PieceSet, size: u64) -> u64 {
    (0..held.count())
        .filter(|index| held.contains(*index))
        .filter_map(|index| piece_len(index, size))
        .sum()
}
