//! A world of random providers, in virtual time, that a download is tested against.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use proptest::prelude::*;

use super::*;
use crate::limits::PIECE_BYTES;

/// How a provider behaves.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Sends all that it is asked for.
    Honest,
    /// Refuses whatever it is asked.
    Refuses,
    /// Breaks off after so many pieces of each request.
    Breaks(u64),
    /// Sends nothing more after so many pieces in all.
    Stalls(u64),
    /// Sends a wrong piece after so many in all.
    Lies(u64),
    /// Vanishes at this second.
    Vanishes(u64),
}

#[derive(Debug, Clone)]
struct Peer {
    manner: Manner,
    held: PieceSet,
    /// Between two pieces.
    piece_time: Duration,
    joins: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Joins(usize),
    Vanishes(usize),
    /// A request goes on: its number, and how many pieces it sent.
    Sends(usize, u64, u64),
    Wanted(usize),
    Tick,
}

struct World {
    download: Download,
    peers: Vec<Peer>,
    now: Duration,
    heap: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    happened: u64,
    /// By provider: number, pieces, and when the last one came.
    requests: BTreeMap<usize, (u64, Range<u64>, Duration)>,
    sent: Vec<u64>,
    deliveries: BTreeMap<u64, u32>,
    wanted: Vec<Vec<Range<u64>>>,
}

fn key(number: usize) -> PublicKey {
    PublicKey::Ed25519([u8::try_from(number).unwrap(); 32])
}

fn number(key: &PublicKey) -> usize {
    match key {
        PublicKey::Ed25519(bytes) => usize::from(bytes[0]),
        PublicKey::P256(_) => unreachable!(),
    }
}

impl World {
    fn new(pieces: u64, peers: Vec<Peer>, wanted: Vec<Vec<Range<u64>>>, seed: u64) -> Self {
        let mut world = Self {
            download: Download::new(PieceSet::empty(pieces * PIECE_BYTES), seed),
            sent: vec![0; peers.len()],
            peers,
            now: Duration::ZERO,
            heap: BinaryHeap::new(),
            happened: 0,
            requests: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            wanted,
        };
        for (number, peer) in world.peers.clone().into_iter().enumerate() {
            world.plan(peer.joins, Happening::Joins(number));
            if let Manner::Vanishes(second) = peer.manner {
                world.plan(Duration::from_secs(second), Happening::Vanishes(number));
            }
        }
        for number in 0..world.wanted.len() {
            world.plan(
                Duration::from_secs(2 * number as u64),
                Happening::Wanted(number),
            );
        }
        world.plan(Duration::from_secs(1), Happening::Tick);
        world
    }

    fn plan(&mut self, at: Duration, what: Happening) {
        self.happened += 1;
        self.heap.push(Reverse((at, self.happened, what)));
    }

    /// Runs until all is here, or a day is over.
    fn run(&mut self) {
        while !self.download.is_satisfied() && self.now < Duration::from_hours(24) {
            let Reverse((at, _, what)) = self.heap.pop().expect("ticks never end");
            self.now = at;
            self.happen(what);
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Joins(number) => {
                if !matches!(self.peers[number].manner, Manner::Vanishes(second) if self.now >= Duration::from_secs(second))
                {
                    let held = self.peers[number].held.clone();
                    self.tell(Event::Offer(key(number), held));
                }
            }
            Happening::Vanishes(number) => {
                self.requests.remove(&number);
                self.peers[number].held = PieceSet::empty(0);
                self.tell(Event::Gone(key(number)));
            }
            Happening::Wanted(number) => self.tell(Event::Wanted(self.wanted[number].clone())),
            Happening::Tick => {
                self.plan(self.now + Duration::from_secs(1), Happening::Tick);
                self.tell(Event::Tick);
            }
            Happening::Sends(number, request, done) => self.sends(number, request, done),
        }
    }

    fn sends(&mut self, number: usize, request: u64, done: u64) {
        let Some((current, range, progress)) = self.requests.get_mut(&number) else {
            return;
        };
        if *current != request {
            return;
        }
        let peer = &self.peers[number];
        let index = range.start + done;
        let over = match peer.manner {
            Manner::Refuses => true,
            Manner::Breaks(pieces) => done >= pieces,
            _ => index >= range.end,
        };
        if over || index >= range.end {
            self.requests.remove(&number);
            return self.tell(Event::Ended(key(number)));
        }
        match peer.manner {
            Manner::Stalls(pieces) if self.sent[number] >= pieces => return,
            Manner::Lies(pieces) if self.sent[number] >= pieces => {
                self.requests.remove(&number);
                return self.tell(Event::Lied(key(number)));
            }
            _ => {}
        }
        *progress = self.now;
        self.sent[number] += 1;
        *self.deliveries.entry(index).or_default() += 1;
        let next = self.now + peer.piece_time;
        self.plan(next, Happening::Sends(number, request, done + 1));
        self.tell(Event::Piece(key(number), index));
    }

