//! The download of one file from several providers: who is asked for which pieces.
//!
//! A state machine without clock or sockets. What a reader waits for goes first, else the lowest missing
//! piece. Each provider has one request of adjoining pieces under way, as long as it sends in about a
//! second; different providers are asked for different pieces. One that sends nothing for a while is left,
//! and asked again only for what nobody else offers; slow is not a fault. One that lied is asked no more.
//! At the end, and where a reader waits, an idle provider may fetch again what a much slower one is at: of
//! no piece are more than two copies under way.

mod provider;

#[cfg(test)]
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::key::PublicKey;
use crate::piece::PieceSet;
use provider::{Provider, Request};

/// Providers of one download; a further one takes the place of one that failed or lied, or is left out.
pub const PROVIDERS_MAX: usize = 256;
/// Requests of one download that are under way at once; a further provider waits its turn.
pub const REQUESTS_MAX: usize = 16;
/// Ranges that readers wait for at once; further ones are left out until others have come.
pub const WANTED_MAX: usize = 256;
/// Time without progress after which a provider is left.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a provider is left alone after it stalled.
pub const STALL_PAUSE: Duration = Duration::from_secs(30);
/// Time that a provider is left alone after it refused, or broke off before the first piece; doubled each
/// time until [`STALL_PAUSE`].
const REFUSAL_PAUSE: Duration = Duration::from_secs(2);
/// How many times faster a provider must be to fetch again what another is at.
const MUCH_FASTER: f64 = 3.0;
/// What is about to come within this time is not fetched again.
const WORTH_SECONDS: f64 = 0.2;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A provider offers these pieces (replaces what it offered before).
    Offer(PublicKey, PieceSet),
    /// A provider is gone, or has nothing any more; a request to it is over.
    Gone(PublicKey),
    /// A verified piece came from a provider.
    Piece(PublicKey, u64),
    /// A piece that was held is not here any more: it is fetched again.
    Lost(u64),
    /// Bytes of a piece came from a provider: enough to see that it moves.
    Moves(PublicKey),
    /// A provider's request ended: all sent, refused, or cut off. Not told of one that was abandoned.
    Ended(PublicKey),
    /// A provider sent bytes that do not verify; its request is over.
    Lied(PublicKey),
    /// Readers wait for these pieces, in this order; empty where for none.
    Wanted(Vec<Range<u64>>),
    /// Whether all of the file is to be fetched, or only what readers wait for; all from the beginning.
    Whole(bool),
    /// Time passed; tell it about once a second.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a provider for these pieces, in this order.
    Ask(PublicKey, Range<u64>),
    /// Cut a provider's request off: it made no progress, or all of it came from elsewhere.
    Abandon(PublicKey),
    /// Ask for more providers: none that can be asked now offers what is missing.
    Starving,
}

/// The download's state.
#[derive(Debug, Clone)]
pub struct Download {
    held: PieceSet,
    /// No piece below it is missing.
    lowest: u64,
    whole: bool,
    wanted: Vec<Range<u64>>,
    providers: BTreeMap<PublicKey, Provider>,
    requests_max: usize,
    seed: u64,
}

impl Download {
    /// Begins with what is held already; `seed` breaks ties among providers.
    pub fn new(held: PieceSet, seed: u64) -> Self {
        Self {
            held,
            lowest: 0,
            whole: true,
            wanted: Vec::new(),
            providers: BTreeMap::new(),
            requests_max: REQUESTS_MAX,
            seed,
        }
    }

    /// Allows at most so many requests at once from now on; never more than [`REQUESTS_MAX`].
    pub fn limit_requests(&mut self, max: usize) {
        self.requests_max = max.min(REQUESTS_MAX);
    }

