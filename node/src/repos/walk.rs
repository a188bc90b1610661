//! Walks what a head reaches, and checks it: is all of its metadata here, and is it what it says?
//!
//! A walk that meets what is not here goes on with the rest, and takes up the missing places when it is
//! asked again. What an earlier walk has checked whole ([`Access`]) is passed over, so that a new head
//! costs what is new in it. Blocking.

use std::collections::HashSet;

use bytes::Bytes;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::git::{CommitObject, ObjectKind, object_oid};
use cairn_protocol::hash::{Blake3, GitOid};
use cairn_protocol::limits::{HEAD_CONTENTS_MAX, HEAD_METADATA_BYTES_MAX, HEAD_METADATA_MAX};
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
use cairn_protocol::refs::Refs;

use crate::access::{Access, Prefix, prefix, role};
use crate::store::{Store, StoreError};

/// Missing blobs that are gathered before they are asked for; the walk goes on when they are here.
const MISSING_MAX: usize = 16_384;
/// Bytes of tree objects that are held until they are stored.
const MADE_BYTES_MAX: u64 = 8 << 20;

/// What a walk came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All of it is here and is what it says.
    Complete,
    /// These are not here; there may be more behind them.
    Missing(Vec<Blake3>),
    /// It can never be shown.
    Wrong(String),
}

/// A place that the head leads to.
#[derive(Debug)]
enum Step {
    Refs(Blake3),
    /// A tag object, those behind it, and the commit entry behind them.
    Tag {
        hash: Blake3,
        oid: GitOid,
        behind: Vec<Blake3>,
        entry: Blake3,
    },
    Entry {
        hash: Blake3,
        commit: GitOid,
    },
    Commit(Box<CommitEntry>),
    Manifest {
        hash: Blake3,
        tree: GitOid,
    },
    Pointer {
        hash: Blake3,
        oid: GitOid,
    },
}

impl Step {
    fn hash(&self) -> Blake3 {
        match self {
            Self::Refs(hash)
            | Self::Tag { hash, .. }
            | Self::Entry { hash, .. }
            | Self::Manifest { hash, .. }
            | Self::Pointer { hash, .. } => *hash,
            Self::Commit(entry) => entry.object,
        }
    }
}

/// A walk under way.
#[derive(Debug)]
pub(crate) struct Walk {
    store: Store,
    access: Access,
    todo: Vec<Step>,
    missing: Vec<Step>,
    reached: HashSet<Prefix>,
    walked: HashSet<Prefix>,
    /// Manifests, and pointers, that manifests led to: each is gone to once, however often it is named.
    led_to: HashSet<(bool, Prefix)>,
    metadata: u64,
    bytes: u64,
    contents: usize,
    made: Vec<Bytes>,
    made_bytes: u64,
}

/// Why a step did not go on.
enum Stop {
    Missing,
    Wrong(String),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            // Damaged metadata can be fetched again.
            StoreError::Absent { .. } | StoreError::Damaged { .. } => Self::Missing,
            error => Self::Store(error),
        }
    }
}

fn wrong(what: &str, hash: &Blake3, problem: impl std::fmt::Display) -> Stop {
    Stop::Wrong(format!("{what} {hash}: {problem}"))
}

impl Walk {
    /// Begins at a head's refs blob.
    pub(crate) fn new(store: Store, access: Access, refs: Blake3) -> Self {
        Self {
            store,
            access,
            todo: vec![Step::Refs(refs)],
            missing: Vec::new(),
            reached: HashSet::new(),
            walked: HashSet::new(),
            led_to: HashSet::new(),
            metadata: 0,
            bytes: 0,
            contents: 0,
            made: Vec::new(),
            made_bytes: 0,
        }
    }

    /// Goes as far as it can with what is here now, or until `stop` says so.
    pub(crate) fn go_on(&mut self, stop: &dyn Fn() -> bool) -> Result<Outcome, StoreError> {
        self.todo.append(&mut self.missing);
        while let Some(step) = self.todo.pop() {
            match self.step(&step) {
                Ok(()) => {}
                Err(Stop::Missing) => {
                    self.missing.push(step);
                    if self.missing.len() >= MISSING_MAX {
                        break;
                    }
                }
                Err(Stop::Wrong(reason)) => return Ok(Outcome::Wrong(reason)),
                Err(Stop::Store(error)) => {
                    self.todo.push(step);
                    return Err(error);
                }
            }
            if self.made_bytes >= MADE_BYTES_MAX {
                self.store_made()?;
            }
            if stop() {
                return Err(StoreError::Stopped);
            }
        }
        self.store_made()?;
        if self.missing.is_empty() {
            return Ok(Outcome::Complete);
        }
        let mut seen = HashSet::new();
        let hashes = self.missing.iter().map(Step::hash);
        Ok(Outcome::Missing(
            hashes.filter(|hash| seen.insert(*hash)).collect(),
        ))
    }

