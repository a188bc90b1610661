//! Commits that claim something wrong of bytes that the node has stored for somebody else.

use bytes::Bytes;
use cairn_protocol::key::SecretKey;
use cairn_protocol::spread::message::Message;

use super::blobs::{Manner, Server};
use super::forge::{self, File};
use super::node::Node;
use super::peer::Peer;

const LIAR: [u8; 32] = [66; 32];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_bytes_go_out_under_no_others_entity_tag() {
    let node = Node::start();
    let bytes = Bytes::from(vec![7; 3_000_000]);
    let file = File {
        sha256: Some(forge::sha256(b"another file's bytes")),
        ..File::new("model.safetensors", bytes.clone())
    };
    let forged = forge::repository(&SecretKey::from_seed(LIAR), "model", &[file]);
    let server = Server::new(&[&forged], Manner::Honest).serve(LIAR).await;
    let mut peer = Peer::meet(&node, LIAR, vec![server.port]).await;
    assert!(peer.say(&Message::Records(forged.envelopes())).await);
    tokio::task::block_in_place(|| {
        node.shows(&forged.repo, &forged.commit);
        // The node's own repository has the same bytes, and says the truth of them.
        let folder = node.folder("honest", &[("model.safetensors", &bytes)]);
        let pushed = node.json(&["push", folder.to_str().unwrap(), "honest"]);
        let honest = format!(
            "/{}/resolve/main/model.safetensors",
            pushed["repo"].as_str().unwrap()
        );
        let wrong = format!("/{}/resolve/main/model.safetensors", forged.repo);
        let (status, body) = node.get(&wrong);
        assert!(status >= 400, "{status}: {} bytes", body.len());
        let (status, body) = node.get(&honest);
        assert!(status == 200 && body == bytes);
    });
}
