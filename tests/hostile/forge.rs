//! Repositories made by hand: right in every part, but for what a test makes wrong.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::envelope::Envelope;
use cairn_protocol::git::{NewCommit, ObjectKind, Signature, object_oid};
use cairn_protocol::hash::{Blake3, NamespaceId, RepositoryId, Sha256};
use cairn_protocol::json::{self, Value};
use cairn_protocol::key::SecretKey;
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
use cairn_protocol::name::{NamespaceName, RepoKind};
use cairn_protocol::pointer::Pointer;
use cairn_protocol::record::{
    Body, Card, Change, Delegation, Head, Header, Link, Names, NamesTarget, Namespace, Nonce,
    PAYLOAD_TYPE, Record, Repository, Role, RootKeys,
};
use cairn_protocol::refs::{RefName, RefTarget, Refs};
use sha2::Digest as _;

const TIME_S: u64 = 1_760_000_000;

/// A file of a forged repository; all of them are LFS files.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) bytes: Bytes,
    /// What the commit claims of it, where that is not the truth.
    pub(crate) sha256: Option<Sha256>,
}

impl File {
    pub(crate) fn new(name: &'static str, bytes: Bytes) -> Self {
        Self {
            name,
            bytes,
            sha256: None,
        }
    }
}

/// What is wrong with a forged repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// The manifest names another tree object than its own.
    Tree,
    /// The manifest is of another tree than the commit's.
    Manifest,
    /// The refs blob has another commit than its entry.
    Entry,
}

/// One repository with one commit, and all that a peer serves of it.
pub(crate) struct Forged {
    /// In the order in which each rests on those before.
    pub(crate) records: Vec<Record>,
    pub(crate) refs: Blake3,
    /// Metadata, parents before what they name, the refs blob first.
    pub(crate) metadata: Vec<Blake3>,
    /// Metadata and contents.
    pub(crate) blobs: BTreeMap<Blake3, Bytes>,
    pub(crate) namespace: NamespaceId,
    pub(crate) repository: RepositoryId,
    pub(crate) repo: String,
    pub(crate) commit: String,
}

pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// Makes a repository in a namespace whose root and home is `key`.
pub(crate) fn repository(key: &SecretKey, name: &str, files: &[File]) -> Forged {
    flawed(key, name, files, Flaw::None)
}

