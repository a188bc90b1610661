//! What the log's frames say, byte by byte.

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, GitOid, Sha256};

use super::Digests;
use crate::files::Stat;
use crate::files::segments::NewFrame;

/// Names the log's format in every segment and checksum.
pub(super) const MAGIC: [u8; 8] = *b"cairnlg1";

/// A small blob: its hash, then its bytes.
pub(super) const BLOB: u8 = 2;
/// A record's envelope.
pub(super) const RECORD: u8 = 3;
/// Digests of a blob, and of a flat file what shows that it is unchanged: see [`Facts`].
pub(super) const DIGESTS: u8 = 4;
/// A blob that did not match its hash: its hash and size.
pub(super) const DAMAGED: u8 = 5;
/// A flat file that was removed to make room: its hash and size.
pub(super) const EVICTED: u8 = 6;

/// What a name that is not ours leads to: see [`Said::Link`].
pub(super) const LINK: u8 = 7;

const FACTS_BYTES: usize = 136;
const HAS_GIT: u8 = 1;
const IS_FLAT: u8 = 2;
const IS_RENEWED: u8 = 4;

/// A digests frame: what this node computed of a blob, and when a flat file last was what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) digests: Digests,
    /// Nothing for a blob in the log.
    pub(super) flat: Option<FlatFacts>,
    /// The blob was counted by an earlier frame.
    pub(super) renewed: bool,
}

/// A flat file as it was when all of it was last verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlatFacts {
    pub(super) inode: u64,
    pub(super) modified_ns: i64,
    pub(super) changed_ns: i64,
    /// Seconds since the Unix epoch.
    pub(super) verified_at: u64,
}

impl FlatFacts {
    /// Takes note of a file that was just verified.
    pub(super) fn new(stat: Stat, verified_at: u64) -> Self {
        let Stat {
            inode,
            modified_ns,
            changed_ns,
            ..
        } = stat;
        Self {
            inode,
            modified_ns,
            changed_ns,
            verified_at,
        }
    }

    /// Whether the file is still the one that was verified.
    pub(super) fn is_of(&self, stat: &Stat) -> bool {
        (self.inode, self.modified_ns, self.changed_ns)
            == (stat.inode, stat.modified_ns, stat.changed_ns)
    }
}

impl Facts {
    pub(super) fn encode(&self) -> Vec<u8> {
        let digests = &self.digests;
        let flat = self.flat.unwrap_or(FlatFacts {
            inode: 0,
            modified_ns: 0,
            changed_ns: 0,
            verified_at: 0,
        });
        let mut flags = 0;
        for (flag, set) in [
            (HAS_GIT, digests.git.is_some()),
            (IS_FLAT, self.flat.is_some()),
            (IS_RENEWED, self.renewed),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut out = Vec::with_capacity(FACTS_BYTES);
        out.extend_from_slice(digests.blake3.as_bytes());
        out.extend_from_slice(&digests.size.to_le_bytes());
        out.extend_from_slice(&[flags, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(digests.sha256.as_bytes());
        out.extend_from_slice(
            digests
                .git
                .unwrap_or(GitOid::from_bytes([0; 20]))
                .as_bytes(),
        );
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&flat.inode.to_le_bytes());
        out.extend_from_slice(&flat.modified_ns.to_le_bytes());
        out.extend_from_slice(&flat.changed_ns.to_le_bytes());
        out.extend_from_slice(&flat.verified_at.to_le_bytes());
        out
    }

    /// Reads a payload; nothing where no encoder wrote it.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; FACTS_BYTES] = payload.try_into().ok()?;
        let flags = payload[40];
        let digests = Digests {
            blake3: Blake3::from_bytes(at(payload, 0)),
            size: u64::from_le_bytes(at(payload, 32)),
            sha256: Sha256::from_bytes(at(payload, 48)),
            git: (flags & HAS_GIT != 0).then(|| GitOid::from_bytes(at(payload, 80))),
        };
        let flat = (flags & IS_FLAT != 0).then(|| FlatFacts {
            inode: u64::from_le_bytes(at(payload, 104)),
            modified_ns: i64::from_le_bytes(at(payload, 112)),
            changed_ns: i64::from_le_bytes(at(payload, 120)),
            verified_at: u64::from_le_bytes(at(payload, 128)),
        });
        let facts = Self {
            digests,
            flat,
            renewed: flags & IS_RENEWED != 0,
        };
        (facts.encode() == payload).then_some(facts)
    }

    pub(super) fn frame(&self) -> NewFrame {
        NewFrame {
            kind: DIGESTS,
            head: self.encode(),
            body: Bytes::new(),
        }
    }
}

fn at<const N: usize>(payload: &[u8; FACTS_BYTES], offset: usize) -> [u8; N] {
    *payload[offset..]
        .first_chunk()
        .expect("invariant: offsets of a fixed layout")
}

/// A frame in the log, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Blob {
        hash: Blake3,
        bytes: &'a [u8],
    },
    Record {
        envelope: &'a [u8],
    },
    Digests(Facts),
    Damaged {
        hash: Blake3,
        size: u64,
    },
    Evicted {
        hash: Blake3,
        size: u64,
    },
    /// A blob says what is known under a name, as long as the blob is here.
    Link {
        kind: u8,
        name: [u8; 32],
        blob: Blake3,
    },
    Mark,
}

