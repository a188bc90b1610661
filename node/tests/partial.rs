//! What the store promises of files that come piece by piece, of blobs by their pieces, and of eviction.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cairn_node::files::RealFiles;
use cairn_node::store::{
    Claim, Content, Digests, FinishError, Partial, Store, StoreError, StoreOptions,
};
use cairn_protocol::envelope::Envelope;
use cairn_protocol::hash::{Blake3, GitOid, RecordId, Sha256};
use cairn_protocol::limits::PIECE_BYTES;
use cairn_protocol::piece::{PieceHasher, PieceList, PieceSet, piece_count, piece_len};

#[path = "support/bytes.rs"]
mod bytes_support;

use bytes_support::noise;

/// Four pieces, the last one short.
const LARGE: usize = (3 << 20) + 12_345;

fn options() -> StoreOptions {
    StoreOptions {
        view_cache_bytes: 1 << 20,
        reserve_bytes: 0,
        ..StoreOptions::default()
    }
}

fn open_with(dir: &Path, options: &StoreOptions) -> Store {
    Store::open(Arc::new(RealFiles), dir, options, &mut |_| {}).unwrap()
}

fn open(dir: &Path) -> Store {
    open_with(dir, &options())
}

/// A file that comes from peers.
struct Sample {
    bytes: Bytes,
    hash: Blake3,
    list: PieceList,
    claim: Claim,
}

impl Sample {
    fn new(seed: u64, len: usize) -> Self {
        let bytes = Bytes::from(noise(seed, len));
        let mut hasher = PieceHasher::new();
        hasher.update(&bytes);
        let (hash, list) = hasher.finish();
        let list = PieceList::decode(list.as_deref(), len as u64, &hash).unwrap();
        let claim = Claim {
            sha256: sha256(&bytes),
            git: Some(git(&bytes)),
        };
        Self {
            bytes,
            hash,
            list,
            claim,
        }
    }

    fn count(&self) -> u64 {
        piece_count(self.bytes.len() as u64)
    }

    /// A piece in parts as they come from the network.
    fn piece(&self, index: u64) -> Vec<Bytes> {
        let start = usize::try_from(index * PIECE_BYTES).unwrap();
        let len = usize::try_from(piece_len(index, self.bytes.len() as u64).unwrap()).unwrap();
        let piece = self.bytes.slice(start..start + len);
        let mut parts = vec![Bytes::new()];
        parts.extend(
            (0..len)
                .step_by(16_384)
                .map(|at| piece.slice(at..len.min(at + 16_384))),
        );
        parts
    }

    fn write(&self, partial: &Partial, index: u64) {
        partial.write(index, &self.piece(index)).unwrap();
    }

    fn pull(&self, store: &Store) -> Digests {
        let partial = store.partial(&self.hash, &self.list).unwrap();
        (0..self.count()).for_each(|index| self.write(&partial, index));
        partial.finish(&self.claim).unwrap()
    }

    fn digests(&self) -> Digests {
        Digests {
            blake3: self.hash,
            sha256: self.claim.sha256,
            git: self.claim.git,
            size: self.bytes.len() as u64,
        }
    }

    fn assert_stored(&self, store: &Store) {
        assert_eq!(read(store, &self.hash).unwrap(), self.bytes);
        assert_eq!(store.digests(&self.hash).unwrap(), Some(self.digests()));
        let pieces = store.pieces(&self.hash).unwrap();
        assert_eq!(**pieces.list(), self.list);
        assert_eq!(pieces.held(), None);
        for index in 0..self.count() {
            assert_eq!(pieces.read(index).unwrap(), self.piece(index).concat());
        }
        assert!(matches!(
            pieces.read(self.count()),
            Err(StoreError::Absent { .. })
        ));
    }
}

