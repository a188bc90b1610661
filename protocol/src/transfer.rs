//! What nodes ask each other about blobs beside iroh-blobs' protocol: one request and one answer a stream.
//!
//! iroh-blobs' own protocol moves the bytes. This one says who holds what of a file, gives a file's piece
//! list, and names the metadata blobs behind a head, so that they can be asked for in few requests. An
//! answer is a hint or checked by hash: nothing here is believed. `docs/transfer.md` has the bytes.

use crate::format::{FormatError, Reader, check_count, small};
use crate::hash::Blake3;
use crate::limits::{
    CLOSURE_HASHES_MAX, FETCH_BYTES_MAX, LOOKUP_HASHES_MAX, TRANSFER_ANSWER_BYTES_MAX,
    TRANSFER_REQUEST_BYTES_MAX,
};
use crate::piece::{PieceSet, piece_count};

/// Name of the protocol in a QUIC handshake.
pub const ALPN: &[u8] = b"cairn/pieces/1";

const REQUEST: &str = "request about blobs";
const ANSWER: &str = "answer about blobs";
const LOOKUP: u8 = 0;
const LIST: u8 = 1;
const CLOSURE: u8 = 2;
const ABSENT: u8 = 0;
const WHOLE: u8 = 1;
const PARTIAL: u8 = 2;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What is held of each of these blobs; at most `LOOKUP_HASHES_MAX`.
    Lookup(Vec<Blake3>),
    /// The piece list of a file.
    List(Blake3),
    /// The metadata blobs that a refs blob reaches (itself not among them), parents before what they name,
    /// from this one on.
    Closure {
        /// The refs blob.
        refs: Blake3,
        /// How many to leave out: those that earlier answers had.
        skip: u64,
    },
}

