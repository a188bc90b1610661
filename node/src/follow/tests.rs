//! Access, intake and findings, on whole nodes.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::time::{Duration, Instant};

use cairn_protocol::hash::{Blake3, GitOid};
use cairn_protocol::key::SecretKey;
use cairn_protocol::name::RepoKind;
use cairn_protocol::record::{Body, Header, Link, Namespace, Record, RootKeys};
use cairn_protocol::spread::Input;
use tempfile::TempDir;

use super::intake::Intake;
use crate::access::Access;
use crate::node::namespace_of;
use crate::publish::PushRequest;
use crate::repos::{EntryKind, Found, Outcome, Repo, RepoError, Walk, WrongClaim};
use crate::{Config, NetworkConfig, Node};

fn node(data: &TempDir, network: bool) -> Node {
    let network = network.then(|| NetworkConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        ..NetworkConfig::default()
    });
    Node::spawn(Config {
        network,
        ..Config::new(data.path())
    })
    .unwrap()
}

fn push(node: &Node, text: &str) -> Repo {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::fs::write(folder.path().join("a/config.json"), text).unwrap();
    let request = PushRequest {
        dir: folder.path().to_owned(),
        repo: "tiny".to_owned(),
        kind: RepoKind::Model,
        reference: "main".to_owned(),
        message: None,
    };
    node.push(&request, &mut |_| {}).unwrap();
    match node.repos().find(RepoKind::Model, "local/tiny").unwrap() {
        Found::Repo(repo) => repo,
        Found::Redirect(to) => panic!("redirected to {to}"),
    }
}

fn records(node: &Node) -> Vec<Record> {
    let mut records = Vec::new();
    let each = &mut |envelope: &[u8]| records.push(Record::parse(envelope).unwrap());
    node.inner.store.records(each).unwrap();
    records
}

fn file(repo: &Repo) -> (Blake3, crate::repos::FileEntry, GitOid) {
    let entry = repo.commit("main").unwrap().entry("a/config.json").unwrap();
    let entry = entry.unwrap();
    let EntryKind::File(file) = entry.kind else {
        panic!("a file");
    };
    (file.blake3.unwrap(), file, entry.oid)
}

#[test]
fn peers_may_read_what_a_shown_repository_reaches_and_nothing_that_is_only_stored() {
    let data = TempDir::new().unwrap();
    let node = node(&data, true);
    let mut batch = node.inner.store.batch();
    let staged = batch.put("staged, and of no commit".into());
    batch.commit().unwrap();
    let repo = push(&node, "{}");
    let (content, ..) = file(&repo);
    let peer = node.inner.keys.node.public();
    let begun = Instant::now();
    while !node.inner.access.may_read(&peer, &content) {
        assert!(begun.elapsed() < Duration::from_secs(30), "in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(node.inner.access.may_read(&peer, &repo.refs_hash()));
    assert!(!node.inner.access.may_read(&peer, &staged));
    assert!(!node.inner.access.may_read(&peer, &Blake3::of(b"absent")));
}

#[test]
fn a_walk_names_what_is_missing_goes_on_with_it_and_refuses_what_is_wrong() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (node(&from, false), node(&to, false));
    let repo = push(&from, "{}");
    let access = Access::default();
    let store = to.inner.store.clone();
    let mut walk = Walk::new(store.clone(), access.clone(), repo.refs_hash());
    let mut rounds = 0;
    loop {
        match walk.go_on(&|| false).unwrap() {
            Outcome::Complete => break,
            Outcome::Wrong(reason) => panic!("{reason}"),
            Outcome::Missing(missing) => {
                let mut batch = store.batch();
                for hash in missing {
                    batch.put(from.inner.store.blob(&hash).unwrap());
                }
                batch.commit().unwrap();
            }
        }
        rounds += 1;
        assert!(rounds < 10, "each round fetches a level");
    }
    assert!(
        rounds >= 4,
        "refs, commit entry, commit and manifest, folder"
    );
    let peer = to.inner.keys.node.public();
    let (content, ..) = file(&repo);
    assert!(
        !access.may_read(&peer, &content),
        "not before it is published"
    );
    walk.publish();
    assert!(access.may_read(&peer, &content));

    // The same commit entry under another commit's id.
    let refs = from.inner.repos.reader().refs(&repo.refs_hash()).unwrap();
    let mut wrong = refs;
    for target in wrong.0.values_mut() {
        target.oid = GitOid::from_bytes([9; 20]);
    }
    let mut batch = store.batch();
    let wrong = batch.put(wrong.encode().into());
    batch.commit().unwrap();
    let mut walk = Walk::new(store, access, wrong);
    let outcome = walk.go_on(&|| false).unwrap();
    assert!(matches!(outcome, Outcome::Wrong(_)), "{outcome:?}");
}

#[test]
fn records_are_logged_only_once_they_wait_no_more() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (node(&from, false), node(&to, false));
    let repo = push(&from, "{}");
    let peer = from.inner.keys.node.public();
    let all = records(&from);
    let mut intake = Intake::new(to.inner.store.clone(), to.inner.repos.clone());
    let offer = |intake: &mut Intake, record: &Record| {
        intake.take(vec![(Some(peer), Box::new(record.clone()))])
    };
    let logged = || records(&to).len();
    let before = logged();
    for record in all.iter().skip(1).rev() {
        let taken = offer(&mut intake, record);
        assert!(matches!(taken.answers[..], [Input::NotNow(_)]));
        assert_eq!(logged(), before, "anybody could have made it up");
    }
    let taken = offer(&mut intake, &all[0]);
    assert_eq!(
        taken.answers.len(),
        all.len(),
        "with all that waited for it"
    );
    assert_eq!(logged(), before + all.len());
    assert!(taken.touched.iter().any(|(id, _)| *id == repo.id()));
    assert!(to.inner.repos.pending(&repo.id()).is_some());
    assert!(
        to.inner.repos.get(&repo.id()).is_none(),
        "its metadata is not here"
    );
    let again = offer(&mut intake, &all[0]);
    assert!(matches!(again.answers[..], [Input::Taken(_)]));
    assert_eq!(logged(), before + all.len(), "nothing is logged twice");
}

