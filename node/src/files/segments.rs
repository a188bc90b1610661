//! Numbered segments of frames in a folder, written at the end of the last one only.
//!
//! Shared by the store's log and the journal. A new segment is written aside, synced and renamed into its
//! place, so that a segment is there whole or not at all; a group of frames is one write and one sync.
//! After a failed write the file is cut back to its last good frame before anything else is written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frames::{Bad, Binding, Frame, Frames, MARK, Stop};
use super::{Files, OpenFile, sync_dir_or_end, sync_or_end};
use crate::store::StoreError;

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    /// Number of the segment.
    pub(crate) segment: u32,
    /// Offset of the frame's header.
    pub(crate) offset: u64,
    /// Bytes of the frame, header and payload.
    pub(crate) len: u32,
}

/// A frame to be written.
#[derive(Debug, Clone)]
pub(crate) struct NewFrame {
    /// What it holds.
    pub(crate) kind: u8,
    /// First part of the payload.
    pub(crate) head: Vec<u8>,
    /// The rest of the payload.
    pub(crate) body: bytes::Bytes,
}

impl NewFrame {
    /// Bytes that it takes in a segment.
    pub(crate) fn len(&self) -> usize {
        super::frames::FRAME_HEADER_BYTES + self.head.len() + self.body.len()
    }
}

/// A folder of segments and the format that they have.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) dir: PathBuf,
    pub(crate) magic: [u8; 8],
    /// Kind of frames that may rot one by one: a bad one is passed over, since what it held is named by its
    /// hash and missed by whoever asks for it. A bad frame of any other kind is an error.
    pub(crate) may_rot: Option<u8>,
}

impl Folder {
    /// Passes over a bad frame that is no reason to stop.
    fn passes(
        &self,
        frames: &mut Frames<'_>,
        file: &OpenFile,
        bad: Bad,
    ) -> Result<bool, StoreError> {
        let offset = frames.offset();
        let passed = match self.may_rot {
            Some(kind) if bad == Bad::Checksum => frames.step_over_kind(kind)?,
            _ => false,
        };
        if passed {
            tracing::error!(path = %file.path().display(), offset, "damaged content passed over: run `cairn verify`");
        }
        Ok(passed)
    }

