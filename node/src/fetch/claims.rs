//! What commits claim of a file's bytes, and which claims turned out wrong.

use std::collections::{HashMap, VecDeque};

use cairn_protocol::hash::{Blake3, GitOid, RepositoryId, Sha256};
use parking_lot::Mutex;

use crate::store::{Claim, Digests};

/// Wrong claims that are kept in mind; the oldest is forgotten, and found wrong again when it is fetched.
const REFUSED_MAX: usize = 4_096;

/// A claim, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    /// Absent where this node claims it itself: it once had the bytes.
    pub(super) repository: Option<RepositoryId>,
    pub(super) path: String,
    pub(super) claim: Claim,
}

/// Which digest of the bytes is not the one claimed; whatever was not computed agrees.
pub(super) fn disagreement(claim: &Claim, digests: &Digests) -> Option<&'static str> {
    if claim.sha256 != digests.sha256 {
        return Some("sha256");
    }
    match (claim.git, digests.git) {
        (Some(claimed), Some(computed)) if claimed != computed => Some("git oid"),
        _ => None,
    }
}

type Key = (Blake3, u64, Sha256, Option<GitOid>);

/// Claims that turned out wrong.
#[derive(Debug, Default)]
pub(super) struct Refused {
    state: Mutex<(HashMap<Key, &'static str>, VecDeque<Key>)>,
}

impl Refused {
    /// Which digest of a claim is known to be wrong.
    pub(super) fn get(&self, hash: &Blake3, size: u64, claim: &Claim) -> Option<&'static str> {
        let key = (*hash, size, claim.sha256, claim.git);
        self.state.lock().0.get(&key).copied()
    }

    pub(super) fn insert(&self, hash: &Blake3, size: u64, claim: &Claim, digest: &'static str) {
        let key = (*hash, size, claim.sha256, claim.git);
        let (known, order) = &mut *self.state.lock();
        if known.insert(key, digest).is_none() {
            order.push_back(key);
        }
        if order.len() > REFUSED_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}
