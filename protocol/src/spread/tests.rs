//! Machines against one another and against hostile input.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::message::{Side, Total, pack};
use super::*;
use crate::key::SecretKey;
use crate::limits::WANT_IDS_MAX;
use crate::name::RepoKind;
use crate::record::{Body, Header, Nonce, Repository};

/// Really signed records of three namespaces.
static RECORDS: LazyLock<Vec<Record>> = LazyLock::new(|| (0..120).map(record).collect());

fn record(index: u64) -> Record {
    let mut header = Header::new(1, index / 7);
    let namespace = u8::try_from(index % 3).expect("small");
    header.namespace = Some(NamespaceId::from_bytes([namespace; 32]));
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&index.to_le_bytes());
    let body = Repository {
        kind: RepoKind::Model,
        name: "name".parse().expect("a name"),
        nonce: Nonce::from_bytes(nonce),
        created_at: 5,
    };
    let key = SecretKey::from_seed([9; 32]);
    Record::sign(header, Body::Repository(body), &[&key]).expect("a record")
}

fn known(record: &Record) -> Known {
    Known {
        id: record.id(),
        namespace: record.namespace(),
        time: record.header().time,
    }
}

fn key(index: usize) -> PublicKey {
    PublicKey::Ed25519([u8::try_from(index).expect("few"); 32])
}

fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        format: 1,
        agent: "cairn/test".to_owned(),
        blob_ports: vec![4001],
        unknown: vec![(7, vec![1, 2])],
    }
}

/// A machine, what its caller keeps, and what was seen of it.
struct Node {
    spread: Spread,
    have: BTreeMap<RecordId, Record>,
    taking: BTreeSet<RecordId>,
    met: usize,
    dropped: Vec<(PublicKey, Reason)>,
}

/// Machines on links that may lose frames.
struct Net {
    nodes: Vec<Node>,
    links: BTreeSet<(usize, usize)>,
    wires: VecDeque<(usize, usize, Vec<u8>)>,
    /// What was sent by the first to the second, and not asked for.
    pushed: BTreeSet<(usize, usize, RecordId)>,
    /// What the first asked the second for.
    wanted: BTreeSet<(usize, usize, RecordId)>,
    /// Who found that the other has the same.
    agreed: BTreeSet<(usize, usize)>,
    now: Duration,
    frames: usize,
}

impl Net {
    fn new(sets: &[Vec<usize>]) -> Self {
        let node = |(index, set): (usize, &Vec<usize>)| {
            let have = set.iter().map(|index| &RECORDS[*index]);
            Node {
                spread: Spread::new(Config::new(hello()), have.clone().map(known), index as u64),
                have: have.map(|record| (record.id(), record.clone())).collect(),
                taking: BTreeSet::new(),
                met: 0,
                dropped: Vec::new(),
            }
        };
        Self {
            nodes: sets.iter().enumerate().map(node).collect(),
            links: BTreeSet::new(),
            wires: VecDeque::new(),
            pushed: BTreeSet::new(),
            wanted: BTreeSet::new(),
            agreed: BTreeSet::new(),
            now: Duration::ZERO,
            frames: 0,
        }
    }

    fn connect(&mut self, one: usize, other: usize) {
        if one != other && self.links.insert((one.min(other), one.max(other))) {
            self.input(one, Input::Connected(key(other)));
            self.input(other, Input::Connected(key(one)));
        }
    }

    fn disconnect(&mut self, one: usize, other: usize) {
        if self.links.remove(&(one.min(other), one.max(other))) {
            let on_link =
                |from: usize, to: usize| (from, to) == (one, other) || (to, from) == (one, other);
            self.wires.retain(|(from, to, _)| !on_link(*from, *to));
            self.pushed.retain(|(from, to, _)| !on_link(*from, *to));
            self.wanted.retain(|(from, to, _)| !on_link(*from, *to));
            self.input(one, Input::Disconnected(key(other)));
            self.input(other, Input::Disconnected(key(one)));
        }
    }

    fn publish(&mut self, at: usize, record: &Record) {
        self.nodes[at].have.insert(record.id(), record.clone());
        self.input(at, Input::Taken(known(record)));
    }

    fn index(key: &PublicKey) -> usize {
        match key {
            PublicKey::Ed25519(bytes) => bytes[0].into(),
            PublicKey::P256(_) => unreachable!("not given out"),
        }
    }

