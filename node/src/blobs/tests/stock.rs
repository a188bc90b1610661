//! Ours with iroh-blobs' own stores, both ways.

use bao_tree::ChunkRanges;
use bao_tree::io::outboard::PreOrderMemOutboard;
use cairn_protocol::piece::piece_count;
use cairn_protocol::transfer::Held;
use iroh::endpoint::presets;
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode};
use iroh_blobs::hashseq::HashSeq;
use iroh_blobs::protocol::{ChunkRangesExt as _, ChunkRangesSeq, GetManyRequest, GetRequest};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::mem::MemStore;
use iroh_blobs::{BlobsProtocol, Hash, HashAndFormat};
use proptest::prelude::*;

use super::*;
use crate::blobs::encode;

/// An iroh-blobs program: its endpoint, and one of its stores.
pub(super) struct Stock {
    pub(super) endpoint: Endpoint,
    pub(super) store: iroh_blobs::api::Store,
    router: Router,
    _dir: Option<tempfile::TempDir>,
}

impl Stock {
    pub(super) async fn new(files: bool) -> Self {
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .unwrap()
            .bind()
            .await
            .unwrap();
        let (store, dir): (iroh_blobs::api::Store, _) = if files {
            let dir = tempfile::tempdir().unwrap();
            (FsStore::load(dir.path()).await.unwrap().into(), Some(dir))
        } else {
            ((*MemStore::new()).clone(), None)
        };
        let router = Router::builder(endpoint.clone())
            .accept(iroh_blobs::ALPN, BlobsProtocol::new(&store, None))
            .spawn();
        Self {
            endpoint,
            store,
            router,
            _dir: dir,
        }
    }

    pub(super) fn key(&self) -> PublicKey {
        PublicKey::Ed25519(*self.endpoint.id().as_bytes())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.endpoint.bound_sockets()[0]
    }

    pub(super) async fn add(&self, bytes: &[u8]) -> Blake3 {
        let tag = self.store.blobs().add_slice(bytes).await.unwrap();
        Blake3::from_bytes(*tag.hash.as_bytes())
    }

    async fn connect(&self, node: &Node) -> iroh::endpoint::Connection {
        let PublicKey::Ed25519(key) = node.key else {
            panic!("a node's key");
        };
        let address = EndpointAddr::new(EndpointId::from_bytes(&key).unwrap());
        let address = address.with_ip_addr(node.address());
        self.endpoint
            .connect(address, iroh_blobs::ALPN)
            .await
            .unwrap()
    }
}

fn theirs(hash: Blake3) -> Hash {
    Hash::from_bytes(*hash.as_bytes())
}

