//! Publishing and reading back, through the node's public face.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use cairn_node::control::{Request, execute};
use cairn_node::publish::{PublishError, PushRequest, Pushed};
use cairn_node::repos::{Commit, EntryKind, Found, Repo, RepoError};
use cairn_node::{Config, Node, SpawnError};
use cairn_protocol::name::RepoKind;
use tempfile::TempDir;

struct Fixture {
    data: TempDir,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let fixture = Self {
            data: TempDir::new().unwrap(),
            folder,
        };
        fixture.write("config.json", b"{\"model_type\": \"bert\"}\n");
        fixture.write(
            "README.md",
            b"---\nlicense: mit\ntags:\n- tiny\npipeline_tag: fill-mask\n---\n# Tiny\n",
        );
        fixture.write("model.safetensors", &vec![7; 300_000]);
        fixture.write("sub/deep/\u{e9}t\u{e9}.txt", b"summer\n");
        fixture.write("sub/empty", b"");
        fixture
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn node(&self) -> Node {
        Node::spawn(Config::new(self.data.path())).unwrap()
    }

    fn request(&self) -> PushRequest {
        PushRequest {
            dir: self.folder.path().to_owned(),
            repo: "tiny".to_owned(),
            kind: RepoKind::Model,
            reference: "main".to_owned(),
            message: Some("First\n\nMore of it".to_owned()),
        }
    }

    fn push(&self, node: &Node) -> Pushed {
        node.push(&self.request(), &mut |_| {}).unwrap()
    }
}

fn repo(node: &Node, id: &str) -> Repo {
    match node.repos().find(RepoKind::Model, id).unwrap() {
        Found::Repo(repo) => repo,
        Found::Redirect(to) => panic!("redirected to {to}"),
    }
}

fn read(node: &Node, commit: &Commit, path: &str) -> Vec<u8> {
    let EntryKind::File(file) = commit.entry(path).unwrap().unwrap().kind else {
        panic!("{path} is no file")
    };
    match node.content(&file.blake3.unwrap()).unwrap() {
        cairn_node::store::Content::Small(bytes) => bytes.to_vec(),
        cairn_node::store::Content::Flat(flat) => fs::read(flat.path).unwrap(),
    }
}

/// The commit id that git itself makes of the same files.
fn git_tree(folder: &Path, attributes: &str) -> String {
    fs::write(folder.join(".gitattributes"), attributes).unwrap();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "filter.lfs.clean=git-lfs clean -- %f"])
            .args(["-c", "filter.lfs.required=true"])
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["write-tree"])
}

#[test]
fn a_folder_becomes_a_repository_that_reads_back_also_after_a_restart() {
    let fixture = Fixture::new();
    let node = fixture.node();
    let pushed = fixture.push(&node);
    assert_eq!((pushed.files, pushed.seq, pushed.unchanged), (6, 1, false));
    assert_eq!(pushed.repo, format!("{}/tiny", node.namespace()));
    drop(node);

    let node = fixture.node();
    for id in [pushed.repo.as_str(), "local/tiny", "LOCAL/Tiny"] {
        assert_eq!(repo(&node, id).full_name(), pushed.repo);
    }
    let repo = repo(&node, &pushed.repo);
    assert_eq!(repo.default_commit().unwrap(), Some(pushed.commit));
    assert_eq!(repo.card().license.as_deref(), Some("mit"));
    assert_eq!(repo.card().pipeline_tag.as_deref(), Some("fill-mask"));
    let commit = repo.commit("main").unwrap();
    assert_eq!(commit.info().oid, pushed.commit);
    assert_eq!(
        (commit.info().title.as_str(), commit.info().message.trim()),
        ("First", "More of it")
    );
    assert_eq!(read(&node, &commit, "model.safetensors"), vec![7; 300_000]);
    assert_eq!(
        read(&node, &commit, "sub/deep/\u{e9}t\u{e9}.txt"),
        b"summer\n"
    );
    assert_eq!(read(&node, &commit, "sub/empty"), b"");
    assert_eq!(commit.entry("sub/nothing").unwrap(), None);
    assert!(matches!(
        commit.tree("config.json", false, None, 9),
        Err(RepoError::Entry(_))
    ));
    let paths: Vec<String> = commit
        .tree("", true, None, 99)
        .unwrap()
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    assert_eq!(
        paths,
        [
            ".gitattributes",
            "README.md",
            "config.json",
            "model.safetensors",
            "sub",
            "sub/deep",
            "sub/deep/\u{e9}t\u{e9}.txt",
            "sub/empty",
        ]
    );
    // Pages of any size join to the same list.
    for limit in 1..9 {
        let mut joined: Vec<String> = Vec::new();
        loop {
            let page = commit
                .tree("", true, joined.last().map(String::as_str), limit)
                .unwrap();
            if page.is_empty() {
                break;
            }
            joined.extend(page.into_iter().map(|entry| entry.path));
        }
        assert_eq!(joined, paths, "pages of {limit}");
    }
}

