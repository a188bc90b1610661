//! Shards: which ranges of which xorbs make up a file, and which chunks a xorb has.
//!
//! A client sends one without footer for what it has uploaded; a server answers with one, footer included,
//! where a chunk that a client asked for is in xorbs that it has.

mod reader;
mod verify;
mod writer;

pub use verify::VerifyError;

use super::hash::{Chunk, XetHash};
use crate::format::FormatError;
use crate::hash::Sha256;
use crate::limits::{
    SHARD_BYTES_MAX, SHARD_TERM_CHUNKS_MAX, XET_CHUNK_BYTES_MAX, XORB_CHUNKS_MAX,
    XORB_UNPACKED_BYTES_MAX,
};

const WHAT: &str = "shard";
/// Begins every shard; its version and the footer's length follow.
const MAGIC: [u8; 32] = *b"HFRepoMetaData\0\
    \x55\x69\x67\x45\x6a\x7b\x81\x57\x83\xa5\xbd\xd9\x5c\xcd\xd1\x4a\xa9";
const VERSION: u64 = 2;
const FOOTER_VERSION: u64 = 1;
const FOOTER_BYTES: usize = 200;
/// Bytes of the header and of every record.
const RECORD_BYTES: usize = 48;
/// Ends the files, and then the xorbs, in a record whose other bytes are zeros.
const BOOKEND: XetHash = XetHash::from_bytes([0xff; 32]);

/// A file's terms are followed by as many range hashes.
const WITH_RANGE_HASHES: u32 = 1 << 31;
/// A file's terms and range hashes are followed by its SHA-256.
const WITH_SHA256: u32 = 1 << 30;
/// Clients look up this chunk in all that a server has.
const DEDUP_ELIGIBLE: u32 = 1 << 31;

/// Files by their ranges of xorbs, and xorbs by their chunks. What a client claims here is not true before
/// [`ShardFile::verify`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shard {
    /// The files.
    pub files: Vec<ShardFile>,
    /// The xorbs; in an upload those that are new.
    pub xorbs: Vec<ShardXorb>,
    /// The footer, which an upload has not.
    pub footer: Option<ShardFooter>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardFile {
    /// [`file_hash`](super::file_hash) of its chunks.
    pub hash: XetHash,
    /// The ranges of chunks of which it consists, in their order.
    pub terms: Vec<Term>,
    /// Its SHA-256.
    pub sha256: Option<Sha256>,
}

/// A range of a xorb's chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The xorb.
    pub xorb: XetHash,
    /// The first chunk.
    pub start: u32,
    /// The chunk behind the last.
    pub end: u32,
    /// Bytes of these chunks, unpacked.
    pub size: u32,
    /// [`range_hash`](super::range_hash) of these chunks. In a file either all terms have it, or none.
    pub range_hash: Option<XetHash>,
}

/// A xorb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardXorb {
    /// [`xorb_hash`](super::xorb_hash) of its chunks.
    pub hash: XetHash,
    /// Bytes of the xorb as it is stored; zero in what clients send.
    pub packed: u32,
    /// Its chunks.
    pub chunks: Vec<ShardChunk>,
}

/// A chunk of a xorb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardChunk {
    /// The chunk; its hash is keyed where the shard has a key.
    pub chunk: Chunk,
    /// Whether the writer says that clients look it up in all that a server has. Clients don't say so of the
    /// first chunk of a file, although they look that one up too; see [`XetHash::is_dedup_eligible`].
    pub dedup: bool,
}

/// What the footer says; where things are is worked out when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardFooter {
    /// The key under which the hashes of chunks are. Not all zeros, which stand for none.
    pub key: Option<[u8; 32]>,
    /// When the shard was made, in seconds since 1970.
    pub created: u64,
    /// Until when a client may use the key, in seconds since 1970.
    pub expires: u64,
}

/// Why bytes are not a valid shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ShardError(#[from] FormatError);

