//! Frees what nothing needs: dead frames of the log, dead flat files, and files that no frame speaks of.
//!
//! The log goes first. A segment with dead frames is written anew beside the old one and renamed over it,
//! so that each instant shows one whole segment or the other. Flat files go when no frame in the durable
//! log speaks of them: a crash before that leaves them as strays for the next sweep, never a frame without
//! its file.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::path::Path;

use cairn_protocol::hash::Blake3;

use super::facts::{BLOB, Facts, Said};
use super::index::{BadFrame, Freed, Read};
use super::key::Key;
use super::lease::{Alone, Leases};
use super::{Store, StoreError};
use crate::files::frames::{FRAME_HEADER_BYTES, Frame, SEGMENT_HEADER_BYTES};

/// Which blobs a sweep leaves.
pub trait Live {
    /// Whether it leaves this one.
    fn has(&self, hash: &Blake3) -> bool;
}

impl<S: BuildHasher> Live for HashSet<Blake3, S> {
    fn has(&self, hash: &Blake3) -> bool {
        self.contains(hash)
    }
}

/// All blobs but these.
#[derive(Debug)]
pub struct AllBut(pub HashSet<Blake3>);

impl Live for AllBut {
    fn has(&self, hash: &Blake3) -> bool {
        !self.0.contains(hash)
    }
}

/// What [`Exclusive::sweep`] freed, or would free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Blobs that nothing needed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the log does not speak of, left by interrupted imports or an earlier sweep.
    pub strays: u64,
    /// Bytes by which files and log shrank, or would shrink.
    pub freed_bytes: u64,
}

/// The store without anybody who adds to it: the time to mark what is needed, and to sweep the rest.
#[derive(Debug)]
pub struct Exclusive {
    store: Store,
    _alone: Alone,
}

/// What a segment's frames about one flat file add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// Where the newest digests stand; older ones say nothing any more.
    digests: Option<u64>,
    /// Where the last damage stands, if no digests follow it.
    damaged: Option<u64>,
    /// Files by which these frames raise the count: a start adds the kept frames up again.
    raise: i8,
}

/// What a sweep learns of the log before it changes anything.
#[derive(Debug, Default)]
struct Survey {
    /// Segments with dead frames.
    segments: Vec<u32>,
    /// Blobs in the log that nothing needs, and their bytes, each once.
    dead: HashMap<Blake3, u64>,
    /// Flat files that the log will still speak of.
    kept_flats: HashSet<Blake3>,
    /// Bytes of dead frames.
    frame_bytes: u64,
    evictions: Evictions,
}

/// Where the log last says of a file that it was evicted: segment and offset.
///
/// Frames about the file up to there add up to nothing, and say nothing any more.
type Evictions = HashMap<Blake3, (u32, u64)>;

impl Exclusive {
    pub(super) fn new(store: Store) -> Self {
        let alone = Leases::exclusive(&store.inner.leases);
        Self {
            store,
            _alone: alone,
        }
    }

    /// Removes every blob that is not in `live`; records always stay. With `dry_run` only says what it would do.
    ///
    /// Changes nothing where the log is damaged.
    pub fn sweep(&self, live: &dyn Live, dry_run: bool) -> Result<SweepReport, StoreError> {
        let inner = &*self.store.inner;
        let _alone = inner.sweeping.write();
        let survey = self.survey(live)?;
        let mut report = SweepReport {
            blobs: survey.dead.len() as u64,
            bytes: survey.dead.values().sum(),
            strays: 0,
            freed_bytes: survey.frame_bytes,
        };
        if !dry_run && !survey.segments.is_empty() {
            // Only a segment that is complete can be written anew.
            if survey.segments.last() == Some(&inner.index.last_segment()) {
                inner.log.roll()?;
            }
            inner.index.views.suspend();
            let rewritten = self.rewrite(&survey, live);
            inner.index.views.resume();
            rewritten?;
        }
        self.remove_files(&survey, live, dry_run, &mut report)?;
        Ok(report)
    }

    fn survey(&self, live: &dyn Live) -> Result<Survey, StoreError> {
        let index = &self.store.inner.index;
        let mut survey = Survey {
            evictions: self.evictions()?,
            ..Survey::default()
        };
        for segment in 1..=index.last_segment() {
            let standings = self.standings(segment, &survey.evictions)?;
            let before = survey.frame_bytes;
            let rotten = self.each(segment, &mut |frame, said| {
                if is_evicted(&survey.evictions, segment, frame, said) {
                    survey.frame_bytes += u64::from(frame.len());
                    return Ok(());
                }
                if keeps(live, &standings, frame, said) {
                    if let Said::Digests(facts) = said
                        && facts.flat.is_some()
                    {
                        survey.kept_flats.insert(facts.digests.blake3);
                    }
                    return Ok(());
                }
                match said {
                    Said::Mark => return Ok(()),
                    Said::Blob { hash, bytes } if !live.has(hash) => {
                        survey.dead.insert(*hash, bytes.len() as u64);
                    }
                    Said::Digests(facts)
                        if facts.flat.is_some()
                            && !live.has(&facts.digests.blake3)
                            && !index.is_damaged(&facts.digests.blake3) =>
                    {
                        survey.dead.insert(facts.digests.blake3, facts.digests.size);
                    }
                    _ => {}
                }
                survey.frame_bytes += u64::from(frame.len());
                Ok(())
            })?;
            survey.frame_bytes += rotten;
            if survey.frame_bytes > before {
                survey.segments.push(segment);
            }
        }
        Ok(survey)
    }

