//! LZ4 frames that hold one chunk, unpacked into memory whose size the chunk's header gave.
//!
//! Read here rather than by a stream decoder, since that one makes room for the block size that a frame
//! declares (up to 4 MiB) for each chunk of a few bytes.

use lz4_flex::block::{compress_into, decompress_into_with_dict, get_maximum_output_size};
use twox_hash::XxHash32;

use crate::limits::XET_CHUNK_BYTES_MAX;

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// Bytes before a block that it may repeat, where blocks are linked.
const WINDOW: usize = 64 << 10;
/// The bit of a block's length that says that it is stored as it is.
const STORED: u32 = 1 << 31;

const VERSION: u8 = 0b0100_0000;
const VERSION_MASK: u8 = 0b1100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUMS: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const RESERVED_OR_DICTIONARY: u8 = 0b0000_0011;

/// Unpacks a frame that holds exactly as many bytes as `out` has; otherwise says what is wrong with it.
pub(super) fn unpack(mut frame: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    let header = Header::read(&mut frame)?;
    let mut filled = 0;
    loop {
        let word = u32::from_le_bytes(array(&mut frame)?);
        if word == 0 {
            break;
        }
        filled += header.unpack_block(word, &mut frame, out, filled)?;
    }
    let out = &*out;
    if filled != out.len() || header.size.is_some_and(|size| size != filled as u64) {
        return Err("its LZ4 frame holds fewer bytes than declared");
    }
    if header.flags & CONTENT_CHECKSUM != 0 {
        check(out, &mut frame)?;
    }
    if frame.is_empty() {
        Ok(())
    } else {
        Err("bytes follow its LZ4 frame")
    }
}

/// A frame of one block that holds these bytes, which are no more than a chunk has.
pub(super) fn pack(bytes: &[u8]) -> Vec<u8> {
    assert!(
        bytes.len() <= XET_CHUNK_BYTES_MAX,
        "invariant: a chunk of {} bytes was checked against its limit",
        bytes.len()
    );
    // 64 KiB, or the next larger size that there is, 256 KiB.
    let block_size = if bytes.len() <= 64 << 10 { 4 } else { 5 };
    let descriptor = [VERSION | INDEPENDENT, block_size << 4];
    let mut block = vec![0; get_maximum_output_size(bytes.len())];
    let (word, block) = match compress_into(bytes, &mut block) {
        Ok(count) if count < bytes.len() => (0, &block[..count]),
        _ => (STORED, bytes),
    };
    let length = u32::try_from(block.len()).expect("invariant: a chunk's size is bounded");
    let mut out = Vec::with_capacity(MAGIC.len() + 3 + 4 + block.len() + 4);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&descriptor);
    out.push(header_checksum(&descriptor));
    out.extend_from_slice(&(word | length).to_le_bytes());
    out.extend_from_slice(block);
    out.extend_from_slice(&[0; 4]);
    out
}

/// What stands before the blocks.
struct Header {
    flags: u8,
    block_bytes_max: usize,
    size: Option<u64>,
}

impl Header {
    fn read(frame: &mut &[u8]) -> Result<Self, &'static str> {
        if array(frame)? != MAGIC {
            return Err("it is no LZ4 frame");
        }
        let descriptor = *frame;
        let [flags, block_size] = array(frame)?;
        if flags & VERSION_MASK != VERSION || flags & RESERVED_OR_DICTIONARY != 0 {
            return Err("its LZ4 frame has another version, or needs a dictionary");
        }
        let block_bytes_max = match block_size {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err("its LZ4 frame has a block size that there is not"),
        };
        let size = match flags & CONTENT_SIZE {
            0 => None,
            _ => Some(u64::from_le_bytes(array(frame)?)),
        };
        let descriptor = &descriptor[..descriptor.len() - frame.len()];
        if array(frame)? != [header_checksum(descriptor)] {
            return Err("the header of its LZ4 frame has another checksum");
        }
        Ok(Self {
            flags,
            block_bytes_max,
            size,
        })
    }

    /// Unpacks one block behind what is filled already; how many bytes it held.
    fn unpack_block(
        &self,
        word: u32,
        frame: &mut &[u8],
        out: &mut [u8],
        filled: usize,
    ) -> Result<usize, &'static str> {
        let length = (word & !STORED) as usize;
        if length > self.block_bytes_max {
            return Err("an LZ4 block is larger than its frame's header says");
        }
        let block = frame
            .split_off(..length)
            .ok_or("its LZ4 frame ends early")?;
        if self.flags & BLOCK_CHECKSUMS != 0 {
            check(block, frame)?;
        }
        let (before, rest) = out.split_at_mut(filled);
        let room = rest.len().min(self.block_bytes_max);
        let rest = &mut rest[..room];
        if word & STORED != 0 {
            let rest = rest
                .get_mut(..length)
                .ok_or("an LZ4 block holds more bytes than declared")?;
            rest.copy_from_slice(block);
            return Ok(length);
        }
        let window = match self.flags & INDEPENDENT {
            0 => &before[before.len().saturating_sub(WINDOW)..],
            _ => &[],
        };
        decompress_into_with_dict(block, rest, window)
            .map_err(|_| "an LZ4 block is damaged, or holds more bytes than declared")
    }
}

