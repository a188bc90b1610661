//! How many read each flat file: what is being read is not evicted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use cairn_protocol::hash::Blake3;
use parking_lot::Mutex;

/// From so many files on, those are forgotten that nobody has open.
const FILES_MAX: usize = 1_024;

/// Who reads one file; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Readers(Arc<AtomicUsize>);

/// Says that a file is being read, for as long as this lasts.
#[derive(Debug)]
#[must_use = "the file is being read only as long as this lasts"]
pub struct Reading(Readers);

impl Readers {
    pub(super) fn enter(&self) -> Reading {
        self.0.fetch_add(1, Ordering::AcqRel);
        Reading(self.clone())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All files that somebody has open.
#[derive(Debug, Default)]
pub(super) struct AllReaders(Mutex<HashMap<Blake3, Weak<AtomicUsize>>>);

impl AllReaders {
    /// Those of one file.
    pub(super) fn of(&self, hash: &Blake3) -> Readers {
        let mut files = self.0.lock();
        if let Some(readers) = files.get(hash).and_then(Weak::upgrade) {
            return Readers(readers);
        }
        if files.len() >= FILES_MAX {
            files.retain(|_, readers| readers.strong_count() > 0);
        }
        let readers = Readers::default();
        files.insert(*hash, Arc::downgrade(&readers.0));
        readers
    }

    pub(super) fn are_reading(&self, hash: &Blake3) -> bool {
        let readers = self.0.lock().get(hash).and_then(Weak::upgrade);
        readers.is_some_and(|readers| readers.load(Ordering::Acquire) > 0)
    }
}
