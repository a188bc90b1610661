//! Keeps the views up with the log: one thread that writes to sled, so that nobody waits for it.
//!
//! What the views do not know yet stays in the index's memory. On the first trouble the views are given up
//! and made anew from the log, while answers come from the log itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::StoreError;
use super::facts::Said;
use super::index::{Index, Read, SharedIndex};
use super::key::Key;
use super::views::{Marker, Opened, Views, ViewsError};
use crate::files::segments::Location;

/// Keys that are written between two looks at whether the store is being closed.
const BATCH_KEYS: usize = 1_000;
/// Keys that are sorted in memory when the views are made anew; sled takes sorted ones much faster.
const SORTED_KEYS_MAX: usize = 500_000;
/// Keys behind the marker that are added one batch after the other; more are cheaper from the beginning.
const TAIL_KEYS_MAX: usize = 50_000;
/// Frames that wait in memory until they are written together.
const WAITING_KEYS: usize = 20_000;
/// Time after which even a few keys are written.
const LINGER: Duration = Duration::from_secs(5);
/// Times that the views may fail before the store does without them.
const FAILURES_MAX: u32 = 5;

/// Where the views are, while there are any.
///
/// Of its locks only `signal` may be held while the index's state is locked, and that only by the thread here.
#[derive(Debug)]
pub(super) struct ViewSlot {
    dir: PathBuf,
    cache_bytes: u64,
    /// The store does without views, from the beginning or after too much trouble.
    off: AtomicBool,
    current: RwLock<Option<Arc<Views>>>,
    signal: Mutex<Signal>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Signal {
    closing: bool,
    /// The log is being rewritten: views made now would not last.
    held: bool,
    /// Rises with each hold: views begun before it are out of date.
    holds: u64,
    /// Times that the views were to be made anew, and were.
    wanted: u64,
    made: u64,
    failures: u32,
}

impl ViewSlot {
    /// Without any views yet; `cache_bytes` of 0 does without them for good.
    pub(super) fn new(dir: PathBuf, cache_bytes: u64) -> Self {
        Self {
            dir,
            cache_bytes,
            off: AtomicBool::new(cache_bytes == 0),
            current: RwLock::default(),
            signal: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The views, where there are any now.
    pub(super) fn current(&self) -> Option<Arc<Views>> {
        self.current.read().clone()
    }

    /// Whether there are views, or will be again.
    pub(super) fn is_on(&self) -> bool {
        !self.off.load(Ordering::Acquire)
    }

    /// Says that there may be something to do, or something done.
    pub(super) fn notify(&self) {
        let _signal = self.signal.lock();
        self.changed.notify_all();
    }

    /// Waits until a condition holds, unless nobody works at it now.
    pub(super) fn wait_until(&self, holds: impl Fn() -> bool) {
        while !holds() {
            let mut signal = self.signal.lock();
            if !self.is_on() || signal.closing || signal.held {
                return;
            }
            self.changed.wait_for(&mut signal, LINGER);
        }
    }

    /// Gives views up that failed.
    pub(super) fn failed(&self, views: &Arc<Views>, error: &ViewsError) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(%error, cause, "the views failed: they are made anew from the log");
        self.give_up(views);
    }

    /// Gives views up that did not know a key that the log has.
    pub(super) fn lost(&self, views: &Arc<Views>, key: &Key) {
        tracing::warn!(
            ?key,
            "the views lost an entry: they are made anew from the log"
        );
        self.give_up(views);
    }

    fn give_up(&self, views: &Arc<Views>) {
        {
            let mut current = self.current.write();
            if !current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, views))
            {
                return;
            }
            *current = None;
        }
        let failures = {
            let mut signal = self.signal.lock();
            signal.failures += 1;
            signal.wanted += 1;
            signal.failures
        };
        if failures > FAILURES_MAX {
            tracing::error!("the views failed too often: going on without them, slowly");
            self.turn_off();
        }
        self.notify();
    }

    /// Has the views made anew, and waits for it.
    pub(super) fn rebuild(&self) {
        let wanted = {
            let mut signal = self.signal.lock();
            signal.wanted += 1;
            self.changed.notify_all();
            signal.wanted
        };
        self.wait_until(|| self.signal.lock().made >= wanted);
    }

    /// Removes the views, and makes none until [`Self::resume`].
    pub(super) fn suspend(&self) {
        {
            let mut signal = self.signal.lock();
            signal.held = true;
            signal.holds += 1;
        }
        *self.current.write() = None;
        if let Err(error) = Views::remove(&self.dir) {
            // What they say about frames that moved is found out when it is looked up.
            tracing::warn!(%error, "the old views could not be removed");
        }
    }

