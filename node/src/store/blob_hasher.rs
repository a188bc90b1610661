//! The git id of a blob that is hashed as it is read.

use cairn_protocol::hash::GitOid;
use sha1_checked::{Digest as _, Sha1};

/// Bytes made to collide with others under SHA-1.
#[derive(Debug)]
pub(super) struct Collision;

/// Hashes a blob of a size that is known before its bytes are.
#[derive(Debug)]
pub(super) struct BlobHasher(Sha1);

impl BlobHasher {
    /// Begins a blob of `size` bytes, which git hashes before the content.
    pub(super) fn new(size: u64) -> Self {
        let mut hasher = Sha1::new();
        hasher.update(format!("blob {size}\0"));
        Self(hasher)
    }

    /// The next bytes of the content.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The id; an error where the bytes carry a collision attack.
    pub(super) fn finish(self) -> Result<GitOid, Collision> {
        let result = self.0.try_finalize();
        if result.has_collision() {
            return Err(Collision);
        }
        Ok(GitOid::from_bytes((*result.hash()).into()))
    }
}
