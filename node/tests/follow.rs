//! Nodes that follow each other, whole, over real sockets on this machine.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cairn_node::publish::{PushRequest, Pushed};
use cairn_node::repos::{Commit, Entry, EntryKind, Found, Repo};
use cairn_node::store::StoreError;
use cairn_node::{Config, NetworkConfig, Node};
use cairn_protocol::name::RepoKind;
use tempfile::TempDir;

/// Long enough for a loaded machine; nothing here takes it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(data: &Path, peers: &[&Node]) -> Config {
    let peers = peers.iter().flat_map(|node| node.listen_addrs());
    Config {
        network: Some(NetworkConfig {
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            peers: peers.collect(),
            ..NetworkConfig::default()
        }),
        ..Config::new(data)
    }
}

fn spawn(data: &TempDir, peers: &[&Node]) -> Node {
    Node::spawn(config(data.path(), peers)).unwrap()
}

fn data() -> TempDir {
    TempDir::new().unwrap()
}

/// Waits until something is there.
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = data();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn model(text: &str) -> TempDir {
    folder(&[
        ("config.json", text.as_bytes()),
        (
            "README.md",
            b"---\nlicense: mit\npipeline_tag: fill-mask\n---\n# Tiny\n",
        ),
        ("weights/model.safetensors", &vec![7; 300_000]),
    ])
}

fn push(node: &Node, repo: &str, folder: &TempDir) -> Pushed {
    let request = PushRequest {
        dir: folder.path().to_owned(),
        repo: repo.to_owned(),
        kind: RepoKind::Model,
        reference: "main".to_owned(),
        message: None,
    };
    node.push(&request, &mut |_| {}).unwrap()
}

fn find(node: &Node, id: &str) -> Option<Repo> {
    match node.repos().find(RepoKind::Model, id) {
        Ok(Found::Repo(repo)) => Some(repo),
        _ => None,
    }
}

/// Waits until a node shows a repository at what was pushed.
fn shown(node: &Node, pushed: &Pushed) -> Repo {
    wait(&format!("{} at seq {}", pushed.repo, pushed.seq), || {
        find(node, &pushed.repo).filter(|repo| repo.version().1 >= pushed.seq)
    })
}

fn tree(commit: &Commit) -> Vec<Entry> {
    commit.tree("", true, None, 1000).unwrap()
}

/// The two show the same, down to the last entry.
fn same(one: &Node, other: &Node, id: &str) {
    let (one, other) = (find(one, id).unwrap(), find(other, id).unwrap());
    assert_eq!(one.id(), other.id());
    assert_eq!(one.version(), other.version());
    assert_eq!(one.signer(), other.signer());
    assert_eq!(one.refs().unwrap(), other.refs().unwrap());
    let (one, other) = (one.commit("main").unwrap(), other.commit("main").unwrap());
    assert_eq!(one.info(), other.info());
    assert_eq!(tree(&one), tree(&other));
    assert_eq!(
        one.log(0, 100).unwrap(),
        other.log(0, 100).unwrap(),
        "the whole history"
    );
}

fn files(commit: &Commit) -> Vec<cairn_protocol::hash::Blake3> {
    let entries = tree(commit).into_iter();
    entries
        .filter_map(|entry| match entry.kind {
            EntryKind::File(file) => file.blake3,
            EntryKind::Directory => None,
        })
        .collect()
}

#[test]
fn what_one_node_publishes_another_lists_with_its_history_and_card_but_without_its_contents() {
    let (a_data, b_data) = (data(), data());
    let a = spawn(&a_data, &[]);
    let b = spawn(&b_data, &[&a]);
    let first = push(&a, "tiny", &model("one"));
    shown(&b, &first);
    same(&a, &b, &first.repo);
    let second = push(&a, "tiny", &model("two"));
    assert_eq!(second.seq, 2);
    let repo = shown(&b, &second);
    same(&a, &b, &second.repo);
    assert_eq!(repo.card().license.as_deref(), Some("mit"));
    assert_eq!(repo.commit("main").unwrap().count().unwrap(), 2);
    let entry = repo.commit("main").unwrap();
    let entry = entry.entry("weights/model.safetensors").unwrap().unwrap();
    let EntryKind::File(file) = entry.kind else {
        panic!("a file");
    };
    let absent = b.content(&file.blake3.unwrap());
    assert!(matches!(absent, Err(StoreError::Absent { .. })));
}