    /// Takes an event in; `now` is monotonic.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Offer(key, offer) => self.offered(key, offer),
            Event::Gone(key) => {
                // Its failures are kept in mind, should it come back.
                if let Some(provider) = self.providers.get_mut(&key) {
                    provider.gone();
                }
                let forgettable = |provider: &Provider| provider.is_clean();
                if self.providers.get(&key).is_some_and(forgettable) {
                    self.providers.remove(&key);
                }
            }
            Event::Piece(key, index) => {
                self.held.insert(index);
                if let Some(provider) = self.providers.get_mut(&key) {
                    provider.progressed(now, index);
                }
                self.abandon_superseded(now, &mut actions);
                if actions.is_empty() {
                    // Nothing became free.
                    return actions;
                }
            }
            Event::Lost(index) => {
                self.held.remove(index);
                self.lowest = self.lowest.min(index);
            }
            Event::Moves(key) => {
                if let Some(provider) = self.providers.get_mut(&key) {
                    provider.moves(now);
                }
                return actions;
            }
            Event::Ended(key) => {
                if let Some(provider) = self.providers.get_mut(&key) {
                    provider.ended(now);
                }
            }
            Event::Lied(key) => {
                if let Some(provider) = self.providers.get_mut(&key) {
                    provider.lied();
                } else if self.providers.len() < PROVIDERS_MAX {
                    let mut provider = Provider::new(PieceSet::empty(0));
                    provider.lied();
                    self.providers.insert(key, provider);
                }
            }
            Event::Wanted(mut ranges) => {
                for range in &mut ranges {
                    range.end = range.end.min(self.held.count());
                }
                // Readers who have all they wait for take nobody's place.
                let missing =
                    |range: &Range<u64>| (range.clone()).any(|index| !self.held.contains(index));
                ranges.retain(missing);
                ranges.truncate(WANTED_MAX);
                self.wanted = ranges;
            }
            Event::Whole(whole) => self.whole = whole,
            Event::Tick => {
                for (key, provider) in &mut self.providers {
                    if provider.stalled(now) {
                        actions.push(Action::Abandon(*key));
                    }
                }
            }
        }
        self.assign(now, &mut actions);
        actions
    }

    /// What is held by now.
    pub fn held(&self) -> &PieceSet {
        &self.held
    }

    /// Providers that are asked for nothing now: what they offer is used up, or they are left alone.
    pub fn idle(&self) -> impl Iterator<Item = PublicKey> + '_ {
        let idle = |provider: &Provider| provider.request.is_none() && !provider.is_liar();
        (self.providers.iter()).filter_map(move |(key, provider)| idle(provider).then_some(*key))
    }

    /// Whether a provider lied.
    pub fn is_liar(&self, key: &PublicKey) -> bool {
        self.providers.get(key).is_some_and(Provider::is_liar)
    }

    /// Providers that are asked for something now.
    pub fn asked(&self) -> impl Iterator<Item = PublicKey> + '_ {
        let busy = |provider: &Provider| provider.request.is_some();
        (self.providers.iter()).filter_map(move |(key, provider)| busy(provider).then_some(*key))
    }

    /// Whether everything is here that is to be fetched now.
    pub fn is_satisfied(&self) -> bool {
        if self.whole {
            return self.held.is_full();
        }
        let missing = |range: &Range<u64>| range.clone().any(|index| !self.held.contains(index));
        !self.wanted.iter().any(missing)
    }

    fn offered(&mut self, key: PublicKey, offer: PieceSet) {
        if offer.count() != self.held.count() {
            return;
        }
        if let Some(provider) = self.providers.get_mut(&key) {
            provider.offer = offer;
            return;
        }
        if self.providers.len() >= PROVIDERS_MAX
            && let Some(gone) = self.forgettable()
        {
            self.providers.remove(&gone);
        }
        if self.providers.len() < PROVIDERS_MAX {
            self.providers.insert(key, Provider::new(offer));
        }
    }

    /// A provider of which nothing needs to be known but that it once failed; else one that failed and
    /// offers something; else a liar. Whoever fails under many names must not keep the others out.
    fn forgettable(&self) -> Option<PublicKey> {
        let rank = |provider: &Provider| match provider {
            _ if provider.request.is_some() => None,
            _ if provider.is_liar() => Some(2),
            _ if provider.offer.is_empty() => Some(0),
            _ if provider.is_shunned() => Some(1),
            _ => None,
        };
        let ranked = self.providers.iter();
        let ranked = ranked.filter_map(|(key, provider)| Some((rank(provider)?, *key)));
        ranked.min().map(|(_, key)| key)
    }

    /// Cuts off requests of which every piece came from elsewhere.
    fn abandon_superseded(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for (key, provider) in &mut self.providers {
            let Some(request) = &provider.request else {
                continue;
            };
            // One that sent them all is about to end by itself.
            let by_others = request.came < request.range.end - request.range.start;
            if by_others && request.range.clone().all(|index| self.held.contains(index)) {
                provider.superseded(now);
                actions.push(Action::Abandon(*key));
            }
        }
    }

    /// Gives every idle provider something to do, the fastest first.
    fn assign(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while self.held.contains(self.lowest) {
            self.lowest += 1;
        }
        let usable = |provider: &Provider| provider.request.is_none() && provider.may_be_asked(now);
        let mut idle: Vec<_> = (self.providers.iter())
            .filter(|(_, provider)| usable(provider))
            .map(|(key, provider)| (provider.rate, self.tie(key), *key))
            .collect();
        idle.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut busy = self.requests().count();
        for (_, _, key) in idle {
            if busy >= self.requests_max {
                break;
            }
            if let Some(range) = self.choose(now, &key) {
                let provider = self.providers.get_mut(&key);
                let provider = provider.expect("invariant: it was listed above");
                provider.ask(now, range.clone());
                actions.push(Action::Ask(key, range));
                busy += 1;
            }
        }
        if busy == 0 && !self.is_satisfied() {
            actions.push(Action::Starving);
        }
    }

    /// A provider's place among equals.
    fn tie(&self, key: &PublicKey) -> u64 {
        let bytes = match key {
            PublicKey::Ed25519(bytes) => &bytes[..],
            PublicKey::P256(bytes) => &bytes[..],
        };
        // FNV-1a: enough to spread nodes over providers.
        let start = 0xcbf2_9ce4_8422_2325 ^ self.seed;
        bytes.iter().fold(start, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// What an idle provider is to be asked for.
    fn choose(&self, now: Duration, key: &PublicKey) -> Option<Range<u64>> {
        let provider = &self.providers[key];
        let under_way: Vec<&Request> = self.requests().collect();
        let copies = |index: u64| {
            let of = |request: &&&Request| request.range.contains(&index);
            under_way.iter().filter(of).count()
        };
        let free = |index: u64| {
            !self.held.contains(index)
                && provider.offer.contains(index)
                && copies(index) == 0
                && (!provider.is_shunned() || !self.offered_by_better(now, index))
        };
        let len_max = provider.len_max();
        let file = self.lowest..self.held.count();
        let run = |start: u64, end: u64| {
            let end = end.min(start.saturating_add(len_max));
            start..(start..end).find(|index| !free(*index)).unwrap_or(end)
        };
        let mut starts = (self.wanted.iter()).filter_map(|range| {
            let start = range.clone().find(|index| free(*index))?;
            Some((start, range.end))
        });
        if let Some((start, wanted_end)) = starts.next() {
            // Longer than what is waited for only where nobody waits for something else.
            let first = run(start, wanted_end);
            let alone = starts.all(|(other, _)| first.contains(&other));
            let long = self.whole && alone;
            return Some(run(start, if long { file.end } else { wanted_end }));
        }
        // Pieces in a range that a much slower provider, and nobody else, is at.
        let double = |within: Range<u64>| {
            if provider.is_shunned() {
                return None;
            }
            let fits = |index: u64| {
                !self.held.contains(index)
                    && provider.offer.contains(index)
                    && within.contains(&index)
                    && copies(index) == 1
            };
            let slow = |request: &&&Request| {
                let rate = request.rate(now);
                rate * MUCH_FASTER < provider.rate && request.left() > rate * WORTH_SECONDS
            };
            under_way.iter().filter(slow).find_map(|request| {
                let start = request.range.clone().find(|index| fits(*index))?;
                let end = request.range.end.min(start + len_max);
                Some(start..(start..end).find(|index| !fits(*index)).unwrap_or(end))
            })
        };
        if let Some(range) = self.wanted.iter().cloned().find_map(double) {
            return Some(range);
        }
        if !self.whole {
            return None;
        }
        match file.clone().find(|index| free(*index)) {
            Some(start) => Some(run(start, file.end)),
            None => double(file),
        }
    }

    fn requests(&self) -> impl Iterator<Item = &Request> {
        (self.providers.values()).filter_map(|provider| provider.request.as_ref())
    }

    /// Whether a provider without a stain offers a piece.
    fn offered_by_better(&self, now: Duration, index: u64) -> bool {
        self.providers.values().any(|provider| {
            !provider.is_shunned() && provider.may_be_asked(now) && provider.offer.contains(index)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PIECE_BYTES;

    fn key(number: u8) -> PublicKey {
        PublicKey::Ed25519([number; 32])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn full(pieces: u64) -> PieceSet {
        PieceSet::full(pieces * PIECE_BYTES)
    }

    fn new(pieces: u64) -> Download {
        Download::new(PieceSet::empty(pieces * PIECE_BYTES), 0)
    }

    fn set(pieces: u64, of: impl IntoIterator<Item = u64>) -> PieceSet {
        let mut set = PieceSet::empty(pieces * PIECE_BYTES);
        for index in of {
            set.insert(index);
        }
        set
    }

    /// Sends all of a request at once.
    fn answer(
        download: &mut Download,
        now: Duration,
        key: PublicKey,
        range: Range<u64>,
    ) -> Vec<Action> {
        for index in range {
            assert_eq!(download.handle(now, Event::Piece(key, index)), []);
        }
        download.handle(now, Event::Ended(key))
    }

    #[test]
    fn many_that_lie_or_stall_do_not_keep_an_honest_one_out() {
        let many = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            PublicKey::Ed25519(bytes)
        };
        let mut download = new(10);
        for number in 0..PROVIDERS_MAX {
            download.handle(at(0), Event::Offer(many(number), full(10)));
            if number >= 6 {
                download.handle(at(0), Event::Lied(many(number)));
            }
        }
        download.handle(at(20), Event::Tick);
        assert_eq!(download.providers.len(), PROVIDERS_MAX);
        let honest = key(99);
        let mut asked = Vec::new();
        for second in 20..70 {
            let offer = Event::Offer(honest, full(10));
            asked.extend(download.handle(at(second), offer));
            asked.extend(download.handle(at(second), Event::Tick));
        }
        let is_asked = |action: &Action| matches!(action, Action::Ask(of, _) if *of == honest);
        assert!(asked.iter().any(is_asked), "{asked:?}");
    }

    #[test]
    fn a_request_grows_with_the_rate_and_is_bounded() {
        let mut download = new(1000);
        let mut actions = download.handle(at(0), Event::Offer(key(1), full(1000)));
        let mut lengths = Vec::new();
        for step in 1..=8 {
            let [Action::Ask(_, range)] = &actions[..] else {
                panic!("{actions:?}");
            };
            lengths.push(range.end - range.start);
            let now = Duration::from_millis(step * 10);
            actions = answer(&mut download, now, key(1), range.clone());
        }
        assert_eq!(lengths, [4, 8, 16, 32, 64, 64, 64, 64]);
    }

    #[test]
    fn a_slow_providers_request_stays_short() {
        let mut download = new(1000);
        let mut actions = download.handle(at(0), Event::Offer(key(1), full(1000)));
        for step in 1..=8 {
            assert!(
                matches!(&actions[..], [Action::Ask(_, range)] if range.end - range.start == 4)
            );
            let Action::Ask(_, range) = actions.remove(0) else {
                unreachable!()
            };
            actions = answer(&mut download, at(step * 40), key(1), range);
        }
    }

    #[test]
    fn what_a_reader_waits_for_is_asked_first_and_the_file_goes_on_from_there() {
        let mut download = new(100);
        assert_eq!(
            download.handle(at(0), Event::Wanted(vec![90..92, 50..51])),
            [Action::Starving]
        );
        let actions = download.handle(at(0), Event::Offer(key(1), full(100)));
        assert_eq!(actions, [Action::Ask(key(1), 90..92)]);
        let actions = answer(&mut download, at(1), key(1), 90..92);
        assert_eq!(actions, [Action::Ask(key(1), 50..54)]);
        let actions = answer(&mut download, at(2), key(1), 50..54);
        assert_eq!(actions, [Action::Ask(key(1), 0..4)]);
    }

    #[test]
    fn a_piece_that_is_lost_is_fetched_again_for_who_waits_for_it() {
        let mut download = new(100);
        download.handle(at(0), Event::Whole(false));
        download.handle(at(0), Event::Wanted(std::iter::once(5..6).collect()));
        let actions = download.handle(at(0), Event::Offer(key(1), full(100)));
        assert_eq!(actions, [Action::Ask(key(1), 5..6)]);
        assert_eq!(answer(&mut download, at(1), key(1), 5..6), []);
        assert!(download.is_satisfied());
        let actions = download.handle(at(2), Event::Lost(5));
        assert_eq!(actions, [Action::Ask(key(1), 5..6)]);
    }

    #[test]
    fn readers_who_have_what_they_wait_for_take_no_place() {
        let mut download = Download::new(set(1000, 0..999), 0);
        download.handle(at(0), Event::Whole(false));
        download.handle(at(0), Event::Offer(key(1), full(1000)));
        let mut wanted: Vec<_> = (0..999).map(|index| index..index + 1).collect();
        wanted.push(999..1000);
        let actions = download.handle(at(0), Event::Wanted(wanted));
        assert_eq!(actions, [Action::Ask(key(1), 999..1000)]);
    }

    #[test]
    fn of_a_file_that_is_not_wanted_whole_only_what_readers_wait_for_is_asked() {
        let mut download = new(100);
        download.handle(at(0), Event::Whole(false));
        assert_eq!(download.handle(at(0), Event::Offer(key(1), full(100))), []);
        assert!(download.is_satisfied());
        let actions = download.handle(at(0), Event::Wanted(vec![98..99, 99..200]));
        assert_eq!(actions, [Action::Ask(key(1), 98..99)]);
        let actions = answer(&mut download, at(1), key(1), 98..99);
        assert_eq!(actions, [Action::Ask(key(1), 99..100)]);
        assert_eq!(answer(&mut download, at(1), key(1), 99..100), []);
        assert!(download.is_satisfied());
        let actions = download.handle(at(1), Event::Whole(true));
        assert_eq!(actions, [Action::Ask(key(1), 0..4)]);
    }

    #[test]
    fn two_providers_are_asked_for_different_pieces() {
        let mut download = new(100);
        let first = download.handle(at(0), Event::Offer(key(1), full(100)));
        let second = download.handle(at(0), Event::Offer(key(2), full(100)));
        assert_eq!(first, [Action::Ask(key(1), 0..4)]);
        assert_eq!(second, [Action::Ask(key(2), 4..8)]);
    }

    #[test]
    fn one_without_progress_is_left_and_asked_again_only_for_what_nobody_else_has() {
        let mut download = new(8);
        download.handle(at(0), Event::Offer(key(1), full(8)));
        assert_eq!(download.handle(at(14), Event::Tick), []);
        let actions = download.handle(at(15), Event::Tick);
        assert_eq!(actions, [Action::Abandon(key(1)), Action::Starving]);
        assert_eq!(download.handle(at(44), Event::Tick), [Action::Starving]);
        download.handle(at(44), Event::Offer(key(2), set(8, 0..7)));
        // The other one is at the first pieces, and offers all but the last.
        assert_eq!(
            download.handle(at(45), Event::Tick),
            [Action::Ask(key(1), 7..8)]
        );
    }

    #[test]
    fn a_slow_one_is_not_left() {
        let mut download = new(4);
        download.handle(at(0), Event::Offer(key(1), full(4)));
        for piece in 0..4 {
            for second in 0..14 {
                assert_eq!(download.handle(at(piece * 14 + second), Event::Tick), []);
            }
            download.handle(at(piece * 14 + 14), Event::Piece(key(1), piece));
        }
        download.handle(at(56), Event::Ended(key(1)));
        assert!(download.is_satisfied());
    }

    #[test]
    fn one_that_needs_long_for_a_piece_is_not_left_as_long_as_it_moves() {
        let mut download = new(4);
        download.handle(at(0), Event::Offer(key(1), full(4)));
        for second in 1..100 {
            if second % 10 == 0 {
                assert_eq!(download.handle(at(second), Event::Moves(key(1))), []);
            }
            assert_eq!(download.handle(at(second), Event::Tick), []);
        }
        assert_eq!(
            download.handle(at(105), Event::Tick),
            [Action::Abandon(key(1)), Action::Starving]
        );
    }

    #[test]
    fn a_liar_is_never_asked_again() {
        let mut download = new(8);
        download.handle(at(0), Event::Offer(key(1), full(8)));
        assert_eq!(
            download.handle(at(1), Event::Lied(key(1))),
            [Action::Starving]
        );
        assert_eq!(
            download.handle(at(2), Event::Gone(key(1))),
            [Action::Starving]
        );
        let again = download.handle(at(900), Event::Offer(key(1), full(8)));
        assert_eq!(again, [Action::Starving]);
        assert!(download.is_liar(&key(1)));
    }

    #[test]
    fn at_the_end_a_much_faster_one_fetches_what_a_slow_one_is_at() {
        let mut download = new(8);
        download.handle(at(0), Event::Offer(key(1), full(8)));
        download.handle(at(0), Event::Offer(key(2), full(8)));
        let now = at(3);
        for index in 4..8 {
            download.handle(now / 100, Event::Piece(key(2), index));
        }
        assert_eq!(download.handle(now / 100, Event::Ended(key(2))), []);
        assert_eq!(
            download.handle(now, Event::Tick),
            [Action::Ask(key(2), 0..4)]
        );
        for index in 0..3 {
            assert_eq!(download.handle(now, Event::Piece(key(2), index)), []);
        }
        let last = download.handle(now, Event::Piece(key(2), 3));
        assert_eq!(last, [Action::Abandon(key(1))]);
    }
}
