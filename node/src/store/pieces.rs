//! A stored blob by its pieces: for peers, which may ask for any of them.

use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::piece::{PieceList, PieceSet};

use super::StoreError;

/// Pieces of a blob, whole or in part; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pieces {}

impl Pieces {
    /// The blob's pieces.
    pub fn list(&self) -> &Arc<PieceList> {
        todo!()
    }

    /// Pieces that are here now; `None` where all are.
    pub fn held(&self) -> Option<PieceSet> {
        todo!()
    }

    /// Reads a piece and verifies it. [`StoreError::Damaged`] (and the blob is set aside) where it does not
    /// match, [`StoreError::Absent`] where it is not here. Blocking.
    pub fn read(&self, index: u64) -> Result<Bytes, StoreError> {
        let _ = index;
        todo!()
    }
}
