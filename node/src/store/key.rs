//! What a frame of the log can be found by.

use cairn_protocol::envelope::Envelope;
use cairn_protocol::hash::{Blake3, GitOid, RecordId, Sha256};

use super::facts::Said;

/// What a name in a link is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// A file of Xet, by its xet hash.
    File = b'x' as isize,
    /// A content, by its BLAKE3; leads to what xet knows of it.
    Content = b'c' as isize,
    /// A xorb.
    Xorb = b'o' as isize,
    /// A chunk that clients ask for.
    Chunk = b'k' as isize,
}

impl LinkKind {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        let all = [Self::File, Self::Content, Self::Xorb, Self::Chunk];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A hash, and what it is the hash of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key([u8; 33]);

impl Key {
    /// The frame with a small blob's bytes.
    pub(super) fn blob(hash: &Blake3) -> Self {
        Self::new(b'b', hash.as_bytes())
    }

    /// The newest digests of a blob, or that it was evicted since.
    pub(super) fn digests(hash: &Blake3) -> Self {
        Self::new(b'd', hash.as_bytes())
    }

    /// The newest digests of a blob with this SHA-256.
    pub(super) fn sha256(hash: &Sha256) -> Self {
        Self::new(b's', hash.as_bytes())
    }

    /// The newest digests of a blob with this git id.
    pub(super) fn git(oid: &GitOid) -> Self {
        Self::new(b'g', oid.as_bytes())
    }

    /// The newest frame with a record's envelope.
    pub(super) fn record(id: &RecordId) -> Self {
        Self::new(b'r', id.as_bytes())
    }

    /// The newest link of a name.
    pub(super) fn link(kind: LinkKind, name: &[u8; 32]) -> Self {
        Self::new(kind as u8, name)
    }

    fn new(kind: u8, hash: &[u8]) -> Self {
        let mut bytes = [0; 33];
        bytes[0] = kind;
        bytes[1..=hash.len()].copy_from_slice(hash);
        Self(bytes)
    }

    /// The keys of a frame; none where nobody looks it up.
    pub(super) fn of(said: &Said<'_>) -> Vec<Self> {
        match said {
            Said::Blob { hash, .. } => vec![Self::blob(hash)],
            Said::Digests(facts) => {
                let digests = &facts.digests;
                let mut keys = vec![
                    Self::digests(&digests.blake3),
                    Self::sha256(&digests.sha256),
                ];
                keys.extend(digests.git.as_ref().map(Self::git));
                keys
            }
            // What is no envelope has no id to look it up by.
            Said::Record { envelope } => Envelope::parse(envelope)
                .map(|envelope| vec![Self::record(&envelope.id())])
                .unwrap_or_default(),
            // It takes the place of the digests: who looks for those finds that they say nothing any more.
            Said::Evicted { hash, .. } => vec![Self::digests(hash)],
            Said::Link { kind, name, .. } => LinkKind::from_number(*kind)
                .map(|kind| Self::link(kind, name))
                .into_iter()
                .collect(),
            Said::Damaged { .. } | Said::Mark => Vec::new(),
        }
    }

    /// Bytes of the key in the views.
    pub(super) fn as_bytes(&self) -> &[u8; 33] {
        &self.0
    }

    /// Reads a key of the views.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Eight bytes that differ for different keys, but for chance or grinding: they prove absence only.
    pub(super) fn fingerprint(&self) -> u64 {
        let start = self.0[1..].first_chunk().expect("invariant: 32 bytes");
        u64::from_le_bytes(*start) ^ u64::from(self.0[0])
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hash = data_encoding::HEXLOWER.encode(&self.0[1..]);
        write!(f, "{}:{hash}", char::from(self.0[0]))
    }
}
