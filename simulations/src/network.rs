//! Virtual nodes on links with latency, loss, partition and churn.
//!
//! One queue of events, by time and then by the order in which they were made. A link is a stream each
//! way: frames arrive in order, but some are lost whole, as where a node's queue to a slow neighbour is
//! full. The greeting, first on its stream, is never lost. Time is in microseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use cairn_protocol::accept::{Ledger, Verdict};
use cairn_protocol::hash::RecordId;
use cairn_protocol::key::PublicKey;
use cairn_protocol::record::{Body, Record};
use cairn_protocol::spread::message::{Hello, pack};
use cairn_protocol::spread::{Action, Config, Input, Spread};

use crate::random::Random;
use crate::report::Report;
use crate::world::{Namespaced, known};

const SECOND: u64 = 1_000_000;
/// When the head is published: by then the first comparisons are over.
const PUBLISHED_AT: u64 = 60 * SECOND;
/// All links come up within this time from the start.
const START_WITHIN: u64 = 5 * SECOND;
/// How long messages are counted, from the publication on.
const COUNTED: u64 = 3 * SECOND;
/// Latency of a link, one way, drawn once for each.
const LATENCY: (u64, u64) = (5_000, 150_000);
/// From a record's arrival until it is stored.
const STORING: u64 = 5_000;
/// How long a node is down.
const DOWN: (u64, u64) = (SECOND, 20 * SECOND);
/// When nodes go down, before and after the publication.
const DOWN_BEFORE: u64 = 5 * SECOND;
const DOWN_AFTER: u64 = 2 * SECOND;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes, at least 2.
    pub nodes: usize,
    /// Neighbours of a node, on average.
    pub degree: usize,
    /// What all choices are drawn from.
    pub seed: u64,
    /// Frames lost, in millionths.
    pub loss: u64,
    /// Nodes that are down for a while about the time of publication, in millionths.
    pub churn: u64,
    /// Whether neighbours compare what they have.
    pub reconcile: bool,
    /// How long the network is cut in two, from before the publication on; then each part publishes.
    pub partition: Option<Duration>,
    /// How long the run lasts after the publication, or after the end of the partition.
    pub horizon: Duration,
}

#[derive(Debug)]
enum Event {
    LinkUp(usize),
    Down(usize),
    Up(usize),
    Cut,
    Heal,
    Publish,
    Tick(usize),
    Frame {
        link: usize,
        to: usize,
        life: u64,
        frame: Vec<u8>,
    },
    Stored {
        node: usize,
        record: Box<Record>,
    },
}

#[derive(Debug)]
struct Node {
    spread: Spread,
    ledger: Ledger,
    store: BTreeMap<RecordId, Vec<u8>>,
    waiting: Vec<Record>,
    links: Vec<usize>,
    up: bool,
    tick_at: Option<u64>,
    complete_at: Option<u64>,
}

#[derive(Debug)]
struct Link {
    ends: (usize, usize),
    latency: u64,
    up: bool,
    /// Counts how often it went down: what was on its way then is lost.
    life: u64,
    /// When the last frame to each end arrives.
    arrives: (u64, u64),
}

/// A running simulation.
struct Network<'a> {
    options: &'a Options,
    random: Random,
    now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    made: u64,
    nodes: Vec<Node>,
    links: Vec<Link>,
    between: BTreeMap<(usize, usize), usize>,
    worlds: Vec<Namespaced>,
    cut: bool,
    trace: Option<&'a mut dyn Write>,
    report: Report,
}

fn key(node: usize) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(node as u64).to_be_bytes());
    PublicKey::Ed25519(bytes)
}

fn index(key: &PublicKey) -> usize {
    let (PublicKey::Ed25519(bytes), mut number) = (key, [0; 8]) else {
        return 0;
    };
    number.copy_from_slice(&bytes[..8]);
    usize::try_from(u64::from_be_bytes(number)).unwrap_or(0)
}

