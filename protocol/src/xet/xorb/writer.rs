//! Xorbs made of chunks, without a footer.

use super::{HEADER_BYTES, VERSION, XorbError, too_many};
use crate::limits::{XET_CHUNK_BYTES_MAX, XORB_CHUNKS_MAX, XORB_UNPACKED_BYTES_MAX};
use crate::xet::compression::Compression;
use crate::xet::hash::{Chunk, XetHash, chunk_hash, xorb_hash};

/// A xorb's bytes, without a footer, and what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedXorb {
    /// Its hash.
    pub hash: XetHash,
    /// Its chunks.
    pub chunks: Vec<Chunk>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Packs chunks into a xorb.
#[derive(Debug, Clone, Default)]
pub struct XorbWriter {
    chunks: Vec<Chunk>,
    unpacked: usize,
    bytes: Vec<u8>,
}

impl XorbWriter {
    /// A xorb of no chunks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a chunk of that many bytes has room.
    pub fn fits(&self, size: usize) -> bool {
        self.room_for(size).is_ok()
    }

    /// Adds a chunk of these bytes, compressed unless that makes it no smaller. After an error the xorb is
    /// as it was.
    pub fn push(&mut self, bytes: &[u8], compression: Compression) -> Result<Chunk, XorbError> {
        self.room_for(bytes.len())?;
        let size = pack_chunk(bytes, compression, &mut self.bytes)?;
        let chunk = Chunk {
            hash: chunk_hash(bytes),
            size,
        };
        self.chunks.push(chunk);
        self.unpacked += bytes.len();
        Ok(chunk)
    }

    /// The xorb; of no chunks it is none.
    pub fn finish(self) -> Result<PackedXorb, XorbError> {
        if self.chunks.is_empty() {
            return Err(XorbError::Empty);
        }
        Ok(PackedXorb {
            hash: xorb_hash(self.chunks.iter().copied()),
            chunks: self.chunks,
            bytes: self.bytes,
        })
    }

    fn room_for(&self, size: usize) -> Result<(), XorbError> {
        if self.chunks.len() == XORB_CHUNKS_MAX {
            return Err(too_many("chunks", XORB_CHUNKS_MAX));
        }
        if self.unpacked.saturating_add(size) > XORB_UNPACKED_BYTES_MAX {
            return Err(too_many("unpacked bytes", XORB_UNPACKED_BYTES_MAX));
        }
        Ok(())
    }
}

/// Appends a chunk as a xorb has it, header included, compressed unless that makes it no smaller; gives its
/// size unpacked. A xorb that is served while it is made needs no more than this.
pub fn pack_chunk(
    bytes: &[u8],
    compression: Compression,
    out: &mut Vec<u8>,
) -> Result<u32, XorbError> {
    if !(1..=XET_CHUNK_BYTES_MAX).contains(&bytes.len()) {
        return Err(XorbError::Size(bytes.len()));
    }
    let packed = compression.pack(bytes);
    let (compression, packed) = if packed.len() < bytes.len() {
        (compression, &*packed)
    } else {
        (Compression::None, bytes)
    };
    out.reserve(HEADER_BYTES + packed.len());
    out.push(VERSION);
    out.extend_from_slice(&three_bytes(packed.len()));
    out.push(compression as u8);
    out.extend_from_slice(&three_bytes(bytes.len()));
    out.extend_from_slice(packed);
    Ok(u32::try_from(bytes.len()).expect("invariant: a chunk's size was checked"))
}

fn three_bytes(number: usize) -> [u8; 3] {
    let [b0, b1, b2, 0, ..] = number.to_le_bytes() else {
        panic!("invariant: {number} was checked against its limit");
    };
    [b0, b1, b2]
}
