//! What each hash of xet is the hash of, and the text form of all.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{ParseIdError, Sha256};

/// The key of chunks.
const DATA_KEY: [u8; 32] = [
    0x66, 0x97, 0xf5, 0x77, 0x5b, 0x95, 0x50, 0xde, 0x31, 0x35, 0xcb, 0xac, 0xa5, 0x97, 0x18, 0x1c,
    0x9d, 0xe4, 0x21, 0x10, 0x9b, 0xeb, 0x2b, 0x58, 0xb4, 0xd0, 0xb0, 0x4b, 0x93, 0xad, 0xf2, 0x29,
];
/// The key of inner nodes.
const NODE_KEY: [u8; 32] = [
    0x01, 0x7e, 0xc5, 0xc7, 0xa5, 0x47, 0x29, 0x96, 0xfd, 0x94, 0x66, 0x66, 0xb4, 0x8a, 0x02, 0xe6,
    0x5d, 0xdd, 0x53, 0x6f, 0x37, 0xc7, 0x6d, 0xd2, 0xf8, 0x63, 0x52, 0xe6, 0x4a, 0x53, 0x71, 0x3f,
];
/// The key of ranges of chunks.
const RANGE_KEY: [u8; 32] = [
    0x7f, 0x18, 0x57, 0xd6, 0xce, 0x56, 0xed, 0x66, 0x12, 0x7f, 0xf9, 0x13, 0xe7, 0xa5, 0xc3, 0xf3,
    0xa4, 0xcd, 0x26, 0xd5, 0xb5, 0xdb, 0x49, 0xe6, 0x41, 0x24, 0x98, 0x7f, 0x28, 0xfb, 0x94, 0xc3,
];
/// The key that makes a tree's root the hash of a file.
const FILE_KEY: [u8; 32] = [0; 32];

/// A group of nodes has no fewer, unless it is its level's last.
const GROUP_MIN: usize = 3;
/// A group of nodes has no more.
const GROUP_MAX: usize = 9;
/// A group ends behind a node whose hash this divides.
const GROUP_MODULUS: u64 = 4;
/// Chunks whose hash this divides are looked up in all that a server has.
const DEDUP_MODULUS: u64 = 1024;

/// A hash of xet: of a chunk, a xorb, a file, or a range of chunks.
///
/// Its text is not the hex of its bytes: each eight bytes are written as a little-endian number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XetHash([u8; 32]);

/// One chunk, by what its bytes are and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// [`chunk_hash`] of its bytes.
    pub hash: XetHash,
    /// Bytes, unpacked.
    pub size: u32,
}

impl XetHash {
    /// Size in bytes.
    pub const SIZE: usize = 32;
    /// The hash of the empty file.
    pub const ZERO: Self = Self([0; 32]);

    /// Wraps raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, as xorbs and shards have them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The form in which a shard holds a SHA-256: that whose text is the digest's hex.
    pub fn from_sha256(sha256: Sha256) -> Self {
        Self(reversed_groups(*sha256.as_bytes()))
    }

    /// The SHA-256 that a shard holds in this form.
    pub fn to_sha256(self) -> Sha256 {
        Sha256::from_bytes(reversed_groups(self.0))
    }

    /// The form of a chunk's hash in a shard that has a key, where only who knows the hash recognises it.
    #[must_use]
    pub fn keyed(&self, key: &[u8; 32]) -> Self {
        Self(*blake3::keyed_hash(key, &self.0).as_bytes())
    }

    /// Whether clients look up chunks of this hash in all that a server has. Of each file they look up the
    /// first chunk too, whatever its hash.
    pub fn is_dedup_eligible(&self) -> bool {
        self.is_divided_by(DEDUP_MODULUS)
    }

    fn is_divided_by(&self, modulus: u64) -> bool {
        let (groups, _) = self.0.as_chunks::<8>();
        u64::from_le_bytes(groups[3]).is_multiple_of(modulus)
    }
}

/// Text is the big-endian hex of little-endian numbers: the bytes of each group, last first.
fn reversed_groups(mut bytes: [u8; 32]) -> [u8; 32] {
    bytes
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .for_each(|group| group.reverse());
    bytes
}

impl fmt::Display for XetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&reversed_groups(self.0)))
    }
}

impl fmt::Debug for XetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XetHash({self})")
    }
}

impl FromStr for XetHash {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let refuse = || ParseIdError::new("xet hash", 2 * Self::SIZE, text);
        if text.len() != 2 * Self::SIZE {
            return Err(refuse());
        }
        let mut bytes = [0; Self::SIZE];
        HEXLOWER
            .decode_mut(text.as_bytes(), &mut bytes)
            .map_err(|_| refuse())?;
        Ok(Self(reversed_groups(bytes)))
    }
}

impl Serialize for XetHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for XetHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The hash of a chunk's bytes.
pub fn chunk_hash(bytes: &[u8]) -> XetHash {
    XetHash(*blake3::keyed_hash(&DATA_KEY, bytes).as_bytes())
}

/// Begins the hash of a chunk whose bytes come in parts.
pub(super) fn chunk_hasher() -> blake3::Hasher {
    blake3::Hasher::new_keyed(&DATA_KEY)
}

/// The hash of a xorb that has these chunks.
pub fn xorb_hash(chunks: impl IntoIterator<Item = Chunk>) -> XetHash {
    tree(chunks).xorb_hash()
}

/// The hash of a file that consists of these chunks.
pub fn file_hash(chunks: impl IntoIterator<Item = Chunk>) -> XetHash {
    tree(chunks).file_hash()
}

