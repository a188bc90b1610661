//! Blobs and records that are stored together.

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::{ENVELOPE_BYTES_MAX, FLAT_BYTES_MIN};

use super::facts::{Facts, blob_frame, link_frame, record_frame};
use super::intake::{self, Taken};
use super::key::{Key, LinkKind};
use super::lease::Lease;
use super::{Digests, Store, StoreError};
use crate::files::segments::NewFrame;

/// Blobs and records that are stored together; holds a lease from its beginning.
#[derive(Debug)]
pub struct Batch {
    store: Store,
    items: Vec<Item>,
    len_bytes: u64,
    _lease: Lease,
}

#[derive(Debug)]
enum Item {
    Blob { hash: Blake3, bytes: Bytes },
    File { bytes: Bytes, taken: Taken },
    Record(Vec<u8>),
    Link(LinkKind, [u8; 32], Blake3),
}

impl Batch {
    pub(super) fn new(store: Store) -> Self {
        let lease = store.lease();
        Self {
            store,
            items: Vec::new(),
            len_bytes: 0,
            _lease: lease,
        }
    }

    /// Adds a blob without further digests: git objects, manifests, our own formats.
    pub fn put(&mut self, bytes: Bytes) -> Blake3 {
        let hash = Blake3::of(&bytes);
        self.len_bytes += bytes.len() as u64;
        self.items.push(Item::Blob { hash, bytes });
        hash
    }

    /// Adds a file's content with its digests; with `git`, its git blob id among them.
    pub fn put_with(&mut self, bytes: Bytes, git: bool) -> Result<Digests, StoreError> {
        let taken = intake::digest(&bytes, git)?;
        let digests = taken.digests;
        self.len_bytes += bytes.len() as u64;
        self.items.push(Item::File { bytes, taken });
        Ok(digests)
    }

    /// The same, but only if its digests are as they should be; whether it was added.
    pub(crate) fn put_if(
        &mut self,
        bytes: Bytes,
        git: bool,
        agrees: impl FnOnce(&Digests) -> bool,
    ) -> Result<(Digests, bool), StoreError> {
        let taken = intake::digest(&bytes, git)?;
        let digests = taken.digests;
        let added = agrees(&digests);
        if added {
            self.len_bytes += bytes.len() as u64;
            self.items.push(Item::File { bytes, taken });
        }
        Ok((digests, added))
    }

    /// Adds a record's envelope.
    pub fn record(&mut self, envelope: Vec<u8>) {
        self.len_bytes += envelope.len() as u64;
        self.items.push(Item::Record(envelope));
    }

    /// Says that a blob, added before or stored, tells what is known under a name that is not ours.
    pub(crate) fn link(&mut self, kind: LinkKind, name: [u8; 32], blob: Blake3) {
        self.items.push(Item::Link(kind, name, blob));
    }

    /// Bytes added so far: commit, and begin another, before this gets large.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Stores all of it, in the order it was added; durable on return. What is stored already is left out.
    ///
    /// After an error some of it may be stored, but nothing that came after what is not.
    pub fn commit(self) -> Result<(), StoreError> {
        let store = &self.store;
        let mut frames = Vec::new();
        for item in self.items {
            match item {
                Item::Blob { hash, bytes } if is_flat(&bytes) => {
                    if store.inner.flats.intact(&hash)?.is_none() {
                        let taken = intake::digest(&bytes, false)?;
                        flush(store, &mut frames)?;
                        store.inner.flats.put(&store.inner.log, &bytes, &taken)?;
                    }
                }
                Item::Blob { hash, bytes } => frames.push(blob_frame(&hash, bytes)),
                Item::File { bytes, taken } if is_flat(&bytes) => {
                    flush(store, &mut frames)?;
                    store.inner.flats.put(&store.inner.log, &bytes, &taken)?;
                }
                Item::File { bytes, taken } => {
                    frames.push(blob_frame(&taken.digests.blake3, bytes));
                    frames.extend(digests_frame(store, taken.digests)?);
                }
                Item::Link(kind, name, blob) => {
                    frames.push(link_frame(kind as u8, &name, &blob));
                }
                Item::Record(envelope) => {
                    if envelope.len() > ENVELOPE_BYTES_MAX {
                        return Err(StoreError::TooLarge {
                            what: "a record's envelope",
                            size: envelope.len() as u64,
                            max: ENVELOPE_BYTES_MAX as u64,
                        });
                    }
                    frames.push(record_frame(envelope));
                }
            }
        }
        flush(store, &mut frames)
    }
}

fn is_flat(bytes: &Bytes) -> bool {
    bytes.len() as u64 >= FLAT_BYTES_MIN
}

fn flush(store: &Store, frames: &mut Vec<NewFrame>) -> Result<(), StoreError> {
    store.inner.log.append(std::mem::take(frames))
}

/// What the log does not say yet of a small file.
pub(super) fn digests_frame(
    store: &Store,
    mut digests: Digests,
) -> Result<Option<NewFrame>, StoreError> {
    let known = store.inner.index.find(&Key::digests(&digests.blake3))?;
    if let Some(found) = known
        && let super::facts::Said::Digests(facts) = found.said()
    {
        digests.git = digests.git.or(facts.digests.git);
        if facts.digests == digests {
            return Ok(None);
        }
    }
    Ok(Some(
        Facts {
            digests,
            flat: None,
            renewed: false,
        }
        .frame(),
    ))
}
