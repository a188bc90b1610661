//! The end of a download that its readers hold.

use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::limits::PIECE_BYTES;
use cairn_protocol::piece::piece_count;
use parking_lot::Mutex;

use super::claims::{Claimed, disagreement};
use super::entry::{Entry, Stage, Where};
use super::{FetchError, Fetcher};
use crate::store::{Content, Digests, FlatFile, Store, StoreError};

/// Pieces that are fetched ahead of a reader, at most.
const AHEAD_PIECES_MAX: u64 = 16;

/// A file on its way here; cheap to clone. Dropping the last one stops the download.
///
/// All of the file is fetched once somebody waits in [`Arriving::finished`]; before, only what is read.
#[derive(Debug)]
pub struct Arriving {
    fetcher: Fetcher,
    entry: Arc<Entry>,
    claimed: Claimed,
    reader: u64,
    place: Mutex<Place>,
}

/// Where a reader is.
#[derive(Debug, Default)]
struct Place {
    /// Where its last read ended.
    next: u64,
    /// Pieces to fetch ahead: more, the longer it reads on.
    ahead: u64,
    /// The last piece that was read from the disk.
    piece: Option<(u64, Bytes)>,
    /// The stored file.
    content: Option<Content>,
}

impl Arriving {
    /// For one that joined already.
    pub(super) fn new(fetcher: Fetcher, entry: Arc<Entry>, claimed: Claimed) -> Self {
        Self {
            fetcher,
            reader: entry.reader(),
            entry,
            claimed,
            place: Mutex::default(),
        }
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// Verified bytes of a range, at least one and at most to the end of a piece; waits until they are here,
    /// and fetches them before what nobody waits for. `offset` is below the size.
    ///
    /// `len_max` may be all that the reader is going to read: some of it is fetched ahead.
    pub async fn read(&self, offset: u64, len_max: u64) -> Result<Bytes, FetchError> {
        if offset >= self.entry.size || len_max == 0 {
            return Ok(Bytes::new());
        }
        let index = offset / PIECE_BYTES;
        self.entry.want(self.reader, self.ahead(offset, len_max));
        let bytes = loop {
            let changed = self.entry.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.entry.find(index) {
                Where::Memory(piece) => break part_at(&piece.parts, offset % PIECE_BYTES),
                Where::Partial(partial) => {
                    let read = move || partial.read(index);
                    match self.piece(index, read).await {
                        Ok(piece) => break tail(&piece, offset % PIECE_BYTES),
                        // It was completed, or lost, meanwhile.
                        Err(error) if matches!(self.entry.find(index), Where::Partial(_)) => {
                            return Err(error);
                        }
                        Err(_) => {}
                    }
                }
                Where::Stored(digests) => {
                    self.agree(&digests)?;
                    break self.stored(offset, index).await?;
                }
                Where::Failed(error) => return Err(self.own(error)),
                Where::Nowhere => changed.await,
            }
        };
        let len = usize::try_from(len_max).map_or(bytes.len(), |len| len.min(bytes.len()));
        let bytes = bytes.slice(..len);
        self.place.lock().next = offset + bytes.len() as u64;
        Ok(bytes)
    }

    /// Waits until the whole file is here, all digests were computed and equal the claim, and it is stored.
    pub async fn finished(&self) -> Result<Digests, FetchError> {
        let _finisher = Finisher::new(&self.entry);
        loop {
            let changed = self.entry.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.entry.stage() {
                Stage::Stored(digests) => return self.judge(digests).await,
                Stage::Failed(error) => return Err(self.own(error)),
                Stage::Waiting | Stage::Running => {
                    if let Some(digest) = self.entry.verdict(&self.claimed.claim) {
                        return Err(self.disagrees(digest));
                    }
                    changed.await;
                }
            }
        }
    }

    /// Bytes here by now, and bytes that came over the network.
    pub fn progress(&self) -> (u64, u64) {
        self.entry.progress()
    }

    /// Whether both wait for the same download.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry)
    }

    /// Pieces to fetch for a read and those after it.
    fn ahead(&self, offset: u64, len_max: u64) -> Range<u64> {
        let index = offset / PIECE_BYTES;
        let mut place = self.place.lock();
        if place.next != offset || offset == 0 {
            place.ahead = 0;
        } else if offset.is_multiple_of(PIECE_BYTES) {
            place.ahead = (place.ahead * 2).clamp(1, AHEAD_PIECES_MAX);
        }
        let announced = offset.saturating_add(len_max).div_ceil(PIECE_BYTES);
        let announced = announced.min(index + 1 + AHEAD_PIECES_MAX);
        let end = announced.max(index + 1 + place.ahead);
        index..end.min(piece_count(self.entry.size))
    }

