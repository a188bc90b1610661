//! The metadata plane: libp2p connections to other nodes, and ordered frames over them.
//!
//! One task owns the swarm; the handle is cheap to clone. It finds peers (given addresses, the peer book,
//! mDNS, Kademlia), keeps connections within limits, carries the frames of [`cairn_protocol::spread`] on
//! one stream each way, and keeps the look-up table of repositories. It knows nothing of records but how
//! to check one that it is asked to keep for others.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cairn_protocol::hash::RepositoryId;
use cairn_protocol::key::{PublicKey, SecretKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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

/// A running swarm; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Swarm {}

impl Swarm {
    /// Listens, dials, and tells `events` what happens until `stop`. Call within a tokio runtime.
    pub(crate) async fn spawn(
        config: SwarmConfig,
        key: &SecretKey,
        events: mpsc::Sender<SwarmEvent>,
        stop: CancellationToken,
    ) -> Result<Self, SwarmError> {
        let _ = (config, key, events, stop);
        todo!()
    }

    /// Addresses that peers can dial, each with `/p2p/…`.
    pub(crate) fn listen_addrs(&self) -> Vec<String> {
        todo!()
    }

    /// IP addresses that were listened on as asked, for others that bind beside it.
    pub(crate) fn listen_ips(&self) -> Vec<IpAddr> {
        todo!()
    }

    /// Connected peers that speak our protocol.
    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        todo!()
    }

    /// Keys of the same.
    pub(crate) fn connected(&self) -> Vec<PublicKey> {
        todo!()
    }

    /// Queues a frame for a peer, in order.
    pub(crate) fn send(&self, peer: &PublicKey, frame: Vec<u8>) -> Result<(), SendError> {
        let _ = (peer, frame);
        todo!()
    }

    /// Parts from a peer, and refuses it for a while.
    pub(crate) fn part(&self, peer: &PublicKey, reason: &str, refuse_for: Duration) {
        let _ = (peer, reason, refuse_for);
        todo!()
    }

    /// Dials a multiaddress once, and remembers it.
    pub(crate) fn dial(&self, address: &str) -> Result<(), SwarmError> {
        let _ = address;
        todo!()
    }

    /// Puts a repository's newest head into the look-up table, and says that this node provides it.
    pub(crate) fn announce(&self, repository: RepositoryId, head: Vec<u8>) {
        let _ = (repository, head);
        todo!()
    }

    /// Nodes that say they provide a repository, as far as the look-up table knows within `patience`.
    pub(crate) async fn providers(
        &self,
        repository: RepositoryId,
        patience: Duration,
    ) -> Vec<PublicKey> {
        let _ = (repository, patience);
        todo!()
    }

    /// The newest head's envelope of a repository, as far as the look-up table knows within `patience`.
    pub(crate) async fn look_up(
        &self,
        repository: RepositoryId,
        patience: Duration,
    ) -> Option<Vec<u8>> {
        let _ = (repository, patience);
        todo!()
    }
}
