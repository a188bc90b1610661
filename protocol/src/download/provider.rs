//! What a download knows of one provider.

use std::ops::Range;
use std::time::Duration;

use super::{REFUSAL_PAUSE, STALL_PAUSE, STALL_TIMEOUT};
use crate::piece::PieceSet;

/// Pieces of a provider's first request.
const FIRST_PIECES: u64 = 4;
/// Pieces of the longest request: a reader that turns elsewhere waits for no more than these.
pub(super) const REQUEST_PIECES_MAX: u64 = 64;
/// How long a request is meant to take.
const REQUEST_SECONDS: f64 = 1.0;
/// Below this no rate is told: a clock that stands still says nothing.
const MEASURED_SECONDS_MIN: f64 = 0.001;

/// One provider.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub(super) offer: PieceSet,
    pub(super) request: Option<Request>,
    /// Pieces a second, over its latest requests; 0 where none was answered.
    pub(super) rate: f64,
    /// Pieces of its last request, which bound the next one.
    last_len: u64,
    standing: Standing,
}

/// What its past allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Clean,
    /// Not asked before `until`, and then only for what nobody else offers, until it sends a piece.
    Shunned {
        until: Duration,
        pause: Duration,
    },
    Liar,
}

/// A request under way.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) range: Range<u64>,
    /// Pieces of it that came from the provider itself.
    pub(super) came: u64,
    since: Duration,
    progress: Duration,
}

impl Request {
    /// Pieces a second so far; as if the next one came now, so that a stall shows.
    pub(super) fn rate(&self, now: Duration) -> f64 {
        measured(self.came + 1, now.saturating_sub(self.since))
    }

    /// Pieces that are still to come.
    pub(super) fn left(&self) -> f64 {
        count((self.range.end - self.range.start).saturating_sub(self.came))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a request has few pieces")]
fn count(pieces: u64) -> f64 {
    pieces as f64
}

fn measured(pieces: u64, time: Duration) -> f64 {
    count(pieces) / time.as_secs_f64().max(MEASURED_SECONDS_MIN)
}

impl Provider {
    pub(super) fn new(offer: PieceSet) -> Self {
        Self {
            offer,
            request: None,
            rate: 0.0,
            last_len: 0,
            standing: Standing::Clean,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.standing == Standing::Clean
    }

    pub(super) fn is_liar(&self) -> bool {
        self.standing == Standing::Liar
    }

    pub(super) fn is_shunned(&self) -> bool {
        matches!(self.standing, Standing::Shunned { .. })
    }

    pub(super) fn may_be_asked(&self, now: Duration) -> bool {
        match self.standing {
            Standing::Clean => true,
            Standing::Shunned { until, .. } => now >= until,
            Standing::Liar => false,
        }
    }

    /// Pieces of its next request, at most.
    pub(super) fn len_max(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is positive, and the number is clamped below"
        )]
        let by_rate = (self.rate * REQUEST_SECONDS) as u64;
        // Not more than doubled: one burst from a buffer is no rate.
        let grown = (self.last_len * 2).max(FIRST_PIECES);
        by_rate.clamp(FIRST_PIECES, REQUEST_PIECES_MAX).min(grown)
    }

    pub(super) fn ask(&mut self, now: Duration, range: Range<u64>) {
        self.last_len = range.end - range.start;
        self.request = Some(Request {
            range,
            came: 0,
            since: now,
            progress: now,
        });
    }

    pub(super) fn progressed(&mut self, now: Duration, index: u64) {
        if self.is_shunned() {
            self.standing = Standing::Clean;
        }
        if let Some(request) = &mut self.request
            && request.range.contains(&index)
        {
            request.came += 1;
            request.progress = now;
        }
    }

    pub(super) fn moves(&mut self, now: Duration) {
        if let Some(request) = &mut self.request {
            request.progress = now;
        }
    }

    pub(super) fn ended(&mut self, now: Duration) {
        let Some(request) = self.request.take() else {
            return;
        };
        if request.came == 0 {
            let pause = match self.standing {
                Standing::Shunned { pause, .. } => (pause * 2).min(STALL_PAUSE),
                _ => REFUSAL_PAUSE,
            };
            self.shun(now, pause);
        } else {
            self.measure(now, &request);
        }
    }

    /// What it was asked for came from elsewhere: no fault of its own.
    pub(super) fn superseded(&mut self, now: Duration) {
        if let Some(request) = self.request.take() {
            self.measure(now, &request);
        }
    }

    fn measure(&mut self, now: Duration, request: &Request) {
        let rate = measured(request.came, now.saturating_sub(request.since));
        self.rate = if self.rate > 0.0 {
            f64::midpoint(self.rate, rate)
        } else {
            rate
        };
    }

    /// Whether its request was just given up.
    pub(super) fn stalled(&mut self, now: Duration) -> bool {
        let stalled = |request: &Request| now.saturating_sub(request.progress) >= STALL_TIMEOUT;
        if !self.request.as_ref().is_some_and(stalled) {
            return false;
        }
        self.request = None;
        self.shun(now, STALL_PAUSE);
        true
    }

    fn shun(&mut self, now: Duration, pause: Duration) {
        if !self.is_liar() {
            let until = now.saturating_add(pause);
            self.standing = Standing::Shunned { until, pause };
        }
        self.rate = 0.0;
        self.last_len = 0;
    }

    pub(super) fn gone(&mut self) {
        self.request = None;
        self.offer = PieceSet::empty(0);
    }

    pub(super) fn lied(&mut self) {
        self.gone();
        self.standing = Standing::Liar;
    }
}