    /// A piece from the disk, once for all reads within it.
    async fn piece(
        &self,
        index: u64,
        read: impl FnOnce() -> Result<Bytes, StoreError> + Send + 'static,
    ) -> Result<Bytes, FetchError> {
        if let Some((kept, bytes)) = &self.place.lock().piece
            && *kept == index
        {
            return Ok(bytes.clone());
        }
        let inner = &self.fetcher.inner;
        let _turn = (inner.reads.acquire().await).map_err(|_| FetchError::Stopped)?;
        let bytes = inner.blocking(read).await?;
        self.place.lock().piece = Some((index, bytes.clone()));
        Ok(bytes)
    }

    /// From the stored file to the end of the piece.
    async fn stored(&self, offset: u64, index: u64) -> Result<Bytes, FetchError> {
        let inner = &self.fetcher.inner;
        let known = self.place.lock().content.clone();
        let content = if let Some(content) = known {
            content
        } else {
            let (store, hash) = (inner.store.clone(), self.entry.hash);
            let content = inner.blocking(move || store.content(&hash)).await?;
            self.place.lock().content = Some(content.clone());
            content
        };
        let start = index * PIECE_BYTES;
        let len = PIECE_BYTES.min(self.entry.size - start);
        let piece = match content {
            Content::Small(bytes) => bytes,
            Content::Flat(flat) => {
                self.piece(index, move || read_at(&flat, start, len))
                    .await?
            }
        };
        Ok(tail(&piece, offset - start))
    }

    async fn judge(&self, mut digests: Digests) -> Result<Digests, FetchError> {
        let inner = &self.fetcher.inner;
        let claim = &self.claimed.claim;
        if claim.git.is_some() && digests.git.is_none() {
            let store = inner.store.clone();
            digests = inner.blocking(move || with_git(&store, &digests)).await?;
        }
        self.agree(&digests).map(|()| digests)
    }

    /// Compares what is known of the stored bytes with the claim.
    fn agree(&self, digests: &Digests) -> Result<(), FetchError> {
        match disagreement(&self.claimed.claim, digests) {
            None => Ok(()),
            Some(digest) => {
                let Entry { hash, size, .. } = &*self.entry;
                (self.fetcher.inner).disagreed(*hash, *size, &self.claimed, digest);
                Err(self.disagrees(digest))
            }
        }
    }

    fn disagrees(&self, digest: &'static str) -> FetchError {
        let path = self.claimed.path.clone();
        FetchError::Disagrees { path, digest }
    }

    /// An error that names the file as this reader knows it.
    fn own(&self, error: FetchError) -> FetchError {
        let path = self.claimed.path.clone();
        match error {
            FetchError::NoProvider { hash, .. } => FetchError::NoProvider { path, hash },
            FetchError::Disagrees { digest, .. } => FetchError::Disagrees { path, digest },
            error => error,
        }
    }
}

impl Clone for Arriving {
    fn clone(&self) -> Self {
        self.entry.join_again();
        let entry = Arc::clone(&self.entry);
        Self::new(self.fetcher.clone(), entry, self.claimed.clone())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.entry.leave(self.reader);
    }
}

/// One who waits for all of the file.
struct Finisher<'a>(&'a Entry);

impl<'a> Finisher<'a> {
    fn new(entry: &'a Entry) -> Self {
        entry.finisher(true);
        Self(entry)
    }
}

impl Drop for Finisher<'_> {
    fn drop(&mut self) {
        self.0.finisher(false);
    }
}

/// Digests of stored bytes with their git blob id, which was not asked for when they were stored.
pub(super) fn with_git(store: &Store, known: &Digests) -> Result<Digests, StoreError> {
    match store.content(&known.blake3)? {
        Content::Small(bytes) => {
            let mut batch = store.batch();
            let digests = batch.put_with(bytes, true)?;
            batch.commit()?;
            Ok(digests)
        }
        Content::Flat(flat) => {
            let file = std::fs::File::open(&flat.path).map_err(StoreError::Source)?;
            store.import(&mut &file, flat.size, true, &mut |_| {})
        }
    }
}

fn read_at(flat: &FlatFile, offset: u64, len: u64) -> Result<Bytes, StoreError> {
    let mut piece = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    match flat.file.read_exact_at(&mut piece, offset) {
        Ok(()) => Ok(piece.into()),
        Err(source) => Err(StoreError::Io {
            operation: "read",
            path: flat.path.clone(),
            source,
        }),
    }
}

/// The part that a place in a piece is in, from there on.
fn part_at(parts: &[Bytes], mut place: u64) -> Bytes {
    for part in parts {
        let len = part.len() as u64;
        if place < len {
            return tail(part, place);
        }
        place -= len;
    }
    Bytes::new()
}

fn tail(bytes: &Bytes, place: u64) -> Bytes {
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    bytes.slice(place.min(bytes.len())..)
}
