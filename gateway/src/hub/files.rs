//! Files of a commit that an answer is made from: those that are here, and small parts of others.
//!
//! An answer is made from what is here first. Where that lacks something a peer may have, it is made
//! again with leave to fetch, within [`PATIENCE`], on a thread that other requests don't need; what does
//! not come in time is left out. Listings never fetch.

use std::cell::Cell;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_node::Node;
use cairn_node::fetch::{Arriving, FetchError, Wanted};
use cairn_node::repos::{Commit, EntryKind, FileEntry, Repo};
use cairn_node::store::{Content, StoreError};
use cairn_protocol::hash::GitOid;
use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::content::wanted;
use crate::error::ApiError;
use crate::metrics;

/// Bytes of a JSON file that is looked into; a larger one says nothing to us.
const JSON_BYTES_MAX: u64 = 4 << 20;
/// Time in which files must come that an answer is made from; it goes without those that don't.
const PATIENCE: Duration = Duration::from_secs(5);
/// Files of one answer that are asked of peers; further ones are left out.
const FETCHES_MAX: usize = 20;
/// Answers that wait for files at a time; others are made of what is here.
const WAITING_MAX: usize = 8;
/// Time after which files of a commit that did not come are asked for again.
const PAUSE: Duration = Duration::from_mins(1);
/// Commits of which it is remembered that files did not come; the least used are asked for again.
const FAILED_MAX: usize = 1_000;

/// Which answers may fetch, of all that a gateway gives.
#[derive(Debug)]
pub(super) struct Waits {
    places: Arc<Semaphore>,
    failed: Cache<GitOid, Instant>,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            failed: Cache::new(FAILED_MAX),
        }
    }
}

impl Waits {
    /// A place for an answer that may wait; `None` where all are taken.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    fn has_failed(&self, commit: &GitOid) -> bool {
        self.failed
            .get(commit)
            .is_some_and(|at| at.elapsed() < PAUSE)
    }
}

/// How far one answer may go for files.
#[derive(Debug)]
pub(super) struct Reach {
    fetching: Option<Fetching>,
    is_lacking: Cell<bool>,
}

#[derive(Debug)]
struct Fetching {
    runtime: Handle,
    until: tokio::time::Instant,
    left: Cell<usize>,
}

impl Reach {
    /// What is here, and no further; notes whether that was too little.
    pub(super) fn here() -> Self {
        Self {
            fetching: None,
            is_lacking: Cell::new(false),
        }
    }

    /// To peers, from now on for [`PATIENCE`]. To be called, and used, on a blocking thread of a runtime.
    pub(super) fn peers() -> Self {
        Self {
            fetching: Some(Fetching {
                runtime: Handle::current(),
                until: tokio::time::Instant::now() + PATIENCE,
                left: Cell::new(FETCHES_MAX),
            }),
            is_lacking: Cell::new(false),
        }
    }

    /// Whether files are missing that peers may have, and were not asked for just now.
    pub(super) fn is_lacking(&self) -> bool {
        self.is_lacking.get()
    }
}

/// The files of a commit.
pub(super) struct Files<'a> {
    node: &'a Node,
    waits: &'a Waits,
    repo: &'a Repo,
    commit: &'a Commit,
    reach: Option<&'a Reach>,
    /// Falls where something can't be read that the commit has.
    pub(super) is_whole: bool,
}

/// A file of a commit that can be read, or tried to.
pub(super) enum File {
    Here(Content),
    Away(Arriving),
}

impl File {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Here(content) => content.size(),
            Self::Away(arriving) => arriving.size(),
        }
    }
}

impl<'a> Files<'a> {
    pub(super) fn new(
        node: &'a Node,
        waits: &'a Waits,
        repo: &'a Repo,
        commit: &'a Commit,
        reach: Option<&'a Reach>,
    ) -> Self {
        Self {
            node,
            waits,
            repo,
            commit,
            reach,
            is_whole: true,
        }
    }