    /// Where a segment stands.
    pub(crate) fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{segment:08}.seg"))
    }

    /// What a segment's checksums are bound to.
    pub(crate) fn binding(&self, segment: u32) -> Binding {
        Binding {
            magic: self.magic,
            segment,
        }
    }

    /// Reads the frames of a segment that is complete, and says how many bytes it has.
    pub(crate) fn read(
        &self,
        segment: u32,
        on_frame: &mut dyn FnMut(Frame<'_>) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let file = self.files.open_read(&self.path(segment))?;
        let len = self.files.stat(&file)?.size;
        let mut frames = Frames::new(&*self.files, &file, self.binding(segment), len);
        if !frames.header_is_good()? {
            return Err(bad_header(&file));
        }
        loop {
            match frames.next() {
                Ok(Some(frame)) => on_frame(frame)?,
                Ok(None) => return Ok(len),
                Err(Stop::File(error)) => return Err(error.into()),
                Err(Stop::Bad(bad)) => {
                    if !self.passes(&mut frames, &file, bad)? {
                        return Err(corrupt(&file, frames.offset(), bad));
                    }
                }
            }
        }
    }

    /// Writes a whole segment aside, with the frames that `fill` adds, and puts it in its place.
    ///
    /// All of it is durable then but its name, which is after [`Self::sync_names`].
    pub(crate) fn write_segment(
        &self,
        segment: u32,
        fill: &mut dyn FnMut(&mut NewSegment<'_>) -> Result<(), StoreError>,
    ) -> Result<(OpenFile, u64), StoreError> {
        let path = self.path(segment);
        let aside = path.with_extension("seg.new");
        let written = self.write_aside(segment, &aside, fill).and_then(|written| {
            self.files.rename(&aside, &path)?;
            Ok(written)
        });
        match written {
            Ok((written, len)) => Ok((written.renamed(&path), len)),
            Err(error) => {
                self.discard(&aside);
                Err(error)
            }
        }
    }

    fn write_aside(
        &self,
        segment: u32,
        aside: &Path,
        fill: &mut dyn FnMut(&mut NewSegment<'_>) -> Result<(), StoreError>,
    ) -> Result<(OpenFile, u64), StoreError> {
        if self.files.stat_path(aside)?.is_some() {
            self.files.remove(aside)?;
        }
        let binding = self.binding(segment);
        let mut new = NewSegment {
            files: &*self.files,
            file: self.files.create(aside)?,
            binding,
            buffer: binding.header().to_vec(),
            written: 0,
        };
        fill(&mut new)?;
        new.flush()?;
        sync_or_end(&*self.files, &new.file)?;
        Ok((new.file, new.written))
    }

    /// Begins a segment with these frames; durable, with its name, on return.
    fn begin(&self, segment: u32, frames: &[NewFrame]) -> Result<(OpenFile, u64), StoreError> {
        let begun = self.write_segment(segment, &mut |new| {
            frames
                .iter()
                .try_for_each(|frame| new.add(frame.kind, &[&frame.head, &frame.body]))
        })?;
        self.sync_names()?;
        Ok(begun)
    }

    /// Makes the names of the segments durable.
    pub(crate) fn sync_names(&self) -> Result<(), StoreError> {
        Ok(sync_dir_or_end(&*self.files, &self.dir)?)
    }

    /// Removes what was written aside in vain; what cannot be removed now goes at the next start.
    fn discard(&self, aside: &Path) {
        if let Err(error) = self.files.remove(aside)
            && !error.is_absent()
        {
            tracing::warn!(path = %aside.display(), source = %error.source, "could not be removed");
        }
    }

    /// Numbers of the segments, in order; removes what an interrupted roll left aside.
    fn segments(&self) -> Result<Vec<u32>, StoreError> {
        let mut numbers: Vec<u32> = Vec::new();
        for name in self.files.list(&self.dir)? {
            if name.ends_with(".seg.new") {
                self.files.remove(&self.dir.join(name))?;
            } else if let Some(number) = name.strip_suffix(".seg").and_then(|n| n.parse().ok())
                && self.path(number).ends_with(&name)
            {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        for (number, expected) in numbers.iter().zip(1..) {
            if *number != expected {
                return Err(StoreError::Corrupt {
                    path: self.path(expected),
                    offset: 0,
                    reason: "this segment is missing, but later ones are there".to_owned(),
                });
            }
        }
        Ok(numbers)
    }
}

/// A segment that is being written aside.
#[derive(Debug)]
pub(crate) struct NewSegment<'a> {
    files: &'a dyn Files,
    file: OpenFile,
    binding: Binding,
    buffer: Vec<u8>,
    /// Bytes of the file so far, without the buffer.
    written: u64,
}

impl NewSegment<'_> {
    /// Adds a frame.
    pub(crate) fn add(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), StoreError> {
        const BUFFER_BYTES: usize = 1 << 20;
        let offset = self.written + self.buffer.len() as u64;
        self.binding.encode(&mut self.buffer, offset, kind, parts);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if !self.buffer.is_empty() {
            self.files
                .write_all_at(&self.file, &self.buffer, self.written)?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// The last segment, to which groups of frames are added.
#[derive(Debug)]
pub(crate) struct Appender {
    folder: Folder,
    file: OpenFile,
    segment: u32,
    /// Bytes up to the end of the last good frame.
    len: u64,
    /// A failed write may have left bytes behind `len`.
    tail_is_dirty: bool,
    /// The last frame is a mark, so that everything before it is known to be synced.
    sealed: bool,
    /// A sync failed: nothing more is written.
    stopped: bool,
}

impl Appender {
    /// Opens the folder, handing out every frame of every segment in the order of writing.
    ///
    /// Makes the folder and its first segment, with the `first` frames, where there is none. An incomplete last frame is cut off;
    /// [`StoreError::Corrupt`] at any other bad one. Everything handed out is durable on return. Also says
    /// how many bytes the segments before the last one have.
    pub(crate) fn open(
        folder: Folder,
        first: &[NewFrame],
        on_frame: &mut dyn FnMut(u32, Frame<'_>) -> Result<(), StoreError>,
    ) -> Result<(Self, u64), StoreError> {
        let files = &*folder.files;
        if files.stat_path(&folder.dir)?.is_none() {
            files.create_dir(&folder.dir)?;
        }
        // Also where it is there already: an earlier start may have ended between the two.
        if let Some(parent) = folder.dir.parent() {
            sync_dir_or_end(files, parent)?;
        }
        let segments = folder.segments()?;
        let Some((last, earlier)) = segments.split_last() else {
            let (file, len) = folder.begin(1, first)?;
            folder.read(1, &mut |frame| on_frame(1, frame))?;
            return Ok((Self::at(folder, file, 1, len), 0));
        };
        let mut earlier_bytes = 0;
        for segment in earlier {
            earlier_bytes += folder.read(*segment, &mut |frame| on_frame(*segment, frame))?;
        }
        let appender = Self::reopen(folder.clone(), *last, on_frame)?;
        folder.sync_names()?;
        Ok((appender, earlier_bytes))
    }

    fn reopen(
        folder: Folder,
        segment: u32,
        on_frame: &mut dyn FnMut(u32, Frame<'_>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let files = Arc::clone(&folder.files);
        let file = files.open_write(&folder.path(segment))?;
        let len = files.stat(&file)?.size;
        let mut frames = Frames::new(&*files, &file, folder.binding(segment), len);
        if !frames.header_is_good()? {
            return Err(bad_header(&file));
        }
        let mut sealed = false;
        let bad = loop {
            match frames.next() {
                Ok(Some(frame)) => {
                    sealed = frame.kind == MARK;
                    on_frame(segment, frame)?;
                }
                Ok(None) => break None,
                Err(Stop::File(error)) => return Err(error.into()),
                Err(Stop::Bad(bad)) => {
                    if frames.is_torn(bad)? || !folder.passes(&mut frames, &file, bad)? {
                        break Some(bad);
                    }
                }
            }
        };
        let good = frames.offset();
        if let Some(bad) = bad {
            if !frames.is_torn(bad)? {
                return Err(corrupt(&file, good, bad));
            }
            tracing::warn!(
                path = %file.path().display(),
                from = good,
                to = len,
                "cut off an incomplete last write"
            );
            files.truncate(&file, good)?;
        }
        // A process that was killed may have left whole frames that no sync had reached yet.
        sync_or_end(&*files, &file)?;
        Ok(Self {
            sealed,
            ..Self::at(folder, file, segment, good)
        })
    }

    fn at(folder: Folder, file: OpenFile, segment: u32, len: u64) -> Self {
        let (tail_is_dirty, sealed, stopped) = (false, false, false);
        Self {
            folder,
            file,
            segment,
            len,
            tail_is_dirty,
            sealed,
            stopped,
        }
    }

    /// Number of the segment that is written to.
    pub(crate) fn segment(&self) -> u32 {
        self.segment
    }

    /// Bytes of the segment that is written to.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether frames were added since the last mark.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Adds a mark and these frames with one write and one sync.
    ///
    /// After an error none of them counts: the file is cut back, at once or before the next write.
    pub(crate) fn append(&mut self, frames: &[NewFrame]) -> Result<Vec<Location>, StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped);
        }
        self.clean_tail()?;
        let binding = self.folder.binding(self.segment);
        let mut buffer = Vec::new();
        binding.encode(&mut buffer, self.len, MARK, &[]);
        let mut locations = Vec::with_capacity(frames.len());
        for frame in frames {
            let offset = self.len + buffer.len() as u64;
            let len = binding.encode(&mut buffer, offset, frame.kind, &[&frame.head, &frame.body]);
            locations.push(Location {
                segment: self.segment,
                offset,
                len,
            });
        }
        let files = Arc::clone(&self.folder.files);
        if let Err(error) = files.write_all_at(&self.file, &buffer, self.len) {
            self.tail_is_dirty = true;
            if let Err(error) = self.clean_tail() {
                tracing::warn!(%error, "the log's tail is cut back before the next write");
            }
            return Err(error.into());
        }
        self.sync()?;
        self.len += buffer.len() as u64;
        self.sealed = frames.is_empty();
        Ok(locations)
    }

    /// Begins the next segment with these frames.
    pub(crate) fn roll(&mut self, frames: &[NewFrame]) -> Result<(), StoreError> {
        if self.stopped {
            return Err(StoreError::Stopped);
        }
        self.clean_tail()?;
        let segment = self.segment + 1;
        match self.folder.begin(segment, frames) {
            Ok((file, len)) => {
                *self = Self::at(self.folder.clone(), file, segment, len);
                Ok(())
            }
            Err(error) => {
                // Where its name may be there, only a restart can tell what is durable.
                let stat = self.folder.files.stat_path(&self.folder.path(segment));
                self.stopped = !matches!(stat, Ok(None));
                Err(error)
            }
        }
    }

    fn clean_tail(&mut self) -> Result<(), StoreError> {
        if self.tail_is_dirty {
            self.folder.files.truncate(&self.file, self.len)?;
            // Otherwise a later, shorter write and a power cut could leave a mixture of both.
            self.sync()?;
            self.tail_is_dirty = false;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        sync_or_end(&*self.folder.files, &self.file).map_err(|error| {
            self.stopped = true;
            error.into()
        })
    }
}

fn bad_header(file: &OpenFile) -> StoreError {
    StoreError::Corrupt {
        path: file.path().to_owned(),
        offset: 0,
        reason: "the segment's header is not one that was written".to_owned(),
    }
}

/// A bad frame in words.
pub(crate) fn corrupt(file: &OpenFile, offset: u64, bad: Bad) -> StoreError {
    StoreError::Corrupt {
        path: file.path().to_owned(),
        offset,
        reason: bad.to_string(),
    }
}
