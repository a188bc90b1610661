//! What the journal can say.

use cairn_protocol::hash::{Blake3, GitOid, RecordId, RepositoryId, Sha256};
use serde::{Deserialize, Serialize};

/// One fact of local state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Entry {
    /// A repository's content is kept whatever `gc` does.
    Pinned {
        /// The repository.
        repository: RepositoryId,
    },
    /// It is kept only as long as something names it.
    Unpinned {
        /// The repository.
        repository: RepositoryId,
    },
    /// This home signed a head: "seq n = id", before the head left it.
    Signed {
        /// The repository.
        repository: RepositoryId,
        /// Epoch of the head.
        epoch: u64,
        /// Seq of the head.
        seq: u64,
        /// The head's record id.
        id: RecordId,
        /// The head's envelope, so that a start can add it to the log where a crash kept it out.
        #[serde(with = "base64")]
        envelope: Vec<u8>,
    },
    /// Bytes were fetched that match their BLAKE3, and are not what commits of a repository say of them.
    Invalid {
        /// The repository.
        repository: RepositoryId,
        /// Where the file stood.
        path: String,
        /// Hash of the bytes.
        blake3: Blake3,
        /// Claimed size.
        size: u64,
        /// Claimed SHA-256.
        sha256: Sha256,
        /// Claimed git blob id; absent for LFS files.
        git: Option<GitOid>,
        /// What is another one: `sha256`, `git oid`, `size`.
        digest: String,
    },
    /// A local name.
    Alias {
        /// The name.
        name: String,
        /// What it leads to; nothing where it was taken back.
        target: Option<String>,
    },
}

impl Entry {
    /// Whether an entry with the same [`Self::subject`] says nothing for the state after this one.
    pub(super) fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (
                Self::Signed { epoch, seq, .. },
                Self::Signed {
                    epoch: earlier_epoch,
                    seq: earlier_seq,
                    ..
                },
            ) => (epoch, seq) >= (earlier_epoch, earlier_seq),
            _ => true,
        }
    }

    /// What is equal for entries that may replace one another.
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Pinned { repository } | Self::Unpinned { repository } => {
                Subject::Pin(*repository)
            }
            Self::Signed { repository, .. } => Subject::Signed(*repository),
            Self::Invalid {
                repository,
                blake3,
                size,
                sha256,
                git,
                ..
            } => Subject::Invalid(*repository, *blake3, *size, *sha256, *git),
            Self::Alias { name, .. } => Subject::Alias(name.clone()),
        }
    }
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Pin(RepositoryId),
    Signed(RepositoryId),
    Invalid(RepositoryId, Blake3, u64, Sha256, Option<GitOid>),
    Alias(String),
}

/// Padded standard base64.
mod base64 {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)
    }
}