    fn input(&mut self, at: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.nodes[at].spread.handle(self.now, input) {
                self.perform(at, action, &mut inputs);
            }
        }
    }

    fn perform(&mut self, at: usize, action: Action, inputs: &mut VecDeque<Input>) {
        match action {
            Action::Send(to, frame) => {
                if let Ok(Message::Want(ids)) = Message::decode(&frame) {
                    for id in ids {
                        self.wanted.insert((at, Self::index(&to), id));
                    }
                }
                self.send(at, &to, frame);
            }
            Action::SendRecords(to, ids) => self.send_records(at, &to, &ids),
            Action::Take(_, record) => {
                assert!(self.nodes[at].taking.insert(record.id()), "taken twice");
                let new = self.nodes[at].have.insert(record.id(), (*record).clone());
                assert!(new.is_none(), "it was here");
                self.nodes[at].taking.remove(&record.id());
                inputs.push_back(Input::Taken(known(&record)));
            }
            Action::Met(_, met) => {
                assert_eq!(met, hello());
                self.nodes[at].met += 1;
            }
            Action::Agrees(peer) => {
                let peer = Self::index(&peer);
                if self.nodes.len() == 2 {
                    assert_eq!(self.nodes[at].have.len(), self.nodes[peer].have.len());
                }
                self.agreed.insert((at, peer));
            }
            Action::Drop(peer, reason) => self.nodes[at].dropped.push((peer, reason)),
        }
    }

    fn send_records(&mut self, at: usize, to: &PublicKey, ids: &[RecordId]) {
        let peer = Self::index(to);
        for id in ids {
            if !self.wanted.remove(&(peer, at, *id)) {
                assert!(self.pushed.insert((at, peer, *id)), "pushed twice");
            }
        }
        let have = &self.nodes[at].have;
        let envelopes: Vec<_> = ids.iter().map(|id| have[id].envelope().to_vec()).collect();
        for frame in pack(envelopes) {
            self.send(at, to, frame);
        }
    }

    fn send(&mut self, at: usize, to: &PublicKey, frame: Vec<u8>) {
        self.frames += 1;
        self.wires.push_back((at, Self::index(to), frame));
    }

    fn deliver(&mut self) -> bool {
        let Some((from, to, frame)) = self.wires.pop_front() else {
            return false;
        };
        if let Ok(Message::Records(envelopes)) = Message::decode(&frame) {
            for envelope in envelopes {
                let id = Record::parse(&envelope).expect("a record").id();
                // What came from there must not go back there.
                let asked = self.wanted.contains(&(from, to, id));
                if !asked && !self.nodes[to].have.contains_key(&id) {
                    self.pushed.insert((to, from, id));
                }
            }
        }
        self.input(to, Input::Frame(key(from), frame));
        true
    }

    /// Delivers all, then lets time pass to the next timer; for so long.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while self.deliver() {}
            let next = |node: &Node| node.spread.next_tick();
            let Some(next) = self.nodes.iter().filter_map(next).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            for at in 0..self.nodes.len() {
                self.input(at, Input::Tick);
            }
        }
        self.now = end;
    }

    fn assert_equal(&self) {
        let ids = |node: &Node| node.have.keys().copied().collect::<BTreeSet<_>>();
        for node in &self.nodes {
            assert_eq!(node.dropped, []);
            assert_eq!(ids(node).len(), ids(&self.nodes[0]).len());
            assert_eq!(ids(node), ids(&self.nodes[0]));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Connect(usize, usize),
    Disconnect(usize, usize),
    Publish(usize, usize),
    Deliver(usize),
    Lose,
    Wait(u64),
}

const NODES: usize = 6;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..NODES, 0..NODES).prop_map(|(one, other)| Step::Connect(one, other)),
        1 => (0..NODES, 0..NODES).prop_map(|(one, other)| Step::Disconnect(one, other)),
        2 => (0..NODES, 60..120_usize).prop_map(|(at, record)| Step::Publish(at, record)),
        3 => (1..30_usize).prop_map(Step::Deliver),
        1 => Just(Step::Lose),
        2 => (1..40_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn two_machines_end_equal_whatever_they_had(
        one in proptest::collection::btree_set(0..120_usize, 0..120),
        other in proptest::collection::btree_set(0..120_usize, 0..120),
    ) {
        let sets = [one.into_iter().collect(), other.into_iter().collect()];
        let mut net = Net::new(&sets);
        net.connect(0, 1);
        net.run(Duration::from_secs(1));
        net.assert_equal();
        let frames = net.frames;
        prop_assert!(frames <= 40, "{} frames", frames);
        prop_assert_eq!((net.nodes[0].met, net.nodes[1].met), (1, 1));
        // From then on, a comparison is one frame each way.
        net.run(Duration::from_mins(2));
        prop_assert!((net.frames - frames) <= 30, "{} frames", net.frames - frames);
        prop_assert_eq!(net.agreed, BTreeSet::from([(0, 1), (1, 0)]));
    }

    #[test]
    fn all_end_equal_after_any_course_once_they_are_connected(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut net = Net::new(&vec![(0..5).collect(); NODES]);
        for step in steps {
            match step {
                Step::Connect(one, other) => net.connect(one, other),
                Step::Disconnect(one, other) => net.disconnect(one, other),
                Step::Publish(at, record) => {
                    let record = RECORDS[record].clone();
                    if !net.nodes[at].have.contains_key(&record.id()) {
                        net.publish(at, &record);
                    }
                }
                Step::Deliver(count) => (0..count).for_each(|_| { net.deliver(); }),
                Step::Lose => {
                    // A greeting is never lost: it is the first frame of its stream.
                    let hello = Message::Hello(hello()).encode();
                    if net.wires.front().is_some_and(|(.., frame)| *frame != hello) {
                        net.wires.pop_front();
                    }
                }
                Step::Wait(millis) => net.run(Duration::from_millis(millis)),
            }
        }
        for at in 1..NODES {
            net.connect(at - 1, at);
        }
        net.agreed.clear();
        net.run(Duration::from_secs(200));
        net.assert_equal();
        for (one, other) in &net.links {
            prop_assert!(net.agreed.contains(&(*one, *other)) && net.agreed.contains(&(*other, *one)));
        }
    }

    #[test]
    fn no_bytes_and_no_messages_make_a_machine_panic_or_grow(
        frames in proptest::collection::vec(
            (0..3_usize, 0..10_u8, proptest::collection::vec(any::<u8>(), 0..300), any::<bool>()),
            0..60,
        ),
    ) {
        let have = RECORDS[..40].iter().map(known);
        let mut spread = Spread::new(Config::new(hello()), have, 1);
        let mut now = Duration::ZERO;
        for (peer, kind, bytes, whole) in frames {
            if !spread.peers.contains_key(&key(peer)) {
                spread.handle(now, Input::Connected(key(peer)));
                let greeting = Message::Hello(hello()).encode();
                spread.handle(now, Input::Frame(key(peer), greeting));
            }
            let namespace = RECORDS[0].namespace();
            let ids = bytes.chunks_exact(32).map(|id| {
                RecordId::from_bytes(id.try_into().expect("32 bytes"))
            }).collect();
            let frame = match (whole, kind) {
                (true, 0..=2) => {
                    let mut round = bytes;
                    round.insert(0, 0x61);
                    let side = if kind == 0 { Side::Asks } else { Side::Answers };
                    Message::Reconcile(side, namespace, round).encode()
                }
                (true, 3) => Message::Offer(ids).encode(),
                (true, 4) => Message::Want(ids).encode(),
                (true, 5) => {
                    let total = Total { namespaces: 1, fingerprint: [3; 16] };
                    Message::Total(Side::Answers, total).encode()
                }
                _ => [&[kind], &bytes[..]].concat(),
            };
            now += Duration::from_millis(300);
            spread.handle(now, Input::Frame(key(peer), frame));
            spread.handle(now, Input::Tick);
            prop_assert!(spread.taking.is_empty());
            prop_assert_eq!(spread.sets.namespaces(), 3);
        }
    }
}

