//! Fetching files from peers: one download a file, however many wait for it.
//!
//! Whoever needs a file gets an [`Arriving`]; the first one begins the download, the last one gone stops
//! it. What was verified stays: a later fetch goes on from there, after a crash too. A file counts as
//! stored once all its digests were computed and equal the claim.

mod arriving;
mod entry;

mod large;
mod search;
mod small;

mod all;
mod claims;
mod heal;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cairn_protocol::hash::{Blake3, GitOid, RepositoryId, Sha256};
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::{FETCH_BYTES_MAX, PIECE_BYTES};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use all::Fetched;
pub use arriving::Arriving;

use crate::access::Access;
use crate::blobs::Blobs;
use crate::cache::Cache;
use crate::store::{Claim, Store, StoreError};
use crate::swarm::Swarm;
use claims::{Claimed, Refused};
use entry::Entry;

/// Downloads that wait or run at once; a further one fails with [`FetchError::Busy`].
const FETCHES_MAX: usize = 65_536;
/// Large files that run at once while nobody reads them; further ones wait, in the order they came.
const BULK_MAX: usize = 8;
/// Large files that run at once because somebody reads them; as above.
const READ_MAX: usize = 128;
/// Requests that are under way at once, shared evenly among the downloads that run.
const REQUESTS_MAX: usize = 64;
/// Pieces in memory at once, from their arrival until they are written; further ones wait. Few, since a
/// crash loses them: the network may be much faster than the disk.
const PIECES_MAX: usize = 8;
/// Reads from the disk at once for those who wait; further ones wait.
const READS_MAX: usize = 16;
/// How long a peer that sent wrong bytes is refused.
const LIAR_PAUSE: Duration = Duration::from_mins(30);
/// Liars that are kept in mind; the oldest is forgotten.
const LIARS_MAX: usize = 1_024;
/// How long it is tried without a provider, where there are peers to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it is tried where not even a peer is connected.
const PATIENCE_ALONE: Duration = Duration::from_secs(3);
/// Disagreements that wait for whoever listens; the oldest is dropped, and found again when it is fetched.
const DISAGREEMENTS_MAX: usize = 256;

/// A file that is claimed to exist, by a verified head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The repository that claims it.
    pub repository: RepositoryId,
    /// Where it stands there, for messages.
    pub path: String,
    /// Content id.
    pub blake3: Blake3,
    /// Bytes.
    pub size: u64,
    /// Claimed SHA-256.
    pub sha256: Sha256,
    /// Claimed git blob id; absent for LFS files, whose git id is the pointer's.
    pub git: Option<GitOid>,
}

/// Why a file could not be fetched.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody that can be reached has what is missing.
    #[error("no peer that can be reached has {path} ({hash})")]
    NoProvider {
        /// The file.
        path: String,
        /// Its hash.
        hash: Blake3,
    },
    /// The bytes are those of the BLAKE3, and another digest is not what the commit claims.
    #[error("{path}: its {digest} is not the one that its commit claims: the commit is invalid")]
    Disagrees {
        /// The file.
        path: String,
        /// Which digest: `sha256`, `git oid`, `size`.
        digest: &'static str,
    },
    /// Larger than what is fetched from peers.
    #[error("{path} has {size} bytes, at most {max} are fetched", max = cairn_protocol::limits::FETCH_BYTES_MAX)]
    TooLarge {
        /// The file.
        path: String,
        /// Its bytes.
        size: u64,
    },
    /// So many downloads wait already that this one is not begun.
    #[error("too many downloads wait: try again later")]
    Busy,
    /// This node speaks to no peers.
    #[error("this node is not connected to others")]
    Offline,
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopped,
}

/// A download under way, as it is shown.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Transfer {
    /// The file's content id.
    pub hash: String,
    /// Its path in the repository that asked for it first.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Verified bytes here.
    pub done: u64,
    /// Bytes a second over the last seconds.
    pub rate: u64,
    /// Peer ids it comes from now.
    pub peers: Vec<String>,
}

/// Bytes that match their BLAKE3, under a commit that claims something else of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disagreement {
    /// What was claimed.
    pub(crate) wanted: Wanted,
    /// Which digest is another: `sha256`, `git oid`, `size`.
    pub(crate) digest: &'static str,
}