fn sha256(bytes: &[u8]) -> Sha256 {
    use sha2::Digest as _;
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

fn git(bytes: &[u8]) -> GitOid {
    let mut hasher = cairn_protocol::git::BlobHasher::new(bytes.len() as u64);
    hasher.update(bytes);
    hasher.finish().unwrap()
}

fn read(store: &Store, hash: &Blake3) -> Result<Vec<u8>, StoreError> {
    match store.content(hash)? {
        Content::Small(bytes) => Ok(bytes.to_vec()),
        Content::Flat(flat) => Ok(fs::read(&flat.path).unwrap()),
    }
}

fn import(store: &Store, bytes: &[u8]) {
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), bytes).unwrap();
    let file = File::open(source.path()).unwrap();
    store
        .import(&mut &file, bytes.len() as u64, true, &mut |_| {})
        .unwrap();
}

fn flat_path(dir: &Path, hash: &Blake3) -> PathBuf {
    let hex = hash.to_hex();
    dir.join("blobs").join(&hex[..2]).join(hex)
}

fn data_path(dir: &Path, hash: &Blake3) -> PathBuf {
    dir.join("partial").join(hash.to_hex())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn set(size: usize, held: &[u64]) -> PieceSet {
    let mut set = PieceSet::empty(size as u64);
    for index in held {
        set.insert(*index);
    }
    set
}

#[test]
fn to_discard_a_part_leaves_the_whole_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let sample = Sample::new(7, LARGE);
    let partial = store.partial(&sample.hash, &sample.list).unwrap();
    sample.write(&partial, 0);
    // A push stores the same bytes meanwhile.
    import(&store, &sample.bytes);
    assert_eq!(store.discard(&sample.hash).unwrap(), PIECE_BYTES);
    assert_eq!(store.partials(), []);
    drop(partial);
    sample.assert_stored(&store);
    assert_eq!(store.discard(&sample.hash).unwrap(), 0);
    sample.assert_stored(&store);
}

#[test]
fn a_file_of_any_size_becomes_a_blob_whatever_the_order_of_its_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [
        0,
        1,
        65_535,
        65_536,
        1 << 20,
        (1 << 20) + 1,
        LARGE,
        40 << 20,
    ];
    let samples: Vec<Sample> = (0..)
        .zip(sizes)
        .map(|(seed, len)| Sample::new(seed, len))
        .collect();
    let store = open(dir.path());
    for (number, sample) in samples.iter().enumerate() {
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        assert!(matches!(
            partial.finish(&sample.claim),
            Err(FinishError::Incomplete)
        ));
        // In order, backwards, and from the middle on.
        let count = sample.count();
        for turn in 0..count {
            let index = match number % 3 {
                0 => turn,
                1 => count - 1 - turn,
                _ => (turn + count / 2) % count,
            };
            assert!(!partial.has(index));
            sample.write(&partial, index);
            sample.write(&partial, index);
            assert!(partial.has(index));
            assert_eq!(partial.read(index).unwrap(), sample.piece(index).concat());
        }
        assert_eq!(partial.finish(&sample.claim).unwrap(), sample.digests());
        // What comes late changes nothing.
        sample.write(&partial, 0);
        assert_eq!(partial.finish(&sample.claim).unwrap(), sample.digests());
        sample.assert_stored(&store);
    }
    assert_eq!(store.stats().blobs, samples.len() as u64);
    assert_eq!(store.partials(), []);
    assert_eq!(names(&dir.path().join("partial")), [] as [&str; 0]);
    drop(store);
    let store = open(dir.path());
    for sample in &samples {
        sample.assert_stored(&store);
    }
    assert_eq!(store.stats().blobs, samples.len() as u64);
    assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
}

