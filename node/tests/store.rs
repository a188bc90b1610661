//! What the store promises its callers while nothing goes wrong, and when what it stored is touched.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_node::files::RealFiles;
use cairn_node::store::{Content, Digests, Store, StoreError, StoreOptions};
use cairn_protocol::hash::{Blake3, GitOid, Sha256};

#[path = "support/bytes.rs"]
mod bytes_support;

use bytes_support::noise;

/// Flat, of several pieces, and not of whole ones.
const LARGE: usize = (3 << 20) + 12_345;
/// Flat, of one piece.
const MEDIUM: usize = 200_000;
/// In the log.
const SMALL: usize = 2_000;

fn options() -> StoreOptions {
    StoreOptions {
        view_cache_bytes: 1 << 20,
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

fn open_with(dir: &Path, options: &StoreOptions) -> Result<Store, StoreError> {
    Store::open(Arc::new(RealFiles), dir, options, &mut |_| {})
}

fn open(dir: &Path) -> Store {
    open_with(dir, &options()).unwrap()
}

fn import(store: &Store, bytes: &[u8], git: bool) -> Result<Digests, StoreError> {
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), bytes).unwrap();
    let file = File::open(source.path()).unwrap();
    store.import(&mut &file, bytes.len() as u64, git, &mut |_| {})
}

fn read(store: &Store, hash: &Blake3) -> Result<Vec<u8>, StoreError> {
    match store.content(hash)? {
        Content::Small(bytes) => Ok(bytes.to_vec()),
        Content::Flat(flat) => {
            let bytes = fs::read(&flat.path).unwrap();
            assert_eq!(bytes.len() as u64, flat.size);
            Ok(bytes)
        }
    }
}

fn expected(bytes: &[u8], git: bool) -> Digests {
    use sha2::Digest as _;
    let mut object = format!("blob {}\0", bytes.len()).into_bytes();
    object.extend_from_slice(bytes);
    Digests {
        blake3: Blake3::of(bytes),
        sha256: Sha256::from_bytes(sha2::Sha256::digest(bytes).into()),
        git: git.then(|| GitOid::from_bytes(sha1(&object))),
        size: bytes.len() as u64,
    }
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    use sha1_checked::Digest as _;
    sha1_checked::Sha1::digest(bytes).into()
}

fn flat_path(dir: &Path, hash: &Blake3) -> PathBuf {
    let hex = hash.to_hex();
    dir.join("blobs").join(&hex[..2]).join(hex)
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Everything that was stored is answered for, also by other digests, and nothing else is.
fn assert_holds(store: &Store, contents: &[Vec<u8>]) {
    for bytes in contents {
        let want = expected(bytes, true);
        assert_eq!(&read(store, &want.blake3).unwrap(), bytes);
        assert!(store.contains(&want.blake3).unwrap());
        assert_eq!(store.digests(&want.blake3).unwrap(), Some(want));
        assert_eq!(store.by_sha256(&want.sha256).unwrap(), Some(want));
        assert_eq!(store.by_git(&want.git.unwrap()).unwrap(), Some(want));
        assert_eq!(store.blob(&want.blake3).unwrap(), *bytes);
    }
    let absent = Blake3::of(b"never stored");
    assert!(!store.contains(&absent).unwrap());
    assert!(matches!(store.content(&absent), Err(StoreError::Absent { hash }) if hash == absent));
    assert_eq!(store.stats().blobs, contents.len() as u64);
    assert_eq!(
        store.stats().bytes,
        contents.iter().map(|bytes| bytes.len() as u64).sum::<u64>()
    );
}

fn samples() -> Vec<Vec<u8>> {
    [
        0,
        1,
        SMALL,
        65_535,
        65_536,
        MEDIUM,
        1 << 20,
        (1 << 20) + 1,
        2 << 20,
        LARGE,
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, len)| noise(seed as u64, len))
    .collect()
}

fn store_samples(store: &Store) -> Vec<Vec<u8>> {
    let contents = samples();
    for bytes in &contents {
        assert_eq!(import(store, bytes, true).unwrap(), expected(bytes, true));
    }
    contents
}

#[test]
fn what_was_imported_is_found_by_every_digest_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let contents = store_samples(&store);
    assert_holds(&store, &contents);
    drop(store);
    assert_holds(&open(dir.path()), &contents);
}

