//! The bound, over a real store with a node's own repositories seen through the eyes of another.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use cairn_protocol::accept::Ledger;
use cairn_protocol::hash::NamespaceId;
use cairn_protocol::record::Record;

use super::*;
use crate::publish::PushRequest;
use crate::{Config, Node};

const FILE_BYTES: usize = 256 << 10;

/// A node with two repositories of two files each; nobody's own to [`World::cache`].
struct World {
    folder: tempfile::TempDir,
    node: Node,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::spawn(Config::new(folder.path().join("data"))).unwrap();
        for (name, seeds) in [("one", [1, 2]), ("two", [3, 4])] {
            push(&node, folder.path(), name, seeds);
        }
        Self { folder, node }
    }

    fn repo(&self, name: &str) -> Repo {
        let repos = self.node.repos().list(RepoKind::Model);
        let ends = |repo: &Repo| repo.full_name().ends_with(&format!("/{name}"));
        repos.into_iter().find(ends).unwrap()
    }

    /// A cache of all that, for a stranger who has pinned these.
    fn cache(&self, bytes: Option<u64>, pinned: &[RepositoryId]) -> Cache {
        let store = self.node.inner.store.clone();
        let mut ledger = Ledger::default();
        store
            .records(&mut |envelope| {
                ledger.insert(&Record::parse_trusted(envelope).unwrap());
            })
            .unwrap();
        let repos = Repos::new(
            store.clone(),
            ledger,
            &std::collections::BTreeMap::new(),
            "local",
        );
        let pinned: HashSet<RepositoryId> = pinned.iter().copied().collect();
        repos.loaded(NamespaceId::from_bytes([9; 32]), pinned, &BTreeMap::new());
        let folder = self.folder.path().to_owned();
        Cache::new(
            store,
            repos,
            folder,
            bytes,
            Arc::default(),
            Staging::default(),
        )
    }

    fn here(&self, seed: u8) -> bool {
        let hash = Blake3::of(&vec![seed; FILE_BYTES]);
        self.node.inner.store.contains(&hash).unwrap()
    }
}

/// A small file that both repositories have.
const SHARED: &str = "of both";

/// One that only this repository has.
fn own(name: &str) -> String {
    format!("of {name} alone")
}

fn card(name: &str) -> String {
    format!("# {name}\n")
}

