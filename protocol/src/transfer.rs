//! What nodes ask each other about blobs beside iroh-blobs' protocol: one request and one answer a stream.
//!
//! iroh-blobs' own protocol moves the bytes. This one says who holds what of a file, gives a file's piece
//! list, and names the metadata blobs behind a head, so that they can be asked for in few requests. An
//! answer is a hint or checked by hash: nothing here is believed.

use crate::format::FormatError;
use crate::hash::Blake3;
use crate::piece::PieceSet;

/// Name of the protocol in a QUIC handshake.
pub const ALPN: &[u8] = b"cairn/pieces/1";

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
    /// These pieces of a file of so many bytes.
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
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let _ = bytes;
        todo!()
    }
}

impl Answer {
    /// The one byte form.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let _ = bytes;
        todo!()
    }
}