    /// Makes all that was reached readable to peers; for a walk that is complete.
    pub(crate) fn publish(&self) {
        self.access.add(&self.reached, &self.walked);
    }

    /// Makes what was reached readable, of a walk that is not complete: nothing counts as walked.
    pub(crate) fn publish_in_part(&self) {
        self.access.add(&self.reached, &HashSet::new());
    }

    /// Bytes of metadata that were reached so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn store_made(&mut self) -> Result<(), StoreError> {
        if self.made.is_empty() {
            return Ok(());
        }
        let mut batch = self.store.batch();
        for bytes in self.made.drain(..) {
            batch.put(bytes);
        }
        self.made_bytes = 0;
        batch.commit()
    }

    fn read(&mut self, hash: &Blake3) -> Result<Bytes, Stop> {
        let bytes = self.store.blob(hash).map_err(|error| match error {
            StoreError::TooLarge { .. } => wrong("metadata", hash, error),
            error => error.into(),
        })?;
        self.count(bytes.len() as u64)?;
        self.reached.insert(prefix(hash));
        Ok(bytes)
    }

    fn count(&mut self, bytes: u64) -> Result<(), Stop> {
        self.metadata += 1;
        self.bytes += bytes;
        if self.metadata > HEAD_METADATA_MAX || self.bytes > HEAD_METADATA_BYTES_MAX {
            return Err(Stop::Wrong(format!(
                "its metadata is more than {HEAD_METADATA_MAX} blobs or {HEAD_METADATA_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    /// Whether a place is new; an error where there are more than a head may have.
    fn leads_to(&mut self, place: (bool, Prefix)) -> Result<bool, Stop> {
        let is_new = self.led_to.insert(place);
        if self.led_to.len() as u64 > HEAD_METADATA_MAX {
            return Err(Stop::Wrong(format!(
                "its manifests name more than {HEAD_METADATA_MAX} blobs of metadata"
            )));
        }
        Ok(is_new)
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Refs(hash) => self.refs(hash),
            Step::Tag {
                hash,
                oid,
                behind,
                entry,
            } => self.tag(hash, oid, behind, entry),
            Step::Entry { hash, commit } => self.entry(hash, commit),
            Step::Commit(entry) => self.commit(entry),
            Step::Manifest { hash, tree } => self.manifest(hash, tree),
            Step::Pointer { hash, oid } => {
                let bytes = self.read(hash)?;
                if object_oid(ObjectKind::Blob, &bytes) == *oid {
                    Ok(())
                } else {
                    Err(wrong("pointer", hash, "is not the blob it stands for"))
                }
            }
        }
    }

    fn refs(&mut self, hash: &Blake3) -> Result<(), Stop> {
        let bytes = self.read(hash)?;
        let refs = Refs::decode(&bytes).map_err(|error| wrong("refs blob", hash, error))?;
        for target in refs.0.into_values() {
            self.todo.push(match target.tags.split_first() {
                None => Step::Entry {
                    hash: target.entry,
                    commit: target.oid,
                },
                Some((first, behind)) => Step::Tag {
                    hash: *first,
                    oid: target.oid,
                    behind: behind.to_vec(),
                    entry: target.entry,
                },
            });
        }
        Ok(())
    }

    fn tag(
        &mut self,
        hash: &Blake3,
        oid: &GitOid,
        behind: &[Blake3],
        entry: &Blake3,
    ) -> Result<(), Stop> {
        let bytes = self.read(hash)?;
        if object_oid(ObjectKind::Tag, &bytes) != *oid {
            return Err(wrong("tag object", hash, "is not the tag it stands for"));
        }
        let target = tagged(&bytes).ok_or_else(|| wrong("tag object", hash, "names no object"))?;
        self.todo.push(match behind.split_first() {
            None => Step::Entry {
                hash: *entry,
                commit: target,
            },
            Some((first, behind)) => Step::Tag {
                hash: *first,
                oid: target,
                behind: behind.to_vec(),
                entry: *entry,
            },
        });
        Ok(())
    }

    fn entry(&mut self, hash: &Blake3, commit: &GitOid) -> Result<(), Stop> {
        let role = role(hash, commit);
        if self.walked.contains(&role) || self.access.is_walked(&role) {
            return Ok(());
        }
        let bytes = self.read(hash)?;
        let entry =
            CommitEntry::decode(&bytes).map_err(|error| wrong("commit entry", hash, error))?;
        if entry.commit != *commit {
            let problem = format!("is of commit {}, not {commit}", entry.commit);
            return Err(wrong("commit entry", hash, problem));
        }
        self.walked.insert(role);
        self.todo.push(Step::Commit(Box::new(entry)));
        Ok(())
    }

    fn commit(&mut self, entry: &CommitEntry) -> Result<(), Stop> {
        let hash = &entry.object;
        let bytes = self.read(hash)?;
        if object_oid(ObjectKind::Commit, &bytes) != entry.commit {
            return Err(wrong(
                "commit object",
                hash,
                "is not the commit it stands for",
            ));
        }
        let object =
            CommitObject::parse(&bytes).map_err(|error| wrong("commit object", hash, error))?;
        if object.parents.len() != entry.parents.len() {
            return Err(wrong(
                "commit object",
                hash,
                "has other parents than its entry",
            ));
        }
        let parents = object.parents.iter().zip(&entry.parents);
        self.todo.extend(parents.filter_map(|(commit, hash)| {
            hash.map(|hash| Step::Entry {
                hash,
                commit: *commit,
            })
        }));
        self.todo.extend(entry.manifest.map(|hash| Step::Manifest {
            hash,
            tree: object.tree,
        }));
        Ok(())
    }

    fn manifest(&mut self, hash: &Blake3, tree: &GitOid) -> Result<(), Stop> {
        let role = role(hash, tree);
        if self.walked.contains(&role) || self.access.is_walked(&role) {
            return Ok(());
        }
        let bytes = self.read(hash)?;
        let manifest = Manifest::decode(&bytes).map_err(|error| wrong("manifest", hash, error))?;
        let object = manifest.tree_bytes();
        if Blake3::of(&object) != manifest.tree || object_oid(ObjectKind::Tree, &object) != *tree {
            return Err(wrong("manifest", hash, "is not the tree it stands for"));
        }
        if self.contents + manifest.entries.len() > HEAD_CONTENTS_MAX {
            return Err(Stop::Wrong(format!(
                "it names more than {HEAD_CONTENTS_MAX} contents"
            )));
        }
        self.count(object.len() as u64)?;
        if !self.store.contains(&manifest.tree)? {
            // A manifest has all that the tree has: no need to ask a peer.
            self.made_bytes += object.len() as u64;
            self.made.push(object.into());
        }
        self.walked.insert(role);
        self.reached.insert(prefix(&manifest.tree));
        for entry in &manifest.entries {
            self.manifest_entry(hash, entry)?;
        }
        Ok(())
    }

    fn manifest_entry(&mut self, hash: &Blake3, entry: &ManifestEntry) -> Result<(), Stop> {
        if let Some(content) = entry.blake3
            && self.reached.insert(prefix(&content))
        {
            self.contents += 1;
        }
        if let (EntryKind::Directory, Some(below)) = (entry.kind, entry.manifest) {
            let role = role(&below, &entry.oid);
            if !self.access.is_walked(&role) && self.leads_to((true, role))? {
                self.todo.push(Step::Manifest {
                    hash: below,
                    tree: entry.oid,
                });
            }
        }
        if let Some(pointer) = entry.pointer
            && self.leads_to((false, role(&pointer, &entry.oid)))?
        {
            self.todo.push(Step::Pointer {
                hash: pointer,
                oid: entry.oid,
            });
        }
        match entry.canonical_pointer() {
            Some(pointer) if pointer.oid() != entry.oid => {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                let problem = format!("the pointer of {name:?} is not the blob it stands for");
                Err(wrong("manifest", hash, problem))
            }
            _ => Ok(()),
        }
    }
}

/// The object that a tag names in its first line.
fn tagged(bytes: &[u8]) -> Option<GitOid> {
    let line = bytes
        .strip_prefix(b"object ")?
        .split(|byte| *byte == b'\n')
        .next()?;
    std::str::from_utf8(line).ok()?.parse().ok()
}
