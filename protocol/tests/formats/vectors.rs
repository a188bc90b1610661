//! Committed bytes and hashes: ids depend on them, so no change may move them.
//!
//! Each file under `vectors/formats` holds one encoding in hex. `docs/format.md` explains the bytes.

use std::path::Path;

use cairn_protocol::entry::CommitEntry;
use cairn_protocol::git::{
    CommitObject, Mode, NewCommit, ObjectKind, Signature, TreeEntry, encode_tree, object_oid,
    parse_tree,
};
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
use cairn_protocol::piece::{PieceHasher, PieceList};
use cairn_protocol::pointer::Pointer;
use cairn_protocol::refs::{RefTarget, Refs};
use data_encoding::HEXLOWER;

/// The committed bytes of that name.
fn committed(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors/formats")
        .join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let hex: String = text.split_whitespace().collect();
    HEXLOWER.decode(hex.as_bytes()).expect("lower-case hex")
}

fn oid(hex: &str) -> GitOid {
    hex.parse().expect("an object id")
}

fn tree() -> Vec<TreeEntry> {
    let entry = |mode, name: &str, id: &str| TreeEntry {
        mode,
        name: name.into(),
        oid: oid(id),
    };
    vec![
        entry(
            Mode::File,
            "README.md",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ),
        entry(
            Mode::File,
            "data.csv",
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        ),
        entry(
            Mode::Directory,
            "data",
            "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        ),
        entry(
            Mode::Symlink,
            "latest",
            "1269488f7fb1f4b56a8c0e5eb48cecbfadfa9219",
        ),
        entry(
            Mode::File,
            "model.safetensors",
            "c1d4ced1bf03fb5f5bf0d0d4a0ffb0ae0ad45ac9",
        ),
        entry(
            Mode::Executable,
            "run.sh",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ),
        entry(
            Mode::Gitlink,
            "vendor",
            "0123456789abcdef0123456789abcdef01234567",
        ),
    ]
}

fn pointer() -> Pointer {
    Pointer {
        sha256: Sha256::from_bytes([0x5a; 32]),
        size: 5_000_000_000,
    }
}

fn manifest() -> Manifest {
    let kinds = [
        EntryKind::File,
        EntryKind::File,
        EntryKind::Directory,
        EntryKind::Symlink,
        EntryKind::Lfs,
        EntryKind::File,
        EntryKind::Gitlink,
    ];
    let mut entries: Vec<_> = tree()
        .into_iter()
        .zip(kinds)
        .map(|(entry, kind)| ManifestEntry::new(entry.name, entry.mode.octal(), entry.oid, kind))
        .collect();
    let known = |entry: &mut ManifestEntry, size, byte| {
        entry.size = Some(size);
        entry.sha256 = Some(Sha256::from_bytes([byte; 32]));
        entry.blake3 = Some(Blake3::from_bytes([byte + 1; 32]));
    };
    known(&mut entries[0], 6, 0x10);
    entries[1].size = Some(0);
    entries[2].manifest = Some(Blake3::from_bytes([0x20; 32]));
    known(&mut entries[3], 8, 0x30);
    known(&mut entries[4], pointer().size, 0x5a);
    entries[4].oid = pointer().oid();
    entries[4].xet = Some([0x40; 32]);
    known(&mut entries[5], 6, 0x10);
    entries[5].unknown = vec![(9, b"of a later version".to_vec()), (200, vec![])];
    let tree = encode_tree(tree_of(&entries)).expect("a valid tree");
    Manifest::new(Blake3::of(&tree), entries).expect("a valid manifest")
}

fn tree_of(entries: &[ManifestEntry]) -> Vec<TreeEntry> {
    let entry = |entry: &ManifestEntry| TreeEntry {
        mode: Mode::from_octal(entry.mode).expect("a mode"),
        name: entry.name.clone(),
        oid: entry.oid,
    };
    entries.iter().map(entry).collect()
}

fn commit() -> NewCommit {
    let signature = |name: &str, time_s| Signature {
        name: name.into(),
        email: "ada@example.org".into(),
        time_s,
    };
    NewCommit {
        tree: oid("4b825dc642cb6eb9a060e54bf8d69288fbee4904"),
        parents: vec![oid("0123456789abcdef0123456789abcdef01234567")],
        author: signature("Ada Lovelace", 1_700_000_000),
        committer: signature("Zo\u{eb}", 1_700_000_001),
        message: "Add weights\n\nFirst of two paragraphs.\n\nSecond.\n".into(),
    }
}

fn commit_bytes() -> Vec<u8> {
    commit().encode().expect("a valid commit")
}

fn entry() -> CommitEntry {
    CommitEntry {
        commit: object_oid(ObjectKind::Commit, &commit_bytes()),
        object: Blake3::of(&commit_bytes()),
        manifest: Some(Blake3::of(&manifest().encode())),
        parents: vec![Some(Blake3::from_bytes([0x77; 32])), None],
    }
}

fn refs() -> Refs {
    let target = |byte, tags| RefTarget {
        oid: GitOid::from_bytes([byte; 20]),
        entry: Blake3::of(&entry().encode()),
        tags,
    };
    let mut refs = Refs::default();
    for (name, target) in [
        (
            "refs/tags/v1.0",
            target(2, vec![Blake3::from_bytes([3; 32])]),
        ),
        ("refs/heads/main", target(1, vec![])),
        ("refs/pr/1", target(4, vec![])),
    ] {
        let name = name.parse().expect("a ref name");
        refs = refs
            .with_change(&name, None, Some(target))
            .expect("room for a ref");
    }
    refs
}

#[test]
fn the_tree_is_as_committed() {
    let bytes = committed("tree.hex");
    assert_eq!(encode_tree(tree()).unwrap(), bytes);
    assert_eq!(parse_tree(&bytes).unwrap(), tree());
    assert_eq!(
        object_oid(ObjectKind::Tree, &bytes),
        oid("069c54764c674a221e3ab61fbf449db2a4e3cc2c")
    );
}

#[test]
fn the_commit_is_as_committed() {
    let bytes = committed("commit.hex");
    assert_eq!(commit().encode().unwrap(), bytes);
    assert_eq!(CommitObject::parse(&bytes).unwrap().author, commit().author);
    assert_eq!(
        object_oid(ObjectKind::Commit, &bytes),
        oid("5c40775957961a1bb55d9b022bdb05491b7b1dcd")
    );
}

#[test]
fn the_pointer_is_as_committed() {
    let bytes = committed("pointer.hex");
    assert_eq!(pointer().encode().as_bytes(), bytes);
    assert_eq!(Pointer::parse(&bytes), Some(pointer()));
    assert_eq!(
        pointer().oid(),
        oid("983bdef87dca84875d0ab91dcb49946ac47f9efa")
    );
}

#[test]
fn the_manifest_is_as_committed() {
    let bytes = committed("manifest.hex");
    assert_eq!(manifest().encode(), bytes);
    assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
    assert_eq!(
        Blake3::of(&bytes).to_hex(),
        "915b324683eef35a275f78f4ff414544b1ed61a1af36f426366d7c52bda41a43"
    );
    assert_eq!(Blake3::of(&manifest().tree_bytes()), manifest().tree);
}

#[test]
fn the_commit_entry_is_as_committed() {
    let bytes = committed("entry.hex");
    assert_eq!(entry().encode(), bytes);
    assert_eq!(CommitEntry::decode(&bytes), Ok(entry()));
    assert_eq!(
        Blake3::of(&bytes).to_hex(),
        "04d1948b5ff8824809430bef4eb57b244d4f6756c20056a6b54b9a26f374ff61"
    );
}

#[test]
fn the_refs_blob_is_as_committed() {
    let bytes = committed("refs.hex");
    assert_eq!(refs().encode(), bytes);
    assert_eq!(Refs::decode(&bytes), Ok(refs()));
    assert_eq!(
        Blake3::of(&bytes).to_hex(),
        "a7e91bf23fa396bbd541341e596949f8b0410cffdd3611942be29a34e3ab8942"
    );
}

#[test]
fn the_piece_list_is_as_committed() {
    // Three pieces, the last of them short.
    let content: Vec<u8> = (0..=250_u8).cycle().take(2_500_000).collect();
    let mut hasher = PieceHasher::new();
    hasher.update(&content);
    let (root, list) = hasher.finish();
    assert_eq!(
        root.to_hex(),
        "a4052902f59677aa7a01889796008376578c68b85bed14769ffecc3632bdbc35"
    );
    assert_eq!(list, Some(committed("pieces.hex")));
    let list = PieceList::decode(list.as_deref(), 2_500_000, &root).unwrap();
    assert!(list.verify(2, &content[2 << 20..]));
}
