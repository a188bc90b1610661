//! Where peers are, and one connection to each for each protocol.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::key::PublicKey;
use cairn_protocol::transfer;
use iroh::endpoint::{
    ConnectError, ConnectingError, Connection, ConnectionError, RecvStream, SendStream,
    TransportErrorCode, VarInt,
};
use iroh::{Endpoint, EndpointAddr};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::{TransferError, endpoint};

/// Peers whose addresses are remembered; the least asked for are forgotten first.
const PEERS_MAX: usize = 4_096;
/// Addresses of one peer that are tried.
const ADDRESSES_MAX: usize = 8;
/// Connections that are kept; when all are in use, a further peer can't be reached.
const CONNECTIONS_MAX: usize = 256;
/// Streams of one connection that are asked for before they are read. With none the sender would wait each
/// time that we are busy. All that comes on them fits the connection's window beside what is being read: or
/// else they might fill it, and what is read first could not come.
const AHEAD_MAX: usize = 3;
/// Time that a handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a stream may take to open: as long as a peer lets all its streams be in use.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that nobody used for so long is closed.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// A connection in doubt must show a sign of life within this: longer than the endpoint's heartbeat of 5 s.
const DOUBT_TIME: Duration = Duration::from_secs(7);

type Route = (PublicKey, &'static [u8]);

/// Connections that this node made.
#[derive(Debug)]
pub(super) struct Pool {
    endpoint: Endpoint,
    addresses: Cache<PublicKey, Arc<[SocketAddr]>>,
    slots: Mutex<HashMap<Route, Arc<Slot>>>,
    /// Routes that were refused for the protocol's sake: not dialled again until the peer moves.
    foreign: Cache<Route, ()>,
}

#[derive(Debug)]
struct Slot {
    /// Locked while it is dialled, so that there is one dial at a time.
    connection: tokio::sync::Mutex<Option<Connection>>,
    used: Mutex<Instant>,
    ahead: Arc<Semaphore>,
}

/// One request's stream; its connection is not closed for idleness meanwhile.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    slot: Arc<Slot>,
}

impl Stream {
    /// Leave to open another one on its connection, to be read after this; held until it is read.
    pub(super) fn ask_ahead(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slot.ahead).try_acquire_owned().ok()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        *self.slot.used.lock() = Instant::now();
    }
}

