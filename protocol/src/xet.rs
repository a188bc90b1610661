//! Xet, as its server sees it: how files are cut into chunks, what hashes name, and the bytes of xorbs
//! and shards.
//!
//! A file is cut by its content into *chunks*; a *xorb* packs chunks of any files; a *shard* says which
//! ranges of which xorbs make up a file. These forms are not ours, so unlike our own they may have several
//! encodings: what they reserve is written as zeros and not looked at. All the rest is checked, and what
//! a client sent is a claim until [`Xorb::verify`] and [`ShardFile::verify`] have computed it again: clients
//! don't verify what they download.

mod chunker;
mod compression;
mod hash;
mod lz4;
mod shard;
mod xorb;

pub use chunker::Chunker;
pub use compression::Compression;
pub use hash::{Chunk, TreeHasher, XetHash, chunk_hash, file_hash, range_hash, xorb_hash};
pub use shard::{
    Shard, ShardChunk, ShardError, ShardFile, ShardFooter, ShardXorb, Term, VerifyError,
};
pub use xorb::{PackedXorb, Place, Xorb, XorbError, XorbWriter, pack_chunk};
