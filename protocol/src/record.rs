//! Records: what namespaces, homes and publishers sign.
//!
//! A record is an [`Envelope`] over a strict JSON payload. [`Record::parse`] checks everything that
//! one record can show of itself: form, limits, members, and each signature by the key that the
//! payload names. Whether that key was entitled is [`crate::accept`]'s to say. The payload is never
//! rebuilt: members that this version doesn't know are kept, since the signed bytes are.

mod account;
mod attestation;
mod change;
mod freshness;
mod head;
mod members;
mod names;
mod namespace;
mod nonce;
mod repository;
mod rows;
mod scope;

pub use account::Account;
pub use attestation::Attestation;
pub use change::{Change, RefNameError, check_ref_name, ref_matches};
pub use freshness::{Freshness, Visibility};
pub use head::{Card, Head};
pub use names::{Names, NamesTarget};
pub use namespace::{Claim, ClaimKind, Delegation, Namespace, Role, RootKeys};
pub use nonce::Nonce;
pub use repository::Repository;
pub use rows::{Rows, RowsError};

use crate::envelope::{Envelope, EnvelopeError};
use crate::hash::{NamespaceId, RecordId, RepositoryId};
use crate::json::{self, INTEGER_MAX, JsonError, Object, Value};
use crate::key::{PublicKey, SecretKey};
use crate::limits::{HEAD_PAYLOAD_BYTES_MAX, SIGNERS_MAX};

use members::{Members, texts};

/// Media type of a record's payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.cairn.record.v1+json";

/// Format version of the payloads that this code reads and writes.
pub const VERSION: u64 = 1;

/// Members that every record may have.
const COMMON_MEMBERS: &[&str] = &[
    "version",
    "type",
    "signers",
    "epoch",
    "time",
    "namespace",
    "repository",
    "critical",
    "seq",
    "prev",
];

/// Names in `critical`; more are refused.
const CRITICAL_MAX: usize = 32;

/// Why a record is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The envelope's form, or a signature.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The payload is of a type that is no record.
    #[error("payload type {0:?} is not {PAYLOAD_TYPE}")]
    PayloadType(String),
    /// The payload is not strict JSON.
    #[error("the payload")]
    Json(#[from] JsonError),
    /// The payload is JSON, but no object.
    #[error("the payload is not a JSON object")]
    NotAnObject,
    /// A later format version, or none.
    #[error("format version {0} is not {VERSION}")]
    Version(u64),
    /// A type that this version doesn't know.
    #[error("record type {0:?} is not known")]
    Type(String),
    /// A member that must be understood, and is not.
    #[error("member {0:?} must be understood, and is not known")]
    Critical(String),
    /// A head whose payload is over its limit.
    #[error("a head's payload of {0} bytes, at most {HEAD_PAYLOAD_BYTES_MAX} are taken")]
    HeadTooLarge(usize),
    /// A member that is missing, or is not what it must be.
    #[error("member `{member}` {problem}")]
    Member {
        /// Its name, after that of what it stands in.
        member: String,
        /// What is wrong.
        problem: String,
    },
}

impl RecordError {
    fn member(member: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Member {
            member: member.into(),
            problem: problem.into(),
        }
    }
}

/// Place of a record among those that replace one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// From 1 in each epoch.
    pub seq: u64,
    /// The record that this one replaces, of an earlier epoch perhaps.
    pub prev: Option<RecordId>,
}

/// What all records say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Who signed, in the order of the signatures; [`Record::sign`] fills it in.
    pub signers: Vec<PublicKey>,
    /// Of the namespace, from 1.
    pub epoch: u64,
    /// When it was signed, in seconds since the Unix epoch; shown, never a ground to accept.
    pub time: u64,
    /// Absent only in a namespace's first record, whose id it is.
    pub namespace: Option<NamespaceId>,
    /// Which repository a change, head or attestation is of; absent in all others.
    pub repository: Option<RepositoryId>,
    /// Members that a reader must know, or refuse the record.
    pub critical: Vec<String>,
    /// In records that replace one another: all but repository, change and attestation.
    pub chain: Option<Link>,
}

impl Header {
    /// A header of that epoch and time, without anything else.
    pub const fn new(epoch: u64, time: u64) -> Self {
        Self {
            signers: Vec::new(),
            epoch,
            time,
            namespace: None,
            repository: None,
            critical: Vec::new(),
            chain: None,
        }
    }
}

