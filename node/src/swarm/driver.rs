//! The task that owns the swarm: it takes commands, reacts to what the network does, and keeps time.

mod dial;
mod peer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::kad::{self, InboundRequest};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent as NetEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify, mdns, ping};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::book::{self, Book};
use super::lanes::Lanes;
use super::listen::{self, Listening};
use super::lookup::Lookup;
use super::records::Records;
use super::session::End;
use super::targets::{TargetId, Targets};
use super::{Command, Shared, SwarmConfig, SwarmError, SwarmEvent, Tuning, address, transport};

use dial::Seek;
use peer::Peer;

/// Name of the identify protocol's version.
const IDENTIFY: &str = "/cairn/id/1";
/// Name of the look-up table's protocol.
pub(super) const LOOKUP: StreamProtocol = StreamProtocol::new("/cairn/kad/1");
/// Connections that are being made to us; further ones are refused.
const PENDING_IN_MAX: u32 = 128;
/// Connections that we are making; further ones are not begun.
const PENDING_OUT_MAX: u32 = 64;
/// Connections to us; further ones are refused.
const ESTABLISHED_IN_MAX: u32 = 512;
/// Connections from us; further ones are not kept.
const ESTABLISHED_OUT_MAX: u32 = 256;
/// Connections with one peer; further ones are refused.
const ESTABLISHED_PER_PEER_MAX: u32 = 2;
/// Time after which a connection without streams is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(200);
/// Time between two writes of the peer book.
const BOOK_EVERY: Duration = Duration::from_secs(30);
/// Time that listeners have to tell their addresses.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time that a record stays in the look-up table without being announced again.
const RECORD_TTL: Duration = Duration::from_hours(24);
/// Time that a provider stays in the look-up table without announcing itself again.
const PROVIDER_TTL: Duration = Duration::from_hours(2);
/// Time that an unanswered query of the look-up table takes.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two questions to the local network.
const MDNS_EVERY: Duration = Duration::from_secs(30);
/// Time between two pings of a connection, and that an answer may take.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Records of others that are verified each second at most; others are refused meanwhile.
const VERIFY_RATE_MAX: u32 = 200;

/// All that the swarm does on a connection.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    lanes: Lanes,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    table: kad::Behaviour<Records>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What a task of the driver came to.
#[derive(Debug)]
enum Done {
    Session(PeerId, End),
    Resolved(TargetId, Option<PeerId>, Result<Vec<Multiaddr>, String>),
    Written,
}

/// The task's state.
pub(super) struct Driver {
    swarm: libp2p::Swarm<Behaviour>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<SwarmEvent>,
    tuning: Tuning,
    stop: CancellationToken,
    peers: HashMap<PeerId, Peer>,
    strangers: HashMap<PeerId, u32>,
    tasks: JoinSet<Done>,
    targets: Targets,
    seek: Seek,
    book: Book,
    book_saved: Instant,
    lookup: Lookup,
    listening: Vec<(ListenerId, String)>,
    listen_failure: Option<SwarmError>,
    verified: u32,
    verified_since: Instant,
}

/// What a driver is made of.
pub(super) struct Parts {
    pub(super) key: Keypair,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<SwarmEvent>,
    pub(super) tuning: Tuning,
    pub(super) targets: Targets,
    pub(super) book: Book,
    pub(super) stop: CancellationToken,
}

fn behaviour(key: &Keypair, shared: &Shared, tuning: &Tuning, mdns: bool) -> Behaviour {
    let local = key.public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_IN_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUT_MAX))
        .with_max_established_incoming(Some(ESTABLISHED_IN_MAX))
        .with_max_established_outgoing(Some(ESTABLISHED_OUT_MAX))
        .with_max_established_per_peer(Some(ESTABLISHED_PER_PEER_MAX));
    let identify = identify::Config::new(IDENTIFY.to_owned(), key.public())
        .with_agent_version(concat!("cairn/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        // Dialling is decided here, not by what was once identified.
        .with_cache_size(0);
    let mut config = kad::Config::new(LOOKUP);
    config
        .disjoint_query_paths(true)
        .set_query_timeout(QUERY_TIMEOUT)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_record_ttl(Some(RECORD_TTL))
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        // The node announces its own by itself (lookup.rs); nobody announces what is another's.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled);
    let mut table = kad::Behaviour::with_config(local, Records::new(local), config);
    table.set_mode(Some(kad::Mode::Server));
    let mdns = if mdns {
        let config = mdns::Config {
            query_interval: MDNS_EVERY,
            ..mdns::Config::default()
        };
        match mdns::tokio::Behaviour::new(config, local) {
            Ok(mdns) => Some(mdns),
            Err(error) => {
                tracing::warn!(%error, "peers on the local network will not be found");
                None
            }
        }
    } else {
        None
    };
    Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        lanes: Lanes::new(tuning.protocol.clone(), shared.refused.clone()),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(PING_EVERY)
                .with_timeout(PING_EVERY),
        ),
        table,
        mdns: mdns.into(),
    }
}

