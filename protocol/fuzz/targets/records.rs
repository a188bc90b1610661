//! Fuzz targets of records: each takes any bytes, asserts what must hold of them, and panics at
//! nothing else. Driven by libFuzzer, by a short deterministic run on stable Rust, and by the
//! property tests of acceptance, which share the histories made here.

#![allow(
    unreachable_pub,
    reason = "public in the fuzz crate, private in the tests that include this file"
)]

use std::collections::{BTreeMap, VecDeque};

use cairn_protocol::accept::{Ledger, RepositoryView, Verdict};
use cairn_protocol::envelope::Envelope;
use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RecordId, RepositoryId};
use cairn_protocol::json::{self, Object, Value};
use cairn_protocol::key::SecretKey;
use cairn_protocol::name::RepoKind;
use cairn_protocol::record::{
    Account, Attestation, Body, Card, Change, Delegation, Freshness, Head, Header, Link, Names,
    NamesTarget, Namespace, Nonce, Record, Repository, Role, RootKeys, Rows, Visibility,
};

/// A target: asserts what must hold of any bytes.
pub type Target = fn(&[u8]);

/// Every target of this file, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", json),
    ("envelope", envelope),
    ("record", record),
    ("rows", rows),
    ("ledger", ledger),
];

/// What parses as strict JSON, writes and parses to the same value.
pub fn json(data: &[u8]) {
    let Ok(value) = json::parse(data) else { return };
    let mut whole = Object::new();
    whole.set("value", value.clone());
    let Ok(Value::Object(read)) = json::parse(&whole.to_bytes()) else {
        // One level deeper, or a few bytes longer, may be over the limit.
        return;
    };
    assert_eq!(read.get("value"), Some(&value));
}

/// What parses as an envelope is its own one form.
pub fn envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::parse(data) else {
        return;
    };
    assert_eq!(envelope.as_bytes(), data);
    let key = SecretKey::from_seed([1; 32]);
    let signed = Envelope::sign(
        envelope.payload_type(),
        envelope.payload().to_vec(),
        &[&key],
    )
    .expect("a payload that was taken once is taken again");
    assert_eq!(
        signed.id(),
        envelope.id(),
        "signatures have no part in the id"
    );
    assert!(envelope.verify(&[]).is_err(), "nobody signed nothing");
}

/// What reads as a record keeps its bytes; its members, signed anew, read the same.
pub fn record(data: &[u8]) {
    read_record(data);
    // Few inputs are envelopes: as a payload, the same bytes reach the members.
    let key = SecretKey::from_seed([1; 32]);
    if let Ok(envelope) =
        Envelope::sign(cairn_protocol::record::PAYLOAD_TYPE, data.to_vec(), &[&key])
    {
        read_record(envelope.as_bytes());
    }
}

fn read_record(data: &[u8]) {
    let Ok(record) = Record::parse_trusted(data) else {
        assert!(Record::parse(data).is_err(), "verifying takes nothing more");
        return;
    };
    assert_eq!(record.envelope(), data);
    if let Ok(verified) = Record::parse(data) {
        assert_eq!(verified, record);
    }
    let key = SecretKey::from_seed([2; 32]);
    let keys = vec![&key; record.header().signers.len()];
    match Record::sign(record.header().clone(), record.body().clone(), &keys) {
        Ok(signed) => {
            assert_eq!(signed.body(), record.body());
            assert!(Record::parse(signed.envelope()).is_ok());
        }
        // The same key twice among the signers is refused.
        Err(error) => assert!(keys.len() > 1, "{error}"),
    }
}

/// What decodes as rows encodes to the same bytes.
pub fn rows(data: &[u8]) {
    let Ok(rows) = Rows::decode(data) else { return };
    assert_eq!(rows.encode(), data);
    for (repository, head) in rows.iter() {
        assert_eq!(rows.get(&repository), Some(head));
    }
}

/// A history adds up to the same state in two orders, and twice over.
pub fn ledger(data: &[u8]) {
    let history = History::new(data);
    let mut forward = Ledger::default();
    history.items.iter().for_each(|item| {
        item.insert_into(&mut forward);
    });
    let mut backward = Ledger::default();
    history.items.iter().rev().for_each(|item| {
        item.insert_into(&mut backward);
    });
    let state = history.state(&forward);
    assert_same(&state, &history.state(&backward));
    for item in &history.items {
        let verdict = item.insert_into(&mut forward);
        // What was refused is not kept; under another course it may be told to wait.
        assert!(
            matches!(
                verdict,
                Verdict::Known | Verdict::Refused(_) | Verdict::Waiting
            ),
            "{verdict:?} {item:?}"
        );
    }
    assert_same(&state, &history.state(&forward));
}