#[test]
fn a_wrong_claim_makes_its_commits_invalid_over_a_restart_and_no_others() {
    let data = TempDir::new().unwrap();
    let first = node(&data, false);
    let repo = push(&first, "{}");
    assert_eq!(repo.invalid().unwrap(), None);
    let (blake3, entry, oid) = file(&repo);
    let claim = WrongClaim {
        path: "a/config.json".to_owned(),
        blake3,
        size: entry.size,
        sha256: entry.sha256,
        git: Some(oid),
        digest: "sha256".to_owned(),
    };
    let id = repo.id();
    let journaled = crate::journal::Entry::Invalid {
        repository: id,
        path: claim.path.clone(),
        blake3,
        size: claim.size,
        sha256: claim.sha256,
        git: claim.git,
        digest: claim.digest.clone(),
    };
    first.inner.journal.append(journaled).unwrap();
    let generation = first.repos().generation();
    first.inner.repos.mark_wrong(id, claim.clone());
    assert!(first.repos().generation() > generation);
    assert!(!first.inner.repos.is_new_wrong_claim(&id, &claim));
    drop((repo, first));
    let second = node(&data, false);
    let repo = second.inner.repos.get(&id).unwrap();
    assert!(repo.invalid().unwrap().unwrap().contains("sha256"));
    let refused = repo.commit("main").unwrap().entry("a/config.json");
    assert!(matches!(refused, Err(RepoError::Invalid(_))), "{refused:?}");
    let repo = push(&second, "{\"other\": 1}");
    assert_eq!(
        repo.invalid().unwrap(),
        None,
        "the next commit makes no such claim"
    );
}