#[test]
fn pieces_are_there_again_after_the_process_closed_and_after_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(1, LARGE);
    let store = open(dir.path());
    let partial = store.partial(&sample.hash, &sample.list).unwrap();
    sample.write(&partial, 2);
    sample.write(&partial, 0);
    // What a killed process leaves: all that was written, and no note of it.
    let killed = tempfile::tempdir().unwrap();
    fs::create_dir(killed.path().join("partial")).unwrap();
    for path in [
        data_path(dir.path(), &sample.hash),
        data_path(dir.path(), &sample.hash).with_extension("pieces"),
    ] {
        fs::copy(
            &path,
            killed
                .path()
                .join("partial")
                .join(path.file_name().unwrap()),
        )
        .unwrap();
    }
    drop(partial);
    drop(store);
    for (dir, noted) in [(dir.path(), 2 << 20), (killed.path(), 0)] {
        let store = open(dir);
        assert_eq!(store.partials(), [(sample.hash, LARGE as u64, noted)]);
        let pieces = store.pieces(&sample.hash).unwrap();
        assert_eq!(pieces.held(), Some(set(LARGE, &[0, 2])));
        assert_eq!(store.partials(), [(sample.hash, LARGE as u64, 2 << 20)]);
        assert_eq!(pieces.read(2).unwrap(), sample.piece(2).concat());
        assert!(matches!(pieces.read(1), Err(StoreError::Absent { .. })));
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        assert!(matches!(
            partial.finish(&sample.claim),
            Err(FinishError::Incomplete)
        ));
        sample.write(&partial, 3);
        sample.write(&partial, 1);
        // Who asked before sees what came since.
        assert_eq!(pieces.held(), None);
        assert_eq!(pieces.read(1).unwrap(), sample.piece(1).concat());
        assert_eq!(partial.finish(&sample.claim).unwrap(), sample.digests());
        assert_eq!(pieces.read(1).unwrap(), sample.piece(1).concat());
        sample.assert_stored(&store);
    }
}

#[test]
fn all_who_open_a_file_share_it_from_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(2, (24 << 20) + 7);
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, sample) = (&store, &sample);
            scope.spawn(move || {
                let partial = store.partial(&sample.hash, &sample.list).unwrap();
                // Each piece comes twice.
                for index in 0..sample.count() {
                    if index % 4 == thread || index % 4 == (thread + 1) % 4 {
                        sample.write(&partial, index);
                    }
                }
            });
        }
    });
    let partial = store.partial(&sample.hash, &sample.list).unwrap();
    let finished: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| partial.finish(&sample.claim).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(finished, vec![sample.digests(); 3]);
    sample.assert_stored(&store);
}

#[test]
fn a_piece_of_another_length_and_a_list_of_another_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (sample, other) = (Sample::new(3, LARGE), Sample::new(4, LARGE));
    let store = open(dir.path());
    assert!(store.partial(&sample.hash, &other.list).is_err());
    let partial = store.partial(&sample.hash, &sample.list).unwrap();
    for (index, part) in [(0, 3), (3, 0), (4, 3), (u64::MAX, 0)] {
        assert!(partial.write(index, &sample.piece(part)).is_err());
    }
    // The same list, and another length of the last piece.
    let longer = PieceList::decode(
        sample.list.encode().as_deref(),
        LARGE as u64 + 1,
        &sample.hash,
    )
    .unwrap();
    assert!(store.partial(&sample.hash, &longer).is_err());
    assert!(partial.held().is_empty());
    assert!(matches!(partial.read(0), Err(StoreError::Absent { .. })));
    // A wrong length that nobody works with any more does not stand in the way.
    drop(partial);
    drop(store);
    let store = open(dir.path());
    drop(store.partial(&sample.hash, &longer).unwrap());
    drop(store);
    let store = open(dir.path());
    sample.pull(&store);
    sample.assert_stored(&store);
}

#[test]
fn a_file_that_is_not_what_was_claimed_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (len, seed) in [(LARGE, 5), (300, 6)] {
        let sample = Sample::new(seed, len);
        let wrong = [
            (
                Claim {
                    sha256: sha256(b"other"),
                    ..sample.claim
                },
                "SHA-256",
            ),
            (
                Claim {
                    git: Some(git(b"other")),
                    ..sample.claim
                },
                "git blob id",
            ),
        ];
        for (claim, what) in wrong {
            let partial = store.partial(&sample.hash, &sample.list).unwrap();
            (0..sample.count()).for_each(|index| sample.write(&partial, index));
            partial.sync().unwrap();
            let refused = partial.finish(&claim).unwrap_err();
            assert!(matches!(refused, FinishError::Disagrees(found) if found == what));
            assert!(!store.contains(&sample.hash).unwrap());
            assert!(matches!(
                store.pieces(&sample.hash),
                Err(StoreError::Absent { .. })
            ));
            assert_eq!(names(&dir.path().join("partial")), [] as [&str; 0]);
            assert!(matches!(
                partial.write(0, &sample.piece(0)),
                Err(StoreError::Absent { .. })
            ));
        }
        assert_eq!(sample.pull(&store), sample.digests());
        // Another claim of what is stored by now is as wrong, and costs nothing.
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        (0..sample.count()).for_each(|index| sample.write(&partial, index));
        assert!(matches!(
            partial.finish(&wrong[0].0),
            Err(FinishError::Disagrees(_))
        ));
        sample.assert_stored(&store);
    }
}

