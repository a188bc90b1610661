//! How fast frames are taken from one peer: a token bucket of frames and of bytes.

use std::time::{Duration, Instant};

/// Frames a second that are taken from one peer in the long run; it waits at more.
const FRAMES_RATE: f64 = 200.0;
/// Frames that are taken at once after a quiet time.
const FRAMES_BURST: f64 = 2_000.0;
/// Bytes a second that are taken from one peer in the long run; it waits at more.
const BYTES_RATE: f64 = 4.0 * 1024.0 * 1024.0;
/// Bytes that are taken at once after a quiet time.
const BYTES_BURST: f64 = 32.0 * 1024.0 * 1024.0;

/// What a peer may still send now.
#[derive(Debug)]
pub(super) struct Pace {
    frames: f64,
    bytes: f64,
    at: Instant,
}

impl Pace {
    /// A peer that was quiet until now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            frames: FRAMES_BURST,
            bytes: BYTES_BURST,
            at: now,
        }
    }

    /// Takes a frame off, and says how long to read nothing further.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a frame's size is far below where a float loses bytes"
    )]
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.frames = (self.frames + passed * FRAMES_RATE).min(FRAMES_BURST) - 1.0;
        self.bytes = (self.bytes + passed * BYTES_RATE).min(BYTES_BURST) - bytes as f64;
        let debt = (-self.frames / FRAMES_RATE).max(-self.bytes / BYTES_RATE);
        Duration::from_secs_f64(debt.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_is_slowed_to_the_rate() {
        let start = Instant::now();
        let mut now = start;
        let mut pace = Pace::new(now);
        for _ in 0..2_000 {
            assert_eq!(pace.take(now, 100), Duration::ZERO);
        }
        for _ in 0..1_000 {
            now += pace.take(now, 100);
        }
        let seconds = (now - start).as_secs_f64();
        assert!((4.9..5.1).contains(&seconds), "{seconds}");
        now += Duration::from_hours(1);
        assert_eq!(
            pace.take(now, 32 << 20),
            Duration::ZERO,
            "the burst is back"
        );
        assert_eq!(pace.take(now, 4 << 20), Duration::from_secs(1));
    }
}
