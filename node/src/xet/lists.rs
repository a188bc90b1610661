//! Chunk lists that were read last, within a bound: a download asks for one again and again.

use std::sync::Arc;

use cairn_protocol::hash::Blake3;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::FileList;

/// Bytes of all of them.
const BYTES_MAX: u64 = 64 << 20;
/// Bytes of a chunk in memory.
const CHUNK_BYTES: u64 = 36;

/// By the blob that has it.
pub(crate) type FileLists = Cache<Blake3, Arc<FileList>, Weigh>;

/// By how many chunks it has.
#[derive(Debug, Clone)]
pub(crate) struct Weigh;

impl Weighter<Blake3, Arc<FileList>> for Weigh {
    fn weight(&self, _: &Blake3, list: &Arc<FileList>) -> u64 {
        1024 + list.chunks.len() as u64 * CHUNK_BYTES
    }
}

/// An empty one.
pub(crate) fn file_lists() -> FileLists {
    Cache::with_weighter(1_000, BYTES_MAX, Weigh)
}
