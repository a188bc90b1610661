//! Nodes of one process that fetch from each other over real sockets of this machine.

mod disk;

mod claims;
mod faults;
mod hostile;
mod many;
mod reading;

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::accept::Ledger;
use cairn_protocol::hash::{Blake3, RepositoryId};
use cairn_protocol::key::{PublicKey, SecretKey};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Arriving, FetchError, Fetcher, Wanted};
use crate::blobs::{Blobs, BlobsConfig};
use crate::cache::Cache;
use crate::repos::Repos;
use crate::store::{Content, Digests, Store, open_store};
use crate::swarm::{Swarm, SwarmConfig};

/// Time that anything expected has to happen.
const DEADLINE: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;

/// A node without records: store, swarm, blobs, fetcher.
struct Peer {
    key: PublicKey,
    store: Store,
    swarm: Swarm,
    blobs: Blobs,
    fetcher: Fetcher,
    stop: CancellationToken,
    _folder: Arc<TempDir>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A node that may send so many bytes a second.
async fn slow(seed: u8, upload_rate: Option<u64>) -> Peer {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let store = open_store(folder.path());
    on(seed, upload_rate, folder, store).await
}

async fn on(seed: u8, upload_rate: Option<u64>, folder: Arc<TempDir>, store: Store) -> Peer {
    let secret = SecretKey::from_seed([seed; 32]);
    let stop = CancellationToken::new();
    let swarm_config = SwarmConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        peers: Vec::new(),
        mdns: false,
        book: folder.path().join("peers.json"),
    };
    let (events, mut heard) = mpsc::channel(64);
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let swarm = Swarm::spawn(swarm_config, &secret, events, stop.clone())
        .await
        .unwrap();
    let blobs_config = BlobsConfig {
        bind: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        upload_rate,
        download_rate: None,
    };
    let everything = Arc::new(|_: &PublicKey, _: &Blake3| true);
    let blobs = Blobs::spawn_with(
        blobs_config,
        &secret,
        store.clone(),
        everything,
        stop.clone(),
    );
    let blobs = blobs.await.unwrap();
    let repos = Repos::new(store.clone(), Ledger::default(), &BTreeMap::new(), "local");
    let cache = Cache::new(
        store.clone(),
        repos,
        folder.path().to_owned(),
        Some(1 << 40),
        Arc::default(),
        crate::staging::Staging::default(),
    );
    let fetcher = Fetcher::spawn(
        store.clone(),
        cache,
        crate::access::Access::default(),
        blobs.clone(),
        swarm.clone(),
        stop.clone(),
    );
    Peer {
        key: secret.public(),
        store,
        swarm,
        blobs,
        fetcher,
        stop,
        _folder: folder,
    }
}

async fn peer(seed: u8) -> Peer {
    slow(seed, None).await
}

impl Peer {
    /// Connects to another, as following does.
    async fn meet(&self, other: &Self) {
        self.swarm.dial(&other.swarm.listen_addrs()[0]).unwrap();
        for (one, two) in [(self, other), (other, self)] {
            until("connected", || one.swarm.connected().contains(&two.key)).await;
            let port = two.blobs.ports()[0];
            one.blobs
                .meet(two.key, vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
        }
    }

    /// Puts a file in, as a push would, and says how a commit claims it.
    fn add(&self, bytes: &[u8]) -> Wanted {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let digests = self
            .store
            .import(&mut &file, bytes.len() as u64, true, &mut |_| {})
            .unwrap();
        wanted(&digests)
    }

    /// Bytes of content that came from others.
    fn taken(&self) -> u64 {
        self.blobs.traffic().iter().map(|(_, _, taken)| taken).sum()
    }

    fn holds(&self, wanted: &Wanted, bytes: &[u8]) {
        let found = match self.store.content(&wanted.blake3).unwrap() {
            Content::Small(bytes) => bytes.to_vec(),
            Content::Flat(flat) => std::fs::read(flat.path).unwrap(),
        };
        assert!(found == bytes, "other bytes are stored");
    }

    /// Leaves the network.
    fn vanish(&self) {
        self.stop.cancel();
    }
}

fn wanted(digests: &Digests) -> Wanted {
    Wanted {
        repository: RepositoryId::from_bytes([7; 32]),
        path: "model.safetensors".to_owned(),
        blake3: digests.blake3,
        size: digests.size,
        sha256: digests.sha256,
        git: None,
    }
}

/// Bytes that do not repeat.
fn noise(len: u64, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(DEADLINE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

async fn finished(arriving: &Arriving) -> Result<Digests, FetchError> {
    timeout(DEADLINE, arriving.finished())
        .await
        .expect("in time")
}

/// Reads from one place to another.
async fn read(arriving: &Arriving, from: u64, to: u64) -> Result<Vec<u8>, FetchError> {
    let mut all = Vec::new();
    let mut at = from;
    while at < to {
        let bytes = timeout(DEADLINE, arriving.read(at, to - at))
            .await
            .expect("in time")?;
        assert!(!bytes.is_empty());
        at += bytes.len() as u64;
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}
