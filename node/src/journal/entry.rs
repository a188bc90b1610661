//! What the journal can say.

use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RecordId, RepositoryId, Sha256};
use cairn_protocol::key::PublicKey;
use cairn_protocol::xet::XetHash;
use serde::{Deserialize, Serialize};

use crate::accounts::AccountId;
use crate::permission::{Access, Scope};

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
    /// Somebody may publish through this node; also said anew whenever anything about it changes.
    Account {
        /// For ever.
        account: AccountId,
        /// Plain name of its namespace here.
        name: String,
        /// Whether it administers the node.
        admin: bool,
        /// Its namespace.
        namespace: NamespaceId,
        /// The namespace of its private repositories, once there was one.
        private: Option<NamespaceId>,
        /// Signs what it publishes.
        key: PublicKey,
        /// Its tokens are not taken any more.
        disabled: bool,
        /// Seconds since the Unix epoch.
        created: u64,
    },
    /// A token lets an account in.
    Token {
        /// Hash of the token.
        token: Blake3,
        /// Whose it is.
        account: AccountId,
        /// What its holder calls it.
        name: String,
        /// What it is for.
        scope: Scope,
        /// Seconds since the Unix epoch.
        created: u64,
        /// Seconds since the Unix epoch from which on it is not taken any more.
        end: Option<u64>,
    },
    /// It does not any more.
    TokenRevoked {
        /// Hash of the token.
        token: Blake3,
    },
    /// An account was let into a repository of another, or is not any more.
    Granted {
        /// The repository.
        repository: RepositoryId,
        /// Who.
        account: AccountId,
        /// How far; nothing where it was taken back.
        access: Option<Access>,
    },
    /// An account sent bytes that no commit named yet.
    Staged {
        /// Who.
        account: AccountId,
        /// SHA-256 of the bytes.
        sha256: Sha256,
        /// Their BLAKE3.
        blake3: Blake3,
        /// How many.
        size: u64,
        /// What xet calls them, where they came that way.
        xet: Option<XetHash>,
        /// Seconds since the Unix epoch until which they wait.
        end: u64,
    },
    /// Nobody waits for them any more.
    Unstaged {
        /// Who.
        account: AccountId,
        /// SHA-256 of the bytes.
        sha256: Sha256,
    },
    /// The folder was restored from a backup: heads may have been signed since that are not here.
    Restored {
        /// When the backup was begun, in seconds since the Unix epoch.
        backup: u64,
    },
    /// They are here now.
    CaughtUp,
    /// From a name a repository went to another account's namespace.
    Alias {
        /// Kind, namespace and name, as in `models/k…/name`.
        name: String,
        /// The `namespace/name` that it leads to on this node; nothing where another one took it.
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

    /// Whether it only takes back what was said before: a snapshot does without both.
    pub(super) fn is_void(&self) -> bool {
        match self {
            Self::Unpinned { .. }
            | Self::TokenRevoked { .. }
            | Self::Unstaged { .. }
            | Self::CaughtUp => true,
            Self::Granted { access, .. } => access.is_none(),
            Self::Alias { target, .. } => target.is_none(),
            Self::Pinned { .. }
            | Self::Signed { .. }
            | Self::Invalid { .. }
            | Self::Account { .. }
            | Self::Token { .. }
            | Self::Restored { .. }
            | Self::Staged { .. } => false,
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
            Self::Account { account, .. } => Subject::Account(*account),
            Self::Token { token, .. } | Self::TokenRevoked { token } => Subject::Token(*token),
            Self::Granted {
                repository,
                account,
                ..
            } => Subject::Granted(*repository, *account),
            Self::Staged {
                account, sha256, ..
            }
            | Self::Unstaged { account, sha256 } => Subject::Staged(*account, *sha256),
            Self::Restored { .. } | Self::CaughtUp => Subject::Restored,
            Self::Alias { name, .. } => Subject::Alias(name.clone()),
        }
    }
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Restored,
    Pin(RepositoryId),
    Signed(RepositoryId),
    Invalid(RepositoryId, Blake3, u64, Sha256, Option<GitOid>),
    Account(AccountId),
    Token(Blake3),
    Granted(RepositoryId, AccountId),
    Staged(AccountId, Sha256),
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
