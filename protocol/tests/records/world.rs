//! Keys with roles, and records that they sign.

use std::collections::BTreeMap;

use cairn_protocol::accept::{Ledger, Verdict};
use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RecordId, RepositoryId};
use cairn_protocol::json::Object;
use cairn_protocol::key::SecretKey;
use cairn_protocol::name::{RepoKind, RepoName};
use cairn_protocol::record::{
    Account, Attestation, Body, Card, Change, Delegation, Freshness, Head, Header, Link, Names,
    NamesTarget, Namespace, Nonce, Record, Repository, Role, RootKeys, Rows, Visibility,
};

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

pub(crate) const ROOT: u8 = 1;
pub(crate) const RECOVERY: u8 = 2;
pub(crate) const HOME: u8 = 3;
pub(crate) const PUBLISHER: u8 = 4;
pub(crate) const STRANGER: u8 = 5;
pub(crate) const NEXT_HOME: u8 = 6;
pub(crate) const NEXT_ROOT: u8 = 7;
pub(crate) const REGISTRAR: u8 = 8;
pub(crate) const HOLDER: u8 = 9;

pub(crate) fn publisher(seed: u8) -> Delegation {
    Delegation {
        key: key(seed).public(),
        roles: vec![Role::Publish],
        repositories: None,
        refs: None,
        end: None,
    }
}

pub(crate) fn registrar(seed: u8) -> Delegation {
    Delegation {
        roles: vec![Role::Account],
        ..publisher(seed)
    }
}

/// What lets a key publish everywhere in a namespace.
pub(crate) fn account_body(seed: u8) -> Account {
    Account {
        key: key(seed).public(),
        holder: Some(Blake3::from_bytes([seed; 32])),
        repositories: None,
        refs: None,
        end: None,
        revoked: false,
    }
}

/// A namespace with one root key, a home and a publisher; without a recovery key.
pub(crate) fn namespace_body() -> Namespace {
    Namespace {
        root: RootKeys {
            keys: vec![key(ROOT).public()],
            threshold: 1,
        },
        recovery: None,
        delegated: vec![publisher(PUBLISHER)],
        home: key(HOME).public(),
        claims: Vec::new(),
        carried: None,
    }
}

pub(crate) fn sign(header: Header, body: Body, seeds: &[u8]) -> Record {
    let keys: Vec<SecretKey> = seeds.iter().map(|seed| key(*seed)).collect();
    let keys: Vec<&SecretKey> = keys.iter().collect();
    let record = Record::sign(header, body, &keys).expect("a record");
    assert_eq!(
        Record::parse(record.envelope()).as_ref(),
        Ok(&record),
        "what is signed is taken"
    );
    record
}

pub(crate) fn first(body: Namespace, seeds: &[u8]) -> Record {
    let mut header = Header::new(1, 1_700_000_000);
    header.chain = Some(Link { seq: 1, prev: None });
    sign(header, Body::Namespace(body), seeds)
}

/// A namespace record after another, of that version.
pub(crate) fn later(prev: &Record, version: (u64, u64), body: Namespace, seeds: &[u8]) -> Record {
    let mut header = Header::new(version.0, 1_700_000_001);
    header.namespace = Some(prev.namespace());
    header.chain = Some(Link {
        seq: version.1,
        prev: Some(prev.id()),
    });
    sign(header, Body::Namespace(body), seeds)
}

/// A repository's records, as one home in one epoch signs them.
#[derive(Clone, Copy)]
pub(crate) struct Realm {
    pub(crate) namespace: NamespaceId,
    pub(crate) repository: RepositoryId,
    pub(crate) epoch: u64,
    pub(crate) home: u8,
}

impl Realm {
    fn header(&self) -> Header {
        let mut header = Header::new(self.epoch, 1_700_000_002);
        header.namespace = Some(self.namespace);
        header
    }

    pub(crate) fn change(&self, nonce: u8, signer: u8) -> Record {
        self.change_of(nonce, signer, "refs/heads/main")
    }

    pub(crate) fn change_of(&self, nonce: u8, signer: u8, reference: &str) -> Record {
        let mut header = self.header();
        header.repository = Some(self.repository);
        let body = Change {
            reference: reference.to_owned(),
            old: None,
            new: Some(GitOid::from_bytes([nonce; 20])),
            entry: Some(Blake3::from_bytes([nonce; 32])),
            nonce: Nonce::from_bytes([nonce; 16]),
        };
        sign(header, Body::Change(body), &[signer])
    }

