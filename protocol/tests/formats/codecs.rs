//! Every codec: decode of encode is the identity, and decode takes only what re-encodes to the same
//! bytes, whatever it is given.

use cairn_protocol::card;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::git::{self, Mode, NewCommit, Signature, TreeEntry};
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::limits::PIECE_BYTES;
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
use cairn_protocol::name::RepoKind;
use cairn_protocol::path::RepoPath;
use cairn_protocol::piece::{PieceHasher, PieceList};
use cairn_protocol::pointer::Pointer;
use cairn_protocol::refs::{RefName, RefTarget, Refs, RefsError};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn oid() -> impl Strategy<Value = GitOid> {
    any::<[u8; 20]>().prop_map(GitOid::from_bytes)
}

fn blake3() -> impl Strategy<Value = Blake3> {
    any::<[u8; 32]>().prop_map(Blake3::from_bytes)
}

fn sha256() -> impl Strategy<Value = Sha256> {
    any::<[u8; 32]>().prop_map(Sha256::from_bytes)
}

/// Names that git's trees can hold, many of them prefixes of one another.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("a tree's name has no NUL and no slash", |byte| {
        !matches!(byte, 0 | b'/')
    });
    prop_oneof![
        "[a-c.0]{1,4}".prop_map(String::into_bytes),
        vec(byte, 1..20),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(Mode::ALL.to_vec())
}

fn tree() -> impl Strategy<Value = Vec<TreeEntry>> {
    let entries = btree_map(name(), (mode(), oid()), 0..40);
    entries.prop_map(|entries| {
        let entry = |(name, (mode, oid))| TreeEntry { mode, name, oid };
        entries.into_iter().map(entry).collect()
    })
}

fn unknown_columns() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let columns = btree_map(7_u8.., vec(any::<u8>(), 0..40), 0..3);
    columns.prop_map(|columns| columns.into_iter().collect())
}

fn manifest_entry() -> impl Strategy<Value = ManifestEntry> {
    let kind = prop::sample::select(vec![
        (EntryKind::File, 0o100_644),
        (EntryKind::File, 0o100_755),
        (EntryKind::Lfs, 0o100_644),
        (EntryKind::Directory, 0o040_000),
        (EntryKind::Symlink, 0o120_000),
        (EntryKind::Gitlink, 0o160_000),
    ]);
    let known = (any::<u64>(), sha256(), option::of(blake3()));
    let extra = (
        option::of(any::<[u8; 32]>()),
        option::of(blake3()),
        blake3(),
    );
    let columns = (known, extra, unknown_columns());
    (kind, oid(), columns).prop_map(|((kind, mode), oid, columns)| {
        let ((size, sha256, blake3), (xet, pointer, manifest), unknown) = columns;
        let mut entry = ManifestEntry::new("", mode, oid, kind);
        entry.unknown = unknown;
        match kind {
            EntryKind::File | EntryKind::Lfs | EntryKind::Symlink => {
                entry.size = Some(size);
                entry.sha256 = Some(sha256);
                entry.blake3 = blake3;
                entry.xet = xet.filter(|_| kind != EntryKind::Symlink);
                entry.pointer = pointer.filter(|_| kind == EntryKind::Lfs);
            }
            EntryKind::Directory => entry.manifest = Some(manifest),
            EntryKind::Gitlink => {}
        }
        entry
    })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    (blake3(), btree_map(name(), manifest_entry(), 0..20)).prop_map(|(tree, entries)| {
        let named = |(name, entry)| ManifestEntry { name, ..entry };
        let entries = entries.into_iter().map(named).collect();
        Manifest::new(tree, entries).expect("a valid manifest")
    })
}

fn commit_entry() -> impl Strategy<Value = CommitEntry> {
    let parents = vec(option::of(blake3()), 0..=64);
    (oid(), blake3(), option::of(blake3()), parents).prop_map(
        |(commit, object, manifest, parents)| CommitEntry {
            commit,
            object,
            manifest,
            parents,
        },
    )
}

fn ref_name() -> impl Strategy<Value = RefName> {
    let text = prop_oneof![
        "refs/heads/[a-c]{1,2}(/[a-c]{1,2}){0,2}",
        "refs/tags/v[0-9]\\.[0-9]",
        "refs/pr/[1-9][0-9]{0,3}",
        "refs/convert/[a-z\u{e9}]{1,5}",
    ];
    text.prop_map(|text| text.parse().expect("a valid ref name"))
}