async fn in_time<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_iroh_blobs_program_fetches_from_us() {
    let node = Node::new(1).await;
    for files in [false, true] {
        let stock = Stock::new(files).await;
        let connection = stock.connect(&node).await;
        for (seed, size) in SIZES.iter().enumerate() {
            let bytes = content(*size, seed as u64);
            let hash = node.add(&bytes);
            // First a range that begins and ends anywhere, then the rest.
            let (from, to) = (*size as u64 / 3, *size as u64 / 2);
            if from < to {
                let some = GetRequest::blob_ranges(theirs(hash), ChunkRanges::bytes(from..to));
                in_time(stock.store.remote().execute_get(connection.clone(), some))
                    .await
                    .unwrap_or_else(|error| panic!("{size}: {error}"));
            }
            in_time(stock.store.remote().fetch(connection.clone(), theirs(hash)))
                .await
                .unwrap_or_else(|error| panic!("{size}: {error}"));
            let got = stock.store.blobs().get_bytes(theirs(hash)).await.unwrap();
            assert!(got == bytes, "{size}");
        }
        let absent = stock
            .store
            .remote()
            .fetch(connection, Hash::new(b"nobody has it"));
        assert!(in_time(absent).await.is_err());
        stock.router.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_iroh_blobs_program_fetches_sequences_and_many_from_us() {
    let (node, stock) = (Node::new(1).await, Stock::new(false).await);
    let connection = stock.connect(&node).await;
    let contents: Vec<_> = [0, 5, 70_000, 2_000_000, 17]
        .map(|size| content(size, size as u64))
        .into();
    let hashes: Vec<_> = contents.iter().map(|bytes| node.add(bytes)).collect();
    let sequence: HashSeq = hashes.iter().map(|hash| theirs(*hash)).collect();
    let root = node.add(&Bytes::from(sequence));
    let all = HashAndFormat::hash_seq(theirs(root));
    in_time(stock.store.remote().fetch(connection.clone(), all))
        .await
        .unwrap();
    for (hash, bytes) in hashes.iter().zip(&contents) {
        assert!(stock.store.blobs().get_bytes(theirs(*hash)).await.unwrap() == *bytes);
    }
    let stock = Stock::new(false).await;
    let connection = stock.connect(&node).await;
    let many = GetManyRequest::new(
        hashes.iter().map(|hash| theirs(*hash)).collect(),
        ChunkRangesSeq::from_ranges(std::iter::repeat_n(ChunkRanges::all(), hashes.len())),
    );
    in_time(stock.store.remote().execute_get_many(connection, many))
        .await
        .unwrap();
    for (hash, bytes) in hashes.iter().zip(&contents) {
        assert!(stock.store.blobs().get_bytes(theirs(*hash)).await.unwrap() == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we_fetch_from_an_iroh_blobs_program() {
    let node = Node::new(1).await;
    for files in [false, true] {
        let stock = Stock::new(files).await;
        node.blobs.meet(stock.key(), vec![stock.address()]);
        let mut small = Vec::new();
        for (seed, size) in SIZES.iter().enumerate() {
            let bytes = content(*size, seed as u64);
            let hash = stock.add(&bytes).await;
            let held = node.blobs.look_up(stock.key(), vec![hash]);
            assert_eq!(
                in_time(held).await.unwrap(),
                [Held::Whole(*size as u64)],
                "{size}"
            );
            let list = node.blobs.list(stock.key(), hash, *size as u64);
            let list = in_time(list)
                .await
                .unwrap_or_else(|error| panic!("{size}: {error}"));
            assert_eq!(list, *list_of(&bytes).1, "{size}");
            let list = Arc::new(list);
            let count = piece_count(*size as u64);
            let (came, ended) = node.pieces(stock.key(), hash, &list, 0..count).await;
            ended.unwrap_or_else(|error| panic!("{size}: {error}"));
            assert!(joined(&came) == bytes, "{size}");
            let (came, ended) = node
                .pieces(stock.key(), hash, &list, count / 2..count)
                .await;
            ended.unwrap_or_else(|error| panic!("{size}: {error}"));
            let from = ((count as usize / 2) << 20).min(*size);
            assert!(joined(&came) == bytes[from..], "{size}");
            small.push((hash, Bytes::from(bytes)));
        }
        let hashes: Vec<_> = small.iter().map(|(hash, _)| *hash).collect();
        let (came, ended) = node.blobs(stock.key(), &hashes).await;
        ended.unwrap();
        assert!(came == small);
        let absent = Blake3::of(b"nobody has it");
        let held = node.blobs.look_up(stock.key(), vec![absent, hashes[3]]);
        assert_eq!(
            in_time(held).await.unwrap(),
            [Held::Absent, Held::Whole(1024)]
        );
        let (came, ended) = node
            .blobs(stock.key(), &[hashes[4], absent, hashes[5]])
            .await;
        assert!(matches!(ended, Err(TransferError::Absent)), "{ended:?}");
        assert!(came.iter().all(|(hash, _)| *hash == hashes[4]));
        let list = Arc::new(PieceList::decode(None, 13, &absent).unwrap());
        let (came, ended) = node.pieces(stock.key(), absent, &list, 0..1).await;
        assert!(matches!(ended, Err(TransferError::Absent)), "{ended:?}");
        assert!(came.is_empty());
        stock.router.shutdown().await.unwrap();
    }
}

/// The answer as bao-tree writes it, over a full tree of hashes.
fn as_bao_tree(bytes: &[u8], ranges: &ChunkRanges) -> Vec<u8> {
    let outboard = PreOrderMemOutboard::create(bytes, encode::GROUP);
    let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
    bao_tree::io::sync::encode_ranges_validated(bytes, &outboard, ranges, &mut out).unwrap();
    out
}

/// The answer as ours writes it, from piece list and pieces.
pub(super) fn as_ours(bytes: &[u8], ranges: &ChunkRanges) -> Vec<u8> {
    let (_, list) = list_of(bytes);
    let bytes = Bytes::copy_from_slice(bytes);
    let mut out = Vec::new();
    let steps = encode::steps(&list, ranges);
    let pyramid = encode::Pyramid::new(list.values().to_vec());
    out.extend_from_slice(&list.size().to_le_bytes());
    for step in steps {
        match step {
            encode::Step::Pair(node) => {
                let pair = pyramid.pair_above_pieces(node).unwrap();
                out.extend_from_slice(pair.as_flattened());
            }
            encode::Step::Piece(index, ranges) => {
                let from = (index as usize) << 20;
                let piece = bytes.slice(from..bytes.len().min(from + (1 << 20)));
                for chunk in encode::encode_piece(index, &piece, &list, &ranges).unwrap() {
                    out.extend_from_slice(&chunk);
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn answers_are_those_of_bao_tree(
        size in prop_oneof![0..5_000_usize, 0..200_000_usize, 1_000_000..6_000_000_usize],
        boundaries in proptest::collection::btree_set(0..7_000_u64, 0..6),
        open in any::<bool>(),
        whole in prop_oneof![3 => Just(false), 1 => Just(true)],
    ) {
        let bytes = content(size, 7);
        let mut ranges = ChunkRanges::empty();
        let boundaries: Vec<_> = boundaries.into_iter().collect();
        for pair in boundaries.chunks(2) {
            match pair {
                [from, to] => ranges |= ChunkRanges::chunks(*from..*to),
                [from] if open => ranges |= ChunkRanges::chunks(*from..),
                _ => {}
            }
        }
        if whole {
            ranges = ChunkRanges::all();
        }
        prop_assert!(as_ours(&bytes, &ranges) == as_bao_tree(&bytes, &ranges));
        prop_assert!(as_ours(&bytes, &ChunkRanges::last_chunk()) == as_bao_tree(&bytes, &ChunkRanges::last_chunk()));
    }
}
