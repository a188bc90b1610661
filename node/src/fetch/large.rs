//! The download of one file of several pieces: looked for, fetched, written, completed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_protocol::download::{Action, Download, Event};
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::FETCH_BYTES_MAX;
use cairn_protocol::piece::{PieceList, PieceSet, piece_len};
use cairn_protocol::transfer::Held;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::arriving::with_git;
use super::entry::{Entry, InMemory};
use super::search::{PROGRESS_BYTES, Search, progressing, prove_size};
use super::{FetchError, Inner, PATIENCE, REQUESTS_MAX};
use crate::blobs::{Piece, TransferError};
use crate::cache::Room;
use crate::store::{Digests, FinishError, Partial, StoreError};

/// How often it is looked after.
const TICK: Duration = Duration::from_millis(250);
/// Peers that are asked for the piece list at once.
const LISTING_MAX: usize = 4;
/// After this a second one is asked, and so on.
const LISTING_PATIENCE: Duration = Duration::from_secs(1);
/// After this the first of so many is left, where there is another who was never asked.
const LISTING_TIME: Duration = Duration::from_secs(5);
/// Verified pieces of one file that wait to be written; further ones wait in the network.
const WRITING_MAX: usize = 4;
/// Pieces of one request that wait to be taken.
const TAKING_MAX: usize = 1;
/// Messages of requests that wait to be seen.
const MESSAGES_MAX: usize = 64;
/// How often a file is completed anew whose pieces were found changed on the disk.
const FINISHES_MAX: u32 = 3;

/// Why a download ended without the file.
enum End {
    /// Nobody waits any more.
    Abandoned,
    Failed(FetchError),
}

impl From<FetchError> for End {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}

/// What a request says.
enum Message {
    Came(PublicKey, u64),
    Ended(PublicKey, u64, Result<(), TransferError>),
}

/// Drives a download to its end, once those before it of the same hash have ended.
pub(super) async fn run(inner: Arc<Inner>, entry: Arc<Entry>, before: Vec<CancellationToken>) {
    let mut job = Job::new(&inner, &entry);
    let ended = Box::pin(job.run(before)).await;
    // Whatever it still does to the file must be over before another one begins.
    job.close().await;
    match ended {
        Ok(digests) => entry.store(digests, inner.store.reading(&entry.hash)),
        Err(End::Abandoned) => entry.fail(FetchError::Stopped),
        Err(End::Failed(error)) => {
            tracing::debug!(hash = %entry.hash, path = entry.first.path, %error, "a download failed");
            entry.fail(error);
        }
    }
    inner.remove(&entry);
    entry.ended.cancel();
}

