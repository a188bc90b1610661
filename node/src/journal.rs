//! Local state that must not be lost: an append-only, hash-chained journal, synced before an answer.
//!
//! Audit log and database are one thing. Every entry names the hash of the one before it, so that none can
//! be taken out or changed unseen. The journal is cut into segments; each begins with a snapshot of what
//! the entries before it add up to and with the hash of the last of them, so that a start reads one segment.

mod entry;

use std::path::Path;
use std::sync::Arc;

pub use entry::Entry;

use crate::files::Files;
use crate::store::StoreError;

/// The journal; cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<()>,
}

impl Journal {
    /// Opens (or makes) the journal in a folder, with the entries that make up its state, in order.
    ///
    /// An incomplete last frame is cut off; [`StoreError::Corrupt`] at any other bad one.
    pub fn open(_files: Arc<dyn Files>, _dir: &Path) -> Result<(Self, Vec<Entry>), StoreError> {
        todo!()
    }

    /// Adds an entry; durable on return.
    pub fn append(&self, _entry: Entry) -> Result<(), StoreError> {
        todo!()
    }
}
