//! Peers find each other, exchange frames, part and meet again.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::swarm::SendError;

async fn exchange(a: &mut Peer, b: &mut Peer) {
    for number in 0..100_u32 {
        let frame = vec![7; 1 + number as usize * 500];
        a.swarm
            .send(&b.key, [&number.to_le_bytes()[..], &frame].concat())
            .unwrap();
        b.swarm.send(&a.key, number.to_le_bytes().to_vec()).unwrap();
    }
    for number in 0..100_u32 {
        let (from, frame) = b.frame().await;
        assert_eq!(from, a.key);
        assert_eq!(frame[..4], number.to_le_bytes());
        assert_eq!(frame.len(), 5 + number as usize * 500);
        assert_eq!(a.frame().await, (b.key, number.to_le_bytes().to_vec()));
    }
}

#[tokio::test]
async fn two_meet_by_address_over_either_carrier_and_frames_keep_their_order() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let mut a = spawn_with(1, |config| config.listen = vec![listen.to_owned()]).await;
        assert_eq!(a.swarm.listen_addrs().len(), 1);
        assert_eq!(a.swarm.listen_ips(), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let address = a.address();
        let mut b = spawn_with(2, |config| {
            config.listen = vec![listen.to_owned()];
            config.peers = vec![address.clone()];
        })
        .await;
        a.connected(b.key).await;
        b.connected(a.key).await;
        exchange(&mut a, &mut b).await;
        until("identify and ping", || {
            let shown = b.swarm.peers();
            shown.len() == 1 && shown[0].agent.starts_with("cairn/") && shown[0].rtt_ms.is_some()
        })
        .await;
        let shown = &b.swarm.peers()[0];
        assert_eq!(shown.key, a.key.to_string());
        assert_eq!(address, format!("{}/p2p/{}", shown.address, shown.peer_id));
        assert!(!shown.inbound && a.swarm.peers()[0].inbound);
        assert_eq!(
            a.swarm.send(&secret(9).public(), vec![1]),
            Err(SendError::NotConnected)
        );
        b.stop.cancel();
        a.disconnected(b.key).await;
        assert!(a.swarm.connected().is_empty());
    }
}

