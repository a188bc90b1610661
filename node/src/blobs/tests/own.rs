//! Ours with ours.

use cairn_protocol::piece::piece_count;
use cairn_protocol::transfer::Held;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_move_between_two_nodes() {
    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    ours.meet(&theirs);
    for (seed, size) in SIZES.iter().enumerate() {
        let bytes = content(*size, seed as u64);
        let hash = theirs.add(&bytes);
        let (root, expected) = list_of(&bytes);
        assert_eq!(root, hash);
        let held = ours.blobs.look_up(theirs.key, vec![hash]).await.unwrap();
        assert_eq!(held, [Held::Whole(*size as u64)], "{size}");
        let list = ours
            .blobs
            .list(theirs.key, hash, *size as u64)
            .await
            .unwrap();
        assert_eq!(list, *expected, "{size}");
        let list = Arc::new(list);
        let count = piece_count(*size as u64);
        let (came, ended) = ours.pieces(theirs.key, hash, &list, 0..count).await;
        ended.unwrap_or_else(|error| panic!("{size}: {error}"));
        assert!(came.iter().map(|piece| piece.index).eq(0..count), "{size}");
        assert!(joined(&came) == bytes, "{size}");
        // Any run of pieces by itself.
        for (from, to) in [
            (count - 1, count),
            (count / 2, count),
            (0, count / 2),
            (1, 2),
        ] {
            for carrier in CARRIERS {
                let [start, end] = [from, to].map(|piece| ((piece as usize) << 20).min(*size));
                if start == end && matches!(carrier, Carrier::Tcp) {
                    // No range of HTTP selects no byte.
                    continue;
                }
                let got = ours.pieces_over(Some(carrier), theirs.key, hash, &list, from..to);
                let (came, ended) = got.await;
                ended.unwrap_or_else(|error| panic!("{size} {from}..{to} {carrier:?}: {error}"));
                assert!(
                    joined(&came) == bytes[start..end],
                    "{size} {from}..{to} {carrier:?}"
                );
            }
        }
    }
    let sent: u64 = theirs.blobs.traffic().iter().map(|(_, sent, _)| sent).sum();
    let taken = ours.blobs.traffic()[0].2;
    assert_eq!(ours.blobs.traffic()[0].0, theirs.key);
    assert!(sent > taken && taken > 17 << 20, "{sent} {taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_may_not_read_looks_absent() {
    let secret = content(3 << 20, 1);
    let (hash, list) = list_of(&secret);
    let may_read: MayRead = Arc::new(move |_, asked| *asked != hash);
    let theirs = Node::with(2, config(), may_read).await;
    let ours = Node::new(1).await;
    ours.meet(&theirs);
    assert_eq!(theirs.add(&secret), hash);
    let shown = theirs.add(b"shown");
    let missing = Blake3::of(b"never stored");
    let asked = vec![hash, missing, shown];
    let held = ours.blobs.look_up(theirs.key, asked).await.unwrap();
    assert_eq!(held, [Held::Absent, Held::Absent, Held::Whole(5)]);
    for hash in [hash, missing] {
        let list_of_it = ours.blobs.list(theirs.key, hash, 3 << 20).await;
        assert!(
            matches!(list_of_it, Err(TransferError::Absent)),
            "{list_of_it:?}"
        );
        for carrier in CARRIERS {
            let got = ours.pieces_over(Some(carrier), theirs.key, hash, &list, 0..3);
            let (came, ended) = got.await;
            assert!(
                came.is_empty() && matches!(ended, Err(TransferError::Absent)),
                "{carrier:?} {ended:?}"
            );
        }
        let (came, ended) = ours.blobs(theirs.key, &[shown, hash]).await;
        assert!(matches!(ended, Err(TransferError::Absent)), "{ended:?}");
        assert!(came.iter().all(|(came, _)| *came == shown));
        let closure = ours.blobs.closure(theirs.key, hash, 0).await.unwrap();
        assert_eq!(closure, (Vec::new(), false));
    }
    // As a child of a sequence that may be read, it is as absent.
    let sequence = theirs.add(&[shown.as_bytes(), &hash.as_bytes()[..]].concat());
    let (came, ended) = ours.blobs(theirs.key, &[sequence]).await;
    ended.unwrap();
    assert_eq!(came[0].1.len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_here_in_part_is_served_from_its_first_piece_on() {
    let bytes = content((6 << 20) + 5, 1);
    let (hash, list) = list_of(&bytes);
    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    ours.meet(&theirs);
    let partial = theirs.store.partial(&hash, &list).unwrap();
    for index in [1, 2, 6] {
        let from = (index as usize) << 20;
        let piece = Bytes::copy_from_slice(&bytes[from..bytes.len().min(from + (1 << 20))]);
        partial.write(index, &[piece]).unwrap();
    }
    let held = ours.blobs.look_up(theirs.key, vec![hash]).await.unwrap();
    let [Held::Partial(size, set)] = &*held else {
        panic!("{held:?}");
    };
    assert_eq!(*size, bytes.len() as u64);
    assert!((0..7).filter(|index| set.contains(*index)).eq([1, 2, 6]));
    assert_eq!(
        ours.blobs.list(theirs.key, hash, *size).await.unwrap(),
        *list
    );
    let cases = [
        (1..3, 1..3),
        (6..7, 6..7),
        (2..5, 2..3),
        (0..7, 0..0),
        (3..4, 3..3),
    ];
    for (carrier, (pieces, held)) in CARRIERS
        .iter()
        .flat_map(|carrier| cases.iter().map(move |case| (*carrier, case.clone())))
    {
        let got = ours.pieces_over(Some(carrier), theirs.key, hash, &list, pieces.clone());
        let (came, ended) = got.await;
        assert!(
            came.iter().map(|piece| piece.index).eq(held.clone()),
            "{pieces:?} {carrier:?}"
        );
        if pieces == held {
            ended.unwrap();
        } else {
            assert!(
                matches!(ended, Err(TransferError::Absent)),
                "{pieces:?} {carrier:?} {ended:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_rotten_piece_is_served() {
    for carrier in CARRIERS {
        rotten(carrier).await;
    }
}

async fn rotten(carrier: Carrier) {
    use std::os::unix::fs::FileExt as _;
    let bytes = content(4 << 20, 1);
    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    ours.meet(&theirs);
    let hash = theirs.add(&bytes);
    let (_, list) = list_of(&bytes);
    let crate::store::Content::Flat(flat) = theirs.store.content(&hash).unwrap() else {
        panic!("a flat file");
    };
    // Stored files are read-only; rot asks nobody.
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&flat.path, writable).unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&flat.path)
        .unwrap();
    file.write_all_at(&[bytes[(2 << 20) + 7] ^ 1], (2 << 20) + 7)
        .unwrap();
    let got = ours.pieces_over(Some(carrier), theirs.key, hash, &list, 0..4);
    let (came, ended) = got.await;
    assert!(
        matches!(ended, Err(TransferError::Absent)),
        "{carrier:?} {ended:?}"
    );
    assert!(came.len() <= 2);
    assert!(joined(&came) == bytes[..came.len() << 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_hold_on_both_sides() {
    let bytes = content(2 << 20, 1);
    let limited = || BlobsConfig {
        upload_rate: Some(1 << 20),
        download_rate: None,
        ..config()
    };
    let theirs = Node::with(2, limited(), everything()).await;
    let ours = Node::new(1).await;
    let slow = BlobsConfig {
        download_rate: Some(1 << 20),
        ..config()
    };
    let taker = Node::with(3, slow, everything()).await;
    let open = Node::new(4).await;
    let (_, list) = list_of(&bytes);
    let hash = theirs.add(&bytes);
    assert_eq!(open.add(&bytes), hash);
    ours.meet(&theirs);
    taker.meet(&open);
    for carrier in CARRIERS {
        for (getter, giver) in [(&ours, theirs.key), (&taker, open.key)] {
            let start = std::time::Instant::now();
            let got = getter.pieces_over(Some(carrier), giver, hash, &list, 0..2);
            let (came, ended) = got.await;
            ended.unwrap();
            assert!(joined(&came) == bytes);
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(1_700), "{carrier:?} {took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_names_all_metadata_once_and_goes_on_where_it_ended() {
    use cairn_protocol::entry::CommitEntry;
    use cairn_protocol::hash::GitOid;
    use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
    use cairn_protocol::refs::{RefName, RefTarget, Refs};

    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    ours.meet(&theirs);
    let oid = GitOid::from_bytes([7; 20]);
    let pointer = theirs.add(b"an odd pointer");
    let manifest = |entries: Vec<ManifestEntry>| {
        let mut manifest = Manifest::new(Blake3::of(b""), entries).unwrap();
        let tree = manifest.tree_bytes();
        manifest.tree = theirs.add(&tree);
        (theirs.add(&manifest.encode()), manifest.tree)
    };
    let mut odd = ManifestEntry::new("weights", 0o100_644, oid, EntryKind::Lfs);
    odd.size = Some(1);
    odd.sha256 = Some(cairn_protocol::hash::Sha256::from_bytes([1; 32]));
    odd.blake3 = Some(Blake3::of(b"w"));
    odd.pointer = Some(pointer);
    let (sub, sub_tree) = manifest(vec![odd]);
    let directory = |name: &str| {
        let mut entry = ManifestEntry::new(name, 0o40_000, oid, EntryKind::Directory);
        entry.manifest = Some(sub);
        entry
    };
    let (root, root_tree) = manifest(vec![directory("a"), directory("b")]);
    let object = theirs.add(b"a commit object");
    let commit = |parents: Vec<Option<Blake3>>, object| {
        let manifest = Some(root);
        theirs.add(
            &CommitEntry {
                commit: oid,
                object,
                manifest,
                parents,
            }
            .encode(),
        )
    };
    let first = commit(vec![], object);
    let second_object = theirs.add(b"another commit object");
    let second = commit(vec![Some(first), None], second_object);
    let tag = theirs.add(b"a tag object");
    let target = |entry, tags| RefTarget { oid, entry, tags };
    let refs = Refs(
        [
            (RefName::branch("main").unwrap(), target(second, vec![])),
            (RefName::tag("v1").unwrap(), target(second, vec![tag])),
        ]
        .into(),
    );
    let refs = theirs.add(&refs.encode());
    let all = vec![
        tag,
        second,
        second_object,
        root,
        root_tree,
        sub,
        sub_tree,
        pointer,
        first,
        object,
    ];
    let (found, more) = ours.blobs.closure(theirs.key, refs, 0).await.unwrap();
    assert!(!more);
    let names: std::collections::HashSet<_> = found.iter().collect();
    assert_eq!(names.len(), found.len());
    assert_eq!(names, all.iter().collect());
    assert_eq!(found[..2], all[..2]);
    let (rest, _) = ours.blobs.closure(theirs.key, refs, 4).await.unwrap();
    assert_eq!(rest, found[4..]);
    assert_eq!(
        ours.blobs
            .closure(theirs.key, refs, u64::MAX)
            .await
            .unwrap(),
        (vec![], false)
    );
    let (came, ended) = ours.blobs(theirs.key, &found).await;
    ended.unwrap();
    assert!(came.iter().map(|(hash, _)| hash).eq(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_vanished_peers_are_unreachable_and_one_that_is_back_is_found() {
    let ours = Node::new(1).await;
    let theirs = Node::new(2).await;
    let hash = theirs.add(b"x");
    let unknown = ours.blobs.look_up(theirs.key, vec![hash]).await;
    assert!(
        matches!(unknown, Err(TransferError::Unreachable(_))),
        "{unknown:?}"
    );
    ours.meet(&theirs);
    assert!(ours.blobs.look_up(theirs.key, vec![hash]).await.is_ok());
    drop(theirs);
    let theirs = Node::new(2).await;
    let hash = theirs.add(b"y");
    ours.meet(&theirs);
    let held = ours.blobs.look_up(theirs.key, vec![hash]).await.unwrap();
    assert_eq!(held, [Held::Whole(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_says_nothing_of_what_is_below_a_blob_that_may_not_be_read() {
    use cairn_protocol::entry::CommitEntry;
    use cairn_protocol::hash::GitOid;
    use cairn_protocol::refs::{RefName, RefTarget, Refs};

    let oid = GitOid::from_bytes([7; 20]);
    let entry = CommitEntry {
        commit: oid,
        object: Blake3::of(b"a commit object"),
        manifest: None,
        parents: vec![],
    };
    let entry = entry.encode();
    let hidden = Blake3::of(&entry);
    let may_read: MayRead = Arc::new(move |_, hash| *hash != hidden);
    let ours = Node::new(1).await;
    let theirs = Node::with(2, config(), may_read).await;
    ours.meet(&theirs);
    theirs.add(&entry);
    theirs.add(b"a commit object");
    let (entry, tags) = (hidden, vec![]);
    let target = RefTarget { oid, entry, tags };
    let refs = Refs([(RefName::branch("main").unwrap(), target)].into());
    let refs = theirs.add(&refs.encode());
    let found = ours.blobs.closure(theirs.key, refs, 0).await.unwrap();
    assert_eq!(found, (vec![hidden], false), "no more than its refs say");
}
