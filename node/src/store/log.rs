//! The segment log's one writer: groups what waits, writes it once, syncs it once, and tells the index.

use std::collections::HashSet;

use cairn_protocol::hash::Blake3;

use super::facts::{BLOB, DIGESTS, Said};
use super::index::SharedIndex;
use super::key::Key;
use super::{StoreError, StoreOptions};
use crate::files::group::GroupCommit;
use crate::files::segments::{Appender, NewFrame};

/// Bytes written and synced at a time; what waits beyond them is another group.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// What the writer is asked to do.
#[derive(Debug)]
enum Work {
    Append(Vec<NewFrame>),
    Roll,
}

/// The log, to be written to.
#[derive(Debug)]
pub(super) struct Log {
    group: GroupCommit<Work>,
}

impl Log {
    /// Starts the writer.
    pub(super) fn spawn(
        appender: Appender,
        index: SharedIndex,
        options: &StoreOptions,
    ) -> std::io::Result<Self> {
        let mut writer = Writer {
            appender,
            index,
            segment_bytes: options.segment_bytes,
            reserve_bytes: options.reserve_bytes,
        };
        let group = GroupCommit::spawn("log writer", move |work| writer.commit(work))?;
        Ok(Self { group })
    }

    /// Adds frames in their order; durable, and found by the next look, on return.
    ///
    /// A small blob that is stored already is left out.
    pub(super) fn append(&self, frames: Vec<NewFrame>) -> Result<(), StoreError> {
        if frames.is_empty() {
            return Ok(());
        }
        self.group.commit(Work::Append(frames))
    }

    /// Begins the next segment, so that all frames so far stand in segments that are complete.
    pub(super) fn roll(&self) -> Result<(), StoreError> {
        self.group.commit(Work::Roll)
    }
}

#[derive(Debug)]
struct Writer {
    appender: Appender,
    index: SharedIndex,
    segment_bytes: u64,
    reserve_bytes: u64,
}

/// Frames that go to the disk together, and whose they are.
#[derive(Debug, Default)]
struct Group {
    frames: Vec<NewFrame>,
    /// Which request each frame belongs to.
    owners: Vec<usize>,
    /// Requests that count on this group, also by a blob of it that another request brought.
    waiting: HashSet<usize>,
    /// Those of them that count on content.
    content: HashSet<usize>,
    blobs: HashSet<Blake3>,
    bytes: usize,
}

impl Writer {
    fn commit(&mut self, work: Vec<Work>) -> Vec<Result<(), StoreError>> {
        let mut results: Vec<Result<(), StoreError>> = work.iter().map(|_| Ok(())).collect();
        let mut group = Group::default();
        for (owner, work) in work.into_iter().enumerate() {
            match work {
                Work::Append(frames) => {
                    for frame in frames {
                        self.take(&mut group, owner, frame);
                        if group.bytes >= GROUP_BYTES_MAX {
                            self.flush(std::mem::take(&mut group), &mut results);
                        }
                    }
                }
                Work::Roll => {
                    self.flush(std::mem::take(&mut group), &mut results);
                    results[owner] = self.roll();
                }
            }
        }
        self.flush(group, &mut results);
        results
    }

    fn take(&self, group: &mut Group, owner: usize, frame: NewFrame) {
        if frame.kind == BLOB {
            let hash = blob_hash(&frame);
            if group.blobs.contains(&hash) {
                group.waiting.insert(owner);
                group.content.insert(owner);
                return;
            }
            // What cannot be read is not stored.
            if !self.index.is_damaged(&hash)
                && matches!(self.index.find(&Key::blob(&hash)), Ok(Some(_)))
            {
                return;
            }
            group.blobs.insert(hash);
        }
        if matches!(frame.kind, BLOB | DIGESTS) {
            group.content.insert(owner);
        }
        group.bytes += frame.len();
        group.waiting.insert(owner);
        group.frames.push(frame);
        group.owners.push(owner);
    }

    fn flush(&mut self, mut group: Group, results: &mut [Result<(), StoreError>]) {
        if !group.content.is_empty()
            && let Err(error) = self.leave_reserve(group.bytes)
        {
            for owner in &group.content {
                results[*owner] = Err(error.again());
                group.waiting.remove(owner);
            }
            let mut owners = group.owners.iter();
            group.frames.retain(|_| {
                let owner = owners.next().expect("invariant: one for each frame");
                !group.content.contains(owner)
            });
        }
        if group.frames.is_empty() {
            return;
        }
        if let Err(error) = self.write(&group.frames) {
            for owner in group.waiting {
                results[owner] = Err(error.again());
            }
        }
    }

    /// Whether content of so many bytes leaves enough of the device free for records.
    fn leave_reserve(&self, bytes: usize) -> Result<(), StoreError> {
        let folder = &self.index.folder;
        let free = folder.files.free_bytes(&folder.dir)?;
        if free < self.reserve_bytes + bytes as u64 {
            return Err(StoreError::Full {
                path: folder.dir.clone(),
            });
        }
        Ok(())
    }

    fn write(&mut self, frames: &[NewFrame]) -> Result<(), StoreError> {
        if self.appender.len() >= self.segment_bytes {
            self.roll()?;
        }
        let locations = self.appender.append(frames)?;
        self.index.written(frames, &locations, self.appender.len());
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        self.appender.roll(&[])?;
        self.index
            .rolled(self.appender.segment(), self.appender.len());
        Ok(())
    }
}

impl Drop for Writer {
    /// Leaves a mark at the end, so that whatever is bad before it at the next start is known to be damage.
    fn drop(&mut self) {
        if !self.appender.is_sealed()
            && let Err(error) = self.appender.append(&[])
        {
            tracing::warn!(%error, "the log was not closed in order");
        }
    }
}

fn blob_hash(frame: &NewFrame) -> Blake3 {
    match Said::read(frame.kind, &frame.head) {
        Some(Said::Blob { hash, .. }) => hash,
        _ => unreachable!("only asked of blobs"),
    }
}