impl Shard {
    /// Reads a shard, with or without a footer.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShardError> {
        let shard = reader::read(bytes)?;
        shard.check()?;
        Ok(shard)
    }

    /// The shard's bytes, which begin with the header and end with the footer, if there is one.
    pub fn encode(&self) -> Result<Vec<u8>, ShardError> {
        self.check()?;
        Ok(writer::write(self))
    }

    /// The answer to a client that looks up a chunk: xorbs, one of which has it.
    ///
    /// With a key, which must be drawn anew at random for each answer, a client recognises only hashes of
    /// chunks that it has itself. The hashes given here are those without a key.
    pub fn dedup_answer(
        mut xorbs: Vec<ShardXorb>,
        key: Option<[u8; 32]>,
        created: u64,
        expires: u64,
    ) -> Self {
        let key = key.filter(|key| *key != [0; 32]);
        if let Some(key) = &key {
            let chunks = xorbs.iter_mut().flat_map(|xorb| &mut xorb.chunks);
            chunks.for_each(|chunk| chunk.chunk.hash = chunk.chunk.hash.keyed(key));
        }
        let footer = ShardFooter {
            key,
            created,
            expires,
        };
        Self {
            files: Vec::new(),
            xorbs,
            footer: Some(footer),
        }
    }

    /// Checks the rules that hold for written and read shards alike.
    fn check(&self) -> Result<(), FormatError> {
        let mut bytes = 3 * RECORD_BYTES + self.footer.map_or(0, |_| FOOTER_BYTES);
        let mut chunks = 0;
        for file in &self.files {
            bytes += file.records() * RECORD_BYTES;
            chunks += file.check()?;
        }
        for xorb in &self.xorbs {
            bytes += (1 + xorb.chunks.len()) * RECORD_BYTES;
            xorb.check()?;
        }
        if self
            .footer
            .is_some_and(|footer| footer.key == Some([0; 32]))
        {
            return Err(rule("footer", "a key of zeros stands for none"));
        }
        crate::format::check_count(WHAT, "bytes", bytes, SHARD_BYTES_MAX)?;
        if chunks > SHARD_TERM_CHUNKS_MAX {
            return Err(FormatError::TooMany {
                what: WHAT,
                of: "chunks in its terms",
                count: chunks,
                max: SHARD_TERM_CHUNKS_MAX,
            });
        }
        Ok(())
    }
}

impl ShardFile {
    /// Bytes of the file, if its terms are right.
    pub fn size(&self) -> u64 {
        self.terms.iter().map(|term| u64::from(term.size)).sum()
    }

    fn has_range_hashes(&self) -> bool {
        self.terms.iter().any(|term| term.range_hash.is_some())
    }

    fn records(&self) -> usize {
        let of_terms = if self.has_range_hashes() { 2 } else { 1 };
        1 + of_terms * self.terms.len() + usize::from(self.sha256.is_some())
    }

    /// Checks the rules; how many chunks the terms name.
    fn check(&self) -> Result<u64, FormatError> {
        let refuse = |reason| Err(rule(format!("file {}", self.hash), reason));
        if self.hash == BOOKEND {
            return refuse("its hash is that of the end of all files");
        }
        if self.has_range_hashes() && self.terms.iter().any(|term| term.range_hash.is_none()) {
            return refuse("either all terms have a range hash, or none");
        }
        let mut chunks = 0;
        for term in &self.terms {
            if term.start >= term.end || term.end as usize > XORB_CHUNKS_MAX {
                return refuse("a term names no chunks, or more than a xorb has");
            }
            let count = term.end - term.start;
            let most = (count as usize * XET_CHUNK_BYTES_MAX).min(XORB_UNPACKED_BYTES_MAX);
            if term.size < count || term.size as usize > most {
                return refuse("a term has a size that its chunks cannot have");
            }
            chunks += u64::from(count);
        }
        Ok(chunks)
    }
}

impl ShardXorb {
    /// Bytes of the chunks, unpacked.
    pub fn unpacked(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.chunk.size))
            .sum()
    }

    fn check(&self) -> Result<(), FormatError> {
        let refuse = |reason| Err(rule(format!("xorb {}", self.hash), reason));
        if self.hash == BOOKEND {
            return refuse("its hash is that of the end of all xorbs");
        }
        if self.chunks.is_empty() || self.chunks.len() > XORB_CHUNKS_MAX {
            return refuse("it has no chunks, or more than are allowed");
        }
        let legal = 1..=XET_CHUNK_BYTES_MAX;
        if self
            .chunks
            .iter()
            .any(|chunk| !legal.contains(&(chunk.chunk.size as usize)))
        {
            return refuse("a chunk has no bytes, or more than are allowed");
        }
        if self.unpacked() > XORB_UNPACKED_BYTES_MAX as u64 {
            return refuse("its chunks have more bytes than are allowed");
        }
        Ok(())
    }
}

fn rule(place: impl Into<String>, rule: &'static str) -> FormatError {
    FormatError::Rule {
        what: WHAT,
        place: place.into(),
        rule,
    }
}

#[cfg(test)]
mod tests;
