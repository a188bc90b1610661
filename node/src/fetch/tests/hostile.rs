//! Peers that say they have a file, and send something else, or next to nothing.

use cairn_protocol::transfer::{self, Answer, Held, Request};
use iroh::endpoint::{Connection, RecvStream, SendStream, presets};
use iroh::{Endpoint, RelayMode};

use super::*;

/// What it sends where pieces are asked for.
#[derive(Debug, Clone, Copy)]
enum Sends {
    Noise,
    /// A byte a second.
    Drip,
    /// So slowly that it just counts as progress.
    Trickle,
}

/// A peer of which the swarm is real, and the data plane made by hand.
struct Hostile {
    key: PublicKey,
    swarm: Swarm,
    endpoint: Endpoint,
    _stop: tokio_util::sync::DropGuard,
    _folder: TempDir,
}

/// Holds what `of` holds, as it says.
async fn hostile(seed: u8, of: &Peer, sends: Sends) -> Hostile {
    let secret = SecretKey::from_seed([seed; 32]);
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let config = SwarmConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        peers: Vec::new(),
        mdns: false,
        book: folder.path().join("peers.json"),
    };
    let (events, mut heard) = mpsc::channel(64);
    tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let swarm = Swarm::spawn(config, &secret, events, stop.clone())
        .await
        .unwrap();
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&[seed; 32]))
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .alpns(vec![iroh_blobs::ALPN.to_vec(), transfer::ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .unwrap()
        .bind()
        .await
        .unwrap();
    let (accepting, store) = (endpoint.clone(), of.store.clone());
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let store = store.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    serve(connection, store, sends).await;
                }
            });
        }
    });
    Hostile {
        key: secret.public(),
        swarm,
        endpoint,
        _stop: stop.drop_guard(),
        _folder: folder,
    }
}

async fn serve(connection: Connection, store: Store, sends: Sends) {
    let ours = connection.alpn() == transfer::ALPN;
    while let Ok((send, recv)) = connection.accept_bi().await {
        let store = store.clone();
        tokio::spawn(async move {
            if ours {
                answer(send, recv, &store).await;
            } else {
                betray(send, recv, sends).await;
            }
        });
    }
}

/// Says the truth about what the other holds.
async fn answer(mut send: SendStream, mut recv: RecvStream, store: &Store) {
    let request = Request::decode(&recv.read_to_end(1 << 20).await.unwrap()).unwrap();
    let size = |hash: &Blake3| match store.pieces(hash) {
        Ok(pieces) => Held::Whole(pieces.list().size()),
        Err(_) => Held::Absent,
    };
    let answer = match request {
        Request::Lookup(hashes) => Answer::Held(hashes.iter().map(size).collect()),
        Request::List(hash) => Answer::List(store.pieces(&hash).unwrap().list().encode()),
        Request::Closure { .. } => Answer::Closure(Vec::new(), false),
    };
    send.write_all(&answer.encode()).await.unwrap();
    send.finish().unwrap();
}

async fn betray(mut send: SendStream, mut recv: RecvStream, sends: Sends) {
    drop(recv.read_to_end(1 << 20).await);
    match sends {
        Sends::Noise => {
            let size = 6 * MIB;
            drop(send.write_all(&size.to_le_bytes()).await);
            drop(send.write_all(&noise(8 * MIB, 99)).await);
        }
        Sends::Trickle => {
            drop(send.write_all(&MIB.to_le_bytes()).await);
            while send.write_all(&[0; 4 << 10]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        Sends::Drip => {
            while send.write_all(&[0]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Peer {
    async fn meet_hostile(&self, other: &Hostile) {
        self.swarm.dial(&other.swarm.listen_addrs()[0]).unwrap();
        until("connected", || self.swarm.connected().contains(&other.key)).await;
        self.blobs.meet(other.key, other.endpoint.bound_sockets());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sends_wrong_bytes_is_dropped_and_the_file_is_right() {
    let (source, sink) = (slow(1, Some(4 * MIB)).await, peer(2).await);
    let bytes = noise(6 * MIB, 1);
    let claim = source.add(&bytes);
    let liar = hostile(3, &source, Sends::Noise).await;
    sink.meet_hostile(&liar).await;
    let arriving = sink.fetcher.fetch(claim.clone());
    let waiting = {
        let arriving = arriving.clone();
        tokio::spawn(async move { finished(&arriving).await })
    };
    until("parted", || !sink.swarm.connected().contains(&liar.key)).await;
    assert_eq!(
        arriving.progress().0,
        0,
        "a wrong byte was taken for a right one"
    );
    sink.meet(&source).await;
    waiting.await.unwrap().unwrap();
    sink.holds(&claim, &bytes);
    assert!(!sink.swarm.connected().contains(&liar.key));
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_taken_from_no_liar_either() {
    let (source, sink) = (peer(1).await, peer(2).await);
    let bytes = noise(3_000, 2);
    let claim = source.add(&bytes);
    let liar = hostile(3, &source, Sends::Noise).await;
    sink.meet_hostile(&liar).await;
    let arriving = sink.fetcher.fetch(claim.clone());
    sink.meet(&source).await;
    finished(&arriving).await.unwrap();
    sink.holds(&claim, &bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_sends_a_byte_a_second_is_left_for_another() {
    let (source, sink) = (peer(1).await, peer(2).await);
    let bytes = noise(6 * MIB, 3);
    let claim = source.add(&bytes);
    let slow = hostile(3, &source, Sends::Drip).await;
    sink.meet_hostile(&slow).await;
    let arriving = sink.fetcher.fetch(claim.clone());
    let waiting = {
        let arriving = arriving.clone();
        tokio::spawn(async move { finished(&arriving).await })
    };
    let asked = || {
        sink.fetcher
            .transfers()
            .iter()
            .any(|shown| !shown.peers.is_empty())
    };
    until("asked", asked).await;
    sink.meet(&source).await;
    waiting.await.unwrap().unwrap();
    sink.holds(&claim, &bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_wait_for_no_slow_one_where_there_is_another() {
    let (source, sink) = (peer(1).await, peer(2).await);
    let slow = hostile(5, &source, Sends::Trickle).await;
    sink.meet_hostile(&slow).await;
    let files: Vec<_> = (0..4).map(|seed| noise(MIB - seed, 7)).collect();
    let claims: Vec<_> = files.iter().map(|bytes| source.add(bytes)).collect();
    let arriving: Vec<_> = (claims.iter())
        .map(|claim| sink.fetcher.fetch(claim.clone()))
        .collect();
    until("it is asked", || sink.blobs.moved(&slow.key) > 0).await;
    sink.meet(&source).await;
    for (arriving, (claim, bytes)) in arriving.iter().zip(claims.iter().zip(&files)) {
        finished(arriving).await.unwrap();
        sink.holds(claim, bytes);
    }
}
