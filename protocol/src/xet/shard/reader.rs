//! Reads shards. Counts are held against the bytes that are left before anything is made of them.

use super::{
    BOOKEND, DEDUP_ELIGIBLE, FOOTER_BYTES, FOOTER_VERSION, MAGIC, RECORD_BYTES, Shard, ShardChunk,
    ShardFile, ShardFooter, ShardXorb, Term, VERSION, WHAT, WITH_RANGE_HASHES, WITH_SHA256, rule,
};
use crate::format::{FormatError, Reader};
use crate::limits::{SHARD_BYTES_MAX, XORB_CHUNKS_MAX};
use crate::xet::hash::{Chunk, XetHash};

/// One record: a hash, and four numbers whose meaning depends on what it is a record of.
#[derive(Clone, Copy)]
struct Record {
    hash: XetHash,
    numbers: [u32; 4],
}

pub(super) fn read(bytes: &[u8]) -> Result<Shard, FormatError> {
    let mut reader = Reader::message(WHAT, bytes, SHARD_BYTES_MAX)?;
    if reader.array("magic")? != MAGIC || reader.u64("version")? != VERSION {
        return Err(FormatError::Magic(WHAT));
    }
    let footer_bytes = reader.u64("length of the footer")?;
    let files = until_bookend(&mut reader, read_file)?;
    let xorbs_at = bytes.len() - reader.remaining();
    let xorbs = until_bookend(&mut reader, read_xorb)?;
    let tables_at = bytes.len() - reader.remaining();
    let footer = match footer_bytes {
        0 => None,
        // hf_xet before 1.3 leaves the footer out of an upload, and says in the header that it is there.
        200 if reader.remaining() == 0 => None,
        200 => Some(read_footer(&mut reader, xorbs_at, tables_at)?),
        _ => return Err(rule("length of the footer", "it is 0, or 200")),
    };
    reader.finish()?;
    Ok(Shard {
        files,
        xorbs,
        footer,
    })
}

fn read_record(reader: &mut Reader<'_>, field: &'static str) -> Result<Record, FormatError> {
    let hash = XetHash::from_bytes(reader.array(field)?);
    let mut numbers = [0; 4];
    for number in &mut numbers {
        *number = reader.u32(field)?;
    }
    Ok(Record { hash, numbers })
}

/// Reads what begins with a record, up to the bookend.
fn until_bookend<T>(
    reader: &mut Reader<'_>,
    read: impl Fn(Record, &mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let mut all = Vec::new();
    loop {
        let record = read_record(reader, "header of a file or xorb")?;
        if record.hash == BOOKEND {
            return Ok(all);
        }
        all.push(read(record, reader)?);
    }
}

/// A count of records, all of which are there.
fn count_of(count: u32, field: &'static str, reader: &Reader<'_>) -> Result<usize, FormatError> {
    let count = count as usize;
    if count <= reader.remaining() / RECORD_BYTES {
        Ok(count)
    } else {
        Err(FormatError::Short { what: WHAT, field })
    }
}

fn read_file(record: Record, reader: &mut Reader<'_>) -> Result<ShardFile, FormatError> {
    let [flags, count, ..] = record.numbers;
    if flags & !(WITH_RANGE_HASHES | WITH_SHA256) != 0 {
        // What they would announce would be read as the next file.
        return Err(rule(
            format!("file {}", record.hash),
            "its flags are not known",
        ));
    }
    let count = count_of(count, "terms of a file", reader)?;
    let mut terms = Vec::with_capacity(count);
    for _ in 0..count {
        let record = read_record(reader, "term of a file")?;
        let [_, size, start, end] = record.numbers;
        terms.push(Term {
            xorb: record.hash,
            start,
            end,
            size,
            range_hash: None,
        });
    }
    if flags & WITH_RANGE_HASHES != 0 {
        for term in &mut terms {
            term.range_hash = Some(read_record(reader, "range hash of a term")?.hash);
        }
    }
    let sha256 = match flags & WITH_SHA256 {
        0 => None,
        _ => Some(read_record(reader, "SHA-256 of a file")?.hash.to_sha256()),
    };
    Ok(ShardFile {
        hash: record.hash,
        terms,
        sha256,
    })
}

fn read_xorb(record: Record, reader: &mut Reader<'_>) -> Result<ShardXorb, FormatError> {
    let refuse = |reason| Err(rule(format!("xorb {}", record.hash), reason));
    let [_, count, unpacked, packed] = record.numbers;
    let count = count_of(count, "chunks of a xorb", reader)?;
    if count > XORB_CHUNKS_MAX {
        return refuse("it has more chunks than are allowed");
    }
    let mut chunks = Vec::with_capacity(count);
    let mut end = 0_u64;
    for _ in 0..count {
        let record = read_record(reader, "chunk of a xorb")?;
        let [start, size, flags, _] = record.numbers;
        if u64::from(start) != end {
            return refuse("a chunk begins elsewhere than the one before ends");
        }
        end += u64::from(size);
        chunks.push(ShardChunk {
            chunk: Chunk {
                hash: record.hash,
                size,
            },
            dedup: flags & DEDUP_ELIGIBLE != 0,
        });
    }
    if u64::from(unpacked) != end {
        return refuse("its chunks have other sizes together than it says");
    }
    Ok(ShardXorb {
        hash: record.hash,
        packed,
        chunks,
    })
}

/// Reads the footer, and passes over the tables before it: all that they say is in the records.
fn read_footer(
    reader: &mut Reader<'_>,
    xorbs_at: usize,
    tables_at: usize,
) -> Result<ShardFooter, FormatError> {
    let short = FormatError::Short {
        what: WHAT,
        field: "footer",
    };
    let tables = reader.remaining().checked_sub(FOOTER_BYTES).ok_or(short)?;
    reader.bytes(tables, "tables")?;
    let mut at = tables_at as u64;
    let footer_at = at + tables as u64;
    let expect = |holds, place, reason| {
        if holds {
            Ok(())
        } else {
            Err(rule(place, reason))
        }
    };
    let elsewhere = "what it points to lies elsewhere";

    let version = reader.u64("version of the footer")?;
    expect(
        version == FOOTER_VERSION,
        "version of the footer",
        "it is 1",
    )?;
    expect(
        reader.u64("files")? == RECORD_BYTES as u64,
        "files",
        elsewhere,
    )?;
    expect(reader.u64("xorbs")? == xorbs_at as u64, "xorbs", elsewhere)?;
    for (table, entry_bytes) in [
        ("table of files", 12),
        ("table of xorbs", 12),
        ("table of chunks", 16),
    ] {
        expect(reader.u64(table)? == at, table, elsewhere)?;
        let bytes = reader.u64(table)?.checked_mul(entry_bytes);
        let end = bytes.and_then(|bytes| at.checked_add(bytes));
        at = end
            .filter(|end| *end <= footer_at)
            .ok_or_else(|| rule(table, "it has no room"))?;
    }
    expect(
        at == footer_at,
        "footer",
        "bytes stand before it that no table has",
    )?;
    let key = Some(reader.array("key")?).filter(|key| *key != [0; 32]);
    let created = reader.u64("time of making")?;
    let expires = reader.u64("end of the key")?;
    reader.bytes(6 * 8, "spare bytes")?;
    for _ in 0..3 {
        reader.u64("sizes")?;
    }
    expect(
        reader.u64("offset of the footer")? == footer_at,
        "offset of the footer",
        elsewhere,
    )?;
    Ok(ShardFooter {
        key,
        created,
        expires,
    })
}