/// A machine with one greeted neighbour.
fn greeted() -> Spread {
    let mut spread = Spread::new(Config::new(hello()), [], 1);
    greet(&mut spread, 1);
    spread
}

fn greet(spread: &mut Spread, peer: usize) {
    let actions = spread.handle(Duration::ZERO, Input::Connected(key(peer)));
    assert!(matches!(&actions[..], [Action::Send(to, frame)]
            if *to == key(peer) && matches!(Message::decode(frame), Ok(Message::Hello(_)))));
    let frame = Message::Hello(hello()).encode();
    spread.handle(Duration::ZERO, Input::Frame(key(peer), frame));
}

fn records_frame(envelopes: &[&[u8]]) -> Vec<u8> {
    let envelopes = envelopes.iter().map(|envelope| envelope.to_vec());
    Message::Records(envelopes.collect()).encode()
}

fn dropped(actions: &[Action]) -> Option<&Reason> {
    actions.iter().find_map(|action| match action {
        Action::Drop(_, reason) => Some(reason),
        _ => None,
    })
}

fn takes(actions: &[Action]) -> usize {
    let is_take = |action: &&Action| matches!(action, Action::Take(..));
    actions.iter().filter(is_take).count()
}

#[test]
fn a_neighbour_of_another_version_gets_our_greeting_and_is_parted_from_by_name() {
    for (versions, speaks) in [
        ((2, 9), false),
        ((0, 0), false),
        ((0, 5), true),
        ((1, 1), true),
    ] {
        let mut spread = Spread::new(Config::new(hello()), [], 1);
        let first = spread.handle(Duration::ZERO, Input::Connected(key(1)));
        assert!(matches!(&first[..], [Action::Send(..)]));
        let theirs = Message::Hello(Hello {
            versions,
            ..hello()
        })
        .encode();
        let actions = spread.handle(Duration::ZERO, Input::Frame(key(1), theirs));
        let expected = Reason::Version(versions.0, versions.1);
        assert_eq!(dropped(&actions), (!speaks).then_some(&expected));
    }
}

