//! What a node has that speaks to others: swarm, blobs, fetcher, follower, and the runtime they run on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_protocol::key::SecretKey;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::backup::Guard;
use crate::blobs::{Blobs, BlobsConfig};
use crate::cache::Cache;
use crate::config::NetworkConfig;
use crate::fetch::Fetcher;
use crate::follow::{Follower, Parts};
use crate::journal::Journal;
use crate::repos::Repos;
use crate::store::Store;
use crate::swarm::{DEFAULT_PORT, Swarm, SwarmConfig, SwarmError};

/// Events of the swarm that wait for the follower; the swarm reads no further frames meanwhile.
const EVENTS_MAX: usize = 256;
/// Time that tasks have to end by themselves, and time between two looks whether they have.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
const END_PAUSE: Duration = Duration::from_millis(5);
/// Time that blocking work has to end after that.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// What the network works on: cheap handles, which tasks keep until they end.
#[derive(Debug, Clone)]
pub(crate) struct Rooms {
    pub(crate) store: Store,
    pub(crate) repos: Repos,
    pub(crate) access: Access,
    pub(crate) cache: Cache,
    pub(crate) journal: Journal,
    pub(crate) guard: Guard,
}

/// The running network part of a node.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) swarm: Swarm,
    pub(crate) blobs: Blobs,
    pub(crate) fetcher: Fetcher,
    pub(crate) follower: Follower,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl Network {
    /// Listens and begins; blocking.
    pub(crate) fn spawn(
        config: &NetworkConfig,
        book: std::path::PathBuf,
        key: &SecretKey,
        rooms: &Rooms,
    ) -> Result<Self, SwarmError> {
        let Rooms {
            store,
            repos,
            access,
            cache,
            journal,
            guard,
        } = rooms;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("cairn-network")
            .build()
            .map_err(|error| SwarmError::Other(format!("start the runtime: {error}")))?;
        let stop = CancellationToken::new();
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let swarm_config = SwarmConfig {
            listen: config.listen.clone(),
            peers: config.peers.clone(),
            mdns: config.mdns,
            book,
        };
        let (swarm, blobs, fetcher, follower) = runtime.block_on(async {
            let swarm = Swarm::spawn(swarm_config, key, events, stop.clone()).await?;
            let blobs_config = BlobsConfig {
                bind: binds(&swarm.listen_ips(), blobs_port(&config.listen)),
                upload_rate: config.upload_rate,
                download_rate: config.download_rate,
            };
            let blobs = Blobs::spawn(
                blobs_config,
                key,
                store.clone(),
                access.clone(),
                stop.clone(),
            );
            let blobs = blobs
                .await
                .map_err(|error| SwarmError::Other(error.to_string()))?;
            let fetcher = Fetcher::spawn(
                store.clone(),
                cache.clone(),
                access.clone(),
                blobs.clone(),
                swarm.clone(),
                stop.clone(),
            );
            let parts = Parts {
                store: store.clone(),
                repos: repos.clone(),
                access: access.clone(),
                swarm: swarm.clone(),
                blobs: blobs.clone(),
                journal: journal.clone(),
                guard: guard.clone(),
                key: Arc::new(SecretKey::from_seed(key.seed())),
            };
            let follower = Follower::spawn(parts, heard, fetcher.disagreements(), stop.clone());
            Ok::<_, SwarmError>((swarm, blobs, fetcher, follower))
        })?;
        runtime.spawn(cache.clone().watch(stop.clone()));
        Ok(Self {
            swarm,
            blobs,
            fetcher,
            follower,
            stop,
            runtime: Some(runtime),
        })
    }
}

impl Network {
    /// The runtime that everything here runs on.
    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        let runtime = self.runtime.as_ref();
        runtime
            .expect("invariant: taken only when this is dropped")
            .handle()
    }
}

/// The port for contents, UDP and TCP: the one after the first port that is listened on, so that a firewall can be
/// told; 0 where that is left to the system.
fn blobs_port(listen: &[String]) -> u16 {
    let named = listen.iter().find_map(|address| {
        let mut parts = address.split('/');
        parts.find(|part| matches!(*part, "tcp" | "udp"))?;
        parts.next()?.parse::<u16>().ok()
    });
    let first = if listen.is_empty() {
        DEFAULT_PORT
    } else {
        named.unwrap_or(0)
    };
    if first == 0 {
        0
    } else {
        first.saturating_add(1)
    }
}

/// One address of each family to bind: all where several of a family are listened on, else that one.
fn binds(ips: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let of = |v4: bool| {
        let mut found = ips.iter().filter(|ip| ip.is_ipv4() == v4);
        let first = *found.next()?;
        let all: IpAddr = if v4 {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        Some(SocketAddr::new(
            if found.next().is_some() { all } else { first },
            port,
        ))
    };
    [of(true), of(false)].into_iter().flatten().collect()
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.cancel();
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        // A runtime must not end on a thread that belongs to another one's tasks.
        let ending = std::thread::Builder::new()
            .name("cairn-network-end".to_owned())
            .spawn(move || {
                // They say farewell to their peers and write what they have learnt.
                let begin = Instant::now();
                while runtime.metrics().num_alive_tasks() > 0 && begin.elapsed() < FAREWELL_TIMEOUT
                {
                    std::thread::sleep(END_PAUSE);
                }
                runtime.shutdown_timeout(END_TIMEOUT);
            });
        match ending {
            Ok(ending) => drop(ending.join()),
            Err(error) => tracing::warn!(%error, "the network's tasks were not waited for"),
        }
    }
}
