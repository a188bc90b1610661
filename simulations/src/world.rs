//! Namespaces, their repositories, and the records that are published: really signed.

use anyhow::{Context as _, Result};
use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RecordId, RepositoryId};
use cairn_protocol::json::Object;
use cairn_protocol::key::SecretKey;
use cairn_protocol::name::RepoKind;
use cairn_protocol::record::{
    Body, Card, Change, Delegation, Head, Header, Link, Names, NamesTarget, Namespace, Nonce,
    Record, Repository, Role, RootKeys,
};
use cairn_protocol::spread::Known;

/// A time of signing; nothing depends on it.
const TIME: u64 = 1_700_000_000;

/// A namespace with one repository, and a first head of it that is published later.
#[derive(Debug)]
pub struct Namespaced {
    /// The repository.
    pub repository: RepositoryId,
    /// What every node has from the beginning: namespace, repository and name.
    pub before: Vec<Record>,
    /// What is published: a change, and the head that takes it in.
    pub published: Vec<Record>,
    /// The head's id.
    pub head: RecordId,
}

impl Namespaced {
    /// Signs everything with keys of that number.
    pub fn new(number: u8) -> Result<Self> {
        let key = |role: u8| SecretKey::from_seed([number.wrapping_mul(4).wrapping_add(role); 32]);
        let (root, home, publisher) = (key(0), key(1), key(2));
        let mut header = Header::new(1, TIME);
        header.chain = Some(Link { seq: 1, prev: None });
        let body = Namespace {
            root: RootKeys {
                keys: vec![root.public()],
                threshold: 1,
            },
            recovery: None,
            delegated: vec![Delegation {
                key: publisher.public(),
                roles: vec![Role::Publish],
                repositories: None,
                refs: None,
                end: None,
            }],
            home: home.public(),
            claims: Vec::new(),
            carried: None,
        };
        let namespace = Record::sign(header, Body::Namespace(body), &[&root])?;
        let header = || {
            let mut header = Header::new(1, TIME + 1);
            header.namespace = Some(NamespaceId::from(namespace.id()));
            header
        };
        let body = Repository {
            kind: RepoKind::Model,
            name: "model".parse().context("a name")?,
            nonce: Nonce::from_bytes([number; 16]),
            created_at: TIME,
        };
        let repository = Record::sign(header(), Body::Repository(body), &[&home])?;
        let id = RepositoryId::from(repository.id());
        let mut of_name = header();
        of_name.chain = Some(Link { seq: 1, prev: None });
        let body = Names {
            kind: RepoKind::Model,
            name: "model".parse().context("a name")?,
            target: Some(NamesTarget::Repository(id)),
        };
        let name = Record::sign(of_name, Body::Names(body), &[&home])?;
        let mut of_change = header();
        of_change.repository = Some(id);
        let body = Change {
            reference: "refs/heads/main".to_owned(),
            old: None,
            new: Some(GitOid::from_bytes([number; 20])),
            entry: Some(Blake3::from_bytes([number; 32])),
            nonce: Nonce::from_bytes([number; 16]),
        };
        let change = Record::sign(of_change, Body::Change(body), &[&publisher])?;
        let mut of_head = header();
        of_head.repository = Some(id);
        of_head.chain = Some(Link { seq: 1, prev: None });
        let body = Head {
            refs: Blake3::from_bytes([number; 32]),
            changes: vec![change.id()],
            card: Card::default(),
            settings: Object::new(),
        };
        let head = Record::sign(of_head, Body::Head(body), &[&home])?;
        Ok(Self {
            repository: id,
            head: head.id(),
            before: vec![namespace, repository, name],
            published: vec![change, head],
        })
    }
}

/// What the machine is told of a record.
pub fn known(record: &Record) -> Known {
    Known {
        id: record.id(),
        namespace: record.namespace(),
        time: record.header().time,
    }
}