#[test]
fn records_come_back_in_the_order_of_writing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for number in 0..20_u8 {
        let mut batch = store.batch();
        batch.put(Bytes::from(vec![number; 100]));
        batch.record(vec![number; 10]);
        batch.record(vec![number, 1]);
        batch.commit().unwrap();
    }
    let want: Vec<Vec<u8>> = (0..20)
        .flat_map(|number| [vec![number; 10], vec![number, 1]])
        .collect();
    let mut again = Vec::new();
    store
        .records(&mut |envelope| again.push(envelope.to_vec()))
        .unwrap();
    assert_eq!(again, want);
    drop(store);
    let mut replayed = Vec::new();
    let on_record = &mut |envelope: &[u8]| replayed.push(envelope.to_vec());
    Store::open(Arc::new(RealFiles), dir.path(), &options(), on_record).unwrap();
    assert_eq!(replayed, want);
}

#[test]
fn a_batch_takes_small_and_large_blobs_and_stores_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let contents = [noise(1, SMALL), noise(2, MEDIUM), noise(3, LARGE)];
    for _ in 0..3 {
        let mut batch = store.batch();
        for bytes in &contents {
            assert_eq!(batch.put(bytes.clone().into()), Blake3::of(bytes));
            assert_eq!(
                batch.put_with(bytes.clone().into(), true).unwrap(),
                expected(bytes, true)
            );
        }
        batch.commit().unwrap();
        assert_holds(&store, &contents);
    }
    let before = store.stats().log_bytes;
    import(&store, &contents[0], true).unwrap();
    assert!(
        store.stats().log_bytes - before < SMALL as u64,
        "stored again"
    );
}

#[test]
fn a_git_id_can_be_learnt_later() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for bytes in [noise(1, SMALL), noise(2, MEDIUM)] {
        let want = expected(&bytes, true);
        import(&store, &bytes, false).unwrap();
        assert_eq!(store.by_git(&want.git.unwrap()).unwrap(), None);
        import(&store, &bytes, true).unwrap();
        assert_eq!(store.by_git(&want.git.unwrap()).unwrap(), Some(want));
        // And is not forgotten when nobody asks for it.
        assert_eq!(import(&store, &bytes, false).unwrap().blake3, want.blake3);
        assert_eq!(store.by_git(&want.git.unwrap()).unwrap(), Some(want));
    }
}

#[test]
fn a_source_of_another_size_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for len in [SMALL, MEDIUM, LARGE] {
        let bytes = noise(9, len);
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), &bytes).unwrap();
        for announced in [len - 1, len + 1, len / 2, len * 2] {
            let file = File::open(source.path()).unwrap();
            let result = store.import(&mut &file, announced as u64, true, &mut |_| {});
            assert!(
                matches!(result, Err(StoreError::Changed { .. })),
                "{len} {announced}"
            );
        }
    }
    assert_holds(&store, &[]);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn progress_rises_to_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), noise(1, LARGE)).unwrap();
    let mut seen = Vec::new();
    let file = File::open(source.path()).unwrap();
    store
        .import(&mut &file, LARGE as u64, false, &mut |done| seen.push(done))
        .unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(LARGE as u64)));
}

#[test]
fn temporary_files_are_gone_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("tmp/7"), b"left by a crash").unwrap();
    drop(open(dir.path()));
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn the_views_may_be_deleted_cut_or_flipped() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let contents = store_samples(&store);
    drop(store);
    let views = dir.path().join("views");
    let files = || -> Vec<PathBuf> {
        let folder = fs::read_dir(&views)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.is_file() && fs::metadata(path).unwrap().len() > 0)
            .collect()
    };
    let damages: [&dyn Fn(); 6] = [
        &|| fs::remove_dir_all(&views).unwrap(),
        &|| {
            for path in files() {
                fs::write(path, b"").unwrap();
            }
        },
        &|| {
            for path in files() {
                let len = fs::metadata(&path).unwrap().len();
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(len / 2)
                    .unwrap();
            }
        },
        &|| {
            for path in files() {
                let mut bytes = fs::read(&path).unwrap();
                let step = (bytes.len() / 64).max(1);
                bytes.iter_mut().step_by(step).for_each(|byte| *byte ^= 1);
                fs::write(path, bytes).unwrap();
            }
        },
        &|| {
            for path in files() {
                fs::write(path, noise(5, 10_000)).unwrap();
            }
        },
        &|| {
            fs::remove_dir_all(&views).unwrap();
            fs::create_dir(&views).unwrap();
            fs::write(views.join("3"), b"no folder").unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        let store = open(dir.path());
        assert_holds(&store, &contents);
        drop(store);
        // And what was made anew is whole.
        assert_holds(&open(dir.path()), &contents);
        eprintln!("damage {number}: every answer as before");
    }
}

