//! Serving: who may connect, how many requests are answered at once, and for how long one is waited for.

use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::hash::Blake3;
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::TRANSFER_REQUEST_BYTES_MAX;
use cairn_protocol::transfer;
use iroh::Endpoint;
use iroh::endpoint::{Connection, Incoming, RecvStream, SendStream, VarInt};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connections::{Connections, Entered};
use super::encode::Pyramid;
use super::rate::Rate;
use super::traffic::Traffic;
use super::wire::{self, StreamError};
use super::{closure, endpoint};
use crate::store::Store;

/// Connections that peers made, together.
const CONNECTIONS_MAX: usize = 256;
/// From so many on, an address has to prove that it can be reached before a handshake costs us more.
const CONNECTIONS_TRUSTED: usize = 64;
/// Connections of one peer: two protocols, and each again while an old one ends.
const PEER_CONNECTIONS_MAX: usize = 4;
/// Time that a handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing was asked for so long is closed.
const CONNECTION_IDLE_MAX: Duration = Duration::from_mins(2);
/// Requests that are read at once; reading one takes a round trip, or until the timeout.
const READING_MAX: usize = 64;
/// Time that a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of one connection that are in work at once; others of it wait, in order.
const CONNECTION_REQUESTS_MAX: usize = 8;
/// Requests that are answered at once, each with two pieces in memory; others wait, in order.
const ANSWERS_MAX: usize = 32;
/// Bytes of hash trees above the pieces that are kept for the next request.
const TREES_BYTES_MAX: u64 = 16 << 20;
/// Pieces a second that a connection may make us read and hash to send little of them.
const WASTE_RATE: u64 = 256;
/// As much as such pieces may be asked for at once.
const WASTE_BURST: Duration = Duration::from_secs(16);

/// Whether a peer may have a blob.
pub(super) type MayRead = Arc<dyn Fn(&PublicKey, &Blake3) -> bool + Send + Sync>;

/// What all connections share.
pub(super) struct Server {
    pub(super) store: Store,
    pub(super) may_read: MayRead,
    pub(super) traffic: Arc<Traffic>,
    pub(super) upload_rate: Option<Rate>,
    /// Blocking work: reading and hashing.
    pub(super) working: Arc<Semaphore>,
    pub(super) trees: Cache<Blake3, Arc<Pyramid>, TreeWeighter>,
    pub(super) closures: closure::Closures,
    reading: Semaphore,
    pub(super) answering: Arc<Semaphore>,
    connections: Connections,
}

/// Weighs the trees that are kept.
#[derive(Debug, Clone)]
pub(super) struct TreeWeighter;

impl Weighter<Blake3, Arc<Pyramid>> for TreeWeighter {
    fn weight(&self, _: &Blake3, tree: &Arc<Pyramid>) -> u64 {
        tree.bytes().max(1)
    }
}

/// Why an answer ended before its end; the stream then just ends, so that what was sent is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// Not here, or not for this peer: the same to it.
    #[error("it is not here")]
    NotHere,
    /// The peer or the connection.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A request that is refused with a code.
    #[error("refused: {0}")]
    Refused(&'static str, VarInt),
}

/// One connection, as its requests see it.
pub(super) struct Client {
    pub(super) server: Arc<Server>,
    pub(super) peer: PublicKey,
    pub(super) waste: Rate,
    requests: Semaphore,
}

impl Server {
    pub(super) fn new(
        store: Store,
        may_read: MayRead,
        traffic: Arc<Traffic>,
        upload_rate: Option<u64>,
        working: Arc<Semaphore>,
    ) -> Self {
        let trees = usize::try_from(TREES_BYTES_MAX / (64 << 10)).unwrap_or(1);
        Self {
            store,
            may_read,
            traffic,
            upload_rate: upload_rate.map(Rate::new),
            working,
            trees: Cache::with_weighter(trees, TREES_BYTES_MAX, TreeWeighter),
            closures: closure::Closures::default(),
            reading: Semaphore::new(READING_MAX),
            answering: Arc::new(Semaphore::new(ANSWERS_MAX)),
            connections: Connections::new(PEER_CONNECTIONS_MAX),
        }
    }