/// Counts those that run.
struct Running(Arc<Inner>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Job {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    search: Search,
    /// What peers said before the piece list was here.
    offers: BTreeMap<PublicKey, Option<PieceSet>>,
    /// Peers whose other size is being looked into.
    proofs: JoinSet<bool>,
    requests: HashMap<PublicKey, Asked>,
    tasks: JoinSet<()>,
    asked: u64,
    messages: (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    writer: Option<Writer>,
    /// Time without a provider since the last piece.
    starved: Duration,
    ticked: Instant,
    turn: Option<Turn>,
    /// Held to the end: what is on its way is not evicted.
    room: Vec<Room>,
}

/// A place among those that run.
enum Turn {
    Bulk { _place: OwnedSemaphorePermit },
    Read { _place: OwnedSemaphorePermit },
}

/// A request under way.
struct Asked {
    number: u64,
    task: AbortHandle,
    /// Bytes read from the peer when it last was seen to move.
    moved: u64,
}

/// The threads that write what comes.
struct Writer {
    pieces: mpsc::Sender<Arc<InMemory>>,
    thread: JoinHandle<Result<(), StoreError>>,
    partial: Partial,
}

/// What is there at the beginning.
enum Found {
    Stored(Digests),
    Partial(Partial),
    Nothing,
}

impl Job {
    fn new(inner: &Arc<Inner>, entry: &Arc<Entry>) -> Self {
        Self {
            inner: Arc::clone(inner),
            entry: Arc::clone(entry),
            search: Search::new(entry.hash, entry.first.repository),
            offers: BTreeMap::new(),
            proofs: JoinSet::new(),
            requests: HashMap::new(),
            tasks: JoinSet::new(),
            asked: 0,
            messages: mpsc::channel(MESSAGES_MAX),
            writer: None,
            starved: Duration::ZERO,
            ticked: Instant::now(),
            turn: None,
            room: Vec::new(),
        }
    }

    async fn run(&mut self, before: Vec<CancellationToken>) -> Result<Digests, End> {
        for ended in before {
            let (stop, entry) = (self.inner.stop.clone(), Arc::clone(&self.entry));
            tokio::select! {
                () = ended.cancelled() => {}
                () = stop.cancelled() => return Err(FetchError::Stopped.into()),
                () = until_abandoned(&entry) => return Err(End::Abandoned),
            }
        }
        self.turn = Some(self.turn().await?);
        self.inner.running.fetch_add(1, Ordering::AcqRel);
        let _running = Running(Arc::clone(&self.inner));
        let mut partial = match self.open().await? {
            Found::Stored(digests) => return Ok(digests),
            Found::Partial(partial) => {
                self.room = self.room().await?;
                partial
            }
            Found::Nothing => {
                self.room = self.room().await?;
                self.entry.run(None, 0);
                let list = self.find_list().await?;
                let (store, hash) = (self.inner.store.clone(), self.entry.hash);
                self.inner
                    .blocking(move || store.partial(&hash, &list))
                    .await?
            }
        };
        for _ in 0..FINISHES_MAX {
            self.fetch(&partial).await?;
            self.settle().await?;
            if let Some(digests) = self.finish(&partial).await? {
                return Ok(digests);
            }
            // Pieces were found changed on the disk: they are fetched again.
            let (store, hash) = (self.inner.store.clone(), self.entry.hash);
            let list = partial.list();
            partial = self
                .inner
                .blocking(move || store.partial(&hash, &list))
                .await?;
        }
        let error = StoreError::Damaged {
            hash: self.entry.hash,
            path: std::path::PathBuf::from(self.entry.hash.to_string()),
        };
        Err(FetchError::from(error).into())
    }

    /// Makes room for the file in the cache.
    async fn room(&self) -> Result<Vec<Room>, FetchError> {
        let (cache, wanted) = (self.inner.cache.clone(), self.entry.wanted());
        self.inner
            .blocking(move || cache.make_room(&[wanted]))
            .await
    }

    /// Waits to be among those that run: sooner where somebody reads.
    async fn turn(&self) -> Result<Turn, End> {
        let bulk = Arc::clone(&self.inner.bulk).acquire_owned();
        tokio::pin!(bulk);
        let turn = loop {
            self.must_be_wanted()?;
            let read = Arc::clone(&self.inner.read).acquire_owned();
            tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => return Err(FetchError::Stopped.into()),
                turn = read, if self.entry.is_read() => break turn.map(|place| Turn::Read { _place: place }),
                turn = &mut bulk => break turn.map(|place| Turn::Bulk { _place: place }),
                () = self.entry.attention.notified() => {}
            }
        };
        turn.map_err(|_| FetchError::Stopped.into())
    }

    /// Leaves its place to those whom nobody reads, once somebody reads: readers may be slow.
    fn leave_bulk(&mut self) {
        if matches!(self.turn, Some(Turn::Bulk { .. }))
            && self.entry.is_read()
            && let Ok(read) = Arc::clone(&self.inner.read).try_acquire_owned()
        {
            self.turn = Some(Turn::Read { _place: read });
        }
    }

    /// Looks for what is stored.
    async fn open(&self) -> Result<Found, FetchError> {
        let (store, entry) = (self.inner.store.clone(), Arc::clone(&self.entry));
        self.inner
            .blocking(move || {
                let hash = &entry.hash;
                if store.contains(hash)?
                    && let Some(digests) = store.digests(hash)?
                    && digests.size == entry.size
                {
                    let git = entry
                        .claims()
                        .iter()
                        .any(|claimed| claimed.claim.git.is_some());
                    if git && digests.git.is_none() {
                        return Ok(Found::Stored(with_git(&store, &digests)?));
                    }
                    return Ok(Found::Stored(digests));
                }
                let mut partials = store.partials().into_iter();
                let Some((_, size, _)) = partials.find(|(found, ..)| found == hash) else {
                    return Ok(Found::Nothing);
                };
                if size != entry.size {
                    // Fetched under another claim: one of the two is wrong, and not shown to be so yet.
                    // Whole, it may be somebody's: a push may have brought it meanwhile.
                    store.discard(hash)?;
                    return Ok(Found::Nothing);
                }
                let list = Arc::clone(store.pieces(hash)?.list());
                Ok(Found::Partial(store.partial(hash, &list)?))
            })
            .await
    }

    /// The piece list, from the first peer whose list folds up to the hash.
    async fn find_list(&mut self) -> Result<Arc<PieceList>, End> {
        let mut listing: JoinSet<(PublicKey, Result<PieceList, TransferError>)> = JoinSet::new();
        let mut under_way: VecDeque<(PublicKey, AbortHandle)> = VecDeque::new();
        // How often each was asked: who was asked less often goes first, so that nobody keeps others away.
        let mut tried: BTreeMap<PublicKey, u32> = BTreeMap::new();
        let mut begun = Instant::now();
        let mut tick = ticks();
        loop {
            let times = |peer: &PublicKey| tried.get(peer).copied().unwrap_or(0);
            let next = (self.offers.keys())
                .filter(|peer| !under_way.iter().any(|(asked, _)| asked == *peer))
                .min_by_key(|peer| times(peer))
                .copied();
            if let Some(peer) = next
                && times(&peer) == 0
                && under_way.len() >= LISTING_MAX
                && begun.elapsed() >= LISTING_TIME
                && let Some((slow, asked)) = under_way.pop_front()
            {
                asked.abort();
                self.offers.remove(&slow);
                self.search.has_not(slow);
            }
            let late = under_way.is_empty() || begun.elapsed() >= LISTING_PATIENCE;
            if let Some(peer) = next
                && late
                && under_way.len() < LISTING_MAX
            {
                *tried.entry(peer).or_default() += 1;
                begun = Instant::now();
                let (blobs, hash, size) =
                    (self.inner.blobs.clone(), self.entry.hash, self.entry.size);
                let asked = listing.spawn(async move {
                    let list = Box::pin(blobs.list(peer, hash, size));
                    let list = progressing(&blobs, &peer, list).await;
                    (peer, list)
                });
                under_way.push_back((peer, asked));
                continue;
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => return Err(FetchError::Stopped.into()),
                Some(Ok((peer, list))) = listing.join_next() => match list {
                    Ok(list) => return Ok(Arc::new(list)),
                    // It may be asked again when it says again that it has it.
                    Err(error) => {
                        under_way.retain(|(asked, _)| *asked != peer);
                        self.offers.remove(&peer);
                        self.search.has_not(peer);
                        if let TransferError::Lied(what) = error {
                            self.inner.lied(&peer, &what);
                        }
                    }
                },
                (peer, held) = self.search.next() => self.offered(peer, held, None),
                Some(Ok(true)) = self.proofs.join_next() => return Err(self.other_size()),
                () = self.entry.attention.notified() => {
                    self.must_be_wanted()?;
                    self.leave_bulk();
                }
                _ = tick.tick() => {
                    self.search.ask_around(&self.inner, self.offers.is_empty(), &BTreeSet::new());
                    self.starve(under_way.is_empty() && self.offers.is_empty())?;
                }
            }
        }
    }

    /// Fetches pieces until all are here.
    async fn fetch(&mut self, partial: &Partial) -> Result<(), End> {
        let list = partial.list();
        let held = partial.held();
        let bytes = (0..held.count()).filter(|index| held.contains(*index));
        let bytes = bytes
            .filter_map(|index| piece_len(index, self.entry.size))
            .sum();
        self.entry.run(Some(partial.clone()), bytes);
        self.writer = Some(self.write(partial));
        let mut machine = Download::new(held, self.inner.seed());
        self.leave_bulk();
        let (whole, wanted) = self.entry.wishes();
        self.tell(&mut machine, &list, Event::Whole(whole));
        self.tell(&mut machine, &list, Event::Wanted(wanted));
        for (peer, offer) in std::mem::take(&mut self.offers) {
            let offer = offer.unwrap_or_else(|| PieceSet::full(self.entry.size));
            self.tell(&mut machine, &list, Event::Offer(peer, offer));
        }
        let mut tick = ticks();
        while !machine.held().is_full() {
            let stop = self.inner.stop.clone();
            let writer = self.writer.as_mut().expect("invariant: it was begun above");
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(FetchError::Stopped.into()),
                written = &mut writer.thread => {
                    self.writer = None;
                    let failed = written.map_err(|_| FetchError::Stopped)?;
                    return Err(failed.map_or_else(FetchError::from, |()| FetchError::Stopped).into());
                }
                () = self.entry.attention.notified() => {
                    self.must_be_wanted()?;
                    self.leave_bulk();
                    let (whole, wanted) = self.entry.wishes();
                    self.tell(&mut machine, &list, Event::Whole(whole));
                    self.tell(&mut machine, &list, Event::Wanted(wanted));
                }
                Some(message) = self.messages.1.recv() => self.heard(&mut machine, &list, message),
                (peer, held) = self.search.next() => {
                    self.offered(peer, held, Some((&mut machine, &list)));
                }
                Some(Ok(true)) = self.proofs.join_next() => return Err(self.other_size()),
                Some(_) = self.tasks.join_next() => {}
                _ = tick.tick() => self.tick(&mut machine, &list)?,
            }
        }
        Ok(())
    }

    /// What is due from time to time.
    fn tick(&mut self, machine: &mut Download, list: &Arc<PieceList>) -> Result<(), End> {
        let mut moved = Vec::new();
        for (peer, asked) in &mut self.requests {
            let now = self.inner.blobs.moved(peer);
            if now >= asked.moved + PROGRESS_BYTES {
                asked.moved = now;
                moved.push(*peer);
            }
        }
        for peer in moved {
            self.tell(machine, list, Event::Moves(peer));
        }
        for index in self.entry.lost(machine.held()) {
            self.tell(machine, list, Event::Lost(index));
        }
        // Anew, since only so many are looked at together.
        let (_, wanted) = self.entry.wishes();
        self.tell(machine, list, Event::Wanted(wanted));
        self.tell(machine, list, Event::Tick);
        let idle: BTreeSet<_> = machine.idle().collect();
        let starving = self.requests.is_empty() && !machine.is_satisfied();
        self.search.ask_around(&self.inner, starving, &idle);
        self.entry.tick(machine.asked().collect());
        self.starve(starving)
    }

    /// Ends a download that nobody provides for a while.
    fn starve(&mut self, starving: bool) -> Result<(), End> {
        let elapsed = self.ticked.elapsed();
        self.ticked = Instant::now();
        if !starving {
            return Ok(());
        }
        self.starved += elapsed;
        let patience = if self.search.is_awaiting() {
            PATIENCE
        } else {
            self.inner.patience()
        };
        if self.starved < patience {
            return Ok(());
        }
        let (path, hash) = (self.entry.first.path.clone(), self.entry.hash);
        Err(FetchError::NoProvider { path, hash }.into())
    }

    fn must_be_wanted(&self) -> Result<(), End> {
        if self.entry.abandoned() {
            return Err(End::Abandoned);
        }
        Ok(())
    }

    /// A peer said what it holds.
    fn offered(
        &mut self,
        peer: PublicKey,
        held: Result<Held, TransferError>,
        machine: Option<(&mut Download, &Arc<PieceList>)>,
    ) {
        let size = self.entry.size;
        let offer = match held {
            Ok(Held::Whole(found)) if found == size => None,
            Ok(Held::Partial(found, pieces)) if found == size => Some(pieces),
            // What is larger than any file is no size at all.
            Ok(Held::Whole(found)) if found <= FETCH_BYTES_MAX => {
                let (blobs, hash) = (self.inner.blobs.clone(), self.entry.hash);
                self.proofs.spawn(Box::pin(async move {
                    prove_size(&blobs, peer, hash, found).await
                }));
                return;
            }
            Err(TransferError::Lied(what)) => {
                self.inner.lied(&peer, &what);
                return;
            }
            Ok(_) | Err(_) => return,
        };
        if let Some((machine, list)) = machine {
            let offer = offer.unwrap_or_else(|| PieceSet::full(size));
            self.tell(machine, list, Event::Offer(peer, offer));
        } else {
            self.offers.insert(peer, offer);
        }
    }

    /// The file has another size than claimed.
    fn other_size(&self) -> End {
        for claimed in self.entry.claims() {
            self.entry.judged(&claimed.claim, "size");
            self.inner
                .disagreed(self.entry.hash, self.entry.size, &claimed, "size");
        }
        let path = self.entry.first.path.clone();
        FetchError::Disagrees {
            path,
            digest: "size",
        }
        .into()
    }

    fn heard(&mut self, machine: &mut Download, list: &Arc<PieceList>, message: Message) {
        match message {
            Message::Came(peer, index) => {
                self.starved = Duration::ZERO;
                self.tell(machine, list, Event::Piece(peer, index));
            }
            Message::Ended(peer, number, result) => {
                // An abandoned one's end is no news, and another may be under way.
                if self
                    .requests
                    .get(&peer)
                    .is_none_or(|asked| asked.number != number)
                {
                    return;
                }
                self.requests.remove(&peer);
                let event = match result {
                    Ok(()) => Event::Ended(peer),
                    Err(TransferError::Lied(what)) => {
                        self.inner.lied(&peer, &what);
                        Event::Lied(peer)
                    }
                    Err(error) => {
                        tracing::debug!(%peer, hash = %self.entry.hash, %error, "a request ended early");
                        self.search.has_not(peer);
                        self.tell(machine, list, Event::Ended(peer));
                        Event::Gone(peer)
                    }
                };
                self.tell(machine, list, event);
            }
        }
    }

    /// Tells the machine, and does what it says.
    fn tell(&mut self, machine: &mut Download, list: &Arc<PieceList>, event: Event) {
        let running = self.inner.running.load(Ordering::Acquire).max(1);
        machine.limit_requests((REQUESTS_MAX / running).max(1));
        for action in machine.handle(self.inner.now(), event) {
            match action {
                Action::Ask(peer, range) => self.ask(peer, list, range),
                Action::Abandon(peer) => {
                    if let Some(asked) = self.requests.remove(&peer) {
                        asked.task.abort();
                    }
                }
                // Seen at the next tick.
                Action::Starving => {}
            }
        }
    }

    fn ask(&mut self, peer: PublicKey, list: &Arc<PieceList>, range: std::ops::Range<u64>) {
        let Some(writer) = &self.writer else {
            return;
        };
        self.asked += 1;
        let request = Request {
            inner: Arc::clone(&self.inner),
            entry: Arc::clone(&self.entry),
            peer,
            messages: self.messages.0.clone(),
            writing: writer.pieces.clone(),
        };
        let (number, list) = (self.asked, Arc::clone(list));
        let task = self.tasks.spawn(Box::pin(request.run(number, list, range)));
        let asked = Asked {
            number,
            task,
            moved: self.inner.blobs.moved(&peer),
        };
        self.requests.insert(peer, asked);
    }

    /// Begins to write what comes.
    fn write(&self, partial: &Partial) -> Writer {
        let (pieces, coming) = mpsc::channel::<Arc<InMemory>>(WRITING_MAX);
        let (entry, writing) = (Arc::clone(&self.entry), partial.clone());
        let thread = self.inner.runtime.spawn_blocking(move || {
            let (coming, failed) = (Mutex::new(coming), AtomicBool::new(false));
            let write = || loop {
                let Some(piece) = coming.lock().blocking_recv() else {
                    return Ok(());
                };
                if failed.load(Ordering::Acquire) {
                    return Ok(());
                }
                let written = writing.write(piece.index, &piece.parts);
                written.inspect_err(|_| failed.store(true, Ordering::Release))?;
                entry.written(piece.index);
            };
            // While one hashes, which goes in order and takes as long as writing, the other writes.
            std::thread::scope(|scope| {
                let second = std::thread::Builder::new()
                    .name("cairn-writing".to_owned())
                    .spawn_scoped(scope, write);
                let first = write();
                // Without a second one it only goes slower.
                let second = second.map_or(Ok(()), |second| {
                    second
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                });
                first.and(second)
            })
        });
        let partial = partial.clone();
        Writer {
            pieces,
            thread,
            partial,
        }
    }

    /// Ends all requests, and waits until what came is written.
    async fn settle(&mut self) -> Result<(), FetchError> {
        self.requests.clear();
        self.tasks.shutdown().await;
        while self.messages.1.try_recv().is_ok() {}
        let Some(Writer { pieces, thread, .. }) = self.writer.take() else {
            return Ok(());
        };
        drop(pieces);
        Ok(thread.await.map_err(|_| FetchError::Stopped)??)
    }

    /// Leaves things in order, however it ended.
    async fn close(&mut self) {
        let partial = self.writer.as_ref().map(|writer| writer.partial.clone());
        let settled = self.settle().await;
        if let (Some(partial), Ok(())) = (partial, settled) {
            let kept = self.inner.blocking(move || partial.sync()).await;
            if let Err(error) = kept {
                tracing::warn!(hash = %self.entry.hash, %error, "a part of a file may be lost");
            }
        }
    }

    /// Completes the file under the first claim that agrees; `None` where pieces are missing again.
    async fn finish(&self, partial: &Partial) -> Result<Option<Digests>, FetchError> {
        loop {
            let mut claims = self.entry.claims();
            claims.retain(|claimed| self.entry.verdict(&claimed.claim).is_none());
            // One that names the git id too, if there is one: then all digests are computed at once.
            claims.sort_by_key(|claimed| claimed.claim.git.is_none());
            let Some(claimed) = claims.into_iter().next() else {
                if !self.entry.close_if_judged() {
                    continue;
                }
                let (store, hash) = (self.inner.store.clone(), self.entry.hash);
                // In part only: a push may have stored the same bytes meanwhile.
                self.inner.blocking(move || store.discard(&hash)).await?;
                let path = self.entry.first.path.clone();
                let digest = self
                    .entry
                    .verdict(&self.entry.first.claim)
                    .unwrap_or("sha256");
                return Err(FetchError::Disagrees { path, digest });
            };
            let (partial, claim) = (partial.clone(), claimed.claim);
            // Only looked at first: what disagrees would be removed, and another claim may agree.
            let finish = move || partial.check(&claim).and_then(|()| partial.finish(&claim));
            let finished = self.inner.runtime.spawn_blocking(finish).await;
            match finished.map_err(|_| FetchError::Stopped)? {
                Ok(digests) => return Ok(Some(digests)),
                Err(FinishError::Incomplete) => return Ok(None),
                Err(FinishError::Disagrees(digest)) => {
                    let digest = digest_name(digest);
                    let Entry { hash, size, .. } = &*self.entry;
                    self.entry.judged(&claim, digest);
                    self.inner.disagreed(*hash, *size, &claimed, digest);
                }
                Err(FinishError::Store(error)) => return Err(error.into()),
            }
        }
    }
}

