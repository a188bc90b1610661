//! Peers that do what they must not, and their neighbours, which must not notice.

use std::net::SocketAddr;

use cairn_protocol::limits::FRAME_BYTES_MAX;
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Stream, SwarmEvent as NetEvent};
use libp2p::{Multiaddr, StreamProtocol};
use tokio::net::TcpSocket;

use super::*;
use crate::swarm::lanes::{LaneEvent, Lanes, Refused};
use crate::swarm::session::Patience;
use crate::swarm::{PROTOCOL, SendError, transport};

/// Connects, and gives its raw stream; the swarm goes on as long as the sender of the other stream lives.
async fn rogue(number: u8, address: &str) -> (PublicKey, Stream, CancellationToken) {
    let key = Keypair::ed25519_from_bytes([number; 32]).unwrap();
    let mut swarm = libp2p::Swarm::new(
        transport::build(&key).unwrap(),
        Lanes::new(StreamProtocol::new(PROTOCOL), Refused::default()),
        key.public().to_peer_id(),
        libp2p::swarm::Config::with_tokio_executor(),
    );
    swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
    let (sender, mut streams) = mpsc::channel(1);
    let end = CancellationToken::new();
    let ended = end.clone().drop_guard();
    let token = end.clone();
    drop(tokio::spawn(async move {
        let _ended = ended;
        let mut accepted = Vec::new();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                event = swarm.select_next_some() => match event {
                    NetEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                        swarm.behaviour_mut().open(peer_id, connection_id);
                    }
                    NetEvent::ConnectionClosed { .. } => return,
                    NetEvent::Behaviour(lane) => match lane.event {
                        LaneEvent::Opened(stream) => sender.send(stream).await.unwrap(),
                        LaneEvent::Accepted(stream) => accepted.push(stream),
                        other => panic!("{other:?}"),
                    },
                    _ => {}
                },
            }
        }
    }));
    let stream = timeout(DEADLINE, streams.recv()).await.unwrap().unwrap();
    (secret(number).public(), stream, end)
}

fn impatient() -> Tuning {
    Tuning {
        patience: Patience {
            frame: Duration::from_secs(1),
            ..Patience::default()
        },
        ..Tuning::default()
    }
}

#[tokio::test]
async fn whoever_sends_a_malformed_or_slow_frame_is_parted_from_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = try_spawn(1, folder, impatient(), |_| {}).await.unwrap();
    let address = a.address();
    let honest_address = address.clone();
    let mut honest = spawn_with(2, |config| config.peers = vec![honest_address]).await;
    a.connected(honest.key).await;
    honest.connected(a.key).await;
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    let beginnings = [
        0_u32.to_le_bytes().to_vec(),
        too_long.to_le_bytes().to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
        [&1_000_u32.to_le_bytes()[..], b"and no more"].concat(),
        vec![7],
    ];
    for (number, beginning) in (50..).zip(beginnings) {
        let (key, mut stream, parted) = rogue(number, &address).await;
        a.connected(key).await;
        // A good frame first: it is taken.
        stream.write_all(&[2, 0, 0, 0, 8, 9]).await.unwrap();
        stream.write_all(&beginning).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(a.frame().await, (key, vec![8, 9]));
        assert_eq!(
            a.event().await,
            SwarmEvent::Disconnected(key),
            "{beginning:?}"
        );
        timeout(DEADLINE, parted.cancelled())
            .await
            .expect("it is parted from");
        honest.swarm.send(&a.key, vec![number]).unwrap();
        assert_eq!(a.frame().await, (honest.key, vec![number]));
    }
    assert_eq!(a.swarm.connected(), [honest.key]);
}

#[tokio::test]
async fn a_frame_that_trickles_but_gains_enough_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = try_spawn(1, folder, impatient(), |_| {}).await.unwrap();
    let (key, mut stream, _end) = rogue(50, &a.address()).await;
    let body = vec![5; 8 << 10];
    let length = u32::try_from(body.len()).unwrap();
    stream.write_all(&length.to_le_bytes()).await.unwrap();
    // Slower than the patience in all, never within one span of it.
    let mut pause = tokio::time::interval(Duration::from_millis(300));
    for part in body.chunks(1 << 10) {
        pause.tick().await;
        stream.write_all(part).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(a.frame().await, (key, body));
}