/// Nothing but the expected events comes for a while that is long beside what was seen before.
async fn quiet(peer: &mut Peer) {
    let more = timeout(Duration::from_millis(1500), peer.events.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_are_connected_once() {
    for round in 0..5_u8 {
        let mut a = spawn(10 + round).await;
        let mut b = spawn(20 + round).await;
        a.swarm.dial(&b.address()).unwrap();
        b.swarm.dial(&a.address()).unwrap();
        a.connected(b.key).await;
        b.connected(a.key).await;
        exchange(&mut a, &mut b).await;
        quiet(&mut a).await;
        quiet(&mut b).await;
    }
}

#[tokio::test]
async fn a_configured_peer_is_met_again_after_it_restarted_on_its_port() {
    let a = spawn(1).await;
    let address = a.address();
    let (listen, _) = address.rsplit_once("/p2p/").unwrap();
    let listen = listen.to_owned();
    // Without the peer's id: a user need not know it.
    let mut b = spawn_with(2, |config| config.peers = vec![listen.clone()]).await;
    b.connected(a.key).await;
    let key = a.key;
    a.stop.cancel();
    b.disconnected(key).await;
    drop(a);
    let mut again = None;
    while again.is_none() {
        let folder = tempfile::tempdir().unwrap();
        let listening = try_spawn(1, folder, Tuning::default(), |config| {
            config.listen = vec![listen.clone()];
        });
        // The port is free only once the other's task has ended.
        again = listening.await.ok();
        tokio::task::yield_now().await;
    }
    let mut a = again.unwrap();
    b.connected(key).await;
    a.connected(b.key).await;
    exchange(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_named_host_is_resolved_by_the_system_and_dialled() {
    let mut a = spawn(1).await;
    let address = a.address().replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    let mut b = spawn_with(2, |config| config.peers = vec![address]).await;
    b.connected(a.key).await;
    a.connected(b.key).await;
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_said_with_it() {
    let refuse = async |change: fn(&mut SwarmConfig)| {
        let folder = tempfile::tempdir().unwrap();
        let refused = try_spawn(1, folder, Tuning::default(), change).await;
        refused.err().expect("refused").to_string()
    };
    let said = refuse(|config| config.peers = vec!["/ip4/1.2.3.4".to_owned()]).await;
    assert!(said.contains("\"/ip4/1.2.3.4\""), "{said}");
    let said = refuse(|config| config.listen = vec!["127.0.0.1:80".to_owned()]).await;
    assert!(said.contains("\"127.0.0.1:80\""), "{said}");
    // An address that this machine doesn't have.
    for carrier in ["tcp/0", "udp/0/quic-v1"] {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("/ip4/203.0.113.77/{carrier}");
        let listen = vec![address.clone()];
        let refused = try_spawn(1, folder, Tuning::default(), |config| {
            config.listen = listen;
        });
        let said = refused.await.err().expect("refused").to_string();
        assert!(said.contains(&address), "{said}");
    }
    let peer = spawn(1).await;
    assert!(peer.swarm.dial("nonsense").is_err());
}

#[tokio::test]
async fn a_port_is_never_shared_with_another_node() {
    let a = spawn(1).await;
    let (listen, _) = a
        .address()
        .rsplit_once("/p2p/")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = try_spawn(2, folder, Tuning::default(), |config| {
        config.listen = vec![listen.clone()];
    });
    let said = refused.await.err().expect("refused").to_string();
    assert!(said.contains(&listen), "{said}");
}

#[tokio::test]
async fn by_default_all_interfaces_are_listened_on_and_real_addresses_are_told() {
    let mut a = spawn_with(1, |config| config.listen.clear()).await;
    // The second finds the default ports taken, by the first or by whatever else runs here.
    let mut b = spawn_with(2, |config| config.listen.clear()).await;
    for peer in [&a, &b] {
        let ips = peer.swarm.listen_ips();
        assert!(ips.contains(&IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let addresses = peer.swarm.listen_addrs();
        assert!(
            addresses
                .iter()
                .any(|address| address.starts_with("/ip4/127.0.0.1/tcp/"))
        );
        assert!(
            addresses
                .iter()
                .any(|address| address.contains("/quic-v1/p2p/"))
        );
        assert!(
            !addresses.iter().any(|address| address.contains("/0.0.0.0/")
                || address.contains("/ip6/::/")
                || address.contains("/fe80:")),
            "{addresses:?}"
        );
    }
    let addresses = a.swarm.listen_addrs();
    assert!(
        !addresses
            .iter()
            .any(|address| b.swarm.listen_addrs().contains(address))
    );
    b.swarm.dial(addresses.last().unwrap()).unwrap();
    b.connected(a.key).await;
    a.connected(b.key).await;
}

#[tokio::test]
async fn peers_on_the_local_network_find_each_other() {
    let listen = |config: &mut SwarmConfig| {
        config.listen = vec!["/ip4/0.0.0.0/tcp/0".to_owned()];
        config.mdns = true;
    };
    let mut a = spawn_with(31, listen).await;
    let beyond_this_machine = |address: &String| !address.starts_with("/ip4/127.");
    assert!(
        a.swarm.listen_addrs().iter().any(beyond_this_machine),
        "multicast needs an interface other than the loopback"
    );
    let mut b = spawn_with(32, listen).await;
    a.connected(b.key).await;
    b.connected(a.key).await;
}

#[tokio::test]
async fn the_book_leads_back_to_a_peer() {
    let mut a = spawn(1).await;
    let address = a.address();
    let mut b = spawn_with(2, |config| config.peers = vec![address]).await;
    a.connected(b.key).await;
    b.connected(a.key).await;
    let book = b.folder.path().join("peers.json");
    b.stop.cancel();
    a.disconnected(b.key).await;
    until("the book is written at the end", || book.exists()).await;
    let text = std::fs::read_to_string(&book).unwrap();
    assert!(text.contains("/ip4/127.0.0.1/tcp/"), "{text}");
    // Nobody is configured this time.
    let folder = std::mem::replace(&mut b.folder, tempfile::tempdir().unwrap());
    let b = try_spawn(2, folder, Tuning::default(), |_| {})
        .await
        .unwrap();
    a.connected(b.key).await;
}

#[tokio::test]
async fn a_listener_is_found_again_by_whom_it_never_dialled() {
    let mut a = spawn(1).await;
    let address = a.address();
    let mut b = spawn_with(2, |config| config.peers = vec![address]).await;
    a.connected(b.key).await;
    b.connected(a.key).await;
    let listens = b.address();
    let (listens, _) = listens.rsplit_once("/p2p/").unwrap();
    // What b listens on is known to a from b's own words only.
    until("a asked b for its addresses", || {
        a.swarm.peers().iter().any(|peer| !peer.agent.is_empty())
    })
    .await;
    let book = a.folder.path().join("peers.json");
    a.stop.cancel();
    until("the book is written at the end", || book.exists()).await;
    let text = std::fs::read_to_string(&book).unwrap();
    assert!(text.contains(listens), "{text}");
}

#[tokio::test]
async fn a_parted_peer_is_refused_until_its_time_is_over() {
    let mut a = spawn(1).await;
    let address = a.address();
    let mut b = spawn_with(2, |config| config.peers = vec![address]).await;
    a.connected(b.key).await;
    b.connected(a.key).await;
    let begun = std::time::Instant::now();
    a.swarm
        .part(&b.key, "the test says so", Duration::from_secs(4));
    a.disconnected(b.key).await;
    b.disconnected(a.key).await;
    // Not the other way round either.
    a.swarm.dial(&b.address()).unwrap();
    a.connected(b.key).await;
    assert!(
        begun.elapsed() >= Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}
