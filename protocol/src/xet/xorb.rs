//! Xorbs: many chunks, each behind a header of eight bytes, and perhaps a footer that repeats what they are.
//!
//! Clients send them without the footer, and never read it.

mod footer;
mod writer;

use footer::Footer;

pub use writer::{PackedXorb, XorbWriter, pack_chunk};

use super::compression::Compression;
use super::hash::{Chunk, XetHash, chunk_hash, xorb_hash};
use crate::limits::{
    XET_CHUNK_BYTES_MAX, XET_CHUNK_PACKED_BYTES_MAX, XORB_BYTES_MAX, XORB_CHUNKS_MAX,
    XORB_UNPACKED_BYTES_MAX,
};

/// Bytes before each chunk: version, stored size (three bytes), compression, size (three bytes).
const HEADER_BYTES: usize = 8;
/// The only version of the header.
const VERSION: u8 = 0;

/// Why bytes are not a valid xorb, or not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XorbError {
    /// More of something than `limits` allows.
    #[error("the xorb has more than {max} {of}")]
    TooMany {
        /// What there is too much of.
        of: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// No chunk at all.
    #[error("the xorb has no chunks")]
    Empty,
    /// A chunk whose header or stored bytes break the rules.
    #[error("chunk {index} of the xorb is not valid: {rule}")]
    Chunk {
        /// Its place among the chunks.
        index: usize,
        /// What is wrong.
        rule: &'static str,
    },
    /// Bytes to pack that are no chunk.
    #[error("a chunk has from 1 to {XET_CHUNK_BYTES_MAX} bytes, not {0}")]
    Size(usize),
    /// A footer that breaks the rules, or is another xorb's.
    #[error("the footer of the xorb is not valid: {0}")]
    Footer(&'static str),
    /// Chunks that make another xorb.
    #[error("the chunks make the xorb {actual}, not {expected}")]
    Hash {
        /// The hash that was asked for.
        expected: XetHash,
        /// The hash of the chunks.
        actual: XetHash,
    },
}

/// Where a chunk lies in a xorb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where its header begins.
    pub start: u32,
    /// Where its stored bytes end.
    pub end: u32,
    /// Bytes, unpacked.
    pub size: u32,
    /// How its bytes are stored.
    pub compression: Compression,
}

/// A xorb whose headers, and footer if it has one, are within all limits. What its chunks hold is not known
/// before they are unpacked.
#[derive(Debug, Clone)]
pub struct Xorb<'a> {
    bytes: &'a [u8],
    places: Vec<Place>,
    unpacked: u64,
    footer: Option<Footer<'a>>,
}

impl<'a> Xorb<'a> {
    /// Walks the headers, and reads the footer; nothing is unpacked.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, XorbError> {
        if bytes.len() > XORB_BYTES_MAX {
            return Err(too_many("bytes", XORB_BYTES_MAX));
        }
        let mut places = Vec::new();
        let mut unpacked = 0;
        let mut at = 0;
        while at < bytes.len() && !bytes[at..].starts_with(&footer::MAGIC) {
            if places.len() == XORB_CHUNKS_MAX {
                return Err(too_many("chunks", XORB_CHUNKS_MAX));
            }
            let rule = |rule| chunk_error(places.len(), rule);
            let place = Place::read(bytes, at).map_err(rule)?;
            unpacked += u64::from(place.size);
            if unpacked > XORB_UNPACKED_BYTES_MAX as u64 {
                return Err(too_many("unpacked bytes", XORB_UNPACKED_BYTES_MAX));
            }
            at = place.end as usize;
            places.push(place);
        }
        if places.is_empty() {
            return Err(XorbError::Empty);
        }
        let footer = match &bytes[at..] {
            [] => None,
            footer => Some(Footer::read(footer, &places).map_err(XorbError::Footer)?),
        };
        Ok(Self {
            bytes,
            places,
            unpacked,
            footer,
        })
    }

    /// Where each chunk lies.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Bytes of all chunks, unpacked.
    pub fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Makes `out` the bytes of one chunk; whether they are the right ones is not known. After an error
    /// `out` holds anything.
    ///
    /// # Panics
    ///
    /// Where there is no chunk of that index.
    pub fn unpack(&self, index: usize, out: &mut Vec<u8>) -> Result<(), XorbError> {
        let place = &self.places[index];
        let stored = &self.bytes[place.start as usize + HEADER_BYTES..place.end as usize];
        place
            .compression
            .unpack(stored, place.size as usize, out)
            .map_err(|rule| chunk_error(index, rule))
    }

    /// Unpacks and hashes every chunk, and checks that they make the xorb of that hash. Each chunk goes to
    /// `each` with its bytes, before it is known that it belongs to that xorb.
    pub fn verify(
        &self,
        expected: &XetHash,
        mut each: impl FnMut(Chunk, &[u8]),
    ) -> Result<Vec<Chunk>, XorbError> {
        let mut chunks = Vec::with_capacity(self.places.len());
        let mut bytes = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            self.unpack(index, &mut bytes)?;
            let chunk = Chunk {
                hash: chunk_hash(&bytes),
                size: place.size,
            };
            each(chunk, &bytes);
            chunks.push(chunk);
        }
        let actual = xorb_hash(chunks.iter().copied());
        if actual != *expected {
            let expected = *expected;
            return Err(XorbError::Hash { expected, actual });
        }
        if let Some(footer) = &self.footer {
            footer.check(&actual, &chunks).map_err(XorbError::Footer)?;
        }
        Ok(chunks)
    }
}

impl Place {
    /// Reads the header at a place within the bytes, and checks that what it announces is there.
    fn read(bytes: &[u8], start: usize) -> Result<Self, &'static str> {
        let (header, rest) = bytes[start..]
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or("the xorb ends within its header")?;
        let [version, p0, p1, p2, compression, s0, s1, s2] = *header;
        let packed = u32::from_le_bytes([p0, p1, p2, 0]) as usize;
        let size = u32::from_le_bytes([s0, s1, s2, 0]);
        if version != VERSION {
            return Err("its header has another version");
        }
        let compression =
            Compression::from_number(compression).ok_or("its compression is not known")?;
        if packed > XET_CHUNK_PACKED_BYTES_MAX {
            return Err("it is stored in more bytes than are allowed");
        }
        if size as usize > XET_CHUNK_BYTES_MAX {
            return Err("it has more bytes than are allowed");
        }
        if size == 0 {
            return Err("it is empty");
        }
        if packed > rest.len() {
            return Err("the xorb ends within its bytes");
        }
        let offset = |at: usize| u32::try_from(at).expect("invariant: a xorb's size is bounded");
        Ok(Self {
            start: offset(start),
            end: offset(start + HEADER_BYTES + packed),
            size,
            compression,
        })
    }
}

fn too_many(of: &'static str, max: usize) -> XorbError {
    XorbError::TooMany { of, max }
}

fn chunk_error(index: usize, rule: &'static str) -> XorbError {
    XorbError::Chunk { index, rule }
}

#[cfg(test)]
mod tests;