#[test]
fn entries_that_the_views_lost_or_mistook_are_found_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let contents = store_samples(&open(dir.path()));
    for closed_in_order in [true, false] {
        drop(open(dir.path()));
        let folder = fs::read_dir(dir.path().join("views"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let db = sled::open(folder.path()).unwrap();
        let index = db.open_tree("index").unwrap();
        let entries: Vec<_> = index.iter().map(Result::unwrap).collect();
        assert!(entries.len() >= contents.len() * 3);
        for (number, (key, _)) in entries.iter().enumerate() {
            match number % 4 {
                0 => drop(index.remove(key).unwrap()),
                // Whole, but another key's.
                1 => drop(index.insert(key, &entries[0].1).unwrap()),
                _ => {}
            }
        }
        if !closed_in_order {
            db.open_tree("meta").unwrap().remove("clean").unwrap();
        }
        db.flush().unwrap();
        drop((db, index));
        assert_holds(&open(dir.path()), &contents);
    }
}

#[test]
fn the_views_may_be_damaged_while_they_are_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut contents = store_samples(&store);
    for round in 0..3 {
        let folder = fs::read_dir(dir.path().join("views"))
            .unwrap()
            .last()
            .unwrap()
            .unwrap();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(100)
                    .unwrap();
            }
        }
        for seed in 0..300 {
            contents.push(noise(1_000 + round * 300 + seed, 500));
        }
        let mut batch = store.batch();
        for bytes in &contents[contents.len() - 300..] {
            batch.put_with(bytes.clone().into(), true).unwrap();
        }
        batch.commit().unwrap();
        assert_holds(&store, &contents);
    }
    drop(store);
    assert_holds(&open(dir.path()), &contents);
}

#[test]
fn views_of_another_log_are_not_believed() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(one.path());
    let contents = store_samples(&store);
    drop(store);
    let store = open(two.path());
    for seed in 100..110 {
        import(&store, &noise(seed, SMALL), true).unwrap();
    }
    drop(store);
    fs::remove_dir_all(one.path().join("views")).unwrap();
    fs::rename(two.path().join("views"), one.path().join("views")).unwrap();
    assert_holds(&open(one.path()), &contents);
}

#[test]
fn views_can_be_made_anew_while_the_store_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let contents = store_samples(&store);
    store.rebuild_views();
    assert_holds(&store, &contents);
}

#[test]
fn a_store_without_views_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let without = StoreOptions {
        view_cache_bytes: 0,
        ..options()
    };
    let store = open_with(dir.path(), &without).unwrap();
    let contents = store_samples(&store);
    assert_holds(&store, &contents);
    drop(store);
    assert_holds(&open_with(dir.path(), &without).unwrap(), &contents);
}

#[test]
fn a_named_view_keeps_small_values() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let view = store.view("push");
    assert_eq!(view.get(b"key"), None);
    view.put(b"key", b"value");
    assert_eq!(view.get(b"key"), Some(b"value".to_vec()));
    assert_eq!(store.view("other").get(b"key"), None);
    drop((store, view));
    assert_eq!(
        open(dir.path()).view("push").get(b"key"),
        Some(b"value".to_vec())
    );
}

#[test]
fn a_flipped_byte_in_a_flat_file_is_named_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (bad, good) = (noise(1, LARGE), noise(2, MEDIUM));
    let hash = import(&store, &bad, false).unwrap().blake3;
    let other = import(&store, &good, false).unwrap().blake3;
    read(&store, &hash).unwrap();
    flip(&flat_path(dir.path(), &hash), 2_000_000);
    // Its times have changed: it is read before it is served, and then not served.
    assert!(matches!(store.content(&hash), Err(StoreError::Damaged { hash: h, .. }) if h == hash));
    assert!(matches!(
        store.verify(&hash),
        Err(StoreError::Damaged { .. })
    ));
    assert!(!store.contains(&hash).unwrap());
    assert_eq!(
        store.by_sha256(&expected(&bad, false).sha256).unwrap(),
        None
    );
    assert_eq!(read(&store, &other).unwrap(), good);
    drop(store);
    let store = open(dir.path());
    assert!(
        matches!(store.content(&hash), Err(StoreError::Damaged { .. })),
        "forgotten"
    );
    let findings = store.verify_all(&mut |_, _| {}).unwrap();
    assert_eq!(
        findings
            .iter()
            .map(|finding| finding.hash)
            .collect::<Vec<_>>(),
        [Some(hash)]
    );
    // The right bytes bring it back.
    import(&store, &bad, false).unwrap();
    assert_eq!(read(&store, &hash).unwrap(), bad);
    assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
    drop(store);
    let store = open(dir.path());
    assert_eq!(read(&store, &hash).unwrap(), bad);
    assert_eq!(store.stats().blobs, 2);
}

