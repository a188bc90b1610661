//! The footer of a xorb: what its chunks are, and where.

use super::Place;
use crate::format::{FormatError, Reader};
use crate::xet::hash::{Chunk, XetHash};

/// Begins the footer where the next chunk's header would stand; no version of that header begins so.
pub(super) const MAGIC: [u8; 7] = *b"XETBLOB";
const VERSION: u8 = 1;
const HASHES_MAGIC: [u8; 8] = *b"XBLBHSH\0";
const BOUNDARIES_MAGIC: [u8; 8] = *b"XBLBBND\x01";
/// Bytes at the end whose meaning is left to writers.
const SPARE_BYTES: usize = 16;

/// What a footer claims; the places it gives were those of the chunks.
#[derive(Debug, Clone)]
pub(super) struct Footer<'a> {
    xorb: XetHash,
    hashes: &'a [[u8; 32]],
}

impl<'a> Footer<'a> {
    /// Reads the footer behind chunks that lie at these places.
    pub(super) fn read(bytes: &'a [u8], places: &[Place]) -> Result<Self, &'static str> {
        let mut reader = Reader::bare("footer", bytes);
        read(&mut reader, bytes.len(), places).map_err(|error| match error {
            FormatError::Rule { rule, .. } => rule,
            FormatError::Trailing { .. } => "bytes follow it",
            _ => "it ends early",
        })
    }

    /// Checks the hashes against those of the chunks.
    pub(super) fn check(&self, xorb: &XetHash, chunks: &[Chunk]) -> Result<(), &'static str> {
        if self.xorb != *xorb {
            return Err("it is of another xorb");
        }
        let of_chunks = chunks.iter().map(|chunk| chunk.hash.as_bytes());
        if self.hashes.iter().ne(of_chunks) {
            return Err("it has other hashes than the chunks");
        }
        Ok(())
    }
}

fn read<'a>(
    reader: &mut Reader<'a>,
    length: usize,
    places: &[Place],
) -> Result<Footer<'a>, FormatError> {
    let magic = reader.array("magic")?;
    let version = reader.u8("version")?;
    expect(
        reader,
        magic == MAGIC && version == VERSION,
        "it has another version",
    )?;
    let xorb = XetHash::from_bytes(reader.array("hash")?);

    let hashes_at = MAGIC.len() + 1 + XetHash::SIZE;
    section(reader, HASHES_MAGIC, places.len())?;
    let hashes = reader.bytes(places.len() * XetHash::SIZE, "hashes")?;
    let (hashes, _) = hashes.as_chunks();

    let boundaries_at = hashes_at + HASHES_MAGIC.len() + 4 + hashes.len() * XetHash::SIZE;
    section(reader, BOUNDARIES_MAGIC, places.len())?;
    for place in places {
        let end = reader.u32("end of a chunk")?;
        expect(reader, end == place.end, "its chunks lie elsewhere")?;
    }
    let mut unpacked = 0;
    for place in places {
        unpacked += place.size;
        let end = reader.u32("unpacked end of a chunk")?;
        expect(reader, end == unpacked, "its chunks have other sizes")?;
    }

    count(reader, places.len())?;
    // The length behind all counts neither itself nor in these offsets.
    let end = length.saturating_sub(4);
    for at in [hashes_at, boundaries_at] {
        let from_end = reader.u32("offset of a section")?;
        expect(
            reader,
            Some(from_end as usize) == end.checked_sub(at),
            "its sections lie elsewhere",
        )?;
    }
    reader.bytes(SPARE_BYTES, "spare bytes")?;
    let said = reader.u32("length")?;
    expect(
        reader,
        said as usize == end,
        "it has another length than it says",
    )?;
    expect(reader, reader.is_empty(), "bytes follow it")?;
    Ok(Footer { xorb, hashes })
}

fn section(reader: &mut Reader<'_>, magic: [u8; 8], chunks: usize) -> Result<(), FormatError> {
    let found = reader.array("magic of a section")?;
    expect(reader, found == magic, "a section has another version")?;
    count(reader, chunks)
}

fn count(reader: &mut Reader<'_>, chunks: usize) -> Result<(), FormatError> {
    let count = reader.u32("count of chunks")?;
    expect(
        reader,
        count as usize == chunks,
        "it has another number of chunks",
    )
}

fn expect(reader: &Reader<'_>, holds: bool, rule: &'static str) -> Result<(), FormatError> {
    if holds {
        Ok(())
    } else {
        Err(reader.rule("", rule))
    }
}

/// The footer of these chunks at these places.
#[cfg(test)]
pub(super) fn write(places: &[Place], chunks: &[Chunk]) -> Vec<u8> {
    let count = u32::try_from(chunks.len()).unwrap().to_le_bytes();
    let xorb = super::xorb_hash(chunks.iter().copied());
    let mut out = [
        &MAGIC[..],
        &[VERSION],
        xorb.as_bytes(),
        &HASHES_MAGIC,
        &count,
    ]
    .concat();
    let hashes_at = out.len() - 12;
    for chunk in chunks {
        out.extend_from_slice(chunk.hash.as_bytes());
    }
    let boundaries_at = out.len();
    out.extend_from_slice(&BOUNDARIES_MAGIC);
    out.extend_from_slice(&count);
    for place in places {
        out.extend_from_slice(&place.end.to_le_bytes());
    }
    let mut unpacked = 0;
    for place in places {
        unpacked += place.size;
        out.extend_from_slice(&u32::to_le_bytes(unpacked));
    }
    out.extend_from_slice(&count);
    let end = out.len() + 8 + SPARE_BYTES;
    for number in [end - hashes_at, end - boundaries_at] {
        out.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
    }
    out.extend_from_slice(&[0x5a; SPARE_BYTES]);
    out.extend_from_slice(&u32::try_from(end).unwrap().to_le_bytes());
    out
}
