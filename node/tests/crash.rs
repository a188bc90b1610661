//! Power cuts at every instant, and a disk that refuses any one call: nothing acknowledged is lost.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "support/bytes.rs"]
mod bytes_support;
#[path = "support/replay.rs"]
mod replay;

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use cairn_node::files::Files;
use cairn_node::journal::{Entry, Journal};
use cairn_node::store::{Content, Store, StoreError, StoreOptions};
use cairn_protocol::hash::Blake3;

use bytes_support::noise;
use replay::recorder::{Fault, Recorder, Syncs};
use replay::{Ledger, fail_each_call, replay};

/// What was promised.
#[derive(Debug, Clone)]
enum Fact {
    /// Content is stored and found.
    Blob(u64, usize),
    /// A record is in the log.
    Record(Vec<u8>),
    /// An entry is in the journal.
    Entry(Entry),
    /// Content is not promised any more.
    Dropped(u64, usize),
}

/// Everything that the work ever stores: what is found of it must be it.
const CONTENTS: [(u64, usize); 9] = [
    (1, 700),
    (2, 5_000),
    (3, 90_000),
    (4, (1 << 20) + 70_000),
    (5, 66_000),
    (6, 900),
    (7, 40_000),
    (8, 100_000),
    (9, 300),
];

fn options() -> StoreOptions {
    // Small segments, so that new ones are begun; no views, as if they were lost every time.
    StoreOptions {
        view_cache_bytes: 0,
        segment_bytes: 20_000,
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

fn hash(seed: u64, len: usize) -> Blake3 {
    Blake3::of(&noise(seed, len))
}

fn import(store: &Store, (seed, len): (u64, usize)) -> Result<(), StoreError> {
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), noise(seed, len)).unwrap();
    let file = File::open(source.path()).unwrap();
    let digests = store.import(file, len as u64, true, &mut |_| {})?;
    assert_eq!(digests.blake3, hash(seed, len));
    Ok(())
}

fn entry(number: u8) -> Entry {
    Entry::Alias {
        name: format!("name {number}"),
        target: Some("x".repeat(200)),
    }
}

/// Opens both, where the disk lets them be opened: a fault strikes once, so the second attempt does.
fn open_twice<T>(recorder: &Recorder, open: impl Fn() -> Result<T, StoreError>) -> Option<T> {
    match open() {
        Ok(opened) => Some(opened),
        Err(first) => match open() {
            Ok(opened) => Some(opened),
            Err(_) if recorder.is_dead() => None,
            Err(second) => panic!("not opened: {first:?}, then {second:?}"),
        },
    }
}

/// Pushes, pins and sweeps, going on after whatever fails.
fn work(recorder: &Arc<Recorder>, dir: &Path, ledger: &mut Ledger<Fact>) {
    work_with(recorder, dir, ledger, true);
}

fn work_with(recorder: &Arc<Recorder>, dir: &Path, ledger: &mut Ledger<Fact>, recovers: bool) {
    let files: Arc<dyn Files> = Arc::clone(recorder) as _;
    let open_store = || Store::open(Arc::clone(&files), dir, &options(), &mut |_| {});
    let open_journal = || Journal::open(Arc::clone(&files), &dir.join("journal"));
    let (store, journal) = if recovers {
        let Some(store) = open_twice(recorder, open_store) else {
            return;
        };
        let Some((journal, _)) = open_twice(recorder, open_journal) else {
            return;
        };
        (store, journal)
    } else {
        let (Ok(store), Ok((journal, _))) = (open_store(), open_journal()) else {
            return;
        };
        (store, journal)
    };
    let [
        small,
        medium,
        flat,
        pieces,
        dead,
        later,
        also_dead,
        large,
        last,
    ] = CONTENTS;
    push(
        &store,
        &journal,
        ledger,
        1,
        &[flat, pieces],
        &[small, medium],
    );
    push(
        &store,
        &journal,
        ledger,
        2,
        &[dead, flat],
        &[also_dead, medium],
    );
    // The second push is thrown away, but for what the first one also has.
    let live: HashSet<Blake3> = [small, medium, flat, pieces]
        .iter()
        .map(|(seed, len)| hash(*seed, *len))
        .collect();
    for (seed, len) in [dead, also_dead] {
        ledger.acknowledge(Fact::Dropped(seed, len));
    }
    store
        .exclusive()
        .sweep(&live, false)
        .map(drop)
        .unwrap_or_default();
    push(&store, &journal, ledger, 3, &[large], &[later]);
    // A fault strikes once: the store can be used again after it, unless the process would have ended.
    let put = || {
        let mut batch = store.batch();
        batch.put(noise(last.0, last.1).into());
        batch.commit()
    };
    let mut done = put();
    if done.is_err() && recovers && !recorder.is_dead() {
        done = put();
        assert!(done.is_ok(), "not usable any more: {done:?}");
    }
    if done.is_ok() {
        ledger.acknowledge(Fact::Blob(last.0, last.1));
    }
}

