//! Files whose bytes were fetched, match their BLAKE3, and are not what their commits say of them.
//!
//! What is marked is the claim: every commit of the repository that makes it is invalid, those to come too.

use std::collections::HashMap;

use cairn_protocol::hash::{Blake3, GitOid, RepositoryId, Sha256};
use cairn_protocol::limits::INVALID_CLAIMS_MAX;
use cairn_protocol::manifest::ManifestEntry;
use parking_lot::RwLock;

/// Claims of all repositories together, at most.
const CLAIMS_MAX: usize = 100_000;

/// A claim that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongClaim {
    /// Where it stood when it was found.
    pub(crate) path: String,
    pub(crate) blake3: Blake3,
    pub(crate) size: u64,
    pub(crate) sha256: Sha256,
    /// Absent for LFS files.
    pub(crate) git: Option<GitOid>,
    /// What is another one: `sha256`, `git oid`, `size`.
    pub(crate) digest: String,
}

impl WrongClaim {
    pub(super) fn is_made_by(&self, entry: &ManifestEntry) -> bool {
        entry.blake3 == Some(self.blake3)
            && entry.size == Some(self.size)
            && entry.sha256 == Some(self.sha256)
            && self.git.is_none_or(|git| git == entry.oid)
    }

    pub(super) fn reason(&self, path: &str) -> String {
        format!(
            "{path}: its {} is not the one that its commit claims",
            self.digest
        )
    }
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct WrongClaims {
    by_repository: RwLock<HashMap<RepositoryId, Vec<WrongClaim>>>,
}

impl WrongClaims {
    /// Takes one in; `false` where it is known, or there are too many.
    pub(super) fn add(&self, repository: RepositoryId, claim: WrongClaim) -> bool {
        let mut all = self.by_repository.write();
        if !has_room(&all, &repository, &claim) {
            return false;
        }
        all.entry(repository).or_default().push(claim);
        true
    }

    /// Whether [`Self::add`] would take it in.
    pub(super) fn is_new(&self, repository: &RepositoryId, claim: &WrongClaim) -> bool {
        has_room(&self.by_repository.read(), repository, claim)
    }

    pub(super) fn of(&self, repository: &RepositoryId) -> Vec<WrongClaim> {
        let all = self.by_repository.read();
        all.get(repository).cloned().unwrap_or_default()
    }

    /// The claim that an entry makes, if it is a wrong one.
    pub(super) fn made_by(
        &self,
        repository: &RepositoryId,
        entry: &ManifestEntry,
    ) -> Option<WrongClaim> {
        let all = self.by_repository.read();
        let mut claims = all.get(repository)?.iter();
        claims.find(|claim| claim.is_made_by(entry)).cloned()
    }
}

fn has_room(
    all: &HashMap<RepositoryId, Vec<WrongClaim>>,
    repository: &RepositoryId,
    claim: &WrongClaim,
) -> bool {
    let same = |known: &WrongClaim| {
        (known.blake3, known.size, known.sha256, known.git)
            == (claim.blake3, claim.size, claim.sha256, claim.git)
    };
    let total: usize = all.values().map(Vec::len).sum();
    let claims = all.get(repository);
    total < CLAIMS_MAX
        && claims.is_none_or(|claims| claims.len() < INVALID_CLAIMS_MAX && !claims.iter().any(same))
}