/// The hash by which a shard shows that its sender knows the chunks of a range.
pub fn range_hash(chunks: impl IntoIterator<Item = XetHash>) -> XetHash {
    let mut hasher = blake3::Hasher::new_keyed(&RANGE_KEY);
    for chunk in chunks {
        hasher.update(chunk.as_bytes());
    }
    XetHash(*hasher.finalize().as_bytes())
}

fn tree(chunks: impl IntoIterator<Item = Chunk>) -> TreeHasher {
    let mut tree = TreeHasher::new();
    for chunk in chunks {
        tree.push(chunk);
    }
    tree
}

/// Folds chunks up to their root as they come, in memory that grows with the tree's height only.
#[derive(Debug, Clone, Default)]
pub struct TreeHasher {
    levels: Vec<Level>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    /// Nodes that no group has taken in yet.
    open: Vec<Node>,
    /// Whether a group was closed on this level.
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    hash: XetHash,
    size: u64,
}

impl TreeHasher {
    /// Of no chunk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next chunk.
    pub fn push(&mut self, chunk: Chunk) {
        let mut node = Node {
            hash: chunk.hash,
            size: chunk.size.into(),
        };
        for height in 0.. {
            if height == self.levels.len() {
                self.levels.push(Level::default());
            }
            let level = &mut self.levels[height];
            level.open.push(node);
            let count = level.open.len();
            let ends = count >= GROUP_MIN && node.hash.is_divided_by(GROUP_MODULUS);
            if !ends && count < GROUP_MAX {
                return;
            }
            node = level.close();
        }
    }

    /// The hash of a xorb that has these chunks; zeros for none.
    pub fn xorb_hash(mut self) -> XetHash {
        let mut below = None;
        for level in &mut self.levels {
            level.open.extend(below.take());
            match (&*level.open, level.closed) {
                ([], _) => {}
                ([only], false) => return only.hash,
                _ => below = Some(level.close()),
            }
        }
        below.map_or(XetHash::ZERO, |root| root.hash)
    }

    /// The hash of a file that consists of these chunks; zeros for none.
    pub fn file_hash(self) -> XetHash {
        if self.levels.is_empty() {
            return XetHash::ZERO;
        }
        self.xorb_hash().keyed(&FILE_KEY)
    }
}

impl Level {
    /// Makes the open nodes one of the level above.
    fn close(&mut self) -> Node {
        self.closed = true;
        let mut text = String::new();
        let mut size = 0_u64;
        for child in &self.open {
            writeln!(text, "{} : {}", child.hash, child.size)
                .expect("invariant: a String takes what it is given");
            // No file is as long that this matters; a wrong sum would be a wrong hash, not a panic.
            size = size.saturating_add(child.size);
        }
        self.open.clear();
        Node {
            hash: XetHash(*blake3::keyed_hash(&NODE_KEY, text.as_bytes()).as_bytes()),
            size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as it is written down: level by level over whole lists.
    fn by_levels(chunks: &[Chunk]) -> XetHash {
        let mut nodes: Vec<_> = chunks
            .iter()
            .map(|chunk| Node {
                hash: chunk.hash,
                size: chunk.size.into(),
            })
            .collect();
        while nodes.len() > 1 {
            let mut rest = &*nodes;
            let mut above = Vec::new();
            while !rest.is_empty() {
                let most = rest.len().min(GROUP_MAX);
                let ends = |index: &usize| rest[*index].hash.is_divided_by(GROUP_MODULUS);
                let count = (2..most).find(ends).map_or(most, |index| index + 1);
                let mut level = Level {
                    open: rest[..count].to_vec(),
                    closed: false,
                };
                above.push(level.close());
                rest = &rest[count..];
            }
            nodes = above;
        }
        nodes.first().map_or(XetHash::ZERO, |root| root.hash)
    }

    #[test]
    fn chunks_fold_as_they_come_to_what_whole_levels_fold_to() {
        let chunks: Vec<_> = (0..700_u32)
            .map(|index| Chunk {
                hash: chunk_hash(&index.to_le_bytes()),
                size: index + 1,
            })
            .collect();
        for count in 0..chunks.len() {
            let chunks = &chunks[..count];
            assert_eq!(
                xorb_hash(chunks.iter().copied()),
                by_levels(chunks),
                "{count}"
            );
        }
    }

    #[test]
    fn no_and_one_chunk_are_not_wrapped() {
        assert_eq!(xorb_hash([]), XetHash::ZERO);
        assert_eq!(file_hash([]), XetHash::ZERO);
        let one = Chunk {
            hash: chunk_hash(b"x"),
            size: 1,
        };
        assert_eq!(xorb_hash([one]), one.hash);
        assert_eq!(file_hash([one]), one.hash.keyed(&[0; 32]));
    }

    #[test]
    fn text_has_each_eight_bytes_reversed_and_round_trips() {
        let hash = XetHash(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let text = "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse(), Ok(hash));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(serde_json::from_str::<XetHash>(&json).unwrap(), hash);
        for other in [
            &text.to_uppercase(),
            &text[1..],
            &format!("{text}0"),
            &"g".repeat(64),
            &"ä".repeat(32),
            "",
        ] {
            assert!(other.parse::<XetHash>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_sha256_keeps_its_text() {
        let sha256 = Sha256::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let hash = XetHash::from_sha256(sha256);
        assert_eq!(hash.to_string(), sha256.to_string());
        assert_eq!(hash.to_sha256(), sha256);
    }

    #[test]
    fn the_last_eight_bytes_decide_what_is_looked_up() {
        let mut bytes = [0xff; 32];
        bytes[24..].copy_from_slice(&(5 * DEDUP_MODULUS).to_le_bytes());
        assert!(XetHash(bytes).is_dedup_eligible());
        bytes[25] |= 2;
        assert!(!XetHash(bytes).is_dedup_eligible());
    }
}
