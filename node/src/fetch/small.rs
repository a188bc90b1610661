//! Files of one piece: fetched many at a time, since each alone would cost its round trips.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::{FETCH_BYTES_MAX, FLAT_BYTES_MIN, PIECE_BYTES};
use cairn_protocol::transfer::Held;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::arriving::with_git;
use super::claims::disagreement;
use super::entry::{Entry, InMemory};
use super::search::{LOOK_UP_TIMEOUT, TABLE_PATIENCE, progressing, prove_size, slower_than};
use super::{FetchError, Inner};
use crate::blobs::TransferError;
use crate::cache::Room;
use crate::store::{Digests, Store, StoreError};

/// Batches under way at once.
const WORKERS: usize = 4;
/// Files of one batch.
const BATCH_FILES_MAX: usize = 512;
/// Bytes of one batch, by what its files are claimed to have.
const BATCH_BYTES_MAX: u64 = 8 << 20;
/// Peers that are asked about one batch.
const PEERS_MAX: usize = 32;
/// Blobs that wait to be taken from a transfer.
const TAKING_MAX: usize = 8;
/// Time until what nobody had is asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// Repositories whose providers are looked up for one batch.
const REPOSITORIES_MAX: usize = 4;
/// Other sizes that are looked into for one batch.
const PROOFS_MAX: usize = 4;
/// A peer that sends less than so many bytes in this time is left for others, and asked after them.
const BRISK_TIME: Duration = Duration::from_secs(5);
const BRISK_BYTES: u64 = 256 << 10;
/// Longest time between two questions whether somebody else has what a slow peer sends.
const ELSE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Times that one peer may say it has what it then does not send, in one batch.
const BROKEN_WORDS_MAX: usize = 8;

/// Files that wait for their batch.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    fresh: VecDeque<Waits>,
    /// Asked for in vain, by when to ask again.
    again: VecDeque<(Instant, Waits)>,
}

#[derive(Debug, Clone)]
struct Waits {
    entry: Arc<Entry>,
    /// When it was first asked for.
    since: Option<Instant>,
}

impl Queue {
    pub(super) fn push(&self, entry: Arc<Entry>) {
        let waits = Waits { entry, since: None };
        self.state.lock().fresh.push_back(waits);
        self.more.notify_one();
    }

    fn again(&self, waits: Waits) {
        let due = Instant::now() + AGAIN;
        self.state.lock().again.push_back((due, waits));
        self.more.notify_one();
    }

    /// The next batch, or how long until there is something again.
    fn take(&self) -> Result<Vec<Waits>, Option<Duration>> {
        let state = &mut *self.state.lock();
        let now = Instant::now();
        while let Some((due, _)) = state.again.front()
            && *due <= now
        {
            let waits = state.again.pop_front().map(|(_, waits)| waits);
            state.fresh.extend(waits);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(waits) = state.fresh.front()
            && batch.len() < BATCH_FILES_MAX
            && (batch.is_empty() || bytes + waits.entry.size <= BATCH_BYTES_MAX)
        {
            bytes += waits.entry.size;
            batch.extend(state.fresh.pop_front());
        }
        if batch.is_empty() {
            let next = state.again.front();
            return Err(next.map(|(due, _)| due.saturating_duration_since(now)));
        }
        if !state.fresh.is_empty() {
            self.more.notify_one();
        }
        Ok(batch)
    }
}

/// Begins to fetch what is queued.
pub(super) fn spawn(inner: &Arc<Inner>) {
    for _ in 0..WORKERS {
        let inner = Arc::clone(inner);
        inner.clone().tasks.spawn(async move {
            loop {
                let batch = match inner.small.take() {
                    Ok(batch) => batch,
                    Err(pause) => {
                        let pause = async {
                            match pause {
                                Some(pause) => sleep(pause).await,
                                None => std::future::pending().await,
                            }
                        };
                        tokio::select! {
                            () = inner.small.more.notified() => {}
                            () = pause => {}
                            () = inner.stop.cancelled() => return fail_all(&inner),
                        }
                        continue;
                    }
                };
                let mut job = Batch::new(&inner, batch);
                tokio::select! {
                    () = Box::pin(job.run()) => {}
                    () = inner.stop.cancelled() => {}
                }
                job.end();
            }
        });
    }
}

/// The node is stopping: nobody is to wait for what is queued.
pub(super) fn fail_all(inner: &Inner) {
    let waiting = std::mem::take(&mut *inner.small.state.lock());
    let again = waiting.again.into_iter().map(|(_, waits)| waits);
    for waits in waiting.fresh.into_iter().chain(again) {
        end(inner, &waits.entry, Err(FetchError::Stopped));
    }
}

fn end(inner: &Inner, entry: &Arc<Entry>, ended: Result<Digests, FetchError>) {
    match ended {
        Ok(digests) => entry.store(digests, inner.store.reading(&entry.hash)),
        Err(error) => entry.fail(error),
    }
    inner.remove(entry);
    entry.ended.cancel();
}

/// How fast a peer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Fast enough that nobody else need be asked: a batch waits for one peer at a time.
    Brisk,
    /// Whatever counts as progress, until somebody else has it.
    Any,
}