fn push(node: &Node, scratch: &Path, name: &str, seeds: [u8; 2]) {
    let dir = scratch.join(name);
    std::fs::create_dir(&dir).unwrap();
    for seed in seeds {
        std::fs::write(dir.join(format!("{seed}.bin")), vec![seed; FILE_BYTES]).unwrap();
    }
    for (file, text) in [
        ("README.md", card(name)),
        ("own.txt", own(name)),
        ("shared.txt", SHARED.to_owned()),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    let request = PushRequest {
        dir,
        repo: name.to_owned(),
        kind: RepoKind::Model,
        reference: "main".to_owned(),
        message: None,
    };
    node.push(&request, &mut |_| ()).unwrap();
}

fn wanted(repository: Option<RepositoryId>, seed: u8, size: u64) -> Wanted {
    Wanted {
        repository,
        hash: Blake3::of(&[seed]),
        size,
    }
}

#[test]
fn what_was_used_least_recently_goes_and_what_is_pinned_stays() {
    let world = World::new();
    let (one, two) = (world.repo("one"), world.repo("two"));
    let file = FILE_BYTES as u64;
    let cache = world.cache(Some(3 * file), &[one.id()]);
    let usage = cache.usage().unwrap();
    assert_eq!(
        (usage.files, usage.bytes, usage.bound),
        (2, 2 * file, 3 * file)
    );
    for seed in [4, 3] {
        world
            .node
            .content(&Blake3::of(&vec![seed; FILE_BYTES]))
            .unwrap();
    }
    // One more fits; a second one does not, and the file that was read first goes.
    let first = cache.make_room(&[wanted(Some(two.id()), 0, file)]).unwrap();
    assert!(world.here(3) && world.here(4));
    let second = cache.make_room(&[wanted(Some(two.id()), 9, file)]).unwrap();
    assert!(!world.here(4), "the least recently used one is evicted");
    assert!(world.here(1) && world.here(2), "pinned");
    assert!(world.here(3), "there was no need");
    drop((first, second));
    assert_eq!(cache.usage().unwrap().bytes, file);
}

#[test]
fn what_can_t_fit_is_refused_and_costs_nothing() {
    let world = World::new();
    let file = FILE_BYTES as u64;
    let cache = world.cache(Some(4 * file), &[]);
    let two = world.repo("two").id();
    let error = cache
        .make_room(&[wanted(Some(two), 0, 5 * file)])
        .unwrap_err();
    let StoreError::CacheFull { size, bound } = error else {
        panic!("{error}");
    };
    assert_eq!((size, bound), (5 * file, 4 * file));
    assert!((1..=4).all(|seed| world.here(seed)));
    // Healing, and what is small, is no cache.
    cache.make_room(&[wanted(None, 0, 5 * file)]).unwrap();
    cache.make_room(&[wanted(Some(two), 0, 1000)]).unwrap();
}

#[test]
fn nothing_goes_that_is_on_its_way_or_while_somebody_pushes() {
    let world = World::new();
    let file = FILE_BYTES as u64;
    let cache = world.cache(Some(4 * file), &[]);
    let two = world.repo("two").id();
    let all: Vec<Wanted> = (1..=4)
        .map(|seed| Wanted {
            repository: Some(two),
            hash: Blake3::of(&vec![seed; FILE_BYTES]),
            size: file,
        })
        .collect();
    let rooms: Vec<Room> = all.iter().map(|one| cache.announce(one, false)).collect();
    cache.make_room(&[wanted(Some(two), 0, file)]).unwrap_err();
    drop(rooms);
    let pushing = cache.pushing();
    let room = cache.make_room(&[wanted(Some(two), 0, file)]).unwrap();
    assert!(
        (1..=4).all(|seed| world.here(seed)),
        "the bound waits for the push"
    );
    drop((pushing, room));
    let room = cache.make_room(&[wanted(Some(two), 0, file)]).unwrap();
    assert_eq!((1..=4).filter(|&seed| world.here(seed)).count(), 3);
    drop(room);
}

#[test]
fn without_a_size_a_tenth_of_the_disk_stays_free() {
    let world = World::new();
    let file = FILE_BYTES as u64;
    let cache = world.cache(None, &[]);
    let two = world.repo("two").id();
    let disk = |free| *cache.inner.disk.told.lock() = Some((100 * file, free));
    disk(50 * file);
    assert_eq!(cache.usage().unwrap().bound, 44 * file);
    disk(11 * file);
    let room = cache.make_room(&[wanted(Some(two), 0, file)]).unwrap();
    assert!((1..=4).all(|seed| world.here(seed)));
    drop(room);
    disk(9 * file);
    cache.enforce();
    assert_eq!((1..=4).filter(|&seed| world.here(seed)).count(), 3);
}

#[test]
fn small_files_go_where_the_bound_is_exceeded_but_those_that_somebody_needs() {
    let world = World::new();
    let (one, two) = (world.repo("one"), world.repo("two"));
    let store = &world.node.inner.store;
    let here = |text: String| store.contains(&Blake3::of(text.as_bytes())).unwrap();
    let file = FILE_BYTES as u64;
    world.cache(Some(3 * file), &[one.id()]).shed().unwrap();
    assert!(here(own("two")), "all is within the bound");
    let cache = world.cache(Some(2 * file), &[one.id()]);
    let mut signed = None;
    let last = &mut |envelope: &[u8]| signed = Record::parse_trusted(envelope).ok();
    store.records(last).unwrap();
    *cache.inner.unsettled.lock().unwrap() = signed;
    cache.shed().unwrap();
    assert!(here(own("two")), "a head that is not written may name it");
    *cache.inner.unsettled.lock().unwrap() = None;
    *cache.inner.looked_at.lock() = None;
    cache.shed().unwrap();
    assert!(!here(own("two")), "nobody needs it");
    assert!(here(own("one")) && here(card("one")), "pinned");
    assert!(here(SHARED.to_owned()), "of a pinned one, too");
    assert!(here(card("two")), "what the listing shows");
    for repo in [one, two] {
        let commit = repo.commit("main").unwrap();
        assert!(commit.entry("own.txt").unwrap().is_some(), "it is listed");
    }
    // Not looked at again before there is more.
    let log_bytes = store.stats().log_bytes;
    assert_eq!(*cache.inner.looked_at.lock(), Some(log_bytes));
    cache.shed().unwrap();
}
