//! The chain, and what its entries add up to.

use std::collections::HashMap;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Subject};
use crate::files::frames::MARK;
use crate::files::segments::NewFrame;

/// An entry.
pub(super) const ENTRY: u8 = 2;
/// The beginning of a snapshot: says how many entries it has.
pub(super) const SNAPSHOT: u8 = 3;
/// An entry of a snapshot.
pub(super) const KEPT: u8 = 4;

/// What stands in a frame: something, chained to the frame before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link<T> {
    /// Hash of the payload before this one; zeros in the first.
    pub(super) prev: Blake3,
    /// Seconds since the Unix epoch.
    pub(super) time: u64,
    /// What is said.
    pub(super) entry: T,
}

/// Begins a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// How many entries follow that are part of it.
    snapshot: u64,
}

/// The newest entry about each subject, and the end of the chain.
#[derive(Debug)]
pub(super) struct State {
    head: Blake3,
    newest: HashMap<Subject, (u64, Entry)>,
    /// Entries so far: their order.
    count: u64,
    /// Entries of a snapshot that are still to come.
    missing: u64,
    /// What a start replays.
    replayed: Vec<Entry>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            head: Blake3::from_bytes([0; 32]),
            newest: HashMap::new(),
            count: 0,
            missing: 0,
            replayed: Vec::new(),
        }
    }
}

impl State {
    /// Hash of the last payload.
    pub(super) fn head(&self) -> Blake3 {
        self.head
    }

    /// Takes note of entries that are durable, up to a new head.
    pub(super) fn extend(&mut self, entries: Vec<Entry>, head: Blake3) {
        for entry in entries {
            self.note(entry);
        }
        self.head = head;
    }

    fn note(&mut self, entry: Entry) {
        self.count += 1;
        let subject = entry.subject();
        if self
            .newest
            .get(&subject)
            .is_none_or(|(_, earlier)| entry.replaces(earlier))
        {
            self.newest.insert(subject, (self.count, entry));
        }
    }

    /// Reads a frame at the start; an error says why it cannot stand there.
    pub(super) fn read(&mut self, kind: u8, payload: &[u8]) -> Result<(), String> {
        match kind {
            MARK => return Ok(()),
            SNAPSHOT => {
                self.no_entry_is_missing()?;
                let link: Link<Begin> = self.link(payload)?;
                self.missing = link.entry.snapshot;
                self.newest.clear();
                self.replayed.clear();
            }
            ENTRY | KEPT => {
                if kind == KEPT {
                    let missing = self.missing.checked_sub(1);
                    self.missing = missing.ok_or("an entry too many in a snapshot")?;
                } else {
                    self.no_entry_is_missing()?;
                }
                let link: Link<Entry> = self.link(payload)?;
                self.replayed.push(link.entry.clone());
                self.note(link.entry);
            }
            other => {
                return Err(format!(
                    "an entry of kind {other} that this release does not know"
                ));
            }
        }
        self.head = Blake3::of(payload);
        Ok(())
    }

    fn no_entry_is_missing(&self) -> Result<(), String> {
        match self.missing {
            0 => Ok(()),
            missing => Err(format!(
                "{missing} entries of the snapshot before it are missing"
            )),
        }
    }

    fn link<T: for<'de> Deserialize<'de>>(&self, payload: &[u8]) -> Result<Link<T>, String> {
        let link: Link<T> = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        if link.prev != self.head {
            return Err("it does not follow the entry before it".to_owned());
        }
        Ok(link)
    }

    /// The entries to be replayed, in order; none are kept.
    pub(super) fn take_replayed(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.replayed)
    }

    /// The frames that a new segment begins with, and the hash of the last of them.
    pub(super) fn snapshot(&self, time: u64) -> (Blake3, Vec<NewFrame>) {
        let lasting = |(_, entry): &&(u64, Entry)| !entry.is_void();
        let mut entries: Vec<&(u64, Entry)> = self.newest.values().filter(lasting).collect();
        entries.sort_by_key(|(order, _)| *order);
        let begin = Begin {
            snapshot: entries.len() as u64,
        };
        let mut frames = vec![frame(
            SNAPSHOT,
            &Link {
                prev: self.head,
                time,
                entry: begin,
            },
        )];
        let mut head = hash_of(&frames[0]);
        for (_, entry) in entries {
            let kept = frame(
                KEPT,
                &Link {
                    prev: head,
                    time,
                    entry,
                },
            );
            head = hash_of(&kept);
            frames.push(kept);
        }
        (head, frames)
    }
}

/// A link as it stands in a segment.
pub(super) fn frame<T: Serialize>(kind: u8, link: &Link<T>) -> NewFrame {
    let body = serde_json::to_vec(link).expect("invariant: no map keys that are not strings");
    NewFrame {
        kind,
        head: Vec::new(),
        body: Bytes::from(body),
    }
}

/// What the next link names.
pub(super) fn hash_of(frame: &NewFrame) -> Blake3 {
    Blake3::of(&frame.body)
}