    pub(super) fn commit(&self) -> &'a Commit {
        self.commit
    }

    /// A JSON file; `None` where there is none, or none that we can read.
    pub(super) fn json(&mut self, path: &str) -> Result<Option<Value>, ApiError> {
        let Some(file) = self.open(path, JSON_BYTES_MAX)? else {
            return Ok(None);
        };
        // So that it stays: whoever shows a model's JSON is asked for the file next.
        let bytes = self.read_whole(&file);
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// A file of at most so many bytes; `None` where there is none, or it can't be had.
    pub(super) fn open(&mut self, path: &str, bytes_max: u64) -> Result<Option<File>, ApiError> {
        let Some(entry) = self.commit.entry(path)? else {
            return Ok(None);
        };
        let EntryKind::File(file) = entry.kind else {
            return Ok(None);
        };
        if file.size > bytes_max {
            return Ok(None);
        }
        self.open_file(entry.path, entry.oid, &file)
    }

    /// The content of a file that the commit has there; `None` where it can't be had.
    pub(super) fn open_file(
        &mut self,
        path: String,
        oid: GitOid,
        file: &FileEntry,
    ) -> Result<Option<File>, ApiError> {
        let Some(hash) = file.blake3 else {
            self.is_whole = false;
            return Ok(None);
        };
        let wanted = wanted(self.repo.id(), path, oid, file, hash);
        match self.node.content(&hash) {
            Ok(content) if self.node.agreement(&wanted)? != Some(false) => {
                return Ok(Some(File::Here(content)));
            }
            // Other bytes than the commit claims: who fetches it says so.
            Ok(_) | Err(StoreError::Absent { .. } | StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let arriving = self
            .fetching()
            .and_then(|fetching| fetching.begin(self.node, wanted));
        if arriving.is_none() {
            self.is_whole = false;
            self.note_lack();
        }
        Ok(arriving.map(File::Away))
    }

    fn fetching(&self) -> Option<&'a Fetching> {
        self.reach?.fetching.as_ref()
    }

    fn note_lack(&self) {
        if let Some(reach) = self.reach
            && reach.fetching.is_none()
            && self.node.is_networked()
            && !self.waits.has_failed(&self.commit.info().oid)
        {
            reach.is_lacking.set(true);
        }
    }

    /// A whole file, in memory, which stays here.
    pub(super) fn read_whole(&mut self, file: &File) -> Option<Vec<u8>> {
        if let (File::Away(arriving), Some(fetching)) = (file, self.fetching()) {
            fetching.finish(arriving);
        }
        self.read(file, 0, file.size())
    }

    /// A part of a file, in memory; a file that can't be read says nothing, and the files are not whole.
    pub(super) fn read(&mut self, file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
        match file {
            File::Here(content) => match read(content, offset, length) {
                Ok(part) => return Some(part),
                Err(error) => tracing::warn!(%error, "stored content can't be read"),
            },
            File::Away(arriving) => {
                let part = self
                    .fetching()
                    .and_then(|fetching| fetching.read(arriving, offset, length));
                if part.is_some() {
                    return part;
                }
                // Whoever asks next does not wait as long again.
                let oid = self.commit.info().oid;
                self.waits.failed.insert(oid, Instant::now());
            }
        }
        self.is_whole = false;
        None
    }
}

impl Fetching {
    fn begin(&self, node: &Node, wanted: Wanted) -> Option<Arriving> {
        self.left.set(self.left.get().checked_sub(1)?);
        let arriving = node.fetch(wanted).ok()?;
        metrics::fetch_begun();
        Some(arriving)
    }

    /// A part of a file; `None` where it doesn't come in time, and then no other is waited for.
    fn read(&self, arriving: &Arriving, offset: u64, length: u64) -> Option<Vec<u8>> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= arriving.size())?;
        let mut part = Vec::new();
        while offset + (part.len() as u64) < end {
            let at = offset + part.len() as u64;
            part.extend_from_slice(&self.wait(arriving.read(at, end - at))?);
        }
        Some(part)
    }

    fn finish(&self, arriving: &Arriving) {
        // Where it doesn't, the read that follows says so.
        let _ = self.wait(arriving.finished());
    }

    fn wait<T>(&self, come: impl Future<Output = Result<T, FetchError>>) -> Option<T> {
        let come = async { tokio::time::timeout_at(self.until, come).await };
        match self.runtime.block_on(come) {
            Ok(Ok(come)) => Some(come),
            Ok(Err(error)) => {
                tracing::debug!(%error, "an answer is made without a file");
                self.left.set(0);
                None
            }
            Err(_) => {
                self.left.set(0);
                None
            }
        }
    }
}

fn read(content: &Content, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let index = |at: u64| usize::try_from(at).map_err(io::Error::other);
    let (start, length) = (index(offset)?, index(length)?);
    match content {
        Content::Small(bytes) => match bytes.get(start..start.saturating_add(length)) {
            Some(part) => Ok(part.to_vec()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        },
        Content::Flat(flat) => {
            let mut part = vec![0; length];
            flat.file.read_exact_at(&mut part, offset)?;
            Ok(part)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_past_the_end_are_errors() {
        let content = Content::Small(b"0123".as_slice().into());
        assert_eq!(read(&content, 1, 2).unwrap(), b"12");
        assert!(read(&content, 3, 2).is_err());
        assert!(read(&content, u64::MAX, u64::MAX).is_err());
    }
}
