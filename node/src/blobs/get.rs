//! Getting: pieces of a file, and small blobs many at a time, from any iroh-blobs program.
//!
//! An answer is hash pairs and leaves in an order that follows from size and ranges alone. The hashes in it
//! are passed over: a piece is verified against the file's list, a blob against its hash, in one pass at
//! full speed, before anybody sees it.

use std::collections::VecDeque;
use std::ops::Range;

use bao_tree::io::sync::truncate_ranges;
use bao_tree::iter::{BaoChunk, ResponseIterRef};
use bao_tree::{BaoTree, ChunkNum, ChunkRanges, ChunkRangesRef};
use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::{FETCH_BYTES_MAX, LOOKUP_HASHES_MAX, OBJECT_BYTES_MAX, PIECE_BYTES};
use cairn_protocol::piece::{PieceList, piece_count, piece_len};
use cairn_protocol::transfer::Held;
use iroh_blobs::Hash;
use iroh_blobs::protocol::{ChunkRangesSeq, GetManyRequest, GetRequest, Request};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::encode::GROUP;
use super::pool::Stream;
use super::traffic::Counts;
use super::wire::{Reading, StreamError};
use super::{Inner, Piece, TransferError};
use crate::buffers::Buffer;

/// Chunks of 1 KiB in a piece.
const PIECE_CHUNKS: u64 = PIECE_BYTES / 1024;
/// Pieces that one stream is asked for: all of them fit its window, so that one that is read later never
/// looks to its sender as if nobody read it.
const STREAM_PIECES: u64 = 2;
/// Pieces whose values one request asks for.
const LIST_STEP: u64 = 1_000;
/// A blob that says it is larger takes its memory from what all such may have together.
const LARGE_BYTES: u64 = 1 << 20;

fn gone() -> TransferError {
    TransferError::Broken("nobody takes it any more".to_owned())
}

impl Inner {
    async fn request(&self, peer: PublicKey, request: &Request) -> Result<Stream, TransferError> {
        let broken = |error: String| TransferError::Broken(error);
        let bytes = postcard::to_allocvec(request).map_err(|error| broken(error.to_string()))?;
        let mut stream = self.pool.open(peer, iroh_blobs::ALPN).await?;
        let sent = stream.send.write_chunk(bytes.into()).await;
        sent.map_err(|error| broken(error.to_string()))?;
        // Closed already means that the answer will say why.
        stream.send.finish().ok();
        Ok(stream)
    }

    fn reading<'a>(&'a self, peer: &PublicKey, stream: &'a mut Stream) -> Reading<'a> {
        Reading::new(
            &mut stream.recv,
            self.download_rate.as_ref(),
            self.traffic.of(peer),
        )
    }

    async fn get_ranges(
        &self,
        peer: PublicKey,
        hash: &Blake3,
        ranges: ChunkRanges,
    ) -> Result<Stream, TransferError> {
        let request = GetRequest::blob_ranges(Hash::from_bytes(*hash.as_bytes()), ranges);
        self.request(peer, &Request::Get(request)).await
    }

    /// See [`super::Blobs::pieces`].
    pub(super) async fn pieces(
        &self,
        peer: PublicKey,
        hash: Blake3,
        list: &PieceList,
        pieces: Range<u64>,
        into: mpsc::Sender<Piece>,
    ) -> Result<(), TransferError> {
        let size = list.size();
        let pieces = pieces.start..pieces.end.min(piece_count(size));
        if pieces.is_empty() {
            return Ok(());
        }
        // Read in order, one after the other: what comes on the later ones waits in their windows.
        let mut streams: VecDeque<(_, ChunkRanges, Option<OwnedSemaphorePermit>, Stream)> =
            VecDeque::new();
        let mut asked = pieces.start;
        loop {
            while asked < pieces.end {
                let ahead = match streams.front() {
                    None => None,
                    Some((.., first)) => match first.ask_ahead() {
                        None => break,
                        ahead => ahead,
                    },
                };
                let part = asked..pieces.end.min(asked + STREAM_PIECES);
                let chunks = ChunkNum(part.start * PIECE_CHUNKS)..ChunkNum(part.end * PIECE_CHUNKS);
                let ranges = ChunkRanges::from(chunks);
                let stream = self.get_ranges(peer, &hash, ranges.clone()).await?;
                asked = part.end;
                streams.push_back((part, ranges, ahead, stream));
            }
            let Some((part, ranges, ahead, mut stream)) = streams.pop_front() else {
                return Ok(());
            };
            drop(ahead);
            let mut reading = self.reading(&peer, &mut stream);
            self.read_pieces(&mut reading, &hash, list, part, &ranges, &into)
                .await?;
        }
    }

