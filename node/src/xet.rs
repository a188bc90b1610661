//! Xet's side of content: xorbs become flat files like any other upload, and flat files xorbs again.
//!
//! A xorb that a client sends is verified chunk by chunk and kept as a file of its own until a shard says what
//! files it is part of. Each of those is put together, read once for all its digests, and stored; from then on
//! the xorb's chunks stand in files, and of the xorb only a map is kept, so that clients that remember it may
//! refer to it. What is remembered of files and xorbs is blobs, found by links of the store.
//!
//! A hash is not a capability: a xorb or chunk is there only for who sent it, or may read a repository that
//! reaches all that it is made of.

mod format;
mod learn;
mod read;
mod sent;
mod source;

use std::collections::HashMap;
use std::sync::Arc;

use cairn_protocol::hash::Blake3;
use cairn_protocol::xet::{
    Chunk, Shard, ShardChunk, ShardError, ShardFile, ShardXorb, VerifyError,
};
use cairn_protocol::xet::{XetHash, Xorb, XorbError, xorb_hash};

pub(crate) use self::format::{FileList, XorbMap};
pub(crate) use self::learn::Learner;
pub use self::read::{Reconstruction, Term, XorbRun};
pub(crate) use self::sent::SentXorbs;

use self::source::{Known, Source};
use crate::access;
use crate::accounts::AccountId;
use crate::node::{Inner, Node, now_s};
use crate::permission::Who;
use crate::repos::{Repo, RepoError};
use crate::store::{Digests, LinkKind, StoreError};

/// Chunks of a file that one entry of a dedup answer has.
const ANSWER_CHUNKS_MAX: usize = 8_192;