fn array<const N: usize>(frame: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (array, rest) = frame
        .split_first_chunk()
        .ok_or("its LZ4 frame ends early")?;
    *frame = rest;
    Ok(*array)
}

fn check(bytes: &[u8], frame: &mut &[u8]) -> Result<(), &'static str> {
    if u32::from_le_bytes(array(frame)?) == XxHash32::oneshot(0, bytes) {
        Ok(())
    } else {
        Err("its LZ4 frame has another checksum")
    }
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    XxHash32::oneshot(0, descriptor).to_le_bytes()[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of these blocks, each with the bit that says whether it is stored.
    fn frame(flags: u8, block_size: u8, size: Option<u64>, blocks: &[(bool, &[u8])]) -> Vec<u8> {
        let mut descriptor = vec![VERSION | flags, block_size << 4];
        descriptor.extend(size.into_iter().flat_map(u64::to_le_bytes));
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&descriptor);
        out.push(header_checksum(&descriptor));
        for (stored, block) in blocks {
            let word = u32::try_from(block.len()).unwrap() | if *stored { STORED } else { 0 };
            out.extend_from_slice(&word.to_le_bytes());
            out.extend_from_slice(block);
            if flags & BLOCK_CHECKSUMS != 0 {
                out.extend_from_slice(&XxHash32::oneshot(0, block).to_le_bytes());
            }
        }
        out.extend_from_slice(&[0; 4]);
        out
    }

    fn unpacked(frame: &[u8], size: usize) -> Result<Vec<u8>, &'static str> {
        let mut out = vec![0; size];
        unpack(frame, &mut out).map(|()| out)
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        for size in [0, 1, 12, 13, 1000, 65_536, 65_537, XET_CHUNK_BYTES_MAX] {
            let repetitive = vec![7; size];
            let mixed: Vec<_> = (0..size)
                .map(|at| ((at * at) >> 7).to_le_bytes()[0])
                .collect();
            for bytes in [repetitive, mixed] {
                assert_eq!(unpacked(&pack(&bytes), size), Ok(bytes));
            }
        }
    }

    #[test]
    fn frames_of_other_writers_are_read() {
        let text = b"abcdefgh".repeat(20);
        let block = lz4_flex::block::compress(&text);
        // Repeats eight bytes of the block before, then ends with five literals.
        let linked: &[u8] = &[0x0f, 8, 0, 136, 0x50, b'a', b'b', b'c', b'd', b'e'];
        let whole = [&*text, &text[..155], b"abcde"].concat();
        let blocks: [(bool, &[u8]); 2] = [(false, &block), (false, linked)];
        let read = frame(BLOCK_CHECKSUMS | CONTENT_SIZE, 7, Some(320), &blocks);
        assert_eq!(unpacked(&read, 320).as_deref(), Ok(&*whole));
        let apart = frame(INDEPENDENT, 7, None, &blocks);
        assert!(
            unpacked(&apart, 320).is_err(),
            "nothing is before an independent block"
        );
        let stored: [(bool, &[u8]); 3] = [(true, b"abc"), (true, b""), (true, b"def")];
        let mut read = frame(INDEPENDENT | CONTENT_CHECKSUM, 4, None, &stored);
        assert!(unpacked(&read, 6).is_err(), "no checksum");
        read.extend_from_slice(&XxHash32::oneshot(0, b"abcdef").to_le_bytes());
        assert_eq!(unpacked(&read, 6).as_deref(), Ok(&b"abcdef"[..]));
    }

    #[test]
    fn what_is_not_exactly_the_declared_bytes_is_refused() {
        let text = b"abcdefgh".repeat(20);
        let valid = pack(&text);
        assert!(unpacked(&valid, 160).is_ok());
        for size in [0, 1, 159, 161, 1 << 17] {
            assert!(unpacked(&valid, size).is_err(), "{size}");
        }
        for end in 0..valid.len() {
            assert!(unpacked(&valid[..end], 160).is_err(), "{end}");
        }
        assert!(unpacked(&[&*valid, b"\0"].concat(), 160).is_err());
        let stored: [(bool, &[u8]); 1] = [(true, &text)];
        for (flags, block_size, size) in [
            (0b1000_0000, 4, None),
            (0b10, 4, None),
            (1, 4, None),
            (0, 3, None),
            (0, 8, None),
            (CONTENT_SIZE, 4, Some(159)),
        ] {
            assert!(unpacked(&frame(flags, block_size, size, &stored), 160).is_err());
        }
        let mut checked = frame(BLOCK_CHECKSUMS, 4, None, &stored);
        assert!(unpacked(&checked, 160).is_ok());
        checked[20] ^= 1;
        assert!(unpacked(&checked, 160).is_err());
        let large = vec![0; 65_537];
        assert!(unpacked(&frame(0, 4, None, &[(true, &large)]), 65_537).is_err());
        assert!(unpacked(&frame(0, 5, None, &[(true, &large)]), 65_537).is_ok());
    }
}
