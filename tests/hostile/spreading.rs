//! Peers that send records and frames that no honest one would.

use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::key::SecretKey;
use cairn_protocol::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use cairn_protocol::record::Record;
use cairn_protocol::spread::message::{Hello, Message, PROTOCOL, VERSION};

use super::blobs::{Manner, Server, Tale};
use super::forge::{self, File, Forged};
use super::node::Node;
use super::peer::{Peer, hello};

const SEED: [u8; 32] = [66; 32];
const PUBLISHER: [u8; 32] = [9; 32];
const MEMORY_GROWTH_MAX: u64 = 96 << 20;

fn small(name: &str) -> Forged {
    let file = File::new("config.json", Bytes::from_static(b"{}\n"));
    forge::repository(&SecretKey::from_seed(PUBLISHER), name, &[file])
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// A connection that serves nothing, to say one thing.
async fn stranger(node: &Node) -> Peer {
    Peer::meet(node, SEED, Vec::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_heads_are_refused_and_their_sender_is_dropped() {
    let node = Node::start();
    let forged = small("model");
    let head = forged.records.last().unwrap();
    // Signed by a key that is not the home's, in the home's name.
    let mut envelope = String::from_utf8(head.envelope().to_vec()).unwrap();
    let foreign = forged.head(&SecretKey::from_seed(SEED), 1, None);
    let foreign = String::from_utf8(foreign.envelope().to_vec()).unwrap();
    let signature = |text: &str| text.split("\"sig\":\"").nth(1).unwrap()[..88].to_owned();
    envelope = envelope.replace(&signature(&envelope.clone()), &signature(&foreign));
    assert!(Record::parse(envelope.as_bytes()).is_err());

    let mut peer = stranger(&node).await;
    let mut envelopes = forged.envelopes();
    *envelopes.last_mut().unwrap() = envelope.into_bytes();
    peer.say(&Message::Records(envelopes)).await;
    blocking(|| {
        node.drops(&peer.id, "does not verify");
        assert_eq!(node.models(), Vec::<String>::new());
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_of_strangers_and_older_ones_change_nothing() {
    let node = Node::start();
    let forged = small("model");
    let server = Server::new(&[&forged], Manner::Honest).serve(SEED).await;
    let mut peer = Peer::meet(&node, SEED, vec![server.port]).await;
    peer.say(&Message::Records(forged.envelopes())).await;
    blocking(|| node.shows(&forged.repo, &forged.commit));
    let first = forged.records.last().unwrap();
    let second = forged.head(&SecretKey::from_seed(PUBLISHER), 2, Some(first));
    peer.say(&Message::Records(vec![second.envelope().to_vec()]))
        .await;
    let seq = |node: &Node| node.json(&["info", &forged.repo])["seq"].as_u64().unwrap();
    blocking(|| node.wait("the second head", |node| (seq(node) == 2).then_some(())));

    // Well signed, by a key that has no right to it; and the old head again.
    let stranger = forged.head(&SecretKey::from_seed(SEED), 3, Some(&second));
    let replayed = vec![stranger.envelope().to_vec(), first.envelope().to_vec()];
    peer.say(&Message::Records(replayed)).await;
    // What comes after them is taken: by then they were looked at.
    let other = small("other");
    peer.say(&Message::Records(other.envelopes()[1..].to_vec()))
        .await;
    let next = forged.head(&SecretKey::from_seed(PUBLISHER), 3, Some(&second));
    peer.say(&Message::Records(vec![next.envelope().to_vec()]))
        .await;
    blocking(|| {
        node.wait("the third head", |node| (seq(node) == 3).then_some(()));
        assert_eq!(node.models(), [forged.repo.as_str(), other.repo.as_str()]);
        assert_eq!(
            node.peers(),
            [peer.id.as_str()],
            "honest relays are not dropped"
        );
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reencoded_envelope_is_no_record() {
    let node = Node::start();
    let forged = small("model");
    let mut envelopes = forged.envelopes();
    let text = String::from_utf8(envelopes.pop().unwrap()).unwrap();
    envelopes.push(
        text.replacen("{\"payload\"", "{ \"payload\"", 1)
            .into_bytes(),
    );
    let mut peer = stranger(&node).await;
    peer.say(&Message::Records(envelopes)).await;
    blocking(|| {
        node.drops(&peer.id, "does not verify");
        assert_eq!(node.models(), Vec::<String>::new());
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_the_limits_is_not_even_read() {
    let node = Node::start();
    let before = node.memory();
    for (what, bytes) in [
        ("a frame 100 times too long", {
            let len = u32::try_from(FRAME_BYTES_MAX * 100).unwrap();
            [&len.to_le_bytes()[..], &vec![1; 64 << 10]].concat()
        }),
        ("a frame of no bytes", vec![0; 4]),
        ("a record 100 times too long", {
            let record = vec![b'x'; (FRAME_BYTES_MAX - 64).min(PAYLOAD_BYTES_MAX * 100)];
            let mut frame = vec![2, 1, 0];
            frame.extend(u32::try_from(record.len()).unwrap().to_le_bytes());
            frame.extend(record);
            let len = u32::try_from(frame.len()).unwrap();
            [&len.to_le_bytes()[..], &frame].concat()
        }),
    ] {
        let seed = Bytes::from(what.as_bytes().to_vec());
        let seed = *cairn_protocol::hash::Blake3::of(&seed).as_bytes();
        let mut peer = Peer::meet(&node, seed, Vec::new()).await;
        let id = peer.id.clone();
        peer.raw(&bytes).await;
        blocking(|| {
            node.wait(&format!("{what} ends the connection"), |node| {
                (!node.peers().contains(&id)).then_some(())
            });
        });
    }
    blocking(|| {
        let growth = node.memory().saturating_sub(before);
        assert!(growth < MEMORY_GROWTH_MAX, "{growth} bytes");
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_bounded_and_others_are_still_heard() {
    let node = Node::start();
    let before = node.memory();
    let mut flooder = stranger(&node).await;
    let flood = tokio::spawn(async move {
        // Each of them is a record that verifies, of a namespace of its own.
        let (mut sent, mut number) = (0_u64, 0_u64);
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_secs(8) {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            let file = File::new("config.json", Bytes::from_static(b"{}\n"));
            let forged = forge::repository(&SecretKey::from_seed(seed), "spam", &[file]);
            let mut envelopes = forged.envelopes();
            // Of no use without the records before it.
            envelopes.drain(..1);
            sent += envelopes.len() as u64;
            if !flooder.say(&Message::Records(envelopes)).await {
                break;
            }
            number += 1;
        }
        sent
    });
    let forged = small("model");
    let server = Server::new(&[&forged], Manner::Honest)
        .serve(PUBLISHER)
        .await;
    let mut honest = Peer::meet(&node, PUBLISHER, vec![server.port]).await;
    honest.say(&Message::Records(forged.envelopes())).await;
    blocking(|| node.shows(&forged.repo, &forged.commit));
    let sent = flood.await.unwrap();
    assert!(sent > 1_000, "only {sent} records were sent");
    blocking(|| {
        let growth = node.memory().saturating_sub(before);
        assert!(
            growth < MEMORY_GROWTH_MAX,
            "{growth} bytes for {sent} records"
        );
        assert_eq!(node.models(), [forged.repo.as_str()]);
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_heads_that_nobody_can_complete_do_not_hold_up_others() {
    let node = Node::start();
    let silent = Server::new(&[], Manner::Honest).telling(Tale::Silence);
    let silent = silent.serve(SEED).await;
    let mut spammer = Peer::meet(&node, SEED, vec![silent.port]).await;
    for name in 0..400_u64 {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&name.to_le_bytes());
        let file = File::new("config.json", Bytes::from(name.to_string()));
        let spam = forge::repository(&SecretKey::from_seed(seed), "spam", &[file]);
        assert!(spammer.say(&Message::Records(spam.envelopes())).await);
    }
    let forged = small("model");
    let server = Server::new(&[&forged], Manner::Honest)
        .serve(PUBLISHER)
        .await;
    let mut honest = Peer::meet(&node, PUBLISHER, vec![server.port]).await;
    honest.say(&Message::Records(forged.envelopes())).await;
    blocking(|| {
        node.shows(&forged.repo, &forged.commit);
        assert_eq!(node.models(), [forged.repo.as_str()]);
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_is_told_and_parted_from_in_peace() {
    let node = Node::start();
    let mut peer = Peer::connect(&node, SEED, PROTOCOL).await;
    let later = Hello {
        versions: (VERSION + 1, VERSION + 4),
        format: 9,
        ..hello(Vec::new())
    };
    peer.say(&Message::Hello(later)).await;
    // It says its own version before it leaves.
    let theirs = peer
        .hear(|message| match message {
            Message::Hello(hello) => Some(hello),
            _ => None,
        })
        .await;
    assert_eq!(theirs.versions, (VERSION, VERSION));
    blocking(|| {
        node.drops(&peer.id, "spread versions 2 to 5");
        node.is_well();
    });
    // A node of a later protocol only, with fields that this version doesn't know: it is carried.
    let known = Hello {
        unknown: vec![(900, b"of a later version".to_vec())],
        ..hello(Vec::new())
    };
    let mut other = Peer::connect(&node, PUBLISHER, PROTOCOL).await;
    other.say(&Message::Hello(known)).await;
    blocking(|| {
        node.wait("a peer with unknown fields stays", |node| {
            node.peers().contains(&other.id).then_some(())
        });
    });
}