    async fn read_pieces(
        &self,
        reading: &mut Reading<'_>,
        hash: &Blake3,
        list: &PieceList,
        pieces: Range<u64>,
        ranges: &ChunkRangesRef,
        into: &mpsc::Sender<Piece>,
    ) -> Result<(), TransferError> {
        let size = list.size();
        read_size(reading, size).await?;
        let mut leaves = Leaves::new(size, ranges);
        for index in pieces {
            let len = piece_len(index, size).expect("invariant: the range ends with the file");
            let mut bytes =
                Buffer::new(usize::try_from(len).expect("invariant: a piece fits memory"));
            leaves.read(reading, &mut bytes).await?;
            verified(&reading.counts, hash, list, index, bytes, into).await?;
        }
        Ok(())
    }

    /// The same as [`Self::pieces`], over TCP; [`TransferError::Unreachable`] where that peer can't be asked
    /// so now, of whom nothing came then.
    pub(super) async fn pieces_by_http(
        &self,
        peer: PublicKey,
        hash: &Blake3,
        list: &PieceList,
        pieces: Range<u64>,
        into: &mpsc::Sender<Piece>,
    ) -> Result<(), TransferError> {
        let size = list.size();
        let pieces = pieces.start..pieces.end.min(piece_count(size));
        let bytes = pieces.start * PIECE_BYTES..size.min(pieces.end * PIECE_BYTES);
        if bytes.is_empty() {
            return Err(TransferError::Unreachable("it has no bytes".to_owned()));
        }
        let addresses = self.pool.addresses(&peer).unwrap_or_default();
        let mut answer = self.http.ask(peer, &addresses, hash, bytes).await?;
        if answer.size != size {
            return Err(other_size(size, answer.size));
        }
        let come = answer.bytes.end;
        let counts = self.traffic.of(&peer);
        let mut reading = Reading::new(&mut answer, self.download_rate.as_ref(), counts);
        for index in pieces {
            let len = piece_len(index, size).expect("invariant: the range ends with the file");
            if index * PIECE_BYTES + len > come {
                // It has no more of it.
                return Err(TransferError::Absent);
            }
            let mut bytes =
                Buffer::new(usize::try_from(len).expect("invariant: a piece fits memory"));
            let read = reading.fill(&mut bytes).await;
            read.map_err(StreamError::of_transfer)?;
            verified(&reading.counts, hash, list, index, bytes, into).await?;
        }
        self.http.keep(&peer, answer);
        Ok(())
    }

