//! Waiting until a repository and a revision are known, and known to be the newest.

use std::time::{Duration, Instant};

use cairn_protocol::hash::GitOid;
use cairn_protocol::name::NamespaceName;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{cancelled, failure};
use crate::control::{self, Failure, Progress};
use crate::node::Node;
use crate::repos::{Commit, Repo, RepoError};

/// Time after which a node that is up knows what its peers know.
const SETTLED: Duration = Duration::from_secs(30);
/// Time without anything happening after which a repository that peers don't know is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same while no peer at all is connected.
const PATIENCE_ALONE: Duration = Duration::from_secs(10);
/// The same of a node that has been up for longer than [`SETTLED`].
const PATIENCE_SETTLED: Duration = Duration::from_secs(5);
/// Longest time to wait, whatever happens meanwhile: on a busy network something always does.
const PATIENCE_ALL: Duration = Duration::from_mins(5);
/// Time after a first peer in which a node that has just started takes no head for the newest one.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Time without news after which it has caught up.
const CATCH_UP_QUIET: Duration = Duration::from_millis(500);
/// Time from the begin in which a head that is known, and not here as a whole yet, is waited for.
const COMPLETE_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two questions to the look-up table while it knows nothing.
const ASK_PAUSE: Duration = Duration::from_secs(2);
/// Time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// What the look-up table said of the repository's newest head.
enum Asked {
    NotYet,
    UnderWay(JoinHandle<Option<(u64, u64)>>),
    /// When, and the epoch and number of the head that it named.
    Answered(Instant, Option<(u64, u64)>),
}

/// Waiting for a repository and a revision to be known.
pub(super) struct Search<'a> {
    node: &'a Node,
    name: &'a str,
    revision: &'a str,
    begin: Instant,
    /// When something last happened, and how things stood then.
    last: (Instant, (usize, u64)),
    met: Option<Instant>,
    asked: Asked,
}

impl<'a> Search<'a> {
    pub(super) fn new(node: &'a Node, name: &'a str, revision: &'a str) -> Self {
        let now = Instant::now();
        Self {
            node,
            name,
            revision,
            begin: now,
            last: (now, (0, 0)),
            met: None,
            asked: Asked::NotYet,
        }
    }