/// What a record says beyond its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Who may sign what in a namespace.
    Namespace(Namespace),
    /// A repository begins; its id is this record's.
    Repository(Repository),
    /// What a name leads to.
    Names(Names),
    /// A publisher moves a ref.
    Change(Change),
    /// A repository's state, as its home orders it.
    Head(Head),
    /// What was newest, and until when that is worth believing.
    Freshness(Freshness),
    /// What somebody found of a repository.
    Attestation(Attestation),
    /// A key may publish, until it is revoked.
    Account(Account),
}

impl Body {
    /// The payload's `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Namespace(_) => "namespace",
            Self::Repository(_) => "repository",
            Self::Names(_) => "names",
            Self::Change(_) => "change",
            Self::Head(_) => "head",
            Self::Freshness(_) => "freshness",
            Self::Attestation(_) => "attestation",
            Self::Account(_) => "account",
        }
    }

    /// Whether records of this kind replace one another, and so carry seq and prev.
    pub const fn is_chained(&self) -> bool {
        !matches!(
            self,
            Self::Repository(_) | Self::Change(_) | Self::Attestation(_)
        )
    }

    /// Whether records of this kind name a repository in their header.
    pub const fn is_in_repository(&self) -> bool {
        matches!(self, Self::Change(_) | Self::Head(_) | Self::Attestation(_))
    }

    fn decode(kind: &str, members: &Members<'_>) -> Result<Self, RecordError> {
        Ok(match kind {
            "namespace" => Self::Namespace(Namespace::decode(members)?),
            "repository" => Self::Repository(Repository::decode(members)?),
            "names" => Self::Names(Names::decode(members)?),
            "change" => Self::Change(Change::decode(members)?),
            "head" => Self::Head(Head::decode(members)?),
            "freshness" => Self::Freshness(Freshness::decode(members)?),
            "attestation" => Self::Attestation(Attestation::decode(members)?),
            "account" => Self::Account(Account::decode(members)?),
            other => return Err(RecordError::Type(other.chars().take(80).collect())),
        })
    }

    fn encode(&self, payload: &mut Object) {
        match self {
            Self::Namespace(body) => body.encode(payload),
            Self::Repository(body) => body.encode(payload),
            Self::Names(body) => body.encode(payload),
            Self::Change(body) => body.encode(payload),
            Self::Head(body) => body.encode(payload),
            Self::Freshness(body) => body.encode(payload),
            Self::Attestation(body) => body.encode(payload),
            Self::Account(body) => body.encode(payload),
        }
    }

    const fn members(&self) -> &'static [&'static str] {
        match self {
            Self::Namespace(_) => Namespace::MEMBERS,
            Self::Repository(_) => Repository::MEMBERS,
            Self::Names(_) => Names::MEMBERS,
            Self::Change(_) => Change::MEMBERS,
            Self::Head(_) => Head::MEMBERS,
            Self::Freshness(_) => Freshness::MEMBERS,
            Self::Attestation(_) => Attestation::MEMBERS,
            Self::Account(_) => Account::MEMBERS,
        }
    }
}

/// A record whose form, members and signatures were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    id: RecordId,
    header: Header,
    body: Body,
    envelope: Vec<u8>,
}

impl Record {
    /// Signs a record with each key, in order; `header.signers` is filled in from them.
    ///
    /// Whatever [`Record::parse`] would refuse is refused here.
    #[allow(
        clippy::missing_panics_doc,
        reason = "the assertion guards our own encoder"
    )]
    pub fn sign(mut header: Header, body: Body, keys: &[&SecretKey]) -> Result<Self, RecordError> {
        header.signers = keys.iter().map(|key| key.public()).collect();
        let payload = encode(&header, &body).to_bytes();
        let envelope = Envelope::sign(PAYLOAD_TYPE, payload, keys)?;
        let (read_header, read_body) = decode(&envelope)?;
        assert!(
            read_header == header && read_body == body,
            "invariant: a payload reads back as it was written"
        );
        Ok(Self::new(envelope, header, body))
    }

    /// Parses an envelope and verifies every signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let envelope = Envelope::parse(bytes)?;
        // The cheap checks come first; nothing is believed before the signatures stand.
        let (header, body) = decode(&envelope)?;
        envelope.verify(&header.signers)?;
        Ok(Self::new(envelope, header, body))
    }

    /// As [`Record::parse`], without verifying signatures: for bytes of this node's own checksummed
    /// log, which holds only what was verified once.
    pub fn parse_trusted(bytes: &[u8]) -> Result<Self, RecordError> {
        let envelope = Envelope::parse(bytes)?;
        let (header, body) = decode(&envelope)?;
        Ok(Self::new(envelope, header, body))
    }

    fn new(envelope: Envelope, header: Header, body: Body) -> Self {
        Self {
            id: envelope.id(),
            header,
            body,
            envelope: envelope.into_bytes(),
        }
    }

    /// BLAKE3 of what was signed.
    pub const fn id(&self) -> RecordId {
        self.id
    }

    /// What all records say.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What this kind of record says.
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// The envelope's one byte form.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// The namespace that it belongs to: for a namespace's first record, its own id.
    pub fn namespace(&self) -> NamespaceId {
        self.header.namespace.unwrap_or(NamespaceId::from(self.id))
    }
}

