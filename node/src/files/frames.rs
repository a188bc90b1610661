//! Frames: how log and journal tell a whole write from a torn, misplaced or rotten one.
//!
//! A segment is a header and then frames, each with a checksum that is bound to the kind of segment, its
//! number and the frame's offset, so that a write that went elsewhere is no frame there. A *mark* frame
//! begins each group that one sync makes durable: everything before a mark was synced before the mark was
//! written. So a bad frame with a mark after it is damage, never an interrupted write.

use std::ops::Range;

use super::{FileError, Files, OpenFile};

/// Bytes of a segment's header: magic, number, checksum.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 24;
/// Bytes of a frame's header: payload length, kind, three zeros, checksum.
pub(crate) const FRAME_HEADER_BYTES: usize = 16;
/// Bytes of one frame's payload; a longer one is refused before it is written, and bad where it is read.
pub(crate) const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Kind of a mark.
pub(crate) const MARK: u8 = 1;

/// Bytes that a device writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// What every checksum of a segment is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Names the format: log or journal, and its version.
    pub(crate) magic: [u8; 8],
    /// Number of the segment.
    pub(crate) segment: u32,
}

impl Binding {
    /// The segment's first bytes.
    pub(crate) fn header(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        header[..8].copy_from_slice(&self.magic);
        header[8..16].copy_from_slice(&u64::from(self.segment).to_le_bytes());
        let checksum = first_eight(&blake3::hash(&header[..16]));
        header[16..].copy_from_slice(&checksum);
        header
    }

    /// Appends a frame that will stand at `offset`, and says how many bytes it takes.
    pub(crate) fn encode(self, out: &mut Vec<u8>, offset: u64, kind: u8, parts: &[&[u8]]) -> u32 {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        assert!(
            len <= FRAME_PAYLOAD_BYTES_MAX,
            "payloads are bounded before they get here"
        );
        let mut header = [0; FRAME_HEADER_BYTES];
        let len = u32::try_from(len).expect("invariant: bounded above");
        header[..4].copy_from_slice(&len.to_le_bytes());
        header[4] = kind;
        let checksum = self.checksum(offset, &header, parts);
        header[8..].copy_from_slice(&checksum);
        out.extend_from_slice(&header);
        for part in parts {
            out.extend_from_slice(part);
        }
        len + u32::try_from(FRAME_HEADER_BYTES).expect("invariant: 16")
    }

    /// The frame that these bytes, which stand at `offset`, begin with.
    pub(crate) fn decode(self, bytes: &[u8], offset: u64) -> Result<Frame<'_>, Bad> {
        let header: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk().ok_or(Bad::Short)?;
        let len = header_len(header)?;
        let payload = bytes[FRAME_HEADER_BYTES..].get(..len).ok_or(Bad::Short)?;
        if self.checksum(offset, header, &[payload]) != header[8..] {
            return Err(Bad::Checksum);
        }
        Ok(Frame {
            offset,
            kind: header[4],
            payload,
        })
    }

    fn checksum(self, offset: u64, header: &[u8; 16], parts: &[&[u8]]) -> [u8; 8] {
        let mut bound = [0; 32];
        bound[..8].copy_from_slice(&self.magic);
        bound[8..16].copy_from_slice(&u64::from(self.segment).to_le_bytes());
        bound[16..24].copy_from_slice(&offset.to_le_bytes());
        bound[24..].copy_from_slice(&header[..8]);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bound);
        for part in parts {
            hasher.update(part);
        }
        first_eight(&hasher.finalize())
    }
}

/// A frame that was found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Where it begins in its segment.
    pub(crate) offset: u64,
    /// What it holds.
    pub(crate) kind: u8,
    /// What it says.
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the whole frame.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(FRAME_HEADER_BYTES + self.payload.len()).expect("invariant: at most 1 MiB")
    }

    /// Where the next frame begins.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len())
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    /// The bytes end before the frame does.
    #[error("the file ends inside a frame")]
    Short,
    /// A header that no frame has.
    #[error("a frame's header is not one that was written")]
    Header,
    /// The checksum does not fit.
    #[error("a frame's checksum does not match")]
    Checksum,
}

/// Reads a segment's frames one after the other.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    files: &'a dyn Files,
    file: &'a OpenFile,
    binding: Binding,
    /// Bytes of the file that are looked at.
    len: u64,
    /// Where the next frame begins.
    offset: u64,
    window: Vec<u8>,
    /// Offset of the window's first byte.
    window_offset: u64,
}

