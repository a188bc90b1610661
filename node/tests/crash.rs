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
    let digests = store.import(&mut &file, len as u64, true, &mut |_| {})?;
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

/// The same for files that come piece by piece, and go again to make room.
mod pulls {
    use bytes::Bytes;
    use cairn_node::store::{Claim, Digests, FinishError, Partial};
    use cairn_protocol::hash::Sha256;
    use cairn_protocol::limits::PIECE_BYTES;
    use cairn_protocol::piece::{PieceHasher, PieceList, piece_count};

    use super::*;

    /// Of several pieces, of one piece, in the log, and of several that never all come.
    const FILES: [(u64, usize); 4] = [
        (11, (2 << 20) + 70_000),
        (12, 90_000),
        (13, 5_000),
        (14, (1 << 20) + 3_000),
    ];

    #[derive(Debug, Clone)]
    enum Promise {
        /// A piece is here.
        Piece(usize, u64),
        /// The file is stored.
        Whole(usize),
        /// It is about to be evicted.
        Leaving(usize),
        /// It is evicted.
        Gone(usize),
    }

    struct Sample {
        bytes: Bytes,
        hash: Blake3,
        list: PieceList,
        claim: Claim,
    }

    impl Sample {
        fn new((seed, len): (u64, usize)) -> Self {
            use sha2::Digest as _;
            let bytes = Bytes::from(noise(seed, len));
            let mut hasher = PieceHasher::new();
            hasher.update(&bytes);
            let (hash, list) = hasher.finish();
            Self {
                hash,
                list: PieceList::decode(list.as_deref(), len as u64, &hash).unwrap(),
                claim: Claim {
                    sha256: Sha256::from_bytes(sha2::Sha256::digest(&bytes).into()),
                    git: None,
                },
                bytes,
            }
        }

        fn count(&self) -> u64 {
            piece_count(self.bytes.len() as u64)
        }

        fn piece(&self, index: u64) -> Bytes {
            let start = usize::try_from(index * PIECE_BYTES).unwrap();
            self.bytes
                .slice(start..self.bytes.len().min(start + (1 << 20)))
        }

        fn open(&self, store: &Store) -> Result<Partial, StoreError> {
            store.partial(&self.hash, &self.list)
        }

        fn write(&self, partial: &Partial, index: u64) -> Result<(), StoreError> {
            let piece = self.piece(index);
            let half = piece.len() / 2;
            partial.write(index, &[piece.slice(..half), piece.slice(half..)])
        }

        /// Brings what is missing, the last piece first.
        fn complete(&self, store: &Store) -> Result<Digests, FinishError> {
            let partial = self.open(store)?;
            for index in (0..self.count()).rev() {
                if !partial.has(index) {
                    self.write(&partial, index)?;
                }
            }
            partial.finish(&self.claim)
        }
    }

    thread_local! {
        static SAMPLES: [Sample; 4] = FILES.map(Sample::new);
    }

    /// Does something that must succeed at the second attempt, since a fault strikes once.
    fn twice<T, E: std::fmt::Debug>(
        recorder: &Recorder,
        attempt: impl Fn() -> Result<T, E>,
    ) -> Option<T> {
        match attempt() {
            Ok(done) => Some(done),
            Err(first) => match attempt() {
                Ok(done) => Some(done),
                Err(_) if recorder.is_dead() => None,
                Err(second) => panic!("not usable any more: {first:?}, then {second:?}"),
            },
        }
    }

    fn work(recorder: &Arc<Recorder>, dir: &Path, ledger: &mut Ledger<Promise>) {
        SAMPLES.with(|samples| pull(recorder, dir, ledger, samples, true).unwrap_or_default());
    }

    fn work_on_a_full_disk(recorder: &Arc<Recorder>, dir: &Path, ledger: &mut Ledger<Promise>) {
        SAMPLES.with(|samples| pull(recorder, dir, ledger, samples, false).unwrap_or_default());
    }

    /// Stops where something fails for good.
    fn pull(
        recorder: &Arc<Recorder>,
        dir: &Path,
        ledger: &mut Ledger<Promise>,
        samples: &[Sample; 4],
        recovers: bool,
    ) -> Option<()> {
        let files: Arc<dyn Files> = Arc::clone(recorder) as _;
        let open_store = || Store::open(Arc::clone(&files), dir, &options(), &mut |_| {});
        let store = if recovers {
            open_twice(recorder, open_store)?
        } else {
            open_store().ok()?
        };
        let complete = |file: usize| {
            if recovers {
                twice(recorder, || samples[file].complete(&store))
            } else {
                samples[file].complete(&store).ok()
            }
        };
        for (file, pieces) in [(0, &[2, 0][..]), (3, &[1])] {
            let sample = &samples[file];
            let some = || -> Result<(), StoreError> {
                let partial = sample.open(&store)?;
                for index in pieces {
                    sample.write(&partial, *index)?;
                }
                partial.sync()
            };
            let done = if recovers {
                twice(recorder, some)
            } else {
                some().ok()
            };
            if done.is_some() {
                for index in pieces {
                    ledger.acknowledge(Promise::Piece(file, *index));
                }
            }
        }
        for file in [0, 1, 2] {
            if complete(file).is_some() {
                ledger.acknowledge(Promise::Whole(file));
            }
        }
        for file in [1, 0] {
            ledger.acknowledge(Promise::Leaving(file));
            let evict = || store.evict(&samples[file].hash);
            let evicted = if recovers {
                twice(recorder, evict)
            } else {
                evict().ok()
            };
            if evicted.is_some() {
                ledger.acknowledge(Promise::Gone(file));
            }
        }
        let live: HashSet<Blake3> = samples.iter().map(|sample| sample.hash).collect();
        store
            .exclusive()
            .sweep(&live, false)
            .map(drop)
            .unwrap_or_default();
        if complete(1).is_some() {
            ledger.acknowledge(Promise::Whole(1));
        }
        Some(())
    }