#[test]
fn frames_before_the_greeting_a_second_one_and_unknown_ones_part() {
    let mut spread = Spread::new(Config::new(hello()), [], 1);
    spread.handle(Duration::ZERO, Input::Connected(key(1)));
    let want = Message::Want(vec![]).encode();
    let actions = spread.handle(Duration::ZERO, Input::Frame(key(1), want.clone()));
    assert!(matches!(dropped(&actions), Some(Reason::Malformed(_))));
    // It was parted from: what is still on its way means nothing.
    assert!(
        spread
            .handle(Duration::ZERO, Input::Frame(key(1), want))
            .is_empty()
    );

    let greeting = Message::Hello(hello()).encode();
    for (frame, parts) in [
        (greeting, true),
        (vec![0x7f], true),
        (vec![0x80, 1, 2], false),
    ] {
        let mut spread = greeted();
        let actions = spread.handle(Duration::ZERO, Input::Frame(key(1), frame));
        assert_eq!(dropped(&actions).is_some(), parts);
    }
}

#[test]
fn a_forged_record_counts_against_its_sender_and_never_against_its_id() {
    let mut spread = greeted();
    greet(&mut spread, 2);
    let record = &RECORDS[0];
    let text = std::str::from_utf8(record.envelope()).expect("text");
    let at = text.rfind("\"sig\":\"").expect("a signature") + 10;
    let mut forged = record.envelope().to_vec();
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let actions = spread.handle(
        Duration::ZERO,
        Input::Frame(key(1), records_frame(&[&forged])),
    );
    assert!(matches!(dropped(&actions), Some(Reason::Forged(_))));
    assert_eq!(takes(&actions), 0);
    let frame = records_frame(&[record.envelope()]);
    let actions = spread.handle(Duration::ZERO, Input::Frame(key(2), frame));
    assert_eq!((takes(&actions), dropped(&actions)), (1, None));
}

#[test]
fn a_record_of_a_later_version_is_passed_over_without_blame() {
    use crate::envelope::Envelope;
    let mut spread = greeted();
    let secret = SecretKey::from_seed([9; 32]);
    for payload in [
        r#"{"version":1,"type":"ballot"}"#,
        r#"{"version":2,"type":"head"}"#,
    ] {
        let envelope = Envelope::sign(
            crate::record::PAYLOAD_TYPE,
            payload.as_bytes().to_vec(),
            &[&secret],
        )
        .expect("an envelope");
        let frame = records_frame(&[envelope.as_bytes(), RECORDS[1].envelope()]);
        let actions = spread.handle(Duration::ZERO, Input::Frame(key(1), frame));
        assert_eq!(dropped(&actions), None);
        assert!(spread.refused.contains(&envelope.id()));
        // An offer of it is not taken up.
        let offer = Message::Offer(vec![envelope.id()]).encode();
        let actions = spread.handle(Duration::ZERO, Input::Frame(key(1), offer));
        assert!(actions.is_empty(), "{actions:?}");
    }
    assert!(spread.taking.contains_key(&RECORDS[1].id()));
}