#[test]
fn a_file_that_was_not_verified_for_long_is_read_before_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let always = StoreOptions {
        verification_max_age: Duration::ZERO,
        ..options()
    };
    let store = open_with(dir.path(), &always).unwrap();
    let bytes = noise(1, LARGE);
    let hash = import(&store, &bytes, false).unwrap().blake3;
    for _ in 0..3 {
        assert_eq!(read(&store, &hash).unwrap(), bytes);
    }
    // Each reading of it was noted.
    let before = store.stats().log_bytes;
    read(&store, &hash).unwrap();
    assert!(store.stats().log_bytes > before);
    drop(store);
    let store = open(dir.path());
    let before = store.stats().log_bytes;
    read(&store, &hash).unwrap();
    assert_eq!(
        store.stats().log_bytes,
        before,
        "read again though it was verified just now"
    );
}

#[test]
fn two_files_that_were_swapped_are_both_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hashes = [1, 2].map(|seed| import(&store, &noise(seed, MEDIUM), false).unwrap().blake3);
    let [one, two] = hashes.map(|hash| flat_path(dir.path(), &hash));
    let aside = dir.path().join("aside");
    fs::rename(&one, &aside).unwrap();
    fs::rename(&two, &one).unwrap();
    fs::rename(&aside, &two).unwrap();
    for hash in hashes {
        assert!(matches!(
            store.content(&hash),
            Err(StoreError::Damaged { .. })
        ));
    }
}

#[test]
fn a_write_that_went_elsewhere_in_the_log_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blobs = [noise(1, SMALL), noise(2, SMALL)];
    for bytes in &blobs {
        import(&store, bytes, false).unwrap();
    }
    drop(store);
    let segment = segments(dir.path()).remove(0);
    let mut log = fs::read(&segment).unwrap();
    let find = |log: &[u8], bytes: &[u8]| {
        log.windows(bytes.len())
            .position(|window| window == bytes)
            .unwrap()
    };
    // Each whole frame, header and hash with it, in the other's place.
    let [one, two] = [&blobs[0], &blobs[1]].map(|bytes| find(&log, bytes) - 48);
    for at in 0..SMALL + 48 {
        log.swap(one + at, two + at);
    }
    fs::write(&segment, log).unwrap();
    // Two bad frames in a row are more than may be passed over; one is, and its blob is missed.
    match open_with(dir.path(), &options()) {
        Err(StoreError::Corrupt { offset, .. }) => assert_eq!(offset, one as u64),
        Ok(store) => {
            for bytes in &blobs {
                assert!(store.blob(&Blake3::of(bytes)).is_err());
            }
            let findings = store.verify_all(&mut |_, _| {}).unwrap();
            assert!(
                findings.iter().any(|finding| !finding.healed),
                "{findings:?}"
            );
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn where_content_finds_no_room_records_still_do() {
    let dir = tempfile::tempdir().unwrap();
    let full = StoreOptions {
        reserve_bytes: 1 << 60,
        ..options()
    };
    let store = open_with(dir.path(), &full).unwrap();
    for len in [SMALL, MEDIUM, LARGE] {
        let result = import(&store, &noise(1, len), true);
        assert!(matches!(result, Err(StoreError::Full { .. })), "{len}");
    }
    let mut batch = store.batch();
    batch.record(b"still written".to_vec());
    batch.commit().unwrap();
    // A batch with both is refused as a whole.
    let mut batch = store.batch();
    batch.put(noise(1, SMALL).into());
    batch.record(b"not this one".to_vec());
    assert!(matches!(batch.commit(), Err(StoreError::Full { .. })));
    let mut records = Vec::new();
    store
        .records(&mut |envelope| records.push(envelope.to_vec()))
        .unwrap();
    assert_eq!(records, [b"still written".to_vec()]);
}

#[test]
fn verifying_everything_names_every_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let contents = store_samples(&store);
    let mut last = (0, 0);
    assert_eq!(
        store
            .verify_all(&mut |done, total| last = (done, total))
            .unwrap(),
        []
    );
    assert_eq!(last.0, last.1);
    let mut damaged = HashSet::new();
    for bytes in &contents {
        let hash = Blake3::of(bytes);
        if bytes.len() >= 65_536 {
            flip(&flat_path(dir.path(), &hash), bytes.len() as u64 / 2);
            damaged.insert(hash);
        }
    }
    // One in the log: in the middle of the bytes of a small blob.
    let small = &contents[2];
    let segment = &segments(dir.path())[0];
    let log = fs::read(segment).unwrap();
    let at = log
        .windows(small.len())
        .position(|window| window == small)
        .unwrap();
    flip(segment, at as u64 + 100);
    damaged.insert(Blake3::of(small));
    let findings = store.verify_all(&mut |_, _| {}).unwrap();
    let named: HashSet<_> = findings.iter().filter_map(|finding| finding.hash).collect();
    assert_eq!(named, damaged);
    assert!(findings.iter().all(|finding| !finding.healed));
    for bytes in &contents {
        let hash = Blake3::of(bytes);
        assert_eq!(read(&store, &hash).is_ok(), !damaged.contains(&hash));
    }
}

#[test]
fn a_damaged_piece_list_is_named_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hash = import(&store, &noise(1, LARGE), false).unwrap().blake3;
    let pieces = flat_path(dir.path(), &hash).with_extension("pieces");
    let good = fs::read(&pieces).unwrap();
    assert_eq!(good.len(), 4 * 32);
    for damage in [&good[1..], b"", &[&good[..], b"more"].concat()] {
        fs::write(&pieces, damage).unwrap();
        let findings = store.verify_all(&mut |_, _| {}).unwrap();
        assert!(findings.len() == 1 && findings[0].healed && findings[0].path == pieces);
        assert_eq!(fs::read(&pieces).unwrap(), good);
        assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
    }
    fs::remove_file(&pieces).unwrap();
    store.verify(&hash).unwrap();
    assert_eq!(fs::read(&pieces).unwrap(), good);
}

