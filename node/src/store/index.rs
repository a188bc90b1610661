//! Finds frames of the log: first what was just written, then the views, and the log itself for the truth.
//!
//! In memory stand eight bytes for each key of each segment. They prove absence; what they do not rule out
//! is looked up in the views, checked against the frame that the views point to, and where that fails found
//! by reading the segments that may have it. So no view is ever believed, and none is needed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_protocol::hash::Blake3;
use parking_lot::RwLock;
use quick_cache::sync::Cache;

use super::facts::Said;
use super::key::Key;
use super::view_keeper::ViewSlot;
use super::{Stats, StoreError};
use crate::files::OpenFile;
use crate::files::frames::{Frame, Frames, Stop};
use crate::files::segments::{Folder, Location, NewFrame, corrupt};

/// Segments that are kept open for reading; more are opened when they are read.
const OPEN_SEGMENTS_MAX: usize = 64;
/// Keys remembered where there are no views; all are forgotten at once, and read from the log again.
const RECENT_KEYS_MAX: usize = 100_000;

/// Frames that may wait for the views; a writer waits until there are fewer.
const WAITING_FRAMES_MAX: usize = 50_000;

/// What stands at the next place of a segment.
#[derive(Debug)]
pub(super) enum Read<'a> {
    Frame(Frame<'a>),
    Bad(BadFrame),
}

/// A frame that does not match its checksum.
#[derive(Debug)]
pub(super) struct BadFrame {
    pub(super) error: StoreError,
    /// Kind and payload as they stand there, where reading goes on behind the frame.
    pub(super) rest: Option<(u8, Vec<u8>)>,
}

/// A frame that was found, and is what it was looked up as.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) location: Location,
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
}

impl Found {
    pub(super) fn said(&self) -> Said<'_> {
        Said::read(self.kind, &self.payload).expect("invariant: it was read when it was found")
    }
}

/// Everything known of the log but its bytes.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) folder: Folder,
    /// Times since the start that something was found damaged, or healed.
    alarms: Arc<AtomicU64>,
    state: RwLock<State>,
    open: Cache<u32, OpenFile>,
    pub(super) views: ViewSlot,
}

#[derive(Debug, Default)]
struct State {
    alarms: Arc<AtomicU64>,
    /// Fingerprints of the keys in each segment, the first segment first.
    segments: Vec<Fingerprints>,
    /// Where the keys stand that the views may not know yet.
    recent: HashMap<Key, Location>,
    /// The same in the order of writing, for the views.
    waiting: VecDeque<(Vec<Key>, Location)>,
    /// Blobs that did not match their hash, and were not stored again since.
    damaged: HashSet<Blake3>,
    blobs: u64,
    blob_bytes: u64,
    flat_bytes: u64,
    /// Frames that say that a file was evicted.
    evictions: u64,
    log_bytes: u64,
    /// Bytes of the last segment that are durable.
    last_len: u64,
}

/// Fingerprints of one segment's keys.
#[derive(Debug)]
enum Fingerprints {
    /// Of the segment that is written to.
    Open(HashSet<u64>),
    /// Of a segment that is complete: sorted, none twice.
    Closed(Vec<u64>),
}

impl Fingerprints {
    fn contains(&self, fingerprint: u64) -> bool {
        match self {
            Self::Open(set) => set.contains(&fingerprint),
            Self::Closed(sorted) => sorted.binary_search(&fingerprint).is_ok(),
        }
    }

    fn close(&mut self) {
        if let Self::Open(set) = self {
            let mut sorted: Vec<u64> = set.drain().collect();
            sorted.sort_unstable();
            *self = Self::Closed(sorted);
        }
    }
}

impl State {
    /// Takes note of a frame, in the order of writing.
    fn note(&mut self, said: &Said<'_>, keys: &[Key]) {
        if let Some(Fingerprints::Open(set)) = self.segments.last_mut() {
            set.extend(keys.iter().map(Key::fingerprint));
        }
        match said {
            Said::Blob { hash, bytes } => {
                self.heal(hash);
                self.blobs += 1;
                self.blob_bytes += bytes.len() as u64;
            }
            Said::Digests(facts) => {
                let digests = &facts.digests;
                if facts.flat.is_some() {
                    self.heal(&digests.blake3);
                    if !facts.renewed {
                        self.blobs += 1;
                        self.blob_bytes += digests.size;
                        self.flat_bytes += digests.size;
                    }
                }
            }
            Said::Damaged { hash, size } => {
                self.damaged.insert(*hash);
                self.alarms.fetch_add(1, Ordering::AcqRel);
                self.blobs = self.blobs.saturating_sub(1);
                self.blob_bytes = self.blob_bytes.saturating_sub(*size);
                if *size >= cairn_protocol::limits::FLAT_BYTES_MIN {
                    self.flat_bytes = self.flat_bytes.saturating_sub(*size);
                }
            }
            Said::Evicted { size, .. } => {
                self.evictions += 1;
                self.blobs = self.blobs.saturating_sub(1);
                self.blob_bytes = self.blob_bytes.saturating_sub(*size);
                self.flat_bytes = self.flat_bytes.saturating_sub(*size);
            }
            Said::Record { .. } | Said::Link { .. } | Said::Mark => {}
        }
    }

