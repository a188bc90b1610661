//! Two nodes: one publishes, the other is told, fetches and writes out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{LOOPBACK, Up, World, text};

/// Longest time until something that takes a second has happened.
const DEADLINE: Duration = Duration::from_secs(30);
const CARD: &[u8] = b"---\nlicense: mit\n---\n# A model\n";

fn large() -> Vec<u8> {
    (0..3_000_000_u32)
        .flat_map(|n| n.to_le_bytes()[..1].to_vec())
        .collect()
}

/// A node that holds a model, the model's folder, and the repository's whole name.
fn publisher(world: &World) -> (Up, PathBuf, String) {
    let folder = world.folder(
        "model",
        &[
            ("README.md", CARD),
            ("config.json", b"{\"model_type\": \"bert\"}\n"),
            ("sub/deep/model.bin", &large()),
            ("sub/notes.txt", b"notes\n"),
        ],
    );
    let up = world.up();
    let pushed = world
        .run(&["push", text(&folder), "mymodel", "--json"])
        .json();
    (up, folder, pushed["repo"].as_str().unwrap().to_owned())
}

#[track_caller]
fn wait_for(what: &str, mut look: impl FnMut() -> Option<Value>) -> Value {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Files below a folder, as paths from it.
fn files(folder: &Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(text(path.strip_prefix(folder).unwrap()).to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn one_node_pulls_what_the_other_published() {
    let (one, two) = (World::new(), World::new());
    let (_first, folder, repo) = publisher(&one);
    let _second = two.up_with(&["--peer", &one.address()]);
    let to = two.path("out");
    let pulled = two
        .run(&["pull", &repo, "--to", text(&to), "--json"])
        .json();
    assert_eq!(pulled["files"], 5, "with .gitattributes: {pulled}");
    assert_eq!(pulled["written_files"], 5);
    let info = one.run(&["info", &repo, "--json"]).json();
    for member in ["commit", "signer"] {
        assert_eq!(pulled[member], info[member]);
    }
    for file in [
        "README.md",
        "config.json",
        "sub/deep/model.bin",
        "sub/notes.txt",
    ] {
        assert_eq!(
            std::fs::read(to.join(file)).unwrap(),
            std::fs::read(folder.join(file)).unwrap(),
            "{file}"
        );
    }
    // It says from whom, and both ends count the same peer.
    let peer = one.run(&["status", "--json"]).json()["peer_id"].clone();
    assert_eq!(pulled["peers"][0]["peer_id"], peer, "{pulled}");
    assert!(
        pulled["peers"][0]["bytes"].as_u64().unwrap() >= 3_000_000,
        "{pulled}"
    );
    let peers = two.run(&["peers", "--json"]).json();
    assert_eq!(peers["peers"].as_array().unwrap().len(), 1);
    for member in [
        "peer_id",
        "key",
        "address",
        "agent",
        "connected_s",
        "inbound",
        "rtt_ms",
    ] {
        assert!(peers["peers"][0].get(member).is_some(), "{peers}");
    }
    assert_eq!(peers["peers"][0]["inbound"], false);
    assert!(peers["peers"][0]["taken_bytes"].as_u64().unwrap() >= 3_000_000);
    assert!(two.run(&["peers"]).ok().contains(peer.as_str().unwrap()));

    let status = two.run(&["status", "--json"]).json();
    assert_eq!(status["peers"], 1);
    assert_eq!(status["transfers"], json!([]));
    assert_eq!(status["cache"]["files"], 1, "{status}");
    assert_eq!(status["cache"]["bytes"], 3_000_000);
    assert!(status["cache"]["bound"].is_u64());
    assert!(
        status["listen_addrs"][0]
            .as_str()
            .unwrap()
            .contains("/p2p/12D3"),
        "{status}"
    );

    // Again: nothing to fetch, nothing to write; pinned, it is no cache.
    let told = two.run(&["pull", &repo, "--to", text(&to)]).ok();
    assert!(told.contains("all here already"), "{told}");
    assert!(
        told.contains("(0 files written, 5 files there already)"),
        "{told}"
    );
    assert!(
        told.contains(&format!("`cairn pin {repo}` keeps it")),
        "{told}"
    );
    two.run(&["pin", &repo]).ok();
    let status = two.run(&["status", "--json"]).json();
    assert_eq!(status["cache"]["files"], 0, "{status}");
    let verified = two.run(&["verify", "--json"]).json();
    assert_eq!(verified["damaged"], json!([]));
}

#[test]
fn a_pull_needs_no_running_node_and_goes_on_where_it_was() {
    let (one, two) = (World::new(), World::new());
    let (_first, folder, repo) = publisher(&one);
    let address = one.address();
    let to = two.path("out");
    let pull = |arguments: &[&str]| {
        let all = [&["pull", &repo, "--peer", &address, "--json"], arguments].concat();
        let mut command = two.command(&all);
        command
            .env("CAIRN_LISTEN", LOOPBACK)
            .env("CAIRN_MDNS", "false");
        super::support::Ran::of(command.output().unwrap()).json()
    };
    let pulled = pull(&["--to", text(&to), "--include", "sub/", "--exclude", "*.txt"]);
    assert_eq!(files(&to), ["sub/deep/model.bin"]);
    assert_eq!(pulled["files"], 1);
    assert_eq!(
        std::fs::read(to.join("sub/deep/model.bin")).unwrap(),
        std::fs::read(folder.join("sub/deep/model.bin")).unwrap()
    );
    let pulled = pull(&["--to", text(&to)]);
    assert_eq!(pulled["written_files"], 4, "{pulled}");
    assert!(
        pulled["fetched_bytes"].as_u64().unwrap() < 10_000,
        "{pulled}"
    );
}

#[test]
fn a_late_node_lists_what_was_published_before() {
    let (one, two) = (World::new(), World::new());
    let (_first, _, repo) = publisher(&one);
    let _second = two.up_with(&["--peer", &one.address()]);
    let listed = wait_for("the repository is not listed", || {
        let listed = two.run(&["ls", "--json"]).json();
        listed["repositories"].get(0).cloned()
    });
    assert_eq!(listed["repo"], repo.as_str());
}

#[test]
fn a_repository_that_is_not_there_is_said_with_what_to_do() {
    let world = World::new();
    let (_up, _, repo) = publisher(&world);
    let failed = world.run(&["pull", "local/absent"]).failed(1);
    assert!(
        failed.starts_with("error: repository local/absent not found\n"),
        "{failed}"
    );
    let failed = world.run(&["pull", &repo, "--include", "*.gguf"]).failed(1);
    assert!(
        failed.starts_with("error: none of the 5 files of"),
        "{failed}"
    );
    let failed = world.run(&["pull", &repo, "--include", "[a"]).failed(1);
    assert!(failed.contains("is no pattern"), "{failed}");
    let other = World::new();
    let mut command = other.command(&["pull", &repo]);
    command
        .env("CAIRN_LISTEN", LOOPBACK)
        .env("CAIRN_MDNS", "false");
    let failed = super::support::Ran::of(command.output().unwrap()).failed(1);
    assert!(
        failed.starts_with(&format!("error: repository {repo} not found\n")),
        "{failed}"
    );
    assert!(failed.contains("no peer is connected"), "{failed}");
    assert!(failed.contains("--peer /ip4/ADDRESS/tcp/22477"), "{failed}");
}
