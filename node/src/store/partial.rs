//! A file that is stored piece by piece: what is verified is kept, across crashes too.
//!
//! Beside the bytes stand the piece list and, in steps, which pieces are certainly on the disk. A crash
//! costs no piece that the system kept: what is in doubt is hashed again at the next start.

use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::hash::{GitOid, Sha256};
use cairn_protocol::piece::{PieceList, PieceSet};

use super::{Digests, StoreError};

/// What a commit claims of a file beside its BLAKE3 and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// LFS oid and hub `ETag`.
    pub sha256: Sha256,
    /// Git blob id, where git stores the file itself.
    pub git: Option<GitOid>,
}

/// Why a file could not be completed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FinishError {
    /// Pieces are missing, or were found changed on the disk and are missing now.
    #[error("pieces are missing")]
    Incomplete,
    /// The bytes match the BLAKE3, and another digest is not the one claimed; nothing of it is kept.
    #[error("its {0} is not the one claimed")]
    Disagrees(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file on its way; cheap to clone, usable from several threads. Blocking.
#[derive(Debug, Clone)]
pub struct Partial {}

impl Partial {
    /// The file's pieces.
    pub fn list(&self) -> Arc<PieceList> {
        todo!()
    }

    /// Pieces that are here.
    pub fn held(&self) -> PieceSet {
        todo!()
    }

    /// Whether a piece is here.
    pub fn has(&self, index: u64) -> bool {
        let _ = index;
        todo!()
    }

    /// Stores a piece whose bytes the caller has verified. Durable in steps, all of it by [`Self::sync`].
    pub fn write(&self, index: u64, parts: &[Bytes]) -> Result<(), StoreError> {
        let _ = (index, parts);
        todo!()
    }

    /// Bytes of a piece that is here: verified when it came.
    pub fn read(&self, index: u64) -> Result<Bytes, StoreError> {
        let _ = index;
        todo!()
    }

    /// Makes all pieces that are here durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Computes what digests are not computed yet, compares them, and turns the file into a stored blob;
    /// durable on return.
    pub fn finish(&self, claim: &Claim) -> Result<Digests, FinishError> {
        let _ = claim;
        todo!()
    }
}
