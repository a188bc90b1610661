//! Parsers of formats, git objects, attributes and cards, fed with bytes of any origin.
//!
//! Shared by the libFuzzer binaries and by `tests/fuzz.rs`, which runs them on stable Rust. A target
//! fails by panicking: where a parser does, and where it took bytes that do not re-encode to themselves.

use cairn_protocol::attributes::{self, Attributes};
use cairn_protocol::card;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::git::{self, CommitObject};
use cairn_protocol::manifest::Manifest;
use cairn_protocol::name::RepoKind;
use cairn_protocol::path::{self, RepoPath};
use cairn_protocol::pointer::Pointer;
use cairn_protocol::refs::{RefName, Refs};

/// Every target by name; its seeds are in `seeds/NAME`.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("path", path),
    ("ref_name", ref_name),
    ("tree", tree),
    ("commit", commit),
    ("pointer", pointer),
    ("manifest", manifest),
    ("entry", entry),
    ("refs", refs),
    ("attributes", attributes),
    ("card", card),
];

pub fn path(bytes: &[u8]) {
    match RepoPath::from_bytes(bytes) {
        Ok(path) => {
            assert_eq!(path.as_str().as_bytes(), bytes);
            assert!(
                path.components()
                    .all(|name| !matches!(name, "" | "." | ".."))
            );
            assert!(!bytes.contains(&b'\\') && !bytes.contains(&0) && bytes[0] != b'/');
            path::fold(path.as_str());
        }
        Err(error) => assert!(error.path.chars().count() <= 200 && !error.to_string().is_empty()),
    }
}

pub fn ref_name(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(name) = text.parse::<RefName>() {
            assert_eq!(name.as_str(), text);
            assert!(text.starts_with("refs/") && !text.contains("..") && !text.contains(' '));
        }
        // A short name never leaves its folder.
        if let Ok(name) = RefName::branch(text) {
            assert!(name.as_str().starts_with("refs/heads/"));
        }
    }
}

pub fn tree(bytes: &[u8]) {
    if let Ok(entries) = git::parse_tree(bytes) {
        assert_eq!(git::encode_tree(entries).as_deref(), Ok(bytes));
    }
}

pub fn commit(bytes: &[u8]) {
    if let Ok(commit) = CommitObject::parse(bytes) {
        assert!(!commit.title.contains('\n'));
        assert_eq!(CommitObject::parse(bytes), Ok(commit));
    }
}

pub fn pointer(bytes: &[u8]) {
    if let Some(pointer) = Pointer::parse(bytes) {
        assert_eq!(pointer.encode().as_bytes(), bytes);
        assert_eq!(pointer.len(), bytes.len() as u64);
    }
}

pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
        git::parse_tree(&manifest.tree_bytes()).expect("a manifest's tree is valid");
        for entry in &manifest.entries {
            assert_eq!(manifest.find(&entry.name), Some(entry));
        }
    }
}

pub fn entry(bytes: &[u8]) {
    if let Ok(entry) = CommitEntry::decode(bytes) {
        assert_eq!(entry.encode(), bytes);
    }
}

pub fn refs(bytes: &[u8]) {
    if let Ok(refs) = Refs::decode(bytes) {
        assert_eq!(refs.encode(), bytes);
        for (name, target) in &refs.0 {
            let without = refs
                .with_change(name, Some(target.oid), None)
                .expect("a ref of these");
            assert_eq!(
                without
                    .with_change(name, None, Some(target.clone()))
                    .as_ref(),
                Ok(&refs)
            );
        }
    }
}

/// The first line is a path to ask about, the rest a `.gitattributes` file.
pub fn attributes(bytes: &[u8]) {
    let line_end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (path, text) = bytes.split_at(line_end);
    let mut attributes = Attributes::parse(text);
    attributes.add("a/b", text);
    let Ok(path) = RepoPath::from_bytes(path) else {
        return;
    };
    let storage = attributes::decide(&attributes, &path, 1, b"x");
    assert_eq!(
        attributes.is_lfs(&path),
        storage == attributes::Storage::Lfs
    );
}

pub fn card(bytes: &[u8]) {
    for kind in RepoKind::ALL {
        let (card, warning) = card::parse(bytes, kind);
        let lines = bytes.split(|byte| *byte == b'\n').count() as u64;
        // A warning about the end of the file stands on the line after the last.
        assert!(warning.is_none_or(|warning| (1..=lines + 1).contains(&warning.line)));
        let tokens = card.head_tokens();
        assert!(tokens.tags.iter().all(|tag| card::is_token(tag)));
    }
}
