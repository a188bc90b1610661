//! When each flat file was last asked for: what a cache that must make room goes by.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_protocol::hash::Blake3;
use parking_lot::Mutex;

use super::View;

/// The view that outlives the process, as long as it lasts.
pub(super) const USES_VIEW: &str = "uses";
/// Milliseconds by which the view may lag behind: it is not written for every use.
const VIEW_LAG_MS: u64 = 60_000;

/// The last use of each flat file that was used since the start.
#[derive(Debug)]
pub(super) struct Uses {
    view: View,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last time that was given out.
    last: u64,
    /// Last use, and what of it the view has.
    uses: HashMap<Blake3, (u64, u64)>,
}

impl Uses {
    pub(super) fn new(view: View) -> Self {
        Self {
            view,
            state: Mutex::default(),
        }
    }

    /// Takes note of a use: later than every one before.
    pub(super) fn note(&self, hash: &Blake3) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| {
                u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
            });
        let mut state = self.state.lock();
        let time = now.max(state.last + 1);
        state.last = time;
        let (last, viewed) = state.uses.entry(*hash).or_default();
        *last = time;
        if time - *viewed < VIEW_LAG_MS {
            return;
        }
        *viewed = time;
        drop(state);
        self.view.put(hash.as_bytes(), &time.to_le_bytes());
    }

    pub(super) fn last(&self, hash: &Blake3) -> u64 {
        if let Some((last, _)) = self.state.lock().uses.get(hash) {
            return *last;
        }
        let value = self.view.get(hash.as_bytes());
        value
            .and_then(|value| Some(u64::from_le_bytes(value.try_into().ok()?)))
            .unwrap_or(0)
    }

    /// Drops what is known of a file that is gone.
    pub(super) fn forget(&self, hash: &Blake3) {
        self.state.lock().uses.remove(hash);
    }
}
