//! The metadata plane: libp2p connections to other nodes, and ordered frames over them.
//!
//! One task owns the swarm; the handle is cheap to clone. It finds peers (given addresses, the peer book,
//! mDNS, Kademlia), keeps connections within limits, carries the frames of [`cairn_protocol::spread`] on
//! one stream each way, and keeps the look-up table of repositories. It knows nothing of records but how
//! to check one that it is asked to keep for others.

mod address;
mod book;
mod driver;
mod lanes;
mod listen;
mod lookup;
mod pace;
mod peers;
mod records;
mod session;
mod targets;
mod transport;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_protocol::hash::RepositoryId;
use cairn_protocol::key::{PublicKey, SecretKey};
use cairn_protocol::limits::LOOKUP_RECORDS_MAX;
use cairn_protocol::spread::message::PROTOCOL;
use libp2p::identity::Keypair;
use libp2p::{PeerId, StreamProtocol};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use address::Place;
use book::Book;
use driver::{Driver, Parts};
use lanes::Refused;
pub(crate) use listen::DEFAULT_PORT;
use peers::Peers;
use records::Refusal;
use session::Patience;
use targets::{Kind, Targets};

/// Commands that wait for the driver; further ones are refused, or made up for by its timer.
const COMMANDS_MAX: usize = 256;
/// Time that one question to the look-up table may take, whatever patience is asked for.
const PATIENCE_MAX: Duration = Duration::from_mins(1);
/// Peers whose refused records were logged already; beyond that, all are logged anew.
const BLAMED_MAX: usize = 10_000;

/// Settings of the swarm.
#[derive(Debug, Clone)]
pub(crate) struct SwarmConfig {
    /// Multiaddresses to listen on; empty for the default ports, or free ones where those are taken.
    pub(crate) listen: Vec<String>,
    /// Multiaddresses to keep connected to.
    pub(crate) peers: Vec<String>,
    /// Whether to find peers on the local network.
    pub(crate) mdns: bool,
    /// Where the peer book is kept.
    pub(crate) book: PathBuf,
}

/// Why the node can't speak to others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// An address that is none.
    #[error("{address:?} is no multiaddress: {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that can't be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// Anything else.
    #[error("peer-to-peer network: {0}")]
    Other(String),
}

/// What the swarm tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SwarmEvent {
    /// A peer that speaks our protocol can be sent frames; it is reached at this address.
    Connected(PublicKey, IpAddr),
    /// It can't any more.
    Disconnected(PublicKey),
    /// A frame came, within `FRAME_BYTES_MAX`.
    Frame(PublicKey, Vec<u8>),
}

/// A frame that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection to that peer.
    #[error("not connected")]
    NotConnected,
    /// The peer takes frames more slowly than they are made; this one is lost, reconciliation makes up.
    #[error("too many frames wait")]
    Full,
}

/// A connected peer, as it is shown.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PeerInfo {
    /// libp2p peer id.
    pub peer_id: String,
    /// Node key, `ed25519:` and hex.
    pub key: String,
    /// Multiaddress that it is reached at.
    pub address: String,
    /// The program that it runs, as it says.
    pub agent: String,
    /// Seconds since it was connected.
    pub connected_s: u64,
    /// Whether it connected to us.
    pub inbound: bool,
    /// Round trip time in milliseconds, where it was measured.
    pub rtt_ms: Option<f64>,
}

/// libp2p peer id of a node's key, as it is shown; the key itself where no node can have it.
pub(crate) fn peer_id(key: &PublicKey) -> String {
    address::peer_of(key).map_or_else(|| key.to_string(), |peer| peer.to_string())
}

/// What tests set otherwise.
#[derive(Debug, Clone)]
struct Tuning {
    protocol: StreamProtocol,
    patience: Patience,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            protocol: StreamProtocol::new(PROTOCOL),
            patience: Patience::default(),
        }
    }
}

/// An order to the driver.
#[derive(Debug)]
enum Command {
    Part(PeerId),
    Dial(Place),
    LookUp(RepositoryId, Instant, oneshot::Sender<Option<Vec<u8>>>),
    Providers(RepositoryId, Instant, oneshot::Sender<Vec<PublicKey>>),
}

/// What the handle and the driver both see.
#[derive(Debug, Default)]
struct Shared {
    peers: Arc<Peers>,
    refused: Refused,
    listening: RwLock<Vec<String>>,
    listen_ips: RwLock<Vec<IpAddr>>,
    /// Heads that the driver has not taken yet.
    announced: Mutex<HashMap<RepositoryId, Vec<u8>>>,
    blamed: Mutex<HashSet<PeerId>>,
}

impl Shared {
    /// Counts what a peer wanted kept in the look-up table in vain, and logs it once a peer.
    fn count_refusal(&self, peer: PeerId, refusal: &Refusal) {
        metrics::counter!("cairn_lookup_records_refused_total").increment(1);
        let mut blamed = self.blamed.lock();
        if blamed.len() >= BLAMED_MAX {
            blamed.clear();
        }
        if blamed.insert(peer) {
            tracing::info!(%peer, %refusal, "a record for the look-up table was refused");
        }
    }
}

