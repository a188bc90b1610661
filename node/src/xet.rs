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
mod lists;
mod read;
mod sent;
mod source;

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::io::Read;
use std::sync::Arc;

use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::{FETCH_BYTES_MAX, XET_FILE_CHUNKS_MAX};
use cairn_protocol::xet::{
    Chunk, Shard, ShardChunk, ShardError, ShardFile, ShardXorb, VerifyError,
};
use cairn_protocol::xet::{XetHash, XorbError, xorb_hash};

pub(crate) use self::format::{FileList, XorbMap};
pub(crate) use self::learn::Learner;
pub(crate) use self::lists::{FileLists, file_lists};
pub use self::read::{Reconstruction, Term, XorbRun};
pub(crate) use self::sent::SentXorbs;

use self::source::{Known, Source};
use crate::access;
use crate::accounts::AccountId;
use crate::node::{Inner, Node, now_s};
use crate::permission::Who;
use crate::repos::{Reach, Repo, RepoError};
use crate::store::{Digests, LinkKind, StoreError};

/// Chunks that one dedup answer tells of: some 4 GB of a file, in 3 MB.
const ANSWER_CHUNKS_MAX: usize = 65_536;

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
    /// More than a file that comes as xorbs may have.
    #[error("a file of {chunks} chunks is not taken as xorbs: send it as LFS")]
    TooLarge {
        /// Its chunks.
        chunks: u64,
    },
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
    /// the account sent it for the first time.
    pub fn put_xorb(
        &self,
        account: &AccountId,
        hash: &XetHash,
        source: &mut dyn Read,
    ) -> Result<bool, XetError> {
        self.inner.sent_xorbs.put(account, hash, source)
    }

    /// Makes files of what a shard says; durable on return, and kept for the account's commits. Says whether the
    /// account sent any of them for the first time.
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
        let _lease = self.inner.store.lease();
        let mut taking = Taking {
            node: self,
            account,
            who,
            reach: Reach::new(repo),
            source: Source::new(&self.inner, account),
        };
        let mut is_new = false;
        for file in &shard.files {
            is_new |= taking.file(file)?;
        }
        Ok(is_new)
    }

    /// Whether somebody may have a content through a repository: it reaches it, or all that is public does, or
    /// the account sent it.
    pub fn may_fetch(
        &self,
        who: &Who,
        reach: &mut Reach<'_>,
        content: &Blake3,
    ) -> Result<bool, RepoError> {
        let inner = &self.inner;
        let sent = matches!(who, Who::Account(caller)
            if inner.staging.has(&caller.account, content, now_s()));
        Ok(sent
            || inner.access.is_public(&access::prefix(content))
            || (self.may_read(who, reach.repo()) && reach.has(content)?))
    }

    /// A shard that tells of a chunk which is stored, and of those around it; nothing where the account may not
    /// know of it.
    pub fn dedup_answer(
        &self,
        who: &Who,
        repo: &Repo,
        chunk: &XetHash,
    ) -> Result<Option<Vec<u8>>, XetError> {
        let inner = &self.inner;
        let Some(list) = inner.file_list(LinkKind::Chunk, chunk.as_bytes())? else {
            return Ok(None);
        };
        if !self.may_fetch(who, &mut Reach::new(repo), &list.content)? {
            return Ok(None);
        }
        let runs = read::runs(&list.chunks);
        let has = |run: &read::Run| {
            let range = run.first..run.first + run.count;
            list.chunks[range].iter().any(|other| other.hash == *chunk)
        };
        let Some(at) = runs.iter().position(has) else {
            return Ok(None);
        };
        // Clients ask for few chunks of a file, and find the others in what surrounds these.
        let mut told = 0;
        let around = runs[at..].iter().chain(runs[..at].iter().rev());
        let around = around.take_while(|run| {
            told += run.count;
            told <= ANSWER_CHUNKS_MAX
        });
        let xorbs = self.addressable(&list, around)?;
        let now = now_s();
        let answer = Shard::dedup_answer(xorbs, None, now, now + DEDUP_S);
        Ok(Some(answer.encode()?))
    }

    /// The xorbs that runs of a file are: whoever is told of them may refer to them.
    fn addressable<'a>(
        &self,
        list: &FileList,
        runs: impl Iterator<Item = &'a read::Run>,
    ) -> Result<Vec<ShardXorb>, StoreError> {
        let inner = &self.inner;
        let _lease = inner.store.lease();
        let mut batch = inner.store.batch();
        let mut xorbs = Vec::new();
        for run in runs {
            let chunks = &list.chunks[run.first..run.first + run.count];
            let hash = xorb_hash(chunks.iter().copied());
            if !inner.xorb_map(&hash)?.is_some_and(|map| map.is_covered()) {
                let mut map = XorbMap::new(chunks.to_vec());
                let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
                map.cover(0, count, list.content, run.offset);
                let blob = batch.put(map.encode().into());
                batch.link(LinkKind::Xorb, *hash.as_bytes(), blob);
            }
            let dedup = |chunk: &Chunk| ShardChunk {
                chunk: *chunk,
                dedup: true,
            };
            xorbs.push(ShardXorb {
                hash,
                packed: 0,
                chunks: chunks.iter().map(dedup).collect(),
            });
        }
        batch.commit()?;
        Ok(xorbs)
    }

    /// Whether a file can be downloaded through xet: its chunks are known, and are those of that content. Where
    /// they are not yet, and the content is here, they soon will be.
    pub fn has_xet(&self, file: &XetHash, content: &Blake3) -> Result<bool, StoreError> {
        let store = &self.inner.store;
        if !store.contains(content)? {
            return Ok(false);
        }
        let list = store.linked(LinkKind::File, file.as_bytes())?;
        let is_known =
            list.is_some() && list == store.linked(LinkKind::Content, content.as_bytes())?;
        if !is_known && let Some(learner) = self.inner.learner.get() {
            learner.learn(*file, *content);
        }
        Ok(is_known)
    }

    /// What xet calls a content that came as xorbs.
    pub fn xet_of(&self, content: &Blake3) -> Result<Option<XetHash>, StoreError> {
        let list = self
            .inner
            .file_list(LinkKind::Content, content.as_bytes())?;
        Ok(list.map(|list| list.file))
    }
}

