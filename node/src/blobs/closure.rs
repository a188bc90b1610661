//! The metadata blobs that a refs blob reaches, so that a peer can ask for them in few requests.
//!
//! Parents come before what they name: the tag objects first, then for each commit, newest first, its
//! entry, its object, and each directory's manifest and tree object. What stands nowhere but in a file's
//! tree entry (file contents) is not among them, save pointers that are not canonical, which only a blob
//! of their own can give back. What is missing here is left out.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_protocol::entry::CommitEntry;
use cairn_protocol::hash::Blake3;
use cairn_protocol::manifest::Manifest;
use cairn_protocol::refs::Refs;
use parking_lot::Mutex;

use crate::store::{Store, StoreError};

/// Hashes of one closure; what lies beyond is found by those who walk it.
const HASHES_MAX: usize = 1 << 20;
/// Closures that are kept, so that the next answer goes on where one ended.
const KEPT_MAX: usize = 8;
/// Hashes of all that are kept, 32 bytes each.
const KEPT_HASHES_MAX: usize = 1 << 20;
/// Time after which one that lacks something is walked anew.
const INCOMPLETE_AGE_MAX: Duration = Duration::from_secs(10);

/// The closures asked for last.
#[derive(Debug, Default)]
pub(super) struct Closures {
    /// Newest last.
    kept: Mutex<VecDeque<Kept>>,
    /// One at a time: each may read much.
    walking: Mutex<()>,
}

impl Closures {
    /// The closure of a refs blob, as far as it may be read; empty where that is not here. Blocking.
    ///
    /// A refs blob may name anything: what is below something is told only to who may read that. Every
    /// peer may read the same as yet, so that one answer does for all.
    pub(super) fn of(
        &self,
        store: &Store,
        refs: &Blake3,
        may_read: &dyn Fn(&Blake3) -> bool,
    ) -> Arc<Vec<Blake3>> {
        if let Some(kept) = self.kept(refs) {
            return kept;
        }
        let _walking = self.walking.lock();
        if let Some(kept) = self.kept(refs) {
            return kept;
        }
        let mut walk = Walk::new(store, may_read);
        walk.all(refs);
        let until = (!walk.complete).then(|| Instant::now() + INCOMPLETE_AGE_MAX);
        let hashes = Arc::new(walk.hashes);
        let mut kept = self.kept.lock();
        kept.retain(|kept| kept.refs != *refs);
        kept.push_back(Kept {
            refs: *refs,
            hashes: Arc::clone(&hashes),
            until,
        });
        let too_many = |kept: &VecDeque<Kept>| {
            let all: usize = kept.iter().map(|kept| kept.hashes.len()).sum();
            kept.len() > KEPT_MAX || (all > KEPT_HASHES_MAX && kept.len() > 1)
        };
        while too_many(&kept) {
            kept.pop_front();
        }
        hashes
    }

    fn kept(&self, refs: &Blake3) -> Option<Arc<Vec<Blake3>>> {
        let kept = self.kept.lock();
        let found = kept.iter().find(|kept| kept.refs == *refs)?;
        let fresh = found.until.is_none_or(|until| Instant::now() < until);
        fresh.then(|| Arc::clone(&found.hashes))
    }
}

/// A closure, and when it is walked anew: one that lacked something may since have got it.
#[derive(Debug)]
struct Kept {
    refs: Blake3,
    hashes: Arc<Vec<Blake3>>,
    until: Option<Instant>,
}

struct Walk<'a> {
    store: &'a Store,
    may_read: &'a dyn Fn(&Blake3) -> bool,
    complete: bool,
    seen: HashSet<Blake3>,
    hashes: Vec<Blake3>,
}

impl<'a> Walk<'a> {
    fn new(store: &'a Store, may_read: &'a dyn Fn(&Blake3) -> bool) -> Self {
        Self {
            store,
            may_read,
            complete: true,
            seen: HashSet::new(),
            hashes: Vec::new(),
        }
    }

    fn all(&mut self, refs: &Blake3) {
        let Some(refs) = self.read(refs, Refs::decode) else {
            return;
        };
        let mut commits = VecDeque::new();
        for target in refs.0.values() {
            target.tags.iter().for_each(|tag| {
                self.add(*tag);
            });
        }
        for target in refs.0.values() {
            if self.add(target.entry) {
                commits.push_back(target.entry);
            }
        }
        // In breadth from the refs: parents are older than what names them.
        while let Some(entry) = commits.pop_front() {
            if self.hashes.len() >= HASHES_MAX {
                break;
            }
            let Some(entry) = self.read(&entry, CommitEntry::decode) else {
                continue;
            };
            self.add(entry.object);
            if let Some(manifest) = entry.manifest {
                self.tree(manifest);
            }
            for parent in entry.parents.iter().flatten() {
                if self.add(*parent) {
                    commits.push_back(*parent);
                }
            }
        }
    }

    /// A directory's manifest and tree object, and those of all directories in it.
    fn tree(&mut self, root: Blake3) {
        let mut directories = Vec::new();
        if self.add(root) {
            directories.push(root);
        }
        while let Some(manifest) = directories.pop() {
            let Some(manifest) = self.read(&manifest, Manifest::decode) else {
                continue;
            };
            self.add(manifest.tree);
            for entry in &manifest.entries {
                entry.pointer.iter().for_each(|pointer| {
                    self.add(*pointer);
                });
                if let Some(directory) = entry.manifest
                    && self.add(directory)
                {
                    directories.push(directory);
                }
            }
        }
    }

    /// Whether it is new.
    fn add(&mut self, hash: Blake3) -> bool {
        if self.hashes.len() >= HASHES_MAX || !self.seen.insert(hash) {
            return false;
        }
        self.hashes.push(hash);
        true
    }

    fn read<T, E>(&mut self, hash: &Blake3, decode: impl Fn(&[u8]) -> Result<T, E>) -> Option<T> {
        if !(self.may_read)(hash) {
            self.complete = false;
            return None;
        }
        match self.store.blob(hash) {
            Ok(bytes) => return decode(&bytes).ok(),
            Err(StoreError::Absent { .. }) => {}
            Err(error) => {
                tracing::warn!(%hash, %error, "metadata can't be served");
            }
        }
        self.complete = false;
        None
    }
}
