//! What this node finds wrong: remembered durably where it must be, and said by a signed attestation.

use std::sync::Arc;

use cairn_protocol::accept::Verdict;
use cairn_protocol::hash::{Blake3, RepositoryId};
use cairn_protocol::record::{Attestation, Body, Header, Record, RecordError};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Follower, Parts, blocking};
use crate::fetch::Disagreement;
use crate::journal::Entry as JournalEntry;
use crate::node::now_s;
use crate::repos::WrongClaim;
use crate::store::StoreError;

/// Why a finding was not kept.
#[derive(Debug, thiserror::Error)]
enum FindingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Follows what is found until the end.
pub(super) async fn run(
    parts: Parts,
    follower: Follower,
    mut disagreements: broadcast::Receiver<Disagreement>,
    mut wrong_heads: mpsc::Receiver<RepositoryId>,
    stop: CancellationToken,
) {
    let parts = Arc::new(parts);
    loop {
        let (parts, follower) = (Arc::clone(&parts), follower.clone());
        let kept = tokio::select! {
            () = stop.cancelled() => return,
            found = disagreements.recv() => match found {
                Ok(found) => blocking(move || disagrees(&parts, &follower, found)).await,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "wrong claims not noted: they are found again when they are read");
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            Some(repository) = wrong_heads.recv() => blocking(move || {
                let body = Attestation {
                    entry: None,
                    path: None,
                    finding: Attestation::METADATA_WRONG.to_owned(),
                    detail: None,
                };
                attest(&parts, &follower, repository, body)
            })
            .await,
        };
        if let Some(Err(error)) = kept {
            tracing::warn!(%error, "a finding was not kept");
        }
    }
}

/// Marks the commits that made a wrong claim, and says so.
fn disagrees(parts: &Parts, follower: &Follower, found: Disagreement) -> Result<(), FindingError> {
    let Disagreement { wanted, digest } = found;
    let repository = wanted.repository;
    let claim = WrongClaim {
        path: wanted.path,
        blake3: wanted.blake3,
        size: wanted.size,
        sha256: wanted.sha256,
        git: wanted.git,
        digest: digest.to_owned(),
    };
    if !parts.repos.is_new_wrong_claim(&repository, &claim) {
        return Ok(());
    }
    tracing::error!(%repository, path = claim.path, digest, "a commit is invalid: its file is another than it says");
    // Marked in memory even where the disk is full: it is found again after a restart.
    let written = parts.journal.append(JournalEntry::Invalid {
        repository,
        path: claim.path.clone(),
        blake3: claim.blake3,
        size: claim.size,
        sha256: claim.sha256,
        git: claim.git,
        digest: claim.digest.clone(),
    });
    let body = Attestation {
        entry: claiming_entry(parts, &repository),
        path: claim.path.parse().ok(),
        finding: Attestation::DIGESTS_DISAGREE.to_owned(),
        detail: Some(digest.replace(' ', "-")),
    };
    parts.repos.mark_wrong(repository, claim);
    written?;
    attest(parts, follower, repository, body)
}

/// The default branch's commit entry, where that makes a wrong claim.
fn claiming_entry(parts: &Parts, repository: &RepositoryId) -> Option<Blake3> {
    let repo = parts.repos.get(repository)?;
    let commit = repo.commit("HEAD").ok()?;
    let oid = commit.info().oid;
    commit.invalid().ok()??;
    let history = repo.history().ok()?;
    Some(history.entry(history.index_of(&oid)?))
}

fn attest(
    parts: &Parts,
    follower: &Follower,
    repository: RepositoryId,
    body: Attestation,
) -> Result<(), FindingError> {
    let own = parts.key.public();
    let scope = parts.repos.ledger(|ledger| {
        let namespace = ledger.repository(&repository)?.namespace;
        let mut all = ledger.attestations(&repository);
        // Found again after a restart.
        if all.any(|(_, signer, said)| signer == own && *said == body) {
            return None;
        }
        Some((namespace, ledger.namespace(&namespace)?.epoch))
    });
    let Some((namespace, epoch)) = scope else {
        return Ok(());
    };
    let header = Header {
        namespace: Some(namespace),
        repository: Some(repository),
        ..Header::new(epoch, now_s())
    };
    let record = Record::sign(header, Body::Attestation(body), &[&parts.key])?;
    // Where enough are kept already, it is not worth a place in the log.
    if parts.repos.take(&record) == Verdict::Accepted {
        let mut batch = parts.store.batch();
        batch.record(record.envelope().to_vec());
        batch.commit()?;
        follower.published(&[record]);
    }
    Ok(())
}
