//! Writes shards that were checked. The tables of a footer are left empty: they only speed up look-ups in a
//! file, and clients make their own.

use super::{
    BOOKEND, DEDUP_ELIGIBLE, FOOTER_BYTES, FOOTER_VERSION, MAGIC, RECORD_BYTES, Shard, ShardChunk,
    ShardFile, ShardFooter, ShardXorb, VERSION, WITH_RANGE_HASHES, WITH_SHA256,
};
use crate::format::small;
use crate::xet::hash::XetHash;

pub(super) fn write(shard: &Shard) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let footer_bytes = shard.footer.map_or(0, |_| FOOTER_BYTES as u64);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&footer_bytes.to_le_bytes());
    for file in &shard.files {
        write_file(file, &mut out);
    }
    write_record(&mut out, &BOOKEND, [0; 4]);
    let xorbs_at = out.len();
    for xorb in &shard.xorbs {
        write_xorb(xorb, &mut out);
    }
    write_record(&mut out, &BOOKEND, [0; 4]);
    if let Some(footer) = &shard.footer {
        write_footer(shard, footer, xorbs_at, &mut out);
    }
    out
}

fn write_record(out: &mut Vec<u8>, hash: &XetHash, numbers: [u32; 4]) {
    out.extend_from_slice(hash.as_bytes());
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn write_file(file: &ShardFile, out: &mut Vec<u8>) {
    let mut flags = 0;
    if file.has_range_hashes() {
        flags |= WITH_RANGE_HASHES;
    }
    if file.sha256.is_some() {
        flags |= WITH_SHA256;
    }
    write_record(out, &file.hash, [flags, small(file.terms.len()), 0, 0]);
    for term in &file.terms {
        write_record(out, &term.xorb, [0, term.size, term.start, term.end]);
    }
    for range_hash in file.terms.iter().filter_map(|term| term.range_hash) {
        write_record(out, &range_hash, [0; 4]);
    }
    if let Some(sha256) = file.sha256 {
        write_record(out, &XetHash::from_sha256(sha256), [0; 4]);
    }
}

fn write_xorb(xorb: &ShardXorb, out: &mut Vec<u8>) {
    let unpacked = u32::try_from(xorb.unpacked()).expect("invariant: a xorb's size was checked");
    let count = small(xorb.chunks.len());
    write_record(out, &xorb.hash, [0, count, unpacked, xorb.packed]);
    let mut start = 0;
    for ShardChunk { chunk, dedup } in &xorb.chunks {
        let flags = if *dedup { DEDUP_ELIGIBLE } else { 0 };
        write_record(out, &chunk.hash, [start, chunk.size, flags, 0]);
        start += chunk.size;
    }
}

fn write_footer(shard: &Shard, footer: &ShardFooter, xorbs_at: usize, out: &mut Vec<u8>) {
    let footer_at = out.len() as u64;
    let places = [FOOTER_VERSION, RECORD_BYTES as u64, xorbs_at as u64];
    // Where each of the three tables is, and how many entries it has.
    let tables = [footer_at, 0, footer_at, 0, footer_at, 0];
    write_numbers(out, places.into_iter().chain(tables));
    out.extend_from_slice(&footer.key.unwrap_or_default());
    let packed = shard.xorbs.iter().map(|xorb| u64::from(xorb.packed)).sum();
    let files = shard.files.iter().map(ShardFile::size).sum();
    let unpacked = shard.xorbs.iter().map(ShardXorb::unpacked).sum();
    let times = [footer.created, footer.expires];
    let spare = [0; 6];
    let sizes = [packed, files, unpacked];
    write_numbers(
        out,
        times
            .into_iter()
            .chain(spare)
            .chain(sizes)
            .chain([footer_at]),
    );
}

fn write_numbers(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    out.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
}