/// Why xorbs or shards were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XetError {
    /// Not the bytes that its name promises, or beyond a limit.
    #[error("the xorb is not taken: {0}")]
    Xorb(#[from] XorbError),
    /// Not a shard, or beyond a limit.
    #[error("the shard is not taken: {0}")]
    Shard(#[from] ShardError),
    /// A file of the shard is not what the shard says.
    #[error("a file of the shard is not taken: {0}")]
    File(#[from] VerifyError),
    /// The shard's chunk hashes are keyed, as only answers of a server are.
    #[error("the shard is not taken: its chunk hashes are keyed")]
    Keyed,
    /// Too much of it waits for commits already.
    #[error("too many uploads wait for their commit: commit some of them first")]
    Full,
    /// A repository could not be read.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The store failed, or the bytes have another SHA-256 than the shard says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Node {
    /// Keeps a xorb that an account sends, once every chunk of it was verified; durable on return. Says whether
    /// it was new.
    pub fn put_xorb(
        &self,
        account: &AccountId,
        hash: &XetHash,
        bytes: &[u8],
    ) -> Result<bool, XetError> {
        let sent = &self.inner.sent_xorbs;
        let xorb = Xorb::parse(bytes)?;
        let chunks = xorb.verify(hash, |_, _| {})?;
        Ok(sent.put(account, hash, &chunks, &xorb, bytes)?)
    }

    /// Makes files of what a shard says; durable on return, and kept for the account's commits. Says whether any
    /// of them was new.
    pub fn put_shard(
        &self,
        account: &AccountId,
        who: &Who,
        repo: &Repo,
        bytes: &[u8],
    ) -> Result<bool, XetError> {
        let shard = Shard::decode(bytes)?;
        if shard
            .footer
            .as_ref()
            .is_some_and(|footer| footer.key.is_some())
        {
            return Err(XetError::Keyed);
        }
        if !self.inner.staging.has_room(account) {
            return Err(XetError::Full);
        }
        let _lease = self.inner.store.lease();
        let mut source = Source::new(&self.inner, account);
        let mut is_new = false;
        for file in &shard.files {
            is_new |= self.put_file(account, who, repo, &mut source, file)?;
        }
        Ok(is_new)
    }

    fn put_file(
        &self,
        account: &AccountId,
        who: &Who,
        repo: &Repo,
        source: &mut Source<'_>,
        file: &ShardFile,
    ) -> Result<bool, XetError> {
        let inner = &self.inner;
        // A file may name a xorb many times; whether it may be named is asked once.
        let mut seen: HashMap<XetHash, bool> = HashMap::new();
        file.verify(|xorb| {
            let known = source.known(xorb).ok().flatten()?;
            let may = seen.entry(*xorb).or_insert_with(|| {
                let may = self.may_use(account, who, repo, &known);
                may.unwrap_or(false)
            });
            may.then_some(Chunks(known))
        })?;
        if let Some(list) = inner.file_list(LinkKind::XetFile, file.hash.as_bytes())?
            && file.sha256.is_none_or(|sha256| sha256 == list.sha256)
            && inner.store.contains(&list.content)?
        {
            // Put together before: whoever names all its chunks has all its bytes.
            self.stage(account, &list)?;
            return Ok(false);
        }
        let size = file.size();
        let mut chunks: Vec<Chunk> = Vec::new();
        let agrees = |digests: &Digests| file.sha256.is_none_or(|sha256| sha256 == digests.sha256);
        let digests = {
            let mut reader = source.read(file, &mut chunks);
            inner
                .store
                .import_if(&mut reader, size, false, &agrees, &mut |_| {})?
        };
        let list = FileList {
            file: file.hash,
            content: digests.blake3,
            sha256: digests.sha256,
            chunks,
        };
        self.remember(account, source, file, &list)?;
        self.stage(account, &list)?;
        Ok(true)
    }

    fn stage(&self, account: &AccountId, list: &FileList) -> Result<(), StoreError> {
        let inner = &self.inner;
        let digests = Digests {
            blake3: list.content,
            sha256: list.sha256,
            git: None,
            size: list.size(),
        };
        let (staging, journal) = (&inner.staging, &inner.journal);
        staging.add(journal, *account, &digests, Some(list.file), now_s())
    }

    /// Keeps what is known of a file, and where the chunks of its xorbs stand now.
    fn remember(
        &self,
        account: &AccountId,
        source: &mut Source<'_>,
        file: &ShardFile,
        list: &FileList,
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        let mut batch = inner.store.batch();
        list.remember(&mut batch);
        let mut maps: HashMap<XetHash, (XorbMap, bool)> = HashMap::new();
        let mut offset = 0;
        for term in &file.terms {
            if !maps.contains_key(&term.xorb)
                && let Some(known) = source.known(&term.xorb)?
            {
                maps.insert(term.xorb, (known.map().clone(), false));
            }
            if let Some((map, is_changed)) = maps.get_mut(&term.xorb) {
                *is_changed |= map.cover(term.start, term.end - term.start, list.content, offset);
            }
            offset += u64::from(term.size);
        }
        for (xorb, (map, is_changed)) in &maps {
            if *is_changed {
                let blob = batch.put(map.encode().into());
                batch.link(LinkKind::XetXorb, *xorb.as_bytes(), blob);
            }
        }
        batch.commit()?;
        for (xorb, (map, is_changed)) in &maps {
            if *is_changed {
                source.forget(xorb);
            }
            if map.is_covered() {
                inner.sent_xorbs.remove(account, xorb);
            }
        }
        Ok(())
    }

    /// Whether a xorb is there for an account: it sent it, or may read all that it is made of.
    fn may_use(
        &self,
        account: &AccountId,
        who: &Who,
        repo: &Repo,
        known: &Known,
    ) -> Result<bool, RepoError> {
        if known.is_sent() {
            return Ok(true);
        }
        let mut contents: Vec<Blake3> = known.map().spans.iter().map(|span| span.content).collect();
        contents.sort_unstable();
        contents.dedup();
        for content in contents {
            if !self.may_have(account, who, repo, &content)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an account sent a content, or may read a repository that reaches it.
    fn may_have(
        &self,
        account: &AccountId,
        who: &Who,
        repo: &Repo,
        content: &Blake3,
    ) -> Result<bool, RepoError> {
        let inner = &self.inner;
        Ok(inner.staging.has(account, content, now_s())
            || inner.access.is_public(&access::prefix(content))
            || (self.may_read(who, repo) && repo.has_content(content)?))
    }

    /// A shard that tells of a chunk which is stored, and of those around it; nothing where the account may not
    /// know of it.
    pub fn dedup_answer(
        &self,
        account: &AccountId,
        who: &Who,
        repo: &Repo,
        chunk: &XetHash,
    ) -> Result<Option<Vec<u8>>, XetError> {
        let inner = &self.inner;
        let Some(list) = inner.file_list(LinkKind::XetChunk, chunk.as_bytes())? else {
            return Ok(None);
        };
        if !self.may_have(account, who, repo, &list.content)? {
            return Ok(None);
        }
        let runs = read::runs(&list.chunks);
        let Some(run) = runs.into_iter().find(|run| {
            let range = run.first..run.first + run.count;
            list.chunks[range].iter().any(|other| other.hash == *chunk)
        }) else {
            return Ok(None);
        };
        let chunks = list.chunks[run.first..run.first + run.count].to_vec();
        debug_assert!(chunks.len() <= ANSWER_CHUNKS_MAX);
        let hash = xorb_hash(chunks.iter().copied());
        // Whoever is told of it may refer to it.
        let _lease = inner.store.lease();
        let known = inner.xorb_map(&hash)?;
        if known.is_none_or(|map| !map.is_covered()) {
            let mut map = XorbMap {
                chunks: chunks.clone(),
                spans: Vec::new(),
            };
            let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
            map.cover(0, count, list.content, run.offset);
            let mut batch = inner.store.batch();
            let blob = batch.put(map.encode().into());
            batch.link(LinkKind::XetXorb, *hash.as_bytes(), blob);
            batch.commit()?;
        }
        let dedup = |chunk: &Chunk| ShardChunk {
            chunk: *chunk,
            dedup: true,
        };
        let xorb = ShardXorb {
            hash,
            packed: 0,
            chunks: chunks.iter().map(dedup).collect(),
        };
        let now = now_s();
        let answer = Shard::dedup_answer(vec![xorb], None, now, now + DEDUP_S);
        Ok(Some(answer.encode()?))
    }

    /// Whether somebody may have a content through a repository: it reaches it, or all that is public does, or
    /// the account sent it.
    pub fn may_fetch(&self, who: &Who, repo: &Repo, content: &Blake3) -> Result<bool, RepoError> {
        if let Who::Account(caller) = who {
            return self.may_have(&caller.account, who, repo, content);
        }
        if self.inner.access.is_public(&access::prefix(content)) {
            return Ok(true);
        }
        Ok(self.may_read(who, repo) && repo.has_content(content)?)
    }

    /// Whether a file can be downloaded through xet: its chunks are known, and are those of that content. Where
    /// they are not yet, and the content is here, they soon will be.
    pub fn has_xet(&self, file: &XetHash, content: &Blake3) -> Result<bool, StoreError> {
        let store = &self.inner.store;
        if !store.contains(content)? {
            return Ok(false);
        }
        let list = store.linked(LinkKind::XetFile, file.as_bytes())?;
        let is_known =
            list.is_some() && list == store.linked(LinkKind::XetContent, content.as_bytes())?;
        if !is_known && let Some(learner) = self.inner.learner.get() {
            learner.learn(*file, *content);
        }
        Ok(is_known)
    }

    /// What xet calls a content that came as xorbs.
    pub fn xet_of(&self, content: &Blake3) -> Result<Option<XetHash>, StoreError> {
        let list = self
            .inner
            .file_list(LinkKind::XetContent, content.as_bytes())?;
        Ok(list.map(|list| list.file))
    }
}

/// The chunks of a xorb.
struct Chunks(Arc<Known>);

impl AsRef<[Chunk]> for Chunks {
    fn as_ref(&self) -> &[Chunk] {
        &self.0.map().chunks
    }
}

/// Seconds for which a dedup answer may be kept.
const DEDUP_S: u64 = 28 * 24 * 60 * 60;

impl Inner {
    /// What is known of a file under a name.
    pub(crate) fn file_list(
        &self,
        kind: LinkKind,
        name: &[u8; 32],
    ) -> Result<Option<FileList>, StoreError> {
        let Some(blob) = self.store.linked(kind, name)? else {
            return Ok(None);
        };
        Ok(FileList::decode(&self.store.blob(&blob)?))
    }

    /// What is known of a xorb.
    pub(crate) fn xorb_map(&self, hash: &XetHash) -> Result<Option<XorbMap>, StoreError> {
        let blob = self.store.linked(LinkKind::XetXorb, hash.as_bytes())?;
        let Some(blob) = blob else {
            return Ok(None);
        };
        Ok(XorbMap::decode(&self.store.blob(&blob)?))
    }

    /// What is remembered of contents that stay: it stays, too.
    pub(crate) fn live_lists(
        &self,
        live: &dyn Fn(&Blake3) -> bool,
    ) -> Result<Vec<Blake3>, StoreError> {
        let mut blobs = HashMap::new();
        self.store.links(&mut |kind, blob| {
            blobs.insert(blob, kind);
        })?;
        let mut kept = Vec::new();
        for (blob, kind) in blobs {
            if !self.store.contains(&blob)? {
                continue;
            }
            let bytes = self.store.blob(&blob)?;
            let stays = match kind {
                LinkKind::XetXorb => XorbMap::decode(&bytes)
                    .is_some_and(|map| map.spans.iter().all(|span| live(&span.content))),
                LinkKind::XetFile | LinkKind::XetContent | LinkKind::XetChunk => {
                    FileList::decode(&bytes).is_some_and(|list| live(&list.content))
                }
            };
            if stays {
                kept.push(blob);
            }
        }
        Ok(kept)
    }
}
