//! Spread: how records reach every node that follows them (design §5).
//!
//! A state machine without clock, sockets or randomness of its own; the node performs its actions, a
//! simulation too. A new record is pushed to each neighbour once, by id; on connect and by timer two
//! neighbours compare what they have, one set a namespace, and exchange the difference; what was learnt
//! that way is pushed on. Envelopes are parsed and their signatures verified here; whether a record is
//! accepted is the ledger's to say, which the caller reports back by [`Input::Taken`].
//!
//! Invariants:
//! - a record is pushed to a neighbour at most once, and never to one that sent it; who asks for it
//!   again gets it again;
//! - a record is given to [`Action::Take`] at most once at a time, and not again once it was taken or
//!   refused;
//! - nothing that a neighbour sends makes the state grow but a record that the caller took: all else is
//!   bounded, for each neighbour and altogether.
//!
//! Correctness rests on comparison alone. Pushing makes it fast, and may forget, skip and be ignored.

pub mod message;

mod budget;
mod compare;
mod exchange;
mod peer;
mod recent;
mod sets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hash::{NamespaceId, RecordId};
use crate::key::PublicKey;
use crate::limits::FRAME_RECORDS_MAX;
use crate::record::Record;
use message::{Hello, Message};
use peer::Peer;
use recent::Recent;
use sets::Sets;

/// A record waits at least as long before it is pushed, so that those made together go together.
const PUSH_DELAY: Duration = Duration::from_millis(10);
/// And up to as much longer, drawn anew each time: some neighbours hear of it meanwhile, from others.
const PUSH_JITTER: Duration = Duration::from_millis(20);
/// Records that are pushed at once to one neighbour; more are offered, since it may have most of them.
const PUSH_RECORDS_MAX: usize = 64;
/// Ids that are remembered as refused for good; older ones may be asked for and refused again.
const REFUSED_MAX: usize = 1 << 16;
/// Ids that are remembered as waiting; older ones may be asked for earlier than they should.
const WAITING_MAX: usize = 1 << 15;

impl Config {
    /// What the node tells of itself, with the time between comparisons that suits most: 30 seconds.
    pub const fn new(hello: Hello) -> Self {
        Self {
            hello,
            reconcile_every: Duration::from_secs(30),
            reconcile: true,
        }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A neighbour can be talked to.
    Connected(PublicKey),
    /// It can't any more.
    Disconnected(PublicKey),
    /// A neighbour sent a frame.
    Frame(PublicKey, Vec<u8>),
    /// A record is in the state and stored: one of our own, or the answer to [`Action::Take`].
    Taken(Known),
    /// The answer to [`Action::Take`] for a record that will never be accepted.
    Refused(RecordId),
    /// The answer to [`Action::Take`] for a record that waits for another, or that could not be stored now:
    /// it may be offered again.
    NotNow(RecordId),
    /// Time passed.
    Tick,
}

/// What reconciliation needs to know of a stored record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: RecordId,
    /// Its namespace (of a namespace's first record: the one it begins).
    pub namespace: NamespaceId,
    /// Its time of signing, the sort key of reconciliation.
    pub time: u64,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send a frame.
    Send(PublicKey, Vec<u8>),
    /// Send the envelopes of these records, in this order, packed by [`message::pack`].
    SendRecords(PublicKey, Vec<RecordId>),
    /// Take a verified record in, and say what became of it.
    Take(PublicKey, Box<Record>),
    /// A neighbour told about itself.
    Met(PublicKey, message::Hello),
    /// A neighbour was found to have exactly what this node has.
    Agrees(PublicKey),
    /// Part from a neighbour.
    Drop(PublicKey, Reason),
}

/// Why a neighbour is parted from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It speaks no version that we speak.
    #[error("it speaks spread versions {0} to {1}, this node {ours} to {ours}", ours = message::VERSION)]
    Version(u16, u16),
    /// A frame that is none.
    #[error("it sent a malformed frame: {0}")]
    Malformed(String),
    /// An envelope that does not verify.
    #[error("it sent a record that does not verify: {0}")]
    Forged(String),
    /// More than it may send.
    #[error("it sent more than it may: {0}")]
    Flood(&'static str),
}

