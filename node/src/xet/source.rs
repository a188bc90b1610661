//! The bytes of a file that a shard describes: chunks out of xorbs that were sent, or out of contents that are
//! stored, each verified as it is read.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use cairn_protocol::hash::Blake3;
use cairn_protocol::xet::{Chunk, ShardFile, XetHash, chunk_hash};

use super::XorbMap;
use super::sent::Sent;
use crate::accounts::AccountId;
use crate::node::Inner;
use crate::store::{Content, StoreError};

/// Xorbs that are open at a time.
const OPEN_MAX: usize = 64;
/// Xorbs whose chunks are in memory at a time.
const KNOWN_MAX: usize = 64;

/// What one account can refer to while one shard is taken.
pub(super) struct Source<'a> {
    node: &'a Inner,
    account: &'a AccountId,
    known: HashMap<XetHash, Arc<Known>>,
    /// Xorbs that the account sent.
    sent: HashMap<XetHash, Sent>,
    /// The content that was read last.
    content: Option<(Blake3, Content)>,
}

/// A xorb that can be referred to.
#[derive(Debug)]
pub(super) struct Known {
    map: XorbMap,
    is_sent: bool,
}

impl Known {
    pub(super) fn map(&self) -> &XorbMap {
        &self.map
    }

    /// Whether the account sent it itself.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(node: &'a Inner, account: &'a AccountId) -> Self {
        Self {
            node,
            account,
            known: HashMap::new(),
            sent: HashMap::new(),
            content: None,
        }
    }

    /// What is known of a xorb; nothing where it is not here.
    pub(super) fn known(&mut self, hash: &XetHash) -> Result<Option<Arc<Known>>, StoreError> {
        if let Some(known) = self.known.get(hash) {
            return Ok(Some(Arc::clone(known)));
        }
        let stored = self.node.xorb_map(hash)?;
        let sent = self.sent(hash)?;
        let known = match (stored, sent) {
            (Some(map), is_sent) => Known { map, is_sent },
            (None, true) => {
                let chunks = self.sent.get(hash).map(|sent| sent.chunks.clone());
                let map = XorbMap::new(chunks.unwrap_or_default());
                Known { map, is_sent: true }
            }
            (None, false) => return Ok(None),
        };
        let known = Arc::new(known);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(*hash, Arc::clone(&known));
        Ok(Some(known))
    }

    /// Forgets what is known of a xorb: it changed.
    pub(super) fn forget(&mut self, hash: &XetHash) {
        self.known.remove(hash);
        self.sent.remove(hash);
    }

    /// Whether the account sent a xorb and it is still a file of its own; then it is open.
    fn sent(&mut self, hash: &XetHash) -> Result<bool, StoreError> {
        if self.sent.contains_key(hash) {
            return Ok(true);
        }
        let Some(sent) = self.node.sent_xorbs.get(self.account, hash)? else {
            return Ok(false);
        };
        if self.sent.len() >= OPEN_MAX {
            self.sent.clear();
        }
        self.sent.insert(*hash, sent);
        Ok(true)
    }

    /// A file's bytes; its chunks are noted as they are read. Its terms were verified before.
    pub(super) fn read<'s>(
        &'s mut self,
        file: &'s ShardFile,
        chunks: &'s mut Vec<Chunk>,
    ) -> FileReader<'s, 'a> {
        FileReader {
            source: self,
            file,
            chunks,
            term: 0,
            chunk: 0,
            now: Vec::new(),
            at: 0,
        }
    }

    fn chunk(
        &mut self,
        hash: &XetHash,
        index: u32,
        out: &mut Vec<u8>,
    ) -> Result<Chunk, StoreError> {
        let lost = |what: &str| StoreError::Source(io::Error::other(what.to_owned()));
        let known = self.known(hash)?.ok_or_else(|| lost("a xorb is gone"))?;
        let expected = *known
            .map
            .chunks
            .get(index as usize)
            .ok_or_else(|| lost("a chunk beyond the end of its xorb"))?;
        out.clear();
        if let Some((content, offset)) = known.map.place(index) {
            self.stored(&content, offset, expected.size, out)?;
        } else {
            self.sent(hash)?;
            let sent = self.sent.get(hash).ok_or_else(|| lost("a xorb is gone"))?;
            sent.unpack(index as usize, out)
                .map_err(StoreError::Source)?;
        }
        if out.len() != expected.size as usize || chunk_hash(out) != expected.hash {
            return Err(lost("a chunk does not match its hash"));
        }
        Ok(expected)
    }

    fn stored(
        &mut self,
        hash: &Blake3,
        offset: u64,
        size: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        if self.content.as_ref().is_none_or(|(last, _)| last != hash) {
            self.content = Some((*hash, self.node.store.content(hash)?));
        }
        let (_, content) = self.content.as_ref().expect("invariant: just read");
        read_content(content, offset, size, out).map_err(StoreError::Source)
    }
}

/// What a store says of a source that failed for a reason of ours: that reason.
pub(super) fn unwrapped(error: StoreError) -> StoreError {
    let StoreError::Source(source) = error else {
        return error;
    };
    match source.downcast::<StoreError>() {
        Ok(StoreError::Source(source)) | Err(source) => StoreError::Io {
            operation: "read a part of a file from",
            path: "xorbs".into(),
            source,
        },
        Ok(error) => error,
    }
}

/// Reads a range of a content.
pub(super) fn read_content(
    content: &Content,
    offset: u64,
    size: u32,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    out.resize(size as usize, 0);
    match content {
        Content::Small(bytes) => {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let range = bytes.get(start..start + out.len());
            out.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
        Content::Flat(flat) => flat.file.read_exact_at(out, offset),
    }
}

/// A file put together chunk by chunk.
pub(super) struct FileReader<'s, 'a> {
    source: &'s mut Source<'a>,
    file: &'s ShardFile,
    chunks: &'s mut Vec<Chunk>,
    /// The term that is read, and how many of its chunks were.
    term: usize,
    chunk: u32,
    now: Vec<u8>,
    at: usize,
}

impl Read for FileReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.now.len() {
            let Some(term) = self.file.terms.get(self.term) else {
                return Ok(0);
            };
            let index = term.start + self.chunk;
            if index >= term.end {
                (self.term, self.chunk) = (self.term + 1, 0);
                continue;
            }
            let read = self.source.chunk(&term.xorb, index, &mut self.now);
            self.chunks.push(read.map_err(io::Error::other)?);
            (self.chunk, self.at) = (self.chunk + 1, 0);
        }
        let length = buffer.len().min(self.now.len() - self.at);
        buffer[..length].copy_from_slice(&self.now[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}