#[test]
fn a_byte_that_flips_in_a_partial_file_costs_its_piece_and_nobody_else_is_blamed() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(7, LARGE);
    let all = |store: &Store| {
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        for index in 0..sample.count() {
            if !partial.has(index) {
                sample.write(&partial, index);
            }
        }
        partial.sync().unwrap();
    };
    all(&open(dir.path()));
    flip(&data_path(dir.path(), &sample.hash), (1 << 20) + 5);
    {
        let store = open(dir.path());
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        assert!(matches!(partial.read(1), Err(StoreError::Absent { .. })));
        assert_eq!(partial.held(), set(LARGE, &[0, 2, 3]));
        assert!(partial.read(0).is_ok());
        all(&store);
    }
    flip(&data_path(dir.path(), &sample.hash), (2 << 20) + 5);
    {
        let store = open(dir.path());
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        assert!(partial.held().is_full());
        assert!(matches!(
            partial.finish(&sample.claim),
            Err(FinishError::Incomplete)
        ));
        assert_eq!(partial.held(), set(LARGE, &[0, 1, 3]));
        // Known after a restart, too.
        drop(partial);
        drop(store);
        let store = open(dir.path());
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        assert_eq!(partial.held(), set(LARGE, &[0, 1, 3]));
        sample.write(&partial, 2);
        assert_eq!(partial.finish(&sample.claim).unwrap(), sample.digests());
        sample.assert_stored(&store);
    }
}

#[test]
fn a_byte_that_flips_in_a_stored_file_is_found_by_its_piece_and_healed_by_pulling_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(8, LARGE);
    let store = open(dir.path());
    sample.pull(&store);
    let pieces = store.pieces(&sample.hash).unwrap();
    let path = flat_path(dir.path(), &sample.hash);
    flip(&path, (1 << 20) + 99);
    let alarms = store.alarms();
    // Not read in full: what is right is still handed out.
    assert!(store.pieces(&sample.hash).unwrap().read(0).is_ok());
    assert!(matches!(pieces.read(1), Err(StoreError::Damaged { .. })));
    assert!(store.alarms() > alarms);
    assert!(!path.exists());
    assert_eq!(names(&dir.path().join("damaged")), [sample.hash.to_hex()]);
    assert!(matches!(
        store.pieces(&sample.hash),
        Err(StoreError::Damaged { .. })
    ));
    assert!(matches!(
        store.content(&sample.hash),
        Err(StoreError::Damaged { .. })
    ));
    assert!(!store.contains(&sample.hash).unwrap());
    let alarms = store.alarms();
    assert_eq!(sample.pull(&store), sample.digests());
    assert!(store.alarms() > alarms);
    sample.assert_stored(&store);
    // Who still has the bad file open does no harm to the good one.
    assert!(matches!(pieces.read(1), Err(StoreError::Damaged { .. })));
    sample.assert_stored(&store);
    assert_eq!(store.stats().blobs, 1);
    drop((pieces, store));
    sample.assert_stored(&open(dir.path()));
}

#[test]
fn a_stored_file_without_a_right_piece_list_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(9, LARGE);
    let store = open(dir.path());
    import(&store, &sample.bytes);
    drop(store);
    let list = flat_path(dir.path(), &sample.hash).with_extension("pieces");
    let right = fs::read(&list).unwrap();
    for harm in 0..3 {
        match harm {
            0 => fs::remove_file(&list).unwrap(),
            1 => flip(&list, 40),
            _ => fs::write(&list, &right[1..]).unwrap(),
        }
        sample.assert_stored(&open(dir.path()));
        assert_eq!(fs::read(&list).unwrap(), right);
    }
}