impl<'a> Said<'a> {
    /// Understands a frame; nothing where this release has no such frame.
    pub(super) fn read(kind: u8, payload: &'a [u8]) -> Option<Self> {
        match kind {
            crate::files::frames::MARK => payload.is_empty().then_some(Self::Mark),
            BLOB => {
                let (hash, bytes) = payload.split_first_chunk::<32>()?;
                Some(Self::Blob {
                    hash: Blake3::from_bytes(*hash),
                    bytes,
                })
            }
            RECORD => Some(Self::Record { envelope: payload }),
            DIGESTS => Facts::decode(payload).map(Self::Digests),
            DAMAGED => {
                let (hash, size) = hash_and_size(payload)?;
                Some(Self::Damaged { hash, size })
            }
            EVICTED => {
                let (hash, size) = hash_and_size(payload)?;
                Some(Self::Evicted { hash, size })
            }
            LINK => {
                let (kind, rest) = payload.split_first()?;
                let (name, blob) = rest.split_first_chunk::<32>()?;
                Some(Self::Link {
                    kind: *kind,
                    name: *name,
                    blob: Blake3::from_bytes(blob.try_into().ok()?),
                })
            }
            _ => None,
        }
    }
}

pub(super) fn link_frame(kind: u8, name: &[u8; 32], blob: &Blake3) -> NewFrame {
    let mut head = vec![kind];
    head.extend_from_slice(name);
    head.extend_from_slice(blob.as_bytes());
    NewFrame {
        kind: LINK,
        head,
        body: Bytes::new(),
    }
}

pub(super) fn blob_frame(hash: &Blake3, bytes: Bytes) -> NewFrame {
    NewFrame {
        kind: BLOB,
        head: hash.as_bytes().to_vec(),
        body: bytes,
    }
}

pub(super) fn record_frame(envelope: Vec<u8>) -> NewFrame {
    NewFrame {
        kind: RECORD,
        head: Vec::new(),
        body: envelope.into(),
    }
}

pub(super) fn damaged_frame(hash: &Blake3, size: u64) -> NewFrame {
    short_frame(DAMAGED, hash, size)
}

pub(super) fn evicted_frame(hash: &Blake3, size: u64) -> NewFrame {
    short_frame(EVICTED, hash, size)
}

fn short_frame(kind: u8, hash: &Blake3, size: u64) -> NewFrame {
    let mut head = hash.as_bytes().to_vec();
    head.extend_from_slice(&size.to_le_bytes());
    NewFrame {
        kind,
        head,
        body: Bytes::new(),
    }
}

fn hash_and_size(payload: &[u8]) -> Option<(Blake3, u64)> {
    let (hash, size) = payload.split_first_chunk::<32>()?;
    let size = u64::from_le_bytes(size.try_into().ok()?);
    Some((Blake3::from_bytes(*hash), size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn facts()(
            blake3: [u8; 32], sha256: [u8; 32], git: Option<[u8; 20]>, size: u64, renewed: bool,
            flat: Option<(u64, i64, i64, u64)>,
        ) -> Facts {
            Facts {
                digests: Digests {
                    blake3: blake3.into(), sha256: sha256.into(), git: git.map(Into::into), size,
                },
                flat: flat.map(|(inode, modified_ns, changed_ns, verified_at)| FlatFacts {
                    inode, modified_ns, changed_ns, verified_at,
                }),
                renewed,
            }
        }
    }

    proptest! {
        #[test]
        fn facts_read_back(facts in facts()) {
            prop_assert_eq!(Facts::decode(&facts.encode()), Some(facts));
        }

        #[test]
        fn what_is_read_encodes_to_the_same_bytes(
            facts in facts(), at in 0..FACTS_BYTES, byte: u8,
        ) {
            let mut bytes = facts.encode();
            bytes[at] = byte;
            if let Some(read) = Facts::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }
}