    /// Makes views again.
    pub(super) fn resume(&self) {
        let mut signal = self.signal.lock();
        signal.held = false;
        signal.wanted += 1;
        self.changed.notify_all();
    }

    fn turn_off(&self) {
        self.off.store(true, Ordering::Release);
        *self.current.write() = None;
    }

    /// Makes the views anew from the log, or does without them where even that fails.
    fn make(&self, index: &Index) {
        *self.current.write() = None;
        let (holds, wanted) = {
            let signal = self.signal.lock();
            (signal.holds, signal.wanted)
        };
        let made = make(index);
        let mut signal = self.signal.lock();
        match made {
            // The log was rewritten meanwhile, and the views are wanted anew when that is over.
            _ if signal.holds != holds => {}
            Ok(views) => *self.current.write() = Some(Arc::new(views)),
            Err(MakeError::Closing) => {}
            Err(error) => {
                tracing::error!(%error, "the views cannot be made: going on without them, slowly");
                self.turn_off();
            }
        }
        signal.made = wanted;
        self.changed.notify_all();
    }
}

/// What the log says beyond the views, gathered while the log is read at the start.
#[derive(Debug)]
pub(super) struct Replay {
    views: Option<(Views, Opened)>,
    passed_marker: bool,
    tail: Vec<(Vec<Key>, Location)>,
    tail_keys: usize,
    /// The views are not those of this log, or too far behind.
    useless: bool,
}

impl Replay {
    /// Opens the views of a slot, before the log is read.
    pub(super) fn begin(slot: &ViewSlot) -> Self {
        let mut views = None;
        if slot.is_on() {
            match Views::open(&slot.dir, slot.cache_bytes) {
                Ok(opened) => views = Some(opened),
                Err(error) => {
                    tracing::warn!(%error, "the views cannot be opened: they are made anew");
                }
            }
        }
        let marker = views.as_ref().and_then(|(_, opened)| opened.marker);
        Self {
            useless: views.is_none(),
            views,
            passed_marker: marker.is_none(),
            tail: Vec::new(),
            tail_keys: 0,
        }
    }

    /// Takes note of a frame of the log.
    pub(super) fn see(&mut self, keys: Vec<Key>, location: Location) {
        if self.useless || keys.is_empty() {
            return;
        }
        if self.passed_marker {
            self.tail_keys += keys.len();
            self.tail.push((keys, location));
            if self.tail_keys > TAIL_KEYS_MAX {
                self.useless = true;
                self.tail.clear();
            }
        } else if let Some((
            _,
            Opened {
                marker: Some(marker),
                ..
            },
        )) = &self.views
            && marker.location == location
        {
            self.passed_marker = true;
            self.useless = !keys.contains(&marker.key);
        }
    }

    /// Brings the views up to the log, or makes them anew.
    pub(super) fn finish(self, index: &Index) {
        if !index.views.is_on() {
            return;
        }
        if let Some((views, opened)) = self.views
            && !self.useless
            && self.passed_marker
        {
            let brought_up = write(&views, &self.tail)
                .and_then(|()| Ok(opened.clean || views.holds(index.fingerprints())?));
            match brought_up {
                Ok(true) => {
                    *index.views.current.write() = Some(Arc::new(views));
                    return;
                }
                Ok(false) => tracing::warn!("the views lack entries: they are made anew"),
                Err(error) => tracing::warn!(%error, "the views failed: they are made anew"),
            }
        }
        index.views.make(index);
    }
}

/// Adds frames of the log, then the marker behind them.
///
/// Sorted: sled takes neighbours faster, and keeps far less in memory of what it rewrites.
fn write(views: &Views, frames: &[(Vec<Key>, Location)]) -> Result<(), ViewsError> {
    let mut entries: Vec<(Key, Location)> = frames
        .iter()
        .flat_map(|(keys, location)| keys.iter().map(|key| (*key, *location)))
        .collect();
    // Stable, so that of several frames with one key the newest is added last.
    entries.sort_by_key(|(key, _)| *key);
    let marker = frames.iter().rev().find_map(|(keys, location)| {
        let key = *keys.first()?;
        let location = *location;
        Some(Marker { location, key })
    });
    views.add(&entries, marker.as_ref())
}