    fn heal(&mut self, hash: &Blake3) {
        if self.damaged.remove(hash) {
            // What was answered while it was damaged is out of date now.
            self.alarms.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn segment(&mut self, segment: u32) {
        while self.segments.len() < segment as usize {
            if let Some(last) = self.segments.last_mut() {
                last.close();
            }
            self.segments.push(Fingerprints::Open(HashSet::new()));
        }
    }

    fn remember(&mut self, keys: Vec<Key>, location: Location, views_are_on: bool) {
        if keys.is_empty() {
            return;
        }
        if !views_are_on {
            self.waiting.clear();
            if self.recent.len() > RECENT_KEYS_MAX {
                self.recent.clear();
            }
        }
        self.recent.extend(keys.iter().map(|key| (*key, location)));
        if views_are_on {
            self.waiting.push_back((keys, location));
        }
    }
}

impl Index {
    pub(super) fn new(folder: Folder, views: ViewSlot) -> Self {
        let state = State::default();
        Self {
            folder,
            alarms: Arc::clone(&state.alarms),
            state: RwLock::new(state),
            open: Cache::new(OPEN_SEGMENTS_MAX),
            views,
        }
    }

    /// Takes note of a frame that was read at the start; the views are told of it by the caller.
    pub(super) fn read(&self, segment: u32, said: &Said<'_>, keys: &[Key]) {
        let mut state = self.state.write();
        state.segment(segment);
        state.note(said, keys);
    }

    /// Takes note of frames that were just made durable in the last segment, now `len` bytes long.
    pub(super) fn written(&self, frames: &[NewFrame], locations: &[Location], len: u64) {
        let mut state = self.state.write();
        for (frame, location) in frames.iter().zip(locations) {
            let payload = [frame.head.as_slice(), &frame.body].concat();
            let said = Said::read(frame.kind, &payload).expect("invariant: we made this frame");
            let keys = Key::of(&said);
            state.note(&said, &keys);
            state.remember(keys, *location, self.views.is_on());
        }
        state.log_bytes += len.saturating_sub(state.last_len);
        state.last_len = len;
        drop(state);
        self.views.notify();
        self.views
            .wait_until(|| self.waiting_len() < WAITING_FRAMES_MAX);
    }

    /// Takes note of a new last segment of so many bytes.
    pub(super) fn rolled(&self, segment: u32, len: u64) {
        let mut state = self.state.write();
        state.segment(segment);
        state.log_bytes += len;
        state.last_len = len;
    }

    /// Takes note of the log's length at the start, in all and of its last segment.
    pub(super) fn opened(&self, last_segment: u32, last_len: u64, log_bytes: u64) {
        let mut state = self.state.write();
        state.segment(last_segment);
        state.log_bytes = log_bytes;
        state.last_len = last_len;
    }

    /// Bytes of a segment that count: all that is durable of the last one, all of any other.
    fn durable_len(&self, segment: u32) -> Option<u64> {
        let state = self.state.read();
        (state.segments.len() == segment as usize).then_some(state.last_len)
    }

    /// What is stored.
    pub(super) fn stats(&self) -> Stats {
        let state = self.state.read();
        Stats {
            blobs: state.blobs,
            bytes: state.blob_bytes,
            log_bytes: state.log_bytes,
            segments: state.segments.len() as u64,
        }
    }

    /// Bytes of all flat files.
    pub(super) fn flat_bytes(&self) -> u64 {
        self.state.read().flat_bytes
    }

    /// Whether a frame says of any file that it was evicted.
    pub(super) fn has_evictions(&self) -> bool {
        self.state.read().evictions > 0
    }

    /// Number of segments, which is the last one's number.
    pub(super) fn last_segment(&self) -> u32 {
        u32::try_from(self.state.read().segments.len()).expect("invariant: numbered in 32 bits")
    }

    /// Whether a blob is known not to match its hash.
    pub(super) fn is_damaged(&self, hash: &Blake3) -> bool {
        self.state.read().damaged.contains(hash)
    }

    /// Takes note, in memory alone, that a blob does not match its hash.
    pub(super) fn set_damaged(&self, hash: &Blake3) {
        self.state.write().damaged.insert(*hash);
        self.alarms.fetch_add(1, Ordering::AcqRel);
    }

    /// Rises whenever something is found damaged, or stored again that was.
    pub(super) fn alarms(&self) -> u64 {
        self.alarms.load(Ordering::Acquire)
    }

    /// All blobs that are known not to match their hash.
    pub(super) fn damaged(&self) -> Vec<Blake3> {
        self.state.read().damaged.iter().copied().collect()
    }

    /// The newest frame with this key.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Found>, StoreError> {
        let fingerprint = key.fingerprint();
        let recent = {
            let state = self.state.read();
            if !state
                .segments
                .iter()
                .any(|segment| segment.contains(fingerprint))
            {
                return Ok(None);
            }
            state.recent.get(key).copied()
        };
        if let Some(location) = recent
            && let Some(found) = self.at(location, key)?
        {
            return Ok(Some(found));
        }
        let views = self.views.current();
        if let Some(views) = &views {
            match views.get(key) {
                Ok(Some(location)) => {
                    if let Some(found) = self.at(location, key)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None) => {}
                Err(error) => self.views.failed(views, &error),
            }
        }
        let found = self.search(key)?;
        if let Some(found) = &found {
            if let Some(views) = views {
                self.views.lost(&views, key);
            }
            let mut state = self.state.write();
            if !state.recent.contains_key(key) {
                state.remember(vec![*key], found.location, self.views.is_on());
            }
        }
        Ok(found)
    }

    /// The frame at a location, where it is whole and has this key.
    pub(super) fn at(&self, location: Location, key: &Key) -> Result<Option<Found>, StoreError> {
        let Some(file) = self.open(location.segment)? else {
            return Ok(None);
        };
        if location.len as usize > crate::files::frames::FRAME_PAYLOAD_BYTES_MAX + 16 {
            return Ok(None);
        }
        let mut bytes = vec![0; location.len as usize];
        let read = self
            .folder
            .files
            .read_at(&file, &mut bytes, location.offset)?;
        bytes.truncate(read);
        let binding = self.folder.binding(location.segment);
        let Ok(frame) = binding.decode(&bytes, location.offset) else {
            return Ok(None);
        };
        let kind = frame.kind;
        if !Said::read(kind, frame.payload).is_some_and(|said| Key::of(&said).contains(key)) {
            return Ok(None);
        }
        bytes.drain(..crate::files::frames::FRAME_HEADER_BYTES);
        Ok(Some(Found {
            location,
            kind,
            payload: bytes,
        }))
    }

    /// Reads the segments that may have a key, the newest first.
    ///
    /// [`StoreError::Corrupt`] where it is not found but a bad frame might have been it.
    fn search(&self, key: &Key) -> Result<Option<Found>, StoreError> {
        let fingerprint = key.fingerprint();
        let candidates: Vec<u32> = {
            let state = self.state.read();
            let numbered = (1..).zip(&state.segments);
            let mut numbers: Vec<u32> = numbered
                .filter(|(_, segment)| segment.contains(fingerprint))
                .map(|(number, _)| number)
                .collect();
            numbers.reverse();
            numbers
        };
        let mut bad = None;
        for segment in candidates {
            match self.search_segment(segment, key)? {
                (Some(found), _) => return Ok(Some(found)),
                (None, None) => {}
                (None, Some(error)) => bad = Some(error),
            }
        }
        bad.map_or(Ok(None), Err)
    }

    fn search_segment(
        &self,
        segment: u32,
        key: &Key,
    ) -> Result<(Option<Found>, Option<StoreError>), StoreError> {
        let (mut found, mut error) = (None, None);
        self.each_frame(segment, &mut |read| {
            match read {
                Read::Frame(frame) => {
                    let has_key = |said| Key::of(&said).contains(key);
                    if Said::read(frame.kind, frame.payload).is_some_and(has_key) {
                        let location = Location {
                            segment,
                            offset: frame.offset,
                            len: frame.len(),
                        };
                        let payload = frame.payload.to_vec();
                        found = Some(Found {
                            location,
                            kind: frame.kind,
                            payload,
                        });
                    }
                }
                Read::Bad(bad) => error = Some(bad.error),
            }
            Ok(())
        })?;
        Ok((found, error))
    }

    /// Reads a segment, stepping over bad frames as far as that can be done.
    pub(super) fn each_frame(
        &self,
        segment: u32,
        on_read: &mut dyn FnMut(Read<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let files = &*self.folder.files;
        let len = self.durable_len(segment);
        let file = files.open_read(&self.folder.path(segment))?;
        let len = match len {
            Some(len) => len,
            None => files.stat(&file)?.size,
        };
        let mut frames = Frames::new(files, &file, self.folder.binding(segment), len);
        loop {
            match frames.next() {
                Ok(Some(frame)) => on_read(Read::Frame(frame))?,
                Ok(None) => return Ok(()),
                Err(Stop::File(error)) => return Err(error.into()),
                Err(Stop::Bad(bad)) => {
                    let error = corrupt(&file, frames.offset(), bad);
                    let stepped_over = frames.step_over()?;
                    let ends_here = stepped_over.is_none();
                    on_read(Read::Bad(BadFrame {
                        error,
                        rest: stepped_over,
                    }))?;
                    if ends_here {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn open(&self, segment: u32) -> Result<Option<OpenFile>, StoreError> {
        if let Some(file) = self.open.get(&segment) {
            return Ok(Some(file));
        }
        // Held, so that a segment that is swapped meanwhile is taken out of the cache afterwards.
        let _state = self.state.read();
        match self.folder.files.open_read(&self.folder.path(segment)) {
            Ok(file) => {
                self.open.insert(segment, file.clone());
                Ok(Some(file))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a segment stands, for messages.
    pub(super) fn segment_path(&self, segment: u32) -> PathBuf {
        self.folder.path(segment)
    }

    /// Swaps in a segment that was rewritten, with fewer frames.
    pub(super) fn swapped(&self, segment: u32, keys: &[Key], freed: &Freed) {
        let mut sorted: Vec<u64> = keys.iter().map(Key::fingerprint).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut state = self.state.write();
        state.segments[segment as usize - 1] = Fingerprints::Closed(sorted);
        state
            .recent
            .retain(|_, location| location.segment != segment);
        state
            .waiting
            .retain(|(_, location)| location.segment != segment);
        state.blobs = state.blobs.saturating_sub(freed.blobs);
        state.blob_bytes = state.blob_bytes.saturating_sub(freed.bytes);
        state.flat_bytes = state.flat_bytes.saturating_sub(freed.flat_bytes);
        state.log_bytes = state.log_bytes.saturating_sub(freed.log_bytes);
        state.evictions = state.evictions.saturating_sub(freed.evictions);
        for hash in &freed.forgotten {
            state.damaged.remove(hash);
        }
        self.open.remove(&segment);
    }

    /// The oldest frames that the views may not know yet, at most about `max` keys.
    pub(super) fn waiting(&self, max: usize) -> Vec<(Vec<Key>, Location)> {
        let state = self.state.read();
        let mut count = 0;
        let few = |(keys, _): &&(Vec<Key>, Location)| {
            count += keys.len();
            count <= max
        };
        state.waiting.iter().take_while(few).cloned().collect()
    }

    /// Number of frames that the views may not know yet.
    pub(super) fn waiting_len(&self) -> usize {
        self.state.read().waiting.len()
    }

    /// Forgets the oldest frames, which the views know now.
    pub(super) fn viewed(&self, entries: &[(Vec<Key>, Location)]) {
        let mut state = self.state.write();
        for (keys, location) in entries {
            if state
                .waiting
                .front()
                .is_some_and(|(_, waiting)| waiting == location)
            {
                state.waiting.pop_front();
            }
            for key in keys {
                if state.recent.get(key) == Some(location) {
                    state.recent.remove(key);
                }
            }
        }
    }

    /// Fingerprints of every key of the log, sorted, none twice.
    pub(super) fn fingerprints(&self) -> Vec<u64> {
        let state = self.state.read();
        let mut all = Vec::new();
        for segment in &state.segments {
            match segment {
                Fingerprints::Open(set) => all.extend(set),
                Fingerprints::Closed(sorted) => all.extend(sorted),
            }
        }
        drop(state);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What a rewritten segment no longer holds.
#[derive(Debug, Default)]
pub(super) struct Freed {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    pub(super) flat_bytes: u64,
    pub(super) log_bytes: u64,
    /// Frames that said that a file was evicted.
    pub(super) evictions: u64,
    /// Blobs of which nothing is known any more.
    pub(super) forgotten: Vec<Blake3>,
}

/// An index that threads share.
pub(super) type SharedIndex = Arc<Index>;