    fn rewrite(&self, survey: &Survey, live: &dyn Live) -> Result<(), StoreError> {
        let index = &self.store.inner.index;
        let evictions = &survey.evictions;
        let mut counted = HashSet::new();
        for segment in &survey.segments {
            let standings = self.standings(*segment, evictions)?;
            if evictions.values().any(|(evicted, _)| evicted == segment) {
                // What they took back must be gone for good before they are.
                index.folder.sync_names()?;
            }
            let mut keys = Vec::new();
            let mut freed = Freed::default();
            let mut old_len = SEGMENT_HEADER_BYTES as u64;
            let (_, len) = index.folder.write_segment(*segment, &mut |new| {
                self.each(*segment, &mut |frame, said| {
                    old_len = frame.end();
                    if is_evicted(evictions, *segment, frame, said) {
                        freed.evictions += u64::from(matches!(said, Said::Evicted { .. }));
                        return Ok(());
                    }
                    if keeps(live, &standings, frame, said) {
                        keys.extend(Key::of(said));
                        if let Said::Digests(facts) = said {
                            let facts = recounted(*facts, &standings);
                            return new.add(frame.kind, &[&facts.encode()]);
                        }
                        return new.add(frame.kind, &[frame.payload]);
                    }
                    note_freed(said, live, &mut counted, &mut freed, &|hash| {
                        index.is_damaged(hash)
                    });
                    Ok(())
                })?;
                Ok(())
            })?;
            freed.log_bytes = old_len.saturating_sub(len);
            index.swapped(*segment, &keys, &freed);
        }
        index.folder.sync_names()
    }

    fn evictions(&self) -> Result<Evictions, StoreError> {
        let index = &self.store.inner.index;
        let mut evictions = Evictions::new();
        if index.has_evictions() {
            for segment in 1..=index.last_segment() {
                self.each(segment, &mut |frame, said| {
                    if let Said::Evicted { hash, .. } = said {
                        evictions.insert(*hash, (segment, frame.offset));
                    }
                    Ok(())
                })?;
            }
        }
        Ok(evictions)
    }