/// Asserts that two states are equal, or shows where they differ.
pub fn assert_same(one: &str, other: &str) {
    let pairs = one.lines().zip(other.lines());
    let apart: Vec<_> = pairs.filter(|(one, other)| one != other).take(4).collect();
    assert!(one == other, "the states differ: {apart:#?}");
}

/// A record, or rows.
#[derive(Debug, Clone)]
pub enum Item {
    /// A signed record.
    Record(Box<Record>),
    /// Rows that a namespace record may take over.
    Rows(Rows),
}

impl Item {
    /// Gives it to a ledger.
    pub fn insert_into(&self, ledger: &mut Ledger) -> Verdict {
        match self {
            Self::Record(record) => ledger.insert(record),
            Self::Rows(rows) => ledger.insert_rows(rows.clone()),
        }
    }
}

/// Records that a few keys might have signed, honestly or not, read from any bytes.
#[derive(Debug)]
pub struct History {
    /// In the order in which they were made, which is one in which nothing waits for long.
    pub items: Vec<Item>,
    bytes: VecDeque<u8>,
    namespaces: Vec<Record>,
    repositories: Vec<Record>,
    changes: Vec<Record>,
    heads: Vec<Record>,
    names: Vec<Record>,
    freshness: Vec<Record>,
    attestations: Vec<Record>,
    accounts: Vec<Record>,
}

/// Records of one history; the rest of the bytes makes none.
const RECORDS_MAX: usize = 60;

const ROOT: u8 = 1;
const OTHER_ROOT: u8 = 2;
const RECOVERY: u8 = 3;
const HOME: u8 = 4;
const OTHER_HOME: u8 = 5;
const PUBLISHER: u8 = 6;
const OTHER_PUBLISHER: u8 = 7;
const STRANGER: u8 = 8;
/// May sign account records.
const REGISTRAR: u8 = 9;
/// May publish where an account record says so, and nowhere by a role.
pub const HOLDER: u8 = 10;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

impl History {
    /// Reads a history; any bytes are one.
    pub fn new(data: &[u8]) -> Self {
        let mut history = Self {
            items: Vec::new(),
            bytes: VecDeque::from(data.to_vec()),
            namespaces: Vec::new(),
            repositories: Vec::new(),
            changes: Vec::new(),
            heads: Vec::new(),
            names: Vec::new(),
            freshness: Vec::new(),
            attestations: Vec::new(),
            accounts: Vec::new(),
        };
        history.begin();
        while history.items.len() < RECORDS_MAX
            && let Some(byte) = history.bytes.pop_front()
        {
            match byte % 18 {
                0 | 1 => history.namespace(),
                2 => history.repository(),
                3..=5 => history.change(),
                6 | 7 => history.name(),
                8 => history.fresh(),
                9 => history.attest(),
                10 | 11 => history.account(),
                _ => history.head(),
            }
        }
        history
    }

    /// A namespace and a repository, so that most bytes lead somewhere.
    fn begin(&mut self) {
        let mut header = Header::new(1, 0);
        header.chain = Some(Link { seq: 1, prev: None });
        let recovery = self.chance(2).then(|| key(RECOVERY).public().fingerprint());
        let body = Namespace {
            root: RootKeys {
                keys: vec![key(ROOT).public()],
                threshold: 1,
            },
            recovery,
            delegated: self.delegated(),
            home: key(HOME).public(),
            claims: Vec::new(),
            carried: None,
        };
        self.sign(header, Body::Namespace(body), &[ROOT]);
        self.repository();
    }

    fn byte(&mut self) -> u8 {
        self.bytes.pop_front().unwrap_or(0)
    }