/// Runs it; every event is a line of the trace.
pub fn run<'a>(options: &'a Options, trace: Option<&'a mut dyn Write>) -> Result<Report> {
    ensure!(options.nodes >= 2, "at least two nodes");
    ensure!(
        (2..options.nodes.max(3)).contains(&options.degree),
        "a degree from 2 to below the nodes"
    );
    let parts = if options.partition.is_some() { 2 } else { 1 };
    let worlds = (0..parts)
        .map(Namespaced::new)
        .collect::<Result<Vec<_>>>()?;
    let mut network = Network::new(options, worlds, trace);
    network.plan();
    let healed = options.partition.map_or(0, micros);
    let end = PUBLISHED_AT + healed + micros(options.horizon);
    while let Some(((at, _), event)) = network.queue.pop_first() {
        if at > end {
            break;
        }
        network.now = at;
        network.report.events += 1;
        network.happen(event)?;
    }
    let from = PUBLISHED_AT + healed;
    Ok(network.finish(from))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl<'a> Network<'a> {
    fn new(
        options: &'a Options,
        worlds: Vec<Namespaced>,
        trace: Option<&'a mut dyn Write>,
    ) -> Self {
        let mut random = Random::new(options.seed);
        let before: Vec<&Record> = worlds.iter().flat_map(|world| &world.before).collect();
        let mut ledger = Ledger::default();
        for record in &before {
            ledger.insert(record);
        }
        let store: BTreeMap<_, _> = before
            .iter()
            .map(|record| (record.id(), record.envelope().to_vec()))
            .collect();
        let hello = Hello {
            versions: (1, 1),
            format: 1,
            agent: "cairn/simulated".to_owned(),
            blob_ports: Vec::new(),
            unknown: Vec::new(),
        };
        let nodes = (0..options.nodes).map(|_| {
            let mut config = Config::new(hello.clone());
            config.reconcile = options.reconcile;
            let known = before.iter().map(|record| known(record));
            Node {
                spread: Spread::new(config, known, random.next()),
                ledger: ledger.clone(),
                store: store.clone(),
                waiting: Vec::new(),
                links: Vec::new(),
                up: true,
                tick_at: None,
                complete_at: None,
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let report = Report {
            followers: options.nodes - worlds.len(),
            complete: 0,
            half: None,
            most: None,
            all: None,
            counted: Duration::from_micros(COUNTED),
            messages: 0,
            bytes: 0,
            lost: 0,
            parted: 0,
            events: 0,
            nodes: options.nodes,
        };
        Self {
            options,
            random,
            now: 0,
            queue: BTreeMap::new(),
            made: 0,
            nodes,
            links: Vec::new(),
            between: BTreeMap::new(),
            worlds,
            cut: false,
            trace,
            report,
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.made += 1;
        self.queue.insert((time, self.made), event);
    }

    /// Draws links and faults.
    fn plan(&mut self) {
        let nodes = self.nodes.len();
        let mut pairs = BTreeSet::new();
        for node in 0..nodes {
            // A ring keeps it in one piece; the rest is random.
            pairs.insert((node.min((node + 1) % nodes), node.max((node + 1) % nodes)));
        }
        let wanted = (nodes * self.options.degree / 2).min(nodes * (nodes - 1) / 2);
        while pairs.len() < wanted {
            let (one, other) = (self.random.index(nodes), self.random.index(nodes));
            if one != other {
                pairs.insert((one.min(other), one.max(other)));
            }
        }
        for ends in pairs {
            let link = self.links.len();
            self.between.insert(ends, link);
            self.nodes[ends.0].links.push(link);
            self.nodes[ends.1].links.push(link);
            self.links.push(Link {
                ends,
                latency: self.random.between(LATENCY.0, LATENCY.1),
                up: false,
                life: 0,
                arrives: (0, 0),
            });
            let at = self.random.between(0, START_WITHIN);
            self.at(at, Event::LinkUp(link));
        }
        self.at(PUBLISHED_AT, Event::Publish);
        if let Some(partition) = self.options.partition {
            self.at(PUBLISHED_AT - SECOND, Event::Cut);
            self.at(PUBLISHED_AT + micros(partition), Event::Heal);
        }
        for node in 0..nodes {
            if !self.is_publisher(node) && self.random.chance(self.options.churn) {
                let from = PUBLISHED_AT - DOWN_BEFORE;
                let down = self.random.between(from, PUBLISHED_AT + DOWN_AFTER);
                let up = down + self.random.between(DOWN.0, DOWN.1);
                self.at(down, Event::Down(node));
                self.at(up, Event::Up(node));
            }
        }
    }

    /// The first node, and in a partition the last one too: one in each part.
    fn is_publisher(&self, node: usize) -> bool {
        node == 0 || (self.worlds.len() > 1 && node == self.nodes.len() - 1)
    }

    /// Whether a link joins the two parts: the first two fifths and the rest.
    fn crosses(&self, link: usize) -> bool {
        let first = self.nodes.len() * 2 / 5;
        let (one, other) = self.links[link].ends;
        (one < first) != (other < first)
    }

    fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::LinkUp(link) => self.link_up(link),
            Event::Down(node) => {
                self.write(format_args!("down {node}"))?;
                self.nodes[node].up = false;
                for link in self.nodes[node].links.clone() {
                    self.link_down(link)?;
                }
                Ok(())
            }
            Event::Up(node) => {
                self.write(format_args!("up {node}"))?;
                self.nodes[node].up = true;
                for link in self.nodes[node].links.clone() {
                    self.link_up(link)?;
                }
                Ok(())
            }
            Event::Cut => self.set_cut(true),
            Event::Heal => self.set_cut(false),
            Event::Publish => self.publish(),
            Event::Tick(node) => {
                if self.nodes[node].tick_at == Some(self.now) {
                    self.nodes[node].tick_at = None;
                    self.input(node, Input::Tick)?;
                }
                Ok(())
            }
            Event::Frame {
                link,
                to,
                life,
                frame,
            } => self.arrive(link, to, life, frame),
            Event::Stored { node, record } => self.stored(node, *record),
        }
    }

    fn link_up(&mut self, link: usize) -> Result<()> {
        let (one, other) = self.links[link].ends;
        let reachable = !(self.cut && self.crosses(link));
        if self.links[link].up || !self.nodes[one].up || !self.nodes[other].up || !reachable {
            return Ok(());
        }
        self.links[link].up = true;
        self.write(format_args!("link {one} {other}"))?;
        self.input(one, Input::Connected(key(other)))?;
        self.input(other, Input::Connected(key(one)))
    }

    fn link_down(&mut self, link: usize) -> Result<()> {
        if !self.links[link].up {
            return Ok(());
        }
        self.links[link].up = false;
        self.links[link].life += 1;
        let (one, other) = self.links[link].ends;
        self.write(format_args!("unlink {one} {other}"))?;
        self.input(one, Input::Disconnected(key(other)))?;
        self.input(other, Input::Disconnected(key(one)))
    }

    fn set_cut(&mut self, cut: bool) -> Result<()> {
        self.cut = cut;
        for link in 0..self.links.len() {
            if self.crosses(link) {
                if cut {
                    self.link_down(link)?;
                } else {
                    self.link_up(link)?;
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        for world in 0..self.worlds.len() {
            let node = if world == 0 { 0 } else { self.nodes.len() - 1 };
            self.write(format_args!("publish {node}"))?;
            for record in self.worlds[world].published.clone() {
                self.nodes[node].ledger.insert(&record);
                self.keep(node, &record)?;
            }
        }
        Ok(())
    }

    fn arrive(&mut self, link: usize, to: usize, life: u64, frame: Vec<u8>) -> Result<()> {
        let (one, other) = self.links[link].ends;
        let from = if to == one { other } else { one };
        let (kind, bytes) = (frame.first().copied().unwrap_or(0), frame.len());
        if self.links[link].life != life {
            self.report.lost += 1;
            return self.write(format_args!("gone {from} {to} {kind} {bytes}"));
        }
        self.write(format_args!("frame {from} {to} {kind} {bytes}"))?;
        self.input(to, Input::Frame(key(from), frame))
    }

    fn input(&mut self, node: usize, input: Input) -> Result<()> {
        let now = Duration::from_micros(self.now);
        for action in self.nodes[node].spread.handle(now, input) {
            match action {
                Action::Send(to, frame) => self.send(node, index(&to), frame)?,
                Action::SendRecords(to, ids) => {
                    let store = &self.nodes[node].store;
                    let envelopes = ids.iter().filter_map(|id| store.get(id).cloned());
                    for frame in pack(envelopes.collect::<Vec<_>>()) {
                        self.send(node, index(&to), frame)?;
                    }
                }
                Action::Take(_, record) => {
                    self.at(self.now + STORING, Event::Stored { node, record });
                }
                Action::Met(..) | Action::Agrees(_) => {}
                Action::Drop(peer, reason) => {
                    self.report.parted += 1;
                    self.write(format_args!("part {node} {} {reason}", index(&peer)))?;
                }
            }
        }
        let due = self.nodes[node].spread.next_tick().map(micros);
        let due = due.map(|due| due.max(self.now));
        if let Some(due) = due.filter(|_| due != self.nodes[node].tick_at) {
            self.at(due, Event::Tick(node));
        }
        self.nodes[node].tick_at = due;
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, frame: Vec<u8>) -> Result<()> {
        if (PUBLISHED_AT..PUBLISHED_AT + COUNTED).contains(&self.now) {
            self.report.messages += 1;
            self.report.bytes += frame.len() as u64;
        }
        let Some(index) = self.between.get(&(from.min(to), from.max(to))).copied() else {
            return Ok(());
        };
        let is_greeting = frame.first() == Some(&1);
        let lost = !is_greeting && self.random.chance(self.options.loss);
        if lost || !self.links[index].up {
            self.report.lost += 1;
            let kind = frame.first().copied().unwrap_or(0);
            return self.write(format_args!("lost {from} {to} {kind} {}", frame.len()));
        }
        let link = &mut self.links[index];
        let sent = self.now + link.latency + self.random.between(0, link.latency / 10);
        let newest = if to == link.ends.0 {
            &mut link.arrives.0
        } else {
            &mut link.arrives.1
        };
        *newest = sent.max(*newest);
        let (at, life) = (*newest, link.life);
        self.at(
            at,
            Event::Frame {
                link: index,
                to,
                life,
                frame,
            },
        );
        Ok(())
    }

    /// A record was stored: the ledger judges it, the machine hears of it.
    fn stored(&mut self, node: usize, record: Record) -> Result<()> {
        match self.nodes[node].ledger.insert(&record) {
            Verdict::Refused(_) => self.input(node, Input::Refused(record.id())),
            Verdict::Waiting => {
                let id = record.id();
                self.nodes[node].waiting.push(record);
                self.input(node, Input::NotNow(id))
            }
            _ => {
                self.keep(node, &record)?;
                self.release(node)
            }
        }
    }

    /// Keeps what waited and has become part of the state.
    fn release(&mut self, node: usize) -> Result<()> {
        for record in std::mem::take(&mut self.nodes[node].waiting) {
            let ledger = &self.nodes[node].ledger;
            let repository = record.header().repository;
            let view = repository.and_then(|repository| ledger.repository(&repository));
            let shown = view.and_then(|view| view.head.map(|head| head.seq));
            let seq = record.header().chain.map(|link| link.seq);
            if matches!(record.body(), Body::Head(_)) && shown >= seq {
                self.keep(node, &record)?;
            } else {
                self.nodes[node].waiting.push(record);
            }
        }
        Ok(())
    }

    fn keep(&mut self, node: usize, record: &Record) -> Result<()> {
        let envelope = record.envelope().to_vec();
        self.nodes[node].store.insert(record.id(), envelope);
        self.input(node, Input::Taken(known(record)))?;
        let ledger = &self.nodes[node].ledger;
        let shows = |world: &Namespaced| {
            let view = ledger.repository(&world.repository);
            view.and_then(|view| view.head)
                .is_some_and(|head| head.id == world.head)
        };
        if self.nodes[node].complete_at.is_none() && self.worlds.iter().all(shows) {
            self.nodes[node].complete_at = Some(self.now);
            self.write(format_args!("complete {node}"))?;
        }
        Ok(())
    }

    fn write(&mut self, line: std::fmt::Arguments<'_>) -> Result<()> {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{} {line}", self.now)?;
        }
        Ok(())
    }

    fn finish(mut self, from: u64) -> Report {
        let followers = (0..self.nodes.len()).filter(|node| !self.is_publisher(*node));
        let mut times: Vec<u64> = followers
            .filter_map(|node| self.nodes[node].complete_at)
            .map(|at| at.saturating_sub(from))
            .collect();
        times.sort_unstable();
        let count = self.report.followers;
        let after = |part: usize| {
            let index = part.checked_sub(1)?;
            times.get(index).copied().map(Duration::from_micros)
        };
        self.report.half = after(count.div_ceil(2));
        self.report.most = after((count * 99).div_ceil(100));
        self.report.all = after(count);
        self.report.complete = times.len();
        self.report
    }
}