#[test]
fn a_flat_file_that_is_gone_is_damaged_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hash = import(&store, &noise(1, MEDIUM), false).unwrap().blake3;
    fs::remove_file(flat_path(dir.path(), &hash)).unwrap();
    drop(store);
    let store = open(dir.path());
    for _ in 0..2 {
        assert!(matches!(
            store.content(&hash),
            Err(StoreError::Damaged { .. })
        ));
    }
}

#[test]
fn a_flat_file_that_was_copied_elsewhere_and_back_is_read_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let bytes = noise(1, MEDIUM);
    let hash = import(&store, &bytes, false).unwrap().blake3;
    let path = flat_path(dir.path(), &hash);
    let away = dir.path().join("away");
    fs::copy(&path, &away).unwrap();
    fs::rename(&away, &path).unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(read(&store, &hash).unwrap(), bytes);
    assert_eq!(store.stats().blobs, 1);
}

#[test]
fn a_torn_tail_is_cut_off_at_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut batch = store.batch();
    let kept = batch.put(noise(1, SMALL).into());
    batch.commit().unwrap();
    let good = fs::metadata(&segments(dir.path())[0]).unwrap().len();
    let mut batch = store.batch();
    let lost = batch.put(noise(2, SMALL).into());
    batch.commit().unwrap();
    let segment = segments(dir.path()).remove(0);
    let whole = fs::read(&segment).unwrap();
    drop(store);
    for len in (usize::try_from(good).unwrap()..whole.len()).step_by(97) {
        fs::write(&segment, &whole[..len]).unwrap();
        let store = open(dir.path());
        assert!(store.contains(&kept).unwrap());
        assert!(!store.contains(&lost).unwrap());
        // And it can be written to.
        let mut batch = store.batch();
        batch.put(noise(2, SMALL).into());
        batch.commit().unwrap();
        drop(store);
        let store = open(dir.path());
        assert!(store.contains(&kept).unwrap() && store.contains(&lost).unwrap());
    }
    // Bytes that were never written stand as zeros where the file's length was.
    let mut zeros = whole.clone();
    let from = (usize::try_from(good).unwrap()).next_multiple_of(512);
    zeros[from..].fill(0);
    fs::write(&segment, &zeros).unwrap();
    let store = open(dir.path());
    assert!(store.contains(&kept).unwrap() && !store.contains(&lost).unwrap());
}

#[test]
fn a_blob_that_rots_while_the_store_is_open_is_not_here_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (rotten, kept) = (noise(1, 1_000), noise(2, 1_000));
    let put = |store: &Store, bytes: &[u8]| {
        let mut batch = store.batch();
        let hash = batch.put(bytes.to_vec().into());
        batch.commit().unwrap();
        hash
    };
    let hash = put(&store, &rotten);
    let other = put(&store, &kept);
    let segment = &segments(dir.path())[0];
    let log = fs::read(segment).unwrap();
    let at = log
        .windows(100)
        .position(|window| window == &rotten[..100])
        .unwrap();
    flip(segment, at as u64 + 500);
    assert!(
        !store.contains(&hash).unwrap(),
        "so that it is fetched again"
    );
    assert!(store.contains(&other).unwrap());
    assert_eq!(store.damaged().unwrap()[0].0, hash);
    put(&store, &rotten);
    assert!(store.contains(&hash).unwrap());
}

