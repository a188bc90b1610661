//! What a neighbour may send in a time.
//!
//! Each measure has an amount that honest nodes stay below; above it, frames are ignored, which
//! comparison makes up for. Who goes on at several times that is parted from. Records that this node
//! asked for are not counted.

use std::time::Duration;

use super::Reason;

/// What refills in a second, and what may come at once.
#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: u64,
    burst: u64,
}

const FRAMES: Rate = Rate {
    per_second: 500,
    burst: 5_000,
};
const RECORDS: Rate = Rate {
    per_second: 2_000,
    burst: 10_000,
};
const BYTES: Rate = Rate {
    per_second: 8 << 20,
    burst: 64 << 20,
};
/// Ids that are asked for or offered, and namespaces in summaries.
const IDS: Rate = Rate {
    per_second: 50_000,
    burst: 200_000,
};
/// Members of sets that are gone through to answer.
const WORK: Rate = Rate {
    per_second: 2_000_000,
    burst: 20_000_000,
};

/// How many times the rate a neighbour may go on at before it is parted from.
const FLOOD_RATE: u64 = 4;
/// How many times the burst it may send at once before it is parted from.
const FLOOD_BURST: u64 = 10;

/// A level that rises with time.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// In millionths.
    level: u64,
    at: Duration,
}

impl Bucket {
    const fn new(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            level: rate.burst * 1_000_000,
            at: now,
        }
    }

    /// Takes the cost, or as much as a full bucket has, where it is there.
    fn take(&mut self, now: Duration, cost: u64) -> bool {
        let passed = now.saturating_sub(self.at).as_micros();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        let full = self.rate.burst * 1_000_000;
        let risen = passed.saturating_mul(self.rate.per_second);
        self.level = self.level.saturating_add(risen).min(full);
        let cost = cost.min(self.rate.burst) * 1_000_000;
        let there = cost <= self.level;
        if there {
            self.level -= cost;
        }
        there
    }
}

/// One measure of what a neighbour sends.
#[derive(Debug)]
struct Meter {
    what: &'static str,
    honest: Bucket,
    flood: Bucket,
}

impl Meter {
    const fn new(what: &'static str, rate: Rate, now: Duration) -> Self {
        let flood = Rate {
            per_second: rate.per_second * FLOOD_RATE,
            burst: rate.burst * FLOOD_BURST,
        };
        Self {
            what,
            honest: Bucket::new(rate, now),
            flood: Bucket::new(flood, now),
        }
    }

    /// Whether so much is taken; an error where the neighbour floods.
    fn take(&mut self, now: Duration, cost: usize) -> Result<bool, Reason> {
        let cost = cost as u64;
        if self.flood.take(now, cost) {
            Ok(self.honest.take(now, cost))
        } else {
            Err(Reason::Flood(self.what))
        }
    }
}

/// All measures of one neighbour.
#[derive(Debug)]
pub(super) struct Budget {
    frames: Meter,
    records: Meter,
    bytes: Meter,
    ids: Meter,
    work: Meter,
}

impl Budget {
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            frames: Meter::new("frames", FRAMES, now),
            records: Meter::new("records that nobody asked for", RECORDS, now),
            bytes: Meter::new("bytes that nobody asked for", BYTES, now),
            ids: Meter::new("ids", IDS, now),
            work: Meter::new("comparisons of large sets", WORK, now),
        }
    }

    /// A frame, and those of its bytes that are not counted otherwise.
    pub(super) fn frame(&mut self, now: Duration, bytes: usize) -> Result<bool, Reason> {
        Ok(self.frames.take(now, 1)? & self.bytes.take(now, bytes)?)
    }

    pub(super) fn record(&mut self, now: Duration, bytes: usize) -> Result<bool, Reason> {
        Ok(self.records.take(now, 1)? & self.bytes.take(now, bytes)?)
    }

    pub(super) fn ids(&mut self, now: Duration, count: usize) -> Result<bool, Reason> {
        self.ids.take(now, count)
    }

    pub(super) fn work(&mut self, now: Duration, members: usize) -> Result<bool, Reason> {
        self.work.take(now, members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_sender_passes_a_fast_one_is_ignored_a_flooding_one_is_parted_from_in_ten_seconds() {
        let run = |per_second: u32, seconds: u32| -> Result<u32, (Reason, u32)> {
            let mut meter = Meter::new("frames", FRAMES, Duration::ZERO);
            let mut taken = 0;
            for index in 0..per_second * seconds {
                let now = Duration::from_secs(1) * index / per_second;
                match meter.take(now, 1) {
                    Ok(yes) => taken += u32::from(yes),
                    Err(reason) => return Err((reason, index / per_second)),
                }
            }
            Ok(taken)
        };
        assert_eq!(run(500, 60), Ok(30_000));
        let fast = run(1_000, 60).expect("ignored, not parted from");
        assert!((35_000 - 500..=35_000).contains(&fast), "{fast}");
        let (reason, second) = run(10_000, 60).expect_err("a flood");
        assert_eq!(reason, Reason::Flood("frames"));
        assert!(second < 10, "{second}");
    }
}
