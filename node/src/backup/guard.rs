//! Whether this home may sign: not after it was restored from a backup, until it has met somebody who may
//! know what it signed since (design §3).

use std::sync::Arc;

use parking_lot::Mutex;

use crate::journal::{Entry, Journal};
use crate::store::StoreError;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    /// When the backup was begun, in seconds since the Unix epoch; nothing where the home may sign.
    backup: Arc<Mutex<Option<u64>>>,
}

impl Guard {
    /// Takes over what a journal entry says; whether it was about this.
    pub(crate) fn take(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Restored { backup } => *self.backup.lock() = Some(*backup),
            Entry::CaughtUp => *self.backup.lock() = None,
            _ => return false,
        }
        true
    }

    /// When the backup was begun that this node was restored from, if it has caught up with nobody since.
    pub(crate) fn restored(&self) -> Option<u64> {
        *self.backup.lock()
    }

    /// All that a peer has is here. Blocking.
    pub(crate) fn caught_up(&self, journal: &Journal) -> Result<(), StoreError> {
        let mut backup = self.backup.lock();
        if backup.is_some() {
            journal.append(Entry::CaughtUp)?;
            *backup = None;
        }
        Ok(())
    }
}