    /// A head whose refs blob is told apart by a byte.
    pub(crate) fn head(
        &self,
        seq: u64,
        prev: Option<&Record>,
        refs: u8,
        changes: &[&Record],
    ) -> Record {
        let mut header = self.header();
        header.repository = Some(self.repository);
        header.chain = Some(Link {
            seq,
            prev: prev.map(Record::id),
        });
        let body = Head {
            refs: Blake3::from_bytes([refs; 32]),
            changes: changes.iter().map(|change| change.id()).collect(),
            card: Card::default(),
            settings: Object::new(),
        };
        sign(header, Body::Head(body), &[self.home])
    }

    /// Heads 1 to `count`, each after the one before.
    pub(crate) fn heads(&self, count: u64, base: Option<&Record>) -> Vec<Record> {
        let mut heads: Vec<Record> = Vec::new();
        for seq in 1..=count {
            heads.push(self.head(seq, heads.last().or(base), 0, &[]));
        }
        heads
    }

    pub(crate) fn names(&self, link: Link, name: &str, target: Option<NamesTarget>) -> Record {
        let mut header = self.header();
        header.chain = Some(link);
        let body = Names {
            kind: RepoKind::Model,
            name: name.parse().expect("a name"),
            target,
        };
        sign(header, Body::Names(body), &[self.home])
    }

    pub(crate) fn freshness(&self, link: Link, root: u8, signer: u8) -> Record {
        let mut header = self.header();
        header.chain = Some(link);
        let body = Freshness {
            visibility: Visibility::Public,
            root: Blake3::from_bytes([root; 32]),
            good_until: 1_800_000_000,
        };
        sign(header, Body::Freshness(body), &[signer])
    }

    pub(crate) fn account(
        &self,
        seq: u64,
        prev: Option<&Record>,
        body: Account,
        signer: u8,
    ) -> Record {
        let mut header = self.header();
        header.chain = Some(Link {
            seq,
            prev: prev.map(Record::id),
        });
        sign(header, Body::Account(body), &[signer])
    }

    pub(crate) fn attestation(&self, detail: u32, signer: u8) -> Record {
        let mut header = self.header();
        header.repository = Some(self.repository);
        let body = Attestation {
            entry: None,
            path: None,
            finding: Attestation::DIGESTS_DISAGREE.to_owned(),
            detail: Some(format!("n{detail}")),
        };
        sign(header, Body::Attestation(body), &[signer])
    }

    pub(crate) fn repository_record(&self, name: &str) -> Record {
        let body = Repository {
            kind: RepoKind::Model,
            name: name.parse().expect("a name"),
            nonce: Nonce::from_bytes([9; 16]),
            created_at: 1_700_000_000,
        };
        sign(self.header(), Body::Repository(body), &[self.home])
    }
}

/// A ledger with a namespace and one repository in it.
pub(crate) struct World {
    pub(crate) ledger: Ledger,
    pub(crate) namespace: Record,
    pub(crate) repository: Record,
    pub(crate) realm: Realm,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(namespace_body())
    }

    pub(crate) fn with(body: Namespace) -> Self {
        let namespace = first(body, &[ROOT]);
        let mut realm = Realm {
            namespace: namespace.namespace(),
            repository: RepositoryId::from_bytes([0; 32]),
            epoch: 1,
            home: HOME,
        };
        let repository = realm.repository_record("Model");
        realm.repository = repository.id().into();
        let mut ledger = Ledger::default();
        assert_eq!(ledger.insert(&namespace), Verdict::Accepted);
        assert_eq!(ledger.insert(&repository), Verdict::Accepted);
        Self {
            ledger,
            namespace,
            repository,
            realm,
        }
    }

    pub(crate) fn insert(&mut self, record: &Record) -> Verdict {
        self.ledger.insert(record)
    }

    /// The head in force.
    pub(crate) fn head(&self) -> Option<RecordId> {
        let view = self.ledger.repository(&self.realm.repository)?;
        view.head.map(|head| head.id)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let view = self.ledger.repository(&self.realm.repository);
        view.is_some_and(|view| view.frozen.is_some())
    }

    /// A new epoch with another home that takes over a head; gives its record and rows.
    pub(crate) fn next_epoch(
        &self,
        prev: &Record,
        carried: Option<&Record>,
    ) -> (Record, Rows, Realm) {
        let heads = BTreeMap::from([(self.realm.repository, carried.map(Record::id))]);
        let rows = Rows::new(&heads).expect("a row");
        let mut body = namespace_body();
        body.home = key(NEXT_HOME).public();
        body.carried = Some(rows.hash());
        let epoch = prev.header().epoch + 1;
        let record = later(prev, (epoch, 1), body, &[ROOT]);
        let realm = Realm {
            epoch,
            home: NEXT_HOME,
            ..self.realm
        };
        (record, rows, realm)
    }
}

pub(crate) fn name(text: &str) -> RepoName {
    text.parse().expect("a name")
}
