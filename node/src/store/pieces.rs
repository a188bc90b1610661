//! A stored blob by its pieces: for peers, which may ask for any of them.

use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::PIECE_BYTES;
use cairn_protocol::piece::{PieceList, PieceSet, piece_len};

use super::flats::ByPiece;
use super::partial::Partial;
use super::{Inner, Reading, Store, StoreError};
use crate::buffers::Buffer;

/// Pieces of a blob, whole or in part; cheap to clone. Keeps the file open.
#[derive(Debug, Clone)]
pub struct Pieces {
    hash: Blake3,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// In memory, checked against its hash.
    Small {
        bytes: Bytes,
        list: Arc<PieceList>,
    },
    Flat {
        store: Store,
        open: Arc<ByPiece>,
        _reading: Arc<Reading>,
    },
    Partial(Partial),
}

impl Pieces {
    pub(super) fn small(hash: &Blake3, bytes: Bytes) -> Self {
        let list = PieceList::decode(None, bytes.len() as u64, hash)
            .expect("invariant: a small blob is one piece");
        Self {
            hash: *hash,
            source: Source::Small {
                bytes,
                list: Arc::new(list),
            },
        }
    }

    pub(super) fn flat(hash: &Blake3, store: Store, open: Arc<ByPiece>) -> Self {
        Self {
            hash: *hash,
            source: Source::Flat {
                _reading: Arc::new(store.inner.flats.readers.of(hash).enter()),
                store,
                open,
            },
        }
    }

    pub(super) fn partial(partial: Partial) -> Self {
        Self {
            hash: partial.hash(),
            source: Source::Partial(partial),
        }
    }

    /// The blob's hash.
    pub fn hash(&self) -> Blake3 {
        self.hash
    }

    /// The blob's pieces.
    pub fn list(&self) -> &Arc<PieceList> {
        match &self.source {
            Source::Small { list, .. } => list,
            Source::Flat { open, .. } => &open.list,
            Source::Partial(partial) => partial.list_ref(),
        }
    }

    /// Pieces that are here now; `None` where all are.
    pub fn held(&self) -> Option<PieceSet> {
        match &self.source {
            Source::Small { .. } | Source::Flat { .. } => None,
            Source::Partial(partial) => Some(partial.held()).filter(|held| !held.is_full()),
        }
    }

    /// Reads a piece and verifies it. [`StoreError::Damaged`] (and the blob is set aside) where it does not
    /// match, [`StoreError::Absent`] where it is not here. Blocking.
    ///
    /// A piece of a partial file that does not match is missing from then on.
    pub fn read(&self, index: u64) -> Result<Bytes, StoreError> {
        match &self.source {
            Source::Small { bytes, .. } if index == 0 => Ok(bytes.clone()),
            Source::Small { .. } => Err(StoreError::Absent { hash: self.hash }),
            Source::Flat { store, open, .. } => self.read_flat(store, open, index),
            Source::Partial(partial) => partial.read_verified(index),
        }
    }

    /// The same for who verifies it, and asks for it by [`Self::read`] where it does not match: so that what
    /// is damaged is taken note of, and what is not is hashed once.
    pub(crate) fn read_unverified(&self, index: u64) -> Result<Bytes, StoreError> {
        match &self.source {
            Source::Small { .. } => self.read(index),
            Source::Flat { store, open, .. } => match self.bytes(store, open, index)? {
                Some(bytes) => Ok(bytes.freeze()),
                None => self.read(index),
            },
            Source::Partial(partial) => partial.read(index),
        }
    }

    /// A piece of a flat file as it is; nothing where the file is too short.
    fn bytes(
        &self,
        store: &Store,
        open: &ByPiece,
        index: u64,
    ) -> Result<Option<Buffer>, StoreError> {
        let Some(len) = piece_len(index, open.list.size()) else {
            return Err(StoreError::Absent { hash: self.hash });
        };
        let mut bytes = Buffer::new(usize::try_from(len).expect("invariant: a piece fits"));
        let files = store.inner.flats.files();
        let read = files.read_at(&open.file, &mut bytes, index * PIECE_BYTES)?;
        Ok((read == bytes.len()).then_some(bytes))
    }

    fn read_flat(&self, store: &Store, open: &ByPiece, index: u64) -> Result<Bytes, StoreError> {
        let Inner { log, flats, .. } = &*store.inner;
        let bytes = self.bytes(store, open, index)?;
        if let Some(bytes) = bytes.filter(|bytes| open.list.verify(index, bytes)) {
            return Ok(bytes.freeze());
        }
        let _reading = store.inner.sweeping.read();
        Err(flats.piece_damaged(log, &self.hash, &open.file))
    }
}
