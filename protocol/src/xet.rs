//! Xet, as its server sees it: how files are cut into chunks, what hashes name.
//!
//! A file is cut by its content into *chunks*, each named by a hash; the hashes fold up to that of the file.

mod chunker;
mod hash;

pub use chunker::Chunker;
pub use hash::{Chunk, TreeHasher, XetHash, chunk_hash, file_hash, range_hash, xorb_hash};