    fn standings(
        &self,
        segment: u32,
        evictions: &Evictions,
    ) -> Result<HashMap<Blake3, Standing>, StoreError> {
        let mut standings: HashMap<Blake3, Standing> = HashMap::new();
        self.each(segment, &mut |frame, said| {
            if is_evicted(evictions, segment, frame, said) {
                return Ok(());
            }
            match said {
                Said::Digests(facts) => {
                    let standing = standings.entry(facts.digests.blake3).or_default();
                    (standing.digests, standing.damaged) = (Some(frame.offset), None);
                    standing.raise += i8::from(facts.flat.is_some() && !facts.renewed);
                }
                Said::Damaged { hash, .. } => {
                    let standing = standings.entry(*hash).or_default();
                    standing.damaged = Some(frame.offset);
                    standing.raise -= 1;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(standings)
    }

    /// Reads a segment; returns the bytes of rotten blobs, which nothing can be had of any more.
    fn each(
        &self,
        segment: u32,
        on_frame: &mut dyn FnMut(&Frame<'_>, &Said<'_>) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let mut rotten = 0;
        self.store
            .inner
            .index
            .each_frame(segment, &mut |read| match read {
                Read::Frame(frame) => {
                    let said = Said::read(frame.kind, frame.payload)
                        .expect("invariant: the start refuses frames that are not known");
                    on_frame(&frame, &said)
                }
                Read::Bad(BadFrame {
                    rest: Some((BLOB, payload)),
                    ..
                }) => {
                    rotten += (FRAME_HEADER_BYTES + payload.len()) as u64;
                    Ok(())
                }
                Read::Bad(bad) => Err(bad.error),
            })?;
        Ok(rotten)
    }

    fn remove_files(
        &self,
        survey: &Survey,
        live: &dyn Live,
        dry_run: bool,
        report: &mut SweepReport,
    ) -> Result<(), StoreError> {
        let inner = &*self.store.inner;
        let flats = &inner.flats;
        let blobs = flats.dir().join("blobs");
        let files = flats.files();
        for folder in files.list(&blobs)? {
            let folder = blobs.join(folder);
            for name in files.list(&folder)? {
                let Ok(hash) = name.strip_suffix(".pieces").unwrap_or(&name).parse() else {
                    continue;
                };
                if survey.kept_flats.contains(&hash) && !inner.index.is_damaged(&hash) {
                    continue;
                }
                if !survey.dead.contains_key(&hash) {
                    report.strays += 1;
                }
                flats.forget(&hash);
                let path = folder.join(name);
                report.freed_bytes += if inner.index.is_damaged(&hash) {
                    self.remove_damaged(&path, dry_run)?
                } else {
                    self.remove(&path, dry_run)?
                };
            }
        }
        let damaged = flats.dir().join("damaged");
        for name in files.list(&damaged)? {
            let Ok(hash) = name.parse() else { continue };
            if !live.has(&hash) || !inner.index.is_damaged(&hash) {
                report.strays += 1;
                let path = damaged.join(name);
                report.freed_bytes += self.remove_damaged(&path, dry_run)?;
            }
        }
        Ok(())
    }

    /// Empties the file before: whoever still sends it must not take it for one that was removed as it was.
    fn remove_damaged(&self, path: &Path, dry_run: bool) -> Result<u64, StoreError> {
        let files = self.store.inner.flats.files();
        let size = files.stat_path(path)?.map_or(0, |stat| stat.size);
        if !dry_run {
            files.truncate(&files.open_write(path)?, 0)?;
            files.remove(path)?;
        }
        Ok(size)
    }

    fn remove(&self, path: &Path, dry_run: bool) -> Result<u64, StoreError> {
        let files = self.store.inner.flats.files();
        let size = files.stat_path(path)?.map_or(0, |stat| stat.size);
        if !dry_run {
            files.remove(path)?;
        }
        Ok(size)
    }
}

/// Whether a frame is still needed.
fn keeps(
    live: &dyn Live,
    standings: &HashMap<Blake3, Standing>,
    frame: &Frame<'_>,
    said: &Said<'_>,
) -> bool {
    let standing = |hash: &Blake3| standings.get(hash).copied().unwrap_or_default();
    match said {
        Said::Record { .. } => true,
        Said::Blob { hash, .. } | Said::Link { blob: hash, .. } => live.has(hash),
        Said::Damaged { hash, size } => {
            let small = *size < cairn_protocol::limits::FLAT_BYTES_MIN;
            live.has(hash) && (small || standing(hash).damaged == Some(frame.offset))
        }
        Said::Digests(facts) => {
            let hash = &facts.digests.blake3;
            live.has(hash) && standing(hash).digests == Some(frame.offset)
        }
        // Those that count are told apart before.
        Said::Evicted { .. } | Said::Mark => false,
    }
}

/// Whether the file that a frame is about was evicted after it, or by it.
fn is_evicted(evictions: &Evictions, segment: u32, frame: &Frame<'_>, said: &Said<'_>) -> bool {
    let hash = match said {
        Said::Digests(facts) if facts.flat.is_some() => &facts.digests.blake3,
        Said::Damaged { hash, .. } | Said::Evicted { hash, .. } => hash,
        _ => return false,
    };
    evictions
        .get(hash)
        .is_some_and(|evicted| (segment, frame.offset) <= *evicted)
}

/// Digests that, with the damage kept after them, raise the count as all frames of their segment did.
fn recounted(facts: Facts, standings: &HashMap<Blake3, Standing>) -> Facts {
    let standing = standings
        .get(&facts.digests.blake3)
        .copied()
        .unwrap_or_default();
    let raise = standing.raise + i8::from(standing.damaged.is_some());
    Facts {
        renewed: facts.flat.is_some() && raise <= 0,
        ..facts
    }
}

fn note_freed(
    said: &Said<'_>,
    live: &dyn Live,
    counted: &mut HashSet<Blake3>,
    freed: &mut Freed,
    is_damaged: &dyn Fn(&Blake3) -> bool,
) {
    let (hash, bytes, flat_bytes) = match said {
        Said::Blob { hash, bytes } => (*hash, bytes.len() as u64, 0),
        Said::Digests(facts) if facts.flat.is_some() => {
            (facts.digests.blake3, facts.digests.size, facts.digests.size)
        }
        Said::Damaged { hash, .. } if !live.has(hash) => {
            freed.forgotten.push(*hash);
            return;
        }
        _ => return,
    };
    if live.has(&hash) || is_damaged(&hash) || !counted.insert(hash) {
        return;
    }
    freed.blobs += 1;
    freed.bytes += bytes;
    freed.flat_bytes += flat_bytes;
}