#[test]
fn a_record_is_given_out_once_and_one_that_waits_not_more_often_than_sets_are_compared() {
    let mut spread = greeted();
    greet(&mut spread, 2);
    let frame = records_frame(&[RECORDS[0].envelope()]);
    let send = |spread: &mut Spread, now: u64, peer: usize| {
        let input = Input::Frame(key(peer), frame.clone());
        takes(&spread.handle(Duration::from_secs(now), input))
    };
    assert_eq!(send(&mut spread, 0, 1), 1);
    assert_eq!(send(&mut spread, 0, 1), 0);
    assert_eq!(send(&mut spread, 0, 2), 0);
    spread.handle(Duration::ZERO, Input::NotNow(RECORDS[0].id()));
    assert_eq!(send(&mut spread, 1, 2), 0);
    assert_eq!(send(&mut spread, 31, 2), 1);
    spread.handle(Duration::from_secs(31), Input::Refused(RECORDS[0].id()));
    assert_eq!(send(&mut spread, 100, 1), 0);
}

#[test]
fn records_that_are_made_together_go_together_and_not_to_where_they_came_from() {
    let mut spread = greeted();
    for peer in 2..5 {
        greet(&mut spread, peer);
    }
    let frame = records_frame(&[RECORDS[0].envelope(), RECORDS[1].envelope()]);
    assert_eq!(
        takes(&spread.handle(Duration::ZERO, Input::Frame(key(2), frame))),
        2
    );
    for record in &RECORDS[..3] {
        assert!(
            spread
                .handle(Duration::ZERO, Input::Taken(known(record)))
                .is_empty()
        );
    }
    let sent: Vec<_> = spread
        .handle(Duration::from_millis(30), Input::Tick)
        .into_iter()
        .filter_map(|action| match action {
            Action::SendRecords(to, ids) => Some((to, ids)),
            _ => None,
        })
        .collect();
    let ids: Vec<_> = RECORDS[..3].iter().map(Record::id).collect();
    let expected = [
        (key(1), ids.clone()),
        (key(2), ids[2..].to_vec()),
        (key(3), ids.clone()),
        (key(4), ids),
    ];
    assert_eq!(sent, expected);
}

#[test]
fn a_flood_is_ignored_then_parted_from_and_the_state_stays_small() {
    let mut spread = greeted();
    // Offers of what does not exist, 10,000 frames a second.
    let mut parted = None;
    for index in 0..200_000_u64 {
        let now = Duration::from_micros(index * 100);
        let id = *blake3::hash(&index.to_le_bytes()).as_bytes();
        let frame = Message::Offer(vec![RecordId::from_bytes(id)]).encode();
        let actions = spread.handle(now, Input::Frame(key(1), frame));
        if let Some(reason) = dropped(&actions) {
            parted = Some((now, reason.clone()));
            break;
        }
        let peer = &spread.peers[&key(1)];
        assert!(peer.wants.len() <= exchange::WANTS_MAX && peer.asked.len() <= 512);
        assert!(peer.has.len() <= 1 << 13 && spread.asked.len() <= 512);
    }
    let (when, reason) = parted.expect("parted from");
    assert!(matches!(reason, Reason::Flood(_)), "{reason}");
    assert!(when <= Duration::from_secs(10), "{when:?}");
    assert!(spread.asked.is_empty() && spread.peers.is_empty());
}

#[test]
fn valid_records_that_nobody_answers_for_stop_being_taken() {
    let mut spread = greeted();
    spread.taking_bytes = (32 << 20) - 1;
    let send = |spread: &mut Spread, index: usize| {
        let frame = records_frame(&[RECORDS[index].envelope()]);
        takes(&spread.handle(Duration::ZERO, Input::Frame(key(1), frame)))
    };
    assert_eq!(send(&mut spread, 0), 1);
    assert_eq!(send(&mut spread, 1), 0);
    let actions = spread.handle(Duration::ZERO, Input::Taken(known(&RECORDS[0])));
    assert_eq!(takes(&actions), 0);
    assert_eq!(send(&mut spread, 1), 1);
}

#[test]
fn a_newcomer_takes_thousands_in_a_window_at_a_time_and_is_no_flood() {
    let many: Vec<Record> = (1_000..4_000).map(record).collect();
    let mut net = Net::new(&[vec![], vec![], vec![]]);
    let node = &mut net.nodes[0];
    node.spread = Spread::new(Config::new(hello()), many.iter().map(known), 7);
    node.have = many
        .iter()
        .map(|record| (record.id(), record.clone()))
        .collect();
    net.connect(0, 1);
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[1].have.len(), 3_000);
    net.assert_two();
    assert!(net.frames < 60, "{}", net.frames);
    // From the newcomer to the next one.
    net.connect(1, 2);
    net.run(Duration::from_secs(1));
    net.assert_equal();
}

