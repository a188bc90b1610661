//! What a connection waits for, and since when.
//!
//! One timer a connection looks at it, so that a request itself touches no timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::metrics;
use crate::sendfile::Watch;

/// The head of a request is awaited: since the accept, or since its first byte came.
const HEAD: u8 = 0;
/// A handler works on a request.
const WORK: u8 = 1;
/// The last answer was given to hyper; it may still be on its way to the peer.
const REST: u8 = 2;

/// What to do with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this.
    CheckAt(Instant),
    /// Close it, for this reason.
    Close(&'static str),
}

/// The state of one connection, told by its stream and its service, read by its timer.
pub(super) struct Activity {
    start: Instant,
    phase: AtomicU8,
    /// Milliseconds from `start` at which the present wait began.
    since_ms: AtomicU64,
    /// Whether the peer takes nothing at the moment.
    blocked: AtomicBool,
    header_timeout: Duration,
    keep_alive_timeout: Duration,
}

impl Activity {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            start: Instant::now(),
            phase: AtomicU8::new(HEAD),
            since_ms: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            header_timeout: config.header_timeout,
            keep_alive_timeout: config.keep_alive_timeout,
        }
    }

    /// When to look for the first time.
    pub(super) fn first_check(&self) -> Instant {
        self.start + self.header_timeout
    }

    /// A request's head is whole; its handler works until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Answering {
        self.phase.store(WORK, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// Whether the connection has waited too long.
    pub(super) fn check(&self, now: Instant) -> Verdict {
        let since = self.start + Duration::from_millis(self.since_ms.load(Ordering::Relaxed));
        let (end, reason) = match self.phase.load(Ordering::Relaxed) {
            HEAD => (since + self.header_timeout, "the request's head was slow"),
            REST if !self.blocked.load(Ordering::Relaxed) => {
                (since + self.keep_alive_timeout, "no further request")
            }
            _ => return Verdict::CheckAt(now + self.shortest()),
        };
        if end <= now {
            return Verdict::Close(reason);
        }
        // A resting connection may begin a head at once, whose end is nearer than that of the rest.
        Verdict::CheckAt(end.min(now + self.shortest()))
    }

    fn shortest(&self) -> Duration {
        self.header_timeout.min(self.keep_alive_timeout)
    }

    fn mark(&self) {
        let elapsed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(elapsed_ms, Ordering::Relaxed);
    }
}

/// While it lives a handler works on a request.
pub(super) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.mark();
        self.0.phase.store(REST, Ordering::Relaxed);
    }
}

impl Watch for Arc<Activity> {
    fn received(&self, _bytes: usize) {
        let resting = self.phase.load(Ordering::Relaxed) == REST;
        if resting && !self.blocked.load(Ordering::Relaxed) {
            self.mark();
            self.phase.store(HEAD, Ordering::Relaxed);
        }
    }

    fn sent(&self, bytes: usize) {
        self.blocked.store(false, Ordering::Relaxed);
        // Small answers are marked when they are handed to hyper; of a large one TLS sends little at a time.
        if bytes >= 16 << 10 {
            self.mark();
        }
        metrics::sent(bytes);
    }

    fn blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity() -> (Arc<Activity>, Instant) {
        let activity = Arc::new(Activity::new(&Config {
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_mins(1),
            ..Config::default()
        }));
        let start = activity.start;
        (activity, start)
    }

    #[test]
    fn a_slow_head_is_closed_and_a_working_handler_is_not() {
        let (activity, start) = activity();
        activity.received(1);
        let late = start + Duration::from_secs(11);
        assert!(matches!(activity.check(late), Verdict::Close(_)));
        let answering = activity.request();
        let hours = start + Duration::from_hours(2);
        assert!(matches!(activity.check(hours), Verdict::CheckAt(_)));
        drop(answering);
        assert!(matches!(activity.check(hours), Verdict::Close(_)));
    }

    #[test]
    fn a_rest_is_longer_than_a_head_and_ends_with_the_next_byte() {
        let (activity, start) = activity();
        drop(activity.request());
        let rested = start + Duration::from_secs(30);
        assert!(matches!(activity.check(rested), Verdict::CheckAt(_)));
        activity.received(1);
        assert!(matches!(activity.check(rested), Verdict::Close(_)));
    }

    #[test]
    fn a_reader_that_is_behind_is_left_to_the_kernel() {
        let (activity, start) = activity();
        drop(activity.request());
        activity.blocked();
        let hours = start + Duration::from_hours(2);
        assert!(matches!(activity.check(hours), Verdict::CheckAt(_)));
        activity.sent(1 << 20);
        assert!(matches!(activity.check(hours), Verdict::Close(_)));
    }
}