/// One request to one peer.
struct Request {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
    peer: PublicKey,
    messages: mpsc::Sender<Message>,
    writing: mpsc::Sender<Arc<InMemory>>,
}

impl Request {
    async fn run(self, number: u64, list: Arc<PieceList>, range: std::ops::Range<u64>) {
        let (into, mut pieces) = mpsc::channel::<Piece>(TAKING_MAX);
        let blobs = &self.inner.blobs;
        let asked = blobs.pieces(self.peer, self.entry.hash, list, range, into);
        let take = async {
            while let Some(piece) = pieces.recv().await {
                if self.take(piece).await.is_none() {
                    return;
                }
            }
        };
        let (result, ()) = tokio::join!(asked, take);
        let ended = Message::Ended(self.peer, number, result);
        // Fails where the download has ended.
        self.messages.send(ended).await.unwrap_or_default();
    }

    /// Hands a piece on to readers and to the disk, all or nothing, whenever it is cut off.
    async fn take(&self, piece: Piece) -> Option<()> {
        let pieces = Arc::clone(&self.inner.pieces);
        let room = pieces.acquire_owned().await.ok()?;
        let written = self.writing.reserve().await.ok()?;
        let heard = self.messages.reserve().await.ok()?;
        let piece = Arc::new(InMemory {
            index: piece.index,
            parts: piece.parts,
            _room: Some(room),
        });
        heard.send(Message::Came(self.peer, piece.index));
        self.entry.came(Arc::clone(&piece));
        written.send(piece);
        Some(())
    }
}

/// Waits until nobody waits for it any more.
async fn until_abandoned(entry: &Entry) {
    loop {
        if entry.abandoned() {
            return;
        }
        entry.attention.notified().await;
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// As errors name it.
fn digest_name(of_store: &'static str) -> &'static str {
    match of_store {
        "SHA-256" => "sha256",
        "git blob id" => "git oid",
        other => other,
    }
}