/// One push, which is enough to lose.
fn small_work(recorder: &Arc<Recorder>, dir: &Path, ledger: &mut Ledger<Fact>) {
    let files: Arc<dyn Files> = Arc::clone(recorder) as _;
    let store = Store::open(Arc::clone(&files), dir, &options(), &mut |_| {}).unwrap();
    let (journal, _) = Journal::open(files, &dir.join("journal")).unwrap();
    push(&store, &journal, ledger, 1, &[CONTENTS[2]], &[CONTENTS[0]]);
}

fn push(
    store: &Store,
    journal: &Journal,
    ledger: &mut Ledger<Fact>,
    number: u8,
    large: &[(u64, usize)],
    small: &[(u64, usize)],
) {
    let _lease = store.lease();
    for content in large {
        if import(store, *content).is_ok() {
            ledger.acknowledge(Fact::Blob(content.0, content.1));
        }
    }
    let mut batch = store.batch();
    for (seed, len) in small {
        batch.put(noise(*seed, *len).into());
    }
    let record = vec![number; 3_000];
    batch.record(record.clone());
    if batch.commit().is_ok() {
        for (seed, len) in small {
            ledger.acknowledge(Fact::Blob(*seed, *len));
        }
        ledger.acknowledge(Fact::Record(record));
    }
    if journal.append(entry(number)).is_ok() {
        ledger.acknowledge(Fact::Entry(entry(number)));
    }
}

/// Opens what is left, and asks for everything promised.
fn check(dir: &Path, facts: &[&Fact]) -> Result<(), String> {
    let files: Arc<dyn Files> = Arc::new(Recorder::new(dir, Syncs::Unrecorded, None));
    let mut records = Vec::new();
    let on_record = &mut |envelope: &[u8]| records.push(envelope.to_vec());
    let store = Store::open(Arc::clone(&files), dir, &options(), on_record)
        .map_err(|error| format!("the store does not open: {error:?}"))?;
    let (journal, entries) = Journal::open(Arc::clone(&files), &dir.join("journal"))
        .map_err(|error| format!("the journal does not open: {error:?}"))?;
    let mut promised = HashSet::new();
    for fact in facts {
        match fact {
            Fact::Blob(seed, len) => {
                promised.insert((*seed, *len));
            }
            Fact::Dropped(seed, len) => {
                promised.remove(&(*seed, *len));
            }
            Fact::Record(record) if !records.contains(record) => {
                return Err(format!("record {} is lost", record[0]));
            }
            Fact::Entry(entry) if !entries.contains(entry) => {
                return Err(format!("{entry:?} is lost"));
            }
            Fact::Record(_) | Fact::Entry(_) => {}
        }
    }
    for (seed, len) in CONTENTS {
        match store.content(&hash(seed, len)) {
            Ok(content) if bytes_of(&content) == noise(seed, len) => {}
            Ok(_) => return Err(format!("content {seed} is wrong")),
            Err(StoreError::Absent { .. }) if !promised.contains(&(seed, len)) => {}
            Err(error) => return Err(format!("content {seed}: {error:?}")),
        }
    }
    let findings = store
        .verify_all(&mut |_, _| {})
        .map_err(|error| format!("{error:?}"))?;
    if !findings.is_empty() {
        return Err(format!("{findings:?}"));
    }
    let temporary = fs::read_dir(dir.join("tmp"))
        .map_err(|error| error.to_string())?
        .count();
    if temporary > 0 {
        return Err(format!("{temporary} temporary files are left"));
    }
    // And it can be written to.
    import(&store, CONTENTS[4]).map_err(|error| format!("no import afterwards: {error:?}"))?;
    journal
        .append(entry(9))
        .map_err(|error| format!("no entry afterwards: {error:?}"))
}

