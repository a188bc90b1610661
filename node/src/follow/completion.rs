//! Completing: fetching the metadata of heads that are in force and not shown yet.
//!
//! A few repositories at a time; what fails is tried again, later and later, and at once when another peer
//! comes. Which repositories these are is never lost: they are those whose head in force isn't shown.

mod job;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::hash::{RecordId, RepositoryId};
use cairn_protocol::key::PublicKey;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Parts;
use job::{Finished, Job};

/// Repositories completed at a time.
const PARALLEL: usize = 4;
/// Wishes that wait; beyond it all repositories are looked through instead.
const WISHES_MAX: usize = 1024;
/// Peers remembered for a repository: those that its newest records came from.
const SOURCES_MAX: usize = 8;
/// Heads remembered that can never be shown; the memory begins anew beyond it.
const WRONG_MAX: usize = 65_536;
/// Shortest and longest time before another try.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_mins(1));

/// The handle; never waits.
#[derive(Debug)]
pub(super) struct Completion {
    wishes: mpsc::Sender<(RepositoryId, Option<PublicKey>)>,
    missed: Arc<Notify>,
    connected: Arc<Notify>,
}

impl Completion {
    /// A repository's head may have moved; this peer sent the record, if one did.
    pub(super) fn want(&self, repository: RepositoryId, source: Option<PublicKey>) {
        if self.wishes.try_send((repository, source)).is_err() {
            self.missed.notify_one();
        }
    }

    /// Another peer can be asked.
    pub(super) fn connected(&self) {
        self.connected.notify_one();
    }
}

/// Heads that can never be shown.
#[derive(Debug, Clone)]
pub(super) struct Wrong {
    heads: Arc<Mutex<HashSet<RecordId>>>,
    found: mpsc::Sender<RepositoryId>,
}

impl Wrong {
    /// Remembers one, and has it said where it is new.
    fn add(&self, repository: RepositoryId, head: RecordId, reason: &str) {
        let mut heads = self.heads.lock();
        if heads.len() >= WRONG_MAX {
            heads.clear();
        }
        if heads.insert(head) {
            tracing::error!(%repository, %head, reason, "a head is wrong and not shown");
            if self.found.try_send(repository).is_err() {
                tracing::debug!(%repository, "not attested: too many findings wait");
            }
        }
    }

    fn contains(&self, head: &RecordId) -> bool {
        self.heads.lock().contains(head)
    }
}

/// Where a repository stands.
#[derive(Debug, Default)]
struct Wish {
    sources: VecDeque<PublicKey>,
    running: bool,
    /// Asked for again while it ran.
    again: bool,
    failures: u32,
    due: Option<Instant>,
}

struct Queue {
    parts: Parts,
    wrong: Wrong,
    wishes: HashMap<RepositoryId, Wish>,
    ready: VecDeque<RepositoryId>,
    due: BTreeSet<(Instant, RepositoryId)>,
    running: JoinSet<Finished>,
    tasks: HashMap<Id, RepositoryId>,
    stop: CancellationToken,
}

/// Begins with all repositories that are not shown at their head in force.
pub(super) fn spawn(
    parts: Parts,
    found: mpsc::Sender<RepositoryId>,
    stop: CancellationToken,
) -> Completion {
    let (wishes, heard) = mpsc::channel(WISHES_MAX);
    let completion = Completion {
        wishes,
        missed: Arc::default(),
        connected: Arc::default(),
    };
    let (missed, connected) = (
        Arc::clone(&completion.missed),
        Arc::clone(&completion.connected),
    );
    let queue = Queue {
        parts,
        wrong: Wrong {
            heads: Arc::default(),
            found,
        },
        wishes: HashMap::new(),
        ready: VecDeque::new(),
        due: BTreeSet::new(),
        running: JoinSet::new(),
        tasks: HashMap::new(),
        stop,
    };
    missed.notify_one();
    tokio::spawn(queue.run(heard, missed, connected));
    completion
}

impl Queue {
    async fn run(
        mut self,
        mut heard: mpsc::Receiver<(RepositoryId, Option<PublicKey>)>,
        missed: Arc<Notify>,
        connected: Arc<Notify>,
    ) {
        let stop = self.stop.clone();
        loop {
            self.begin();
            let due = self.due.first().map(|(due, _)| *due);
            let pause = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                wish = heard.recv() => match wish {
                    Some((repository, source)) => self.want(repository, source),
                    None => return,
                },
                () = missed.notified() => {
                    for repository in self.parts.repos.all_pending() {
                        self.want(repository, None);
                    }
                }
                () = connected.notified() => {
                    for (_, repository) in std::mem::take(&mut self.due) {
                        self.make_ready(repository);
                    }
                }
                Some(finished) = self.running.join_next_with_id() => self.finished(finished),
                () = pause => self.make_due_ready(),
            }
        }
    }

    fn want(&mut self, repository: RepositoryId, source: Option<PublicKey>) {
        let wish = self.wishes.entry(repository).or_default();
        if let Some(source) = source {
            wish.sources.retain(|known| *known != source);
            wish.sources.push_front(source);
            wish.sources.truncate(SOURCES_MAX);
        }
        if wish.running {
            wish.again = true;
            return;
        }
        if let Some(due) = wish.due.take() {
            self.due.remove(&(due, repository));
        }
        self.make_ready(repository);
    }

    fn make_ready(&mut self, repository: RepositoryId) {
        if let Some(wish) = self.wishes.get_mut(&repository) {
            wish.due = None;
        }
        if !self.ready.contains(&repository) {
            self.ready.push_back(repository);
        }
    }

    fn make_due_ready(&mut self) {
        let now = Instant::now();
        while let Some((due, repository)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            self.make_ready(repository);
        }
    }

    fn begin(&mut self) {
        while self.running.len() < PARALLEL
            && let Some(repository) = self.ready.pop_front()
        {
            let Some(wish) = self.wishes.get_mut(&repository) else {
                continue;
            };
            (wish.running, wish.again) = (true, false);
            let job = Job::new(
                self.parts.clone(),
                self.wrong.clone(),
                repository,
                wish.sources.iter().copied().collect(),
                self.stop.clone(),
            );
            let stop = self.stop.clone();
            let task = self.running.spawn(async move {
                let finished = stop.run_until_cancelled(job.run()).await;
                finished.unwrap_or(Finished::Stuck)
            });
            self.tasks.insert(task.id(), repository);
        }
    }

    fn finished(&mut self, finished: Result<(Id, Finished), JoinError>) {
        let (task, finished) = finished.unwrap_or_else(|error| {
            tracing::error!(%error, "completing a repository failed");
            (error.id(), Finished::Stuck)
        });
        let Some(repository) = self.tasks.remove(&task) else {
            return;
        };
        let Some(wish) = self.wishes.get_mut(&repository) else {
            return;
        };
        wish.running = false;
        if finished == Finished::Done {
            wish.failures = 0;
            if wish.again {
                self.make_ready(repository);
            } else {
                self.wishes.remove(&repository);
            }
            return;
        }
        if finished == Finished::Progressed {
            wish.failures = 0;
        }
        let pause = (PAUSES.0 * 2_u32.saturating_pow(wish.failures)).min(PAUSES.1);
        wish.failures = (wish.failures + 1).min(16);
        if wish.again {
            self.make_ready(repository);
            return;
        }
        let due = Instant::now() + pause;
        wish.due = Some(due);
        self.due.insert((due, repository));
    }
}
