//! Streams of our protocol, one each way, as a behaviour of the swarm; and peers that are refused.
//!
//! Not libp2p-stream: that keeps something of every connection there ever was, picks the connection by
//! chance, and loses a stream that arrives while another is handed over.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use parking_lot::Mutex;

/// Peers that are refused at once; of more, the one that is refused for the shortest time is let in again.
const REFUSED_MAX: usize = 10_000;

/// Connections to us from one address that are being made; further ones are refused.
const PENDING_PER_IP_MAX: usize = 32;
/// Connections to us from one address; further ones are refused.
const ESTABLISHED_PER_IP_MAX: usize = 128;

/// Peers that may not connect for a while; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Refused(Arc<Mutex<HashMap<PeerId, Instant>>>);

/// A connection with a peer that is refused.
#[derive(Debug, thiserror::Error)]
#[error("this peer is refused for a while")]
struct RefusedError;

/// A connection from an address that has enough of them.
#[derive(Debug, thiserror::Error)]
#[error("this address has too many connections")]
struct CrowdError;

/// Connections to us by the address that they come from (a /64 of IPv6), so that one can't take all.
#[derive(Debug, Default)]
struct Crowd {
    pending: HashMap<ConnectionId, IpAddr>,
    established: HashMap<ConnectionId, IpAddr>,
}

impl Crowd {
    fn place(address: &Multiaddr) -> IpAddr {
        match super::address::ip_of(address) {
            Some(IpAddr::V6(ip)) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
            Some(ip) => ip,
            None => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        }
    }

    fn count(of: &HashMap<ConnectionId, IpAddr>, place: IpAddr) -> usize {
        of.values().filter(|from| **from == place).count()
    }

    fn begin(&mut self, id: ConnectionId, address: &Multiaddr) -> Result<(), ConnectionDenied> {
        let place = Self::place(address);
        if Self::count(&self.pending, place) >= PENDING_PER_IP_MAX
            || Self::count(&self.established, place) >= ESTABLISHED_PER_IP_MAX
        {
            return Err(ConnectionDenied::new(CrowdError));
        }
        self.pending.insert(id, place);
        Ok(())
    }

    fn on_event(&mut self, event: &FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(made) => {
                if let Some(place) = self.pending.remove(&made.connection_id) {
                    self.established.insert(made.connection_id, place);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.established.remove(&closed.connection_id);
            }
            FromSwarm::ListenFailure(failed) => {
                self.pending.remove(&failed.connection_id);
            }
            _ => {}
        }
    }
}

impl Refused {
    /// Refuses a peer for that long from now; whether it was let in until now.
    pub(super) fn insert(&self, peer: PeerId, time: Duration) -> bool {
        let now = Instant::now();
        let Some(until) = now.checked_add(time) else {
            return false;
        };
        let mut refused = self.0.lock();
        if refused.len() >= REFUSED_MAX && !refused.contains_key(&peer) {
            refused.retain(|_, until| *until > now);
            let soonest = refused.iter().min_by_key(|(_, until)| **until);
            if let Some(peer) = soonest.map(|(peer, _)| *peer)
                && refused.len() >= REFUSED_MAX
            {
                refused.remove(&peer);
            }
        }
        let entry = refused.entry(peer).or_insert(now);
        let is_new = *entry <= now;
        *entry = until.max(*entry);
        is_new
    }

    /// Whether a peer is refused now.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        let mut refused = self.0.lock();
        match refused.get(peer) {
            Some(until) if *until > Instant::now() => true,
            Some(_) => {
                refused.remove(peer);
                false
            }
            None => false,
        }
    }

    fn check(&self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        if self.contains(peer) {
            return Err(ConnectionDenied::new(RefusedError));
        }
        Ok(())
    }
}

/// What became of a stream.
#[derive(Debug)]
pub(super) enum LaneEvent {
    /// Ours to send on is open.
    Opened(Stream),
    /// The peer opened the one that it sends on.
    Accepted(Stream),
    /// The peer doesn't speak our protocol.
    Unsupported,
    /// It could not be opened.
    Failed(String),
}

/// An event of a peer's connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) event: LaneEvent,
}

/// The behaviour.
#[derive(Debug)]
pub(super) struct Lanes {
    protocol: StreamProtocol,
    refused: Refused,
    crowd: Crowd,
    events: VecDeque<ToSwarm<Lane, Open>>,
}

/// The order to open a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open;

impl Lanes {
    /// Opens and accepts streams of a protocol.
    pub(super) fn new(protocol: StreamProtocol, refused: Refused) -> Self {
        Self {
            protocol,
            refused,
            crowd: Crowd::default(),
            events: VecDeque::new(),
        }
    }

    /// Opens a stream on a connection.
    pub(super) fn open(&mut self, peer: PeerId, connection: ConnectionId) {
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: Open,
        });
    }

    fn handler(&self, peer: &PeerId) -> Result<LaneHandler, ConnectionDenied> {
        self.refused.check(peer)?;
        Ok(LaneHandler {
            protocol: self.protocol.clone(),
            open: false,
            opened: None,
            accepted: None,
        })
    }
}

impl NetworkBehaviour for Lanes {
    type ConnectionHandler = LaneHandler;
    type ToSwarm = Lane;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.crowd.begin(id, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        peer.map_or(Ok(()), |peer| self.refused.check(&peer))?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.crowd.on_event(&event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.events.push_back(ToSwarm::GenerateEvent(Lane {
            peer,
            connection,
            event,
        }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// One connection's part.
#[derive(Debug)]
pub(super) struct LaneHandler {
    protocol: StreamProtocol,
    open: bool,
    opened: Option<LaneEvent>,
    /// The newest only: a peer sends on one stream.
    accepted: Option<Stream>,
}

impl ConnectionHandler for LaneHandler {
    type FromBehaviour = Open;
    type ToBehaviour = LaneEvent;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        self.open = true;
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Some(event) = self.opened.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(stream) = self.accepted.take() {
            let event = LaneEvent::Accepted(stream);
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if std::mem::take(&mut self.open) {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ()),
            });
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => self.accepted = Some(protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol, ..
            }) => self.opened = Some(LaneEvent::Opened(protocol)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.opened = Some(match error {
                    StreamUpgradeError::NegotiationFailed => LaneEvent::Unsupported,
                    error => LaneEvent::Failed(error.to_string()),
                });
            }
            _ => {}
        }
    }
}
