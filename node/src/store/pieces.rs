//! BLAKE3 with its piece list, in one pass from the first byte to the last.

use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len};
use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::PIECE_BYTES;

/// Hashes a file for both its hash and its piece list.
#[derive(Debug)]
pub(super) struct PieceHasher {
    done: Vec<[u8; 32]>,
    piece: blake3::Hasher,
}

impl PieceHasher {
    pub(super) fn new() -> Self {
        Self {
            done: Vec::new(),
            piece: blake3::Hasher::new(),
        }
    }

    /// The next bytes of the file.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A piece is closed only when a byte follows it: the last one may be the root.
            if self.piece.count() == PIECE_BYTES {
                self.done.push(self.piece.finalize_non_root());
                self.piece = blake3::Hasher::new();
                self.piece
                    .set_input_offset(self.done.len() as u64 * PIECE_BYTES);
            }
            let room = PIECE_BYTES - self.piece.count();
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            self.piece.update(&bytes[..take]);
            bytes = &bytes[take..];
        }
    }

    /// The file's hash, and its piece list where it has more than one piece.
    pub(super) fn finish(mut self) -> (Blake3, Option<Vec<u8>>) {
        if self.done.is_empty() {
            return (self.piece.finalize().into(), None);
        }
        let size = self.done.len() as u64 * PIECE_BYTES + self.piece.count();
        self.done.push(self.piece.finalize_non_root());
        let (left, right) = halves(&self.done, size);
        let root = blake3::hazmat::merge_subtrees_root(&left, &right, Mode::Hash);
        (root.into(), Some(self.done.concat()))
    }
}

/// Chaining values of the two halves of a subtree of several pieces.
fn halves(values: &[[u8; 32]], size: u64) -> ([u8; 32], [u8; 32]) {
    let left_size = left_subtree_len(size);
    let left_pieces = usize::try_from(left_size / PIECE_BYTES).expect("invariant: fits its list");
    let (left, right) = values.split_at(left_pieces);
    (fold(left, left_size), fold(right, size - left_size))
}

fn fold(values: &[[u8; 32]], size: u64) -> [u8; 32] {
    if let [value] = values {
        return *value;
    }
    let (left, right) = halves(values, size);
    blake3::hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash)
}
