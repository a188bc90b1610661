//! The one task that drives the spread machine: events in, actions out.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cairn_protocol::key::PublicKey;
use cairn_protocol::record::Record;
use cairn_protocol::spread::message::{self, Hello};
use cairn_protocol::spread::{Action, Config, Input, Known, Reason, Spread};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::completion::Completion;
use super::intake::{Intake, Offered, Taken};
use super::sender::Sender;
use super::{Parts, blocking, stored};
use crate::swarm::SwarmEvent;

/// Time between two comparisons of sets with one neighbour.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// Records that wait to be taken in; no further frames are read beyond it.
const OFFERED_MAX: usize = 4096;
/// Records taken in at a time: one write, one sync.
const TAKEN_AT_ONCE: usize = 1024;
/// How long peers wait at the start for what is shown to become readable; then they may be refused it.
const RELATION_PATIENCE: Duration = Duration::from_secs(2);
/// For how long a peer is refused that broke the protocol.
const REFUSE_BROKEN: Duration = Duration::from_mins(30);
/// For how long a peer is refused that speaks no version of ours.
const REFUSE_VERSION: Duration = Duration::from_mins(10);
/// Time in which such a peer hears which version this node speaks, before it is parted from.
const FAREWELL: Duration = Duration::from_millis(500);

struct Driver {
    parts: Parts,
    spread: Spread,
    started: Instant,
    stop: CancellationToken,
    completion: Completion,
    /// Where connected peers are reached.
    ips: HashMap<PublicKey, IpAddr>,
    /// At which ports they serve blobs.
    ports: HashMap<PublicKey, Vec<u16>>,
    senders: HashMap<PublicKey, Sender>,
    offered: VecDeque<Offered>,
    intake: Option<Intake>,
    taking: Option<JoinHandle<(Intake, Taken)>>,
}

pub(super) async fn run(
    parts: Parts,
    events: mpsc::Receiver<SwarmEvent>,
    learnt: mpsc::Receiver<Vec<Known>>,
    looked_up: mpsc::Receiver<Box<Record>>,
    completion: Completion,
    relation: oneshot::Receiver<()>,
    stop: CancellationToken,
) {
    let seed = match seed() {
        Ok(seed) => seed,
        Err(error) => {
            tracing::error!(%error, "no randomness: records are not exchanged");
            return;
        }
    };
    let (store, repos) = (parts.store.clone(), parts.repos.clone());
    let (known, _) = tokio::join!(
        blocking(move || stored(&store, &repos)),
        tokio::time::timeout(RELATION_PATIENCE, relation),
    );
    let Some(known) = known else { return };
    let config = Config {
        hello: Hello {
            versions: (message::VERSION, message::VERSION),
            format: crate::folder::FORMAT,
            agent: concat!("cairn/", env!("CARGO_PKG_VERSION")).to_owned(),
            blob_ports: parts.blobs.ports(),
            unknown: Vec::new(),
        },
        reconcile_every: RECONCILE_EVERY,
        reconcile: true,
    };
    let driver = Driver {
        spread: Spread::new(config, known, seed),
        intake: Some(Intake::new(parts.store.clone(), parts.repos.clone())),
        parts,
        started: Instant::now(),
        stop,
        completion,
        ips: HashMap::new(),
        ports: HashMap::new(),
        senders: HashMap::new(),
        offered: VecDeque::new(),
        taking: None,
    };
    driver.drive(events, learnt, looked_up).await;
}

fn seed() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