#[test]
fn what_is_of_no_use_is_removed_at_the_start_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, whole, cut) = (
        Sample::new(10, LARGE),
        Sample::new(11, LARGE),
        Sample::new(12, LARGE),
    );
    let store = open(dir.path());
    for sample in [&kept, &whole, &cut] {
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        sample.write(&partial, 0);
        partial.sync().unwrap();
    }
    import(&store, &whole.bytes);
    drop(store);
    let folder = dir.path().join("partial");
    fs::write(folder.join("no hash"), b"x").unwrap();
    fs::write(folder.join(format!("{}.other", kept.hash.to_hex())), b"x").unwrap();
    fs::write(
        folder.join(format!("{}.held", Blake3::of(b"gone").to_hex())),
        b"x",
    )
    .unwrap();
    fs::write(
        folder.join(Blake3::of(b"no list").to_hex()),
        vec![0; 2 << 20],
    )
    .unwrap();
    fs::write(data_path(dir.path(), &cut.hash), b"short").unwrap();
    // A note that does not match its checksum is as good as none.
    flip(
        &data_path(dir.path(), &kept.hash).with_extension("held"),
        4096 + 3,
    );
    let store = open(dir.path());
    assert_eq!(store.partials().len(), 1);
    let hex = kept.hash.to_hex();
    assert_eq!(
        names(&folder),
        [hex.clone(), format!("{hex}.held"), format!("{hex}.pieces")]
    );
    assert_eq!(
        store.pieces(&kept.hash).unwrap().held(),
        Some(set(LARGE, &[0]))
    );
    whole.assert_stored(&store);
    // A list that was damaged goes unnoticed until somebody looks.
    drop(store);
    flip(
        &data_path(dir.path(), &kept.hash).with_extension("pieces"),
        3,
    );
    let store = open(dir.path());
    assert!(matches!(
        store.pieces(&kept.hash),
        Err(StoreError::Absent { .. })
    ));
    assert_eq!(kept.pull(&store), kept.digests());
    cut.pull(&store);
    cut.assert_stored(&store);
}

#[test]
fn where_a_file_finds_no_room_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (sample, other) = (Sample::new(13, LARGE), Sample::new(14, LARGE));
    let store = open(dir.path());
    let partial = store.partial(&sample.hash, &sample.list).unwrap();
    sample.write(&partial, 1);
    drop((partial, store));
    let full = StoreOptions {
        reserve_bytes: u64::MAX,
        ..options()
    };
    {
        let store = open_with(dir.path(), &full);
        assert!(matches!(
            store.partial(&other.hash, &other.list),
            Err(StoreError::Full { .. })
        ));
        assert_eq!(store.partials().len(), 1);
        let partial = store.partial(&sample.hash, &sample.list).unwrap();
        let refused = partial.write(0, &sample.piece(0));
        assert!(
            matches!(refused, Err(StoreError::Full { .. })),
            "{refused:?}"
        );
        assert_eq!(partial.held(), set(LARGE, &[1]));
        assert_eq!(partial.read(1).unwrap(), sample.piece(1).concat());
    }
    let store = open(dir.path());
    assert_eq!(
        store.pieces(&sample.hash).unwrap().held(),
        Some(set(LARGE, &[1]))
    );
    sample.pull(&store);
    sample.assert_stored(&store);
}

/// Hash and size of all flat files.
fn flats(store: &Store) -> Vec<(Blake3, u64)> {
    let mut flats = Vec::new();
    store
        .flats(&mut |hash, size| flats.push((hash, size)))
        .unwrap();
    flats.sort();
    flats
}