/// All downloads of a node; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    cache: Cache,
    blobs: Blobs,
    swarm: Swarm,
    stop: CancellationToken,
    runtime: Handle,
    tasks: TaskTracker,
    started: Instant,
    seed: AtomicU64,
    /// By hash and size: a claim with another size is another download, which waits for the first.
    table: Mutex<BTreeMap<(Blake3, u64), Arc<Entry>>>,
    small: small::Queue,
    bulk: Arc<Semaphore>,
    read: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    /// Large files that run now.
    running: AtomicUsize,
    refused: Refused,
    disagreements: broadcast::Sender<Disagreement>,
    liars: Mutex<HashMap<PublicKey, Instant>>,
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl Fetcher {
    /// Call within a tokio runtime; everything ends at `stop`.
    pub(crate) fn spawn(
        store: Store,
        cache: Cache,
        access: Access,
        blobs: Blobs,
        swarm: Swarm,
        stop: CancellationToken,
    ) -> Self {
        let mut seed = [0; 8];
        // Only spreads the load: without randomness it is spread less well.
        getrandom::fill(&mut seed).unwrap_or_default();
        let inner = Arc::new(Inner {
            store,
            cache,
            blobs,
            swarm,
            stop,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            seed: AtomicU64::new(u64::from_le_bytes(seed)),
            table: Mutex::default(),
            small: small::Queue::default(),
            bulk: Arc::new(Semaphore::new(BULK_MAX)),
            read: Arc::new(Semaphore::new(READ_MAX)),
            pieces: Arc::new(Semaphore::new(PIECES_MAX)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            running: AtomicUsize::new(0),
            refused: Refused::default(),
            disagreements: broadcast::channel(DISAGREEMENTS_MAX).0,
            liars: Mutex::default(),
        });
        small::spawn(&inner);
        let fetcher = Self { inner };
        heal::spawn(&fetcher, access);
        fetcher
    }

    /// Joins the download of a file, or begins it. May be called from any thread.
    pub(crate) fn fetch(&self, wanted: Wanted) -> Arriving {
        let Wanted {
            repository,
            path,
            blake3,
            size,
            sha256,
            git,
        } = wanted;
        let claimed = Claimed {
            repository: Some(repository),
            path,
            claim: Claim { sha256, git },
        };
        self.join(blake3, size, claimed)
    }

    /// Claims that turned out wrong, from now on.
    pub(crate) fn disagreements(&self) -> broadcast::Receiver<Disagreement> {
        self.inner.disagreements.subscribe()
    }

    /// Downloads under way of files of more than one piece; the others come and go too quickly to show.
    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        let mut entries: Vec<_> = self.inner.table.lock().values().cloned().collect();
        entries.retain(|entry| entry.size > PIECE_BYTES);
        entries.iter().filter_map(|entry| entry.shown()).collect()
    }

    fn join(&self, hash: Blake3, size: u64, claimed: Claimed) -> Arriving {
        let inner = &self.inner;
        let failed = |claimed: Claimed, error| {
            let entry = Entry::new(hash, size, claimed.clone());
            entry.fail(error);
            Arriving::new(self.clone(), entry, claimed)
        };
        if size > FETCH_BYTES_MAX {
            let path = claimed.path.clone();
            return failed(claimed, FetchError::TooLarge { path, size });
        }
        if let Some(digest) = inner.refused.get(&hash, size, &claimed.claim) {
            let path = claimed.path.clone();
            return failed(claimed, FetchError::Disagrees { path, digest });
        }
        if inner.stop.is_cancelled() {
            return failed(claimed, FetchError::Stopped);
        }
        let mut table = inner.table.lock();
        if let Some(entry) = table.get(&(hash, size))
            && entry.join(&claimed)
        {
            return Arriving::new(self.clone(), Arc::clone(entry), claimed);
        }
        if table.len() >= FETCHES_MAX {
            drop(table);
            return failed(claimed, FetchError::Busy);
        }
        let all_sizes = (hash, 0)..=(hash, u64::MAX);
        let before: Vec<_> = (table.range(all_sizes))
            .map(|(_, entry)| entry.ended.clone())
            .collect();
        let entry = Entry::new(hash, size, claimed.clone());
        table.insert((hash, size), Arc::clone(&entry));
        drop(table);
        if size <= PIECE_BYTES {
            inner.small.push(Arc::clone(&entry));
            if inner.stop.is_cancelled() {
                // Those who take from the queue may have ended just now.
                small::fail_all(inner);
            }
        } else {
            let run = large::run(Arc::clone(inner), Arc::clone(&entry), before);
            inner.tasks.spawn_on(run, &inner.runtime);
        }
        Arriving::new(self.clone(), entry, claimed)
    }
}

impl Inner {
    /// Time since the start.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn seed(&self) -> u64 {
        self.seed
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Takes a download out that ended.
    fn remove(&self, entry: &Arc<Entry>) {
        let key = (entry.hash, entry.size);
        let mut table = self.table.lock();
        if (table.get(&key)).is_some_and(|current| Arc::ptr_eq(current, entry)) {
            table.remove(&key);
        }
    }

    /// Connected peers that are not known to lie.
    fn peers(&self) -> Vec<PublicKey> {
        let mut peers = self.swarm.connected();
        let mut liars = self.liars.lock();
        liars.retain(|_, since| since.elapsed() < LIAR_PAUSE);
        peers.retain(|peer| !liars.contains_key(peer));
        peers
    }

    /// Parts from a peer that sent what does not verify.
    fn lied(&self, peer: &PublicKey, what: &str) {
        let mut liars = self.liars.lock();
        if liars.contains_key(peer) {
            return;
        }
        if liars.len() >= LIARS_MAX
            && let Some(oldest) = liars.iter().min_by_key(|(_, since)| **since)
        {
            let oldest = *oldest.0;
            liars.remove(&oldest);
        }
        liars.insert(*peer, Instant::now());
        drop(liars);
        // The swarm says so in the log.
        let reason = format!("it sent wrong data: {what}");
        self.swarm.part(peer, &reason, LIAR_PAUSE);
    }

    /// How long to look for a provider.
    fn patience(&self) -> Duration {
        if self.peers().is_empty() {
            PATIENCE_ALONE
        } else {
            PATIENCE
        }
    }

    /// Runs what blocks; fails where the node is stopping.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FetchError> {
        match self.runtime.spawn_blocking(work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(FetchError::Stopped),
        }
    }

    /// A claim turned out wrong: it is not fetched again, and told to whoever listens.
    fn disagreed(&self, hash: Blake3, size: u64, claimed: &Claimed, digest: &'static str) {
        self.refused.insert(&hash, size, &claimed.claim, digest);
        tracing::warn!(%hash, path = claimed.path, digest, "a commit claims wrong digests");
        if let Some(repository) = claimed.repository {
            let wanted = Wanted {
                repository,
                path: claimed.path.clone(),
                blake3: hash,
                size,
                sha256: claimed.claim.sha256,
                git: claimed.claim.git,
            };
            // Fails where nobody listens.
            let disagreement = Disagreement { wanted, digest };
            self.disagreements.send(disagreement).unwrap_or_default();
        }
    }
}