/// How a peer was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Done,
    /// It goes on sending, and not briskly.
    Slow,
}

/// Why a transfer ended early.
#[derive(Debug)]
enum Ended {
    Error(TransferError),
    Slow,
}

/// What a transfer brought.
#[derive(Debug)]
struct Came {
    arrived: Vec<(Blake3, Bytes)>,
    /// Blobs that are of no size that is claimed of them.
    odd: Vec<Blake3>,
    result: Result<(), Ended>,
}

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> u128 {
    u128::from(bytes) * 1_000 / time.as_millis().max(1)
}

/// Files that are asked for together.
struct Batch {
    inner: Arc<Inner>,
    /// Not here yet; of one hash several where their claims differ in size.
    missing: BTreeMap<Blake3, Vec<Waits>>,
    proofs: usize,
    /// Who sends, and slowly.
    slow: BTreeSet<PublicKey>,
}

impl Batch {
    fn new(inner: &Arc<Inner>, waiting: Vec<Waits>) -> Self {
        let mut missing: BTreeMap<_, Vec<Waits>> = BTreeMap::new();
        for waits in waiting {
            if waits.entry.abandoned() {
                end(inner, &waits.entry, Err(FetchError::Stopped));
            } else {
                missing.entry(waits.entry.hash).or_default().push(waits);
            }
        }
        Self {
            inner: Arc::clone(inner),
            missing,
            proofs: 0,
            slow: BTreeSet::new(),
        }
    }

    async fn run(&mut self) {
        self.find_stored().await;
        // Held to the end: what is on its way is not evicted.
        let _rooms = self.rooms().await;
        if self.missing.is_empty() {
            return;
        }
        for waits in self.missing.values_mut().flatten() {
            let first = waits.since.is_none();
            waits.since.get_or_insert_with(Instant::now);
            if first {
                waits.entry.run(None, 0);
            }
        }
        let again = self.retried();
        let mut peers = self.inner.peers();
        if peers.len() > PEERS_MAX {
            // Others the next time.
            let first = self.inner.seed() % peers.len() as u64;
            peers.rotate_left(usize::try_from(first).unwrap_or(0));
            peers.truncate(PEERS_MAX);
        }
        let mut answers: FuturesUnordered<_> = (peers.into_iter())
            .map(|peer| {
                let (blobs, hashes) = (self.inner.blobs.clone(), self.hashes());
                async move {
                    let asked = blobs.look_up(peer, hashes.clone());
                    (peer, hashes, timeout(LOOK_UP_TIMEOUT, asked).await)
                }
            })
            .collect();
        let mut slow = Vec::new();
        while let Some((peer, hashes, answer)) = answers.next().await {
            match answer {
                Ok(Ok(held)) => {
                    let held: HashMap<_, _> = hashes.into_iter().zip(held).collect();
                    let before = (self.inner.blobs.moved(&peer), Instant::now());
                    if self.fetch(peer, &held, Pace::Brisk).await == Left::Slow {
                        let moved = self.inner.blobs.moved(&peer).saturating_sub(before.0);
                        self.slow.insert(peer);
                        slow.push((rate(moved, before.1.elapsed()), peer, held));
                    }
                }
                Ok(Err(TransferError::Lied(what))) => self.inner.lied(&peer, &what),
                Ok(Err(_)) | Err(_) => {}
            }
            if self.missing.is_empty() {
                return;
            }
        }
        // Nobody who was faster had the rest.
        slow.sort_by_key(|(rate, ..)| std::cmp::Reverse(*rate));
        for (_, peer, held) in slow {
            if self.fetch(peer, &held, Pace::Any).await == Left::Slow {
                // Left for somebody else, who is asked the next time.
                self.not_in_vain();
                return;
            }
            if self.missing.is_empty() {
                return;
            }
        }
        for repository in again {
            // Dialled meanwhile; they are asked the next time.
            drop(self.inner.swarm.providers(repository, TABLE_PATIENCE).await);
        }
    }

