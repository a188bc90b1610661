//! Two of ours, and ours with iroh-blobs' own, over real sockets.

#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of test content are small"
)]

mod hostile;
mod http;
mod own;
mod stock;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::{PublicKey, SecretKey};
use cairn_protocol::piece::{PieceHasher, PieceList};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::serve::MayRead;
use super::{Blobs, BlobsConfig, Piece, TransferError};
use crate::store::{Store, open_store};

/// No step of a test takes as long.
const DEADLINE: Duration = Duration::from_mins(1);

/// A store and its data plane.
pub(super) struct Node {
    _dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) blobs: Blobs,
    pub(super) key: PublicKey,
    _stop: DropGuard,
}

/// What carries pieces.
#[derive(Debug, Clone, Copy)]
pub(super) enum Carrier {
    Tcp,
    Quic,
}

pub(super) const CARRIERS: [Carrier; 2] = [Carrier::Tcp, Carrier::Quic];

pub(super) fn config() -> BlobsConfig {
    BlobsConfig {
        bind: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        upload_rate: None,
        download_rate: None,
    }
}

pub(super) fn everything() -> MayRead {
    Arc::new(|_, _| true)
}

impl Node {
    pub(super) async fn new(seed: u8) -> Self {
        Self::with(seed, config(), everything()).await
    }

    pub(super) async fn with(seed: u8, config: BlobsConfig, may_read: MayRead) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let secret = SecretKey::from_seed([seed; 32]);
        let stop = CancellationToken::new();
        let spawned = Blobs::spawn_with(config, &secret, store.clone(), may_read, stop.clone());
        Self {
            _dir: dir,
            store,
            blobs: spawned.await.unwrap(),
            key: secret.public(),
            _stop: stop.drop_guard(),
        }
    }

    /// Puts content into the store, as a push would.
    pub(super) fn add(&self, bytes: &[u8]) -> Blake3 {
        use std::io::{Seek as _, Write as _};
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let size = bytes.len() as u64;
        self.store
            .import(&mut &file, size, false, &mut |_| {})
            .unwrap()
            .blake3
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.blobs.ports()[0]))
    }

    pub(super) fn meet(&self, other: &Self) {
        self.blobs.meet(other.key, vec![other.address()]);
    }

    /// Fetches pieces; what came, and how it ended.
    pub(super) async fn pieces(
        &self,
        peer: PublicKey,
        hash: Blake3,
        list: &Arc<PieceList>,
        pieces: Range<u64>,
    ) -> (Vec<Piece>, Result<(), TransferError>) {
        self.pieces_over(None, peer, hash, list, pieces).await
    }

    /// The same over one carrier.
    pub(super) async fn pieces_over(
        &self,
        carrier: Option<Carrier>,
        peer: PublicKey,
        hash: Blake3,
        list: &Arc<PieceList>,
        pieces: Range<u64>,
    ) -> (Vec<Piece>, Result<(), TransferError>) {
        let (into, mut from) = mpsc::channel(4);
        let inner = &self.blobs.inner;
        let transfer = async move {
            match carrier {
                None => {
                    let list = Arc::clone(list);
                    self.blobs.pieces(peer, hash, list, pieces, into).await
                }
                Some(Carrier::Tcp) => inner.pieces_by_http(peer, &hash, list, pieces, &into).await,
                Some(Carrier::Quic) => inner.pieces(peer, hash, list, pieces, into).await,
            }
        };
        let taking = async {
            let mut all = Vec::new();
            while let Some(piece) = from.recv().await {
                all.push(piece);
            }
            all
        };
        let both = async { tokio::join!(transfer, taking) };
        let (ended, came) = tokio::time::timeout(DEADLINE, both).await.expect("in time");
        (came, ended)
    }

    /// Fetches blobs; what came, and how it ended.
    pub(super) async fn blobs(
        &self,
        peer: PublicKey,
        hashes: &[Blake3],
    ) -> (Vec<(Blake3, Bytes)>, Result<(), TransferError>) {
        let (into, mut from) = mpsc::channel(4);
        let transfer = self.blobs.blobs(peer, hashes.to_vec(), into);
        let taking = async {
            let mut all = Vec::new();
            while let Some(blob) = from.recv().await {
                all.push(blob);
            }
            all
        };
        let both = async { tokio::join!(transfer, taking) };
        let (ended, came) = tokio::time::timeout(DEADLINE, both).await.expect("in time");
        (came, ended)
    }
}

/// Bytes that no two positions of share.
pub(super) fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

pub(super) fn list_of(bytes: &[u8]) -> (Blake3, Arc<PieceList>) {
    let mut hasher = PieceHasher::new();
    hasher.update(bytes);
    let (root, list) = hasher.finish();
    let list = PieceList::decode(list.as_deref(), bytes.len() as u64, &root).unwrap();
    (root, Arc::new(list))
}

pub(super) fn joined(pieces: &[Piece]) -> Vec<u8> {
    let parts = pieces.iter().flat_map(|piece| &piece.parts);
    parts.flat_map(|part| part.iter().copied()).collect()
}

/// Sizes around every boundary of chunks, groups and pieces.
pub(super) const SIZES: &[usize] = &[
    0,
    1,
    1023,
    1024,
    1025,
    16_383,
    16_384,
    16_385,
    32 << 10,
    65_535,
    65_536,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    (1 << 20) + (16 << 10),
    2 << 20,
    (2 << 20) + 1,
    (3 << 20) + 5_000,
    (5 << 20) + 1,
    (17 << 20) + 12_345,
];
