//! What this node asks of the look-up table, and what it announces there.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use cairn_protocol::hash::RepositoryId;
use cairn_protocol::key::PublicKey;
use libp2p::PeerId;
use libp2p::kad::{self, GetProvidersOk, GetRecordOk, QueryId, QueryResult, Quorum, Record};
use tokio::sync::oneshot;

use super::address;
use super::records::{Found, Records, key_of};
use super::targets::random;

/// Questions under way at once; further ones are answered with nothing.
const QUESTIONS_MAX: usize = 64;
/// Announcements under way at once; the others wait.
const ANNOUNCING_MAX: usize = 4;
/// Time between two announcements of a repository.
const ANNOUNCE_EVERY: Duration = Duration::from_mins(40);
/// Time until an announcement that reached nobody is tried again.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(30);
/// Providers of one answer.
const PROVIDERS_MAX: usize = 100;

/// The table as this node runs it.
pub(super) type Table = kad::Behaviour<Records>;

#[derive(Debug)]
enum Query {
    /// The head is put; the provider record follows.
    Put(RepositoryId),
    Provide(RepositoryId),
    Record {
        best: Option<Found>,
        reply: oneshot::Sender<Option<Vec<u8>>>,
        until: Instant,
    },
    Providers {
        found: Vec<PeerId>,
        reply: oneshot::Sender<Vec<PublicKey>>,
        until: Instant,
    },
}

/// Questions and announcements.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    queries: HashMap<QueryId, Query>,
    /// When each repository is announced next; not those that are under way.
    due: BTreeSet<(Instant, RepositoryId)>,
    when: HashMap<RepositoryId, Instant>,
    announcing: usize,
}

impl Lookup {
    /// Announces a repository at once, and from then on by timer; its head is in the table already.
    pub(super) fn announce(&mut self, repository: RepositoryId, at: Instant) {
        if let Some(before) = self.when.insert(repository, at) {
            self.due.remove(&(before, repository));
        }
        self.due.insert((at, repository));
    }

