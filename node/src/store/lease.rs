//! Who adds to the store, and who must be alone with it.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Counts who adds, and keeps them apart from who sweeps.
#[derive(Debug, Default)]
pub(super) struct Leases {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    leases: u64,
    exclusive: bool,
    /// How often somebody was alone so far.
    sweeps: u64,
}

impl Leases {
    /// Waits while somebody is alone with the store.
    ///
    /// Not for those who wait to be alone: whoever has a lease may need another one to finish.
    pub(super) fn lease(leases: &Arc<Self>) -> Lease {
        let mut state = leases.state.lock();
        while state.exclusive {
            leases.changed.wait(&mut state);
        }
        state.leases += 1;
        drop(state);
        Lease {
            leases: Arc::clone(leases),
        }
    }

    /// How often somebody was alone so far; stays the same while one has a lease.
    pub(super) fn sweeps(&self) -> u64 {
        self.state.lock().sweeps
    }

    /// Waits until nobody has a lease, and nobody else is alone with the store.
    pub(super) fn exclusive(leases: &Arc<Self>) -> Alone {
        let mut state = leases.state.lock();
        while state.exclusive || state.leases > 0 {
            leases.changed.wait(&mut state);
        }
        state.exclusive = true;
        state.sweeps += 1;
        drop(state);
        Alone {
            leases: Arc::clone(leases),
        }
    }
}

/// Keeps what is stored from being swept, from the first import of a push to its head.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<Leases>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.state.lock().leases -= 1;
        self.leases.changed.notify_all();
    }
}

/// Nobody has a lease while this is held.
#[derive(Debug)]
pub(super) struct Alone {
    leases: Arc<Leases>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.leases.state.lock().exclusive = false;
        self.leases.changed.notify_all();
    }
}
