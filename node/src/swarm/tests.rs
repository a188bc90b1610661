//! Swarms that meet over real sockets of this machine.

mod hostile;
mod meeting;
mod table;

use std::time::Duration;

use cairn_protocol::key::{PublicKey, SecretKey};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Swarm, SwarmConfig, SwarmError, SwarmEvent, Tuning};

/// Time that anything expected has to happen.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running swarm and what it tells.
struct Peer {
    swarm: Swarm,
    key: PublicKey,
    events: mpsc::Receiver<SwarmEvent>,
    stop: CancellationToken,
    folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn secret(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

/// Settings without any peer, on a free port of TCP.
fn config(folder: &TempDir) -> SwarmConfig {
    SwarmConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        peers: Vec::new(),
        mdns: false,
        book: folder.path().join("peers.json"),
    }
}

async fn try_spawn(
    number: u8,
    folder: TempDir,
    tuning: Tuning,
    change: impl FnOnce(&mut SwarmConfig),
) -> Result<Peer, SwarmError> {
    let mut config = config(&folder);
    change(&mut config);
    let (sender, events) = mpsc::channel(64);
    let stop = CancellationToken::new();
    let key = secret(number);
    let swarm = Swarm::spawn_tuned(config, &key, sender, stop.clone(), tuning).await?;
    Ok(Peer {
        swarm,
        key: key.public(),
        events,
        stop,
        folder,
    })
}

async fn spawn_with(number: u8, change: impl FnOnce(&mut SwarmConfig)) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    try_spawn(number, folder, Tuning::default(), change)
        .await
        .unwrap()
}

async fn spawn(number: u8) -> Peer {
    spawn_with(number, |_| {}).await
}

impl Peer {
    fn address(&self) -> String {
        self.swarm.listen_addrs()[0].clone()
    }

    async fn event(&mut self) -> SwarmEvent {
        timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the swarm lives")
    }

    /// Waits until a peer is connected; others may come and go before.
    async fn connected(&mut self, key: PublicKey) {
        loop {
            if let SwarmEvent::Connected(peer, ip) = self.event().await
                && peer == key
            {
                assert!(!ip.is_unspecified());
                assert!(self.swarm.connected().contains(&key));
                return;
            }
        }
    }

    async fn disconnected(&mut self, key: PublicKey) {
        while self.event().await != SwarmEvent::Disconnected(key) {}
    }

    /// Waits for the next frame, whatever comes before.
    async fn frame(&mut self) -> (PublicKey, Vec<u8>) {
        loop {
            if let SwarmEvent::Frame(peer, frame) = self.event().await {
                return (peer, frame);
            }
        }
    }
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(DEADLINE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}
