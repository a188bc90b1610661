//! The data plane: iroh-blobs' protocol over iroh QUIC on our own store, asking and serving.
//!
//! One endpoint, one key (the node's), two protocols on it: iroh-blobs' for bytes, and
//! [`cairn_protocol::transfer`] for who holds what. No relay and no name service: peers are reached at the
//! addresses that [`Blobs::meet`] was told.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::{PublicKey, SecretKey};
use cairn_protocol::piece::PieceList;
use cairn_protocol::transfer::Held;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::store::Store;

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
pub(crate) struct Blobs {}

impl Blobs {
    /// Binds and begins to serve, until `stop`. Call within a tokio runtime.
    pub(crate) async fn spawn(
        config: BlobsConfig,
        key: &SecretKey,
        store: Store,
        access: Access,
        stop: CancellationToken,
    ) -> Result<Self, TransferError> {
        let _ = (config, key, store, access, stop);
        todo!()
    }

    /// UDP ports that peers can reach it at.
    pub(crate) fn ports(&self) -> Vec<u16> {
        todo!()
    }

    /// Takes note of where a peer's blobs are served.
    pub(crate) fn meet(&self, peer: PublicKey, addresses: Vec<SocketAddr>) {
        let _ = (peer, addresses);
        todo!()
    }

    /// What a peer holds of each of these blobs.
    pub(crate) async fn look_up(
        &self,
        peer: PublicKey,
        hashes: Vec<Blake3>,
    ) -> Result<Vec<Held>, TransferError> {
        let _ = (peer, hashes);
        todo!()
    }

    /// The piece list of a file, checked against its hash; from any iroh-blobs program.
    pub(crate) async fn list(
        &self,
        peer: PublicKey,
        hash: Blake3,
        size: u64,
    ) -> Result<PieceList, TransferError> {
        let _ = (peer, hash, size);
        todo!()
    }

    /// The metadata blobs that a refs blob reaches, as the peer says, from `skip` on; whether there are more.
    pub(crate) async fn closure(
        &self,
        peer: PublicKey,
        refs: Blake3,
        skip: u64,
    ) -> Result<(Vec<Blake3>, bool), TransferError> {
        let _ = (peer, refs, skip);
        todo!()
    }

    /// Fetches whole blobs in one request, each verified, at most `OBJECT_BYTES_MAX`; they arrive in the
    /// order asked for. One that the peer has not got ends the transfer with [`TransferError::Absent`].
    pub(crate) async fn blobs(
        &self,
        peer: PublicKey,
        hashes: Vec<Blake3>,
        into: mpsc::Sender<(Blake3, Bytes)>,
    ) -> Result<(), TransferError> {
        let _ = (peer, hashes, into);
        todo!()
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
        let _ = (peer, hash, list, pieces, into);
        todo!()
    }

    /// Bytes of content sent to and taken from each peer since the start: key, sent, taken.
    pub(crate) fn traffic(&self) -> Vec<(PublicKey, u64, u64)> {
        todo!()
    }
}