fn encode(header: &Header, body: &Body) -> Object {
    let mut payload = Object::new();
    payload.set("version", VERSION);
    payload.set("type", body.kind());
    payload.set("signers", texts(&header.signers));
    payload.set("epoch", header.epoch);
    payload.set("time", header.time);
    if let Some(namespace) = header.namespace {
        payload.set("namespace", namespace.to_hex());
    }
    if let Some(repository) = header.repository {
        payload.set("repository", repository.to_hex());
    }
    payload.set("critical", texts(&header.critical));
    if let Some(link) = header.chain {
        payload.set("seq", link.seq);
        payload.set("prev", link.prev.map(|prev| prev.to_hex()));
    }
    body.encode(&mut payload);
    payload
}

fn decode(envelope: &Envelope) -> Result<(Header, Body), RecordError> {
    if envelope.payload_type() != PAYLOAD_TYPE {
        return Err(RecordError::PayloadType(envelope.payload_type().to_owned()));
    }
    let Value::Object(payload) = json::parse(envelope.payload())? else {
        return Err(RecordError::NotAnObject);
    };
    let members = Members::new(&payload);
    let version = members.integer("version")?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let body = Body::decode(members.text("type")?, &members)?;
    if matches!(body, Body::Head(_)) && envelope.payload().len() > HEAD_PAYLOAD_BYTES_MAX {
        return Err(RecordError::HeadTooLarge(envelope.payload().len()));
    }
    let header = decode_header(&members, &body)?;
    Ok((header, body))
}

fn decode_header(members: &Members<'_>, body: &Body) -> Result<Header, RecordError> {
    let signers: Vec<PublicKey> = members.parsed_list("signers", 1..=SIGNERS_MAX)?;
    if !matches!(body, Body::Namespace(_)) && signers.len() != 1 {
        return Err(RecordError::member(
            "signers",
            format!("names {} keys, this record has one", signers.len()),
        ));
    }
    if let Some(signer) = signers.iter().find(|signer| !signer.signs_records()) {
        return Err(RecordError::member(
            "signers",
            format!("names {signer}, which signs no records"),
        ));
    }
    let critical: Vec<String> = members.parsed_list("critical", 0..=CRITICAL_MAX)?;
    let known = |name: &str| COMMON_MEMBERS.contains(&name) || body.members().contains(&name);
    if let Some(unknown) = critical.iter().find(|name| !known(name)) {
        return Err(RecordError::Critical(unknown.chars().take(80).collect()));
    }
    let epoch = members.integer_in("epoch", 1..=INTEGER_MAX)?;
    let chain = decode_link(members, body, epoch)?;
    let first =
        matches!(body, Body::Namespace(_)) && chain.is_some_and(|link| (epoch, link.seq) == (1, 1));
    Ok(Header {
        signers,
        epoch,
        time: members.integer("time")?,
        namespace: members.parsed_only_if("namespace", !first)?,
        repository: members.parsed_only_if("repository", body.is_in_repository())?,
        critical,
        chain,
    })
}

fn decode_link(
    members: &Members<'_>,
    body: &Body,
    epoch: u64,
) -> Result<Option<Link>, RecordError> {
    if !body.is_chained() {
        members.absent("seq")?;
        members.absent("prev")?;
        return Ok(None);
    }
    let seq = members.integer_in("seq", 1..=INTEGER_MAX)?;
    let prev: Option<RecordId> = members.parsed_or_null("prev")?;
    if (epoch, seq) == (1, 1) && prev.is_some() {
        return Err(RecordError::member(
            "prev",
            "stands in the very first record",
        ));
    }
    let follows = seq > 1 || (epoch > 1 && matches!(body, Body::Namespace(_)));
    if follows && prev.is_none() {
        return Err(RecordError::member("prev", "is null in a later record"));
    }
    Ok(Some(Link { seq, prev }))
}
