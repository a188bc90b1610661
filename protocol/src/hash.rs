//! Fixed-size ids: what each is the hash of, and its one text form.
//!
//! Text is lower-case hex of full length; anything else is refused, never normalised.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the lower-case hex of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} lower-case hex digits for a {what}, got {got:?}")]
pub struct ParseIdError {
    what: &'static str,
    expected: usize,
    got: String,
}

impl ParseIdError {
    /// Refuses a text, of which the message shows no more than its start.
    pub(crate) fn new(what: &'static str, expected: usize, text: &str) -> Self {
        Self {
            what,
            expected,
            got: text.chars().take(80).collect(),
        }
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $size:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $size]);

        impl $name {
            /// Size in bytes.
            pub const SIZE: usize = $size;

            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }

            /// Lower-case hex of the full length.
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl From<[u8; $size]> for $name {
            fn from(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_hex())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let refuse = || ParseIdError::new($what, $size * 2, text);
                if text.len() != $size * 2 {
                    return Err(refuse());
                }
                let mut bytes = [0; $size];
                HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| refuse())?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_hex())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// BLAKE3 of a blob: the name of content in the store and on the wire.
    Blake3,
    32,
    "BLAKE3 hash"
);
id!(
    /// SHA-256 of a file: the oid of git-lfs and the `ETag` of the hub.
    Sha256,
    32,
    "SHA-256 hash"
);
id!(
    /// SHA-1 object id of a git blob, tree, commit or tag.
    GitOid,
    20,
    "git object id"
);
id!(
    /// BLAKE3 of a record's DSSE pre-authentication encoding.
    RecordId,
    32,
    "record id"
);
id!(
    /// Id of a namespace: the [`RecordId`] of its first record.
    NamespaceId,
    32,
    "namespace id"
);
id!(
    /// Id of a repository: the [`RecordId`] of its repository record.
    RepositoryId,
    32,
    "repository id"
);

impl From<RecordId> for NamespaceId {
    fn from(id: RecordId) -> Self {
        Self(id.0)
    }
}

impl From<RecordId> for RepositoryId {
    fn from(id: RecordId) -> Self {
        Self(id.0)
    }
}

impl Blake3 {
    /// Hashes bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<blake3::Hash> for Blake3 {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_nothing_else_is_taken() {
        let id = Blake3::of(b"cairn");
        assert_eq!(id.to_hex().parse(), Ok(id));
        assert!(id.to_hex().to_uppercase().parse::<Blake3>().is_err());
        assert!(id.to_hex()[1..].parse::<Blake3>().is_err());
        assert!("g".repeat(64).parse::<Blake3>().is_err());
    }
}
