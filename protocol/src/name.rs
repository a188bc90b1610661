//! Names of namespaces and repositories, and their kinds.
//!
//! A namespace's kind shows in its syntax: `k` and 52 base32 characters is a hash name, a dot makes a
//! domain, anything else is a plain name. Comparison is ASCII case-folded. Repository segments follow
//! the hub's client rules (`[A-Za-z0-9._-]`, at most 96 characters, no `--`, no `..`, no leading or
//! trailing `-` or `.`, no `.git` suffix).

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::NamespaceId;
use crate::limits::NAME_BYTES_MAX;

/// First segments of gateway paths, and words that would read as something else in a URL.
const RESERVED: &[&str] = &[
    "admin", "api", "blob", "buckets", "datasets", "docs", "healthz", "join", "kernels", "login",
    "logout", "metrics", "models", "new", "oauth", "resolve", "search", "settings", "spaces",
    "tree", "uploads", "v1", "v2",
];

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A segment breaks the hub's rules.
    #[error(
        "name {0:?} is not valid: use 1 to 96 of A-Z a-z 0-9 . _ -, no `--` or `..`, no `-` or `.` at either end, no `.git` at the end"
    )]
    Segment(String),
    /// A word that gateways use for themselves.
    #[error("name {0:?} is reserved")]
    Reserved(String),
    /// Looks like a hash name and is none.
    #[error(
        "namespace {0:?} begins like a hash name but is not `k` and 52 base32 characters with zero spare bits"
    )]
    HashName(String),
    /// A kind other than model, dataset or space.
    #[error("repository kind {0:?} is not one of model, dataset, space")]
    Kind(String),
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepoKind {
    /// Weights and what belongs to them.
    Model,
    /// Data files.
    Dataset,
    /// An application.
    Space,
}

impl RepoKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Model, Self::Dataset, Self::Space];

    /// `model`, `dataset` or `space`, as records and command lines say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
            Self::Space => "space",
        }
    }

    /// `models`, `datasets` or `spaces`, as hub paths say it.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
            Self::Space => "spaces",
        }
    }
}

impl fmt::Display for RepoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RepoKind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| NameError::Kind(text.chars().take(80).collect()))
    }
}

/// Checks one segment of a repository id against the hub's client rules.
pub fn check_segment(segment: &str) -> Result<(), NameError> {
    let edge = |c: Option<char>| matches!(c, Some('-' | '.'));
    let valid = !segment.is_empty()
        && segment.len() <= NAME_BYTES_MAX
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !segment.contains("--")
        && !segment.contains("..")
        && !edge(segment.chars().next())
        && !edge(segment.chars().next_back())
        && !segment.to_ascii_lowercase().ends_with(".git");
    if valid {
        Ok(())
    } else {
        Err(NameError::Segment(segment.chars().take(120).collect()))
    }
}

/// The name of a repository within its namespace; compared case-folded, shown as first given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName(String);

impl RepoName {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that names are compared in.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self(self.0.to_ascii_lowercase())
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_segment(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for RepoName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RepoName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The name of a namespace, by kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceName {
    /// Self-certifying: the hash of the namespace's first record.
    Hash(NamespaceId),
    /// Proven by DNS or a well-known file; lower case.
    Domain(String),
    /// Vouched for by a registrar, or a local alias; lower case.
    Plain(String),
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(id) => write!(f, "k{}", base32().encode(id.as_bytes())),
            Self::Domain(name) | Self::Plain(name) => f.write_str(name),
        }
    }
}

impl FromStr for NamespaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_segment(text)?;
        let folded = text.to_ascii_lowercase();
        if RESERVED.contains(&folded.as_str()) {
            return Err(NameError::Reserved(folded));
        }
        if let Some(encoded) = folded
            .strip_prefix('k')
            .filter(|rest| rest.len() == 52 && !rest.contains(['.', '_', '-']))
        {
            // The alphabet has 32 letters: 52 of them are 260 bits, and the four spare ones must be zero.
            let bytes = base32()
                .decode(encoded.as_bytes())
                .ok()
                .and_then(|bytes| bytes.try_into().ok());
            return match bytes {
                Some(bytes) => Ok(Self::Hash(NamespaceId::from_bytes(bytes))),
                None => Err(NameError::HashName(text.to_owned())),
            };
        }
        Ok(if folded.contains('.') {
            Self::Domain(folded)
        } else {
            Self::Plain(folded)
        })
    }
}

/// RFC 4648 base32, lower case, unpadded, spare bits checked.
fn base32() -> &'static Encoding {
    static ENCODING: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
        let mut specification = Specification::new();
        specification
            .symbols
            .push_str("abcdefghijklmnopqrstuvwxyz234567");
        specification
            .encoding()
            .expect("invariant: a valid base32 alphabet")
    });
    &ENCODING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_namespace_show_in_their_syntax() {
        let id = NamespaceId::from_bytes([0xab; 32]);
        let text = NamespaceName::Hash(id).to_string();
        assert_eq!(text.len(), 53);
        assert_eq!(text.parse(), Ok(NamespaceName::Hash(id)));
        assert_eq!(
            text.to_ascii_uppercase().parse(),
            Ok(NamespaceName::Hash(id))
        );
        assert_eq!(
            "Example.org".parse(),
            Ok(NamespaceName::Domain("example.org".into()))
        );
        assert_eq!("Alice".parse(), Ok(NamespaceName::Plain("alice".into())));
        assert!(matches!(
            "api".parse::<NamespaceName>(),
            Err(NameError::Reserved(_))
        ));
    }

    #[test]
    fn hash_names_with_spare_bits_or_foreign_letters_are_refused() {
        let mut text = NamespaceName::Hash(NamespaceId::from_bytes([0; 32])).to_string();
        text.pop();
        assert!(matches!(
            format!("{text}b").parse::<NamespaceName>(),
            Err(NameError::HashName(_))
        ));
        assert!(matches!(
            format!("{text}1").parse::<NamespaceName>(),
            Err(NameError::HashName(_))
        ));
    }

    #[test]
    fn segments_follow_the_hubs_rules() {
        for good in ["a", "all-MiniLM-L6-v2", "x.y_z", &"a".repeat(96)] {
            assert!(good.parse::<RepoName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            ".a",
            "a.",
            "a--b",
            "a..b",
            "a/b",
            "a b",
            "ä",
            "a.git",
            &"a".repeat(97),
        ] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad}");
        }
    }
}