/// Why a segment could not be read on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The system refused to read.
    File(FileError),
    /// The bytes at [`Frames::offset`] are no frame.
    Bad(Bad),
}

impl From<FileError> for Stop {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl<'a> Frames<'a> {
    /// Begins behind the header of a file, of which the first `len` bytes count.
    pub(crate) fn new(
        files: &'a dyn Files,
        file: &'a OpenFile,
        binding: Binding,
        len: u64,
    ) -> Self {
        Self {
            files,
            file,
            binding,
            len,
            offset: SEGMENT_HEADER_BYTES as u64,
            window: Vec::new(),
            window_offset: 0,
        }
    }

    /// Where the next frame begins, or the bad one does.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the file begins with the header of this very segment.
    pub(crate) fn header_is_good(&mut self) -> Result<bool, FileError> {
        let expected = self.binding.header();
        Ok(self.bytes(0, expected.len())? == expected)
    }

    /// The next frame, or nothing at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Stop> {
        if self.offset >= self.len {
            return Ok(None);
        }
        let offset = self.offset;
        let header = self.bytes(offset, FRAME_HEADER_BYTES)?;
        let header: &[u8; FRAME_HEADER_BYTES] =
            header.first_chunk().ok_or(Stop::Bad(Bad::Short))?;
        let len = FRAME_HEADER_BYTES + header_len(header).map_err(Stop::Bad)?;
        self.load(offset, len)?;
        let (binding, loaded) = (self.binding, self.loaded(offset, len));
        binding.decode(loaded, offset).map_err(Stop::Bad)?;
        self.offset = offset + len as u64;
        let bytes = self.loaded(offset, len);
        Ok(Some(Frame {
            offset,
            kind: bytes[4],
            payload: &bytes[FRAME_HEADER_BYTES..],
        }))
    }

    /// The first bytes of a bad frame's payload, for what they may still tell, and a step over it.
    ///
    /// Nothing where the header does not say how far to step, or nothing whole follows.
    pub(crate) fn step_over(&mut self) -> Result<Option<(u8, Vec<u8>)>, FileError> {
        let offset = self.offset;
        let header = self.bytes(offset, FRAME_HEADER_BYTES)?;
        let Some(header) = header.first_chunk::<FRAME_HEADER_BYTES>().copied() else {
            return Ok(None);
        };
        let Ok(len) = header_len(&header) else {
            return Ok(None);
        };
        let payload = self
            .bytes(offset + FRAME_HEADER_BYTES as u64, len)?
            .to_vec();
        self.offset = offset + (FRAME_HEADER_BYTES + len) as u64;
        match self.next() {
            Ok(_) => {
                self.offset = offset + (FRAME_HEADER_BYTES + len) as u64;
                Ok(Some((header[4], payload)))
            }
            Err(Stop::Bad(_)) => {
                self.offset = offset;
                Ok(None)
            }
            Err(Stop::File(error)) => Err(error),
        }
    }

    /// Steps over the bad frame at [`Self::offset`] if its header says that it is of this kind, and something
    /// whole follows it.
    pub(crate) fn step_over_kind(&mut self, kind: u8) -> Result<bool, FileError> {
        let offset = self.offset;
        let stepped = self.step_over()?.is_some_and(|(found, _)| found == kind);
        if !stepped {
            self.offset = offset;
        }
        Ok(stepped)
    }

