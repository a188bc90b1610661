//! Power cuts at every instant of two pushes, and a disk that refuses any one call: no acknowledged commit is
//! lost, and none is half visible.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "support/bytes.rs"]
mod bytes_support;
#[allow(dead_code, reason = "each of its users needs a part of it")]
#[path = "support/replay.rs"]
mod replay;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes_support::noise;
use cairn_node::control::{Request, execute};
use cairn_node::publish::PushRequest;
use cairn_node::repos::{Commit, EntryKind, Found};
use cairn_node::store::Content;
use cairn_node::{Config, Node};
use cairn_protocol::hash::GitOid;
use cairn_protocol::name::RepoKind;
use replay::recorder::{Fault, Recorder, Syncs};
use replay::{Ledger, fail_each_call, replay};

type Version = BTreeMap<String, Vec<u8>>;

/// A commit that was acknowledged, and which version of the folder it is.
#[derive(Debug, Clone)]
struct Fact {
    commit: GitOid,
    version: usize,
}

/// A folder with a flat file, a small LFS file and a text; and what it is changed to.
fn versions() -> [Version; 2] {
    let first = Version::from([
        (
            "README.md".to_owned(),
            b"---\nlicense: mit\n---\n# Tiny\n".to_vec(),
        ),
        ("model.safetensors".to_owned(), noise(1, 90_000)),
        ("vocab.bin".to_owned(), noise(2, 3_000)),
    ]);
    let mut second = first.clone();
    second.insert("vocab.bin".to_owned(), noise(3, 70_000));
    second.insert("sub/config.json".to_owned(), b"{}\n".to_vec());
    [first, second]
}

/// Keys and format are made once, by the real file system, before there is anything to lose.
struct Identity(tempfile::TempDir);

impl Identity {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        drop(Node::spawn(config(made.0.path())).unwrap());
        made
    }

    fn put(&self, data: &Path) {
        fs::create_dir_all(data.join("keys")).unwrap();
        for name in ["format", "keys/node.key", "keys/root.key"] {
            fs::copy(self.0.path().join(name), data.join(name)).unwrap();
        }
    }
}

fn config(data: &Path) -> Config {
    // No views, as if they were lost every time.
    Config {
        view_cache_bytes: 0,
        ..Config::new(data)
    }
}

fn work(identity: &Identity, recorder: &Arc<Recorder>, data: &Path, ledger: &mut Ledger<Fact>) {
    identity.put(data);
    let spawn = || Node::spawn_on(config(data), Arc::clone(recorder) as _);
    // A fault strikes once: the second attempt opens, unless the process would have ended.
    let Ok(node) = spawn().or_else(|_| spawn()) else {
        assert!(recorder.is_dead(), "not opened after one fault");
        return;
    };
    for (number, version) in versions().iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in version {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let request = PushRequest {
            dir: folder.path().to_owned(),
            repo: "tiny".to_owned(),
            kind: RepoKind::Model,
            reference: "main".to_owned(),
            message: None,
        };
        let push = || node.push(&request, &mut |_| {});
        match push().or_else(|_| push()) {
            Ok(pushed) => {
                ledger.acknowledge(Fact {
                    commit: pushed.commit,
                    version: number,
                });
            }
            Err(error) => assert!(recorder.is_dead(), "not usable after one fault: {error}"),
        }
    }
}

fn files(node: &Node, commit: &Commit) -> Result<Version, String> {
    let tree = commit
        .tree("", true, None, 99)
        .map_err(|error| error.to_string())?;
    let mut found = Version::new();
    for entry in tree {
        let EntryKind::File(file) = entry.kind else {
            continue;
        };
        let hash = file.blake3.ok_or("a file without a hash")?;
        let bytes = match node
            .content(&hash)
            .map_err(|error| format!("{}: {error}", entry.path))?
        {
            Content::Small(bytes) => bytes.to_vec(),
            Content::Flat(flat) => fs::read(flat.path).map_err(|error| error.to_string())?,
        };
        found.insert(entry.path, bytes);
    }
    found.remove(".gitattributes").ok_or("no .gitattributes")?;
    Ok(found)
}

fn check(identity: &Identity, data: &Path, facts: &[&Fact]) -> Result<(), String> {
    identity.put(data);
    let node = Node::spawn(config(data)).map_err(|error| format!("not opened: {error:?}"))?;
    let versions = versions();
    for repo in node.repos().list(RepoKind::Model) {
        let commit = repo
            .commit("main")
            .map_err(|error| format!("half visible: {error}"))?;
        for info in commit.log(0, 9).map_err(|error| error.to_string())? {
            let commit = repo
                .commit(&info.oid.to_hex())
                .map_err(|error| error.to_string())?;
            let found = files(&node, &commit).map_err(|error| format!("half visible: {error}"))?;
            if !versions.contains(&found) {
                return Err(format!("commit {} is none that was pushed", info.oid));
            }
        }
    }
    for fact in facts {
        let Ok(Found::Repo(repo)) = node.repos().find(RepoKind::Model, "local/tiny") else {
            return Err("the repository is lost".to_owned());
        };
        let commit = repo
            .commit(&fact.commit.to_hex())
            .map_err(|error| format!("lost: {error}"))?;
        if files(&node, &commit)? != versions[fact.version] {
            return Err(format!("commit {} has other files", fact.commit));
        }
    }
    let verified = execute(&node, Request::Verify { repo: None }, &mut |_| {})
        .map_err(|failure| format!("{failure:?}"))?;
    if verified["damaged"] != serde_json::json!([]) {
        return Err(format!("not clean: {}", verified["damaged"]));
    }
    let temporary = fs::read_dir(data.join("tmp")).map_or(0, Iterator::count);
    if temporary > 0 {
        return Err(format!("{temporary} temporary files left"));
    }
    Ok(())
}

fn run(syncs: Syncs) -> replay::Outcome {
    let identity = Identity::new();
    replay(
        syncs,
        &|recorder, data, ledger| work(&identity, recorder, data, ledger),
        &|data, facts| check(&identity, data, facts),
    )
}

#[test]
fn no_power_cut_during_a_push_loses_an_acknowledged_commit_or_shows_half_of_one() {
    let outcome = run(Syncs::Kept);
    println!("{} calls, {} images", outcome.calls, outcome.images);
    assert!(outcome.images > 100, "{} images", outcome.images);
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
}

#[test]
fn without_its_syncs_the_same_pushes_lose_commits() {
    let outcome = run(Syncs::Without(|_| true));
    assert!(
        !outcome.failures.is_empty(),
        "the images show nothing of missing syncs"
    );
}

#[test]
fn any_one_refused_call_loses_nothing_and_the_node_goes_on() {
    let identity = Identity::new();
    for fault in [Fault::Io, Fault::Full] {
        let outcome = fail_each_call(
            fault,
            &|recorder, data, ledger| work(&identity, recorder, data, ledger),
            &|data, facts| check(&identity, data, facts),
        );
        println!(
            "{fault:?}: {} calls, {} images",
            outcome.calls, outcome.images
        );
        assert!(outcome.calls > 30, "{} calls", outcome.calls);
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    }
}