#[test]
fn tree_ids_are_those_of_real_git_with_lfs() {
    let fixture = Fixture::new();
    let node = fixture.node();
    let pushed = fixture.push(&node);
    let commit = repo(&node, &pushed.repo).commit("HEAD").unwrap();
    let attributes = String::from_utf8(read(&node, &commit, ".gitattributes")).unwrap();
    assert!(attributes.contains("*.safetensors filter=lfs"));
    let tree = git_tree(fixture.folder.path(), &attributes);
    assert_eq!(commit.entry("").unwrap().unwrap().oid.to_string(), tree);
}

#[test]
fn pushing_the_same_folder_again_makes_no_commit_and_changing_it_makes_one_onto_it() {
    let fixture = Fixture::new();
    let node = fixture.node();
    let first = fixture.push(&node);
    let again = fixture.push(&node);
    assert!(again.unchanged);
    assert_eq!(
        (again.commit, again.seq, again.new_bytes),
        (first.commit, 1, 0)
    );

    fixture.write("config.json", b"{}\n");
    let second = fixture.push(&node);
    assert!(!second.unchanged);
    assert_eq!(second.seq, 2);
    let repo = repo(&node, &first.repo);
    let commit = repo.commit("main").unwrap();
    assert_eq!(commit.info().parents, [first.commit]);
    assert_eq!(commit.count().unwrap(), 2);
    let log: Vec<_> = commit
        .log(0, 9)
        .unwrap()
        .into_iter()
        .map(|info| info.oid)
        .collect();
    assert_eq!(log, [second.commit, first.commit]);
    assert_eq!(commit.log(1, 9).unwrap().len(), 1);
    let changed = commit
        .last_changes(&["config.json", "README.md", "sub"])
        .unwrap();
    let changed: Vec<_> = changed.into_iter().map(|info| info.oid).collect();
    assert_eq!(changed, [second.commit, first.commit, first.commit]);
    // The old commit stays readable, by its id and by the beginning of it.
    for revision in [&first.commit.to_hex()[..], &first.commit.to_hex()[..9]] {
        let old = repo.commit(revision).unwrap();
        assert_eq!(
            read(&node, &old, "config.json"),
            b"{\"model_type\": \"bert\"}\n"
        );
    }
    assert!(matches!(
        repo.commit("nonesuch"),
        Err(RepoError::Revision(_))
    ));
    assert!(matches!(
        repo.commit(&"0".repeat(40)),
        Err(RepoError::Revision(_))
    ));
}

#[test]
fn settled_files_are_not_read_again() {
    let fixture = Fixture::new();
    let node = fixture.node();
    // A file counts as settled once the clock has moved past its last change: wait for that, not for a time.
    let newest = || {
        let metadata = fs::metadata(fixture.folder.path().join("sub/empty")).unwrap();
        metadata.modified().unwrap().elapsed().unwrap()
    };
    while newest().as_millis() < 100 {
        std::thread::yield_now();
    }
    fixture.push(&node);
    let again = fixture.push(&node);
    assert_eq!((again.reused_files, again.hashed_bytes), (5, 0));
    // A change that keeps size and name is seen.
    fixture.write("model.safetensors", &vec![8; 300_000]);
    let changed = fixture.push(&node);
    assert!(!changed.unchanged);
    assert_eq!(changed.hashed_bytes, 300_000);
}