/// Settings of a machine.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this node tells of itself.
    pub hello: message::Hello,
    /// Time between two comparisons with one neighbour.
    pub reconcile_every: Duration,
    /// Whether sets are compared at all; off only to show that it is needed.
    pub reconcile: bool,
}

/// The state of one node's spread.
#[derive(Debug)]
pub struct Spread {
    config: Config,
    random: Random,
    sets: Sets,
    peers: BTreeMap<PublicKey, Peer>,
    /// Records that the caller was given and has not answered, and the bytes of their envelopes.
    taking: BTreeMap<RecordId, usize>,
    taking_bytes: usize,
    /// Whether asking stopped because the caller has enough to do.
    busy: bool,
    /// Which neighbour each record was asked of last, and when.
    asked: BTreeMap<RecordId, (PublicKey, Duration)>,
    refused: Recent<()>,
    /// When those that wait for others were last given to the caller.
    waiting: Recent<Duration>,
    /// Taken and not pushed yet.
    fresh: Vec<RecordId>,
    push_at: Option<Duration>,
}

impl Spread {
    /// Begins with what is stored already, in the order in which it was taken; `seed` is what random
    /// choices are drawn from.
    ///
    /// What in `config.hello` is over the limits is cut.
    pub fn new(mut config: Config, known: impl IntoIterator<Item = Known>, seed: u64) -> Self {
        config.hello = config.hello.bounded();
        let mut sets = Sets::default();
        for known in known {
            sets.insert(known);
        }
        Self {
            config,
            random: Random(seed),
            sets,
            peers: BTreeMap::new(),
            taking: BTreeMap::new(),
            taking_bytes: 0,
            busy: false,
            asked: BTreeMap::new(),
            refused: Recent::new(REFUSED_MAX),
            waiting: Recent::new(WAITING_MAX),
            fresh: Vec::new(),
            push_at: None,
        }
    }