#[test]
fn an_evicted_file_is_absent_until_it_is_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let (sample, kept, small) = (
        Sample::new(15, LARGE),
        Sample::new(16, 100_000),
        Sample::new(17, 900),
    );
    let mut store = open(dir.path());
    for sample in [&sample, &kept, &small] {
        sample.pull(&store);
    }
    let before = store.stats();
    let size = LARGE as u64;
    let mut both = vec![(sample.hash, size), (kept.hash, 100_000)];
    both.sort();
    for round in 0..3 {
        assert_eq!(flats(&store), both);
        let pieces = store.pieces(&sample.hash).unwrap();
        let Content::Flat(reading) = store.content(&sample.hash).unwrap() else {
            panic!("not flat")
        };
        assert_eq!(store.evict(&sample.hash).unwrap(), size);
        assert_eq!(store.evict(&sample.hash).unwrap(), 0);
        // Who reads it reads on.
        let mut bytes = Vec::new();
        (&*reading.file).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, sample.bytes);
        assert_eq!(pieces.read(3).unwrap(), sample.piece(3).concat());
        assert!(!flat_path(dir.path(), &sample.hash).exists());
        for restarted in [false, true] {
            if restarted {
                drop(store);
                store = open(dir.path());
            }
            assert!(!store.contains(&sample.hash).unwrap());
            assert!(matches!(
                store.content(&sample.hash),
                Err(StoreError::Absent { .. })
            ));
            assert!(matches!(
                store.pieces(&sample.hash),
                Err(StoreError::Absent { .. })
            ));
            assert_eq!(store.digests(&sample.hash).unwrap(), None);
            assert_eq!(store.by_sha256(&sample.claim.sha256).unwrap(), None);
            assert_eq!(store.by_git(&sample.claim.git.unwrap()).unwrap(), None);
            assert_eq!(flats(&store), [(kept.hash, 100_000)]);
            assert_eq!(
                (store.stats().blobs, store.stats().bytes),
                (before.blobs - 1, before.bytes - size)
            );
        }
        assert_eq!(store.verify_all(&mut |_, _| {}).unwrap(), []);
        match round {
            0 => import(&store, &sample.bytes),
            1 => drop(sample.pull(&store)),
            _ => {}
        }
        if round < 2 {
            sample.assert_stored(&store);
            assert_eq!(
                (store.stats().blobs, store.stats().bytes),
                (before.blobs, before.bytes)
            );
        }
    }
    // Small blobs stay, and what is not there is no error.
    assert_eq!(store.evict(&small.hash).unwrap(), 0);
    assert_eq!(store.evict(&Blake3::of(b"never stored")).unwrap(), 0);
    small.assert_stored(&store);
    let live: HashSet<Blake3> = [sample.hash, kept.hash, small.hash].into();
    let planned = store.exclusive().sweep(&live, true).unwrap();
    let swept = store.exclusive().sweep(&live, false).unwrap();
    assert_eq!(planned, swept);
    assert_eq!((swept.blobs, swept.strays), (0, 0));
    assert!(swept.freed_bytes > 0);
    assert_eq!(
        store.exclusive().sweep(&live, false).unwrap().freed_bytes,
        0
    );
    for restarted in [false, true] {
        if restarted {
            drop(store);
            store = open(dir.path());
        }
        assert!(!store.contains(&sample.hash).unwrap());
        kept.assert_stored(&store);
        small.assert_stored(&store);
        assert_eq!(
            (store.stats().blobs, store.stats().bytes),
            (before.blobs - 1, before.bytes - size)
        );
    }
    sample.pull(&store);
    sample.assert_stored(&store);
    assert_eq!(store.stats().blobs, before.blobs);
}

#[test]
fn a_partial_file_can_be_evicted_while_it_is_open_and_while_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(18, LARGE);
    let store = open(dir.path());
    let partial = store.partial(&sample.hash, &sample.list).unwrap();
    sample.write(&partial, 0);
    partial.sync().unwrap();
    assert_eq!(store.evict(&sample.hash).unwrap(), 1 << 20);
    assert_eq!(store.partials(), []);
    assert_eq!(names(&dir.path().join("partial")), [] as [&str; 0]);
    assert!(matches!(
        partial.write(1, &sample.piece(1)),
        Err(StoreError::Absent { .. })
    ));
    assert_eq!(partial.read(0).unwrap(), sample.piece(0).concat());
    assert!(matches!(
        partial.finish(&sample.claim),
        Err(FinishError::Incomplete)
    ));
    partial.sync().unwrap();
    let again = store.partial(&sample.hash, &sample.list).unwrap();
    assert!(again.held().is_empty());
    sample.write(&again, 3);
    drop((partial, again, store));
    let store = open(dir.path());
    assert_eq!(store.evict(&sample.hash).unwrap(), 12_345);
    assert_eq!(names(&dir.path().join("partial")), [] as [&str; 0]);
    sample.pull(&store);
    sample.assert_stored(&store);
}

