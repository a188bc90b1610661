//! Downloads: a stored content as xorbs that exist nowhere but on the wire.
//!
//! A file's chunks are cut into runs, each within the limits of a xorb; the bytes of a run are its chunks as they
//! stand in the flat file, each behind a header that says it is not packed. So a xorb's bytes can be had from
//! any offset without making the whole.

use std::ops::Range;

use cairn_protocol::hash::Blake3;
use cairn_protocol::xet::{Chunk, Compression, XetHash, chunk_hash, pack_chunk, xorb_hash};

use super::XetError;
use super::source::read_content;
use crate::node::Node;
use crate::store::{Content, LinkKind, StoreError};

/// Bytes of a run's chunks, at most: small enough that little is read for a range in the middle.
const RUN_BYTES_MAX: u64 = 16 << 20;
/// Chunks of a run, at most.
const RUN_CHUNKS_MAX: usize = 1_024;
/// Bytes that are read at a time, but for what the last chunk is longer.
const STEP_BYTES: usize = 1 << 20;
/// Bytes of the header before each chunk.
const HEADER_BYTES: u64 = 8;

/// How a file, or a range of it, is put together.
#[derive(Debug, Clone)]
pub struct Reconstruction {
    /// The content that it is.
    pub content: Blake3,
    /// Bytes to leave out at the beginning of the first term.
    pub offset_into_first: u64,
    /// What is put one behind the other.
    pub terms: Vec<Term>,
}

/// Chunks of one xorb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The xorb.
    pub xorb: XetHash,
    /// Which of the file's runs of chunks the xorb is.
    pub run: u32,
    /// Which of its chunks.
    pub chunks: Range<u32>,
    /// Bytes of those chunks.
    pub unpacked: u64,
    /// Where those chunks stand in the serialised xorb, headers included.
    pub bytes: Range<u64>,
}

/// Chunks of a file that make one xorb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) count: usize,
    /// Where its first chunk begins in the file.
    pub(super) offset: u64,
    /// Bytes of its chunks.
    pub(super) size: u64,
}

/// A file's runs; those of equal chunk lists are equal.
pub(super) fn runs(chunks: &[Chunk]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut offset = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let size = u64::from(chunk.size);
        match runs.last_mut() {
            Some(run) if run.count < RUN_CHUNKS_MAX && run.size + size <= RUN_BYTES_MAX => {
                run.count += 1;
                run.size += size;
            }
            _ => runs.push(Run {
                first: index,
                count: 1,
                offset,
                size,
            }),
        }
        offset += size;
    }
    runs
}

impl Node {
    /// How bytes `range` of a file are put together; nothing where the file is not known. An empty list of terms
    /// where the range begins behind the file's end.
    pub fn reconstruct(
        &self,
        file: &XetHash,
        range: Option<Range<u64>>,
    ) -> Result<Option<Reconstruction>, XetError> {
        let list = self.inner.file_list(LinkKind::File, file.as_bytes())?;
        let Some(list) = list else {
            return Ok(None);
        };
        let size = list.size();
        let range = range.map_or(0..size, |range| range.start..range.end.min(size));
        let mut made = Reconstruction {
            content: list.content,
            offset_into_first: 0,
            terms: Vec::new(),
        };
        for (number, run) in (0_u32..).zip(runs(&list.chunks)) {
            if run.offset + run.size <= range.start || run.offset >= range.end {
                continue;
            }
            let chunks = &list.chunks[run.first..run.first + run.count];
            let (mut at, mut packed) = (run.offset, 0);
            let mut term = Term {
                xorb: xorb_hash(chunks.iter().copied()),
                run: number,
                chunks: 0..0,
                unpacked: 0,
                bytes: 0..0,
            };
            for (index, chunk) in (0_u32..).zip(chunks) {
                let chunk_size = u64::from(chunk.size);
                if at + chunk_size > range.start && at < range.end {
                    if term.unpacked == 0 {
                        (term.chunks.start, term.bytes.start) = (index, packed);
                        if made.terms.is_empty() {
                            made.offset_into_first = range.start.saturating_sub(at);
                        }
                    }
                    term.unpacked += chunk_size;
                    (term.chunks.end, term.bytes.end) =
                        (index + 1, packed + HEADER_BYTES + chunk_size);
                }
                at += chunk_size;
                packed += HEADER_BYTES + chunk_size;
            }
            made.terms.push(term);
        }
        Ok(Some(made))
    }

