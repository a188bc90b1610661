//! The look-up table: heads and providers of repositories, kept by whoever is asked to.

use std::collections::BTreeMap;
use std::time::Instant;

use cairn_protocol::hash::{Blake3, NamespaceId, RepositoryId};
use cairn_protocol::json::Object;
use cairn_protocol::record::{Body, Card, Freshness, Head, Header, Link, Record, Rows, Visibility};
use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, RecordStore as _};
use libp2p::kad::{self, ProviderRecord};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Multiaddr, PeerId, identify};

use super::*;
use crate::swarm::driver::LOOKUP;
use crate::swarm::records::{Found, Records, Refusal, key_of};
use crate::swarm::transport;

fn repository(number: u8) -> RepositoryId {
    RepositoryId::from_bytes([number; 32])
}

/// A head's envelope.
fn head(repository: RepositoryId, epoch: u64, seq: u64, signer: u8) -> Vec<u8> {
    let mut header = Header::new(epoch, 1_700_000_000);
    header.namespace = Some(NamespaceId::from_bytes([9; 32]));
    header.repository = Some(repository);
    let prev = (seq > 1)
        .then(|| Blake3::of(b"before"))
        .map(|hash| cairn_protocol::hash::RecordId::from_bytes(*hash.as_bytes()));
    header.chain = Some(Link { seq, prev });
    let body = Head {
        refs: Blake3::of(b"refs"),
        changes: Vec::new(),
        card: Card::default(),
        settings: Object::new(),
    };
    let record = Record::sign(header, Body::Head(body), &[&secret(signer)]).unwrap();
    record.envelope().to_vec()
}

fn put(repository: RepositoryId, value: Vec<u8>) -> kad::Record {
    let mut record = kad::Record::new(key_of(repository), value);
    record.expires = Some(Instant::now() + Duration::from_mins(1));
    record
}

#[test]
fn only_a_newer_head_of_the_keys_repository_replaces_a_kept_one() {
    let (local, peer) = (PeerId::random(), PeerId::random());
    let mut records = Records::new(local);
    let here = repository(1);
    assert_eq!(records.keep(peer, put(here, head(here, 2, 5, 1))), Ok(()));
    let kept = |records: &Records| {
        let kept = records.get(&key_of(here)).unwrap().value.clone();
        Found::check(&key_of(here), &kept).unwrap().version
    };
    let mut forged = head(here, 3, 1, 1);
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    let mut foreign_key = put(here, head(here, 9, 9, 1));
    foreign_key.key = kad::RecordKey::new(&b"/cairn/repository/1/short");
    for (record, is_expected) in [
        (
            put(here, head(here, 2, 4, 1)),
            (|refusal| *refusal == Refusal::Old) as fn(&Refusal) -> bool,
        ),
        (put(here, head(here, 1, 900, 1)), |refusal| {
            *refusal == Refusal::Old
        }),
        // As new, and another: the one that was first stays.
        (put(here, head(here, 2, 5, 7)), |refusal| {
            *refusal == Refusal::Old
        }),
        (put(here, head(repository(2), 9, 9, 1)), |refusal| {
            *refusal == Refusal::Other
        }),
        (put(here, forged), |refusal| {
            matches!(refusal, Refusal::Record(_))
        }),
        (put(here, b"junk".to_vec()), |refusal| {
            matches!(refusal, Refusal::Record(_))
        }),
        (put(here, Vec::new()), |refusal| {
            matches!(refusal, Refusal::Record(_))
        }),
        (put(here, vec![b' '; 9 << 10]), |refusal| {
            *refusal == Refusal::Large(9 << 10)
        }),
        (foreign_key, |refusal| *refusal == Refusal::Key),
    ] {
        let refusal = records.keep(peer, record).unwrap_err();
        assert!(is_expected(&refusal), "{refusal:?}");
        assert_eq!(kept(&records), (2, 5));
    }
    assert_eq!(records.keep(peer, put(here, head(here, 2, 6, 1))), Ok(()));
    assert_eq!(kept(&records), (2, 6));
    assert_eq!(records.keep(peer, put(here, head(here, 3, 1, 1))), Ok(()));
    assert_eq!(kept(&records), (3, 1));
    // What this node announces itself nobody replaces.
    assert_eq!(records.keep(local, put(here, head(here, 3, 2, 1))), Ok(()));
    assert_eq!(
        records.keep(peer, put(here, head(here, 4, 1, 1))),
        Err(Refusal::Own)
    );
    assert_eq!(kept(&records), (3, 2));
    records.purge(Instant::now() + Duration::from_hours(24));
    assert_eq!(kept(&records), (3, 2), "and it doesn't expire");
}

