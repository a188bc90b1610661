//! Peers that serve badly what a node fetches.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_protocol::key::SecretKey;
use cairn_protocol::spread::message::Message;

use super::blobs::{Manner, Server, Tale};
use super::forge::{self, File, Forged};
use super::node::{Node, PATIENCE};
use super::peer::Peer;

const LIAR: [u8; 32] = [66; 32];
const HONEST: [u8; 32] = [7; 32];

fn weights(seed: u64, len: usize) -> Bytes {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect::<Vec<u8>>().into()
}

fn model(seed: u64) -> Forged {
    let file = File::new("model.safetensors", weights(seed, 9_000_000));
    forge::repository(&SecretKey::from_seed([9; 32]), "model", &[file])
}

fn content(forged: &Forged) -> &Bytes {
    let blobs = forged.blobs.values();
    blobs.max_by_key(|bytes| bytes.len()).unwrap()
}

fn path(forged: &Forged) -> String {
    format!("/{}/resolve/main/model.safetensors", forged.repo)
}

/// Tells the node of a repository, and waits until it is shown.
async fn publish(node: &Node, peer: &mut Peer, forged: &Forged) {
    assert!(peer.say(&Message::Records(forged.envelopes())).await);
    let (repo, commit) = (forged.repo.clone(), forged.commit.clone());
    tokio::task::block_in_place(|| node.shows(&repo, &commit));
}

fn get(node: &Node, path: &str) -> (u16, Vec<u8>) {
    tokio::task::block_in_place(|| node.get(path))
}