#[tokio::test]
async fn a_peer_that_takes_nothing_fills_its_own_queue_only() {
    let mut a = spawn(1).await;
    let address = a.address();
    let mut others = Vec::new();
    for number in [2, 3] {
        let address = address.clone();
        others.push(spawn_with(number, |config| config.peers = vec![address]).await);
    }
    let mut other = others.pop().unwrap();
    // This one's events are never taken.
    let stuck = others.pop().unwrap();
    until("both are connected", || a.swarm.connected().len() == 2).await;
    let mut sent = 0;
    let full = timeout(DEADLINE, async {
        loop {
            match a.swarm.send(&stuck.key, vec![1; 64 << 10]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(full.await.unwrap(), SendError::Full);
    assert!(sent > 64, "{sent}: what the queue holds, at least");
    other.connected(a.key).await;
    a.swarm.send(&other.key, vec![4]).unwrap();
    assert_eq!(other.frame().await, (a.key, vec![4]));
    other.swarm.send(&a.key, vec![5]).unwrap();
    assert_eq!(a.frame().await, (other.key, vec![5]));
}

#[tokio::test]
async fn silent_sockets_of_one_address_keep_no_other_out() {
    let mut a = spawn(1).await;
    let address = a.address();
    let mut parts = address.split('/');
    let port: u16 = parts.nth(4).unwrap().parse().unwrap();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let mut silent = Vec::new();
    for _ in 0..400 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(target).await.unwrap());
    }
    let begun = std::time::Instant::now();
    let mut b = spawn_with(2, |config| config.peers = vec![address]).await;
    b.connected(a.key).await;
    a.connected(b.key).await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    drop(silent);
}

#[tokio::test]
async fn one_peer_has_two_connections_at_most() {
    let mut a = spawn(1).await;
    let address: Multiaddr = a.address().parse().unwrap();
    let key = Keypair::ed25519_from_bytes([60; 32]).unwrap();
    let mut swarm = libp2p::Swarm::new(
        transport::build(&key).unwrap(),
        Lanes::new(StreamProtocol::new(PROTOCOL), Refused::default()),
        key.public().to_peer_id(),
        libp2p::swarm::Config::with_tokio_executor(),
    );
    for _ in 0..12 {
        let options = DialOpts::unknown_peer_id().address(address.clone());
        swarm.dial(options.build()).unwrap();
    }
    let (mut made, mut closed, mut failed) = (0, 0, 0);
    let flood = timeout(DEADLINE, async {
        while made + failed < 12 || made - closed > 2 {
            match swarm.select_next_some().await {
                NetEvent::ConnectionEstablished { .. } => made += 1,
                NetEvent::ConnectionClosed { .. } => closed += 1,
                NetEvent::OutgoingConnectionError { .. } => failed += 1,
                _ => {}
            }
        }
    });
    flood.await.expect("all but two are closed");
    let mut b = spawn(2).await;
    b.swarm.dial(&a.address()).unwrap();
    b.connected(a.key).await;
    a.connected(b.key).await;
}

#[tokio::test]
async fn a_peer_of_another_version_is_left_in_peace() {
    let mut a = spawn(1).await;
    let address = a.address();
    let other = Tuning {
        protocol: StreamProtocol::new("/cairn/spread/999"),
        ..Tuning::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let peers = vec![address.clone()];
    let b = try_spawn(2, folder, other, |config| config.peers = peers);
    let mut b = b.await.unwrap();
    let peer = |key: &PublicKey| crate::swarm::address::peer_of(key).unwrap();
    until("each refuses the other for a while", || {
        a.swarm.shared.refused.contains(&peer(&b.key))
            || b.swarm.shared.refused.contains(&peer(&a.key))
    })
    .await;
    let mut c = spawn_with(3, |config| config.peers = vec![address]).await;
    c.connected(a.key).await;
    a.connected(c.key).await;
    assert!(b.events.try_recv().is_err(), "nothing is told of it");
    assert_eq!(a.swarm.connected(), [c.key]);
}
