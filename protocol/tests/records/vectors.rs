//! Committed envelopes: what is signed today must read, and be signed, the same for ever.
//!
//! `CAIRN_UPDATE_VECTORS=1 cargo test -p cairn-protocol --test records vectors` writes them anew;
//! ids change with them, so that is a new format version, never a fix.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RecordId, RepositoryId};
use cairn_protocol::json::Object;
use cairn_protocol::name::RepoKind;
use cairn_protocol::record::{
    Account, Attestation, Body, Card, Change, Claim, ClaimKind, Delegation, Freshness, Head,
    Header, Link, Names, NamesTarget, Namespace, Nonce, Record, Repository, Role, RootKeys, Rows,
    Visibility,
};

use crate::world::{
    HOLDER, HOME, NEXT_ROOT, PUBLISHER, RECOVERY, REGISTRAR, ROOT, STRANGER, key, sign,
};

const TIME: u64 = 1_700_000_000;

/// One record of each kind, and of those that have two forms, both.
pub(crate) fn vectors() -> Vec<(&'static str, Record)> {
    let namespace = namespace();
    let rotated = rotated(&namespace);
    let id = namespace.namespace();
    let repository = repository(id);
    let [names, redirect] = names(id, repository.id().into());
    let change = change(id, repository.id().into());
    let head = head(id, repository.id().into(), &change);
    let freshness = freshness(id, repository.id().into(), &head);
    let attestation = attestation(id, repository.id().into());
    let [account, revoked] = accounts(id, repository.id().into());
    vec![
        ("namespace", namespace),
        ("namespace-rotated", rotated),
        ("repository", repository),
        ("names", names),
        ("names-redirect", redirect),
        ("change", change),
        ("head", head),
        ("freshness", freshness),
        ("attestation", attestation),
        ("account", account),
        ("account-revoked", revoked),
    ]
}

fn header(
    epoch: u64,
    namespace: Option<NamespaceId>,
    chain: Option<(u64, Option<RecordId>)>,
) -> Header {
    let mut header = Header::new(epoch, TIME);
    header.namespace = namespace;
    header.chain = chain.map(|(seq, prev)| Link { seq, prev });
    header
}

fn namespace() -> Record {
    let body = Namespace {
        root: RootKeys {
            keys: vec![key(ROOT).public()],
            threshold: 1,
        },
        recovery: Some(key(RECOVERY).public().fingerprint()),
        delegated: vec![
            Delegation {
                key: key(PUBLISHER).public(),
                roles: vec![Role::Publish],
                repositories: None,
                refs: None,
                end: None,
            },
            Delegation {
                key: key(REGISTRAR).public(),
                roles: vec![Role::Publish, Role::Account, Role::Freshness],
                repositories: Some(vec![RepositoryId::from_bytes([0x11; 32])]),
                refs: Some(vec!["refs/heads/*".to_owned(), "refs/tags/v1".to_owned()]),
                end: Some(1_800_000_000),
            },
        ],
        home: key(HOME).public(),
        claims: vec![
            Claim {
                kind: ClaimKind::Dns,
                value: "example.org".to_owned(),
            },
            Claim {
                kind: ClaimKind::Registrar,
                value: "gateway.example.org/alice".to_owned(),
            },
        ],
        carried: None,
    };
    sign(
        header(1, None, Some((1, None))),
        Body::Namespace(body),
        &[ROOT],
    )
}

/// A new epoch with a new root, signed by the old and the new.
fn rotated(before: &Record) -> Record {
    let Body::Namespace(mut body) = before.body().clone() else {
        unreachable!("a namespace record")
    };
    let heads = BTreeMap::from([
        (
            RepositoryId::from_bytes([0x11; 32]),
            Some([0x22; 32].into()),
        ),
        (RepositoryId::from_bytes([0x12; 32]), None),
    ]);
    body.root.keys = vec![key(NEXT_ROOT).public()];
    body.carried = Some(Rows::new(&heads).expect("two rows").hash());
    let link = Some((1, Some(before.id())));
    sign(
        header(2, Some(before.namespace()), link),
        Body::Namespace(body),
        &[ROOT, NEXT_ROOT],
    )
}

fn repository(namespace: NamespaceId) -> Record {
    let body = Repository {
        kind: RepoKind::Model,
        name: "all-MiniLM-L6-v2".parse().expect("a name"),
        nonce: Nonce::from_bytes([0x33; 16]),
        created_at: TIME,
    };
    sign(
        header(1, Some(namespace), None),
        Body::Repository(body),
        &[HOME],
    )
}