    /// The piece list from a peer that speaks iroh-blobs alone: of each piece one chunk, with the hash
    /// pairs that prove it, which hold the pieces' values.
    pub(super) async fn list_by_chunks(
        &self,
        peer: PublicKey,
        hash: &Blake3,
        size: u64,
    ) -> Result<PieceList, TransferError> {
        let count = piece_count(size);
        let mut values: Vec<u8> = Vec::new();
        for first in (0..count).step_by(usize::try_from(LIST_STEP).unwrap_or(usize::MAX)) {
            let end = count.min(first + LIST_STEP);
            let mut ranges = ChunkRanges::empty();
            for piece in first..end {
                let chunk = piece * PIECE_CHUNKS;
                ranges |= ChunkRanges::from(ChunkNum(chunk)..ChunkNum(chunk + 1));
            }
            let mut stream = self.get_ranges(peer, hash, ranges.clone()).await?;
            let mut reading = self.reading(&peer, &mut stream);
            read_size(&mut reading, size).await?;
            // Memory for what came, not for what was announced.
            values.resize(usize::try_from(end * 32).unwrap_or(usize::MAX), 0);
            let mut pair = [0; 64];
            let mut chunk = [0; 16 << 10];
            for item in geometry(size, &ranges) {
                let node = match item {
                    BaoChunk::Parent { node, .. } => node,
                    BaoChunk::Leaf { size, .. } => {
                        let leaf = chunk.get_mut(..size).ok_or_else(gone)?;
                        reading.fill(leaf).await.map_err(StreamError::of_transfer)?;
                        continue;
                    }
                };
                reading
                    .fill(&mut pair)
                    .await
                    .map_err(StreamError::of_transfer)?;
                let range = node.chunk_range();
                if node.mid().0 % PIECE_CHUNKS != 0 {
                    continue;
                }
                let [from, middle, to] =
                    [range.start, node.mid(), range.end].map(|chunk| chunk.0 / PIECE_CHUNKS);
                let (left, right) = pair.split_at(32);
                for (from, to, value) in [(from, middle, left), (middle, to.min(count), right)] {
                    let of_piece = to.saturating_sub(from) == 1;
                    let at = usize::try_from(from * 32).unwrap_or(usize::MAX);
                    if of_piece && let Some(to) = values.get_mut(at..at.saturating_add(32)) {
                        to.copy_from_slice(value);
                    }
                }
            }
        }
        let values = (count > 1).then_some(&*values);
        PieceList::decode(values, size, hash)
            .map_err(|error| TransferError::Lied(format!("the hash tree of {hash}: {error}")))
    }

    /// What a peer that speaks iroh-blobs alone holds: it is asked for the last chunk, and says the size.
    pub(super) async fn look_up_by_size(
        &self,
        peer: PublicKey,
        hash: &Blake3,
    ) -> Result<Held, TransferError> {
        let last = ChunkRanges::from(ChunkNum(u64::MAX)..);
        let mut stream = self.get_ranges(peer, hash, last).await?;
        let mut size = [0; 8];
        let mut reading = self.reading(&peer, &mut stream);
        match reading
            .fill(&mut size)
            .await
            .map_err(StreamError::of_transfer)
        {
            Ok(()) => {}
            Err(TransferError::Absent) => return Ok(Held::Absent),
            Err(error) => return Err(error),
        }
        // The proof is left unread: what is held is only ever a hint.
        let size = u64::from_le_bytes(size);
        let credible = size <= FETCH_BYTES_MAX;
        Ok(if credible {
            Held::Whole(size)
        } else {
            Held::Absent
        })
    }

