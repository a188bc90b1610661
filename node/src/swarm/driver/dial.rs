//! Whom the driver dials: targets, peers of the book, and providers that a look-up named.

use std::time::{Duration, Instant};

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId};

use super::super::address::Place;
use super::super::targets::{self, Kind, TargetId, What, random};
use super::{Done, Driver};

/// Peers below which the book's are dialled.
const PEERS_WANTED: usize = 8;
/// Peers of the book that are dialled in one go.
const SEEK_AT_ONCE: usize = 4;
/// Time between two goes.
const SEEK_EVERY: Duration = Duration::from_secs(3);
/// Time until a book that was gone through is begun anew.
const SEEK_AGAIN: Duration = Duration::from_mins(5);
/// Peers at which those on the local network are no longer dialled: they may dial this node.
const LOCAL_PEERS_MAX: usize = 64;
/// Time that the peer with the greater id leaves the other to dial, on the local network.
const LOCAL_DELAY: Duration = Duration::from_secs(2);
/// Providers of one answer that are connected to.
const PROVIDERS_DIALLED_MAX: usize = 4;

/// What is left to dial of the peer book.
#[derive(Debug)]
pub(super) struct Seek {
    candidates: std::vec::IntoIter<(PeerId, Vec<Multiaddr>)>,
    next: Instant,
}

impl Seek {
    pub(super) fn new(candidates: Vec<(PeerId, Vec<Multiaddr>)>, next: Instant) -> Self {
        Self {
            candidates: candidates.into_iter(),
            next,
        }
    }
}

/// An address without the peer at its end.
pub(super) fn plain(address: &Multiaddr) -> Multiaddr {
    Place::of(address)
        .and_then(|place| Some(place.at(place.ip()?)))
        .unwrap_or_else(|| address.clone())
}

impl Driver {
    /// Dials what is due.
    pub(super) fn dial_due(&mut self, now: Instant) {
        let swarm = &self.swarm;
        let refused = &self.shared.refused;
        let crowded = self.peers.len() >= LOCAL_PEERS_MAX;
        let attempts = self.targets.due(now, |peer| swarm.is_connected(peer));
        for attempt in attempts {
            let is_local = self.targets.kind(attempt.id) == Some(Kind::Local);
            let is_refused = attempt.peer.is_some_and(|peer| refused.contains(&peer));
            if is_refused || (is_local && crowded) {
                self.targets.failed(attempt.id, now);
                continue;
            }
            match attempt.what {
                What::Dial(addresses) => {
                    dial_target(
                        &mut self.swarm,
                        &mut self.targets,
                        attempt.id,
                        attempt.peer,
                        addresses,
                    );
                }
                What::Resolve(place) => {
                    let (id, peer) = (attempt.id, attempt.peer);
                    self.tasks.spawn(async move {
                        Done::Resolved(id, peer, targets::resolve(place).await)
                    });
                }
            }
        }
        if self.seek.next <= now && self.peers.len() < PEERS_WANTED {
            self.seek(now);
        }
    }

    fn seek(&mut self, now: Instant) {
        self.seek.next = now + SEEK_EVERY;
        let mut dialled = 0;
        while dialled < SEEK_AT_ONCE {
            let Some((peer, addresses)) = self.seek.candidates.next() else {
                let candidates = self.book.candidates();
                self.seek = Seek::new(candidates, now + SEEK_AGAIN);
                return;
            };
            if peer != *self.swarm.local_peer_id() && !self.swarm.is_connected(&peer) {
                dialled += 1;
                let options = options(Some(peer), addresses);
                if let Err(error) = self.swarm.dial(options) {
                    tracing::debug!(%peer, %error, "a peer of the book was not dialled");
                }
            }
        }
    }

    /// Dials a place once.
    pub(super) fn add_once(&mut self, place: Place) {
        if let (Some(peer), Some(ip)) = (place.peer, place.ip()) {
            self.book.seen(peer, [place.at(ip)]);
        }
        if !self.targets.add(place, Kind::Once, Instant::now()) {
            tracing::warn!("too many addresses wait to be dialled");
        }
        self.dial_due(Instant::now());
    }

    pub(super) fn dial_target(
        &mut self,
        id: TargetId,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
    ) {
        dial_target(&mut self.swarm, &mut self.targets, id, peer, addresses);
    }

    pub(super) fn dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        if let Some(target) = self.targets.of(connection) {
            self.target_failed(target, &error.to_string());
        } else {
            tracing::debug!(%error, "a peer was not reached");
        }
    }

    pub(super) fn target_failed(&mut self, target: TargetId, reason: &str) {
        let text = self.targets.text(target).unwrap_or_default();
        let kind = self.targets.kind(target);
        if self.targets.failed(target, Instant::now()) && kind != Some(Kind::Local) {
            tracing::warn!(peer = text, reason, "a peer can't be reached so far");
        } else {
            tracing::debug!(peer = text, reason, "a peer can't be reached");
        }
    }

    /// Notes peers on the local network. Of two that find each other, one begins.
    pub(super) fn on_local(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let local = *self.swarm.local_peer_id();
        let now = Instant::now();
        for (peer, address) in found {
            let is_place = Place::of(&address).is_some_and(|place| place.ip().is_some());
            if peer == local || !is_place {
                continue;
            }
            let wait = if local < peer {
                Duration::ZERO
            } else {
                LOCAL_DELAY.mul_f64(0.5 + random() / 2.0)
            };
            self.targets.add_local(peer, plain(&address), now + wait);
        }
        self.dial_due(now);
    }

    /// Connects to a few providers, while the query that named them knows their addresses.
    pub(super) fn dial_providers(&mut self, providers: &[PeerId]) {
        let local = *self.swarm.local_peer_id();
        let new = providers
            .iter()
            .filter(|peer| **peer != local && !self.swarm.is_connected(peer))
            .take(PROVIDERS_DIALLED_MAX)
            .copied()
            .collect::<Vec<_>>();
        for peer in new {
            if let Err(error) = self.swarm.dial(options(Some(peer), Vec::new())) {
                tracing::debug!(%peer, %error, "a provider was not dialled");
            }
        }
    }
}

fn dial_target(
    swarm: &mut libp2p::Swarm<super::Behaviour>,
    targets: &mut targets::Targets,
    id: TargetId,
    peer: Option<PeerId>,
    addresses: Vec<Multiaddr>,
) {
    // Without a peer's id, only one address can be dialled at once; the next attempt takes another.
    let addresses = match (peer, addresses.len()) {
        (None, 2..) => {
            let chosen = targets.turn(id) % addresses.len();
            vec![addresses[chosen].clone()]
        }
        _ => addresses,
    };
    let options = options(peer, addresses);
    targets.trying(id, options.connection_id());
    if let Err(error) = swarm.dial(options) {
        tracing::debug!(%error, "a peer was not dialled");
        targets.failed(id, Instant::now());
    }
}

fn options(peer: Option<PeerId>, mut addresses: Vec<Multiaddr>) -> DialOpts {
    match (peer, addresses.pop()) {
        (Some(peer), None) => DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build(),
        (Some(peer), Some(last)) => {
            addresses.push(last);
            DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build()
        }
        (None, address) => DialOpts::unknown_peer_id()
            .address(address.unwrap_or_else(Multiaddr::empty))
            .build(),
    }
}
