//! Peers to be connected to: those that a user named, for ever; those seen on the local network, while they
//! are there; and those to be dialled once.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::address::{Family, Host, Place};

/// Targets at once; further ones are not taken.
const TARGETS_MAX: usize = 512;
/// Addresses of one target on the local network; further ones are not taken.
const ADDRESSES_MAX: usize = 8;
/// Addresses that are taken of what a name leads to.
const RESOLVED_MAX: usize = 8;
/// Time between a target's loss and the first attempt to reach it again.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// Time between two attempts at most.
const BACK_OFF_MAX: Duration = Duration::from_mins(1);
/// A connection that lasted this long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(30);
/// Time that a name server has.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a target is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A user named it.
    Configured,
    /// It is on the local network.
    Local,
    /// It is dialled once.
    Once,
}

/// Names a target while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TargetId(u64);

#[derive(Debug)]
enum State {
    Waiting(Instant),
    /// A name is being looked up, or the address dialled.
    Trying(Option<ConnectionId>),
    Up(Instant),
}

#[derive(Debug)]
struct Target {
    id: TargetId,
    kind: Kind,
    /// What to resolve first, if anything.
    place: Option<Place>,
    addresses: Vec<Multiaddr>,
    /// Who was found there, or is to be.
    peer: Option<PeerId>,
    /// Whoever else answers there is not meant.
    named: Option<PeerId>,
    state: State,
    failures: u32,
}

/// What to do for a target that is due.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: TargetId,
    pub(super) peer: Option<PeerId>,
    pub(super) what: What,
}

/// How to begin.
#[derive(Debug)]
pub(super) enum What {
    /// Ask what a name's addresses are.
    Resolve(Place),
    /// Dial these.
    Dial(Vec<Multiaddr>),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    targets: Vec<Target>,
    last: u64,
}

impl Targets {
    /// Adds a place; whether there was room.
    pub(super) fn add(&mut self, place: Place, kind: Kind, now: Instant) -> bool {
        let peer = place.peer;
        let addresses = place.ip().map(|ip| place.at(ip)).into_iter().collect();
        let named = matches!(place.host, Host::Name(..));
        self.push(named.then_some(place), addresses, peer, kind, now)
    }

    /// Adds an address of a peer on the local network, to be dialled from then on.
    pub(super) fn add_local(&mut self, peer: PeerId, address: Multiaddr, from: Instant) {
        let known = |target: &&mut Target| target.kind == Kind::Local && target.peer == Some(peer);
        if let Some(target) = self.targets.iter_mut().find(known) {
            if target.addresses.len() < ADDRESSES_MAX && !target.addresses.contains(&address) {
                target.addresses.push(address);
            }
        } else {
            self.push(None, vec![address], Some(peer), Kind::Local, from);
        }
    }

    /// Takes an address of a peer on the local network out again.
    pub(super) fn remove_local(&mut self, peer: PeerId, address: &Multiaddr) {
        self.targets.retain_mut(|target| {
            if target.kind != Kind::Local || target.peer != Some(peer) {
                return true;
            }
            target.addresses.retain(|known| known != address);
            !target.addresses.is_empty()
        });
    }

    fn push(
        &mut self,
        place: Option<Place>,
        addresses: Vec<Multiaddr>,
        peer: Option<PeerId>,
        kind: Kind,
        from: Instant,
    ) -> bool {
        if self.targets.len() >= TARGETS_MAX && kind != Kind::Configured {
            return false;
        }
        self.last += 1;
        self.targets.push(Target {
            id: TargetId(self.last),
            kind,
            place,
            addresses,
            peer,
            named: peer,
            state: State::Waiting(from),
            failures: 0,
        });
        true
    }

