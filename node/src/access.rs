//! Which blobs may be given to whom: a hash is not a capability (design §5).
//!
//! A blob is given only if a repository that the asker may read reaches it. The relation is kept in
//! memory, made from verified heads; what it doesn't have is refused, as what is absent is.

use cairn_protocol::hash::Blake3;
use cairn_protocol::key::PublicKey;

/// The relation; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {}

impl Access {
    /// Whether a peer may have a blob. False until the relation is complete.
    pub(crate) fn may_read(&self, peer: &PublicKey, hash: &Blake3) -> bool {
        let _ = (peer, hash);
        todo!()
    }
}
