//! Following: records from peers become repositories that can be read here.
//!
//! Drives [`cairn_protocol::spread`] over the swarm, stores what is accepted, fetches the metadata of each
//! new head, and shows it once all of that is here: a reader never sees half a commit.
//!
//! What follows what: a record is in the ledger, then in the log, and only then told to others or acted on.
//! A head's blobs are readable by peers before the head is told to them. Everything here can be lost by a
//! crash but what is in the log: records that were not logged are fetched again, since only what is logged
//! is counted as known when sets are compared.

mod completion;
mod driver;
mod findings;
mod intake;
mod own;
mod sender;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_protocol::hash::RepositoryId;
use cairn_protocol::key::SecretKey;
use cairn_protocol::record::Record;
use cairn_protocol::spread::Known;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::backup::Guard;
use crate::blobs::Blobs;
use crate::fetch::Disagreement;
use crate::journal::Journal;
use crate::repos::{Repos, touched};
use crate::store::Store;
use crate::swarm::{Swarm, SwarmEvent};

/// Publications that wait to be told to peers; beyond it all records are looked through instead.
const PUBLISHED_MAX: usize = 1024;
/// Groups of stored records that wait for the machine.
const LEARNT_MAX: usize = 64;

/// Heads from the look-up table that wait to be taken in; whoever looks up further ones waits.
const LOOKED_UP_MAX: usize = 16;
/// How long the look-up table is asked for a head.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(2);

/// Findings that wait to be said; further ones are only logged.
const FINDINGS_MAX: usize = 64;

/// What following needs.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) repos: Repos,
    pub(crate) access: Access,
    pub(crate) swarm: Swarm,
    pub(crate) blobs: Blobs,
    pub(crate) journal: Journal,
    pub(crate) guard: Guard,
    /// The node's.
    pub(crate) key: Arc<SecretKey>,
}

/// Records that this node stored by itself.
#[derive(Debug)]
struct Publication {
    known: Vec<Known>,
    repositories: Vec<RepositoryId>,
}

/// The running follower; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    repos: Repos,
    swarm: Swarm,
    published: mpsc::Sender<Publication>,
    looked_up: mpsc::Sender<Box<Record>>,
    missed: Arc<Notify>,
    /// What is readable is to be made anew, since something is not public any more.
    forget: Arc<AtomicBool>,
}

impl Follower {
    /// Begins to follow. Call within a tokio runtime; everything ends at `stop`.
    pub(crate) fn spawn(
        parts: Parts,
        events: mpsc::Receiver<SwarmEvent>,
        disagreements: broadcast::Receiver<Disagreement>,
        stop: CancellationToken,
    ) -> Self {
        let (published, publications) = mpsc::channel(PUBLISHED_MAX);
        let (learn, learnt) = mpsc::channel(LEARNT_MAX);
        let (looked_up, heads) = mpsc::channel(LOOKED_UP_MAX);
        let follower = Self {
            repos: parts.repos.clone(),
            swarm: parts.swarm.clone(),
            published,
            looked_up,
            missed: Arc::default(),
            forget: Arc::default(),
        };
        let missed = Arc::clone(&follower.missed);
        let forget = Arc::clone(&follower.forget);
        let own = own::Own::new(parts.clone(), learn, forget, stop.clone());
        let (wrong, wrong_heads) = mpsc::channel(FINDINGS_MAX);
        let completion = completion::spawn(parts.clone(), wrong, stop.clone());
        tokio::spawn(findings::run(
            parts.clone(),
            follower.clone(),
            disagreements,
            wrong_heads,
            stop.clone(),
        ));
        let (related, relation) = tokio::sync::oneshot::channel();
        tokio::spawn(own.run(publications, missed, related));
        tokio::spawn(driver::run(
            parts, events, learnt, heads, completion, relation, stop,
        ));
        follower
    }

    /// Makes readable again what is shown: it was forgotten what is.
    pub(crate) fn relate_anew(&self) {
        self.forget.store(true, Ordering::Release);
        self.missed.notify_one();
    }

    /// Asks the look-up table for a repository's newest head, and takes it in like a record from a peer;
    /// meanwhile some of the repository's providers are dialled, who tell of what the head builds on.
    /// Returns its epoch and sequence number: a hint, until the ledger has accepted it.
    pub(crate) async fn look_up(&self, repository: RepositoryId) -> Option<(u64, u64)> {
        let (head, _) = tokio::join!(
            self.swarm.look_up(repository, LOOK_UP_PATIENCE),
            self.swarm.providers(repository, LOOK_UP_PATIENCE),
        );
        let head = Record::parse(&head?).ok()?;
        let version = (head.header().epoch, head.header().chain.as_ref()?.seq);
        self.looked_up.send(Box::new(head)).await.ok()?;
        Some(version)
    }

    /// Records that this node made or took in by itself, stored and in the state: they are pushed.
    ///
    /// Never waits: where too many wait already, all stored records are looked through instead.
    pub(crate) fn published(&self, records: &[Record]) {
        // What is private is told to nobody.
        let records: Vec<&Record> = records
            .iter()
            .filter(|record| !self.repos.is_private(&record.namespace()))
            .collect();
        let mut repositories: Vec<RepositoryId> = self.repos.ledger(|ledger| {
            let touched = records.iter().flat_map(|record| touched(ledger, record));
            touched.collect()
        });
        repositories.sort_unstable();
        repositories.dedup();
        let publication = Publication {
            known: records.into_iter().map(known).collect(),
            repositories,
        };
        if self.published.try_send(publication).is_err() {
            self.missed.notify_one();
        }
    }
}

/// What the machine needs to know of a record.
fn known(record: &Record) -> Known {
    Known {
        id: record.id(),
        namespace: record.namespace(),
        time: record.header().time,
    }
}

/// All that is stored, but for what is private.
fn stored(store: &Store, repos: &Repos) -> Vec<Known> {
    let mut all = Vec::new();
    let read = store.records(&mut |envelope| {
        if let Ok(record) = Record::parse_trusted(envelope)
            && !repos.is_private(&record.namespace())
        {
            all.push(known(&record));
        }
    });
    if let Err(error) = read {
        tracing::error!(%error, "the stored records were not read whole: peers send some of them again");
    }
    all
}

/// Runs blocking work; `None` where it was cut off by the end of the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => {
            if error.is_panic() {
                tracing::error!(%error, "following: a task failed");
            }
            None
        }
    }
}
