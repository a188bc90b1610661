//! iroh-blobs' requests, answered from our store.

use std::sync::Arc;

use bao_tree::ChunkRanges;
use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::{
    HASH_SEQUENCE_BYTES_MAX, LOOKUP_HASHES_MAX, PIECE_BYTES, RANGES_BYTES_MAX,
};
use iroh::endpoint::SendStream;
use iroh_blobs::Hash;
use iroh_blobs::protocol::{ERR_LIMIT, ERR_PERMISSION, GetManyRequest, GetRequest, Request};
use tokio::task::JoinHandle;

use super::encode::{Pyramid, Step, encode_piece, steps};
use super::serve::{Client, Cut};
use super::wire::Writing;
use crate::store::{Pieces, StoreError};

/// A piece of which less than this part is sent counts as waste.
const WASTE_PART: u64 = 8;

/// A piece on its way from the disk.
struct Ahead {
    /// Hash pairs that stand before it.
    head: Vec<u8>,
    piece: JoinHandle<Option<Vec<Bytes>>>,
}

impl Client {
    pub(super) async fn answer_iroh(
        &self,
        send: &mut SendStream,
        request: &[u8],
    ) -> Result<(), Cut> {
        let counts = self.server.traffic.of(&self.peer);
        let mut writing = Writing {
            send,
            rate: self.server.upload_rate.as_ref(),
            counts,
        };
        match read_request(request)? {
            Request::Get(request) => self.get(&mut writing, request).await,
            Request::GetMany(request) => self.get_many(&mut writing, request).await,
            _ => Err(Cut::Refused("it is not a get", ERR_PERMISSION)),
        }
    }

    /// A blob, and where it is asked for as a hash sequence, the blobs that it names.
    async fn get(&self, writing: &mut Writing<'_>, request: GetRequest) -> Result<(), Cut> {
        let mut children: Option<Bytes> = None;
        for (offset, ranges) in request.ranges.iter_non_empty_infinite() {
            let Some(child) = offset.checked_sub(1) else {
                self.send_blob(writing, blake3(&request.hash), ranges)
                    .await?;
                continue;
            };
            let sequence = match &children {
                Some(sequence) => sequence,
                None => children.insert(self.hash_sequence(blake3(&request.hash)).await?),
            };
            let (hashes, _) = sequence.as_chunks::<{ Blake3::SIZE }>();
            let hash = usize::try_from(child)
                .ok()
                .and_then(|child| hashes.get(child));
            // The ranges of the last one go on for ever; the sequence does not.
            let Some(hash) = hash else { break };
            self.send_blob(writing, Blake3::from_bytes(*hash), ranges)
                .await?;
        }
        Ok(())
    }

    async fn get_many(
        &self,
        writing: &mut Writing<'_>,
        request: GetManyRequest,
    ) -> Result<(), Cut> {
        for (offset, ranges) in request.ranges.iter_non_empty_infinite() {
            let hash = usize::try_from(offset)
                .ok()
                .and_then(|at| request.hashes.get(at));
            let Some(hash) = hash else { break };
            self.send_blob(writing, blake3(hash), ranges).await?;
        }
        Ok(())
    }

    async fn hash_sequence(&self, hash: Blake3) -> Result<Bytes, Cut> {
        let pieces = self.open(hash).await?;
        if pieces.list().size() > HASH_SEQUENCE_BYTES_MAX {
            return Err(Cut::NotHere);
        }
        let read = self.work(move || pieces.read(0)).await?;
        read.map_err(|error| not_here(hash, &error))
    }

    /// The blob, if this peer may have it.
    pub(super) async fn open(&self, hash: Blake3) -> Result<Pieces, Cut> {
        if !(self.server.may_read)(&self.peer, &hash) {
            return Err(Cut::NotHere);
        }
        let store = self.server.store.clone();
        let pieces = self.work(move || store.pieces(&hash)).await?;
        pieces.map_err(|error| not_here(hash, &error))
    }

    /// Sends one blob's ranges; while one piece is written, the next is read and hashed.
    async fn send_blob(
        &self,
        writing: &mut Writing<'_>,
        hash: Blake3,
        ranges: &ChunkRanges,
    ) -> Result<(), Cut> {
        let pieces = self.open(hash).await?;
        let list = Arc::clone(pieces.list());
        let size = list.size();
        let tree = self.tree(hash, &pieces);
        let here = pieces.held();
        let mut head = size.to_le_bytes().to_vec();
        let mut ahead: Option<Ahead> = None;
        for step in steps(&list, ranges) {
            let (index, ranges) = match step {
                Step::Pair(node) => {
                    let pair = tree.pair_above_pieces(node).ok_or(Cut::NotHere)?;
                    head.extend_from_slice(pair.as_flattened());
                    continue;
                }
                Step::Piece(index, ranges) => (index, ranges),
            };
            let is_here = here.as_ref().is_none_or(|here| here.contains(index));
            let next = if is_here {
                let piece = self.piece(&pieces, hash, index, ranges).await?;
                Some(Ahead {
                    head: std::mem::take(&mut head),
                    piece,
                })
            } else {
                None
            };
            let more = next.is_some();
            if let Some(ready) = std::mem::replace(&mut ahead, next) {
                self.send_piece(writing, ready).await?;
            }
            if !more {
                return Err(Cut::NotHere);
            }
        }
        if let Some(ready) = ahead {
            self.send_piece(writing, ready).await?;
        }
        if !head.is_empty() {
            writing.write(&mut [head.into()]).await?;
        }
        Ok(())
    }

