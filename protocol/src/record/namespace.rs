//! Who may sign what in a namespace.

use std::fmt;
use std::str::FromStr;

use crate::hash::{Blake3, RepositoryId};
use crate::json::{Object, Value};
use crate::key::PublicKey;
use crate::limits::SIGNERS_MAX;

use super::members::{Members, texts};
use super::{RecordError, scope};

/// Root keys of a namespace: so many that old and new ones fit into one record's signatures.
const ROOT_KEYS_MAX: usize = SIGNERS_MAX / 2;
/// Delegated keys; more are refused.
const DELEGATIONS_MAX: usize = 256;
/// Claims; more are refused.
const CLAIMS_MAX: usize = 16;
/// Bytes of a claim's value; longer ones are refused.
const CLAIM_BYTES_MAX: usize = 255;

/// A namespace record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Who may change the namespace.
    pub root: RootKeys,
    /// [`PublicKey::fingerprint`] of the key that outranks the root, kept away from it.
    pub recovery: Option<Blake3>,
    /// Keys with roles.
    pub delegated: Vec<Delegation>,
    /// The one key that orders this namespace's heads, through the whole epoch.
    pub home: PublicKey,
    /// Names that the namespace claims; who checks them is not here.
    pub claims: Vec<Claim>,
    /// BLAKE3 of the rows of repositories and heads that this epoch takes over.
    pub carried: Option<Blake3>,
}

/// Root keys, and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKeys {
    /// None twice.
    pub keys: Vec<PublicKey>,
    /// From 1 to the number of keys.
    pub threshold: u64,
}

/// A key with roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Whose.
    pub key: PublicKey,
    /// What it may sign; at least one, none twice.
    pub roles: Vec<Role>,
    /// Where; all repositories if absent.
    pub repositories: Option<Vec<RepositoryId>>,
    /// Which refs, as patterns in which `*` stands for any text; all if absent.
    pub refs: Option<Vec<String>>,
    /// Seconds since the Unix epoch after which the home takes in nothing more from it. Never
    /// decides whether a record is accepted.
    pub end: Option<u64>,
}

impl Delegation {
    /// Whether it lets its key move that ref of that repository.
    pub fn publishes(&self, repository: &RepositoryId, reference: &str) -> bool {
        self.roles.contains(&Role::Publish) && self.covers(repository, reference)
    }

    /// Whether account records that its key signs can let others move that ref of that repository.
    pub fn entitles(&self, repository: &RepositoryId, reference: &str) -> bool {
        self.roles.contains(&Role::Account) && self.covers(repository, reference)
    }

    fn covers(&self, repository: &RepositoryId, reference: &str) -> bool {
        let (repositories, refs) = (self.repositories.as_deref(), self.refs.as_deref());
        scope::covers(repositories, refs, repository, reference)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("not one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}
pub(super) use words;

words!(
    /// What a delegated key may sign.
    Role {
        /// Changes.
        Publish = "publish",
        /// Account records.
        Account = "account",
        /// Freshness.
        Freshness = "freshness",
    }
);

/// A name that the namespace claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// How it is proven.
    pub kind: ClaimKind,
    /// The domain, or the registrar and the plain name; printable ASCII, 1 to 255 bytes.
    pub value: String,
}

words!(
    /// How a claim is proven.
    ClaimKind {
        /// A TXT record of the domain.
        Dns = "dns",
        /// A file under the domain's `.well-known`.
        WellKnown = "well-known",
        /// The word of a registrar.
        Registrar = "registrar",
    }
);

impl Namespace {
    pub(super) const MEMBERS: &[&str] =
        &["root", "recovery", "delegated", "home", "claims", "carried"];

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let home: PublicKey = members.parsed("home")?;
        if !home.signs_records() {
            return Err(members.wrong("home", "is a key that signs no records"));
        }
        Ok(Self {
            root: RootKeys::decode(&members.members("root")?)?,
            recovery: members.parsed_or_null("recovery")?,
            delegated: members
                .each("delegated", 0..=DELEGATIONS_MAX)?
                .iter()
                .map(Delegation::decode)
                .collect::<Result<_, _>>()?,
            home,
            claims: members
                .each("claims", 0..=CLAIMS_MAX)?
                .iter()
                .map(Claim::decode)
                .collect::<Result<_, _>>()?,
            carried: members.parsed_or_null("carried")?,
        })
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        let delegated: Vec<Value> = self.delegated.iter().map(Delegation::encode).collect();
        let claims: Vec<Value> = self.claims.iter().map(Claim::encode).collect();
        payload.set("root", self.root.encode());
        payload.set("recovery", self.recovery.map(|hash| hash.to_hex()));
        payload.set("delegated", delegated);
        payload.set("home", self.home.to_string());
        payload.set("claims", claims);
        payload.set("carried", self.carried.map(|hash| hash.to_hex()));
    }
}

impl RootKeys {
    /// Whether so many of its keys are among the signers as it takes.
    pub fn are_met_by(&self, signers: &[PublicKey]) -> bool {
        let signed = self.keys.iter().filter(|key| signers.contains(key)).count();
        signed as u64 >= self.threshold
    }

    fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let keys: Vec<PublicKey> = members.parsed_list("keys", 1..=ROOT_KEYS_MAX)?;
        if keys.iter().any(|key| !key.signs_records()) {
            return Err(members.wrong("keys", "has a key that signs no records"));
        }
        let threshold = members.integer_in("threshold", 1..=keys.len() as u64)?;
        Ok(Self { keys, threshold })
    }

    fn encode(&self) -> Object {
        let mut object = Object::new();
        object.set("keys", texts(&self.keys));
        object.set("threshold", self.threshold);
        object
    }
}

impl Delegation {
    fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            key: members.parsed("key")?,
            roles: members.parsed_list("roles", 1..=3)?,
            repositories: scope::repositories(members)?,
            refs: scope::refs(members)?,
            end: members.integer_or_null("end")?,
        })
    }

    fn encode(&self) -> Value {
        let mut object = Object::new();
        object.set("key", self.key.to_string());
        object.set("roles", texts(&self.roles));
        object.set("repositories", self.repositories.as_deref().map(texts));
        object.set("refs", self.refs.as_deref().map(texts));
        object.set("end", self.end);
        object.into()
    }
}

impl Claim {
    fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let value = members.text("value")?;
        let printable = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !(1..=CLAIM_BYTES_MAX).contains(&value.len()) || !printable {
            return Err(members.wrong("value", "is not 1 to 255 bytes of printable ASCII"));
        }
        Ok(Self {
            kind: members.parsed("kind")?,
            value: value.to_owned(),
        })
    }

    fn encode(&self) -> Value {
        let mut object = Object::new();
        object.set("kind", self.kind.to_string());
        object.set("value", self.value.as_str());
        object.into()
    }
}
