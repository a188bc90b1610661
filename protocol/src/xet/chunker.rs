//! Where a file is cut: behind bytes whose rolling hash says so, so that equal stretches of different files
//! become equal chunks.

use gearhash::Hasher;

use super::hash::{Chunk, XetHash, chunk_hasher};
use crate::limits::XET_CHUNK_BYTES_MAX as SIZE_MAX;

/// No cut makes a chunk shorter; only a file's end does.
const SIZE_MIN: usize = 8 << 10;
/// Bytes on which the rolling hash depends.
const WINDOW: usize = 64;
/// Bytes at a chunk's start that no permitted cut depends on.
const SKIPPED: usize = SIZE_MIN - WINDOW - 1;
/// A cut is where these bits of the rolling hash are zero, once in 64 KiB.
const MASK: u64 = 0xffff << 48;

/// Cuts one file into chunks and hashes them, whatever the sizes of the parts in which its bytes come.
///
/// The larger the parts, the faster: a chunk that is hashed in one piece takes the least time.
#[derive(Clone)]
pub struct Chunker {
    gear: Hasher<'static>,
    hasher: blake3::Hasher,
    /// Bytes of the chunk so far, less than [`SIZE_MAX`].
    size: usize,
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Default for Chunker {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunker {
    /// Stands at the start of a file.
    pub fn new() -> Self {
        Self {
            gear: Hasher::default(),
            hasher: chunk_hasher(),
            size: 0,
        }
    }

    /// Takes the next bytes of the file, and gives each chunk that ends within them to `each`.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Chunk)) {
        while !bytes.is_empty() {
            let (count, cut) = self.scan(bytes);
            let (of_chunk, rest) = bytes.split_at(count);
            self.hasher.update(of_chunk);
            self.size += count;
            if cut {
                each(self.take());
            }
            bytes = rest;
        }
    }

    /// The last chunk, which the file's end cuts off; none where the last cut was there.
    pub fn finish(mut self) -> Option<Chunk> {
        (self.size > 0).then(|| self.take())
    }

    /// How many of these bytes belong to the chunk, at least one, and whether it ends with them.
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        let end = bytes.len().min(SIZE_MAX - self.size);
        let mut at = SKIPPED.saturating_sub(self.size).min(end);
        while let Some(count) = self.gear.next_match(&bytes[at..end], MASK) {
            at += count;
            if self.size + at >= SIZE_MIN {
                return (at, true);
            }
        }
        (end, self.size + end == SIZE_MAX)
    }

    fn take(&mut self) -> Chunk {
        let hash = XetHash::from_bytes(*self.hasher.finalize().as_bytes());
        let size = u32::try_from(self.size).expect("invariant: a chunk's size is bounded");
        self.hasher.reset();
        self.gear.set_hash(0);
        self.size = 0;
        Chunk { hash, size }
    }
}