    /// Takes an input in; `now` is monotonic. Every returned action must be performed, in order.
    ///
    /// Each [`Action::Take`] must be answered by [`Input::Taken`], [`Input::Refused`] or
    /// [`Input::NotNow`]; while many are not, nothing further is taken from neighbours.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Connected(key) => self.connected(now, key, &mut out),
            Input::Disconnected(key) => self.forget(&key),
            Input::Frame(key, bytes) => {
                if let Err(reason) = self.frame(now, key, &bytes, &mut out) {
                    self.forget(&key);
                    out.push(Action::Drop(key, reason));
                }
            }
            Input::Taken(known) => self.taken(now, known, &mut out),
            Input::Refused(id) => {
                self.refused.insert(id, ());
                self.waiting.remove(&id);
                self.answered(now, &id, &mut out);
            }
            Input::NotNow(id) => {
                self.waiting.insert(id, now);
                self.answered(now, &id, &mut out);
            }
            Input::Tick => {}
        }
        if self.next_tick().is_some_and(|tick| tick <= now) {
            self.due(now, &mut out);
        }
        out
    }

    /// When [`Input::Tick`] is due next.
    pub fn next_tick(&self) -> Option<Duration> {
        let peers = self.peers.values();
        let peers = peers.filter_map(|peer| peer.next_tick(self.config.reconcile));
        peers.chain(self.push_at).min()
    }

    fn connected(&mut self, now: Duration, key: PublicKey, out: &mut Vec<Action>) {
        self.forget(&key);
        self.peers.insert(key, Peer::new(now));
        let hello = Message::Hello(self.config.hello.clone());
        out.push(Action::Send(key, hello.encode()));
    }

    /// Forgets a neighbour, and that it was asked for anything.
    fn forget(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.remove(key) {
            for id in &peer.asked {
                self.asked_in_vain(id, key);
            }
        }
    }

    /// Takes a frame in; an error where the neighbour is to be parted from.
    fn frame(
        &mut self,
        now: Duration,
        key: PublicKey,
        bytes: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let Some(peer) = self.peers.get_mut(&key) else {
            return Ok(());
        };
        let message =
            Message::decode(bytes).map_err(|error| Reason::Malformed(error.to_string()))?;
        if !matches!(message, Message::Records(_)) && !peer.budget.frame(now, bytes.len())? {
            return Ok(());
        }
        match (peer.greeted, message) {
            (false, Message::Hello(hello)) => self.greeted(now, key, hello, out),
            (false, _) => Err(Reason::Malformed("a frame before the greeting".to_owned())),
            (true, Message::Hello(_)) => Err(Reason::Malformed("a second greeting".to_owned())),
            (true, Message::Records(envelopes)) => self.records(now, key, &envelopes, out),
            (true, Message::Want(ids)) => self.wanted(now, key, ids, out),
            (true, Message::Offer(ids)) => self.offered(now, key, ids, out),
            (true, Message::Optional(..)) => Ok(()),
            (true, _) if !self.config.reconcile => Ok(()),
            (true, Message::Total(side, total)) => self.total(now, key, side, total, out),
            (true, Message::Summary(side, scopes, more)) => {
                self.summary(now, key, side, &scopes, more, out)
            }
            (true, Message::Reconcile(side, namespace, round)) => {
                self.round(now, key, side, namespace, &round, out)
            }
        }
    }

    fn greeted(
        &mut self,
        now: Duration,
        key: PublicKey,
        hello: Hello,
        out: &mut Vec<Action>,
    ) -> Result<(), Reason> {
        let ours = self.config.hello.versions;
        if hello.versions.0 > ours.1 || hello.versions.1 < ours.0 {
            return Err(Reason::Version(hello.versions.0, hello.versions.1));
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.greeted = true;
            peer.compare_at = now;
        }
        out.push(Action::Met(key, hello));
        Ok(())
    }

    /// A record is in the state: it belongs to its set, and is pushed once.
    fn taken(&mut self, now: Duration, known: Known, out: &mut Vec<Action>) {
        self.waiting.remove(&known.id);
        if self.sets.insert(known) {
            self.fresh.push(known.id);
            if self.push_at.is_none() {
                self.push_at = Some(now + PUSH_DELAY + self.random.below(PUSH_JITTER));
            }
            if self.fresh.len() >= FRAME_RECORDS_MAX {
                self.push(out);
            }
        }
        self.answered(now, &known.id, out);
    }

    /// Pushes what is new to each neighbour that is not known to have it.
    fn push(&mut self, out: &mut Vec<Action>) {
        self.push_at = None;
        let fresh = std::mem::take(&mut self.fresh);
        for (key, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.greeted) {
            let fresh = fresh.iter().copied();
            let lacks: Vec<RecordId> = fresh.filter(|id| !peer.has.contains(id)).collect();
            for id in &lacks {
                peer.has.insert(*id, ());
            }
            if lacks.len() > PUSH_RECORDS_MAX {
                exchange::offer(*key, &lacks, out);
            } else if !lacks.is_empty() {
                out.push(Action::SendRecords(*key, lacks));
            }
        }
    }

    /// Does all that is due.
    fn due(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.push_at.is_some_and(|at| at <= now) {
            self.push(out);
        }
        let keys: Vec<PublicKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.due_asking(now, key, out);
            if self.config.reconcile {
                self.due_comparison(now, key, out);
            }
        }
    }

    /// A time drawn from half to one and a half of the one given.
    fn jitter(&mut self, time: Duration) -> Duration {
        time / 2 + self.random.below(time)
    }
}

/// A generator for choices that nobody gains from guessing (splitmix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A time below the one given.
    fn below(&mut self, time: Duration) -> Duration {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.next() % micros.max(1))
    }
}