#[test]
fn a_sweep_leaves_partial_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample::new(19, LARGE);
    let store = open(dir.path());
    let partial = store.partial(&sample.hash, &sample.list).unwrap();
    sample.write(&partial, 0);
    let report = store.exclusive().sweep(&HashSet::new(), false).unwrap();
    assert_eq!((report.strays, report.blobs), (0, 0));
    (1..sample.count()).for_each(|index| sample.write(&partial, index));
    partial.finish(&sample.claim).unwrap();
    sample.assert_stored(&store);
}

#[test]
fn the_last_use_of_a_flat_file_orders_them_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Sample::new(20, 70_000), Sample::new(21, 70_000));
    let store = open(dir.path());
    import(&store, &one.bytes);
    import(&store, &two.bytes);
    assert_eq!(store.last_use(&one.hash), 0);
    store.content(&one.hash).unwrap();
    store.pieces(&two.hash).unwrap();
    assert!(0 < store.last_use(&one.hash) && store.last_use(&one.hash) < store.last_use(&two.hash));
    store.content(&one.hash).unwrap();
    assert!(store.last_use(&two.hash) < store.last_use(&one.hash));
    drop(store);
    let store = open(dir.path());
    assert!(0 < store.last_use(&one.hash) && 0 < store.last_use(&two.hash));
    let before = store.last_use(&two.hash);
    store.content(&one.hash).unwrap();
    assert!(before < store.last_use(&one.hash));
}

/// An envelope as it is sent, signed by nobody: the store takes it as it is.
fn envelope(number: u32) -> (RecordId, Vec<u8>) {
    let seed = cairn_protocol::key::SecretKey::from_seed([7; 32]);
    let payload = format!("{{\"number\":{number}}}").into_bytes();
    let envelope = Envelope::sign("application/vnd.test", payload, &[&seed]).unwrap();
    (envelope.id(), envelope.as_bytes().to_vec())
}

#[test]
fn records_are_found_by_their_id_also_without_views() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<_> = (0..10_000).map(envelope).collect();
    let store = open(dir.path());
    for some in records.chunks(1_000) {
        let mut batch = store.batch();
        for (_, envelope) in some {
            batch.record(envelope.clone());
        }
        batch.record(b"no envelope".to_vec());
        batch.commit().unwrap();
    }
    let check = |store: &Store| {
        for (id, envelope) in records.iter().step_by(97) {
            assert_eq!(store.record(id).unwrap().as_ref(), Some(envelope));
        }
        assert_eq!(store.record(&RecordId::from_bytes([3; 32])).unwrap(), None);
    };
    check(&store);
    drop(store);
    let started = std::time::Instant::now();
    let store = open(dir.path());
    eprintln!("a start with 10,000 records takes {:?}", started.elapsed());
    check(&store);
    drop(store);
    fs::remove_dir_all(dir.path().join("views")).unwrap();
    check(&open(dir.path()));
    let without = StoreOptions {
        view_cache_bytes: 0,
        ..options()
    };
    let store = open_with(dir.path(), &without);
    let (id, envelope) = &records[5_000];
    assert_eq!(store.record(id).unwrap().as_ref(), Some(envelope));
}

mod model {
    use proptest::prelude::*;

    use super::*;

    /// Several pieces, one piece in a file, and one in the log.
    const SIZES: [usize; 3] = [LARGE, 90_000, 2_000];

