//! What is remembered of files and xorbs: blobs that this node made from bytes that it had.

use cairn_protocol::hash::{Blake3, Sha256};
use cairn_protocol::limits::FETCH_BYTES_MAX;
use cairn_protocol::xet::{Chunk, XetHash};

/// Names the form of a file's chunk list.
const FILE: &[u8; 8] = b"cairnxf1";
/// Names the form of a xorb's map.
const XORB: &[u8; 8] = b"cairnxo1";
/// Bytes of a chunk's hash and size.
pub(super) const CHUNK_BYTES: usize = 36;
/// Bytes of a span: first and count u32, BLAKE3, offset u64.
const SPAN_BYTES: usize = 48;

/// A content, cut into chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileList {
    /// What xet calls it.
    pub(crate) file: XetHash,
    pub(crate) content: Blake3,
    pub(crate) sha256: Sha256,
    pub(crate) chunks: Vec<Chunk>,
}

/// A xorb, and where its chunks stand in contents that are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct XorbMap {
    pub(crate) chunks: Vec<Chunk>,
    /// By first chunk, none over another; chunks that stand in none are only in the xorb itself.
    pub(crate) spans: Vec<Span>,
    /// Bytes of the chunks before each.
    starts: Vec<u64>,
}

/// Chunks that stand one after another in one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index of the first of them in the xorb.
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) content: Blake3,
    /// Where the first of them begins in the content.
    pub(crate) offset: u64,
}

impl FileList {
    pub(crate) fn size(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.size)).sum()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = FILE.to_vec();
        out.extend_from_slice(self.file.as_bytes());
        out.extend_from_slice(self.content.as_bytes());
        out.extend_from_slice(self.sha256.as_bytes());
        write_chunks(&mut out, &self.chunks);
        out
    }

    /// Nothing where no encoder wrote it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(FILE)?;
        let read = Self {
            file: XetHash::from_bytes(take(&mut rest)?),
            content: Blake3::from_bytes(take(&mut rest)?),
            sha256: Sha256::from_bytes(take(&mut rest)?),
            chunks: read_chunks(&mut rest)?,
        };
        (rest.is_empty() && read.size() <= FETCH_BYTES_MAX).then_some(read)
    }
}

impl XorbMap {
    /// A xorb of which nothing is known but its chunks.
    pub(crate) fn new(chunks: Vec<Chunk>) -> Self {
        Self::with_spans(chunks, Vec::new())
    }

    fn with_spans(chunks: Vec<Chunk>, spans: Vec<Span>) -> Self {
        let mut at = 0;
        let starts = chunks.iter().map(|chunk| {
            let start = at;
            at += u64::from(chunk.size);
            start
        });
        Self {
            starts: starts.collect(),
            chunks,
            spans,
        }
    }

    /// Where a chunk stands: a content, and its offset in it.
    pub(crate) fn place(&self, index: u32) -> Option<(Blake3, u64)> {
        let at = self.spans.partition_point(|span| span.first <= index);
        let span = self.spans.get(at.checked_sub(1)?)?;
        if index - span.first >= span.count {
            return None;
        }
        let before = self.starts[index as usize] - self.starts[span.first as usize];
        Some((span.content, span.offset + before))
    }

    /// Whether every chunk stands somewhere.
    pub(crate) fn is_covered(&self) -> bool {
        let covered: u64 = self.spans.iter().map(|span| u64::from(span.count)).sum();
        covered == self.chunks.len() as u64
    }

    /// Adds that chunks stand in a content, where they stood in none; says whether any did not.
    pub(crate) fn cover(&mut self, first: u32, count: u32, content: Blake3, offset: u64) -> bool {
        let (mut new, mut at, mut open) = (Vec::new(), offset, None::<Span>);
        for index in first..first + count {
            if self.place(index).is_some() {
                new.extend(open.take());
            } else {
                let span = open.get_or_insert(Span {
                    first: index,
                    count: 0,
                    content,
                    offset: at,
                });
                span.count += 1;
            }
            at += u64::from(self.chunks[index as usize].size);
        }
        new.extend(open);
        let added = !new.is_empty();
        self.spans.extend(new);
        self.spans.sort_by_key(|span| span.first);
        added
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = XORB.to_vec();
        write_chunks(&mut out, &self.chunks);
        out.extend_from_slice(&count(self.spans.len()).to_le_bytes());
        for span in &self.spans {
            out.extend_from_slice(&span.first.to_le_bytes());
            out.extend_from_slice(&span.count.to_le_bytes());
            out.extend_from_slice(span.content.as_bytes());
            out.extend_from_slice(&span.offset.to_le_bytes());
        }
        out
    }