    /// One in `n`; not where the bytes have ended.
    fn chance(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    /// Mostly the newest of so many.
    fn pick(&mut self, count: usize) -> Option<usize> {
        let back = usize::from(self.byte().saturating_sub(160));
        (count > 0).then(|| count - 1 - back % count)
    }

    fn delegated(&mut self) -> Vec<Delegation> {
        let mut delegation = Delegation {
            key: key(PUBLISHER).public(),
            roles: vec![Role::Publish, Role::Freshness],
            repositories: None,
            refs: None,
            end: Some(0),
        };
        let mut delegated = vec![delegation.clone()];
        if self.chance(3) {
            delegation.key = key(OTHER_PUBLISHER).public();
            delegation.refs = Some(vec!["refs/heads/*".to_owned()]);
            delegated.push(delegation);
        }
        if self.chance(2) {
            delegated.push(Delegation {
                key: key(REGISTRAR).public(),
                roles: vec![Role::Account],
                repositories: None,
                refs: self.chance(4).then(|| vec!["refs/tags/*".to_owned()]),
                end: Some(0),
            });
        }
        delegated
    }

    fn sign(&mut self, header: Header, body: Body, keys: &[u8]) -> Option<RecordId> {
        let keys: Vec<SecretKey> = keys.iter().map(|seed| key(*seed)).collect();
        let keys: Vec<&SecretKey> = keys.iter().collect();
        let record = Record::sign(header, body, &keys).expect("histories keep to the limits");
        let id = record.id();
        let known = match record.body() {
            Body::Namespace(_) => &mut self.namespaces,
            Body::Repository(_) => &mut self.repositories,
            Body::Change(_) => &mut self.changes,
            Body::Head(_) => &mut self.heads,
            Body::Names(_) => &mut self.names,
            Body::Freshness(_) => &mut self.freshness,
            Body::Attestation(_) => &mut self.attestations,
            Body::Account(_) => &mut self.accounts,
        };
        if known.iter().any(|other| other.id() == id) {
            return None;
        }
        known.push(record.clone());
        self.items.push(Item::Record(Box::new(record)));
        Some(id)
    }

    /// A header in the epoch of a namespace record, with the seed of that epoch's home.
    fn header(&mut self) -> (Header, u8) {
        let index = self.pick(self.namespaces.len()).unwrap_or(0);
        let record = &self.namespaces[index];
        let Body::Namespace(body) = record.body() else {
            unreachable!("namespaces holds namespace records")
        };
        let home = if body.home == key(HOME).public() {
            HOME
        } else {
            OTHER_HOME
        };
        let mut header = Header::new(record.header().epoch, 7);
        header.namespace = Some(record.namespace());
        (header, home)
    }

    /// Seq and prev after the newest of some records, or beside it, in this header's epoch.
    fn follow(&mut self, header: &Header, chain: &[usize], of: fn(&Self) -> &Vec<Record>) -> Link {
        let Some(index) = self.pick(chain.len()) else {
            return Link { seq: 1, prev: None };
        };
        let before = &of(self)[chain[index]];
        let seq = before.header().chain.map_or(1, |link| link.seq);
        if before.header().epoch == header.epoch {
            let prev = Some(before.id());
            return Link { seq: seq + 1, prev };
        }
        Link {
            seq: 1,
            prev: (header.epoch > 1).then(|| before.id()),
        }
    }

    fn namespace(&mut self) {
        let index = self.pick(self.namespaces.len()).unwrap_or(0);
        let parent = self.namespaces[index].clone();
        let Body::Namespace(mut body) = parent.body().clone() else {
            return;
        };
        let (epoch, seq) = (
            parent.header().epoch,
            parent.header().chain.map_or(1, |link| link.seq),
        );
        let new_epoch = self.chance(2);
        let mut header = Header::new(epoch + u64::from(new_epoch), 3);
        header.namespace = Some(parent.namespace());
        header.chain = Some(Link {
            seq: if new_epoch { 1 } else { seq + 1 },
            prev: Some(parent.id()),
        });
        body.delegated = self.delegated();
        if new_epoch {
            let home = if self.chance(2) { OTHER_HOME } else { HOME };
            body.home = key(home).public();
            body.carried = (!self.chance(4)).then(|| self.carry());
        }
        let keys: &[u8] = match self.byte() % 8 {
            0..=3 => &[ROOT],
            4 => {
                body.root.keys = vec![key(OTHER_ROOT).public()];
                &[ROOT, OTHER_ROOT]
            }
            5 => &[OTHER_ROOT],
            6 => {
                body.root.keys = vec![key(OTHER_ROOT).public()];
                &[RECOVERY, OTHER_ROOT]
            }
            _ => &[STRANGER],
        };
        if self.chance(6) {
            body.recovery = Some(key(RECOVERY).public().fingerprint());
        }
        self.sign(header, Body::Namespace(body), keys);
    }

    /// Rows of some head, or none, for most repositories.
    fn carry(&mut self) -> Blake3 {
        let mut heads = BTreeMap::new();
        for repository in self.repositories.clone() {
            let id = RepositoryId::from(repository.id());
            let of_it = |head: &&Record| head.header().repository == Some(id);
            let known: Vec<RecordId> = self.heads.iter().filter(of_it).map(Record::id).collect();
            if !self.chance(5) {
                heads.insert(id, self.pick(known.len()).map(|index| known[index]));
            }
        }
        let rows = Rows::new(&heads).expect("a few rows");
        let hash = rows.hash();
        let known = |item: &Item| matches!(item, Item::Rows(other) if *other == rows);
        if !self.items.iter().any(known) {
            self.items.push(Item::Rows(rows));
        }
        hash
    }

    fn repository(&mut self) {
        let (header, home) = self.header();
        let body = Repository {
            kind: RepoKind::Model,
            name: "name".parse().expect("a name"),
            nonce: Nonce::from_bytes([self.byte() % 3; 16]),
            created_at: 5,
        };
        let signer = if self.chance(8) { STRANGER } else { home };
        self.sign(header, Body::Repository(body), &[signer]);
    }

    fn change(&mut self) {
        let (mut header, home) = self.header();
        header.repository = Some(self.some_repository());
        let reference = ["refs/heads/main", "refs/tags/v1"][usize::from(self.byte() % 2)];
        let body = Change {
            reference: reference.to_owned(),
            old: None,
            new: Some(GitOid::from_bytes([1; 20])),
            entry: Some(Blake3::from_bytes([2; 32])),
            nonce: Nonce::from_bytes([self.byte(); 16]),
        };
        let signer = match self.byte() % 8 {
            0..=2 => PUBLISHER,
            3 => OTHER_PUBLISHER,
            4..=6 => HOLDER,
            _ => home,
        };
        self.sign(header, Body::Change(body), &[signer]);
    }

    fn some_repository(&mut self) -> RepositoryId {
        let index = self.pick(self.repositories.len());
        index.map_or(RepositoryId::from_bytes([0; 32]), |index| {
            self.repositories[index].id().into()
        })
    }

    fn head(&mut self) {
        let (mut header, home) = self.header();
        let repository = self.some_repository();
        header.repository = Some(repository);
        let of_it = |(_, head): &(usize, &Record)| head.header().repository == Some(repository);
        let chain: Vec<usize> = self
            .heads
            .iter()
            .enumerate()
            .filter(of_it)
            .map(|(i, _)| i)
            .collect();
        header.chain = Some(self.follow(&header, &chain, |history| &history.heads));
        let of_it = |change: &&Record| change.header().repository == Some(repository);
        let staged: Vec<RecordId> = self.changes.iter().filter(of_it).map(Record::id).collect();
        let taken = match self.byte() % 3 {
            0 => None,
            _ => self.pick(staged.len()).map(|index| staged[index]),
        };
        let body = Head {
            refs: Blake3::from_bytes([self.byte() % 2; 32]),
            changes: taken.into_iter().collect(),
            card: Card::default(),
            settings: Object::new(),
        };
        let signer = if self.chance(12) { STRANGER } else { home };
        self.sign(header, Body::Head(body), &[signer]);
    }

    fn name(&mut self) {
        let (mut header, home) = self.header();
        let chain: Vec<usize> = (0..self.names.len()).collect();
        header.chain = Some(self.follow(&header, &chain, |history| &history.names));
        let target = match self.byte() % 3 {
            0 => None,
            1 => Some(NamesTarget::Redirect("other".parse().expect("a name"))),
            _ => Some(NamesTarget::Repository(self.some_repository())),
        };
        let body = Names {
            kind: RepoKind::Model,
            name: "name".parse().expect("a name"),
            target,
        };
        let signer = if self.chance(8) { STRANGER } else { home };
        self.sign(header, Body::Names(body), &[signer]);
    }

    fn fresh(&mut self) {
        let (mut header, home) = self.header();
        let chain: Vec<usize> = (0..self.freshness.len()).collect();
        header.chain = Some(self.follow(&header, &chain, |history| &history.freshness));
        let body = Freshness {
            visibility: Visibility::Public,
            root: Blake3::from_bytes([self.byte() % 2; 32]),
            good_until: 9,
        };
        let signer = [home, PUBLISHER, OTHER_PUBLISHER, STRANGER][usize::from(self.byte() % 4)];
        self.sign(header, Body::Freshness(body), &[signer]);
    }

    fn attest(&mut self) {
        let (mut header, _) = self.header();
        header.repository = Some(self.some_repository());
        let body = Attestation {
            entry: self.chance(2).then(|| Blake3::from_bytes([7; 32])),
            path: self.chance(2).then(|| "a/b".parse().expect("a path")),
            finding: Attestation::DIGESTS_DISAGREE.to_owned(),
            detail: Some(format!("n{}", self.byte())),
        };
        let signer = [PUBLISHER, STRANGER][usize::from(self.byte() % 2)];
        self.sign(header, Body::Attestation(body), &[signer]);
    }

    fn account(&mut self) {
        let (mut header, home) = self.header();
        let holder = [HOLDER, HOLDER, OTHER_PUBLISHER][usize::from(self.byte() % 3)];
        let of_it = |(_, record): &(usize, &Record)| matches!(record.body(), Body::Account(body) if body.key == key(holder).public());
        let accounts = self.accounts.iter().enumerate();
        let chain: Vec<usize> = accounts.filter(of_it).map(|(index, _)| index).collect();
        header.chain = Some(self.follow(&header, &chain, |history| &history.accounts));
        let body = Account {
            key: key(holder).public(),
            holder: self.chance(2).then(|| Blake3::from_bytes([3; 32])),
            repositories: self.chance(4).then(|| vec![self.some_repository()]),
            refs: self.chance(4).then(|| vec!["refs/heads/*".to_owned()]),
            end: Some(0),
            revoked: self.chance(5),
        };
        let signer = match self.byte() % 8 {
            0 => home,
            1 => PUBLISHER,
            _ => REGISTRAR,
        };
        self.sign(header, Body::Account(body), &[signer]);
    }

    /// The namespace of all records.
    pub fn namespace_id(&self) -> NamespaceId {
        self.namespaces[0].namespace()
    }

    /// All that a ledger shows of this history, as text.
    pub fn state(&self, ledger: &Ledger) -> String {
        let namespace = self.namespace_id();
        let name = "name".parse().expect("a name");
        let namespaces: Vec<_> = ledger.namespaces().collect();
        let repositories: Vec<_> = ledger.repositories().collect();
        let names: Vec<_> = ledger.names(&namespace).collect();
        let target = ledger.name(&namespace, RepoKind::Model, &name);
        let fresh = ledger.freshness(&namespace, Visibility::Public);
        let next = (
            ledger.next_name(&namespace, RepoKind::Model, &name),
            ledger.next_freshness(&namespace, Visibility::Public),
        );
        let taken: Vec<_> = self
            .changes
            .iter()
            .filter_map(|change| {
                let repository = change.header().repository?;
                let head = ledger.taken_in(&repository, &change.id())?;
                Some((change.id(), head))
            })
            .collect();
        let attested: Vec<_> = repositories
            .iter()
            .flat_map(|view| ledger.attestations(&view.id))
            .collect();
        let accounts: Vec<_> = ledger.accounts(&namespace).collect();
        let holders = [HOLDER, OTHER_PUBLISHER].map(|holder| {
            let holder = key(holder).public();
            let may = |view: &RepositoryView<'_>| {
                ["refs/heads/main", "refs/tags/v1"]
                    .map(|to| ledger.may_publish(&namespace, &holder, &view.id, to))
            };
            let may: Vec<_> = repositories.iter().map(may).collect();
            let next = ledger.next_account(&namespace, &holder);
            (ledger.account(&namespace, &holder), next, may)
        });
        format!(
            "{accounts:?}\n{holders:?}\n{attested:?}\n{namespaces:#?}\n{repositories:#?}\n{names:?}\n{target:?}\n{fresh:?}\n{next:?}\n{taken:?}"
        )
    }
}