    #[derive(Debug, Clone)]
    enum Step {
        Write { file: usize, index: u64 },
        Sync { file: usize },
        Finish { file: usize },
        Evict { file: usize },
        Reopen,
        Sweep,
    }

    fn step() -> impl Strategy<Value = Step> {
        let file = || 0..SIZES.len();
        prop_oneof![
            8 => (file(), 0..4_u64).prop_map(|(file, index)| Step::Write { file, index }),
            1 => file().prop_map(|file| Step::Sync { file }),
            3 => file().prop_map(|file| Step::Finish { file }),
            1 => file().prop_map(|file| Step::Evict { file }),
            2 => Just(Step::Reopen),
            1 => Just(Step::Sweep),
        ]
    }

    #[derive(Debug, Clone)]
    enum Have {
        Pieces(PieceSet),
        Whole,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_store_answers_as_sets_of_pieces_do(steps in proptest::collection::vec(step(), 1..40)) {
            let samples = [0, 1, 2].map(|file| Sample::new(100 + file as u64, SIZES[file]));
            let none = [0, 1, 2].map(|file| PieceSet::empty(SIZES[file] as u64));
            let mut model = none.clone().map(Have::Pieces);
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path());
            for step in steps {
                match step {
                    Step::Write { file, index } => {
                        let (sample, index) = (&samples[file], index % samples[file].count());
                        if let Have::Pieces(held) = &mut model[file] {
                            let partial = store.partial(&sample.hash, &sample.list).unwrap();
                            sample.write(&partial, index);
                            held.insert(index);
                        }
                    }
                    Step::Sync { file } => {
                        let sample = &samples[file];
                        if matches!(model[file], Have::Pieces(_)) {
                            store.partial(&sample.hash, &sample.list).unwrap().sync().unwrap();
                        }
                    }
                    Step::Finish { file } => {
                        let sample = &samples[file];
                        if let Have::Pieces(held) = &model[file] {
                            let partial = store.partial(&sample.hash, &sample.list).unwrap();
                            match partial.finish(&sample.claim) {
                                Ok(digests) => {
                                    prop_assert_eq!(digests, sample.digests());
                                    prop_assert!(held.is_full());
                                    model[file] = Have::Whole;
                                }
                                Err(FinishError::Incomplete) => prop_assert!(!held.is_full()),
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    }
                    Step::Evict { file } => {
                        let freed = store.evict(&samples[file].hash).unwrap();
                        match &mut model[file] {
                            Have::Whole if file == 2 => prop_assert_eq!(freed, 0),
                            Have::Whole => prop_assert_eq!(freed, SIZES[file] as u64),
                            Have::Pieces(held) => prop_assert_eq!(freed > 0, !held.is_empty()),
                        }
                        if !(file == 2 && matches!(model[file], Have::Whole)) {
                            model[file] = Have::Pieces(none[file].clone());
                        }
                    }
                    Step::Reopen => {
                        drop(store);
                        store = open(dir.path());
                    }
                    Step::Sweep => {
                        let live: HashSet<Blake3> = samples.iter().map(|sample| sample.hash).collect();
                        store.exclusive().sweep(&live, false).unwrap();
                    }
                }
                let (mut blobs, mut bytes) = (0, 0);
                for (file, sample) in samples.iter().enumerate() {
                    match &model[file] {
                        Have::Whole => {
                            sample.assert_stored(&store);
                            blobs += 1;
                            bytes += SIZES[file] as u64;
                        }
                        Have::Pieces(held) => {
                            prop_assert!(!store.contains(&sample.hash).unwrap());
                            match store.pieces(&sample.hash) {
                                Ok(pieces) => {
                                    let found = pieces.held();
                                    let full = PieceSet::full(SIZES[file] as u64);
                                    prop_assert_eq!(&found.unwrap_or(full), held);
                                    for index in 0..held.count() {
                                        prop_assert_eq!(pieces.read(index).is_ok(), held.contains(index));
                                    }
                                }
                                Err(StoreError::Absent { .. }) => prop_assert!(held.is_empty()),
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    }
                }
                prop_assert_eq!((store.stats().blobs, store.stats().bytes), (blobs, bytes));
            }
        }
    }
}
