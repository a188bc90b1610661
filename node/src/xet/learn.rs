//! Files of others, and of pushes, that a commit gives a xet hash: cut into chunks here once they are read, so
//! that they can be downloaded through xet from this node, too.
//!
//! One thread, since nobody waits for it: until a file's chunks are known it is offered by plain HTTP alone.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use cairn_protocol::hash::Blake3;
use cairn_protocol::xet::{Chunk, Chunker, XetHash, file_hash};
use parking_lot::Mutex;

use super::{FileList, XetError};
use crate::node::Inner;
use crate::store::{Batch, Content, LinkKind, StoreError};

/// Files that wait; further ones are thought of again when they are read again.
const WAITING_MAX: usize = 256;
/// Files that are known to have another hash than was said; beyond it they are cut again when they are read again.
const WRONG_MAX: usize = 10_000;
/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 20;

type Wanted = (XetHash, Blake3);

/// Cuts files into chunks.
#[derive(Debug)]
pub(crate) struct Learner {
    wanted: SyncSender<Wanted>,
    /// Those that wait, and those of which it is known that they are others.
    thought_of: Arc<Mutex<HashSet<Wanted>>>,
}

impl Learner {
    pub(crate) fn spawn(node: Weak<Inner>) -> io::Result<Self> {
        let (wanted, files) = sync_channel(WAITING_MAX);
        let thought_of: Arc<Mutex<HashSet<Wanted>>> = Arc::default();
        let known = Arc::clone(&thought_of);
        std::thread::Builder::new()
            .name("xet chunker".to_owned())
            .spawn(move || run(&node, &files, &known))?;
        Ok(Self { wanted, thought_of })
    }

    /// Has a file cut into chunks some time; never waits.
    pub(super) fn learn(&self, file: XetHash, content: Blake3) {
        let mut thought_of = self.thought_of.lock();
        if thought_of.len() >= WRONG_MAX {
            thought_of.clear();
        }
        if thought_of.insert((file, content)) && self.wanted.try_send((file, content)).is_err() {
            thought_of.remove(&(file, content));
        }
    }
}

fn run(node: &Weak<Inner>, files: &Receiver<Wanted>, thought_of: &Mutex<HashSet<Wanted>>) {
    for (file, content) in files {
        let Some(node) = node.upgrade() else {
            return;
        };
        match cut(&node, &file, &content) {
            Ok(true) => {
                thought_of.lock().remove(&(file, content));
                node.repos.bump();
            }
            Ok(false) => {
                tracing::debug!(%file, %content, "a file has another xet hash than its commit says");
            }
            Err(error) => {
                thought_of.lock().remove(&(file, content));
                tracing::debug!(%content, %error, "a file was not cut into chunks");
            }
        }
    }
}

/// Cuts one file; says whether it has that hash, and remembers its chunks then.
fn cut(node: &Inner, file: &XetHash, content: &Blake3) -> Result<bool, XetError> {
    let _lease = node.store.lease();
    let Some(digests) = node.store.digests(content)? else {
        return Ok(false);
    };
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut chunker = Chunker::new();
    match node.store.content(content)? {
        Content::Small(bytes) => chunker.push(&bytes, |chunk| chunks.push(chunk)),
        Content::Flat(flat) => {
            let _reading = flat.reading();
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut at = 0;
            loop {
                let read = flat
                    .file
                    .read_at(&mut buffer, at)
                    .map_err(StoreError::Source)?;
                if read == 0 {
                    break;
                }
                at += read as u64;
                chunker.push(&buffer[..read], |chunk| chunks.push(chunk));
            }
        }
    }
    chunks.extend(chunker.finish());
    if file_hash(chunks.iter().copied()) != *file {
        return Ok(false);
    }
    let list = FileList {
        file: *file,
        content: *content,
        sha256: digests.sha256,
        chunks,
    };
    let mut batch = node.store.batch();
    list.remember(&mut batch);
    batch.commit()?;
    Ok(true)
}

impl FileList {
    /// Keeps what is known of a file, where its hash, its content, and the chunks that clients ask for lead to it.
    pub(super) fn remember(&self, batch: &mut Batch) {
        let blob = batch.put(self.encode().into());
        batch.link(LinkKind::File, *self.file.as_bytes(), blob);
        batch.link(LinkKind::Content, *self.content.as_bytes(), blob);
        let mut linked = HashSet::new();
        for (index, chunk) in self.chunks.iter().enumerate() {
            let is_asked_for = index == 0 || chunk.hash.is_dedup_eligible();
            if is_asked_for && linked.insert(chunk.hash) {
                batch.link(LinkKind::Chunk, *chunk.hash.as_bytes(), blob);
            }
        }
    }
}
