//! The thread that makes partial files durable in steps, so that who writes pieces seldom waits for the disk.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::state::State;

/// Time after which even one piece is made durable.
const LINGER: Duration = Duration::from_secs(1);

/// Files of which pieces came since their last step: at most all that are open.
#[derive(Debug, Default)]
pub(super) struct Work {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    due: Vec<(Instant, Arc<State>)>,
    closing: bool,
}

impl Work {
    /// Asks for a step: at once, or within [`LINGER`].
    pub(super) fn add(&self, state: &Arc<State>, at_once: bool) {
        let now = Instant::now();
        let due = if at_once { now } else { now + LINGER };
        let mut queue = self.queue.lock();
        match queue
            .due
            .iter_mut()
            .find(|(_, queued)| Arc::ptr_eq(queued, state))
        {
            Some((queued_due, _)) if *queued_due <= due => return,
            Some((queued_due, _)) => *queued_due = due,
            None => queue.due.push((due, Arc::clone(state))),
        }
        self.changed.notify_one();
    }

    /// The next file that is due; nothing when the store is closed and none is left.
    fn next(&self) -> Option<Arc<State>> {
        let mut queue = self.queue.lock();
        loop {
            let first = (0..queue.due.len()).min_by_key(|at| queue.due[*at].0);
            match first {
                Some(at) if queue.closing || queue.due[at].0 <= Instant::now() => {
                    return Some(queue.due.swap_remove(at).1);
                }
                Some(at) => {
                    let due = queue.due[at].0;
                    self.changed.wait_until(&mut queue, due);
                }
                None if queue.closing => return None,
                None => self.changed.wait(&mut queue),
            }
        }
    }
}

/// The thread; ends, with all pieces durable, when this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn spawn(work: Arc<Work>) -> std::io::Result<Self> {
        let shared = Arc::clone(&work);
        let thread = std::thread::Builder::new()
            .name("partial files".to_owned())
            .spawn(move || {
                while let Some(state) = shared.next() {
                    if let Err(error) = state.step() {
                        // The pieces stay; a later step, or the next start, takes note of them.
                        tracing::warn!(?state, %error, "pieces could not be noted as durable");
                    }
                }
            })?;
        Ok(Self {
            work,
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.work.queue.lock().closing = true;
        self.work.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps partial files ended in a panic");
        }
    }
}