#[test]
fn a_rotten_blob_is_healed_by_storing_it_again_and_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (rotten, kept) = (noise(1, 1_000), noise(2, 1_000));
    let put = |store: &Store, bytes: &[u8]| {
        let mut batch = store.batch();
        let hash = batch.put(bytes.to_vec().into());
        batch.commit().unwrap();
        hash
    };
    let hash = put(&store, &rotten);
    let live = HashSet::from([hash, put(&store, &kept)]);
    drop(store);
    let segment = &segments(dir.path())[0];
    let bytes = fs::read(segment).unwrap();
    let at = bytes
        .windows(100)
        .position(|window| window == &rotten[..100])
        .unwrap();
    flip(segment, at as u64 + 500);
    let store = open(dir.path());
    assert!(!store.contains(&hash).unwrap());
    assert!(store.blob(&hash).is_err());
    put(&store, &rotten);
    assert_eq!(store.blob(&hash).unwrap(), rotten);
    assert!(
        store
            .verify_all(&mut |_, _| {})
            .unwrap()
            .iter()
            .all(|finding| finding.healed)
    );
    store.exclusive().sweep(&live, false).unwrap();
    assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.blob(&hash).unwrap(), rotten);
    assert_eq!(store.blob(&Blake3::of(&kept)).unwrap(), kept);
}

#[test]
fn a_bad_frame_costs_a_blob_or_stops_the_start_and_names_its_offset() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(
        dir.path(),
        &StoreOptions {
            segment_bytes: 10_000,
            ..options()
        },
    )
    .unwrap();
    for seed in 0..30 {
        let mut batch = store.batch();
        batch.put(noise(seed, 1_000).into());
        batch.record(noise(seed, 50));
        batch.commit().unwrap();
    }
    drop(store);
    let segments = segments(dir.path());
    assert!(segments.len() > 2);
    let (mut stopped, mut passed) = (0, 0);
    for segment in &segments {
        let whole = fs::read(segment).unwrap();
        for at in (0..whole.len()).step_by(211) {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(segment, &bytes).unwrap();
            match open_with(dir.path(), &options()) {
                Err(StoreError::Corrupt { path, offset, .. }) => {
                    assert_eq!(&path, segment);
                    let reach = offset..offset + 1_100;
                    assert!(reach.contains(&(at as u64)), "flipped {at}, named {offset}");
                    stopped += 1;
                }
                Ok(store) => {
                    let whole = |seed: &u64| {
                        let bytes = noise(*seed, 1_000);
                        store
                            .blob(&Blake3::of(&bytes))
                            .is_ok_and(|read| read == bytes)
                    };
                    let lost: Vec<u64> = (0..30).filter(|seed| !whole(seed)).collect();
                    assert_eq!(lost.len(), 1, "flipped {at}");
                    let findings = store.verify_all(&mut |_, _| {}).unwrap();
                    assert!(
                        findings.iter().any(|finding| !finding.healed),
                        "flipped {at}"
                    );
                    passed += 1;
                }
                Err(error) => panic!("{at}: {error:?}"),
            }
        }
        // Also a torn one, where it is not the last segment.
        if segment != segments.last().unwrap() {
            fs::write(segment, &whole[..whole.len() - 3]).unwrap();
            assert!(matches!(
                open_with(dir.path(), &options()),
                Err(StoreError::Corrupt { .. })
            ));
        }
        fs::write(segment, &whole).unwrap();
    }
    assert!(
        stopped > 10 && passed > 10,
        "{stopped} stopped, {passed} passed"
    );
    let second = fs::read(&segments[1]).unwrap();
    fs::write(&segments[1], fs::read(&segments[0]).unwrap()).unwrap();
    assert!(matches!(
        open_with(dir.path(), &options()),
        Err(StoreError::Corrupt { .. })
    ));
    fs::remove_file(&segments[1]).unwrap();
    assert!(matches!(
        open_with(dir.path(), &options()),
        Err(StoreError::Corrupt { .. })
    ));
    fs::write(&segments[1], second).unwrap();
    open(dir.path());
}