#[test]
fn branches_are_separate_and_a_commit_of_another_repository_is_not_found() {
    let fixture = Fixture::new();
    let node = fixture.node();
    let main = fixture.push(&node);
    fixture.write("extra.txt", b"more\n");
    let request = PushRequest {
        reference: "feature/x".to_owned(),
        ..fixture.request()
    };
    let branch = node.push(&request, &mut |_| {}).unwrap();
    let other = PushRequest {
        repo: "local/other".to_owned(),
        ..fixture.request()
    };
    let other = node.push(&other, &mut |_| {}).unwrap();
    let repo = repo(&node, "local/tiny");
    assert_eq!(repo.commit("main").unwrap().info().oid, main.commit);
    assert_eq!(repo.commit("feature/x").unwrap().info().oid, branch.commit);
    assert_eq!(
        repo.commit("refs/heads/feature/x").unwrap().info().oid,
        branch.commit
    );
    assert_eq!(repo.refs().unwrap().len(), 2);
    if other.commit != main.commit && other.commit != branch.commit {
        assert!(matches!(
            repo.commit(&other.commit.to_hex()),
            Err(RepoError::Revision(_))
        ));
    }
}

#[test]
fn what_can_not_be_published_is_refused_by_name_and_nothing_is_shown() {
    let fixture = Fixture::new();
    let node = fixture.node();
    let refused = |bad: &str| match node.push(&fixture.request(), &mut |_| {}) {
        Err(error @ (PublishError::Path(_) | PublishError::Refused { .. })) => {
            assert!(error.to_string().contains(bad), "{error}");
        }
        other => panic!("{bad}: {other:?}"),
    };
    fixture.write("a\\b", b"");
    refused("a\\");
    fs::remove_file(fixture.folder.path().join("a\\b")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", fixture.folder.path().join("leak")).unwrap();
    refused("leak");
    fs::remove_file(fixture.folder.path().join("leak")).unwrap();
    fixture.write("config.JSON", b"");
    refused("JSON");
    assert!(node.repos().list(RepoKind::Model).is_empty());
    let empty = PushRequest {
        dir: TempDir::new().unwrap().path().join("no"),
        ..fixture.request()
    };
    assert!(matches!(
        node.push(&empty, &mut |_| {}),
        Err(PublishError::Read { .. })
    ));
    let foreign = PushRequest {
        repo: "alice/tiny".to_owned(),
        ..fixture.request()
    };
    assert!(matches!(
        node.push(&foreign, &mut |_| {}),
        Err(PublishError::Foreign(..))
    ));
}

#[test]
fn a_malformed_card_publishes_with_a_warning_that_names_the_line() {
    let fixture = Fixture::new();
    let node = fixture.node();
    fixture.write(
        "README.md",
        b"---\nlicense: mit\ntags: [a, b\nx: y\n---\n# T\n",
    );
    let pushed = fixture.push(&node);
    assert_eq!(pushed.warnings.len(), 1, "{:?}", pushed.warnings);
    assert!(
        pushed.warnings[0].starts_with("README.md line "),
        "{:?}",
        pushed.warnings
    );
}

#[test]
fn an_open_folder_is_refused_to_a_second_node() {
    let fixture = Fixture::new();
    let _node = fixture.node();
    let second = Node::spawn(Config::new(fixture.data.path()));
    assert!(
        matches!(second, Err(SpawnError::Locked { .. })),
        "{second:?}"
    );
}

#[test]
fn verify_is_clean_gc_keeps_what_is_named_and_frees_what_is_not() {
    let fixture = Fixture::new();
    let node = fixture.node();
    fixture.push(&node);
    fixture.write("model.safetensors", &vec![9; 400_000]);
    fixture.push(&node);
    // Refused at its last file, so that the first ones were stored for nothing.
    fixture.write("aaa.bin", &vec![1; 123_456]);
    std::os::unix::fs::symlink("nowhere", fixture.folder.path().join("zzz")).unwrap();
    assert!(node.push(&fixture.request(), &mut |_| {}).is_err());
    let ask = |request| execute(&node, request, &mut |_| {}).unwrap();
    let verified = ask(Request::Verify { repo: None });
    assert_eq!(verified["damaged"], serde_json::json!([]), "{verified}");
    assert_eq!(
        ask(Request::Verify {
            repo: Some("tiny".into())
        })["damaged"],
        serde_json::json!([])
    );
    let before = ask(Request::Status)["bytes"].as_u64().unwrap();
    ask(Request::Gc { dry_run: false });
    assert_eq!(ask(Request::Gc { dry_run: true })["blobs"], 0);
    assert!(ask(Request::Status)["bytes"].as_u64().unwrap() <= before);
    assert_eq!(
        ask(Request::Verify { repo: None })["damaged"],
        serde_json::json!([])
    );
    assert_eq!(
        ask(Request::Pin {
            repo: "tiny".into()
        })["pinned"],
        true
    );
    assert_eq!(
        ask(Request::Info {
            repo: "models/local/tiny".into()
        })["pinned"],
        true
    );
    drop(node);
    let node = fixture.node();
    assert!(repo(&node, "local/tiny").is_pinned());
}

#[test]
fn a_collection_reads_large_manifests_of_a_reopened_node() {
    let fixture = Fixture::new();
    for number in 0..1_500 {
        fixture.write(
            &format!("many/{number}.txt"),
            format!("{number}\n").as_bytes(),
        );
    }
    fixture.push(&fixture.node());
    let node = fixture.node();
    let swept = execute(&node, Request::Gc { dry_run: false }, &mut |_| {}).unwrap();
    assert_eq!(swept["blobs"], 0, "{swept}");
    fixture.write("one-more.txt", b"more\n");
    assert_eq!(fixture.push(&node).seq, 2);
}

#[test]
fn a_new_branch_begins_at_main_and_none_is_named_like_a_commit() {
    let fixture = Fixture::new();
    let node = fixture.node();
    let main = fixture.push(&node);
    fixture.write("extra.txt", b"more\n");
    let request = PushRequest {
        reference: "next".to_owned(),
        ..fixture.request()
    };
    node.push(&request, &mut |_| {}).unwrap();
    let commit = repo(&node, "local/tiny").commit("next").unwrap();
    assert_eq!(commit.info().parents, [main.commit]);
    let request = PushRequest {
        reference: main.commit.to_hex(),
        ..fixture.request()
    };
    assert!(matches!(
        node.push(&request, &mut |_| {}),
        Err(PublishError::Invalid(_))
    ));
}

#[test]
fn a_lost_key_is_never_replaced() {
    let fixture = Fixture::new();
    fixture.push(&fixture.node());
    for key in ["node.key", "root.key"] {
        let path = fixture.data.path().join("keys").join(key);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let refused = Node::spawn(Config::new(fixture.data.path()));
        assert!(
            matches!(refused, Err(SpawnError::Key { .. })),
            "{refused:?}"
        );
        assert!(!path.exists());
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    fixture.node();
}

#[test]
fn damage_is_named_by_file_and_healed_by_pushing_the_same_folder() {
    let fixture = Fixture::new();
    let needle = b"a needle that stands once in the log, and nowhere else in it";
    fixture.write("needle.txt", needle);
    fixture.push(&fixture.node());
    let segment = fs::read_dir(fixture.data.path().join("log"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let mut bytes = fs::read(segment.path()).unwrap();
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    bytes[at + 7] ^= 1;
    fs::write(segment.path(), bytes).unwrap();
    let node = fixture.node();
    let verify = || execute(&node, Request::Verify { repo: None }, &mut |_| {}).unwrap();
    let found = verify();
    let names = |damage: &serde_json::Value| damage["file"] == "needle.txt";
    assert!(
        found["damaged"].as_array().unwrap().iter().any(names),
        "{found}"
    );
    fixture.push(&node);
    assert_eq!(verify()["damaged"], serde_json::json!([]));
    let commit = repo(&node, "local/tiny").commit("main").unwrap();
    assert_eq!(read(&node, &commit, "needle.txt"), needle);
}
