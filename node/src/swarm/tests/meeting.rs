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