/// A shard that is being taken.
struct Taking<'a> {
    node: &'a Node,
    account: &'a AccountId,
    who: &'a Who,
    reach: Reach<'a>,
    source: Source<'a>,
}

impl Taking<'_> {
    /// Makes one file; says whether the account sent it for the first time: of what others sent nobody learns.
    fn file(&mut self, file: &ShardFile) -> Result<bool, XetError> {
        let inner = &self.node.inner;
        if !inner.staging.has_room(self.account) {
            return Err(XetError::Full);
        }
        let count =
            |term: &cairn_protocol::xet::Term| u64::from(term.end.saturating_sub(term.start));
        let chunks: u64 = file.terms.iter().map(count).sum();
        if chunks > XET_FILE_CHUNKS_MAX || file.size() > FETCH_BYTES_MAX {
            return Err(XetError::TooLarge { chunks });
        }
        self.verify(file)?;
        let list = match self.known(file)? {
            Some(list) => list,
            None => self.make(file)?,
        };
        // What is known already may have come in other xorbs: those that are named here stay addressable, too.
        self.remember(file, &list)?;
        let is_new = !inner.staging.has(self.account, &list.content, now_s());
        let digests = Digests {
            blake3: list.content,
            sha256: list.sha256,
            git: None,
            size: list.size(),
        };
        inner.stage(self.account, &digests, Some(list.file))?;
        Ok(is_new)
    }

    /// Checks a file against the chunks of the xorbs that it names, each of which the account must have.
    fn verify(&mut self, file: &ShardFile) -> Result<(), XetError> {
        // A file may name a xorb many times; whether it may be named is asked once.
        let mut seen: HashMap<XetHash, bool> = HashMap::new();
        let mut failed: Option<XetError> = None;
        let verified = file.verify(|xorb| {
            let known = match self.source.known(xorb) {
                Ok(known) => known?,
                Err(error) => {
                    failed.get_or_insert(error.into());
                    return None;
                }
            };
            if let Some(may) = seen.get(xorb) {
                return may.then_some(Chunks(known));
            }
            match self.may_use(&known) {
                Ok(may) => {
                    seen.insert(*xorb, may);
                    may.then_some(Chunks(known))
                }
                Err(error) => {
                    failed.get_or_insert(error.into());
                    None
                }
            }
        });
        failed.map_or(Ok(()), Err)?;
        Ok(verified?)
    }

    /// Whether a xorb is there for the account: it sent it, or may have all that it is made of.
    fn may_use(&mut self, known: &Known) -> Result<bool, RepoError> {
        if known.is_sent() {
            return Ok(true);
        }
        let contents: HashSet<Blake3> = known.map().spans.iter().map(|span| span.content).collect();
        for content in contents {
            if !self.node.may_fetch(self.who, &mut self.reach, &content)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The file, where it was put together before: whoever names all its chunks has all its bytes.
    fn known(&self, file: &ShardFile) -> Result<Option<FileList>, StoreError> {
        let inner = &self.node.inner;
        let list = inner.file_list(LinkKind::File, file.hash.as_bytes())?;
        let Some(list) = list else {
            return Ok(None);
        };
        let agrees = file.sha256.is_none_or(|sha256| sha256 == list.sha256);
        Ok((agrees && inner.store.contains(&list.content)?).then(|| FileList::clone(&list)))
    }

    /// Puts a file together.
    fn make(&mut self, file: &ShardFile) -> Result<FileList, XetError> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let agrees = |digests: &Digests| file.sha256.is_none_or(|sha256| sha256 == digests.sha256);
        let store = &self.node.inner.store;
        let mut reader = self.source.read(file, &mut chunks);
        let made = store.import_if(&mut reader, file.size(), false, &agrees, &mut |_| {});
        let digests = made.map_err(source::unwrapped)?;
        Ok(FileList {
            file: file.hash,
            content: digests.blake3,
            sha256: digests.sha256,
            chunks,
        })
    }

    /// Keeps what is known of a file, and where the chunks of its xorbs stand now.
    fn remember(&mut self, file: &ShardFile, list: &FileList) -> Result<(), StoreError> {
        let inner = &self.node.inner;
        // Two shards at once would each write a map without the other's part.
        let _turn = inner.sent_xorbs.turn();
        let mut batch = inner.store.batch();
        let known = inner.store.linked(LinkKind::File, list.file.as_bytes())?;
        if known != Some(Blake3::of(&list.encode())) {
            list.remember(&mut batch);
        }
        let mut maps: HashMap<XetHash, (XorbMap, bool)> = HashMap::new();
        let mut offset = 0;
        for term in &file.terms {
            let at = match maps.entry(term.xorb) {
                Entry::Occupied(at) => Some(at.into_mut()),
                Entry::Vacant(at) => {
                    self.source.forget(&term.xorb);
                    let known = self.source.known(&term.xorb)?;
                    known.map(|known| at.insert((known.map().clone(), false)))
                }
            };
            if let Some((map, is_changed)) = at {
                *is_changed |= map.cover(term.start, term.end - term.start, list.content, offset);
            }
            offset += u64::from(term.size);
        }
        for (xorb, (map, is_changed)) in &maps {
            if *is_changed {
                let blob = batch.put(map.encode().into());
                batch.link(LinkKind::Xorb, *xorb.as_bytes(), blob);
            }
        }
        batch.commit()?;
        for (xorb, (map, is_changed)) in &maps {
            if *is_changed {
                self.source.forget(xorb);
            }
            // What stands in files of others alone has to stay the account's own.
            let now = now_s();
            let is_own = map.spans.iter().all(|span| {
                span.content == list.content || inner.staging.has(self.account, &span.content, now)
            });
            if map.is_covered() && is_own {
                inner.sent_xorbs.remove(self.account, xorb);
            }
        }
        Ok(())
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
    ) -> Result<Option<Arc<FileList>>, StoreError> {
        let Some(blob) = self.store.linked(kind, name)? else {
            return Ok(None);
        };
        if let Some(list) = self.file_lists.get(&blob) {
            return Ok(Some(list));
        }
        let list = FileList::decode(&self.store.blob(&blob)?).map(Arc::new);
        if let Some(list) = &list {
            self.file_lists.insert(blob, Arc::clone(list));
        }
        Ok(list)
    }

    /// What is known of a xorb.
    pub(crate) fn xorb_map(&self, hash: &XetHash) -> Result<Option<XorbMap>, StoreError> {
        let blob = self.store.linked(LinkKind::Xorb, hash.as_bytes())?;
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
            // What can't be read stays: it must not keep others from being collected.
            let bytes = match self.store.blob(&blob) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%blob, %error, "what is known of a file could not be read");
                    kept.push(blob);
                    continue;
                }
            };
            let stays = match kind {
                LinkKind::Xorb => XorbMap::decode(&bytes)
                    .is_some_and(|map| map.spans.iter().all(|span| live(&span.content))),
                LinkKind::File | LinkKind::Content | LinkKind::Chunk => {
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