    /// What reached nobody so far is tried at once, now that somebody is there.
    pub(super) fn hurry(&mut self, now: Instant) {
        let soon = now + ANNOUNCE_AGAIN;
        let waiting: Vec<_> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= soon)
            .map(|(_, repository)| *repository)
            .collect();
        for repository in waiting {
            self.announce(repository, now);
        }
    }

    /// Asks for a repository's newest head.
    pub(super) fn look_up(
        &mut self,
        table: &mut Table,
        repository: RepositoryId,
        until: Instant,
        reply: oneshot::Sender<Option<Vec<u8>>>,
    ) {
        if self.queries.len() >= QUESTIONS_MAX {
            drop(reply.send(None));
            return;
        }
        let best = None;
        let query = table.get_record(key_of(repository));
        self.queries
            .insert(query, Query::Record { best, reply, until });
    }

    /// Asks who provides a repository.
    pub(super) fn providers(
        &mut self,
        table: &mut Table,
        repository: RepositoryId,
        until: Instant,
        reply: oneshot::Sender<Vec<PublicKey>>,
    ) {
        if self.queries.len() >= QUESTIONS_MAX {
            drop(reply.send(Vec::new()));
            return;
        }
        let found = Vec::new();
        let query = table.get_providers(key_of(repository));
        let entry = Query::Providers {
            found,
            reply,
            until,
        };
        self.queries.insert(query, entry);
    }

    /// Begins announcements that are due, and ends questions whose time is over.
    pub(super) fn tick(&mut self, table: &mut Table, now: Instant) {
        while self.announcing < ANNOUNCING_MAX {
            let Some((at, repository)) = self.due.first().copied().filter(|(at, _)| *at <= now)
            else {
                break;
            };
            self.due.remove(&(at, repository));
            self.put(table, repository, now);
        }
        let over: Vec<_> = self
            .queries
            .iter()
            .filter(|(_, query)| match query {
                Query::Record { until, reply, .. } => *until <= now || reply.is_closed(),
                Query::Providers { until, reply, .. } => *until <= now || reply.is_closed(),
                Query::Put(_) | Query::Provide(_) => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(mut query) = table.query_mut(&id) {
                query.finish();
            }
            self.answer(id);
        }
    }

    fn put(&mut self, table: &mut Table, repository: RepositoryId, now: Instant) {
        use libp2p::kad::store::RecordStore as _;
        let key = key_of(repository);
        let kept = table.store_mut().get(&key).map(|kept| kept.value.clone());
        let Some(value) = kept else {
            self.when.remove(&repository);
            return;
        };
        match table.put_record(Record::new(key, value), Quorum::One) {
            Ok(query) => {
                self.announcing += 1;
                self.queries.insert(query, Query::Put(repository));
            }
            Err(error) => {
                tracing::warn!(%repository, %error, "a repository was not announced");
                self.announce(repository, now + ANNOUNCE_EVERY);
            }
        }
    }

    /// Takes a query's result; returns providers that were found, to be connected to.
    pub(super) fn on_result(
        &mut self,
        table: &mut Table,
        id: QueryId,
        result: QueryResult,
        last: bool,
    ) -> Vec<PeerId> {
        match (self.queries.get_mut(&id), result) {
            (
                Some(Query::Record { best, .. }),
                QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))),
            ) => match Found::check(&found.record.key, &found.record.value) {
                Ok(found)
                    if best
                        .as_ref()
                        .is_none_or(|best| best.version < found.version) =>
                {
                    *best = Some(found);
                }
                Ok(_) => {}
                Err(refusal) => {
                    tracing::debug!(peer = ?found.peer, %refusal, "an answer about a repository is none");
                }
            },
            (
                Some(Query::Providers { found, .. }),
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
            ) => {
                let mut new = Vec::new();
                for provider in providers {
                    if found.len() < PROVIDERS_MAX && !found.contains(&provider) {
                        found.push(provider);
                        new.push(provider);
                    }
                }
                if last {
                    self.answer(id);
                }
                return new;
            }
            (Some(Query::Put(repository)), QueryResult::PutRecord(result)) => {
                let repository = *repository;
                self.queries.remove(&id);
                self.put_ended(table, repository, result.is_ok());
                return Vec::new();
            }
            (Some(Query::Provide(repository)), QueryResult::StartProviding(_)) => {
                let repository = *repository;
                self.queries.remove(&id);
                self.announced(repository, true);
                return Vec::new();
            }
            _ => {}
        }
        if last {
            self.answer(id);
        }
        Vec::new()
    }

    fn put_ended(&mut self, table: &mut Table, repository: RepositoryId, reached: bool) {
        match table.start_providing(key_of(repository)) {
            Ok(query) if reached => {
                self.queries.insert(query, Query::Provide(repository));
            }
            // What is asked of this node itself is answered all the same.
            Ok(_) => self.announced(repository, false),
            Err(error) => {
                tracing::warn!(%repository, %error, "a repository's provider was not announced");
                self.announced(repository, true);
            }
        }
    }

    fn announced(&mut self, repository: RepositoryId, reached: bool) {
        self.announcing -= 1;
        let wait = if reached {
            ANNOUNCE_EVERY.mul_f64(1.0 - random() / 8.0)
        } else {
            ANNOUNCE_AGAIN
        };
        // A newer head may have been announced meanwhile, which is due before.
        let again = Instant::now() + wait;
        let before = self.when.get(&repository).copied();
        if before.is_none_or(|at| !self.due.contains(&(at, repository))) {
            self.announce(repository, again);
        }
    }

    fn answer(&mut self, id: QueryId) {
        match self.queries.remove(&id) {
            Some(Query::Record { best, reply, .. }) => {
                drop(reply.send(best.map(|best| best.envelope)));
            }
            Some(Query::Providers { found, reply, .. }) => {
                drop(reply.send(found.iter().filter_map(address::key_of).collect()));
            }
            Some(Query::Put(repository) | Query::Provide(repository)) => {
                self.announced(repository, false);
            }
            None => {}
        }
    }
}
