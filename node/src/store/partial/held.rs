//! The file that says which pieces of a partial file are certainly on the disk.
//!
//! It has two places, written in turn: whichever a crash tears, the other one still says what was true a
//! step earlier. What it says of a piece was true before it was written, so it may only say too little.

use cairn_protocol::piece::{PieceSet, piece_count};

use crate::files::frames::first_eight;
use crate::files::{FileError, Files, OpenFile};

const MAGIC: [u8; 8] = *b"cairnhd1";
/// Bytes before the set: magic, number of the step, size of the file.
const HEADER_BYTES: usize = 24;
/// Bytes of the checksum behind the set.
const CHECKSUM_BYTES: usize = 8;
/// The places are so many bytes apart, or a multiple: no sector or page of the disk is part of both.
const ALIGNMENT_BYTES: u64 = 4096;

/// The bytes of a step for one of the places, and where they go.
pub(super) fn encode(step: u64, size: u64, held: &PieceSet) -> (u64, Vec<u8>) {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&step.to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&held.encode());
    let checksum = first_eight(&blake3::hash(&bytes));
    bytes.extend_from_slice(&checksum);
    (step % 2 * stride(size), bytes)
}

/// The newest step that is whole, and its set.
pub(super) fn read(
    files: &dyn Files,
    file: &OpenFile,
    size: u64,
) -> Result<Option<(u64, PieceSet)>, FileError> {
    let mut newest: Option<(u64, PieceSet)> = None;
    for place in 0..2 {
        let mut bytes = vec![0; len(size)];
        let read = files.read_at(file, &mut bytes, place * stride(size))?;
        bytes.truncate(read);
        if let Some((step, held)) = decode(&bytes, size)
            && step % 2 == place
            && newest.as_ref().is_none_or(|(newest, _)| *newest < step)
        {
            newest = Some((step, held));
        }
    }
    Ok(newest)
}

fn decode(bytes: &[u8], size: u64) -> Option<(u64, PieceSet)> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if body.len() < HEADER_BYTES || first_eight(&blake3::hash(body)) != *checksum {
        return None;
    }
    let number = |at: usize| {
        body[at..]
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes))
    };
    if body[..8] != MAGIC || number(16)? != size {
        return None;
    }
    Some((
        number(8)?,
        PieceSet::decode(&body[HEADER_BYTES..], size).ok()?,
    ))
}

fn len(size: u64) -> usize {
    let set = usize::try_from(piece_count(size).div_ceil(8)).expect("invariant: sizes are bounded");
    HEADER_BYTES + set + CHECKSUM_BYTES
}

fn stride(size: u64) -> u64 {
    (len(size) as u64).next_multiple_of(ALIGNMENT_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_reads_back_and_no_changed_byte_does(
            step: u64, size in 0_u64..200 << 20, some: Vec<u64>, at: proptest::sample::Index,
        ) {
            let mut held = PieceSet::empty(size);
            for index in some {
                held.insert(index % piece_count(size));
            }
            let (_, mut bytes) = encode(step, size, &held);
            prop_assert_eq!(bytes.len(), len(size));
            prop_assert_eq!(decode(&bytes, size), Some((step, held)));
            prop_assert_eq!(decode(&bytes, size + 1), None);
            prop_assert_eq!(decode(&bytes[1..], size), None);
            let at = at.index(bytes.len());
            bytes[at] ^= 4;
            prop_assert_eq!(decode(&bytes, size), None);
        }
    }
}