    fn tell(&mut self, event: Event) {
        for action in self.download.handle(self.now, event) {
            match action {
                Action::Ask(peer, range) => self.asked(number(&peer), range),
                Action::Abandon(peer) => {
                    let (_, range, progress) = (self.requests)
                        .remove(&number(&peer))
                        .expect("only what is under way is abandoned");
                    let here = |index| self.download.held().contains(index);
                    assert!(
                        self.now >= progress + STALL_TIMEOUT || range.clone().all(here),
                        "{peer} moved, and was left"
                    );
                }
                Action::Starving => {
                    assert!(
                        self.requests.is_empty(),
                        "starving while {:?}",
                        self.requests
                    );
                }
            }
        }
    }

    fn asked(&mut self, number: usize, range: Range<u64>) {
        assert!(
            !self.requests.contains_key(&number),
            "two requests to one provider"
        );
        assert!(!range.is_empty() && range.end - range.start <= provider::REQUEST_PIECES_MAX);
        assert!(self.requests.len() < REQUESTS_MAX);
        assert!(!self.download.is_liar(&key(number)), "a liar was asked");
        for index in range.clone() {
            assert!(self.peers[number].held.contains(index), "not offered");
            assert!(!self.download.held().contains(index), "not missing");
            let copies = (self.requests.values()).filter(|(_, other, _)| other.contains(&index));
            assert!(copies.count() <= 1, "more than two copies");
        }
        self.happened += 1;
        let request = self.happened;
        self.requests.insert(number, (request, range, self.now));
        let first = self.now + self.peers[number].piece_time;
        self.plan(first, Happening::Sends(number, request, 0));
    }
}

fn peers(pieces: u64) -> impl Strategy<Value = Vec<Peer>> {
    let manner = prop_oneof![
        4 => Just(Manner::Honest),
        1 => Just(Manner::Refuses),
        1 => (0..6u64).prop_map(Manner::Breaks),
        1 => (0..20u64).prop_map(Manner::Stalls),
        1 => (0..20u64).prop_map(Manner::Lies),
        1 => (0..60u64).prop_map(Manner::Vanishes),
    ];
    let bits = usize::try_from(pieces).unwrap();
    let held = prop_oneof![
        Just(vec![true; bits]),
        prop::collection::vec(any::<bool>(), bits)
    ];
    let held = held.prop_map(move |bits| {
        let mut set = PieceSet::empty(pieces * PIECE_BYTES);
        let held = (0..pieces).zip(bits).filter(|(_, held)| *held);
        held.for_each(|(index, _)| {
            set.insert(index);
        });
        set
    });
    let piece_ms = prop_oneof![1..50u64, 50..1000u64, 1000..14_000u64];
    let peer =
        (manner, held, piece_ms, 0..90u64).prop_map(|(manner, held, piece_ms, joins)| Peer {
            manner,
            held,
            piece_time: Duration::from_millis(piece_ms),
            joins: Duration::from_secs(joins),
        });
    prop::collection::vec(peer, 1..24)
}

fn wanted(pieces: u64) -> impl Strategy<Value = Vec<Vec<Range<u64>>>> {
    let range = (0..pieces, 1..20u64).prop_map(|(start, len)| start..start + len);
    prop::collection::vec(prop::collection::vec(range, 0..5), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the others do, what an honest provider has is fetched; see also the assertions above.
    #[test]
    fn every_piece_of_an_honest_provider_comes(
        (pieces, peers, wanted) in (1..200u64)
            .prop_flat_map(|pieces| (Just(pieces), peers(pieces), wanted(pieces))),
        seed: u64,
    ) {
        let mut world = World::new(pieces, peers, wanted, seed);
        world.run();
        for (number, peer) in world.peers.iter().enumerate() {
            if matches!(peer.manner, Manner::Honest) {
                for index in 0..pieces {
                    prop_assert!(
                        !peer.held.contains(index) || world.download.held().contains(index),
                        "piece {} of provider {} never came", index, number
                    );
                }
            }
        }
        prop_assert!(world.deliveries.values().all(|copies| *copies <= 2));
        if world.peers.iter().all(|peer| matches!(peer.manner, Manner::Honest) && peer.held.is_full()) {
            prop_assert!(world.download.is_satisfied());
        }
    }

    /// With one who has all, all comes, and in about the time that this one needs for it.
    #[test]
    fn nobody_keeps_a_download_from_ending(
        (pieces, others) in (1..200u64).prop_flat_map(|pieces| (Just(pieces), peers(pieces))),
        seed: u64,
    ) {
        let honest = Peer {
            manner: Manner::Honest,
            held: PieceSet::full(pieces * PIECE_BYTES),
            piece_time: Duration::from_millis(10),
            joins: Duration::ZERO,
        };
        let mut world = World::new(pieces, [vec![honest], others].concat(), Vec::new(), seed);
        world.run();
        prop_assert!(world.download.is_satisfied());
        prop_assert!(world.now < Duration::from_mins(1), "took {:?}", world.now);
    }
}
