//! One download, as those who wait for it and the one who drives it share it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::PublicKey;
use cairn_protocol::piece::PieceSet;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::claims::Claimed;
use super::{FetchError, Transfer};
use crate::store::{Claim, Digests, Partial, Reading};
use crate::swarm::peer_id;

/// Claims of one download that are judged with it; who comes with a further one waits for its end.
const CLAIMS_MAX: usize = 64;
/// Weight of the time since the last tick in the rate that is shown.
const RATE_WEIGHT: f64 = 0.1;

/// One download.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) hash: Blake3,
    pub(super) size: u64,
    /// Who asked first.
    pub(super) first: Claimed,
    state: Mutex<State>,
    /// Something came that readers may wait for.
    pub(super) changed: Notify,
    /// Readers came, went, or turned elsewhere.
    pub(super) attention: Notify,
    /// The driver is done with it; another download of the same hash may begin.
    pub(super) ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    /// Nobody can join any more.
    closing: bool,
    arrivings: usize,
    finishers: usize,
    readers: u64,
    wants: BTreeMap<u64, Range<u64>>,
    claims: Vec<Claimed>,
    verdicts: Vec<(Claim, &'static str)>,
    partial: Option<Partial>,
    reading: Option<Reading>,
    /// Verified pieces that are not written yet.
    memory: HashMap<u64, Arc<InMemory>>,
    done: u64,
    network: u64,
    rate: Rate,
    peers: Vec<PublicKey>,
}

#[derive(Debug, Clone, Default)]
pub(super) enum Stage {
    #[default]
    Waiting,
    Running,
    Stored(Digests),
    Failed(FetchError),
}

/// A piece between network and disk.
#[derive(Debug)]
pub(super) struct InMemory {
    pub(super) index: u64,
    pub(super) parts: Vec<Bytes>,
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// Where a piece can be had now.
#[derive(Debug)]
pub(super) enum Where {
    Memory(Arc<InMemory>),
    Partial(Partial),
    Stored(Digests),
    Failed(FetchError),
    Nowhere,
}

#[derive(Debug, Default)]
struct Rate {
    at: Option<Instant>,
    network: u64,
    bytes_a_second: f64,
}

impl Entry {
    /// What room is made for.
    pub(super) fn wanted(&self) -> crate::cache::Wanted {
        crate::cache::Wanted {
            repository: self.first.repository,
            hash: self.hash,
            size: self.size,
        }
    }

    pub(super) fn new(hash: Blake3, size: u64, first: Claimed) -> Arc<Self> {
        let state = State {
            arrivings: 1,
            claims: vec![first.clone()],
            ..State::default()
        };
        Arc::new(Self {
            hash,
            size,
            first,
            state: Mutex::new(state),
            changed: Notify::new(),
            attention: Notify::new(),
            ended: CancellationToken::new(),
        })
    }

    /// Adds one who waits; false where the download is about to end.
    pub(super) fn join(&self, claimed: &Claimed) -> bool {
        let mut state = self.state.lock();
        let known = state.claims.contains(claimed);
        if state.closing || (!known && state.claims.len() >= CLAIMS_MAX) {
            return false;
        }
        if !known {
            state.claims.push(claimed.clone());
        }
        state.arrivings += 1;
        true
    }

    /// Adds one beside one that waits already.
    pub(super) fn join_again(&self) {
        self.state.lock().arrivings += 1;
    }

    /// One who waits is gone.
    pub(super) fn leave(&self, reader: u64) {
        let mut state = self.state.lock();
        state.arrivings -= 1;
        state.wants.remove(&reader);
        drop(state);
        self.attention.notify_one();
    }

    /// A number for a reader.
    pub(super) fn reader(&self) -> u64 {
        let mut state = self.state.lock();
        state.readers += 1;
        state.readers
    }

    /// A reader waits for these pieces.
    pub(super) fn want(&self, reader: u64, pieces: Range<u64>) {
        let mut state = self.state.lock();
        let before = state.wants.insert(reader, pieces.clone());
        drop(state);
        if before.is_none_or(|before| before != pieces) {
            self.attention.notify_one();
        }
    }

    /// Somebody wants all of it from now on, or no more.
    pub(super) fn finisher(&self, comes: bool) {
        let mut state = self.state.lock();
        if comes {
            state.finishers += 1;
        } else {
            state.finishers -= 1;
        }
        drop(state);
        self.attention.notify_one();
    }

    /// Whether all of it is wanted, and what readers wait for.
    pub(super) fn wishes(&self) -> (bool, Vec<Range<u64>>) {
        let state = self.state.lock();
        let mut ranges: Vec<_> = state.wants.values().cloned().collect();
        ranges.dedup();
        (state.finishers > 0, ranges)
    }

    /// Pieces that a reader waits for and that count as held, but are not here: the disk changed them.
    pub(super) fn lost(&self, held: &PieceSet) -> Vec<u64> {
        let state = self.state.lock();
        let Some(partial) = &state.partial else {
            return Vec::new();
        };
        let is_lost = |index: &u64| {
            held.contains(*index) && !state.memory.contains_key(index) && !partial.has(*index)
        };
        (state.wants.values())
            .flat_map(Clone::clone)
            .filter(is_lost)
            .collect()
    }