    fn check(dir: &Path, promises: &[&Promise]) -> Result<(), String> {
        SAMPLES.with(|samples| look(dir, promises, samples))
    }

    fn look(dir: &Path, promises: &[&Promise], samples: &[Sample; 4]) -> Result<(), String> {
        let files: Arc<dyn Files> = Arc::new(Recorder::new(dir, Syncs::Unrecorded, None));
        let store = Store::open(files, dir, &options(), &mut |_| {})
            .map_err(|error| format!("the store does not open: {error:?}"))?;
        let (mut whole, mut gone) = ([false; 4], [false; 4]);
        let mut pieces: [HashSet<u64>; 4] = Default::default();
        for promise in promises {
            match promise {
                Promise::Piece(file, index) => {
                    pieces[*file].insert(*index);
                }
                Promise::Whole(file) => (whole[*file], gone[*file]) = (true, false),
                Promise::Leaving(file) => {
                    whole[*file] = false;
                    pieces[*file].clear();
                }
                Promise::Gone(file) => gone[*file] = true,
            }
        }
        for (file, sample) in samples.iter().enumerate() {
            let say = |error: &dyn std::fmt::Debug| format!("file {file}: {error:?}");
            let is_whole = store.contains(&sample.hash).map_err(|error| say(&error))?;
            if whole[file] && !is_whole {
                return Err(format!("file {file} is lost"));
            }
            // A later attempt may have stored it again before the power went.
            if gone[file] && is_whole && file != 1 {
                return Err(format!("file {file} is back"));
            }
            let held = match store.pieces(&sample.hash) {
                Ok(held) => Some(held),
                Err(StoreError::Absent { .. }) => None,
                Err(error) => return Err(say(&error)),
            };
            for index in 0..sample.count() {
                let has = held
                    .as_ref()
                    .is_some_and(|held| held.held().is_none_or(|held| held.contains(index)));
                if !has && pieces[file].contains(&index) {
                    return Err(format!("piece {index} of file {file} is lost"));
                }
                if let Some(held) = &held
                    && has
                    && held.read(index).map_err(|error| say(&error))? != sample.piece(index)
                {
                    return Err(format!("piece {index} of file {file} is wrong"));
                }
            }
            drop(held);
            if !is_whole {
                sample
                    .complete(&store)
                    .map_err(|error| format!("file {file} cannot be completed: {error:?}"))?;
            }
            let content = store.content(&sample.hash).map_err(|error| say(&error))?;
            if bytes_of(&content) != sample.bytes {
                return Err(format!("file {file} is wrong"));
            }
        }
        let findings = store
            .verify_all(&mut |_, _| {})
            .map_err(|error| format!("{error:?}"))?;
        if !findings.is_empty() {
            return Err(format!("{findings:?}"));
        }
        if !store.partials().is_empty() {
            return Err(format!("left: {:?}", store.partials()));
        }
        let stats = store.stats();
        let bytes: usize = FILES.iter().map(|(_, len)| len).sum();
        if (stats.blobs, stats.bytes) != (4, bytes as u64) {
            return Err(format!("miscounted: {stats:?}"));
        }
        Ok(())
    }

    #[test]
    fn no_power_cut_loses_a_piece_or_brings_a_wrong_one() {
        let outcome = replay(Syncs::Kept, &work, &check);
        eprintln!("{} calls, {} images", outcome.calls, outcome.images);
        assert_eq!(outcome.failures, [] as [&str; 0]);
        assert!(outcome.images > 150, "{} images only", outcome.images);
    }

    /// The control: each kind of sync that is left out loses something that was promised.
    #[test]
    fn without_any_kind_of_sync_a_power_cut_loses_a_piece() {
        fn is_partial(path: &Path) -> bool {
            path.parent()
                .is_some_and(|parent| parent.ends_with("partial"))
        }
        let controls: [(Syncs, &str); 3] = [
            (
                Syncs::Without(|path| is_partial(path) && path.extension().is_none()),
                "piece 0 of file 0 is lost",
            ),
            (
                Syncs::Without(|path| path.ends_with("partial")),
                "piece 0 of file 0 is lost",
            ),
            (
                Syncs::Without(|path| {
                    is_partial(path) && path.extension().is_some_and(|end| end == "pieces")
                }),
                "piece 0 of file 0 is lost",
            ),
        ];
        for (number, (syncs, loss)) in controls.into_iter().enumerate() {
            let outcome = replay(syncs, &work, &check);
            let found = outcome
                .failures
                .iter()
                .any(|failure| failure.contains(loss));
            assert!(found, "control {number}: {:?}", outcome.failures.first());
        }
    }

    #[test]
    fn a_call_that_fails_leaves_a_store_that_goes_on() {
        for fault in [Fault::Io, Fault::Full] {
            let outcome = fail_each_call(fault, &work, &check);
            eprintln!(
                "{fault:?}: {} calls, {} images",
                outcome.calls, outcome.images
            );
            assert_eq!(outcome.failures, [] as [&str; 0]);
            assert!(outcome.calls > 100);
        }
    }

    #[test]
    fn a_disk_that_stays_full_loses_no_piece() {
        let outcome = fail_each_call(Fault::StaysFull, &work_on_a_full_disk, &check);
        assert_eq!(outcome.failures, [] as [&str; 0]);
        assert!(outcome.calls > 100);
    }
}