    /// See [`super::Blobs::blobs`].
    pub(super) async fn blobs(
        &self,
        peer: PublicKey,
        hashes: &[Blake3],
        into: &mpsc::Sender<(Blake3, Bytes)>,
    ) -> Result<(), TransferError> {
        for hashes in hashes.chunks(LOOKUP_HASHES_MAX) {
            let mut done = 0;
            match self.get_many(peer, hashes, into, &mut done).await {
                Ok(()) => {}
                // Not every program serves many at once; nor does one that lacks one of them say which.
                Err(TransferError::Absent) => {
                    for hash in &hashes[done..] {
                        let all = ChunkRanges::all();
                        let mut stream = self.get_ranges(peer, hash, all).await?;
                        let mut reading = self.reading(&peer, &mut stream);
                        self.read_blob(&mut reading, hash, into).await?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn get_many(
        &self,
        peer: PublicKey,
        hashes: &[Blake3],
        into: &mpsc::Sender<(Blake3, Bytes)>,
        done: &mut usize,
    ) -> Result<(), TransferError> {
        let all = std::iter::repeat_n(ChunkRanges::all(), hashes.len());
        let request = GetManyRequest::new(
            hashes
                .iter()
                .map(|hash| Hash::from_bytes(*hash.as_bytes()))
                .collect(),
            ChunkRangesSeq::from_ranges(all),
        );
        let mut stream = self.request(peer, &Request::GetMany(request)).await?;
        let mut reading = self.reading(&peer, &mut stream);
        for hash in hashes {
            self.read_blob(&mut reading, hash, into).await?;
            *done += 1;
        }
        Ok(())
    }

    /// Reads one whole blob of an answer.
    async fn read_blob(
        &self,
        reading: &mut Reading<'_>,
        hash: &Blake3,
        into: &mpsc::Sender<(Blake3, Bytes)>,
    ) -> Result<(), TransferError> {
        let mut size = [0; 8];
        reading
            .fill(&mut size)
            .await
            .map_err(StreamError::of_transfer)?;
        let size = u64::from_le_bytes(size);
        if size > OBJECT_BYTES_MAX as u64 {
            let reason = format!("{hash} has {size} bytes, more than are read at once");
            return Err(TransferError::Broken(reason));
        }
        let _room = if size > LARGE_BYTES {
            let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
            Some(self.large.acquire_many(kib).await.map_err(|_| gone())?)
        } else {
            None
        };
        let all = ChunkRanges::all();
        let mut leaves = Leaves::new(size, &all);
        let mut bytes = Vec::new();
        let mut left = size;
        while left > 0 {
            // Step by step, so that memory is taken for what came, not for what was announced.
            let step = usize::try_from(left.min(PIECE_BYTES)).unwrap_or(usize::MAX);
            let from = bytes.len();
            bytes.resize(from + step, 0);
            leaves.read(reading, &mut bytes[from..]).await?;
            left -= step as u64;
        }
        if size == 0 {
            leaves.read(reading, &mut []).await?;
        }
        if Blake3::of(&bytes) != *hash {
            return Err(TransferError::Lied(format!("the content of {hash}")));
        }
        reading.counts.add_taken(size);
        into.send((*hash, bytes.into())).await.map_err(|_| gone())
    }
}

/// Hands a piece on, if it is what the list says.
async fn verified(
    counts: &Counts,
    hash: &Blake3,
    list: &PieceList,
    index: u64,
    bytes: Buffer,
    into: &mpsc::Sender<Piece>,
) -> Result<(), TransferError> {
    if !list.verify(index, &bytes) {
        return Err(TransferError::Lied(format!("piece {index} of {hash}")));
    }
    counts.add_taken(bytes.len() as u64);
    let parts = vec![bytes.freeze()];
    let piece = Piece { index, parts };
    into.send(piece).await.map_err(|_| gone())
}

fn other_size(expected: u64, said: u64) -> TransferError {
    TransferError::Lied(format!("it has {expected} bytes, the peer says {said}"))
}

async fn read_size(reading: &mut Reading<'_>, expected: u64) -> Result<(), TransferError> {
    let mut size = [0; 8];
    reading
        .fill(&mut size)
        .await
        .map_err(StreamError::of_transfer)?;
    let size = u64::from_le_bytes(size);
    if size != expected {
        return Err(other_size(expected, size));
    }
    Ok(())
}

/// What an answer consists of.
fn geometry(size: u64, ranges: &ChunkRangesRef) -> ResponseIterRef<'_> {
    ResponseIterRef::new(BaoTree::new(size, GROUP), truncate_ranges(ranges, size))
}

/// The leaves of an answer, in order, between hash pairs that are passed over.
struct Leaves<'a> {
    items: ResponseIterRef<'a>,
}

impl<'a> Leaves<'a> {
    fn new(size: u64, ranges: &'a ChunkRangesRef) -> Self {
        Self {
            items: geometry(size, ranges),
        }
    }

    /// Fills a buffer that ends with a leaf.
    async fn read(
        &mut self,
        reading: &mut Reading<'_>,
        buffer: &mut [u8],
    ) -> Result<(), TransferError> {
        let mut filled = 0;
        loop {
            if filled == buffer.len() && filled > 0 {
                return Ok(());
            }
            let read = match self.items.next() {
                None => return Ok(()),
                Some(BaoChunk::Parent { .. }) => reading.skip(64).await,
                Some(BaoChunk::Leaf { size, .. }) => {
                    let leaf = buffer
                        .get_mut(filled..filled + size)
                        .expect("invariant: leaves don't cross pieces");
                    filled += size;
                    reading.fill(leaf).await
                }
            };
            read.map_err(StreamError::of_transfer)?;
        }
    }
}
