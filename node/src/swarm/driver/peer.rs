//! What the driver knows of each peer: its connections, and the session over them.

use std::time::{Duration, Instant};

use cairn_protocol::key::PublicKey;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ConnectionId, Stream};
use libp2p::{Multiaddr, PeerId, identify, ping};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::address;
use super::super::lanes::{Lane, LaneEvent};
use super::super::peers::Info;
use super::super::session::{End, Session};
use super::super::targets::back_off;
use super::{Done, Driver, LOOKUP};

/// What the names of our protocol's versions begin with.
const SPREAD_PREFIX: &str = "/cairn/spread/";
/// Addresses of a peer that are believed.
const ADDRESSES_MAX: usize = 16;
/// Characters of a peer's program that are shown.
const AGENT_CHARS_MAX: usize = 64;
/// Time that a peer which misbehaved is refused.
const REFUSED_FOR: Duration = Duration::from_mins(1);
/// Time that a peer of another version is refused at first; it doubles each time.
const STRANGER_MIN: Duration = Duration::from_secs(30);
/// Time that a peer of another version is refused at most.
const STRANGER_MAX: Duration = Duration::from_mins(10);
/// Peers of other versions that are remembered.
const STRANGERS_MAX: usize = 10_000;
/// A session that lasted this long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// Pings in a row that a connection may miss.
const PINGS_MISSED_MAX: u32 = 2;

/// A peer with at least one connection, or whose session is ending.
#[derive(Debug)]
pub(super) struct Peer {
    key: PublicKey,
    connections: Vec<Connection>,
    lane: State,
    /// A stream of the peer that came while none of ours was open.
    waiting: Option<Stream>,
    agent: String,
    rtt_ms: Option<f64>,
    /// Sessions in a row that failed early.
    failures: u32,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    address: Multiaddr,
    inbound: bool,
    pings_missed: u32,
}

#[derive(Debug)]
enum State {
    /// No stream; one is opened from then on.
    Idle(Instant),
    /// A stream is being opened on this connection.
    Opening(ConnectionId),
    /// A session runs, or is ending.
    Running(Running),
    /// The peer doesn't speak our protocol, as far as is known.
    Unsupported,
}

#[derive(Debug)]
struct Running {
    inbound: mpsc::Sender<Stream>,
    /// Whether it was given the peer's stream.
    has_inbound: bool,
    end: CancellationToken,
    since: Instant,
}