/// Whether an answer has the whole file; a body that is cut off, or an error, has not.
fn is_whole(answer: &(u16, Vec<u8>), bytes: &[u8]) -> bool {
    assert!(
        answer.0 != 200 || bytes.starts_with(&answer.1),
        "wrong bytes were served"
    );
    answer.0 == 200 && answer.1.len() == bytes.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_not_served_and_their_sender_is_dropped() {
    let node = Node::start();
    let forged = model(1);
    let whole = content(&forged);
    let liar = Server::new(&[&forged], Manner::Wrong(5_000_000))
        .serve(LIAR)
        .await;
    let mut peer = Peer::meet(&node, LIAR, vec![liar.port]).await;
    publish(&node, &mut peer, &forged).await;
    assert!(!is_whole(&get(&node, &path(&forged)), whole));
    assert!(liar.served() > 0, "it was asked");
    tokio::task::block_in_place(|| node.drops(&peer.id, "wrong data"));
    // An honest peer has the rest; what was right of the liar's pieces was kept.
    let honest = Server::new(&[&forged], Manner::Honest).serve(HONEST).await;
    let _honest_peer = Peer::meet(&node, HONEST, vec![honest.port]).await;
    tokio::task::block_in_place(|| {
        node.wait("the file comes from the honest peer", |node| {
            is_whole(&node.get(&path(&forged)), whole).then_some(())
        });
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_stop_stall_or_drip_are_left_for_one_that_does_not() {
    for manner in [Manner::Half, Manner::Stall, Manner::Drip] {
        let node = Node::start();
        let forged = model(2);
        let whole = content(&forged);
        let bad = Server::new(&[&forged], manner).serve(LIAR).await;
        let mut peer = Peer::meet(&node, LIAR, vec![bad.port]).await;
        publish(&node, &mut peer, &forged).await;
        let begin = Instant::now();
        let answer = tokio::task::spawn_blocking({
            let target = path(&forged);
            let node_get = node.getter();
            move || node_get.get(&target)
        });
        tokio::task::block_in_place(|| {
            node.wait("the bad peer was asked", |_| {
                (bad.served() > 0).then_some(())
            });
        });
        let honest = Server::new(&[&forged], Manner::Honest).serve(HONEST).await;
        let _honest_peer = Peer::meet(&node, HONEST, vec![honest.port]).await;
        let first = answer.await.unwrap();
        assert!(
            is_whole(&first, whole) || is_whole(&get(&node, &path(&forged)), whole),
            "{manner:?}: the file came from the honest peer"
        );
        assert!(
            begin.elapsed() < PATIENCE + Duration::from_secs(30),
            "{manner:?}"
        );
        tokio::task::block_in_place(|| node.is_well());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_piece_list_is_not_believed_and_its_sender_is_dropped() {
    let node = Node::start();
    let forged = model(4);
    let whole = content(&forged);
    let liar = Server::new(&[&forged], Manner::Honest).telling(Tale::OtherList);
    let liar = liar.serve(LIAR).await;
    let mut peer = Peer::meet(&node, LIAR, vec![liar.port]).await;
    publish(&node, &mut peer, &forged).await;
    assert!(!is_whole(&get(&node, &path(&forged)), whole));
    assert_eq!(
        liar.served(),
        0,
        "nothing is asked for by a list that is none"
    );
    tokio::task::block_in_place(|| node.drops(&peer.id, "wrong data"));
    let honest = Server::new(&[&forged], Manner::Honest).serve(HONEST).await;
    let _honest_peer = Peer::meet(&node, HONEST, vec![honest.port]).await;
    tokio::task::block_in_place(|| {
        node.wait("the file comes from the honest peer", |node| {
            is_whole(&node.get(&path(&forged)), whole).then_some(())
        });
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_to_have_a_file_and_gives_nothing_is_not_asked_on_and_on() {
    let node = Node::start();
    let forged = model(5);
    let whole = content(&forged);
    let boaster = Server::new(&[&forged], Manner::Nothing).telling(Tale::HasAll);
    let boaster = boaster.serve(LIAR).await;
    let mut peer = Peer::meet(&node, LIAR, vec![boaster.port]).await;
    publish(&node, &mut peer, &forged).await;
    let begin = Instant::now();
    let (before, target, getter) = (boaster.asked(), path(&forged), node.getter());
    let answer = tokio::task::spawn_blocking(move || getter.get(&target)).await;
    assert!(!is_whole(&answer.unwrap(), whole), "nobody has it");
    let asked = boaster.asked() - before;
    let most = 20 + 4 * begin.elapsed().as_secs();
    assert!(boaster.served() > 0, "it was asked");
    assert!(
        asked <= most,
        "asked {asked} times in {:?}",
        begin.elapsed()
    );
    let honest = Server::new(&[&forged], Manner::Honest).serve(HONEST).await;
    let _honest_peer = Peer::meet(&node, HONEST, vec![honest.port]).await;
    tokio::task::block_in_place(|| {
        node.wait("the file comes from the honest peer", |node| {
            is_whole(&node.get(&path(&forged)), whole).then_some(())
        });
        node.is_well();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_files_sha256_makes_the_commit_invalid() {
    let node = Node::start();
    let bytes = weights(3, 3_000_000);
    let file = File {
        sha256: Some(forge::sha256(b"another file's bytes")),
        ..File::new("model.safetensors", bytes.clone())
    };
    let forged = forge::repository(&SecretKey::from_seed(LIAR), "model", &[file]);
    let server = Server::new(&[&forged], Manner::Honest).serve(LIAR).await;
    let mut peer = Peer::meet(&node, LIAR, vec![server.port]).await;
    publish(&node, &mut peer, &forged).await;
    let target = path(&forged);
    for _ in 0..2 {
        let (status, body) = get(&node, &target);
        assert!(
            status >= 400 || (status == 200 && body.len() < bytes.len()),
            "{status}: {} bytes under a hash that is not theirs",
            body.len()
        );
    }
    tokio::task::block_in_place(|| {
        node.wait("the commit is known to be invalid", |node| {
            (node.get(&target).0 >= 400).then_some(())
        });
        let said = node.log().matches("invalid").count();
        assert!(said >= 1, "{}", node.log());
        // A node that never fetched it hears what this one found, and shows how often it was said.
        let third = Node::start_beside(&[&node]);
        third.shows(&forged.repo, &forged.commit);
        third.wait("the attestation came", |third| {
            let info = third.json(&["info", &forged.repo]);
            (info["attestations"] == 1).then_some(())
        });
        assert_eq!(node.json(&["info", &forged.repo])["attestations"], 1);
        // An honest commit of the same bytes is not hurt by it.
        let folder = node.folder("honest", &[("model.safetensors", &bytes)]);
        let pushed = node.json(&["push", folder.to_str().unwrap(), "honest"]);
        let repo = pushed["repo"].as_str().unwrap();
        let honest = node.get(&format!("/{repo}/resolve/main/model.safetensors"));
        assert!(is_whole(&honest, &bytes));
        node.is_well();
        let invalid = &node.json(&["verify"])["invalid"];
        assert_eq!(invalid[0]["file"], "model.safetensors", "{invalid}");
    });
}
