//! Peers whose heads, or whose help with them, are not what they say.

use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::SecretKey;
use cairn_protocol::limits::CLOSURE_HASHES_MAX;
use cairn_protocol::record::{Attestation, Body, Record};
use cairn_protocol::spread::message::Message;

use super::blobs::{Manner, Server, Tale};
use super::forge::{self, File, Flaw, Forged};
use super::node::Node;
use super::peer::Peer;

const LIAR: [u8; 32] = [66; 32];
const HONEST: [u8; 32] = [7; 32];
const LISTENER: [u8; 32] = [8; 32];
const PUBLISHER: [u8; 32] = [9; 32];

fn flawed(name: &str, flaw: Flaw) -> Forged {
    let file = File::new("config.json", Bytes::from_static(b"{}\n"));
    forge::flawed(&SecretKey::from_seed(PUBLISHER), name, &[file], flaw)
}

fn model(name: &str) -> Forged {
    flawed(name, Flaw::None)
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// The finding of an attestation about that repository, of whatever a frame holds.
fn finding(message: &Message, forged: &Forged) -> Option<String> {
    let Message::Records(envelopes) = message else {
        return None;
    };
    envelopes.iter().find_map(|envelope| {
        let record = Record::parse(envelope).unwrap();
        match record.body() {
            Body::Attestation(found) if record.header().repository == Some(forged.repository) => {
                Some(found.finding.clone())
            }
            _ => None,
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_that_does_not_fit_its_head_is_not_shown_nor_asked_for_again_and_is_attested() {
    for flaw in [Flaw::Tree, Flaw::Manifest, Flaw::Entry] {
        let node = Node::start();
        let forged = flawed("wrong", flaw);
        let right = model("right");
        let server = Server::new(&[&forged, &right], Manner::Honest);
        let server = server.serve(PUBLISHER).await;
        let mut listener = Peer::meet(&node, LISTENER, Vec::new()).await;
        let mut peer = Peer::meet(&node, PUBLISHER, vec![server.port]).await;
        assert!(peer.say(&Message::Records(forged.envelopes())).await);
        let said = listener.hear(|message| finding(&message, &forged)).await;
        assert_eq!(said, Attestation::METADATA_WRONG, "{flaw:?}");
        blocking(|| {
            node.wait("it is said", |node| {
                node.log().contains("a head is wrong").then_some(())
            });
        });
        // Another peer, and longer than the first pauses between two tries.
        let other = Peer::meet(&node, HONEST, vec![server.port]).await;
        let asked = server.asked();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(server.asked(), asked, "{flaw:?}: it is not fetched again");
        assert!(peer.say(&Message::Records(right.envelopes())).await);
        blocking(|| {
            node.shows(&right.repo, &right.commit);
            assert_eq!(node.models(), [right.repo.as_str()], "{flaw:?}");
            assert_eq!(
                node.log().matches("a head is wrong").count(),
                1,
                "{}",
                node.log()
            );
            assert_eq!(node.peers().len(), 3, "who relays a record did not make it");
            node.is_well();
        });
        drop(other);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_of_metadata_part_their_sender_and_another_peer_completes_the_head() {
    let node = Node::start();
    let forged = model("model");
    let mut other = forged.blobs.clone();
    let manifest = forged.metadata[3];
    let mut wrong = other[&manifest].to_vec();
    wrong[4] ^= 1;
    other.insert(manifest, wrong.into());
    let lies = Forged {
        blobs: other,
        ..model("model")
    };
    let liar = Server::new(&[&lies], Manner::Honest).serve(LIAR).await;
    let mut peer = Peer::meet(&node, LIAR, vec![liar.port]).await;
    assert!(peer.say(&Message::Records(forged.envelopes())).await);
    blocking(|| {
        node.drops(&peer.id, "wrong data");
        assert_eq!(node.models(), Vec::<String>::new());
    });
    let honest = Server::new(&[&forged], Manner::Honest).serve(HONEST).await;
    let _honest_peer = Peer::meet(&node, HONEST, vec![honest.port]).await;
    blocking(|| {
        node.shows(&forged.repo, &forged.commit);
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_that_lead_elsewhere_do_not_hinder() {
    let node = Node::start();
    let forged = model("model");
    let aside = Bytes::from_static(b"of no repository");
    let hints = vec![
        Blake3::of(&aside),
        Blake3::of(b"held by nobody"),
        forged.refs,
    ];
    let server = Server::new(&[&forged], Manner::Honest)
        .with([aside])
        .telling(Tale::Hints(hints));
    let server = server.serve(PUBLISHER).await;
    let mut peer = Peer::meet(&node, PUBLISHER, vec![server.port]).await;
    assert!(peer.say(&Message::Records(forged.envelopes())).await);
    blocking(|| {
        node.shows(&forged.repo, &forged.commit);
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_hints_end() {
    let page = (0..CLOSURE_HASHES_MAX).map(|number| Bytes::from(number.to_string()));
    let page: Vec<Bytes> = page.collect();
    let hashes = page.iter().map(|bytes| Blake3::of(bytes)).collect();
    for tale in [Tale::EndlessHints, Tale::EndlessFullHints(hashes)] {
        let node = Node::start();
        let forged = model("model");
        let liar = Server::new(&[&forged], Manner::Honest).with(page.clone());
        let liar = liar.telling(tale.clone());
        let liar = liar.serve(LIAR).await;
        let honest = Server::new(&[&forged], Manner::Honest).serve(HONEST).await;
        let _honest_peer = Peer::meet(&node, HONEST, vec![honest.port]).await;
        let mut peer = Peer::meet(&node, LIAR, vec![liar.port]).await;
        assert!(peer.say(&Message::Records(forged.envelopes())).await);
        blocking(|| {
            node.shows(&forged.repo, &forged.commit);
            node.wait("it is asked no more", |_| {
                let asked = liar.asked();
                std::thread::sleep(Duration::from_millis(500));
                (asked > 0 && liar.asked() == asked).then_some(())
            });
            if tale == Tale::EndlessHints {
                node.drops(&peer.id, "wrong data");
            }
            node.is_well();
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_version_adds_to_a_record_is_passed_on_byte_for_byte() {
    let first = Node::start();
    let second = Node::start_beside(&[&first]);
    let forged = model("model");
    let server = Server::new(&[&forged], Manner::Honest)
        .serve(PUBLISHER)
        .await;
    let mut envelopes = forged.envelopes();
    let later = forged.with_unknown_member(&SecretKey::from_seed(PUBLISHER));
    *envelopes.last_mut().unwrap() = later.clone();
    let mut listener = Peer::meet(&second, LISTENER, Vec::new()).await;
    let mut peer = Peer::meet(&first, PUBLISHER, vec![server.port]).await;
    assert!(peer.say(&Message::Records(envelopes)).await);
    let is_later = |message: Message| match message {
        Message::Records(envelopes) => envelopes.contains(&later).then_some(()),
        _ => None,
    };
    listener.hear(is_later).await;
    blocking(|| {
        for node in [&first, &second] {
            node.shows(&forged.repo, &forged.commit);
            node.is_well();
        }
    });
}