    pub(super) fn is_read(&self) -> bool {
        !self.state.lock().wants.is_empty()
    }

    /// Whether nobody waits any more; then nobody can join either.
    pub(super) fn abandoned(&self) -> bool {
        let mut state = self.state.lock();
        state.closing |= state.arrivings == 0;
        state.closing && state.arrivings == 0
    }

    pub(super) fn claims(&self) -> Vec<Claimed> {
        self.state.lock().claims.clone()
    }

    /// Says what a claim is worth; those who made it hear it at the end.
    pub(super) fn judged(&self, claim: &Claim, digest: &'static str) {
        let mut state = self.state.lock();
        if !state.verdicts.iter().any(|(judged, _)| judged == claim) {
            state.verdicts.push((*claim, digest));
        }
    }

    pub(super) fn verdict(&self, claim: &Claim) -> Option<&'static str> {
        let state = self.state.lock();
        let mut verdicts = state.verdicts.iter();
        verdicts.find_map(|(judged, digest)| (judged == claim).then_some(*digest))
    }

    /// Ends it with the claims that were judged, unless a further one came meanwhile.
    pub(super) fn close_if_judged(&self) -> bool {
        let mut state = self.state.lock();
        let State {
            claims, verdicts, ..
        } = &*state;
        let judged = |claimed: &Claimed| verdicts.iter().any(|(claim, _)| *claim == claimed.claim);
        let all = claims.iter().all(judged);
        state.closing |= all;
        all
    }

    /// It runs, on top of what is on the disk; `done` bytes of it are here.
    pub(super) fn run(&self, partial: Option<Partial>, done: u64) {
        let mut state = self.state.lock();
        state.stage = Stage::Running;
        state.partial = partial;
        state.done = done;
        drop(state);
        self.changed.notify_waiters();
    }

    /// A piece came.
    pub(super) fn came(&self, piece: Arc<InMemory>) {
        let bytes: u64 = piece.parts.iter().map(|part| part.len() as u64).sum();
        let mut state = self.state.lock();
        state.network += bytes;
        let here = state.partial.as_ref();
        if here.is_none_or(|partial| !partial.has(piece.index))
            && state.memory.insert(piece.index, piece).is_none()
        {
            state.done += bytes;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// A piece is on the disk.
    pub(super) fn written(&self, index: u64) {
        self.state.lock().memory.remove(&index);
    }

    /// All is stored, and kept from eviction until the last who waits for it is gone.
    pub(super) fn store(&self, digests: Digests, reading: Reading) {
        self.state.lock().reading = Some(reading);
        self.end(Stage::Stored(digests));
    }

    /// It failed.
    pub(super) fn fail(&self, error: FetchError) {
        self.end(Stage::Failed(error));
    }

    fn end(&self, end: Stage) {
        let mut state = self.state.lock();
        if let Stage::Stored(_) = end {
            state.done = self.size;
        }
        state.closing = true;
        state.stage = end;
        state.partial = None;
        state.memory.clear();
        state.peers.clear();
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn stage(&self) -> Stage {
        self.state.lock().stage.clone()
    }

    pub(super) fn find(&self, index: u64) -> Where {
        let state = self.state.lock();
        match &state.stage {
            Stage::Stored(digests) => return Where::Stored(*digests),
            Stage::Failed(error) => return Where::Failed(error.clone()),
            Stage::Waiting | Stage::Running => {}
        }
        if let Some(piece) = state.memory.get(&index) {
            return Where::Memory(Arc::clone(piece));
        }
        match &state.partial {
            Some(partial) if partial.has(index) => Where::Partial(partial.clone()),
            _ => Where::Nowhere,
        }
    }

    /// Bytes here, and bytes that came over the network.
    pub(super) fn progress(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.done, state.network)
    }

    /// Takes note of the rate, and of who it comes from; now and then.
    pub(super) fn tick(&self, peers: Vec<PublicKey>) {
        let mut state = self.state.lock();
        state.peers = peers;
        let (now, network) = (Instant::now(), state.network);
        let rate = &mut state.rate;
        if let Some(at) = rate.at {
            let elapsed = now.saturating_duration_since(at);
            if elapsed < Duration::from_millis(50) {
                return;
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let latest = (network - rate.network) as f64 / elapsed.as_secs_f64();
            rate.bytes_a_second = if rate.bytes_a_second > 0.0 {
                rate.bytes_a_second + RATE_WEIGHT * (latest - rate.bytes_a_second)
            } else {
                latest
            };
        }
        rate.at = Some(now);
        rate.network = network;
    }

    /// As it is shown; nothing where it waits or is over.
    pub(super) fn shown(&self) -> Option<Transfer> {
        let state = self.state.lock();
        if !matches!(state.stage, Stage::Running) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate in whole bytes"
        )]
        let rate = state.rate.bytes_a_second as u64;
        Some(Transfer {
            hash: self.hash.to_string(),
            path: self.first.path.clone(),
            size: self.size,
            done: state.done,
            rate,
            peers: state.peers.iter().map(peer_id).collect(),
        })
    }
}