    /// Whether the bad frame at [`Self::offset`] is what an interrupted write leaves at the end of a log.
    ///
    /// It is where nothing after it was synced later, and some of its bytes never arrived: the file ends
    /// inside it, or a sector under it was never written.
    pub(crate) fn is_torn(&mut self, bad: Bad) -> Result<bool, FileError> {
        if self.mark_follows()? {
            return Ok(false);
        }
        if bad == Bad::Short {
            return Ok(true);
        }
        let header = self.bytes(self.offset, FRAME_HEADER_BYTES)?;
        let Some(header) = header.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(true);
        };
        let end = match header_len(header) {
            Ok(len) => self.offset + (FRAME_HEADER_BYTES + len) as u64,
            Err(_) => self.len,
        };
        self.has_empty_sector(self.offset..end.min(self.len))
    }

    fn has_empty_sector(&mut self, range: Range<u64>) -> Result<bool, FileError> {
        let first = range.start / SECTOR_BYTES;
        let last = range.end.div_ceil(SECTOR_BYTES);
        for sector in first..last {
            let start = (sector * SECTOR_BYTES).max(range.start);
            let end = ((sector + 1) * SECTOR_BYTES).min(self.len);
            let len = usize::try_from(end - start).expect("invariant: at most a sector");
            if self.bytes(start, len)?.iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a mark stands anywhere behind the bad frame, at whatever offset.
    fn mark_follows(&mut self) -> Result<bool, FileError> {
        let mut mark_header = [0; 8];
        mark_header[4] = MARK;
        let mut offset = self.offset + 1;
        while offset + FRAME_HEADER_BYTES as u64 <= self.len {
            let binding = self.binding;
            let bytes = self.bytes(offset, FRAME_HEADER_BYTES)?;
            if bytes.starts_with(&mark_header) && binding.decode(bytes, offset).is_ok() {
                return Ok(true);
            }
            offset += 1;
        }
        Ok(false)
    }

    /// Up to `len` bytes at an offset, fewer only at the end of the file.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], FileError> {
        self.load(offset, len)?;
        Ok(self.loaded(offset, len))
    }

    fn loaded(&self, offset: u64, len: usize) -> &[u8] {
        let start = usize::try_from(offset - self.window_offset)
            .expect("invariant: `load` moved the window here")
            .min(self.window.len());
        let end = (start + len).min(self.window.len());
        &self.window[start..end]
    }

    fn load(&mut self, offset: u64, len: usize) -> Result<(), FileError> {
        let window_end = self.window_offset + self.window.len() as u64;
        let end = (offset + len as u64).min(self.len);
        if offset >= self.window_offset && end <= window_end {
            return Ok(());
        }
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.window.resize(rest.min(len.max(WINDOW_BYTES)), 0);
        let read = self.files.read_at(self.file, &mut self.window, offset)?;
        self.window.truncate(read);
        self.window_offset = offset;
        Ok(())
    }
}

fn header_len(header: &[u8; FRAME_HEADER_BYTES]) -> Result<usize, Bad> {
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let len = usize::try_from(len).map_err(|_| Bad::Header)?;
    if len > FRAME_PAYLOAD_BYTES_MAX || header[4] == 0 || header[5..8] != [0; 3] {
        return Err(Bad::Header);
    }
    Ok(len)
}

/// The part of a hash that serves as a checksum.
pub(crate) fn first_eight(hash: &blake3::Hash) -> [u8; 8] {
    *hash
        .as_bytes()
        .first_chunk()
        .expect("invariant: a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BINDING: Binding = Binding {
        magic: *b"cairntst",
        segment: 3,
    };

    proptest! {
        #[test]
        fn a_frame_reads_back_only_where_it_was_written(
            kind in 1_u8..=255,
            payload in prop::collection::vec(any::<u8>(), 0..2000),
            offset in 0_u64..1 << 40,
            moved in 1_u64..1 << 20,
            other_segment in any::<u32>(),
        ) {
            let mut bytes = Vec::new();
            let (first, second) = payload.split_at(payload.len() / 2);
            let len = BINDING.encode(&mut bytes, offset, kind, &[first, second]);
            prop_assert_eq!(len as usize, bytes.len());
            let frame = BINDING.decode(&bytes, offset).unwrap();
            prop_assert_eq!(frame, Frame { offset, kind, payload: &payload });
            prop_assert_eq!(BINDING.decode(&bytes, offset + moved), Err(Bad::Checksum));
            let other = Binding { segment: other_segment, ..BINDING };
            prop_assert_eq!(other.decode(&bytes, offset).is_ok(), other == BINDING);
            let journal = Binding { magic: *b"cairntsu", ..BINDING };
            prop_assert_eq!(journal.decode(&bytes, offset), Err(Bad::Checksum));
        }

        #[test]
        fn no_flipped_bit_and_no_shorter_frame_is_taken(
            payload in prop::collection::vec(any::<u8>(), 0..600),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut bytes = Vec::new();
            BINDING.encode(&mut bytes, 24, 7, &[&payload]);
            let at = at.index(bytes.len());
            prop_assert_eq!(BINDING.decode(&bytes[..at], 24), Err(Bad::Short));
            bytes[at] ^= 1 << bit;
            prop_assert!(BINDING.decode(&bytes, 24).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), offset in any::<u64>()) {
            let _unused = BINDING.decode(&bytes, offset).is_ok();
        }
    }
}