fn ref_target() -> impl Strategy<Value = RefTarget> {
    (oid(), blake3(), vec(blake3(), 0..4)).prop_map(|(oid, entry, tags)| RefTarget {
        oid,
        entry,
        tags,
    })
}

fn refs() -> impl Strategy<Value = Refs> {
    vec((ref_name(), ref_target()), 0..20).prop_map(|targets| {
        targets
            .into_iter()
            .fold(Refs::default(), |refs, (name, target)| {
                refs.with_change(&name, None, Some(target)).unwrap_or(refs)
            })
    })
}

fn signature() -> impl Strategy<Value = Signature> {
    let time = 0..i64::MAX.unsigned_abs();
    (
        "[^<>\0\n\\s][^<>\0\n]{0,20}[^<>\0\n\\s]",
        "[^<>\0\n\\s]{0,20}",
        time,
    )
        .prop_map(|(name, email, time_s)| Signature {
            name,
            email,
            time_s,
        })
}

fn commit() -> impl Strategy<Value = NewCommit> {
    (
        oid(),
        vec(oid(), 0..5),
        signature(),
        signature(),
        "[^\0]{0,80}",
    )
        .prop_map(|(tree, parents, author, committer, message)| NewCommit {
            tree,
            parents,
            author,
            committer,
            message,
        })
}

/// Bytes near valid ones, where any bytes at all would rarely get behind the magic.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
}

fn damaged(mut bytes: Vec<u8>, damage: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (index, byte) in damage {
        if !bytes.is_empty() {
            let at = index.index(bytes.len());
            bytes[at] = *byte;
        }
    }
    bytes
}