/// Who is asked for records.
fn asks(actions: &[Action]) -> Vec<PublicKey> {
    let asked = |action: &Action| match action {
        Action::Send(to, frame) if matches!(Message::decode(frame), Ok(Message::Want(_))) => {
            Some(*to)
        }
        _ => None,
    };
    actions.iter().filter_map(asked).collect()
}

#[test]
fn nothing_is_due_at_once_for_ever_while_the_caller_has_enough_to_do() {
    let mut spread = greeted();
    greet(&mut spread, 2);
    let offer = Message::Offer(vec![RECORDS[0].id()]).encode();
    for peer in [1, 2] {
        spread.handle(Duration::ZERO, Input::Frame(key(peer), offer.clone()));
    }
    let later = Duration::from_secs(2);
    spread.taking_bytes = 32 << 20;
    spread.handle(later, Input::Tick);
    assert!(spread.next_tick().is_some_and(|tick| tick > later));
    assert!(spread.peers[&key(2)].ask_at.is_none());
    spread.taking_bytes = 0;
    spread.handle(later, Input::NotNow(RECORDS[1].id()));
    let again = spread.peers[&key(2)].ask_at;
    assert!(
        again.is_some_and(|at| at > later),
        "not forgotten: {again:?}"
    );
}

#[test]
fn who_sends_one_record_now_and_then_does_not_hold_the_others_back() {
    let mut spread = greeted();
    greet(&mut spread, 2);
    let ids: Vec<_> = RECORDS[..9].iter().map(Record::id).collect();
    let offer = Message::Offer(ids).encode();
    for peer in [1, 2] {
        spread.handle(Duration::ZERO, Input::Frame(key(peer), offer.clone()));
    }
    let mut asked = Vec::new();
    for second in 1..13 {
        let now = Duration::from_secs(second);
        if second == 5 {
            let frame = records_frame(&[RECORDS[0].envelope()]);
            spread.handle(now, Input::Frame(key(1), frame));
        }
        asked.extend(asks(&spread.handle(now, Input::Tick)));
    }
    assert_eq!(asked, [key(2)]);
    spread.handle(Duration::from_secs(13), Input::Disconnected(key(1)));
    assert_eq!(spread.asked.len(), 8, "the other is still asked");
}

#[test]
fn ids_asked_of_one_that_does_not_send_them_are_asked_of_another() {
    let mut spread = greeted();
    greet(&mut spread, 2);
    let id = RECORDS[0].id();
    let offer = Message::Offer(vec![id]).encode();
    let first = spread.handle(Duration::ZERO, Input::Frame(key(1), offer.clone()));
    assert_eq!(asks(&first), [key(1)]);
    let second = spread.handle(Duration::ZERO, Input::Frame(key(2), offer));
    assert_eq!(asks(&second), []);
    let mut asked = Vec::new();
    for second in 1..13 {
        asked.extend(asks(
            &spread.handle(Duration::from_secs(second), Input::Tick),
        ));
    }
    assert_eq!(asked, [key(2)]);
}

#[test]
fn a_want_is_answered_in_the_order_in_which_records_rest_on_each_other_and_once_each() {
    let mut spread = Spread::new(Config::new(hello()), RECORDS[..9].iter().map(known), 1);
    greet(&mut spread, 1);
    let mut ids: Vec<_> = RECORDS[..9].iter().map(Record::id).collect();
    let in_order = ids.clone();
    ids.reverse();
    ids.extend(in_order.clone());
    ids.push(RECORDS[50].id());
    assert!(ids.len() <= WANT_IDS_MAX);
    let want = Message::Want(ids).encode();
    let actions = spread.handle(Duration::ZERO, Input::Frame(key(1), want));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::SendRecords(_, sent) if *sent == in_order)),
        "{actions:?}"
    );
}

impl Net {
    fn assert_two(&self) {
        assert_eq!(self.nodes[0].have.len(), self.nodes[1].have.len());
        assert!(self.nodes[0].dropped.is_empty() && self.nodes[1].dropped.is_empty());
    }
}