impl Pool {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            addresses: Cache::new(PEERS_MAX),
            slots: Mutex::default(),
            foreign: Cache::new(PEERS_MAX),
        }
    }

    /// Whether the peer was found not to speak a protocol.
    pub(super) fn is_foreign(&self, peer: PublicKey, alpn: &'static [u8]) -> bool {
        self.foreign.get(&(peer, alpn)).is_some()
    }

    /// Takes note of a peer's addresses, as it says them when it is met. Connections from before are left,
    /// even where the addresses are the same: a peer that crashed knows nothing of them.
    pub(super) fn meet(&self, peer: PublicKey, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(ADDRESSES_MAX);
        self.addresses.insert(peer, addresses.into());
        // Who asks next dials anew; requests under way end on the connection they have.
        self.slots.lock().retain(|(of, _), _| *of != peer);
        for alpn in [iroh_blobs::ALPN, transfer::ALPN] {
            self.foreign.remove(&(peer, alpn));
        }
    }

    /// Where a peer is, as it said.
    pub(super) fn addresses(&self, peer: &PublicKey) -> Option<Arc<[SocketAddr]>> {
        self.addresses.get(peer).filter(|known| !known.is_empty())
    }

    /// Leaves the connections to a peer, of whom there is reason to think that it is gone: who asks next
    /// dials anew, and what is under way is cut off unless the peer shows a sign of life.
    ///
    /// A process that was killed, and a machine that lost its power, say no farewell; without this, what
    /// waits for them learns it only when the connection times out.
    pub(super) fn doubt(&self, peer: PublicKey) {
        let mut left = Vec::new();
        self.slots.lock().retain(|(of, _), slot| {
            if *of == peer {
                left.push(Arc::clone(slot));
            }
            *of != peer
        });
        for slot in left {
            // Locked where it is being dialled: that has a timeout of its own.
            let held = slot.connection.try_lock().ok();
            let Some(connection) = held.and_then(|mut held| held.take()) else {
                continue;
            };
            let seen = connection.stats().udp_rx.datagrams;
            // Not kept from ending when nobody uses it any more.
            let connection = connection.weak_handle();
            tokio::spawn(async move {
                tokio::time::sleep(DOUBT_TIME).await;
                if let Some(connection) = connection.upgrade()
                    && connection.close_reason().is_none()
                    && connection.stats().udp_rx.datagrams == seen
                {
                    tracing::debug!(%peer, "a connection shows no sign of life");
                    connection.close(VarInt::from_u32(0), b"no sign of life");
                }
            });
        }
    }

    /// Opens a stream on the peer's connection, which is made where there is none.
    pub(super) async fn open(
        &self,
        peer: PublicKey,
        alpn: &'static [u8],
    ) -> Result<Stream, TransferError> {
        let slot = self.slot((peer, alpn))?;
        // A connection that broke is noticed when it is used: then another is made, once.
        let mut attempts = 2;
        loop {
            attempts -= 1;
            let connection = self.connection(&slot, peer, alpn).await?;
            match timeout(OPEN_TIMEOUT, connection.open_bi()).await {
                Ok(Ok((send, recv))) => return Ok(Stream { send, recv, slot }),
                Ok(Err(error)) if attempts == 0 => {
                    return Err(TransferError::Broken(error.to_string()));
                }
                Ok(Err(_)) => {}
                Err(_) => {
                    let reason = "the peer lets no further stream be opened";
                    return Err(TransferError::Broken(reason.to_owned()));
                }
            }
        }
    }

    fn slot(&self, route: Route) -> Result<Arc<Slot>, TransferError> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&route) {
            *slot.used.lock() = Instant::now();
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= CONNECTIONS_MAX {
            let unused = slots
                .iter()
                .filter(|(_, slot)| Arc::strong_count(slot) == 1);
            let Some(oldest) = unused.min_by_key(|(_, slot)| *slot.used.lock()) else {
                let reason = format!("{CONNECTIONS_MAX} connections are in use");
                return Err(TransferError::Unreachable(reason));
            };
            let oldest = *oldest.0;
            slots.remove(&oldest);
        }
        let slot = Arc::new(Slot {
            connection: tokio::sync::Mutex::default(),
            used: Mutex::new(Instant::now()),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
        });
        slots.insert(route, Arc::clone(&slot));
        Ok(slot)
    }

    async fn connection(
        &self,
        slot: &Slot,
        peer: PublicKey,
        alpn: &'static [u8],
    ) -> Result<Connection, TransferError> {
        let mut held = slot.connection.lock().await;
        if let Some(connection) = &*held
            && connection.close_reason().is_none()
        {
            return Ok(connection.clone());
        }
        *held = None;
        let unreachable = |reason: String| TransferError::Unreachable(reason);
        if self.is_foreign(peer, alpn) {
            return Err(unreachable("it does not speak this protocol".to_owned()));
        }
        let id = endpoint::endpoint_id(&peer)
            .ok_or_else(|| unreachable("its key is of another kind than a node's".to_owned()))?;
        let addresses = self.addresses(&peer);
        let addresses =
            addresses.ok_or_else(|| unreachable("no address is known of it".to_owned()))?;
        let address = addresses.iter().fold(EndpointAddr::new(id), |to, address| {
            to.with_ip_addr(*address)
        });
        let dial = Box::pin(self.endpoint.connect(address, alpn));
        let connection = timeout(CONNECT_TIMEOUT, dial)
            .await
            .map_err(|_| unreachable("it does not answer".to_owned()))?
            .map_err(|error| {
                if is_refused_protocol(&error) {
                    self.foreign.insert((peer, alpn), ());
                }
                unreachable(format!("{error:#}"))
            })?;
        *held = Some(connection.clone());
        Ok(connection)
    }

    /// Closes connections that nobody used for a while; to be called now and then.
    pub(super) fn close_idle(&self) {
        let idle = |slot: &Arc<Slot>| {
            Arc::strong_count(slot) == 1 && slot.used.lock().elapsed() >= IDLE_MAX
        };
        self.slots.lock().retain(|_, slot| {
            let idle = idle(slot);
            if idle
                && let Ok(mut held) = slot.connection.try_lock()
                && let Some(connection) = held.take()
            {
                connection.close(VarInt::from_u32(0), b"idle");
            }
            !idle
        });
    }
}

/// Whether a handshake failed since the peer speaks other protocols (TLS alert 120).
fn is_refused_protocol(error: &ConnectError) -> bool {
    let refused = TransportErrorCode::crypto(120);
    let (ConnectError::Connection { source, .. }
    | ConnectError::Connecting {
        source: ConnectingError::ConnectionError { source, .. },
        ..
    }) = error
    else {
        return false;
    };
    match source {
        ConnectionError::ConnectionClosed(close) => close.error_code == refused,
        ConnectionError::TransportError(error) => error.code == refused,
        _ => false,
    }
}
