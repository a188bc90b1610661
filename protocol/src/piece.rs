//! Piece lists: the chaining values of a file's 1 MiB subtrees, which fold up to its BLAKE3.
//!
//! With the list a piece is verified by itself, wherever it came from and in whatever order. The list is
//! the raw chaining values, 32 bytes each and nothing else. A file of one piece (up to 1 MiB, also the
//! empty one) has none: its only chaining value is the root.

use crate::format::FormatError;
use crate::hash::Blake3;

/// A chaining value; of a file's only piece, the file's hash.
pub type ChainingValue = [u8; 32];

/// The pieces of one file, known to fold up to its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceList {
    size: u64,
    values: Vec<ChainingValue>,
}

impl PieceList {
    /// Folds chaining values up to the hash of a file of `size` bytes.
    ///
    /// # Panics
    ///
    /// Where the number of values is not [`piece_count`] of the size.
    pub fn root(_values: &[ChainingValue], _size: u64) -> Blake3 {
        todo!()
    }

    /// Reads the list of a file of this size and hash (`None` where it has one piece), and checks that
    /// it folds up to the hash.
    pub fn decode(_list: Option<&[u8]>, _size: u64, _root: &Blake3) -> Result<Self, FormatError> {
        todo!()
    }

    /// The list's bytes; `None` for a single piece.
    pub fn encode(&self) -> Option<Vec<u8>> {
        todo!()
    }

    /// The chaining values, by piece.
    pub fn values(&self) -> &[ChainingValue] {
        &self.values
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether these are the bytes of that piece of the file.
    pub fn verify(&self, _index: u64, _bytes: &[u8]) -> bool {
        todo!()
    }
}

/// Pieces of a file of `size` bytes: at least one.
pub fn piece_count(_size: u64) -> u64 {
    todo!()
}

/// Bytes of a piece of a file of `size` bytes; `None` where there is no such piece.
pub fn piece_len(_index: u64, _size: u64) -> Option<u64> {
    todo!()
}

/// Whether these bytes are the piece of that index and chaining value in a file of several pieces.
///
/// For a file of one piece compare [`Blake3::of`] with its hash, or use [`PieceList::verify`], which
/// knows both cases.
pub fn verify_piece(_index: u64, _bytes: &[u8], _value: &ChainingValue) -> bool {
    todo!()
}

/// Hashes a file from its first byte to its last, in one pass for both root and list.
///
/// Give it slices of 128 KiB or more: smaller ones are hashed at a fraction of the speed.
#[derive(Debug, Clone)]
pub struct PieceHasher {
    done: Vec<ChainingValue>,
    piece: blake3::Hasher,
}

impl PieceHasher {
    /// Begins a file.
    pub fn new() -> Self {
        todo!()
    }

    /// The next bytes of the file.
    pub fn update(&mut self, _bytes: &[u8]) {
        todo!()
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// Whether no byte was taken yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chaining values of the pieces that are certainly not the last.
    pub fn values(&self) -> &[ChainingValue] {
        &self.done
    }

    /// The file's hash, and its piece list where it has more than one piece.
    pub fn finish(self) -> (Blake3, Option<Vec<u8>>) {
        todo!()
    }
}

impl Default for PieceHasher {
    fn default() -> Self {
        Self::new()
    }
}