#[test]
fn a_node_that_comes_later_or_was_away_catches_up_and_shows_it_after_a_restart_alone() {
    let (a_data, b_data) = (data(), data());
    let a = spawn(&a_data, &[]);
    let early: Vec<Pushed> = (0..5)
        .map(|n| push(&a, &format!("repo-{n}"), &model(&format!("{n}"))))
        .collect();
    let b = spawn(&b_data, &[&a]);
    for pushed in &early {
        shown(&b, pushed);
        same(&a, &b, &pushed.repo);
    }
    drop(b);
    let missed = push(&a, "repo-0", &model("missed"));
    let new = push(&a, "new", &model("new"));
    let b = spawn(&b_data, &[&a]);
    assert!(
        find(&b, &missed.repo).is_some_and(|repo| repo.version().1 >= 1),
        "what was whole is shown at once"
    );
    for pushed in [&missed, &new] {
        shown(&b, pushed);
        same(&a, &b, &pushed.repo);
    }
    drop((a, b));
    let alone = Node::spawn(Config::new(b_data.path())).unwrap();
    assert_eq!(find(&alone, &missed.repo).unwrap().version().1, 2);
    drop(alone);
    // The view that remembers is gone: the start finds what is whole by walking.
    fs::remove_dir_all(b_data.path().join("views")).unwrap();
    let alone = Node::spawn(Config::new(b_data.path())).unwrap();
    assert_eq!(find(&alone, &missed.repo).unwrap().version().1, 2);
}

#[test]
fn what_is_followed_is_passed_on_to_those_who_never_met_its_publisher() {
    let (a_data, b_data, c_data) = (data(), data(), data());
    let a = spawn(&a_data, &[]);
    let b = spawn(&b_data, &[&a]);
    let pushed = push(&a, "tiny", &model("one"));
    shown(&b, &pushed);
    drop(a);
    let c = spawn(&c_data, &[&b]);
    shown(&c, &pushed);
    same(&b, &c, &pushed.repo);
}

#[test]
fn a_restart_in_the_middle_of_completing_ends_with_the_whole_head() {
    let (a_data, b_data) = (data(), data());
    let a = spawn(&a_data, &[]);
    let many: Vec<(String, Vec<u8>)> = (0..400)
        .map(|n| (format!("d{n}/f"), format!("{n}").into_bytes()))
        .collect();
    let many: Vec<(&str, &[u8])> = many
        .iter()
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
        .collect();
    let pushed = push(&a, "many", &folder(&many));
    for n in 0..6 {
        let b = spawn(&b_data, &[&a]);
        // Each time a little later, so that some stop before, some within, and some after.
        std::thread::sleep(Duration::from_millis(n * 30));
        drop(b);
    }
    let b = spawn(&b_data, &[&a]);
    shown(&b, &pushed);
    same(&a, &b, &pushed.repo);
}

#[test]
fn eight_nodes_list_a_new_head_within_a_second() {
    let folders: Vec<TempDir> = (0..8).map(|_| data()).collect();
    let mut nodes: Vec<Node> = Vec::new();
    for folder in &folders {
        let peers: Vec<&Node> = nodes.iter().rev().take(3).collect();
        let node = spawn(folder, &peers);
        nodes.push(node);
    }
    let warm = push(&nodes[0], "warm", &model("warm"));
    for node in &nodes {
        shown(node, &warm);
    }
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        let from = round * 3;
        let pushed = push(&nodes[from], "tiny", &model(&format!("{round}")));
        let begun = Instant::now();
        for node in &nodes {
            shown(node, &pushed);
        }
        let took = begun.elapsed();
        println!("from node {from}: listed by all eight after {took:?}");
        slowest = slowest.max(took);
        for node in &nodes {
            same(&nodes[from], node, &pushed.repo);
        }
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn verify_and_gc_take_what_is_not_here_for_absent_and_not_for_damaged() {
    use cairn_node::control::{Request, execute};
    let (a_data, b_data) = (data(), data());
    let a = spawn(&a_data, &[]);
    let b = spawn(&b_data, &[&a]);
    let first = push(&a, "tiny", &model("one"));
    shown(&b, &first);
    let second = push(&a, "tiny", &model("two"));
    let repo = shown(&b, &second);
    let contents = files(&repo.commit("main").unwrap());
    execute(&b, Request::Gc { dry_run: false }, &mut |_| {}).unwrap();
    let report = execute(&b, Request::Verify { repo: None }, &mut |_| {}).unwrap();
    assert_eq!(report["damaged"], serde_json::json!([]), "{report}");
    assert!(report["absent"].as_u64().unwrap() >= 2, "{report}");
    assert!(contents.len() >= 3);
    same(&a, &b, &second.repo);
    let third = push(&a, "tiny", &model("three"));
    shown(&b, &third);
    same(&a, &b, &third.repo);
}