    /// Attempts that are due; each is answered by [`Self::trying`] or [`Self::failed`].
    pub(super) fn due(&mut self, now: Instant, is_up: impl Fn(&PeerId) -> bool) -> Vec<Attempt> {
        let mut due = Vec::new();
        self.targets.retain_mut(|target| {
            let up = target.peer.as_ref().is_some_and(&is_up);
            match target.state {
                State::Up(_) if up => {}
                State::Up(since) => {
                    let good = now.saturating_duration_since(since) >= GOOD_AFTER;
                    target.failures = if good { 0 } else { target.failures + 1 };
                    target.state = State::Waiting(now + back_off(target.failures));
                }
                _ if up => {
                    target.state = State::Up(now);
                }
                State::Waiting(at) if at <= now => {
                    target.state = State::Trying(None);
                    due.push(Attempt {
                        id: target.id,
                        peer: target.peer,
                        what: target
                            .place
                            .clone()
                            .map_or_else(|| What::Dial(target.addresses.clone()), What::Resolve),
                    });
                }
                State::Waiting(_) | State::Trying(_) => {}
            }
            target.kind != Kind::Once || !matches!(target.state, State::Up(_))
        });
        due
    }

    fn get(&mut self, id: TargetId) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.id == id)
    }

    /// Why a target is one.
    pub(super) fn kind(&self, id: TargetId) -> Option<Kind> {
        let target = self.targets.iter().find(|target| target.id == id)?;
        Some(target.kind)
    }

    /// How often a target failed: by it, the next of several addresses is chosen.
    pub(super) fn turn(&self, id: TargetId) -> usize {
        let target = self.targets.iter().find(|target| target.id == id);
        target.map_or(0, |target| target.failures as usize)
    }

    /// A target's addresses, to be shown.
    pub(super) fn text(&self, id: TargetId) -> Option<String> {
        let target = self.targets.iter().find(|target| target.id == id)?;
        let addresses = target.addresses.iter().map(ToString::to_string);
        Some(match target.place.as_ref().map(|place| &place.host) {
            Some(Host::Name(name, _)) => name.clone(),
            _ => addresses.collect::<Vec<_>>().join(" "),
        })
    }

    /// An attempt became this connection.
    pub(super) fn trying(&mut self, id: TargetId, connection: ConnectionId) {
        if let Some(target) = self.get(id) {
            target.state = State::Trying(Some(connection));
        }
    }

    /// An attempt failed; whether it is worth a warning.
    pub(super) fn failed(&mut self, id: TargetId, now: Instant) -> bool {
        let Some(target) = self.get(id) else {
            return false;
        };
        target.state = State::Waiting(now + back_off(target.failures));
        target.failures = target.failures.saturating_add(1);
        // Where none was named, another node may stand there by now.
        target.peer = target.named;
        let first = target.failures == 1;
        if target.kind == Kind::Once {
            self.targets.retain(|target| target.id != id);
        }
        first
    }

    /// A connection that belongs to a target came to be.
    pub(super) fn connected(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) {
        for target in &mut self.targets {
            if matches!(target.state, State::Trying(Some(tried)) if tried == connection) {
                target.peer = Some(peer);
                target.state = State::Up(now);
            }
        }
    }

    /// The target whose attempt a connection was.
    pub(super) fn of(&self, connection: ConnectionId) -> Option<TargetId> {
        self.targets
            .iter()
            .find(
                |target| matches!(target.state, State::Trying(Some(tried)) if tried == connection),
            )
            .map(|target| target.id)
    }
}

/// Asks the system what a name's addresses are.
pub(super) async fn resolve(place: Place) -> Result<Vec<Multiaddr>, String> {
    let Host::Name(name, family) = &place.host else {
        return Ok(place.ip().map(|ip| place.at(ip)).into_iter().collect());
    };
    let asked = tokio::net::lookup_host((name.as_str(), place.port));
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, asked)
        .await
        .map_err(|_| format!("no answer about {name} within {RESOLVE_TIMEOUT:?}"))?
        .map_err(|error| format!("look up {name}: {error}"))?;
    let is_wanted = |ip: &IpAddr| match family {
        None => true,
        Some(Family::V4) => ip.is_ipv4(),
        Some(Family::V6) => ip.is_ipv6(),
    };
    let ips = found.map(|address| address.ip()).filter(is_wanted);
    let addresses: Vec<_> = ips.take(RESOLVED_MAX).map(|ip| place.at(ip)).collect();
    if addresses.is_empty() {
        return Err(format!("{name} has no such address"));
    }
    Ok(addresses)
}