fn names(namespace: NamespaceId, repository: RepositoryId) -> [Record; 2] {
    let body = |target| {
        Body::Names(Names {
            kind: RepoKind::Model,
            name: "all-minilm".parse().expect("a name"),
            target: Some(target),
        })
    };
    let first = header(1, Some(namespace), Some((1, None)));
    let first = sign(first, body(NamesTarget::Repository(repository)), &[HOME]);
    let second = header(1, Some(namespace), Some((2, Some(first.id()))));
    let other = "all-minilm-l6-v2".parse().expect("a name");
    let second = sign(second, body(NamesTarget::Redirect(other)), &[HOME]);
    [first, second]
}

fn change(namespace: NamespaceId, repository: RepositoryId) -> Record {
    let mut header = header(1, Some(namespace), None);
    header.repository = Some(repository);
    let body = Change {
        reference: "refs/heads/main".to_owned(),
        old: None,
        new: Some(GitOid::from_bytes([0x44; 20])),
        entry: Some(Blake3::from_bytes([0x55; 32])),
        nonce: Nonce::from_bytes([0x66; 16]),
    };
    sign(header, Body::Change(body), &[PUBLISHER])
}

fn head(namespace: NamespaceId, repository: RepositoryId, change: &Record) -> Record {
    let mut header = header(1, Some(namespace), Some((2, Some([0x77; 32].into()))));
    header.repository = Some(repository);
    header.critical = vec!["settings".to_owned()];
    let mut settings = Object::new();
    settings.set("visibility", "public");
    let body = Head {
        refs: Blake3::from_bytes([0x88; 32]),
        changes: vec![change.id()],
        card: Card {
            text: Some(Blake3::from_bytes([0x99; 32])),
            license: Some("apache-2.0".to_owned()),
            library_name: Some("sentence-transformers".to_owned()),
            pipeline_tag: None,
            tags: vec!["bert".to_owned(), "dataset:org/name".to_owned()],
        },
        settings,
    };
    sign(header, Body::Head(body), &[HOME])
}

fn freshness(namespace: NamespaceId, repository: RepositoryId, head: &Record) -> Record {
    let heads = BTreeMap::from([(repository, Some(head.id()))]);
    let body = Freshness {
        visibility: Visibility::Public,
        root: Rows::new(&heads).expect("a row").hash(),
        good_until: TIME + 86_400,
    };
    let header = header(1, Some(namespace), Some((1, None)));
    sign(header, Body::Freshness(body), &[HOME])
}

fn attestation(namespace: NamespaceId, repository: RepositoryId) -> Record {
    let mut header = header(1, Some(namespace), None);
    header.repository = Some(repository);
    let body = Attestation {
        entry: Some(Blake3::from_bytes([0x55; 32])),
        path: Some("weights/model.safetensors".parse().expect("a path")),
        finding: Attestation::DIGESTS_DISAGREE.to_owned(),
        detail: Some("sha256".to_owned()),
    };
    sign(header, Body::Attestation(body), &[STRANGER])
}

/// With every member that may be null, and without.
fn accounts(namespace: NamespaceId, repository: RepositoryId) -> [Record; 2] {
    let body = Account {
        key: key(HOLDER).public(),
        holder: Some(Blake3::from_bytes([0xaa; 32])),
        repositories: Some(vec![repository, RepositoryId::from_bytes([0x11; 32])]),
        refs: Some(vec!["refs/heads/*".to_owned(), "refs/tags/v1".to_owned()]),
        end: Some(1_800_000_000),
        revoked: false,
    };
    let revoked = Account {
        key: body.key,
        holder: None,
        repositories: None,
        refs: None,
        end: None,
        revoked: true,
    };
    let first = header(1, Some(namespace), Some((1, None)));
    let first = sign(first, Body::Account(body), &[REGISTRAR]);
    let second = header(1, Some(namespace), Some((2, Some(first.id()))));
    let second = sign(second, Body::Account(revoked), &[REGISTRAR]);
    [first, second]
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/records")
}

#[test]
fn committed_records_read_and_sign_the_same() {
    let all = vectors();
    let ids = all
        .iter()
        .map(|(name, record)| format!("{name} {}", record.id()));
    let ids = ids.collect::<Vec<_>>().join("\n") + "\n";
    if std::env::var_os("CAIRN_UPDATE_VECTORS").is_some() {
        fs::create_dir_all(folder()).unwrap();
        for (name, record) in &all {
            fs::write(folder().join(format!("{name}.json")), record.envelope()).unwrap();
        }
        fs::write(folder().join("ids.txt"), &ids).unwrap();
    }
    for (name, record) in &all {
        let committed = fs::read(folder().join(format!("{name}.json"))).unwrap();
        assert_eq!(
            committed,
            record.envelope(),
            "{name} signs to the same bytes"
        );
        assert_eq!(Record::parse(&committed).as_ref(), Ok(record), "{name}");
        assert_eq!(
            Record::parse_trusted(&committed).as_ref(),
            Ok(record),
            "{name}"
        );
    }
    assert_eq!(fs::read_to_string(folder().join("ids.txt")).unwrap(), ids);
    let files = fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, all.len() + 1, "no vector is left unread");
}