#[test]
fn another_kind_of_record_is_no_head() {
    let here = repository(1);
    let rows = Rows::new(&BTreeMap::from([(here, None)])).unwrap();
    let mut header = Header::new(1, 1_700_000_000);
    header.namespace = Some(NamespaceId::from_bytes([9; 32]));
    header.chain = Some(Link { seq: 1, prev: None });
    let body = Freshness {
        visibility: Visibility::Public,
        root: rows.hash(),
        good_until: 1_700_000_100,
    };
    let record = Record::sign(header, Body::Freshness(body), &[&secret(1)]).unwrap();
    let refused = Found::check(&key_of(here), record.envelope());
    assert_eq!(refused, Err(Refusal::Other));
}

#[test]
fn the_newest_providers_are_kept_and_each_expires() {
    let local = PeerId::random();
    let mut records = Records::new(local);
    let key = key_of(repository(1));
    let soon = Instant::now() + Duration::from_mins(1);
    let record = |provider: PeerId| {
        let address: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let mut record = ProviderRecord::new(key.clone(), provider, vec![address; 50]);
        record.expires = Some(soon);
        record
    };
    records.keep_provider(record(local)).unwrap();
    let providers: Vec<_> = (0..30).map(|_| PeerId::random()).collect();
    for provider in &providers {
        records.keep_provider(record(*provider)).unwrap();
        records.keep_provider(record(*provider)).unwrap();
    }
    let kept: Vec<_> = records
        .providers(&key)
        .iter()
        .map(|kept| kept.provider)
        .collect();
    assert_eq!(kept.len(), 20);
    assert_eq!(kept[0], providers[29]);
    assert!(
        kept.contains(&local) && kept.contains(&providers[11]) && !kept.contains(&providers[10])
    );
    assert!(
        records
            .providers(&key)
            .iter()
            .all(|kept| kept.addresses.len() <= 8)
    );
    let foreign = ProviderRecord::new(kad::RecordKey::new(b"else"), local, Vec::new());
    assert_eq!(records.keep_provider(foreign), Err(Refusal::Key));
    records.purge(soon + Duration::from_secs(1));
    let kept = records.providers(&key);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].provider, local);
}

#[test]
fn one_peer_cannot_fill_the_table() {
    let peer = PeerId::random();
    let mut records = Records::new(PeerId::random());
    let mut refused = None;
    for number in 0..20_000_u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        let key = key_of(RepositoryId::from_bytes(id));
        let record = ProviderRecord::new(key, peer, Vec::new());
        if let Err(refusal) = records.keep_provider(record) {
            refused = Some((number, refusal));
            break;
        }
    }
    assert_eq!(refused, Some((10_000, Refusal::Peer)));
    let key = key_of(repository(1));
    let other = ProviderRecord::new(key, PeerId::random(), Vec::new());
    assert_eq!(records.keep_provider(other), Ok(()));
}