    fn tree(&self, hash: Blake3, pieces: &Pieces) -> Arc<Pyramid> {
        let list = pieces.list();
        if list.values().len() < 64 {
            return Arc::new(Pyramid::new(list.values().to_vec()));
        }
        let trees = &self.server.trees;
        trees.get(&hash).unwrap_or_else(|| {
            let tree = Arc::new(Pyramid::new(list.values().to_vec()));
            trees.insert(hash, Arc::clone(&tree));
            tree
        })
    }

    /// Begins to read and encode a piece, when it is this one's turn.
    async fn piece(
        &self,
        pieces: &Pieces,
        hash: Blake3,
        index: u64,
        ranges: ChunkRanges,
    ) -> Result<JoinHandle<Option<Vec<Bytes>>>, Cut> {
        let working = Arc::clone(&self.server.working);
        let permit = working.acquire_owned().await.map_err(|_| Cut::NotHere)?;
        let pieces = pieces.clone();
        Ok(tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let list = pieces.list();
            let failed = |error: &StoreError| {
                not_here(hash, error);
            };
            // Encoding verifies it.
            let bytes = pieces.read_unverified(index).inspect_err(failed).ok()?;
            encode_piece(index, &bytes, list, &ranges).or_else(|| {
                let bytes = pieces.read(index).inspect_err(failed).ok()?;
                encode_piece(index, &bytes, list, &ranges)
            })
        }))
    }

    async fn send_piece(&self, writing: &mut Writing<'_>, ready: Ahead) -> Result<(), Cut> {
        let piece = ready.piece.await.map_err(|error| {
            tracing::error!(%error, "reading for a peer failed");
            Cut::NotHere
        })?;
        // Nothing of a piece that is not what the list says; the peer keeps what it had before.
        let mut chunks = piece.ok_or(Cut::NotHere)?;
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        if !ready.head.is_empty() {
            chunks.insert(0, ready.head.into());
        }
        if is_waste(bytes as u64) {
            self.waste.take(1).await;
        }
        Ok(writing.write(&mut chunks).await?)
    }
}

/// Whether so many bytes are little for a piece that is read and hashed for them.
pub(super) fn is_waste(bytes: u64) -> bool {
    bytes < PIECE_BYTES / WASTE_PART
}

fn blake3(hash: &Hash) -> Blake3 {
    Blake3::from_bytes(*hash.as_bytes())
}

/// A store's error is never the peer's business.
pub(super) fn not_here(hash: Blake3, error: &StoreError) -> Cut {
    if !matches!(error, StoreError::Absent { .. }) {
        tracing::warn!(%hash, %error, "a blob can't be served");
    }
    Cut::NotHere
}

/// Reads a request whose ranges are few enough to be read quickly.
fn read_request(bytes: &[u8]) -> Result<Request, Cut> {
    let malformed = Cut::Refused("it is malformed", ERR_LIMIT);
    let request: Request = match bytes.first() {
        Some(9) => {
            let (hashes, _) = postcard::take_from_bytes::<Vec<Hash>>(&bytes[1..])
                .map_err(|_| Cut::Refused("it is malformed", ERR_LIMIT))?;
            if hashes.len() > LOOKUP_HASHES_MAX {
                return Err(Cut::Refused("it names too many blobs", ERR_LIMIT));
            }
            if bytes.len() > RANGES_BYTES_MAX + hashes.len() * Blake3::SIZE {
                return Err(Cut::Refused("it has too many ranges", ERR_LIMIT));
            }
            postcard::from_bytes(bytes).map_err(|_| malformed)?
        }
        Some(0) if bytes.len() > RANGES_BYTES_MAX => {
            return Err(Cut::Refused("it has too many ranges", ERR_LIMIT));
        }
        Some(0) => postcard::from_bytes(bytes).map_err(|_| malformed)?,
        _ => return Err(Cut::Refused("it is not a get", ERR_PERMISSION)),
    };
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_of_a_request_panic(kind in 0_u8..12, rest in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[kind][..], &rest].concat();
            if let Ok(request) = read_request(&bytes) {
                prop_assert!(matches!(request, Request::Get(_) | Request::GetMany(_)));
            }
        }

        #[test]
        fn what_a_getter_asks_is_understood(hashes in proptest::collection::vec(any::<[u8; 32]>(), 1..9), from in 0_u64..1 << 40, len in 1_u64..1 << 20) {
            let hashes: Vec<Hash> = hashes.into_iter().map(Hash::from_bytes).collect();
            let ranges = ChunkRanges::from(bao_tree::ChunkNum(from)..bao_tree::ChunkNum(from + len));
            let one = Request::Get(GetRequest::blob_ranges(hashes[0], ranges.clone()));
            let seq = iroh_blobs::protocol::ChunkRangesSeq::from_ranges(vec![ranges; hashes.len()]);
            let many = Request::GetMany(GetManyRequest::new(hashes, seq));
            for request in [one, many] {
                let bytes = postcard::to_allocvec(&request).unwrap();
                prop_assert_eq!(read_request(&bytes).ok(), Some(request));
            }
        }
    }
}