/// A running swarm; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Swarm {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Swarm {
    /// Listens, dials, and tells `events` what happens until `stop`. Call within a tokio runtime.
    ///
    /// When this returns, every address is listened on, and known to [`Self::listen_addrs`].
    pub(crate) async fn spawn(
        config: SwarmConfig,
        key: &SecretKey,
        events: mpsc::Sender<SwarmEvent>,
        stop: CancellationToken,
    ) -> Result<Self, SwarmError> {
        Self::spawn_tuned(config, key, events, stop, Tuning::default()).await
    }

    async fn spawn_tuned(
        config: SwarmConfig,
        key: &SecretKey,
        events: mpsc::Sender<SwarmEvent>,
        stop: CancellationToken,
        tuning: Tuning,
    ) -> Result<Self, SwarmError> {
        let key = Keypair::ed25519_from_bytes(key.seed())
            .map_err(|error| SwarmError::Other(error.to_string()))?;
        let mut targets = Targets::default();
        for text in &config.peers {
            targets.add(Place::parse(text)?, Kind::Configured, Instant::now());
        }
        let path = config.book.clone();
        let book = tokio::task::spawn_blocking(move || Book::open(path))
            .await
            .map_err(|error| SwarmError::Other(format!("read the peer book: {error}")))?;
        let shared = Arc::new(Shared::default());
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let parts = Parts {
            key,
            shared: shared.clone(),
            commands: receiver,
            events,
            tuning,
            targets,
            book,
            stop,
        };
        let driver = Box::pin(Driver::begin(&config, parts)).await?;
        // It ends by itself at `stop`.
        drop(tokio::spawn(Box::pin(driver.run())));
        Ok(Self { shared, commands })
    }

    /// Addresses that peers can dial, each with `/p2p/…`; those of this machine alone come last.
    pub(crate) fn listen_addrs(&self) -> Vec<String> {
        self.shared.listening.read().clone()
    }

    /// IP addresses that were listened on as asked, for others that bind beside it.
    pub(crate) fn listen_ips(&self) -> Vec<IpAddr> {
        self.shared.listen_ips.read().clone()
    }

    /// Connected peers that speak our protocol.
    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        self.shared.peers.infos()
    }

    /// Keys of the same.
    pub(crate) fn connected(&self) -> Vec<PublicKey> {
        self.shared.peers.keys()
    }

    /// Queues a frame for a peer, in order.
    pub(crate) fn send(&self, peer: &PublicKey, frame: Vec<u8>) -> Result<(), SendError> {
        self.shared.peers.send(peer, frame)
    }

    /// Parts from a peer, and refuses it for a while.
    pub(crate) fn part(&self, peer: &PublicKey, reason: &str, refuse_for: Duration) {
        let Some(peer) = address::peer_of(peer) else {
            return;
        };
        // Frames and answers of it may still be worked on: it is said once.
        if self.shared.refused.insert(peer, refuse_for) {
            tracing::warn!(%peer, reason, ?refuse_for, "parted from a peer");
        }
        // Where no more commands are taken now, the driver's timer finds the refused peer.
        drop(self.commands.try_send(Command::Part(peer)));
    }

    /// Dials a multiaddress once, and remembers it.
    pub(crate) fn dial(&self, address: &str) -> Result<(), SwarmError> {
        let place = Place::parse(address)?;
        self.commands
            .try_send(Command::Dial(place))
            .map_err(|_| SwarmError::Other("too much waits to be dialled".to_owned()))
    }

    /// Puts a repository's newest head into the look-up table, and says that this node provides it.
    pub(crate) fn announce(&self, repository: RepositoryId, head: Vec<u8>) {
        let mut announced = self.shared.announced.lock();
        if announced.len() >= LOOKUP_RECORDS_MAX && !announced.contains_key(&repository) {
            drop(announced);
            tracing::warn!(%repository, "too many repositories wait to be announced");
            return;
        }
        announced.insert(repository, head);
    }

    /// Nodes that say they provide a repository, as far as the look-up table knows within `patience`. Some
    /// of them that are not connected yet are dialled meanwhile.
    pub(crate) async fn providers(
        &self,
        repository: RepositoryId,
        patience: Duration,
    ) -> Vec<PublicKey> {
        let until = Instant::now() + patience.min(PATIENCE_MAX);
        let (reply, answer) = oneshot::channel();
        let command = Command::Providers(repository, until, reply);
        if self.commands.send(command).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// The newest head's envelope of a repository, as far as the look-up table knows within `patience`. It
    /// verifies; whether its signer was entitled is the ledger's to say.
    pub(crate) async fn look_up(
        &self,
        repository: RepositoryId,
        patience: Duration,
    ) -> Option<Vec<u8>> {
        let until = Instant::now() + patience.min(PATIENCE_MAX);
        let (reply, answer) = oneshot::channel();
        let command = Command::LookUp(repository, until, reply);
        self.commands.send(command).await.ok()?;
        answer.await.ok().flatten()
    }
}