fn make(index: &Index) -> Result<Views, MakeError> {
    let started = Instant::now();
    let slot = &index.views;
    let views = Views::begin(&slot.dir, slot.cache_bytes)?;
    let mut entries: Vec<(Key, Location)> = Vec::new();
    let mut marker = None;
    let mut count = 0;
    for segment in 1..=index.last_segment() {
        index.each_frame(segment, &mut |read| {
            let Read::Frame(frame) = read else {
                return Ok(());
            };
            let Some(said) = Said::read(frame.kind, frame.payload) else {
                return Ok(());
            };
            let location = Location {
                segment,
                offset: frame.offset,
                len: frame.len(),
            };
            let keys = Key::of(&said);
            if let Some(key) = keys.first() {
                marker = Some(Marker {
                    location,
                    key: *key,
                });
            }
            entries.extend(keys.into_iter().map(|key| (key, location)));
            Ok(())
        })?;
        // Only whole segments, so that the marker never names a frame in the middle of what was added.
        if entries.len() >= SORTED_KEYS_MAX {
            count += add_sorted(slot, &views, &mut entries, marker)?;
        }
    }
    count += add_sorted(slot, &views, &mut entries, marker)?;
    tracing::info!(
        entries = count,
        seconds = started.elapsed().as_secs_f64(),
        "made the views"
    );
    Ok(views)
}

fn add_sorted(
    slot: &ViewSlot,
    views: &Views,
    entries: &mut Vec<(Key, Location)>,
    marker: Option<Marker>,
) -> Result<usize, MakeError> {
    // Stable, so that of several frames with one key the newest is added last.
    entries.sort_by_key(|(key, _)| *key);
    for some in entries.chunks(BATCH_KEYS) {
        if slot.signal.lock().closing {
            return Err(MakeError::Closing);
        }
        views.add(some, None)?;
    }
    views.add(&[], marker.as_ref())?;
    let count = entries.len();
    entries.clear();
    Ok(count)
}

#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    Views(#[from] ViewsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store is being closed")]
    Closing,
}

/// The thread; ends, with all written and marked clean, when this is dropped.
#[derive(Debug)]
pub(super) struct ViewKeeper {
    index: SharedIndex,
    thread: Option<JoinHandle<()>>,
}

impl ViewKeeper {
    /// Starts the thread, where there are views to be kept.
    pub(super) fn spawn(index: SharedIndex) -> std::io::Result<Self> {
        let mut thread = None;
        if index.views.is_on() {
            let shared = Arc::clone(&index);
            let builder = std::thread::Builder::new().name("view keeper".to_owned());
            thread = Some(builder.spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                    tracing::error!("the view keeper panicked: going on without views, slowly");
                    shared.views.turn_off();
                    shared.views.notify();
                }
            })?);
        }
        Ok(Self { index, thread })
    }
}

impl Drop for ViewKeeper {
    fn drop(&mut self) {
        self.index.views.signal.lock().closing = true;
        self.index.views.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the view keeper ended in a panic");
        }
    }
}

fn run(index: &Index) {
    let slot = &index.views;
    loop {
        let (closing, rebuild) = wait(index);
        if rebuild && slot.is_on() {
            slot.make(index);
        }
        let Some(views) = slot.current() else {
            if closing || !slot.is_on() {
                return;
            }
            continue;
        };
        loop {
            let frames = index.waiting(WAITING_KEYS);
            if frames.is_empty() {
                break;
            }
            match write(&views, &frames) {
                Ok(()) => index.viewed(&frames),
                Err(error) => {
                    slot.failed(&views, &error);
                    break;
                }
            }
            slot.notify();
        }
        if closing {
            // Frames may wait that failed to be written: then the next start counts.
            if index.waiting_len() == 0
                && let Err(error) = views.close()
            {
                tracing::warn!(%error, "the views were not closed in order");
            }
            return;
        }
    }
}

/// Waits for something to do: whether to close, and whether to make the views anew.
fn wait(index: &Index) -> (bool, bool) {
    let slot = &index.views;
    let mut signal = slot.signal.lock();
    loop {
        if signal.closing {
            return (true, false);
        }
        if !slot.is_on() {
            return (false, false);
        }
        if signal.made < signal.wanted && !signal.held {
            return (false, true);
        }
        let usable = slot.current.read().is_some() && !signal.held;
        if usable && index.waiting_len() > WAITING_KEYS / 2 {
            return (false, false);
        }
        if usable && index.waiting_len() > 0 {
            if slot.changed.wait_for(&mut signal, LINGER).timed_out() {
                return (signal.closing, false);
            }
        } else {
            slot.changed.wait(&mut signal);
        }
    }
}
