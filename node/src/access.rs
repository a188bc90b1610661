//! Which blobs may be given to whom: a hash is not a capability (design §5).
//!
//! A blob is given only if a repository that the asker may read reaches it. The relation is kept in
//! memory, made from verified heads; what it doesn't have is refused, as what is absent is. It holds the
//! first 16 bytes of each hash, 17 to 39 bytes a blob with the table around them: whoever wants a blob
//! that nobody may read would have to find another one with the same beginning, 2^128 tries away.
//!
//! Invariant: what the relation says was walked is reached as a whole: everything below it is readable.

use std::collections::HashSet;
use std::sync::Arc;

use cairn_protocol::hash::{Blake3, GitOid};
use cairn_protocol::key::PublicKey;
use parking_lot::RwLock;

/// Blobs that are added at a time; readers go on in between.
const ADDED_AT_ONCE: usize = 1 << 16;

/// The beginning of a hash.
pub(crate) type Prefix = [u8; 16];

/// The relation; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    relation: Arc<RwLock<Relation>>,
}

#[derive(Debug, Default)]
struct Relation {
    /// Blobs that a public repository reaches.
    public: HashSet<Prefix>,
    /// Commit entries and manifests, each with the git object that it was found to stand for.
    walked: HashSet<Prefix>,
}

/// The beginning of a blob's hash.
pub(crate) fn prefix(hash: &Blake3) -> Prefix {
    *hash
        .as_bytes()
        .first_chunk()
        .expect("invariant: a hash is longer than its beginning")
}

/// Stands for a blob in its role: the same bytes might be somebody's file, too, or said to be another tree.
pub(crate) fn role(hash: &Blake3, oid: &GitOid) -> Prefix {
    let mut bytes = [0; Blake3::SIZE + GitOid::SIZE];
    bytes[..Blake3::SIZE].copy_from_slice(hash.as_bytes());
    bytes[Blake3::SIZE..].copy_from_slice(oid.as_bytes());
    prefix(&Blake3::of(&bytes))
}

impl Access {
    /// Whether a peer may have a blob. False until the relation of its repository is complete.
    pub(crate) fn may_read(&self, peer: &PublicKey, hash: &Blake3) -> bool {
        // Private repositories never leave their node: no peer may read any.
        let _ = peer;
        self.is_public(&prefix(hash))
    }

    /// Whether a public repository reaches a blob.
    pub(crate) fn is_public(&self, prefix: &Prefix) -> bool {
        self.relation.read().public.contains(prefix)
    }

    /// Whether everything below a commit entry or manifest is readable, and it is what it says.
    pub(crate) fn is_walked(&self, role: &Prefix) -> bool {
        self.relation.read().walked.contains(role)
    }

    /// Makes blobs readable, and then says what was walked on the way.
    pub(crate) fn add(&self, public: &HashSet<Prefix>, walked: &HashSet<Prefix>) {
        let mut blobs = public.iter().copied().peekable();
        while blobs.peek().is_some() {
            let mut relation = self.relation.write();
            relation.public.extend(blobs.by_ref().take(ADDED_AT_ONCE));
        }
        let mut roles = walked.iter().copied().peekable();
        while roles.peek().is_some() {
            let mut relation = self.relation.write();
            relation.walked.extend(roles.by_ref().take(ADDED_AT_ONCE));
        }
    }

    /// Makes one blob readable.
    pub(crate) fn add_one(&self, hash: &Blake3) {
        self.relation.write().public.insert(prefix(hash));
    }

    /// Forgets everything: nothing is readable before it was related anew.
    pub(crate) fn clear(&self) {
        let mut relation = self.relation.write();
        relation.public.clear();
        relation.walked.clear();
    }

    /// Forgets all but these blobs, and that anything was walked.
    pub(crate) fn retain(&self, live: &HashSet<Blake3>) {
        let live: HashSet<Prefix> = live.iter().map(prefix).collect();
        let mut relation = self.relation.write();
        relation.public.retain(|blob| live.contains(blob));
        relation.walked.clear();
    }
}