fn bytes_of(content: &Content) -> Vec<u8> {
    match content {
        Content::Small(bytes) => bytes.to_vec(),
        Content::Flat(flat) => fs::read(&flat.path).unwrap(),
    }
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let outcome = replay(Syncs::Kept, &work, &check);
    eprintln!("{} calls, {} images", outcome.calls, outcome.images);
    assert_eq!(outcome.failures, [] as [&str; 0]);
    assert!(outcome.images > 200, "{} images only", outcome.images);
}

/// The control: each kind of sync that is left out loses something that was promised.
#[test]
fn without_any_kind_of_sync_a_power_cut_loses_something() {
    fn ends_with(path: &Path, end: &str) -> bool {
        path.to_str().is_some_and(|path| path.ends_with(end))
    }
    fn parent_is(path: &Path, name: &str) -> bool {
        path.parent().is_some_and(|parent| parent.ends_with(name))
    }
    let controls: [(Syncs, &str); 8] = [
        (
            Syncs::Without(|path| ends_with(path, ".seg")),
            "record 1 is lost",
        ),
        (
            Syncs::Without(|path| ends_with(path, ".seg.new")),
            "does not open",
        ),
        (
            Syncs::Without(|path| parent_is(path, "tmp")),
            "content 3: Damaged",
        ),
        (
            Syncs::Without(|path| ends_with(path, "log")),
            "record 1 is lost",
        ),
        (Syncs::Without(|path| ends_with(path, "journal")), "is lost"),
        (
            Syncs::Without(|path| ends_with(path, "blobs")),
            "content 3: Damaged",
        ),
        (
            Syncs::Without(|path| parent_is(path, "blobs")),
            "content 3: Damaged",
        ),
        (Syncs::Without(|_| true), "is lost"),
    ];
    for (number, (syncs, loss)) in controls.into_iter().enumerate() {
        let outcome = replay(syncs, &small_work, &check);
        let found = outcome
            .failures
            .iter()
            .any(|failure| failure.contains(loss));
        assert!(found, "control {number}: {:?}", outcome.failures.first());
    }
}

#[test]
fn a_call_that_fails_loses_nothing_acknowledged() {
    for fault in [Fault::Io, Fault::Full] {
        let outcome = fail_each_call(fault, &work, &check);
        eprintln!(
            "{fault:?}: {} calls, {} images",
            outcome.calls, outcome.images
        );
        assert_eq!(outcome.failures, [] as [&str; 0]);
        assert!(outcome.calls > 120);
    }
}

#[test]
fn a_disk_that_stays_full_loses_nothing_acknowledged() {
    let drive = |recorder: &Arc<Recorder>, dir: &Path, ledger: &mut Ledger<Fact>| {
        work_with(recorder, dir, ledger, false);
    };
    let outcome = fail_each_call(Fault::StaysFull, &drive, &check);
    assert_eq!(outcome.failures, [] as [&str; 0]);
    assert!(outcome.calls > 120);
}

#[test]
fn rot_is_found_by_verifying_and_then_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(Recorder::rotting(dir.path()));
    let store = Store::open(files, dir.path(), &options(), &mut |_| {}).unwrap();
    let (one, other) = (CONTENTS[3], CONTENTS[2]);
    import(&store, one).unwrap();
    import(&store, other).unwrap();
    let hash = hash(one.0, one.1);
    store.verify(&hash).unwrap();
    let Content::Flat(flat) = store.content(&hash).unwrap() else {
        panic!("not flat")
    };
    let mut bytes = fs::read(&flat.path).unwrap();
    bytes[1_000_000] ^= 2;
    fs::write(&flat.path, bytes).unwrap();
    assert!(
        store.content(&hash).is_ok(),
        "its times have changed: this is no rot"
    );
    let findings = store.verify_all(&mut |_, _| {}).unwrap();
    assert_eq!(
        findings
            .iter()
            .map(|finding| finding.hash)
            .collect::<Vec<_>>(),
        [Some(hash)]
    );
    assert!(matches!(
        store.content(&hash),
        Err(StoreError::Damaged { .. })
    ));
    assert!(matches!(
        store.verify(&hash),
        Err(StoreError::Damaged { .. })
    ));
    import(&store, one).unwrap();
    assert_eq!(
        bytes_of(&store.content(&hash).unwrap()),
        noise(one.0, one.1)
    );
}