/// What is held of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing that the asker may have.
    Absent,
    /// All of it, so many bytes.
    Whole(u64),
    /// These pieces of a file of so many bytes, at most `FETCH_BYTES_MAX`.
    Partial(u64, PieceSet),
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Lookup`], in its order.
    Held(Vec<Held>),
    /// To [`Request::List`]: 32 bytes a piece; nothing where the file has one piece, or is absent.
    List(Option<Vec<u8>>),
    /// To [`Request::Closure`]; whether there are more.
    Closure(Vec<Blake3>, bool),
}

impl Request {
    /// The one byte form.
    ///
    /// # Panics
    ///
    /// Where a look-up has more than `LOOKUP_HASHES_MAX` hashes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Lookup(hashes) => {
                assert!(
                    hashes.len() <= LOOKUP_HASHES_MAX,
                    "invariant: at most {LOOKUP_HASHES_MAX} hashes are looked up at once"
                );
                let mut out = vec![LOOKUP];
                out.extend_from_slice(&small::<u16>(hashes.len()).to_le_bytes());
                write_hashes(&mut out, hashes);
                out
            }
            Self::List(hash) => [&[LIST], &hash.as_bytes()[..]].concat(),
            Self::Closure { refs, skip } => {
                [&[CLOSURE], &refs.as_bytes()[..], &skip.to_le_bytes()].concat()
            }
        }
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::message(REQUEST, bytes, TRANSFER_REQUEST_BYTES_MAX)?;
        let request = match reader.u8("kind")? {
            LOOKUP => {
                let count = usize::from(reader.u16("count of hashes")?);
                check_count(REQUEST, "hashes", count, LOOKUP_HASHES_MAX)?;
                Self::Lookup(read_hashes(&mut reader, count)?)
            }
            LIST => Self::List(reader.blake3("hash")?),
            CLOSURE => Self::Closure {
                refs: reader.blake3("refs blob")?,
                skip: reader.u64("hashes to leave out")?,
            },
            _ => return Err(reader.rule("kind", "it is 0, 1 or 2")),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl Answer {
    /// The one byte form.
    ///
    /// # Panics
    ///
    /// Where a limit is exceeded, a piece set is not one of its file, or a list is none.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Held(held) => {
                assert!(
                    held.len() <= LOOKUP_HASHES_MAX,
                    "invariant: at most {LOOKUP_HASHES_MAX} hashes are looked up at once"
                );
                let mut out = vec![LOOKUP];
                out.extend_from_slice(&small::<u16>(held.len()).to_le_bytes());
                for held in held {
                    write_held(&mut out, held);
                }
                out
            }
            Self::List(None) => vec![LIST, 0],
            Self::List(Some(list)) => {
                assert!(
                    list_rule(list.len()).is_none(),
                    "invariant: a piece list has 32 bytes a piece, not {} in all",
                    list.len()
                );
                let len = small::<u32>(list.len()).to_le_bytes();
                [&[LIST, 1], &len[..], list].concat()
            }
            Self::Closure(hashes, more) => {
                assert!(
                    hashes.len() <= CLOSURE_HASHES_MAX,
                    "invariant: an answer has at most {CLOSURE_HASHES_MAX} hashes"
                );
                let mut out = vec![CLOSURE, u8::from(*more)];
                out.extend_from_slice(&small::<u32>(hashes.len()).to_le_bytes());
                write_hashes(&mut out, hashes);
                out
            }
        }
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::message(ANSWER, bytes, TRANSFER_ANSWER_BYTES_MAX)?;
        let answer = match reader.u8("kind")? {
            LOOKUP => {
                let count = usize::from(reader.u16("count of blobs")?);
                check_count(ANSWER, "blobs", count, LOOKUP_HASHES_MAX)?;
                let held = (0..count).map(|_| read_held(&mut reader));
                Self::Held(held.collect::<Result<_, _>>()?)
            }
            LIST => match reader.u8("whether there is a list")? {
                0 => Self::List(None),
                1 => {
                    let len = reader.u32("length of the list")? as usize;
                    if let Some(rule) = list_rule(len) {
                        return Err(reader.rule("length of the list", rule));
                    }
                    Self::List(Some(reader.bytes(len, "list")?.to_vec()))
                }
                _ => return Err(reader.rule("whether there is a list", "it is 0 or 1")),
            },
            CLOSURE => {
                let more = match reader.u8("whether there are more")? {
                    0 => false,
                    1 => true,
                    _ => return Err(reader.rule("whether there are more", "it is 0 or 1")),
                };
                let count = reader.u32("count of hashes")? as usize;
                check_count(ANSWER, "hashes", count, CLOSURE_HASHES_MAX)?;
                Self::Closure(read_hashes(&mut reader, count)?, more)
            }
            _ => return Err(reader.rule("kind", "it is 0, 1 or 2")),
        };
        reader.finish()?;
        Ok(answer)
    }
}

/// What is wrong with the length of a piece list.
fn list_rule(len: usize) -> Option<&'static str> {
    if !len.is_multiple_of(Blake3::SIZE) || len < 2 * Blake3::SIZE {
        return Some("a list has 32 bytes a piece, and two pieces or more");
    }
    let pieces = (len / Blake3::SIZE) as u64;
    (pieces > piece_count(FETCH_BYTES_MAX)).then_some("it has more pieces than the largest file")
}

fn write_hashes(out: &mut Vec<u8>, hashes: &[Blake3]) {
    out.reserve(hashes.len() * Blake3::SIZE);
    for hash in hashes {
        out.extend_from_slice(hash.as_bytes());
    }
}

fn read_hashes(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Blake3>, FormatError> {
    // At once, so that a count is not believed before its bytes are there.
    let bytes = reader.bytes(count * Blake3::SIZE, "hashes")?;
    let (hashes, _) = bytes.as_chunks::<{ Blake3::SIZE }>();
    Ok(hashes
        .iter()
        .map(|hash| Blake3::from_bytes(*hash))
        .collect())
}

fn write_held(out: &mut Vec<u8>, held: &Held) {
    match held {
        Held::Absent => out.push(ABSENT),
        Held::Whole(size) => {
            out.push(WHOLE);
            out.extend_from_slice(&size.to_le_bytes());
        }
        Held::Partial(size, pieces) => {
            assert!(
                *size <= FETCH_BYTES_MAX && pieces.count() == piece_count(*size),
                "invariant: the set is one of a file of {size} bytes"
            );
            out.push(PARTIAL);
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&pieces.encode());
        }
    }
}

fn read_held(reader: &mut Reader<'_>) -> Result<Held, FormatError> {
    Ok(match reader.u8("what is held")? {
        ABSENT => Held::Absent,
        WHOLE => Held::Whole(reader.u64("size")?),
        PARTIAL => {
            let size = reader.u64("size")?;
            if size > FETCH_BYTES_MAX {
                return Err(reader.rule("size", "no larger file is fetched piece by piece"));
            }
            let bytes = usize::try_from(piece_count(size).div_ceil(8))
                .expect("invariant: the size is bounded");
            Held::Partial(
                size,
                PieceSet::decode(reader.bytes(bytes, "piece set")?, size)?,
            )
        }
        _ => return Err(reader.rule("what is held", "it is 0, 1 or 2")),
    })
}
