//! A limit in units a second, shared by all who take from it in the order they come.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What may be taken at once after a pause, as time.
const BURST: Duration = Duration::from_millis(250);

/// Hands out so many units a second.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    burst: Duration,
    /// When all that was taken is paid for.
    paid: Mutex<Instant>,
}

impl Rate {
    /// Units a second, at least one; a quarter of a second's worth may be taken at once.
    pub(super) fn new(per_second: u64) -> Self {
        Self::with_burst(per_second, BURST)
    }

    /// The same with another time's worth at once.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    pub(super) fn with_burst(per_second: u64, burst: Duration) -> Self {
        Self {
            per_second: per_second.max(1) as f64,
            burst,
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Takes units, and waits as long as those taken before need.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    pub(super) async fn take(&self, units: u64) {
        let price = Duration::from_secs_f64(units as f64 / self.per_second);
        let until = {
            let now = Instant::now();
            let mut paid = self.paid.lock();
            let from = (*paid).max(now);
            *paid = from + price;
            *paid - self.burst.min(paid.duration_since(now))
        };
        let mut waiting = Waiting { rate: self, price };
        tokio::time::sleep_until(until).await;
        waiting.price = Duration::ZERO;
    }
}

/// Gives back what was taken where its taker goes before its turn: or else who asks and goes, again and
/// again, would have all others wait.
struct Waiting<'a> {
    rate: &'a Rate,
    price: Duration,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.price.is_zero() {
            *self.rate.paid.lock() -= self.price;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_fits_the_rate_in_the_order_of_asking() {
        let rate = Rate::new(1_000);
        let start = Instant::now();
        for _ in 0..50 {
            rate.take(100).await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(4_745), "{took:?}");
        assert!(took <= Duration::from_millis(4_800), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_before_its_turn_has_taken_nothing() {
        let rate = Rate::new(1_000);
        let start = Instant::now();
        rate.take(1_000).await;
        for _ in 0..1_000 {
            let gone = tokio::time::timeout(Duration::from_millis(1), rate.take(1_000)).await;
            assert!(gone.is_err());
        }
        rate.take(1_000).await;
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_gives_no_more_than_the_burst() {
        let rate = Rate::new(1_000);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let start = Instant::now();
        rate.take(250).await;
        assert!(start.elapsed() < Duration::from_millis(5));
        rate.take(1_000).await;
        assert!(start.elapsed() >= Duration::from_millis(990));
    }
}
