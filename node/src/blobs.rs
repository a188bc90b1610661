//! The data plane: iroh-blobs' protocol over iroh QUIC on our own store, asking and serving.
//!
//! One endpoint, one key (the node's), two protocols on it: iroh-blobs' for bytes, and
//! [`cairn_protocol::transfer`] for who holds what. Pieces of files come over TCP where the peer can be
//! reached so, which costs half. No relay and no name service: peers are reached at the addresses that
//! [`Blobs::meet`] was told.

mod answer;
mod ask;
mod closure;
mod connections;
mod encode;
mod endpoint;
mod get;
mod http;
mod pool;
mod provide;
mod rate;
mod serve;
#[cfg(test)]
mod tests;
mod traffic;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::{PublicKey, SecretKey};
use cairn_protocol::piece::PieceList;
use cairn_protocol::transfer::Held;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::pool::Pool;
use self::rate::Rate;
use self::serve::{MayRead, Server};
use self::traffic::Traffic;
use crate::access::Access;
use crate::store::Store;

/// Time between two looks at connections that nobody uses.
const TIDY_INTERVAL: Duration = Duration::from_secs(15);
/// KiB of blobs above 1 MiB that are read into memory at once; further ones wait.
const LARGE_KIB_MAX: usize = 128 << 10;
/// Pieces that are read and hashed at once, at least; more where there are more processors.
const WORKERS_MIN: usize = 2;

/// Settings of the data plane.
#[derive(Debug, Clone)]
pub(crate) struct BlobsConfig {
    /// Addresses to bind, at most one of each family; port 0 takes a free one.
    pub(crate) bind: Vec<SocketAddr>,
    /// Bytes a second that are sent to all peers together, at most.
    pub(crate) upload_rate: Option<u64>,
    /// Bytes a second that are taken from all peers together, at most.
    pub(crate) download_rate: Option<u64>,
}

/// Why a transfer did not happen, or ended early.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TransferError {
    /// The peer can't be reached.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// The peer has not got it, or does not give it to us.
    #[error("the peer has not got it")]
    Absent,
    /// The peer sent what does not verify.
    #[error("the peer sent wrong data: {0}")]
    Lied(String),
    /// The connection broke, or the peer stopped.
    #[error("the transfer broke off: {0}")]
    Broken(String),
}

/// A verified piece, in the parts it came in.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Which one.
    pub(crate) index: u64,
    /// Its bytes, in order.
    pub(crate) parts: Vec<Bytes>,
}

/// The running data plane; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    inner: Arc<Inner>,
}

/// What asking needs; [`Server`] has what answering needs.
#[derive(Debug)]
struct Inner {
    pool: Pool,
    http: http::Peers,
    ports: Vec<u16>,
    traffic: Arc<Traffic>,
    download_rate: Option<Rate>,
    /// KiB of large blobs that may be in memory.
    large: Semaphore,
}

impl Blobs {
    /// Binds and begins to serve, until `stop`. Call within a tokio runtime.
    pub(crate) async fn spawn(
        config: BlobsConfig,
        key: &SecretKey,
        store: Store,
        access: Access,
        stop: CancellationToken,
    ) -> Result<Self, TransferError> {
        let may_read = move |peer: &PublicKey, hash: &Blake3| access.may_read(peer, hash);
        Self::spawn_with(config, key, store, Arc::new(may_read), stop).await
    }