/// The same with something wrong, all of it well signed.
#[expect(
    clippy::too_many_lines,
    reason = "one part after the other, each named by the next"
)]
pub(crate) fn flawed(key: &SecretKey, name: &str, files: &[File], flaw: Flaw) -> Forged {
    let (mut blobs, mut metadata) = (BTreeMap::new(), Vec::new());
    let mut keep = |bytes: Vec<u8>| {
        let hash = Blake3::of(&bytes);
        blobs.insert(hash, Bytes::from(bytes));
        hash
    };
    let entries = files
        .iter()
        .map(|file| {
            let pointer = Pointer {
                sha256: file.sha256.unwrap_or_else(|| sha256(&file.bytes)),
                size: file.bytes.len() as u64,
            };
            let mut entry = ManifestEntry::new(file.name, 0o100_644, pointer.oid(), EntryKind::Lfs);
            entry.size = Some(pointer.size);
            entry.sha256 = Some(pointer.sha256);
            entry.blake3 = Some(keep(file.bytes.to_vec()));
            entry
        })
        .collect();
    let mut manifest = Manifest::new(Blake3::of(b""), entries).unwrap();
    let tree = manifest.tree_bytes();
    let tree_oid = object_oid(ObjectKind::Tree, &tree);
    manifest.tree = keep(tree);
    if flaw == Flaw::Tree {
        manifest.tree = keep(b"100644 other\0of twenty bytes here".to_vec());
    }
    let manifest_hash = keep(manifest.encode());
    let author = Signature {
        name: "Nobody".to_owned(),
        email: "nobody@example.org".to_owned(),
        time_s: TIME_S,
    };
    let object = NewCommit {
        tree: match flaw {
            Flaw::Manifest => object_oid(ObjectKind::Tree, b""),
            _ => tree_oid,
        },
        parents: Vec::new(),
        author: author.clone(),
        committer: author,
        message: "forged\n".to_owned(),
    };
    let object = object.encode().unwrap();
    let commit = object_oid(ObjectKind::Commit, &object);
    let entry = CommitEntry {
        commit,
        object: keep(object),
        manifest: Some(manifest_hash),
        parents: Vec::new(),
    };
    let object_hash = entry.object;
    let entry_hash = keep(entry.encode());
    let mut refs = Refs::default();
    let target = RefTarget {
        oid: match flaw {
            Flaw::Entry => object_oid(ObjectKind::Commit, b"another"),
            _ => commit,
        },
        entry: entry_hash,
        tags: Vec::new(),
    };
    refs.0.insert(RefName::branch("main").unwrap(), target);
    let refs_hash = keep(refs.encode());
    metadata.extend([
        refs_hash,
        entry_hash,
        object_hash,
        manifest_hash,
        manifest.tree,
    ]);

    let mut records = Vec::new();
    let first = Header {
        chain: Some(Link { seq: 1, prev: None }),
        ..Header::new(1, TIME_S)
    };
    let body = Body::Namespace(Namespace {
        root: RootKeys {
            keys: vec![key.public()],
            threshold: 1,
        },
        recovery: None,
        delegated: vec![Delegation {
            key: key.public(),
            roles: vec![Role::Publish],
            repositories: None,
            refs: None,
            end: None,
        }],
        home: key.public(),
        claims: Vec::new(),
        carried: None,
    });
    records.push(Record::sign(first, body, &[key]).unwrap());
    let namespace = NamespaceId::from(records[0].id());
    let within = Header {
        namespace: Some(namespace),
        ..Header::new(1, TIME_S)
    };
    let body = Body::Repository(Repository {
        kind: RepoKind::Model,
        name: name.parse().unwrap(),
        nonce: Nonce::from_bytes([1; 16]),
        created_at: TIME_S,
    });
    records.push(Record::sign(within.clone(), body, &[key]).unwrap());
    let repository = RepositoryId::from(records[1].id());
    let chained = Header {
        chain: Some(Link { seq: 1, prev: None }),
        ..within.clone()
    };
    let body = Body::Names(Names {
        kind: RepoKind::Model,
        name: name.parse().unwrap(),
        target: Some(NamesTarget::Repository(repository)),
    });
    records.push(Record::sign(chained, body, &[key]).unwrap());
    let of_repository = Header {
        repository: Some(repository),
        ..within
    };
    let body = Body::Change(Change {
        reference: "refs/heads/main".to_owned(),
        old: None,
        new: Some(commit),
        entry: Some(entry_hash),
        nonce: Nonce::from_bytes([2; 16]),
    });
    records.push(Record::sign(of_repository.clone(), body, &[key]).unwrap());
    let mut forged = Forged {
        records,
        refs: refs_hash,
        metadata,
        blobs,
        namespace,
        repository,
        repo: format!("{}/{name}", NamespaceName::Hash(namespace)),
        commit: commit.to_hex(),
    };
    let head = forged.head(key, 1, None);
    forged.records.push(head);
    forged
}

impl Forged {
    /// A head of this repository, signed by any key.
    pub(crate) fn head(&self, key: &SecretKey, seq: u64, prev: Option<&Record>) -> Record {
        let header = Header {
            namespace: Some(self.namespace),
            repository: Some(self.repository),
            chain: Some(Link {
                seq,
                prev: prev.map(Record::id),
            }),
            ..Header::new(1, TIME_S + seq)
        };
        let body = Body::Head(Head {
            refs: self.refs,
            changes: vec![self.records[3].id()],
            card: Card::default(),
            settings: cairn_protocol::json::Object::default(),
        });
        Record::sign(header, body, &[key]).unwrap()
    }

    /// The newest record but with a member that no version knows, signed by that key.
    pub(crate) fn with_unknown_member(&self, key: &SecretKey) -> Vec<u8> {
        let head = self.records.last().unwrap();
        let envelope = Envelope::parse(head.envelope()).unwrap();
        let Value::Object(mut payload) = json::parse(envelope.payload()).unwrap() else {
            panic!("a payload is an object");
        };
        payload.set("of-a-later-version", "kept as it is: \u{1f98b}");
        let signed = Envelope::sign(PAYLOAD_TYPE, payload.to_bytes(), &[key]).unwrap();
        signed.as_bytes().to_vec()
    }

    pub(crate) fn envelopes(&self) -> Vec<Vec<u8>> {
        let all = self.records.iter();
        all.map(|record| record.envelope().to_vec()).collect()
    }
}