impl Driver {
    async fn drive(
        mut self,
        mut events: mpsc::Receiver<SwarmEvent>,
        mut learnt: mpsc::Receiver<Vec<Known>>,
        mut looked_up: mpsc::Receiver<Box<Record>>,
    ) {
        let stop = self.stop.clone();
        loop {
            self.begin_taking();
            let due = self.spread.next_tick().map(|due| self.started + due);
            let tick = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let taken = async {
                match &mut self.taking {
                    Some(taking) => taking.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                taken = taken => {
                    self.taking = None;
                    match taken {
                        Ok((intake, taken)) => {
                            self.intake = Some(intake);
                            self.taken(taken);
                        }
                        Err(error) => {
                            // The ledger may be half changed: nothing is taken in any more.
                            tracing::error!(%error, "records are no longer taken in: restart the node");
                            return;
                        }
                    }
                }
                Some(known) = learnt.recv() => {
                    for known in known {
                        self.input(Input::Taken(known));
                    }
                }
                Some(record) = looked_up.recv(), if self.offered.len() < OFFERED_MAX => {
                    self.offered.push_back((None, record));
                }
                event = events.recv(), if self.offered.len() < OFFERED_MAX => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
                () = tick => self.input(Input::Tick),
            }
        }
    }

    fn begin_taking(&mut self) {
        if self.offered.is_empty() || self.taking.is_some() {
            return;
        }
        if let Some(mut intake) = self.intake.take() {
            let count = self.offered.len().min(TAKEN_AT_ONCE);
            let offered: Vec<Offered> = self.offered.drain(..count).collect();
            self.taking = Some(tokio::task::spawn_blocking(move || {
                let taken = intake.take(offered);
                (intake, taken)
            }));
        }
    }

    fn taken(&mut self, taken: Taken) {
        for answer in taken.answers {
            self.input(answer);
        }
        for (repository, peer) in taken.touched {
            if self.parts.repos.pending(&repository).is_some() {
                self.completion.want(repository, peer);
            }
        }
    }

    fn event(&mut self, event: SwarmEvent) {
        match event {
            SwarmEvent::Connected(peer, ip) => {
                self.ips.insert(peer, ip);
                self.meet(peer);
                self.input(Input::Connected(peer));
                self.completion.connected();
            }
            SwarmEvent::Disconnected(peer) => {
                self.ips.remove(&peer);
                self.ports.remove(&peer);
                self.senders.remove(&peer);
                self.parts.blobs.doubt(peer);
                self.input(Input::Disconnected(peer));
            }
            SwarmEvent::Frame(peer, frame) => self.input(Input::Frame(peer, frame)),
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.started.elapsed();
        let spread = &mut self.spread;
        // A frame may hold a thousand signatures to verify.
        let actions = tokio::task::block_in_place(|| spread.handle(now, input));
        for action in actions {
            self.act(action);
        }
    }

    /// A peer has nothing that is not here: heads that this home signed before it was restored would be.
    fn caught_up(&self) {
        if self.parts.guard.restored().is_none() {
            return;
        }
        let (guard, journal) = (self.parts.guard.clone(), self.parts.journal.clone());
        tokio::task::spawn_blocking(move || match guard.caught_up(&journal) {
            Ok(()) => tracing::info!("caught up with a peer: this restored home signs again"),
            Err(error) => tracing::warn!(%error, "not noted that this home has caught up"),
        });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(peer, frame) => {
                if let Err(error) = self.parts.swarm.send(&peer, frame) {
                    tracing::debug!(%peer, %error, "a frame was not sent");
                }
            }
            Action::SendRecords(peer, ids) => {
                let sender = self.senders.entry(peer).or_insert_with(|| {
                    let (store, swarm) = (self.parts.store.clone(), self.parts.swarm.clone());
                    Sender::spawn(peer, store, swarm, &self.stop)
                });
                sender.send(ids);
            }
            Action::Agrees(_) => self.caught_up(),
            Action::Take(peer, record) => self.offered.push_back((Some(peer), record)),
            Action::Met(peer, hello) => {
                tracing::debug!(%peer, agent = hello.agent, "met a peer");
                self.ports.insert(peer, hello.blob_ports);
                self.meet(peer);
                self.completion.connected();
            }
            Action::Drop(peer, reason) => {
                let (refuse_for, farewell) = match reason {
                    Reason::Version(..) => (REFUSE_VERSION, FAREWELL),
                    _ => (REFUSE_BROKEN, Duration::ZERO),
                };
                let (swarm, reason) = (self.parts.swarm.clone(), reason.to_string());
                // The swarm says so in the log.
                if farewell.is_zero() {
                    swarm.part(&peer, &reason, refuse_for);
                    return;
                }
                let parting = async move {
                    tokio::time::sleep(farewell).await;
                    swarm.part(&peer, &reason, refuse_for);
                };
                tokio::spawn(self.stop.clone().run_until_cancelled_owned(parting));
            }
        }
    }

    /// Tells the data plane where a peer is, once both its address and its ports are known.
    fn meet(&self, peer: PublicKey) {
        if let (Some(ip), Some(ports)) = (self.ips.get(&peer), self.ports.get(&peer)) {
            let addresses = ports.iter().map(|port| SocketAddr::new(*ip, *port));
            self.parts.blobs.meet(peer, addresses.collect());
        }
    }
}