/// A peer that speaks of nothing but the look-up table knows a head that this node has not heard of.
#[test]
fn a_head_of_the_look_up_table_is_in_force_once_a_peer_told_what_it_builds_on() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (from, to) = (node(&from, false), node(&to, true));
    let first = push(&from, "{}");
    let mut intake = Intake::new(to.inner.store.clone(), to.inner.repos.clone());
    let known = records(&from)
        .into_iter()
        .map(|record| (None, Box::new(record)));
    intake.take(known.collect());
    let newer = push(&from, "{\"newer\": true}");
    let head = from.inner.store.record(&newer.head()).unwrap().unwrap();
    let network = to.inner.network.as_ref().unwrap();
    let folder = TempDir::new().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (events, _heard) = tokio::sync::mpsc::channel(64);
    let config = crate::swarm::SwarmConfig {
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        peers: to.listen_addrs(),
        mdns: false,
        book: folder.path().join("peers"),
    };
    let key = cairn_protocol::key::SecretKey::from_seed([7; 32]);
    let spawned = crate::swarm::Swarm::spawn(config, &key, events, stop.clone());
    let table = network.handle().block_on(spawned).unwrap();
    table.announce(newer.id(), head);
    let (id, version) = (newer.id(), newer.version());
    let begun = Instant::now();
    let until = |what: &str, holds: &mut dyn FnMut() -> bool| {
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(30), "in vain: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let look_up = || network.handle().block_on(network.follower.look_up(id));
    until("the table answers", &mut || look_up() == Some(version));
    assert!(first.version() < version);
    let logged = |record: &Record| records(&to).iter().any(|known| known.id() == record.id());
    let mut others = records(&from);
    others.retain(|record| !logged(record));
    let head = others.iter().position(|record| record.id() == newer.head());
    let head = others.remove(head.unwrap());
    assert!(
        !others.is_empty() && !logged(&head),
        "it waits for its change"
    );
    for other in others {
        let taken = network.follower.looked_up.try_send(Box::new(other));
        taken.unwrap();
    }
    until("it is in force", &mut || {
        let pending = to.inner.repos.pending(&id);
        pending.is_some_and(|pending| pending.head == newer.head())
    });
    until("it is logged", &mut || logged(&head));
    stop.cancel();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_node_restored_from_a_backup_shows_what_it_lost_once_that_is_whole_and_starts_again() {
    let (data, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = node(&data, false);
    let before = push(&first, "{}");
    drop(first);
    copy(data.path(), backup.path());
    let now = node(&data, false);
    let after = push(&now, "{\"newer\": 1}");
    let restored = node(&backup, false);
    let peer = now.inner.keys.node.public();
    let offered = records(&now).into_iter();
    let offered = offered
        .map(|record| (Some(peer), Box::new(record)))
        .collect();
    let repos = restored.inner.repos.clone();
    Intake::new(restored.inner.store.clone(), repos.clone()).take(offered);
    let id = before.id();
    let shown = |node: &Node| node.inner.repos.get(&id).unwrap().head();
    assert_eq!(shown(&restored), before.head(), "half a commit is here");
    let pending = repos.pending(&id).unwrap();
    assert_eq!(pending.head, after.head());
    drop((repos, restored));

    let restored = node(&backup, false);
    assert_eq!(shown(&restored), before.head());
    let (store, repos) = (restored.inner.store.clone(), restored.inner.repos.clone());
    let mut walk = Walk::new(store.clone(), Access::default(), pending.refs);
    while let Outcome::Missing(missing) = walk.go_on(&|| false).unwrap() {
        let mut batch = store.batch();
        for hash in missing {
            batch.put(now.inner.store.blob(&hash).unwrap());
        }
        batch.commit().unwrap();
    }
    repos.complete(id, pending.head);
    assert_eq!(shown(&restored), after.head());
    assert_eq!(repos.pending(&id), None);
    repos.complete(id, before.head());
    assert_eq!(shown(&restored), after.head(), "never back");
    drop((store, repos, walk, restored));

    let restored = node(&backup, false);
    assert_eq!(shown(&restored), after.head());
    let newest = push(&restored, "{\"newest\": 1}");
    assert_eq!(shown(&restored), newest.head());
    assert_eq!(restored.inner.repos.pending(&id), None);
}

#[test]
fn a_home_that_signed_twice_after_a_restore_starts_and_serves_what_was_agreed() {
    let (data, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let first = node(&data, false);
    let before = push(&first, "{}");
    drop(first);
    copy(data.path(), backup.path());
    let now = node(&data, false);
    push(&now, "{\"one\": 1}");
    let restored = node(&backup, false);
    push(&restored, "{\"other\": 1}");
    let peer = now.inner.keys.node.public();
    let offered = records(&now).into_iter();
    let offered = offered
        .map(|record| (Some(peer), Box::new(record)))
        .collect();
    let repos = restored.inner.repos.clone();
    Intake::new(restored.inner.store.clone(), repos.clone()).take(offered);
    drop((repos, restored));
    let restored = node(&backup, false);
    let shown = restored.inner.repos.get(&before.id()).unwrap();
    assert_eq!(shown.head(), before.head());
}

#[test]
fn a_namespace_is_this_nodes_own_only_if_its_root_key_signed_it() {
    let (ours, theirs) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let begin = |signer: &SecretKey| {
        let body = Body::Namespace(Namespace {
            root: RootKeys {
                keys: vec![ours.public(), theirs.public()],
                threshold: 1,
            },
            recovery: None,
            delegated: Vec::new(),
            home: theirs.public(),
            claims: Vec::new(),
            carried: None,
        });
        let header = Header {
            chain: Some(Link { seq: 1, prev: None }),
            ..Header::new(1, 1)
        };
        Record::sign(header, body, &[signer]).unwrap()
    };
    assert!(namespace_of(&begin(&ours), &ours.public()).is_some());
    assert_eq!(namespace_of(&begin(&theirs), &ours.public()), None);
}
