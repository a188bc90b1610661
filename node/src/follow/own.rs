//! This node's own side: makes what it shows readable to peers, then tells them of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_protocol::hash::RepositoryId;
use cairn_protocol::spread::Known;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Parts, Publication, blocking, stored};
use crate::repos::{Outcome, Repo, Walk};

/// Refs blobs of the newest heads that stay readable: peers may be completing one of them.
const HEADS_READABLE: usize = 8;
/// Time between two announcements at the start.
const ANNOUNCE_PACE: Duration = Duration::from_millis(20);
/// Records that are told to the machine at a time.
const LEARNT_AT_ONCE: usize = 4096;

pub(super) struct Own {
    parts: Parts,
    learn: mpsc::Sender<Vec<Known>>,
    forget: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Own {
    pub(super) fn new(
        parts: Parts,
        learn: mpsc::Sender<Vec<Known>>,
        forget: Arc<AtomicBool>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            parts,
            learn,
            forget,
            stop,
        }
    }

    /// Makes everything shown readable, says so through `related`, and then follows publications.
    pub(super) async fn run(
        self,
        mut publications: mpsc::Receiver<Publication>,
        missed: Arc<Notify>,
        related: oneshot::Sender<()>,
    ) {
        let all = self.parts.repos.all_shown();
        self.relate(all.clone()).await;
        // Nobody waits any more where this took long.
        let _ = related.send(());
        let stop = self.stop.clone();
        let announced = tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(announce_all(self.parts.clone(), all)),
        );
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                publication = publications.recv() => match publication {
                    Some(publication) => self.publish(publication).await,
                    None => break,
                },
                () = missed.notified() => self.rescan().await,
            }
        }
        announced.abort();
    }

    async fn publish(&self, publication: Publication) {
        self.relate(publication.repositories.clone()).await;
        self.tell(publication.known).await;
        for repository in publication.repositories {
            announce(&self.parts, repository).await;
        }
    }

    /// Makes up for publications that there was no room for.
    async fn rescan(&self) {
        // Here and nowhere else, so that no walk of what was public until now adds to it afterwards.
        if self.forget.swap(false, Ordering::AcqRel) {
            self.parts.access.clear();
        }
        self.relate(self.parts.repos.all_shown()).await;
        let (store, repos) = (self.parts.store.clone(), self.parts.repos.clone());
        if let Some(known) = blocking(move || stored(&store, &repos)).await {
            self.tell(known).await;
        }
    }

    async fn tell(&self, known: Vec<Known>) {
        for part in known.chunks(LEARNT_AT_ONCE) {
            if self.learn.send(part.to_vec()).await.is_err() {
                return;
            }
        }
    }

    async fn relate(&self, repositories: Vec<RepositoryId>) {
        let (parts, stop) = (self.parts.clone(), self.stop.clone());
        blocking(move || {
            for repository in repositories {
                if stop.is_cancelled() {
                    return;
                }
                relate(&parts, &repository, &stop);
            }
        })
        .await;
    }
}

/// A repository of which peers may know.
fn public(parts: &Parts, repository: &RepositoryId) -> Option<Repo> {
    parts
        .repos
        .get(repository)
        .filter(|repo| !repo.is_private())
}

/// Makes readable what a shown repository reaches.
fn relate(parts: &Parts, repository: &RepositoryId, stop: &CancellationToken) {
    let Some(repo) = public(parts, repository) else {
        return;
    };
    let _lease = parts.store.lease();
    let mut walk = Walk::new(parts.store.clone(), parts.access.clone(), repo.refs_hash());
    match walk.go_on(&|| stop.is_cancelled()) {
        Ok(Outcome::Complete) => walk.publish(),
        Ok(Outcome::Missing(missing)) => {
            let repo = repo.full_name();
            tracing::warn!(repo, missing = missing.len(), "metadata is missing here");
            walk.publish_in_part();
        }
        Ok(Outcome::Wrong(reason)) => {
            let repo = repo.full_name();
            tracing::error!(repo, reason, "metadata is wrong: peers are not given it");
        }
        Err(error) => tracing::warn!(repo = repo.full_name(), %error, "metadata not read"),
    }
    relate_heads(parts, repository);
}

/// Makes the refs blobs of the newest heads readable, up to the shown one.
pub(super) fn relate_heads(parts: &Parts, repository: &RepositoryId) {
    let refs: Vec<_> = parts.repos.ledger(|ledger| {
        let heads = ledger.heads(repository, HEADS_READABLE);
        heads.iter().map(|head| head.refs).collect()
    });
    for refs in refs {
        parts.access.add_one(&refs);
    }
}

async fn announce_all(parts: Parts, repositories: Vec<RepositoryId>) {
    for repository in repositories {
        announce(&parts, repository).await;
        tokio::time::sleep(ANNOUNCE_PACE).await;
    }
}

/// Says in the look-up table that this node has a repository, and at which head.
pub(super) async fn announce(parts: &Parts, repository: RepositoryId) {
    let Some(repo) = public(parts, &repository) else {
        return;
    };
    let store = parts.store.clone();
    match blocking(move || store.record(&repo.head())).await {
        Some(Ok(Some(head))) => parts.swarm.announce(repository, head),
        Some(Err(error)) => tracing::warn!(%repository, %error, "head not announced"),
        Some(Ok(None)) | None => {}
    }
}