    /// Makes room in the cache; what does not fit ends here.
    async fn rooms(&mut self) -> Vec<Room> {
        let waiting = self.missing.values().flatten();
        let wanted: Vec<_> = waiting.map(|waits| waits.entry.wanted()).collect();
        let cache = self.inner.cache.clone();
        match self.inner.blocking(move || cache.make_room(&wanted)).await {
            Ok(rooms) => rooms,
            Err(error) => {
                for waits in std::mem::take(&mut self.missing).into_values().flatten() {
                    // The smallest go into the log, and need no room.
                    let needs_room = waits.entry.size >= FLAT_BYTES_MIN
                        && !(self.inner.cache).is_kept(waits.entry.first.repository.as_ref());
                    if needs_room {
                        end(&self.inner, &waits.entry, Err(error.clone()));
                    } else {
                        let hash = waits.entry.hash;
                        self.missing.entry(hash).or_default().push(waits);
                    }
                }
                Vec::new()
            }
        }
    }

    /// Repositories of what was asked for in vain before.
    fn retried(&self) -> BTreeSet<cairn_protocol::hash::RepositoryId> {
        let waiting = self.missing.values().flatten();
        let retried =
            waiting.filter(|waits| waits.since.is_some_and(|since| since.elapsed() >= AGAIN));
        let repositories = retried.filter_map(|waits| waits.entry.first.repository);
        let all: BTreeSet<_> = repositories.collect();
        all.into_iter().take(REPOSITORIES_MAX).collect()
    }

    fn hashes(&self) -> Vec<Blake3> {
        self.missing.keys().copied().collect()
    }

    /// Something moves: what is missing is not given up for the time that took.
    fn not_in_vain(&mut self) {
        for waits in self.missing.values_mut().flatten() {
            waits.since = Some(Instant::now());
        }
    }

    /// What could not be had waits for another try, or has waited long enough.
    fn end(&mut self) {
        let patience = self.inner.patience();
        for waits in std::mem::take(&mut self.missing).into_values().flatten() {
            let entry = &waits.entry;
            if self.inner.stop.is_cancelled() || entry.abandoned() {
                end(&self.inner, entry, Err(FetchError::Stopped));
            } else if waits.since.is_some_and(|since| since.elapsed() >= patience) {
                let (path, hash) = (entry.first.path.clone(), entry.hash);
                end(
                    &self.inner,
                    entry,
                    Err(FetchError::NoProvider { path, hash }),
                );
            } else {
                self.inner.small.again(waits);
            }
        }
    }