/// Doubles from the least to the most, and shortens by up to a quarter, so that not all come at once.
pub(super) fn back_off(failures: u32) -> Duration {
    let full = BACK_OFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACK_OFF_MAX);
    full.mul_f64(1.0 - random() / 4.0)
}

/// A number from 0 to below 1.
pub(super) fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness, nothing is spread out; no reason to fail.
    if getrandom::fill(&mut bytes).is_err() {
        return 0.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_target_is_tried_for_ever_and_ever_less_often() {
        let mut targets = Targets::default();
        let mut now = Instant::now();
        let place = Place::parse("/ip4/127.0.0.1/tcp/9").unwrap();
        assert!(targets.add(place, Kind::Configured, now));
        let mut waits = Vec::new();
        for _ in 0..12 {
            let due = targets.due(now, |_| false);
            assert_eq!(due.len(), 1);
            assert!(
                targets.due(now, |_| false).is_empty(),
                "one attempt at a time"
            );
            targets.failed(due[0].id, now);
            let begun = now;
            while targets.targets.iter().all(|target| match target.state {
                State::Waiting(at) => at > now,
                _ => unreachable!(),
            }) {
                now += Duration::from_millis(50);
            }
            waits.push(now - begun);
        }
        assert!(waits[0] <= Duration::from_millis(1050), "{waits:?}");
        assert!(
            waits.last().unwrap() >= &Duration::from_secs(45),
            "{waits:?}"
        );
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(61)));
    }

    #[test]
    fn a_place_is_dialled_again_whoever_stood_there_before_unless_a_peer_was_named() {
        let mut targets = Targets::default();
        let now = Instant::now();
        let (first, named) = (PeerId::random(), PeerId::random());
        let anybody = Place::parse("/ip4/127.0.0.1/tcp/9").unwrap();
        let one = Place::parse(&format!("/ip4/127.0.0.1/tcp/8/p2p/{named}")).unwrap();
        for place in [anybody, one] {
            assert!(targets.add(place, Kind::Configured, now));
        }
        let attempts = targets.due(now, |_| false);
        let connections = attempts.iter().zip([first, named]);
        for (number, (attempt, peer)) in connections.enumerate() {
            let connection = ConnectionId::new_unchecked(number);
            targets.trying(attempt.id, connection);
            targets.connected(connection, peer, now);
        }
        let lost = now + Duration::from_hours(1);
        assert!(targets.due(lost, |_| false).is_empty());
        let again = lost + BACK_OFF_MAX;
        for attempt in targets.due(again, |_| false) {
            targets.failed(attempt.id, again);
        }
        let later = again + BACK_OFF_MAX;
        let peers = targets.due(later, |_| false).into_iter();
        let peers: Vec<_> = peers.map(|attempt| attempt.peer).collect();
        assert_eq!(peers, [None, Some(named)]);
    }

    #[test]
    fn a_target_is_left_alone_while_its_peer_is_connected_however_it_came() {
        let mut targets = Targets::default();
        let now = Instant::now();
        let peer = PeerId::random();
        let address: Multiaddr = "/ip4/10.0.0.1/tcp/9".parse().unwrap();
        targets.add_local(peer, address.clone(), now);
        assert!(targets.due(now, |_| true).is_empty());
        assert!(
            targets.due(now, |_| false).is_empty(),
            "not at once when it is lost"
        );
        let later = now + Duration::from_secs(3);
        assert_eq!(targets.due(later, |_| false).len(), 1);
        targets.remove_local(peer, &address);
        assert!(targets.targets.is_empty());
    }
}