    /// Nothing where no encoder wrote it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(XORB)?;
        let chunks = read_chunks(&mut rest)?;
        let number = u32::from_le_bytes(take(&mut rest)?) as usize;
        if rest.len() != number.checked_mul(SPAN_BYTES)? {
            return None;
        }
        let mut spans = Vec::with_capacity(number);
        let mut end = 0;
        for _ in 0..number {
            let span = Span {
                first: u32::from_le_bytes(take(&mut rest)?),
                count: u32::from_le_bytes(take(&mut rest)?),
                content: Blake3::from_bytes(take(&mut rest)?),
                offset: u64::from_le_bytes(take(&mut rest)?),
            };
            if span.first < end || span.count == 0 {
                return None;
            }
            end = span.first.checked_add(span.count)?;
            spans.push(span);
        }
        (end as usize <= chunks.len()).then(|| Self::with_spans(chunks, spans))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("invariant: fewer chunks than 2^32")
}

pub(super) fn write_chunks(out: &mut Vec<u8>, chunks: &[Chunk]) {
    out.reserve(4 + chunks.len() * CHUNK_BYTES);
    out.extend_from_slice(&count(chunks.len()).to_le_bytes());
    for chunk in chunks {
        out.extend_from_slice(chunk.hash.as_bytes());
        out.extend_from_slice(&chunk.size.to_le_bytes());
    }
}

pub(super) fn read_chunks(rest: &mut &[u8]) -> Option<Vec<Chunk>> {
    let number = u32::from_le_bytes(take(rest)?) as usize;
    let bytes = number.checked_mul(CHUNK_BYTES)?;
    let (mut list, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    let mut chunks = Vec::with_capacity(number);
    for _ in 0..number {
        chunks.push(Chunk {
            hash: XetHash::from_bytes(take(&mut list)?),
            size: u32::from_le_bytes(take(&mut list)?),
        });
    }
    Some(chunks)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(most: usize) -> impl Strategy<Value = Vec<Chunk>> {
        prop::collection::vec((any::<[u8; 32]>(), 1..200_u32), 1..most).prop_map(|all| {
            let chunk = |(hash, size)| Chunk {
                hash: XetHash::from_bytes(hash),
                size,
            };
            all.into_iter().map(chunk).collect()
        })
    }

    proptest! {
        #[test]
        fn lists_read_back(
            file: [u8; 32], content: [u8; 32], sha256: [u8; 32], chunks in chunks(20), cut: u8,
        ) {
            let list = FileList {
                file: XetHash::from_bytes(file),
                content: content.into(),
                sha256: sha256.into(),
                chunks,
            };
            let bytes = list.encode();
            prop_assert_eq!(FileList::decode(&bytes), Some(list));
            prop_assert_eq!(FileList::decode(&bytes[..bytes.len() - 1 - usize::from(cut) % 36]), None);
        }

        /// However ranges of chunks come to stand in contents, each chunk is where it was first said to be.
        #[test]
        fn maps_cover_what_they_are_told(
            chunks in chunks(30), told in prop::collection::vec((0..30_u32, 1..30_u32, 0..1000_u64), 0..12),
        ) {
            let number = u32::try_from(chunks.len()).unwrap();
            let mut map = XorbMap::new(chunks.clone());
            let mut expected = vec![None; chunks.len()];
            for (index, (first, count, offset)) in told.into_iter().enumerate() {
                let first = first % number;
                let count = count.min(number - first);
                let content = Blake3::of(&[u8::try_from(index).unwrap()]);
                let mut at = offset;
                let mut adds = false;
                for chunk in first..first + count {
                    let known = &mut expected[chunk as usize];
                    adds |= known.is_none();
                    known.get_or_insert((content, at));
                    at += u64::from(chunks[chunk as usize].size);
                }
                prop_assert_eq!(map.cover(first, count, content, offset), adds);
            }
            for (index, expected) in (0..number).zip(&expected) {
                prop_assert_eq!(map.place(index), *expected);
            }
            prop_assert_eq!(map.is_covered(), expected.iter().all(Option::is_some));
            prop_assert_eq!(XorbMap::decode(&map.encode()), Some(map));
        }

        #[test]
        fn odd_bytes_are_no_lists(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(FileList::decode(&bytes), None);
            let framed = [XORB.as_slice(), &bytes].concat();
            if let Some(map) = XorbMap::decode(&framed) {
                prop_assert_eq!(map.encode(), framed);
            }
        }
    }
}