    /// Ends those that are stored already.
    async fn find_stored(&mut self) {
        let (store, hashes) = (self.inner.store.clone(), self.hashes());
        let git: BTreeSet<_> = self.with_git();
        let find = move || {
            let stored = |hash: Blake3| Ok((hash, stored(&store, &hash, git.contains(&hash))?));
            hashes
                .into_iter()
                .map(stored)
                .collect::<Result<Vec<_>, StoreError>>()
        };
        match self.inner.blocking(find).await {
            Ok(found) => {
                for (hash, digests) in found {
                    if let Some(digests) = digests {
                        self.arrived(&hash, &digests);
                    }
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Hashes of which somebody claims a git blob id.
    fn with_git(&self) -> BTreeSet<Blake3> {
        let git = |waits: &Waits| waits.entry.claims().iter().any(|of| of.claim.git.is_some());
        (self.missing.iter())
            .filter(|(_, waiting)| waiting.iter().any(git))
            .map(|(hash, _)| *hash)
            .collect()
    }

    fn fail(&mut self, error: &FetchError) {
        for waits in std::mem::take(&mut self.missing).into_values().flatten() {
            end(&self.inner, &waits.entry, Err(error.clone()));
        }
    }

    /// The bytes of a hash are stored, with these digests.
    fn arrived(&mut self, hash: &Blake3, digests: &Digests) {
        for waits in self.missing.remove(hash).unwrap_or_default() {
            if waits.entry.size == digests.size {
                end(&self.inner, &waits.entry, Ok(*digests));
            } else {
                self.other_size(&waits.entry);
            }
        }
    }

    /// The bytes of a hash have a size that nobody claims.
    fn wrong_size(&mut self, hash: &Blake3) {
        for waits in self.missing.remove(hash).unwrap_or_default() {
            self.other_size(&waits.entry);
        }
    }

    /// A file has another size than claimed.
    fn other_size(&self, entry: &Arc<Entry>) {
        for claimed in entry.claims() {
            self.inner
                .disagreed(entry.hash, entry.size, &claimed, "size");
        }
        let path = entry.first.path.clone();
        let digest = "size";
        end(
            &self.inner,
            entry,
            Err(FetchError::Disagrees { path, digest }),
        );
    }

    /// Fetches from a peer what it holds of what is missing.
    async fn fetch(&mut self, peer: PublicKey, held: &HashMap<Blake3, Held>, pace: Pace) -> Left {
        let mut wanted = VecDeque::new();
        let mut odd = Vec::new();
        for hash in self.missing.keys() {
            match held.get(hash) {
                Some(Held::Whole(size)) if *size <= PIECE_BYTES => wanted.push_back(*hash),
                // What is larger than any file is no size at all.
                Some(Held::Whole(size)) if *size <= FETCH_BYTES_MAX => odd.push((*hash, *size)),
                _ => {}
            }
        }
        for (hash, size) in odd {
            if self.proofs < PROOFS_MAX {
                self.proofs += 1;
                let proof = prove_size(&self.inner.blobs, peer, hash, size);
                // Others wait for this batch: who proves it slowly does so another time.
                if timeout(LOOK_UP_TIMEOUT, proof).await == Ok(true) {
                    self.wrong_size(&hash);
                }
            }
        }
        let mut broken_words = 0;
        while !wanted.is_empty() {
            let Came {
                arrived,
                odd,
                result,
            } = self.transfer(peer, &wanted, pace).await;
            wanted.retain(|hash| {
                !odd.contains(hash) && !arrived.iter().any(|(arrived, _)| arrived == hash)
            });
            for hash in &odd {
                self.wrong_size(hash);
            }
            if let Err(error) = self.keep(arrived).await {
                self.fail(&error);
                return Left::Done;
            }
            match result {
                // It said it had them.
                Ok(()) => return Left::Done,
                // The first that did not come is the one.
                Err(Ended::Error(TransferError::Absent)) => {
                    wanted.pop_front();
                    broken_words += 1;
                    if broken_words >= BROKEN_WORDS_MAX {
                        return Left::Done;
                    }
                }
                Err(Ended::Error(TransferError::Lied(what))) => {
                    self.inner.lied(&peer, &what);
                    return Left::Done;
                }
                Err(Ended::Error(error)) => {
                    tracing::debug!(%peer, %error, "a transfer of small files ended early");
                    return Left::Done;
                }
                Err(Ended::Slow) => return Left::Slow,
            }
        }
        Left::Done
    }

    /// Asks for blobs in one request; readers have them as soon as they come.
    async fn transfer(&self, peer: PublicKey, wanted: &VecDeque<Blake3>, pace: Pace) -> Came {
        let (into, mut coming) = mpsc::channel(TAKING_MAX);
        let blobs = &self.inner.blobs;
        let hashes = wanted.iter().copied().collect();
        let mut arrived = Vec::new();
        let mut odd = Vec::new();
        let take = async {
            while let Some((hash, bytes)) = coming.recv().await {
                let bytes: Bytes = bytes;
                let mut claimed = false;
                for waits in self.missing.get(&hash).into_iter().flatten() {
                    if waits.entry.size == bytes.len() as u64 {
                        claimed = true;
                        waits.entry.came(Arc::new(InMemory {
                            index: 0,
                            parts: vec![bytes.clone()],
                            _room: None,
                        }));
                        waits.entry.tick(vec![peer]);
                    }
                }
                if claimed {
                    arrived.push((hash, bytes));
                } else {
                    // Not kept in memory: it may be far larger than anybody claims.
                    odd.push(hash);
                }
            }
        };
        let asked = async {
            let asked = progressing(blobs, &peer, blobs.blobs(peer, hashes, into));
            match pace {
                Pace::Any => tokio::select! {
                    result = asked => result.map_err(Ended::Error),
                    () = self.somebody_else() => Err(Ended::Slow),
                },
                Pace::Brisk => tokio::select! {
                    result = asked => result.map_err(Ended::Error),
                    () = slower_than(blobs, &peer, BRISK_TIME, BRISK_BYTES) => Err(Ended::Slow),
                },
            }
        };
        let (result, ()) = tokio::join!(asked, take);
        Came {
            arrived,
            odd,
            result,
        }
    }

    /// Waits for another peer that has something of what is missing.
    async fn somebody_else(&self) {
        let mut pause = BRISK_TIME;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(ELSE_PAUSE_MAX);
            let mut others = self.inner.peers();
            others.retain(|peer| !self.slow.contains(peer));
            others.truncate(PEERS_MAX);
            let mut answers: FuturesUnordered<_> = (others.into_iter())
                .map(|peer| {
                    let (blobs, hashes) = (self.inner.blobs.clone(), self.hashes());
                    async move { timeout(LOOK_UP_TIMEOUT, blobs.look_up(peer, hashes)).await }
                })
                .collect();
            while let Some(answer) = answers.next().await {
                let whole = |held: &Held| matches!(held, Held::Whole(_));
                if matches!(answer, Ok(Ok(held)) if held.iter().any(whole)) {
                    return;
                }
            }
        }
    }

    /// Stores what came, where a claim agrees.
    async fn keep(&mut self, arrived: Vec<(Blake3, Bytes)>) -> Result<(), FetchError> {
        if arrived.is_empty() {
            return Ok(());
        }
        let git = self.with_git();
        let claims: HashMap<_, Vec<_>> = (arrived.iter())
            .map(|(hash, _)| {
                let waiting = self.missing.get(hash).into_iter().flatten();
                let claims = waiting.flat_map(|waits| {
                    let size = waits.entry.size;
                    waits
                        .entry
                        .claims()
                        .into_iter()
                        .map(move |of| (size, of.claim))
                });
                (*hash, claims.collect())
            })
            .collect();
        let store = self.inner.store.clone();
        let kept = move || {
            let mut batch = store.batch();
            let mut all = Vec::new();
            for (hash, bytes) in arrived {
                let (digests, _) = batch.put_if(bytes, git.contains(&hash), |digests| {
                    claims[&hash].iter().any(|(size, claim)| {
                        *size == digests.size && disagreement(claim, digests).is_none()
                    })
                })?;
                all.push((hash, digests));
            }
            batch.commit()?;
            Ok(all)
        };
        self.not_in_vain();
        // Each reader compares the digests with its own claim.
        for (hash, digests) in self.inner.blocking(kept).await? {
            self.arrived(&hash, &digests);
        }
        Ok(())
    }
}

/// Digests of a stored blob; with its git blob id, if that is asked for.
fn stored(store: &Store, hash: &Blake3, git: bool) -> Result<Option<Digests>, StoreError> {
    if !store.contains(hash)? {
        return Ok(None);
    }
    let digests = match store.digests(hash)? {
        Some(digests) if digests.git.is_some() || !git => return Ok(Some(digests)),
        Some(digests) => digests,
        // Stored as one of our own objects; the rest of its digests is not looked at.
        None => Digests {
            blake3: *hash,
            sha256: [0; 32].into(),
            git: None,
            size: 0,
        },
    };
    match with_git(store, &digests) {
        Ok(digests) => Ok(Some(digests)),
        // Found damaged now: it is fetched anew.
        Err(StoreError::Damaged { .. } | StoreError::Absent { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
