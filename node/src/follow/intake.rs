//! Taking records in: into the ledger, then into the log, and then they count.
//!
//! A record that waits for another is kept here and logged once it waits no more, so that nothing that
//! anybody can make up grows the log. Where the log can't be written, the record stays in the ledger's
//! memory, but is neither shown nor told, and nothing further is taken in until it is logged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cairn_protocol::accept::Verdict;
use cairn_protocol::hash::{NamespaceId, RecordId, RepositoryId};
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::{RECORDS_WAITING_BYTES_MAX, RECORDS_WAITING_MAX};
use cairn_protocol::record::Record;
use cairn_protocol::spread::Input;

use super::known;
use crate::repos::{Repos, touched};
use crate::store::{Store, StoreError};

/// A record, and who sent it; nobody where it was looked up.
pub(super) type Offered = (Option<PublicKey>, Box<Record>);

/// What became of a group of records.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// For the machine.
    pub(super) answers: Vec<Input>,
    /// Repositories that may have a new head, and who sent what moved them.
    pub(super) touched: Vec<(RepositoryId, Option<PublicKey>)>,
}

/// Takes records in; blocking.
#[derive(Debug)]
pub(super) struct Intake {
    store: Store,
    repos: Repos,
    waiting: Waiting,
    /// In the ledger, and not in the log, which could not be written: before anything else is taken in.
    unlogged: Vec<Offered>,
}

impl Intake {
    pub(super) fn new(store: Store, repos: Repos) -> Self {
        Self {
            store,
            repos,
            waiting: Waiting::default(),
            unlogged: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, offered: Vec<Offered>) -> Taken {
        let mut taken = Taken::default();
        self.log(Vec::new(), &mut taken);
        if !self.unlogged.is_empty() {
            // What rests on a record that is not durable would be shown, and gone after a crash.
            let ids = offered.iter().map(|(_, record)| record.id());
            taken.answers.extend(ids.map(Input::NotNow));
            return taken;
        }
        let verdicts = self
            .repos
            .take_unseen(offered.iter().map(|(_, record)| &**record));
        let mut to_log: Vec<Offered> = Vec::new();
        for ((peer, record), verdict) in offered.into_iter().zip(verdicts) {
            let id = record.id();
            match verdict {
                Verdict::Accepted | Verdict::Kept | Verdict::Frozen(_) => {
                    to_log.push((peer, record));
                }
                Verdict::Refused(refusal) => {
                    tracing::debug!(%id, kind = record.body().kind(), %refusal, "record refused");
                    taken.answers.push(Input::Refused(id));
                }
                Verdict::Waiting => {
                    taken.answers.push(Input::NotNow(id));
                    self.waiting.hold((peer, record));
                }
                Verdict::Known => match self.repos.ledger(|ledger| ledger.waits(&record)) {
                    Some(false) => match self.store.record(&id) {
                        Ok(Some(_)) => taken.answers.push(Input::Taken(known(&record))),
                        Ok(None) => to_log.push((peer, record)),
                        Err(error) => {
                            tracing::warn!(%id, %error, "record not looked up");
                            taken.answers.push(Input::NotNow(id));
                        }
                    },
                    Some(true) => {
                        taken.answers.push(Input::NotNow(id));
                        self.waiting.hold((peer, record));
                    }
                    None => taken.answers.push(Input::NotNow(id)),
                },
            }
        }
        let moved: BTreeSet<NamespaceId> = to_log
            .iter()
            .map(|(_, record)| record.namespace())
            .collect();
        for namespace in moved {
            let repos = &self.repos;
            let released = self.waiting.release(&namespace, |record| {
                repos.ledger(|ledger| ledger.waits(record))
            });
            to_log.extend(released);
        }
        self.log(to_log, &mut taken);
        taken
    }

    /// Logs what could not be logged before, and these.
    fn log(&mut self, more: Vec<Offered>, taken: &mut Taken) {
        let mut records = std::mem::take(&mut self.unlogged);
        records.extend(more);
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.write(&records) {
            tracing::warn!(%error, records = records.len(), "records from peers could not be stored");
            let ids = records.iter().map(|(_, record)| record.id());
            taken.answers.extend(ids.map(Input::NotNow));
            self.unlogged = records;
            return;
        }
        self.repos
            .show_taken(records.iter().map(|(_, record)| &**record));
        for (peer, record) in records {
            taken.answers.push(Input::Taken(known(&record)));
            let repositories = self.repos.ledger(|ledger| touched(ledger, &record));
            taken
                .touched
                .extend(repositories.into_iter().map(|id| (id, peer)));
        }
    }

    fn write(&self, records: &[Offered]) -> Result<(), StoreError> {
        let mut batch = self.store.batch();
        let mut seen = HashSet::new();
        for (_, record) in records {
            if seen.insert(record.id()) {
                batch.record(record.envelope().to_vec());
            }
        }
        batch.commit()
    }
}

/// Records that wait for others, in the order they came; the oldest goes where they are too many.
#[derive(Debug, Default)]
struct Waiting {
    arrivals: u64,
    bytes: usize,
    records: BTreeMap<u64, Offered>,
    namespaces: HashMap<NamespaceId, BTreeSet<u64>>,
    ids: HashSet<RecordId>,
}

impl Waiting {
    fn hold(&mut self, (peer, record): Offered) {
        if !self.ids.insert(record.id()) {
            return;
        }
        self.bytes += record.envelope().len();
        let arrival = self.arrivals;
        self.arrivals += 1;
        let namespace = self.namespaces.entry(record.namespace()).or_default();
        namespace.insert(arrival);
        self.records.insert(arrival, (peer, record));
        while self.records.len() > RECORDS_WAITING_MAX || self.bytes > RECORDS_WAITING_BYTES_MAX {
            let Some(oldest) = self.records.keys().next().copied() else {
                return;
            };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, arrival: u64) -> Option<Offered> {
        let (peer, record) = self.records.remove(&arrival)?;
        self.bytes -= record.envelope().len();
        self.ids.remove(&record.id());
        let namespace = record.namespace();
        if let Some(arrivals) = self.namespaces.get_mut(&namespace) {
            arrivals.remove(&arrival);
            if arrivals.is_empty() {
                self.namespaces.remove(&namespace);
            }
        }
        Some((peer, record))
    }

    /// Those of a namespace that wait no more; forgets those that the ledger forgot.
    fn release(
        &mut self,
        namespace: &NamespaceId,
        waits: impl Fn(&Record) -> Option<bool>,
    ) -> Vec<Offered> {
        let arrivals = self.namespaces.get(namespace).cloned().unwrap_or_default();
        let mut released = Vec::new();
        for arrival in arrivals {
            let Some((_, record)) = self.records.get(&arrival) else {
                continue;
            };
            let state = waits(record);
            if state == Some(true) {
                continue;
            }
            let record = self.remove(arrival);
            if state == Some(false) {
                released.extend(record);
            }
        }
        released
    }
}
