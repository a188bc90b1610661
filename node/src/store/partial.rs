//! A file that is stored piece by piece: what is verified is kept, across crashes too.
//!
//! Beside the bytes stand the piece list and, in steps, which pieces are certainly on the disk. A crash
//! costs no piece that the system kept: what is in doubt is hashed again at the next start.

mod held;
mod keeper;
mod state;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::limits::FLAT_BYTES_MIN;
use cairn_protocol::piece::{PieceList, PieceSet};

use super::batch::digests_frame;
use super::facts::blob_frame;
use super::intake::Taken;
use super::{Digests, Store, StoreError};
use state::{Others, Phase};

pub(super) use state::State;
pub(super) use table::Partials;

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

impl Claim {
    /// What of it the bytes do not have.
    fn disagrees(&self, found: &Others) -> Option<&'static str> {
        if found.sha256 != self.sha256 {
            return Some("SHA-256");
        }
        (self.git.is_some() && found.git != self.git).then_some("git blob id")
    }
}

/// A file on its way; cheap to clone, usable from several threads. Blocking.
#[derive(Debug, Clone)]
pub struct Partial {
    store: Store,
    state: Arc<State>,
}

impl Partial {
    pub(super) fn new(store: Store, state: Arc<State>) -> Self {
        Self { store, state }
    }

    /// The file's hash.
    pub fn hash(&self) -> Blake3 {
        self.state.hash
    }

    /// The file's pieces.
    pub fn list(&self) -> Arc<PieceList> {
        Arc::clone(&self.state.list)
    }

    pub(super) fn list_ref(&self) -> &Arc<PieceList> {
        &self.state.list
    }

    /// Pieces that are here.
    pub fn held(&self) -> PieceSet {
        self.state.held()
    }

    /// Whether a piece is here.
    pub fn has(&self, index: u64) -> bool {
        self.state.has(index)
    }

    /// Stores a piece whose bytes the caller has verified. Durable in steps, all of it by [`Self::sync`].
    ///
    /// [`StoreError::Absent`] where the file was evicted, or was found to be another one than was claimed.
    pub fn write(&self, index: u64, parts: &[Bytes]) -> Result<(), StoreError> {
        self.state.write(index, parts)
    }

    /// Bytes of a piece that is here: verified when it came, or now where an earlier process did that.
    ///
    /// [`StoreError::Absent`] where it is not here, or was found changed and is missing now.
    pub fn read(&self, index: u64) -> Result<Bytes, StoreError> {
        self.state.read(index, false)
    }

    /// The same, verified in any case.
    pub(super) fn read_verified(&self, index: u64) -> Result<Bytes, StoreError> {
        self.state.read(index, true)
    }

    /// Makes all pieces that are here durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.state.step()
    }

    /// Whether a claim agrees with the bytes, all of which must be here; unlike by [`Self::finish`], they
    /// stay where it does not.
    pub(crate) fn check(&self, claim: &Claim) -> Result<(), FinishError> {
        let _closed = self.state.gate.write();
        if !matches!(self.state.phase(), Phase::Open) {
            return Ok(());
        }
        if !self.state.held().is_full() {
            return Err(FinishError::Incomplete);
        }
        let found = self.digests(claim)?;
        claim
            .disagrees(&found)
            .map_or(Ok(()), |what| Err(FinishError::Disagrees(what)))
    }

    /// Computes what digests are not computed yet, compares them, and turns the file into a stored blob;
    /// durable on return.
    ///
    /// Where it was finished before, only compares. Where the store fails, all pieces stay.
    pub fn finish(&self, claim: &Claim) -> Result<Digests, FinishError> {
        let _lease = self.store.lease();
        let state = &self.state;
        let _closed = state.gate.write();
        match state.phase() {
            Phase::Open => {}
            Phase::Removed => return Err(FinishError::Incomplete),
            Phase::Finished(digests) => {
                let found = Others {
                    sha256: digests.sha256,
                    git: digests.git,
                };
                return claim
                    .disagrees(&found)
                    .map_or(Ok(digests), |what| Err(FinishError::Disagrees(what)));
            }
        }
        if !state.held().is_full() {
            return Err(FinishError::Incomplete);
        }
        let found = self.digests(claim)?;
        let partials = &self.store.inner.partials;
        if let Some(what) = claim.disagrees(&found) {
            tracing::warn!(hash = %state.hash, what, "a file is not what its commit claims: removed");
            partials.end(state, Phase::Removed)?;
            return Err(FinishError::Disagrees(what));
        }
        let digests = Digests {
            blake3: state.hash,
            sha256: found.sha256,
            git: found.git,
            size: state.list.size(),
        };
        if !state.held().is_full() {
            // Who read it for a peer meanwhile found a piece changed on the disk.
            return Err(FinishError::Incomplete);
        }
        let digests = self.place(digests)?;
        if let Err(error) = partials.end(state, Phase::Finished(digests)) {
            // The blob is stored: the rest goes at the next start.
            tracing::warn!(hash = %state.hash, %error, "a partial file could not be removed");
        }
        Ok(digests)
    }

    /// The digests that a claim is about.
    fn digests(&self, claim: &Claim) -> Result<Others, FinishError> {
        let state = &self.state;
        let Some((sha256, mut trusts_disk)) = state.sha256()? else {
            return Err(FinishError::Incomplete);
        };
        let mut found = Others { sha256, git: None };
        if claim.git.is_some() && claim.disagrees(&found) != Some("SHA-256") {
            trusts_disk = true;
            found.git = state.git()?;
        }
        if trusts_disk && claim.disagrees(&found).is_some() {
            // Before anybody is blamed: the disk may have changed what was verified once.
            found = state
                .recompute(claim.git.is_some())?
                .ok_or(FinishError::Incomplete)?;
        }
        Ok(found)
    }

    /// Makes it a blob like any other.
    fn place(&self, digests: Digests) -> Result<Digests, FinishError> {
        let super::Inner { log, flats, .. } = &*self.store.inner;
        let state = &self.state;
        // No step goes on while the files move.
        let _ledger = state.ledger.lock();
        if digests.size < FLAT_BYTES_MIN {
            let bytes = match state.read(0, true) {
                Ok(bytes) => bytes,
                Err(StoreError::Absent { .. }) => return Err(FinishError::Incomplete),
                Err(error) => return Err(error.into()),
            };
            let mut frames = vec![blob_frame(&state.hash, bytes)];
            frames.extend(digests_frame(&self.store, digests)?);
            log.append(frames)?;
            return Ok(digests);
        }
        let taken = Taken {
            digests,
            pieces: state.list.encode(),
        };
        Ok(flats.place_partial(log, &state.file, &state.places.data, &taken)?)
    }
}