    /// The xorb that is one run of a file; nothing where there is no such run.
    pub fn run(&self, file: &XetHash, run: u32) -> Result<Option<XorbRun>, XetError> {
        let list = self.inner.file_list(LinkKind::File, file.as_bytes())?;
        let Some(list) = list else {
            return Ok(None);
        };
        let Some(run) = runs(&list.chunks).get(run as usize).copied() else {
            return Ok(None);
        };
        let mut at = 0;
        let places = list.chunks[run.first..run.first + run.count]
            .iter()
            .map(|chunk| {
                let start = at;
                at += HEADER_BYTES + u64::from(chunk.size);
                (start, *chunk)
            })
            .collect();
        Ok(Some(XorbRun {
            content: self.inner.store.content(&list.content)?,
            hash: list.content,
            offset: run.offset,
            places,
            len: at,
        }))
    }
}

/// A xorb that exists nowhere but on the wire.
#[derive(Debug)]
pub struct XorbRun {
    content: Content,
    hash: Blake3,
    /// Where its first chunk begins in the content.
    offset: u64,
    /// Chunks, and where their headers begin in the serialised xorb.
    places: Vec<(u64, Chunk)>,
    len: u64,
}

impl XorbRun {
    /// Bytes of it, headers included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none: never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes from `at` on, at most so many as fit into one step, and none behind `end`; each chunk is verified
    /// before any of it is handed out. Blocking.
    pub fn read(&self, at: u64, end: u64) -> Result<Vec<u8>, XetError> {
        let first = self.places.partition_point(|(start, _)| *start <= at);
        let first = first.saturating_sub(1);
        let (mut out, mut bytes) = (Vec::new(), Vec::new());
        for (number, (start, chunk)) in self.places[first..].iter().enumerate() {
            if *start >= end || out.len() >= STEP_BYTES {
                break;
            }
            let headers = HEADER_BYTES * (first + number) as u64;
            read_content(
                &self.content,
                self.offset + start - headers,
                chunk.size,
                &mut bytes,
            )
            .map_err(StoreError::Source)?;
            if chunk_hash(&bytes) != chunk.hash {
                let (hash, path) = (self.hash, "its chunks".into());
                return Err(StoreError::Damaged { hash, path }.into());
            }
            let before = out.len();
            pack_chunk(&bytes, Compression::None, &mut out)?;
            let cut = |offset: u64| before + usize::try_from(offset).unwrap_or(usize::MAX);
            out.truncate(cut(end - start));
            out.drain(before..cut(at.saturating_sub(*start)));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_all_chunks_in_order(sizes in prop::collection::vec(1..131_072_u32, 0..3_000)) {
            let chunk = |size: &u32| Chunk { hash: XetHash::ZERO, size: *size };
            let chunks: Vec<Chunk> = sizes.iter().map(chunk).collect();
            let (mut first, mut offset) = (0, 0);
            for run in runs(&chunks) {
                prop_assert_eq!((run.first, run.offset), (first, offset));
                let sum: u64 = sizes[first..first + run.count].iter().map(|size| u64::from(*size)).sum();
                prop_assert_eq!(sum, run.size);
                prop_assert!(run.count <= RUN_CHUNKS_MAX && run.size <= RUN_BYTES_MAX);
                (first, offset) = (first + run.count, offset + run.size);
            }
            prop_assert_eq!(first, chunks.len());
        }

        /// Whatever is asked for in whatever steps, it is what the whole is made of.
        #[test]
        fn a_run_reads_the_same_from_anywhere(
            sizes in prop::collection::vec(1..300_u32, 1..20), at in 0..4_000_u64, length in 1..4_000_u64,
        ) {
            let total: usize = sizes.iter().map(|size| *size as usize).sum();
            let content: Vec<u8> = (0..total + 7).map(|index| u8::try_from(index % 251).unwrap()).collect();
            let (mut places, mut whole, mut offset) = (Vec::new(), Vec::new(), 7);
            for size in &sizes {
                let bytes = &content[offset..offset + *size as usize];
                places.push((whole.len() as u64, Chunk { hash: chunk_hash(bytes), size: *size }));
                pack_chunk(bytes, Compression::None, &mut whole).unwrap();
                offset += bytes.len();
            }
            let run = XorbRun {
                content: Content::Small(content.into()),
                hash: Blake3::of(b""),
                offset: 7,
                places,
                len: whole.len() as u64,
            };
            let at = at.min(run.len());
            let end = (at + length).min(run.len());
            let (mut read, mut next) = (Vec::new(), at);
            while next < end {
                let step = run.read(next, end).unwrap();
                prop_assert!(!step.is_empty());
                next += step.len() as u64;
                read.extend(step);
            }
            prop_assert_eq!(&read[..], &whole[usize::try_from(at).unwrap()..usize::try_from(end).unwrap()]);
        }
    }
}