#[test]
fn a_sweep_frees_what_nothing_needs_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let small_segments = StoreOptions {
        segment_bytes: 30_000,
        ..options()
    };
    let store = open_with(dir.path(), &small_segments).unwrap();
    let mut contents = store_samples(&store);
    let mut batch = store.batch();
    batch.record(b"a record".to_vec());
    batch.commit().unwrap();
    fs::write(dir.path().join("blobs").join("ab"), b"").unwrap_or_default();
    let (mut live, mut dead) = (Vec::new(), Vec::new());
    for (number, bytes) in contents.drain(..).enumerate() {
        if number % 2 == 0 {
            live.push(bytes);
        } else {
            dead.push(bytes);
        }
    }
    let marked: HashSet<Blake3> = live.iter().map(|bytes| Blake3::of(bytes)).collect();
    let before = store.stats();
    let planned = store.exclusive().sweep(&marked, true).unwrap();
    assert_eq!(store.stats(), before, "a dry run changed something");
    let report = store.exclusive().sweep(&marked, false).unwrap();
    assert_eq!((report.blobs, report.bytes), (planned.blobs, planned.bytes));
    assert_eq!(report.blobs, dead.len() as u64);
    assert_eq!(
        report.bytes,
        dead.iter().map(|bytes| bytes.len() as u64).sum::<u64>()
    );
    assert!(report.freed_bytes >= report.bytes);
    let check = |store: &Store| {
        assert_holds(store, &live);
        for bytes in &dead {
            let hash = Blake3::of(bytes);
            assert!(!store.contains(&hash).unwrap());
            assert!(matches!(
                store.content(&hash),
                Err(StoreError::Absent { .. })
            ));
            assert!(!flat_path(dir.path(), &hash).exists());
        }
        let mut records = Vec::new();
        store
            .records(&mut |envelope| records.push(envelope.to_vec()))
            .unwrap();
        assert_eq!(records, [b"a record".to_vec()]);
        assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
    };
    check(&store);
    drop(store);
    let store = open(dir.path());
    check(&store);
    let nothing = store.exclusive().sweep(&marked, false).unwrap();
    assert_eq!((nothing.blobs, nothing.strays), (0, 0));
    // What was freed can be stored again.
    for bytes in &dead {
        import(&store, bytes, true).unwrap();
        assert_eq!(&read(&store, &Blake3::of(bytes)).unwrap(), bytes);
    }
}

#[test]
fn a_sweep_collects_strays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hash = import(&store, &noise(1, LARGE), false).unwrap().blake3;
    // As a crash between the rename and the log leaves it.
    let stray = flat_path(dir.path(), &Blake3::of(b"stray"));
    fs::create_dir_all(stray.parent().unwrap()).unwrap();
    fs::write(&stray, b"bytes").unwrap();
    fs::write(stray.with_extension("pieces"), b"bytes").unwrap();
    assert!(!store.contains(&Blake3::of(b"stray")).unwrap());
    let report = store
        .exclusive()
        .sweep(&HashSet::from([hash]), false)
        .unwrap();
    assert_eq!((report.blobs, report.strays), (0, 2));
    assert!(!stray.exists() && store.contains(&hash).unwrap());
}

#[test]
fn a_sweep_waits_for_leases_and_imports_wait_for_a_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let lease = store.lease();
    let bytes = noise(1, MEDIUM);
    let (told, heard) = std::sync::mpsc::sync_channel(1);
    let sweeper = {
        let store = store.clone();
        std::thread::spawn(move || {
            let exclusive = store.exclusive();
            told.send(()).unwrap();
            // Marked when alone: what came before is seen.
            let live = HashSet::from([Blake3::of(&noise(1, MEDIUM))]);
            exclusive.sweep(&live, false).unwrap()
        })
    };
    // Whoever has a lease goes on, though somebody waits.
    import(&store, &bytes, false).unwrap();
    assert!(heard.try_recv().is_err(), "swept beside a lease");
    drop(lease);
    heard.recv().unwrap();
    assert_eq!(sweeper.join().unwrap().blobs, 0);
    assert!(store.contains(&Blake3::of(&bytes)).unwrap());
}

#[test]
fn whoever_marks_for_a_sweep_can_read_everything() {
    let dir = tempfile::tempdir().unwrap();
    let always = StoreOptions {
        verification_max_age: Duration::ZERO,
        ..options()
    };
    let store = open_with(dir.path(), &always).unwrap();
    let contents = store_samples(&store);
    let exclusive = store.exclusive();
    assert_holds(&store, &contents);
    assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
    let live: HashSet<Blake3> = contents.iter().map(|bytes| Blake3::of(bytes)).collect();
    assert_eq!(exclusive.sweep(&live, false).unwrap().blobs, 0);
    assert_holds(&store, &contents);
}

#[test]
fn many_threads_store_and_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..20 {
                    // Some of them the same in all threads.
                    let seed = if round % 3 == 0 {
                        round
                    } else {
                        thread * 1000 + round
                    };
                    let bytes = noise(seed, if round % 5 == 0 { MEDIUM } else { SMALL });
                    let hash = import(store, &bytes, true).unwrap().blake3;
                    assert_eq!(read(store, &hash).unwrap(), bytes);
                }
            });
        }
    });
    assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
    let stats = store.stats();
    drop(store);
    let again = open(dir.path()).stats();
    assert_eq!((again.blobs, again.bytes), (stats.blobs, stats.bytes));
}

