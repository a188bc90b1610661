//! Reads what is stored, all of it or one blob, and says what does not match its hash.

use std::collections::HashSet;
use std::path::PathBuf;

use cairn_protocol::hash::Blake3;

use super::facts::{BLOB, Facts, Said};
use super::index::{BadFrame, Read};
use super::intake;
use super::key::Key;
use super::{Inner, Store, StoreError};
use crate::files::frames::SEGMENT_HEADER_BYTES;
use crate::files::segments::Location;

/// Something that [`Store::verify_all`] found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The blob, where the damage could be told to be one's.
    pub hash: Option<Blake3>,
    /// Where it stands, or stood.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
    /// Whether it was put right from what is stored (a piece list made anew).
    pub healed: bool,
}

impl Store {
    /// Reads and hashes a blob in full; [`StoreError::Damaged`] where it does not match, and never served again.
    ///
    /// All its digests are computed again. A damaged piece list is made anew.
    pub fn verify(&self, hash: &Blake3) -> Result<(), StoreError> {
        let Inner {
            log, flats, index, ..
        } = &*self.inner;
        let _reading = self.inner.sweeping.read();
        if index.is_damaged(hash) {
            return Err(flats.damaged(hash));
        }
        if let Some(bytes) = self.small(hash)? {
            return self.check_small(hash, &bytes);
        }
        match flats.facts(hash)? {
            Some((facts, _)) => flats.verify(log, &facts, &mut |_| {}).map(|_healed| ()),
            None => Err(StoreError::Absent { hash: *hash }),
        }
    }

    /// Whether the digests in the log are those of a small blob.
    fn check_small(&self, hash: &Blake3, bytes: &[u8]) -> Result<(), StoreError> {
        let index = &self.inner.index;
        let Some(found) = index.find(&Key::digests(hash))? else {
            return Ok(());
        };
        let Said::Digests(facts) = found.said() else {
            return Ok(());
        };
        if intake::digest(bytes, facts.digests.git.is_some())?.digests == facts.digests {
            return Ok(());
        }
        index.set_damaged(hash);
        let path = index.segment_path(found.location.segment);
        Err(StoreError::Damaged { hash: *hash, path })
    }

    /// Verifies every frame of the log and every blob; `progress` is told bytes done and in all.
    ///
    /// Goes on after whatever it finds; an error is one that keeps it from reading on.
    pub fn verify_all(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Finding>, StoreError> {
        let index = &self.inner.index;
        let _reading = self.inner.sweeping.read();
        let total = index.stats().log_bytes + index.flat_bytes();
        let mut findings: Vec<Finding> = index
            .damaged()
            .iter()
            .map(|hash| self.known_damage(hash))
            .collect();
        let mut done = 0;
        // A verification is noted in a later segment: it is not to be verified again there.
        let mut verified = HashSet::new();
        for segment in 1..=index.last_segment() {
            let mut flats = Vec::new();
            done += SEGMENT_HEADER_BYTES as u64;
            index.each_frame(segment, &mut |read| {
                match read {
                    Read::Frame(frame) => {
                        done += u64::from(frame.len());
                        let location = Location {
                            segment,
                            offset: frame.offset,
                            len: frame.len(),
                        };
                        match Said::read(frame.kind, frame.payload) {
                            Some(Said::Blob { hash, bytes }) => {
                                findings.extend(self.check_blob(segment, &hash, bytes)?);
                            }
                            Some(Said::Digests(facts)) if facts.flat.is_some() => {
                                flats.push((facts, location));
                            }
                            _ => {}
                        }
                        progress(done.min(total), total);
                    }
                    Read::Bad(bad) => findings.extend(self.bad_frame(bad)),
                }
                Ok(())
            })?;
            for (facts, location) in flats {
                let hash = facts.digests.blake3;
                // Older frames about the same file say nothing any more.
                let newest = index.find(&Key::digests(&hash))?;
                if index.is_damaged(&hash)
                    || newest.is_none_or(|found| found.location != location)
                    || !verified.insert(hash)
                {
                    continue;
                }
                let before = done;
                let progress = &mut |read: u64| progress((before + read).min(total), total);
                findings.extend(self.check_flat(&facts, progress)?);
                done += facts.digests.size;
            }
        }
        Ok(findings)
    }

    fn known_damage(&self, hash: &Blake3) -> Finding {
        Finding {
            hash: Some(*hash),
            path: self.inner.flats.damaged_path(hash),
            reason: "found damaged earlier".to_owned(),
            healed: false,
        }
    }

    fn check_blob(
        &self,
        segment: u32,
        hash: &Blake3,
        bytes: &[u8],
    ) -> Result<Option<Finding>, StoreError> {
        let checked = if Blake3::of(bytes) == *hash {
            self.check_small(hash, bytes)
        } else {
            let path = self.inner.index.segment_path(segment);
            Err(StoreError::Damaged { hash: *hash, path })
        };
        match checked {
            // Bad digests are a finding of their own.
            Ok(()) | Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(StoreError::Damaged { path, .. }) => {
                self.inner.index.set_damaged(hash);
                let reason = "it no longer matches its hashes".to_owned();
                Ok(Some(Finding {
                    hash: Some(*hash),
                    path,
                    reason,
                    healed: false,
                }))
            }
            Err(error) => Err(error),
        }
    }

    fn check_flat(
        &self,
        facts: &Facts,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Finding>, StoreError> {
        let Inner { log, flats, .. } = &*self.inner;
        let hash = facts.digests.blake3;
        let finding = |path, reason: &str, healed| {
            Ok(Some(Finding {
                hash: Some(hash),
                path,
                reason: reason.to_owned(),
                healed,
            }))
        };
        match flats.verify(log, facts, progress) {
            Ok(false) => Ok(None),
            Ok(true) => finding(
                flats.pieces_path(&hash),
                "its piece list was damaged: made anew",
                true,
            ),
            Err(StoreError::Damaged { .. }) => {
                finding(flats.path(&hash), "it no longer matches its hashes", false)
            }
            Err(StoreError::Io { path, source, .. }) => {
                finding(path, &format!("it cannot be read: {source}"), false)
            }
            Err(error) => Err(error),
        }
    }

    /// Says what is bad, and of which blob where its hash still stands there.
    fn bad_frame(&self, bad: BadFrame) -> Option<Finding> {
        let StoreError::Corrupt {
            path,
            offset,
            reason,
        } = bad.error
        else {
            return None;
        };
        let hash = bad
            .rest
            .and_then(|(kind, payload)| match Said::read(kind, &payload) {
                Some(Said::Blob { hash, .. }) if kind == BLOB => Some(hash),
                _ => None,
            });
        // Any 32 bytes could stand there: only of what was stored once can the damage be told.
        let (hash, healed) = match hash.map(|hash| (hash, self.inner.index.find(&Key::blob(&hash))))
        {
            Some((hash, Ok(Some(_)))) => (Some(hash), true),
            Some((hash, Err(StoreError::Corrupt { .. }))) => {
                self.inner.index.set_damaged(&hash);
                (Some(hash), false)
            }
            _ => (None, false),
        };
        Some(Finding {
            hash,
            path,
            reason: format!("at byte {offset}: {reason}"),
            healed,
        })
    }
}