    /// Accepts connections until `stop`.
    pub(super) async fn run(self: Arc<Self>, endpoint: Endpoint, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                    continue;
                }
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            if connections.len() >= CONNECTIONS_MAX {
                incoming.refuse();
            } else if connections.len() >= CONNECTIONS_TRUSTED && !incoming.remote_addr_validated()
            {
                incoming.retry().ok();
            } else {
                connections.spawn(Arc::clone(&self).connection(incoming));
            }
        }
        connections.shutdown().await;
        endpoint.close().await;
    }

    async fn connection(self: Arc<Self>, incoming: Incoming) {
        let Ok(accepting) = incoming.accept() else {
            return;
        };
        let connection = match timeout(HANDSHAKE_TIMEOUT, accepting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a handshake failed");
                return;
            }
            Err(_) => return,
        };
        let peer = endpoint::public_key(connection.remote_id());
        let entered = self.connections.enter(peer);
        let own = connection.alpn() == transfer::ALPN;
        let client = Arc::new(Client::new(&self, peer));
        client.serve(&connection, own, &entered).await;
    }
}

impl Client {
    pub(super) fn new(server: &Arc<Server>, peer: PublicKey) -> Self {
        Self {
            server: Arc::clone(server),
            peer,
            waste: Rate::with_burst(WASTE_RATE, WASTE_BURST),
            requests: Semaphore::new(CONNECTION_REQUESTS_MAX),
        }
    }

    async fn serve(self: &Arc<Self>, connection: &Connection, own: bool, entered: &Entered) {
        let mut requests = JoinSet::new();
        loop {
            tokio::select! {
                () = entered.end.cancelled() => {
                    connection.close(VarInt::from_u32(1), b"too many connections");
                    break;
                }
                Some(ended) = requests.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a request's task failed");
                    }
                }
                accepted = timeout(CONNECTION_IDLE_MAX, connection.accept_bi()) => match accepted {
                    Ok(Ok((send, recv))) => {
                        // As many tasks as the transport lets streams be open.
                        requests.spawn(Arc::clone(self).request(send, recv, own));
                    }
                    Ok(Err(_)) => break,
                    Err(_) if requests.is_empty() => {
                        connection.close(VarInt::from_u32(0), b"idle");
                        break;
                    }
                    Err(_) => {}
                },
            }
        }
        requests.shutdown().await;
    }

    async fn request(self: Arc<Self>, mut send: SendStream, mut recv: RecvStream, own: bool) {
        // What was asked first is sent first: whoever asks for several things waits for them in order.
        let order = i32::try_from(send.id().index()).unwrap_or(i32::MAX);
        send.set_priority(-order).ok();
        let answered = self.answer(&mut send, &mut recv, own).await;
        match answered {
            Ok(()) | Err(Cut::NotHere) => {
                send.finish().ok();
            }
            Err(Cut::Refused(reason, code)) => {
                tracing::debug!(peer = %self.peer, reason, "a request about blobs is refused");
                send.reset(code).ok();
                recv.stop(code).ok();
            }
            Err(Cut::Stream(error)) => {
                tracing::debug!(peer = %self.peer, %error, "an answer about blobs is cut");
                send.reset(iroh_blobs::protocol::ERR_LIMIT).ok();
            }
        }
    }

    async fn answer(
        &self,
        send: &mut SendStream,
        recv: &mut RecvStream,
        own: bool,
    ) -> Result<(), Cut> {
        let closed = |_| Cut::NotHere;
        let _turn = self.requests.acquire().await.map_err(closed)?;
        let request = {
            let _reading = self.server.reading.acquire().await.map_err(closed)?;
            wire::read_small(recv, TRANSFER_REQUEST_BYTES_MAX, REQUEST_TIMEOUT).await
        };
        let request = match request {
            Ok(request) => request,
            Err(StreamError::TooLong(_)) => {
                let code = iroh_blobs::protocol::ERR_LIMIT;
                return Err(Cut::Refused("it is too long", code));
            }
            Err(error) => return Err(error.into()),
        };
        let _answering = self.server.answering.acquire().await.map_err(closed)?;
        if own {
            Box::pin(self.answer_own(send, &request)).await
        } else {
            Box::pin(self.answer_iroh(send, &request)).await
        }
    }

    /// Runs blocking work, when it is this one's turn.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Cut> {
        let working = Arc::clone(&self.server.working);
        let permit = working.acquire_owned().await.map_err(|_| Cut::NotHere)?;
        let job = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        job.await.map_err(|error| {
            tracing::error!(%error, "reading for a peer failed");
            Cut::NotHere
        })
    }
}