impl Driver {
    pub(super) fn connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        self.targets.connected(id, peer, now);
        let Some(key) = address::key_of(&peer) else {
            tracing::debug!(%peer, "a peer whose key is not Ed25519");
            self.swarm.close_connection(id);
            return;
        };
        let entry = self.peers.entry(peer).or_insert_with(|| Peer {
            key,
            connections: Vec::new(),
            lane: State::Idle(now),
            waiting: None,
            agent: String::new(),
            rtt_ms: None,
            failures: 0,
        });
        entry.connections.push(Connection {
            id,
            address: super::dial::plain(endpoint.get_remote_address()),
            inbound: endpoint.is_listener(),
            pings_missed: 0,
        });
        if let ConnectedPoint::Dialer { address, .. } = endpoint {
            self.book.seen(peer, [address.clone()]);
        }
        self.open(peer, now);
    }

    pub(super) fn disconnected(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.connections.retain(|connection| connection.id != id);
        let none_left = entry.connections.is_empty();
        match &entry.lane {
            State::Opening(on) if *on == id => entry.lane = State::Idle(Instant::now()),
            // Its streams are broken, but it may wait for its events to be taken.
            State::Running(running) if none_left => running.end.cancel(),
            _ => {}
        }
        if none_left && !matches!(entry.lane, State::Running(_)) {
            self.peers.remove(&peer);
        } else {
            self.open(peer, Instant::now());
        }
    }

    /// Opens streams that are due.
    pub(super) fn open_due(&mut self, now: Instant) {
        let is_due = |entry: &Peer| matches!(entry.lane, State::Idle(from) if from <= now);
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, entry)| is_due(entry))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            self.open(peer, now);
        }
    }

    fn open(&mut self, peer: PeerId, now: Instant) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        if let (State::Idle(from), Some(connection)) = (&entry.lane, entry.connections.first())
            && *from <= now
        {
            let id = connection.id;
            entry.lane = State::Opening(id);
            self.swarm.behaviour_mut().lanes.open(peer, id);
        }
    }

    pub(super) fn on_lane(&mut self, lane: Lane) {
        let Lane {
            peer,
            connection,
            event,
        } = lane;
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let is_awaited = matches!(entry.lane, State::Opening(on) if on == connection);
        match event {
            LaneEvent::Accepted(stream) => entry.accept(stream),
            LaneEvent::Opened(stream) if is_awaited => self.start(peer, connection, stream),
            LaneEvent::Unsupported if is_awaited => entry.lane = State::Unsupported,
            LaneEvent::Failed(reason) if is_awaited => {
                tracing::debug!(%peer, reason, "a stream was not opened");
                entry.rest();
            }
            _ => {}
        }
    }

    fn start(&mut self, peer: PeerId, connection: ConnectionId, out: Stream) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let over = entry
            .connections
            .iter()
            .find(|known| known.id == connection);
        let Some(ip) = over.and_then(|over| address::ip_of(&over.address)) else {
            entry.rest();
            return;
        };
        let Some(over) = over else { return };
        let since = Instant::now();
        let queue = self.shared.peers.insert(
            entry.key,
            Info {
                peer,
                address: over.address.to_string(),
                agent: entry.agent.clone(),
                since,
                inbound: over.inbound,
                rtt_ms: entry.rtt_ms,
            },
        );
        let (inbound, receiver) = mpsc::channel(1);
        let end = self.stop.child_token();
        let session = Session {
            key: entry.key,
            address: ip,
            out,
            inbound: receiver,
            queue,
            events: self.events.clone(),
            peers: self.shared.peers.clone(),
            patience: self.tuning.patience,
            end: end.clone(),
            stop: self.stop.clone(),
        };
        entry.lane = State::Running(Running {
            inbound,
            has_inbound: false,
            end,
            since,
        });
        if let Some(stream) = entry.waiting.take() {
            entry.accept(stream);
        }
        self.tasks
            .spawn(async move { Done::Session(peer, session.run().await) });
    }

    pub(super) fn session_ended(&mut self, peer: PeerId, end: &End) {
        if let End::Misbehaved(reason) = end {
            tracing::warn!(%peer, reason, "parted from a peer");
            self.shared.refused.insert(peer, REFUSED_FOR);
            self.part(&peer);
        } else {
            tracing::debug!(%peer, reason = %end, "a session ended");
        }
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        if entry.connections.is_empty() {
            self.peers.remove(&peer);
            return;
        }
        if let State::Running(running) = &entry.lane {
            if running.since.elapsed() >= GOOD_AFTER {
                entry.failures = 0;
            }
            // The peer began anew already: so do we, at once.
            if entry.waiting.is_some() && entry.failures == 0 {
                entry.failures = 1;
                entry.lane = State::Idle(Instant::now());
            } else {
                entry.rest();
            }
        }
        self.open(peer, Instant::now());
    }

    /// Closes all connections with a peer.
    pub(super) fn part(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get(peer)
            && let State::Running(running) = &entry.lane
        {
            running.end.cancel();
        }
        // An error says that there is none.
        let _: Result<(), ()> = self.swarm.disconnect_peer_id(*peer);
    }

    pub(super) fn identified(&mut self, peer: PeerId, id: ConnectionId, info: &identify::Info) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        entry.agent = info
            .agent_version
            .chars()
            .filter(|letter| !letter.is_control())
            .take(AGENT_CHARS_MAX)
            .collect();
        let agent = entry.agent.clone();
        self.shared
            .peers
            .update(&entry.key, |shown| shown.agent = agent);
        let over = entry.connections.iter().find(|known| known.id == id);
        let Some(ip) = over.and_then(|over| address::ip_of(&over.address)) else {
            return;
        };
        let speaks = |name: &str| info.protocols.iter().any(|known| known.as_ref() == name);
        let is_ours = speaks(self.tuning.protocol.as_ref());
        let other = info
            .protocols
            .iter()
            .find(|known| known.as_ref().starts_with(SPREAD_PREFIX));
        if !is_ours && let Some(other) = other {
            let other = other.to_string();
            self.part_from_stranger(peer, &other);
            return;
        }
        if is_ours && matches!(entry.lane, State::Unsupported) {
            entry.rest();
        }
        let addresses = address::sensible(&info.listen_addrs, ip, ADDRESSES_MAX);
        if speaks(LOOKUP.as_ref()) {
            for address in &addresses {
                let table = &mut self.swarm.behaviour_mut().table;
                table.add_address(&peer, address.clone());
            }
        }
        if is_ours {
            // What the peer is reached at comes first, by whichever port it listens on.
            let near = addresses
                .iter()
                .filter(|claimed| address::ip_of(claimed) == Some(ip));
            self.book.seen(peer, near.cloned().collect::<Vec<_>>());
        }
    }

    fn part_from_stranger(&mut self, peer: PeerId, protocol: &str) {
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.clear();
        }
        let times = self.strangers.entry(peer).or_default();
        if *times == 0 {
            let ours = self.tuning.protocol.as_ref();
            tracing::info!(%peer, theirs = protocol, ours, "a peer speaks another version");
        }
        let wait = STRANGER_MIN
            .saturating_mul(1 << (*times).min(16))
            .min(STRANGER_MAX);
        *times = times.saturating_add(1);
        self.shared.refused.insert(peer, wait);
        self.part(&peer);
    }

    pub(super) fn pinged(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        result: Result<Duration, ping::Failure>,
    ) {
        let Some(entry) = self.peers.get_mut(&peer) else {
            return;
        };
        let known = entry.connections.iter_mut().find(|known| known.id == id);
        let Some(connection) = known else { return };
        match result {
            Ok(time) => {
                connection.pings_missed = 0;
                let rtt_ms = Some(time.as_secs_f64() * 1e3);
                entry.rtt_ms = rtt_ms;
                self.shared
                    .peers
                    .update(&entry.key, |shown| shown.rtt_ms = rtt_ms);
            }
            Err(ping::Failure::Unsupported) => {}
            Err(failure) => {
                connection.pings_missed += 1;
                if connection.pings_missed >= PINGS_MISSED_MAX {
                    tracing::debug!(%peer, %failure, "a connection is dead");
                    self.swarm.close_connection(id);
                }
            }
        }
    }
}

impl Peer {
    /// Takes a stream that the peer opened. A second one says that the peer began anew: so do we.
    fn accept(&mut self, stream: Stream) {
        match &mut self.lane {
            State::Running(running) if !running.has_inbound => {
                running.has_inbound = true;
                if let Err(error) = running.inbound.try_send(stream) {
                    drop(error);
                    running.end.cancel();
                }
            }
            State::Running(running) => {
                running.end.cancel();
                self.waiting = Some(stream);
            }
            State::Idle(_) | State::Opening(_) | State::Unsupported => {
                self.waiting = Some(stream);
            }
        }
    }

    /// Opens the next stream only after a while.
    fn rest(&mut self) {
        self.lane = State::Idle(Instant::now() + back_off(self.failures));
        self.failures = self.failures.saturating_add(1);
    }
}