    pub(super) fn find(
        mut self,
        progress: &mut dyn FnMut(Progress),
        stop: &CancellationToken,
    ) -> Result<(Repo, Commit), Failure> {
        loop {
            let found = control::find(self.node, self.name).and_then(|repo| {
                match repo.commit(self.revision) {
                    Ok(commit) => Ok((repo, Ok(commit))),
                    Err(error @ RepoError::Revision(_)) => Ok((repo, Err(error))),
                    Err(error) => Err(Failure::new(&error, None)),
                }
            });
            self.look();
            let incomplete = control::known(self.node, self.name)
                .is_some_and(|id| self.node.repos().pending(&id).is_some());
            self.hear();
            if incomplete || !matches!(found, Ok((_, Ok(_)))) {
                self.ask();
            }
            let missing = match found {
                Ok((repo, Ok(commit))) if self.is_newest(&repo, incomplete) => {
                    return Ok((repo, commit));
                }
                Ok((_, Ok(_))) => None,
                Ok((repo, Err(_))) => Some((self.no_revision(&repo), self.is_confirmed(&repo))),
                Err(failure) => Some((failure, false)),
            };
            if let Some((missing, certain)) = missing
                && (certain || self.is_hopeless())
            {
                return Err(self.give_up(missing));
            }
            cancelled(stop)?;
            progress(Progress {
                what: self.waits_for(),
                done: 0,
                total: 0,
            });
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn no_revision(&self, repo: &Repo) -> Failure {
        let name = repo.full_name();
        failure(
            format!("{name} has no branch, tag or commit {:?}", self.revision),
            Some(format!("`cairn info {name}` lists its branches and tags")),
        )
    }

    /// Takes the look-up table's answer, once it is there.
    fn hear(&mut self) {
        if let Asked::UnderWay(asking) = &mut self.asked
            && asking.is_finished()
        {
            let network = self.node.inner.network.as_ref();
            let answer = network.and_then(|network| network.handle().block_on(asking).ok());
            self.asked = Asked::Answered(Instant::now(), answer.flatten());
        }
    }

    /// Asks the look-up table for a newer head than what peers told of, where the repository is known.
    fn ask(&mut self) {
        match &self.asked {
            Asked::UnderWay(_) | Asked::Answered(_, Some(_)) => return,
            Asked::Answered(when, None) if when.elapsed() < ASK_PAUSE => return,
            Asked::NotYet | Asked::Answered(_, None) => {}
        }
        if let (Some(network), Some(_), Some(repository)) = (
            &self.node.inner.network,
            self.met,
            control::known(self.node, self.name),
        ) && !is_own(self.node, self.name)
        {
            let follower = network.follower.clone();
            let asking = async move { follower.look_up(repository).await };
            self.asked = Asked::UnderWay(network.handle().spawn(asking));
        }
    }

    /// Whether what is shown is as new as the head that the look-up table named.
    fn is_confirmed(&self, repo: &Repo) -> bool {
        match &self.asked {
            Asked::Answered(_, Some(version)) => {
                repo.version() >= *version && self.is_caught_up(repo)
            }
            _ => false,
        }
    }

    /// Whether the look-up table was asked and has not answered, or has named a newer head just now, which
    /// peers may still tell of.
    fn awaits_answer(&self, repo: &Repo) -> bool {
        match &self.asked {
            Asked::NotYet | Asked::Answered(_, None) => false,
            Asked::UnderWay(_) => true,
            Asked::Answered(when, Some(version)) => {
                repo.version() < *version && when.elapsed() < COMPLETE_PATIENCE
            }
        }
    }

    /// Whether a commit that is here may be taken for the one that is meant.
    fn is_newest(&self, repo: &Repo, incomplete: bool) -> bool {
        // A commit's whole id means the same whatever is newer.
        let is_id = self.revision.len() == 40 && self.revision.parse::<GitOid>().is_ok();
        if is_id {
            return true;
        }
        if self.awaits_answer(repo)
            || incomplete
                && self.node.inner.network.is_some()
                && self.begin.elapsed() < COMPLETE_PATIENCE
        {
            return false;
        }
        self.is_caught_up(repo)
    }

    /// Notes what happened since the last look.
    fn look(&mut self) {
        let now = Instant::now();
        let peers = self.node.peers().len();
        if peers > 0 {
            self.met.get_or_insert(now);
        }
        let state = (peers, self.node.repos().generation());
        if state != self.last.1 {
            self.last = (now, state);
        }
    }

    fn peers(&self) -> usize {
        self.last.1.0
    }

    /// Whether a head that is known may be taken for the newest one.
    fn is_caught_up(&self, repo: &Repo) -> bool {
        if self.node.inner.network.is_none()
            || self.node.inner.started.elapsed() > SETTLED
            || is_own(self.node, repo.full_name())
        {
            return true;
        }
        match self.met {
            // Nobody to hear news from: what is known is all there is.
            None => self.begin.elapsed() > CATCH_UP,
            Some(met) => met.elapsed() > CATCH_UP || self.last.0.elapsed() > CATCH_UP_QUIET,
        }
    }

    fn is_hopeless(&self) -> bool {
        let settled = self.node.inner.started.elapsed() > SETTLED;
        let patience = if settled {
            PATIENCE_SETTLED
        } else if self.peers() == 0 {
            PATIENCE_ALONE
        } else {
            PATIENCE
        };
        self.node.inner.network.is_none()
            || is_own(self.node, self.name)
            || !self.name.contains('/')
            || self.last.0.elapsed() > patience
            || self.begin.elapsed() > PATIENCE_ALL
    }

    fn give_up(&self, missing: Failure) -> Failure {
        if self.node.inner.network.is_none()
            || is_own(self.node, self.name)
            || !self.name.contains('/')
        {
            return missing;
        }
        let mut failure = missing;
        match self.peers() {
            0 => {
                failure.causes = vec!["no peer is connected that could know it".to_owned()];
                failure.hint = Some(
                    "name a peer with `--peer /ip4/ADDRESS/tcp/22477`, or with `peers` in the settings; \
                     `cairn status` on that machine shows its addresses"
                        .to_owned(),
                );
            }
            peers => {
                let peers = if peers == 1 {
                    "the peer that is connected has not told of it".to_owned()
                } else {
                    format!("none of the {peers} peers that are connected has told of it")
                };
                failure.causes = vec![peers];
                failure.hint = failure.hint.filter(|hint| hint.contains("info")).or_else(|| {
                    Some(
                        "`cairn ls` on a node that has it shows its whole name; `local/` means this \
                         node's own namespace"
                            .to_owned(),
                    )
                });
            }
        }
        failure
    }

    fn waits_for(&self) -> String {
        let news = if control::known(self.node, self.name).is_some() {
            format!("listening for news of {}", self.name)
        } else {
            format!("{} not heard of yet", self.name)
        };
        match self.peers() {
            0 => "looking for peers".to_owned(),
            1 => format!("connected to 1 peer, {news}"),
            peers => format!("connected to {peers} peers, {news}"),
        }
    }
}

/// Whether a name's namespace is the node's own, of which it knows everything.
fn is_own(node: &Node, name: &str) -> bool {
    let mut parts = name.rsplit('/');
    let namespace = parts
        .nth(1)
        .and_then(|text| text.parse::<NamespaceName>().ok());
    namespace.is_some_and(|namespace| node.repos().is_own_namespace(&namespace))
}