mod model {
    //! The store beside a map, under random operations and restarts.

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u64, usize),
        Import(u64, usize, bool),
        Record(u8),
        Sweep(u64),
        Restart { clean_views: bool },
        Flip(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![
            0..3_000_usize,
            60_000..70_000_usize,
            Just(1 << 20),
            Just(1_100_000)
        ];
        prop_oneof![
            4 => (0..12_u64, len.clone()).prop_map(|(seed, len)| Step::Put(seed, len)),
            4 => (0..12_u64, len, any::<bool>())
                .prop_map(|(seed, len, git)| Step::Import(seed, len, git)),
            2 => any::<u8>().prop_map(Step::Record),
            1 => any::<u64>().prop_map(Step::Sweep),
            2 => any::<bool>().prop_map(|clean_views| Step::Restart { clean_views }),
            1 => any::<prop::sample::Index>().prop_map(Step::Flip),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn the_store_answers_as_a_map_does(steps in prop::collection::vec(step(), 1..30)) {
            let dir = tempfile::tempdir().unwrap();
            let options = StoreOptions { segment_bytes: 50_000, ..options() };
            let mut store = open_with(dir.path(), &options).unwrap();
            let mut blobs = std::collections::BTreeMap::<Blake3, Vec<u8>>::new();
            let mut damaged = HashSet::new();
            let mut records = Vec::new();
            for step in steps {
                match step {
                    Step::Put(seed, len) => {
                        let bytes = noise(seed, len);
                        let mut batch = store.batch();
                        let hash = batch.put(bytes.clone().into());
                        batch.commit().unwrap();
                        damaged.remove(&hash);
                        blobs.insert(hash, bytes);
                    }
                    Step::Import(seed, len, git) => {
                        let bytes = noise(seed, len);
                        let digests = import(&store, &bytes, git).unwrap();
                        prop_assert_eq!(
                            Digests { git: None, ..digests },
                            expected(&bytes, false)
                        );
                        damaged.remove(&digests.blake3);
                        blobs.insert(digests.blake3, bytes);
                    }
                    Step::Record(byte) => {
                        let mut batch = store.batch();
                        batch.record(vec![byte; 30]);
                        batch.commit().unwrap();
                        records.push(vec![byte; 30]);
                    }
                    Step::Sweep(mask) => {
                        let live: HashSet<Blake3> = blobs
                            .keys()
                            .enumerate()
                            .filter(|(number, _)| mask >> (number % 64) & 1 == 1)
                            .map(|(_, hash)| *hash)
                            .collect();
                        let dead =
                            blobs.keys().filter(|h| !live.contains(*h) && !damaged.contains(*h));
                        let dead = dead.count() as u64;
                        let report = store.exclusive().sweep(&live, false).unwrap();
                        prop_assert_eq!(report.blobs, dead);
                        blobs.retain(|hash, _| live.contains(hash));
                        damaged.retain(|hash| live.contains(hash));
                    }
                    Step::Restart { clean_views } => {
                        drop(store);
                        if !clean_views {
                            fs::remove_dir_all(dir.path().join("views")).unwrap();
                        }
                        let mut seen = Vec::new();
                        let on_record = &mut |envelope: &[u8]| seen.push(envelope.to_vec());
                        store = Store::open(Arc::new(RealFiles), dir.path(), &options, on_record)
                            .unwrap();
                        prop_assert_eq!(&seen, &records);
                    }
                    Step::Flip(index) => {
                        let flats: Vec<_> = blobs
                            .iter()
                            .filter(|(hash, bytes)| {
                                bytes.len() >= 65_536 && !damaged.contains(*hash)
                            })
                            .collect();
                        if !flats.is_empty() {
                            let (hash, bytes) = flats[index.index(flats.len())];
                            flip(&flat_path(dir.path(), hash), bytes.len() as u64 / 3);
                            damaged.insert(*hash);
                            prop_assert!(store.verify(hash).is_err());
                        }
                    }
                }
                let sum = |blobs: &std::collections::BTreeMap<Blake3, Vec<u8>>| {
                    blobs.iter().filter(|(hash, _)| !damaged.contains(*hash))
                        .fold((0, 0), |(n, b), (_, bytes)| (n + 1, b + bytes.len() as u64))
                };
                let stats = store.stats();
                prop_assert_eq!((stats.blobs, stats.bytes), sum(&blobs));
                let on_disk: u64 =
                    segments(dir.path()).iter().map(|p| fs::metadata(p).unwrap().len()).sum();
                prop_assert_eq!(stats.log_bytes, on_disk);
                for (hash, bytes) in &blobs {
                    if damaged.contains(hash) {
                        let is_damaged =
                            matches!(store.content(hash), Err(StoreError::Damaged { .. }));
                        prop_assert!(is_damaged);
                    } else {
                        prop_assert_eq!(&read(&store, hash).unwrap(), bytes);
                    }
                }
                for seed in 0..12 {
                    let hash = Blake3::of(&noise(seed, 1 << 20));
                    prop_assert_eq!(
                        store.contains(&hash).unwrap(),
                        blobs.contains_key(&hash) && !damaged.contains(&hash)
                    );
                }
            }
        }
    }
}