proptest! {
    #[test]
    fn a_manifest_is_read_back(manifest in manifest(), damage in damage()) {
        let bytes = manifest.encode();
        prop_assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        for entry in &manifest.entries {
            prop_assert_eq!(manifest.find(&entry.name), Some(entry));
        }
        let tree = git::parse_tree(&manifest.tree_bytes()).expect("a valid tree");
        prop_assert_eq!(tree.len(), manifest.entries.len());
        let bytes = damaged(bytes, &damage);
        if let Ok(other) = Manifest::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn a_commit_entry_is_read_back(entry in commit_entry(), damage in damage()) {
        let bytes = entry.encode();
        prop_assert_eq!(CommitEntry::decode(&bytes), Ok(entry));
        let bytes = damaged(bytes, &damage);
        if let Ok(other) = CommitEntry::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn a_refs_blob_is_read_back(refs in refs(), damage in damage()) {
        let bytes = refs.encode();
        prop_assert_eq!(Refs::decode(&bytes), Ok(refs));
        let bytes = damaged(bytes, &damage);
        if let Ok(other) = Refs::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn a_change_is_taken_exactly_at_its_old_target(
        refs in refs(), name in ref_name(), old in oid(), new in ref_target()
    ) {
        let found = refs.0.get(&name).map(|target| target.oid);
        let result = refs.with_change(&name, found, Some(new.clone()));
        match &result {
            Ok(changed) => {
                prop_assert_eq!(changed.0.get(&name), Some(&new));
                prop_assert_eq!(Refs::decode(&changed.encode()), Ok(changed.clone()));
                let back = changed.with_change(&name, Some(new.oid), refs.0.get(&name).cloned());
                prop_assert_eq!(back, Ok(refs.clone()));
            }
            Err(error) => {
                let conflict = matches!(error, RefsError::Conflict { .. });
                prop_assert!(found.is_none() && conflict);
            }
        }
        if found != Some(old) {
            let result = refs.with_change(&name, Some(old), Some(new));
            let mismatch = matches!(result, Err(RefsError::Mismatch { .. }));
            prop_assert!(mismatch);
        }
    }

    #[test]
    fn a_tree_is_read_back(entries in tree(), damage in damage()) {
        let bytes = git::encode_tree(entries.clone()).expect("valid entries");
        let read = git::parse_tree(&bytes).expect("what was written");
        let mut sorted = read.clone();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        prop_assert_eq!(sorted, entries);
        let bytes = damaged(bytes, &damage);
        if let Ok(other) = git::parse_tree(&bytes) {
            prop_assert_eq!(git::encode_tree(other), Ok(bytes));
        }
    }

    #[test]
    fn a_commit_is_read_back(commit in commit()) {
        let bytes = commit.encode().expect("valid fields");
        let read = git::CommitObject::parse(&bytes).expect("what was written");
        prop_assert_eq!(read.tree, commit.tree);
        prop_assert_eq!(read.parents, commit.parents);
        prop_assert_eq!(read.author, commit.author);
        prop_assert_eq!(read.committer, commit.committer);
        let first = commit.message.trim_start_matches(['\r', '\n']).split('\n').next();
        prop_assert_eq!(Some(&*read.title), first.map(str::trim_end));
    }

    #[test]
    fn a_pointer_is_read_back(sha256 in sha256(), size in any::<u64>(), damage in damage()) {
        let pointer = Pointer { sha256, size };
        let text = pointer.encode();
        prop_assert_eq!(Pointer::parse(text.as_bytes()), Some(pointer));
        prop_assert_eq!(pointer.len(), text.len() as u64);
        let bytes = damaged(text.into_bytes(), &damage);
        if let Some(other) = Pointer::parse(&bytes) {
            prop_assert_eq!(other.encode().into_bytes(), bytes);
        }
    }

    #[test]
    fn a_path_is_taken_whole_or_not_at_all(text in "([a-c.\\\\ ~:]|\\.git|git~1|CON|/|\u{200c}){0,12}") {
        if let Ok(path) = text.parse::<RepoPath>() {
            prop_assert_eq!(path.as_str(), &text);
            prop_assert_eq!(path.components().collect::<Vec<_>>().join("/"), text.clone());
            for component in path.components() {
                let folded = component.to_lowercase();
                prop_assert!(!["", ".", "..", "git~1", "con"].contains(&&*folded));
                prop_assert_ne!(folded.replace('\u{200c}', ""), ".git");
                prop_assert!(!folded.ends_with(['.', ' ']) && !folded.contains('\\'));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), magic in 0..4_usize) {
        let magics: [&[u8]; 4] = [b"", b"cairnmf1", b"cairnce1", b"cairnrf1"];
        let bytes = [magics[magic], &bytes[..]].concat();
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes.clone());
        }
        if let Ok(entry) = CommitEntry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes.clone());
        }
        if let Ok(refs) = Refs::decode(&bytes) {
            prop_assert_eq!(refs.encode(), bytes.clone());
        }
        if let Ok(tree) = git::parse_tree(&bytes) {
            prop_assert_eq!(git::encode_tree(tree), Ok(bytes.clone()));
        }
    }

    #[test]
    fn a_card_is_read_or_warned_about(yaml in "([a-c]|: |\n|\r|- |\\[|\\]|tags|license|'|&a|\\*a){0,40}") {
        let readme = format!("---\n{yaml}\n---\n");
        for kind in RepoKind::ALL {
            let (card, warning) = card::parse(readme.as_bytes(), kind);
            let lines = readme.lines().count() as u64;
            prop_assert!(warning.is_none_or(|warning| (1..=lines + 1).contains(&warning.line)));
            let tokens = card.head_tokens();
            prop_assert!(tokens.tags.iter().all(|tag| card.tags.contains(tag)));
        }
    }
}

proptest! {
    // Each of these hashes megabytes.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_root_of_the_pieces_is_the_files_blake3(
        pieces in 0..5_u64, around in -2_i64..=2, byte in any::<u8>(), step in 1_usize..3_000_000
    ) {
        let size = (pieces * PIECE_BYTES).saturating_add_signed(around);
        let content: Vec<u8> = (0..size).map(|at| byte.wrapping_add((at >> 9).to_le_bytes()[0])).collect();
        let mut hasher = PieceHasher::new();
        content.chunks(step.max(4_096)).for_each(|slice| hasher.update(slice));
        let (root, list) = hasher.finish();
        prop_assert_eq!(root, Blake3::of(&content));
        let list = PieceList::decode(list.as_deref(), size, &root).expect("its own list");
        prop_assert_eq!(PieceList::root(list.values(), size), root);
        let mut pieces = content.chunks(1 << 20).enumerate();
        prop_assert!(pieces.all(|(index, piece)| list.verify(index as u64, piece)));
    }
}