/// Asks until the answer is as expected: peers get to know each other by and by.
async fn ask<T, F: Future<Output = T>>(what: &str, ask: impl Fn() -> F, good: impl Fn(&T) -> bool) {
    let asked = timeout(DEADLINE, async {
        loop {
            if good(&ask().await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(asked.await.is_ok(), "{what}");
}

#[tokio::test]
async fn what_one_announces_another_finds_through_a_third() {
    let hub = spawn(1).await;
    let mut peers = Vec::new();
    for number in 2..=5 {
        let address = hub.address();
        peers.push(spawn_with(number, |config| config.peers = vec![address]).await);
    }
    until("all are connected", || hub.swarm.connected().len() >= 4).await;
    let here = repository(1);
    let (first, last) = (&peers[0], &peers[3]);
    first.swarm.announce(here, head(here, 1, 1, 1));
    let patience = Duration::from_secs(5);
    let look_up = || last.swarm.look_up(here, patience);
    ask("found", look_up, |found| {
        *found == Some(head(here, 1, 1, 1))
    })
    .await;
    let providers = || last.swarm.providers(here, patience);
    ask("provided", providers, |found| *found == [first.key]).await;
    // A newer head takes its place.
    first.swarm.announce(here, head(here, 1, 2, 1));
    ask("newer", look_up, |found| {
        *found == Some(head(here, 1, 2, 1))
    })
    .await;
    assert_eq!(last.swarm.look_up(repository(2), patience).await, None);
    assert_eq!(last.swarm.providers(repository(2), patience).await, []);
    // Who asked is connected to the provider by now.
    until("connected to the provider", || {
        last.swarm.connected().contains(&first.key)
    })
    .await;
}

#[tokio::test]
async fn what_was_announced_alone_is_found_once_somebody_is_there() {
    let here = repository(1);
    let a = spawn(1).await;
    a.swarm.announce(here, head(here, 1, 1, 1));
    let patience = Duration::from_secs(5);
    ask(
        "by itself",
        || a.swarm.look_up(here, patience),
        Option::is_some,
    )
    .await;
    let address = a.address();
    let b = spawn_with(2, |config| config.peers = vec![address]).await;
    let (b_swarm, a_key) = (&b.swarm, a.key);
    ask("found", || b_swarm.look_up(here, patience), Option::is_some).await;
    ask(
        "provided",
        || b_swarm.providers(here, patience),
        |found| *found == [a_key],
    )
    .await;
}

/// A node of the table that keeps and gives whatever it likes.
#[derive(NetworkBehaviour)]
struct Liar {
    table: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

#[tokio::test]
async fn a_liar_in_the_table_changes_no_answer() {
    let hub = spawn(1).await;
    let address = hub.address();
    let here = repository(1);
    let honest = {
        let address = address.clone();
        spawn_with(2, |config| config.peers = vec![address]).await
    };
    honest.swarm.announce(here, head(here, 1, 7, 1));
    let patience = Duration::from_secs(5);
    ask(
        "kept by the hub",
        || hub.swarm.look_up(here, patience),
        Option::is_some,
    )
    .await;
    let mut lies = vec![
        head(here, 1, 6, 1),
        head(repository(2), 9, 9, 1),
        b"junk".to_vec(),
    ];
    let mut forged = head(here, 9, 9, 1);
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    lies.push(forged);
    let stop = CancellationToken::new();
    let (told, mut asked) = mpsc::channel(64);
    for (number, lie) in (70..).zip(lies) {
        let key = Keypair::ed25519_from_bytes([number; 32]).unwrap();
        let local = key.public().to_peer_id();
        let mut config = kad::Config::new(LOOKUP);
        // It never takes the truth over.
        config.set_record_filtering(kad::StoreInserts::FilterBoth);
        let mut table = kad::Behaviour::with_config(local, MemoryStore::new(local), config);
        table.set_mode(Some(kad::Mode::Server));
        table
            .store_mut()
            .put(kad::Record::new(key_of(here), lie.clone()))
            .unwrap();
        let identify = identify::Config::new("/liar/1".to_owned(), key.public());
        let identify = identify::Behaviour::new(identify);
        let mut swarm = libp2p::Swarm::new(
            transport::build(&key).unwrap(),
            Liar { table, identify },
            local,
            libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(DEADLINE),
        );
        swarm
            .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
            .unwrap();
        swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
        let (stop, told) = (stop.clone(), told.clone());
        drop(tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    event = swarm.select_next_some() => match event {
                        libp2p::swarm::SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                            let record = kad::Record::new(key_of(here), lie.clone());
                            let to = std::iter::once(peer_id);
                            let table = &mut swarm.behaviour_mut().table;
                            table.put_record_to(record, to, kad::Quorum::One);
                        }
                        libp2p::swarm::SwarmEvent::Behaviour(LiarEvent::Table(
                            kad::Event::InboundRequest {
                                request: kad::InboundRequest::GetRecord { present_locally, .. },
                            },
                        )) => told.try_send(present_locally).unwrap_or_default(),
                        _ => {}
                    },
                }
            }
        }));
    }
    // The old head may have come to the hub before the new one did; the others never have a chance.
    let blamed = || hub.swarm.shared.blamed.lock().len();
    until("the lies were refused by the hub", || blamed() >= 3).await;
    let third = spawn_with(3, |config| config.peers = vec![address]).await;
    let mut lied_to = 0;
    let deadline = Instant::now() + DEADLINE;
    // Until the liars were asked, each answer must be true all the same.
    while lied_to < 4 {
        assert!(Instant::now() < deadline, "the liars are asked: {lied_to}");
        let found = third.swarm.look_up(here, patience).await;
        let nobody_known_yet = found.is_none() && lied_to == 0;
        assert!(nobody_known_yet || found == Some(head(here, 1, 7, 1)));
        while asked.try_recv().is_ok_and(|lied| lied) {
            lied_to += 1;
        }
    }
    assert_eq!(
        hub.swarm.look_up(here, patience).await,
        Some(head(here, 1, 7, 1))
    );
    stop.cancel();
}