    /// The same under another rule of who may read what.
    pub(crate) async fn spawn_with(
        config: BlobsConfig,
        key: &SecretKey,
        store: Store,
        may_read: MayRead,
        stop: CancellationToken,
    ) -> Result<Self, TransferError> {
        let identity = http::Identity::new(key)
            .map_err(|error| TransferError::Unreachable(format!("TLS: {error}")))?;
        let (endpoint, listeners) = endpoint::bind(&config.bind, key).await?;
        let mut ports: Vec<u16> = endpoint
            .bound_sockets()
            .iter()
            .map(SocketAddr::port)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        let traffic = Arc::new(Traffic::default());
        let workers = std::thread::available_parallelism().map_or(WORKERS_MIN, usize::from);
        let working = Arc::new(Semaphore::new(workers.max(WORKERS_MIN)));
        let server = Server::new(
            store,
            may_read,
            Arc::clone(&traffic),
            config.upload_rate,
            working,
        );
        let inner = Arc::new(Inner {
            pool: Pool::new(endpoint.clone()),
            http: http::Peers::new(identity.clone()),
            ports,
            traffic,
            download_rate: config.download_rate.map(Rate::new),
            large: Semaphore::new(LARGE_KIB_MAX),
        });
        let server = Arc::new(server);
        let by_http = http::run(Arc::clone(&server), listeners, identity, stop.clone());
        tokio::spawn(by_http);
        tokio::spawn(server.run(endpoint, stop.clone()));
        let tidied = Arc::downgrade(&inner);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(TIDY_INTERVAL).await;
                let Some(inner) = tidied.upgrade() else { break };
                inner.pool.close_idle();
                inner.http.close_idle();
            }
        }));
        Ok(Self { inner })
    }

    /// Ports, of UDP and TCP, that peers can reach it at.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.inner.ports.clone()
    }

    /// Takes note of where a peer's blobs are served.
    pub(crate) fn meet(&self, peer: PublicKey, addresses: Vec<SocketAddr>) {
        self.inner.http.meet(&peer);
        self.inner.pool.meet(peer, addresses);
    }

    /// Takes note that a peer may be gone: requests to it under way end soon unless it shows a sign of life.
    pub(crate) fn doubt(&self, peer: PublicKey) {
        self.inner.pool.doubt(peer);
        self.inner.http.doubt(&peer);
    }

    /// What a peer holds of each of these blobs.
    pub(crate) async fn look_up(
        &self,
        peer: PublicKey,
        hashes: Vec<Blake3>,
    ) -> Result<Vec<Held>, TransferError> {
        match self.inner.ask_held(peer, &hashes).await {
            Err(TransferError::Unreachable(_)) if self.speaks_iroh_blobs_alone(peer) => {
                let mut held = Vec::with_capacity(hashes.len());
                for hash in &hashes {
                    held.push(self.inner.look_up_by_size(peer, hash).await?);
                }
                Ok(held)
            }
            answer => answer,
        }
    }

    fn speaks_iroh_blobs_alone(&self, peer: PublicKey) -> bool {
        self.inner
            .pool
            .is_foreign(peer, cairn_protocol::transfer::ALPN)
    }

    /// The piece list of a file, checked against its hash; from any iroh-blobs program.
    pub(crate) async fn list(
        &self,
        peer: PublicKey,
        hash: Blake3,
        size: u64,
    ) -> Result<PieceList, TransferError> {
        if cairn_protocol::piece::piece_count(size) == 1 {
            return PieceList::decode(None, size, &hash)
                .map_err(|error| TransferError::Lied(error.to_string()));
        }
        match self.inner.ask_list(peer, &hash, size).await {
            Err(TransferError::Unreachable(_)) if self.speaks_iroh_blobs_alone(peer) => {
                Box::pin(self.inner.list_by_chunks(peer, &hash, size)).await
            }
            answer => answer,
        }
    }

    /// The metadata blobs that a refs blob reaches, as the peer says, from `skip` on; whether there are more.
    pub(crate) async fn closure(
        &self,
        peer: PublicKey,
        refs: Blake3,
        skip: u64,
    ) -> Result<(Vec<Blake3>, bool), TransferError> {
        self.inner.ask_closure(peer, refs, skip).await
    }

    /// Fetches whole blobs in one request, each verified, at most `OBJECT_BYTES_MAX`; they arrive in the
    /// order asked for. One that the peer has not got ends the transfer with [`TransferError::Absent`].
    pub(crate) async fn blobs(
        &self,
        peer: PublicKey,
        hashes: Vec<Blake3>,
        into: mpsc::Sender<(Blake3, Bytes)>,
    ) -> Result<(), TransferError> {
        self.inner.blobs(peer, &hashes, &into).await
    }

    /// Fetches pieces of a file, each verified, in order.
    pub(crate) async fn pieces(
        &self,
        peer: PublicKey,
        hash: Blake3,
        list: Arc<PieceList>,
        pieces: std::ops::Range<u64>,
        into: mpsc::Sender<Piece>,
    ) -> Result<(), TransferError> {
        let inner = &self.inner;
        let (by_http, to) = (pieces.clone(), into.clone());
        let by_http = inner.pieces_by_http(peer, &hash, &list, by_http, &to);
        match Box::pin(by_http).await {
            Err(TransferError::Unreachable(_)) => {}
            ended => return ended,
        }
        inner.pieces(peer, hash, &list, pieces, into).await
    }

    /// Bytes that were read from a peer since the start, whatever they are: whether it moves.
    pub(crate) fn moved(&self, peer: &PublicKey) -> u64 {
        self.inner.traffic.moved(peer)
    }

    /// Bytes of content sent to and taken from each peer since the start: key, sent, taken.
    pub(crate) fn traffic(&self) -> Vec<(PublicKey, u64, u64)> {
        self.inner.traffic.all()
    }
}