impl Driver {
    /// Listens; once this returned, the addresses are known.
    pub(super) async fn begin(config: &SwarmConfig, parts: Parts) -> Result<Self, SwarmError> {
        let behaviour = behaviour(&parts.key, &parts.shared, &parts.tuning, config.mdns);
        let mut swarm = libp2p::Swarm::new(
            transport::build(&parts.key)?,
            behaviour,
            parts.key.public().to_peer_id(),
            libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT),
        );
        let Listening { pending, ips } = listen::begin(&mut swarm, &config.listen)?;
        *parts.shared.listen_ips.write() = ips;
        let now = Instant::now();
        let mut driver = Self {
            swarm,
            seek: Seek::new(parts.book.candidates(), now),
            shared: parts.shared,
            commands: parts.commands,
            events: parts.events,
            tuning: parts.tuning,
            stop: parts.stop,
            peers: HashMap::new(),
            strangers: HashMap::new(),
            tasks: JoinSet::new(),
            targets: parts.targets,
            book: parts.book,
            book_saved: now,
            lookup: Lookup::default(),
            listening: pending,
            listen_failure: None,
            verified: 0,
            verified_since: now,
        };
        driver.settle().await?;
        Ok(driver)
    }

    /// Waits for each listener's first address, and takes what else is known at once.
    async fn settle(&mut self) -> Result<(), SwarmError> {
        let until = tokio::time::Instant::now() + LISTEN_TIMEOUT;
        while !self.listening.is_empty() {
            let next = tokio::time::timeout_at(until, self.swarm.select_next_some());
            let Ok(event) = next.await else { break };
            self.on_event(event);
            if let Some(failure) = self.listen_failure.take() {
                return Err(failure);
            }
        }
        // An interface of which nothing is heard may come up later.
        for (_, address) in std::mem::take(&mut self.listening) {
            tracing::warn!(address, "no interface to listen on so far");
        }
        while let Some(event) = futures::FutureExt::now_or_never(self.swarm.select_next_some()) {
            self.on_event(event);
        }
        Ok(())
    }

    /// Runs until the end of everything.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.on_command(command),
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(done) = self.tasks.join_next() => match done {
                    Ok(done) => self.on_done(done),
                    Err(error) => tracing::error!(%error, "a task of the swarm failed"),
                },
                _ = tick.tick() => self.on_tick(),
            }
        }
        if let Some((path, bytes)) = self.book.take_changes() {
            let written = tokio::task::spawn_blocking(move || book::write(&path, &bytes));
            if let Err(error) = written.await {
                tracing::warn!(%error, "the peer book was not written");
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Part(peer) => self.part(&peer),
            Command::Dial(place) => self.add_once(place),
            Command::LookUp(repository, until, reply) => {
                let table = &mut self.swarm.behaviour_mut().table;
                self.lookup.look_up(table, repository, until, reply);
            }
            Command::Providers(repository, until, reply) => {
                let table = &mut self.swarm.behaviour_mut().table;
                self.lookup.providers(table, repository, until, reply);
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Session(peer, end) => self.session_ended(peer, &end),
            Done::Resolved(target, peer, Ok(addresses)) => {
                self.dial_target(target, peer, addresses);
            }
            Done::Resolved(target, _, Err(reason)) => self.target_failed(target, &reason),
            Done::Written => {}
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.dial_due(now);
        self.open_due(now);
        self.take_announcements(now);
        let behaviour = self.swarm.behaviour_mut();
        self.lookup.tick(&mut behaviour.table, now);
        let refused: Vec<_> = self
            .peers
            .keys()
            .filter(|peer| self.shared.refused.contains(peer))
            .copied()
            .collect();
        for peer in refused {
            self.part(&peer);
        }
        if now.duration_since(self.book_saved) >= BOOK_EVERY {
            self.book_saved = now;
            if let Some((path, bytes)) = self.book.take_changes() {
                self.tasks.spawn_blocking(move || {
                    book::write(&path, &bytes);
                    Done::Written
                });
            }
        }
    }

    fn take_announcements(&mut self, now: Instant) {
        let announced = std::mem::take(&mut *self.shared.announced.lock());
        for (repository, head) in announced {
            let key = super::records::key_of(repository);
            let record = kad::Record::new(key, head);
            let local = *self.swarm.local_peer_id();
            let store = self.swarm.behaviour_mut().table.store_mut();
            match store.keep(local, record) {
                Ok(()) => self.lookup.announce(repository, now),
                Err(refusal) => {
                    tracing::warn!(%repository, %refusal, "a repository is not announced");
                }
            }
        }
    }

    fn on_event(&mut self, event: NetEvent<BehaviourEvent>) {
        match event {
            NetEvent::Behaviour(event) => self.on_behaviour(event),
            NetEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.connected(peer_id, connection_id, &endpoint),
            NetEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                tracing::debug!(peer = %peer_id, ?cause, "connection closed");
                self.disconnected(peer_id, connection_id);
            }
            NetEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => self.dial_failed(connection_id, &error),
            NetEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                self.listening.retain(|(id, _)| *id != listener_id);
                tracing::info!(%address, "listening");
                self.show_listeners();
            }
            NetEvent::ExpiredListenAddr { .. } => self.show_listeners(),
            NetEvent::ListenerClosed {
                listener_id,
                reason: Err(error),
                ..
            } => {
                let pending = self.listening.iter().find(|(id, _)| *id == listener_id);
                if let Some((_, text)) = pending {
                    self.listen_failure = Some(listen::refused(text, &error));
                } else {
                    tracing::error!(%error, "a listener closed");
                }
                self.show_listeners();
            }
            NetEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener's error");
            }
            NetEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "a connection to this node failed");
            }
            _ => {}
        }
    }

    fn show_listeners(&mut self) {
        let peer = *self.swarm.local_peer_id();
        let mut addresses: Vec<_> = self
            .swarm
            .listeners()
            .filter(|address| address::is_dialable(address))
            .cloned()
            .collect();
        let is_loopback =
            |address: &Multiaddr| address::ip_of(address).is_some_and(|ip| ip.is_loopback());
        addresses.sort_by_key(|address| (is_loopback(address), address.to_string()));
        let texts = addresses
            .iter()
            .map(|address| format!("{address}/p2p/{peer}"));
        *self.shared.listening.write() = texts.collect();
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Lanes(lane) => self.on_lane(lane),
            BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                connection_id,
                info,
            }) => self.identified(peer_id, connection_id, &info),
            BehaviourEvent::Ping(event) => self.pinged(event.peer, event.connection, event.result),
            BehaviourEvent::Table(event) => self.on_table(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => self.on_local(found),
            BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => {
                for (peer, address) in gone {
                    self.targets.remove_local(peer, &dial::plain(&address));
                }
            }
            _ => {}
        }
    }

    fn on_table(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            } => {
                let table = &mut self.swarm.behaviour_mut().table;
                let found = self.lookup.on_result(table, id, result, step.last);
                self.dial_providers(&found);
            }
            kad::Event::InboundRequest {
                request:
                    InboundRequest::PutRecord {
                        source,
                        record: Some(record),
                        ..
                    },
            } => self.put(source, record),
            kad::Event::InboundRequest {
                request:
                    InboundRequest::AddProvider {
                        record: Some(record),
                    },
            } => {
                // The behaviour took it only from the provider itself.
                let provider = record.provider;
                let store = self.swarm.behaviour_mut().table.store_mut();
                if let Err(refusal) = store.keep_provider(record) {
                    self.shared.count_refusal(provider, &refusal);
                }
            }
            kad::Event::RoutingUpdated {
                is_new_peer: true, ..
            } => self.lookup.hurry(Instant::now()),
            _ => {}
        }
    }

    fn put(&mut self, source: PeerId, record: kad::Record) {
        if self.verified_since.elapsed() >= Duration::from_secs(1) {
            self.verified_since = Instant::now();
            self.verified = 0;
        }
        let store = self.swarm.behaviour_mut().table.store_mut();
        if store.renew(&record) || self.verified >= VERIFY_RATE_MAX {
            return;
        }
        self.verified += 1;
        if let Err(refusal) = store.keep(source, record) {
            self.shared.count_refusal(source, &refusal);
        }
    }
}
