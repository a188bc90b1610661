//! Piece lists: the chaining values of a file's 1 MiB subtrees, which fold up to its BLAKE3.
//!
//! With the list a piece is verified by itself, wherever it came from and in whatever order. The list is
//! the raw chaining values, 32 bytes each and nothing else. A file of one piece (up to 1 MiB, also the
//! empty one) has none: its only chaining value is the root.

use blake3::hazmat::{self, HasherExt, Mode};

use crate::format::FormatError;
use crate::hash::Blake3;
use crate::limits::PIECE_BYTES;

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
    pub fn root(values: &[ChainingValue], size: u64) -> Blake3 {
        assert_eq!(
            values.len() as u64,
            piece_count(size),
            "invariant: a file of {size} bytes has one chaining value a piece"
        );
        if let [only] = values {
            return Blake3::from_bytes(*only);
        }
        let (left, right) = values.split_at(left_len(values.len()));
        hazmat::merge_subtrees_root(&fold(left), &fold(right), Mode::Hash).into()
    }

    /// Reads the list of a file of this size and hash (`None` where it has one piece), and checks that
    /// it folds up to the hash.
    pub fn decode(list: Option<&[u8]>, size: u64, root: &Blake3) -> Result<Self, FormatError> {
        let refuse = |place: String, rule| FormatError::Rule {
            what: "piece list",
            place,
            rule,
        };
        let values = match list {
            None => vec![*root.as_bytes()],
            Some(list) => {
                let (values, rest) = list.as_chunks::<32>();
                if !rest.is_empty() || values.len() == 1 {
                    let place = format!("its length of {} bytes", list.len());
                    return Err(refuse(
                        place,
                        "it has 32 bytes a piece, and two pieces or more",
                    ));
                }
                values.to_vec()
            }
        };
        if values.len() as u64 != piece_count(size) {
            let place = format!("its {} pieces", values.len());
            return Err(refuse(place, "the file has another number of pieces"));
        }
        if Self::root(&values, size) != *root {
            return Err(refuse(
                "its root".into(),
                "it does not fold up to the file's hash",
            ));
        }
        Ok(Self { size, values })
    }

    /// The list's bytes; `None` for a single piece.
    pub fn encode(&self) -> Option<Vec<u8>> {
        (self.values.len() > 1).then(|| self.values.concat())
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
    pub fn verify(&self, index: u64, bytes: &[u8]) -> bool {
        if piece_len(index, self.size) != Some(bytes.len() as u64) {
            return false;
        }
        match (&*self.values, usize::try_from(index)) {
            ([only], _) => Blake3::of(bytes).as_bytes() == only,
            (values, Ok(index)) => verify_piece(index as u64, bytes, &values[index]),
            (_, Err(_)) => false,
        }
    }
}

/// A set of a file's pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceSet {
    count: u64,
    words: Vec<u64>,
}

impl PieceSet {
    /// No piece of a file of `size` bytes.
    pub fn empty(size: u64) -> Self {
        let count = piece_count(size);
        let words = usize::try_from(count.div_ceil(64)).expect("invariant: sizes are bounded");
        Self {
            count,
            words: vec![0; words],
        }
    }

    /// All pieces of a file of `size` bytes.
    pub fn full(size: u64) -> Self {
        let mut all = Self::empty(size);
        (0..all.count).for_each(|index| {
            all.insert(index);
        });
        all
    }

    /// Pieces of the file, held or not.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Pieces in the set.
    pub fn len(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Whether no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.len() == self.count
    }

    /// Whether a piece is in the set.
    pub fn contains(&self, index: u64) -> bool {
        index < self.count
            && usize::try_from(index / 64)
                .is_ok_and(|word| self.words[word] & (1 << (index % 64)) != 0)
    }

    /// Adds a piece; whether it was new. A piece that the file has not is left out.
    pub fn insert(&mut self, index: u64) -> bool {
        if index >= self.count || self.contains(index) {
            return false;
        }
        if let Ok(word) = usize::try_from(index / 64) {
            self.words[word] |= 1 << (index % 64);
        }
        true
    }

    /// Takes a piece out; whether it was in.
    pub fn remove(&mut self, index: u64) -> bool {
        if !self.contains(index) {
            return false;
        }
        if let Ok(word) = usize::try_from(index / 64) {
            self.words[word] &= !(1 << (index % 64));
        }
        true
    }

    /// The byte form: bit `index % 8` of byte `index / 8`, as many bytes as that takes, spare bits zero.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = usize::try_from(self.count.div_ceil(8)).expect("invariant: sizes are bounded");
        let mut out: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        out.truncate(bytes);
        out
    }

    /// Reads the byte form for a file of `size` bytes.
    pub fn decode(bytes: &[u8], size: u64) -> Result<Self, FormatError> {
        let refuse = |rule| FormatError::Rule {
            what: "piece set",
            place: format!("its {} bytes", bytes.len()),
            rule,
        };
        if bytes.len() as u64 != piece_count(size).div_ceil(8) {
            return Err(refuse("it has one bit a piece"));
        }
        let mut set = Self::empty(size);
        for (at, byte) in bytes.iter().enumerate() {
            set.words[at / 8] |= u64::from(*byte) << (at % 8 * 8);
        }
        let spare = set.words.len() as u64 * 64 - set.count;
        if spare > 0
            && set
                .words
                .last()
                .is_some_and(|word| word >> (64 - spare) != 0)
        {
            return Err(refuse("spare bits are zero"));
        }
        Ok(set)
    }
}

/// Pieces of a file of `size` bytes: at least one.
pub fn piece_count(size: u64) -> u64 {
    size.div_ceil(PIECE_BYTES).max(1)
}

/// Bytes of a piece of a file of `size` bytes; `None` where there is no such piece.
pub fn piece_len(index: u64, size: u64) -> Option<u64> {
    if index >= piece_count(size) {
        return None;
    }
    Some((size - index * PIECE_BYTES).min(PIECE_BYTES))
}

/// Whether these bytes are the piece of that index and chaining value in a file of several pieces.
///
/// For a file of one piece compare [`Blake3::of`] with its hash, or use [`PieceList::verify`], which
/// knows both cases.
pub fn verify_piece(index: u64, bytes: &[u8], value: &ChainingValue) -> bool {
    let Some(offset) = index.checked_mul(PIECE_BYTES) else {
        return false;
    };
    if bytes.is_empty() || bytes.len() as u64 > PIECE_BYTES {
        return false;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    hasher.finalize_non_root() == *value
}

/// Values under the left child of the node above `count` of them: the largest power of two below.
fn left_len(count: usize) -> usize {
    count.div_ceil(2).next_power_of_two()
}

/// The chaining value of a subtree that is not the whole file.
fn fold(values: &[ChainingValue]) -> ChainingValue {
    if let [only] = values {
        return *only;
    }
    let (left, right) = values.split_at(left_len(values.len()));
    hazmat::merge_subtrees_non_root(&fold(left), &fold(right), Mode::Hash)
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
        Self {
            done: Vec::new(),
            piece: blake3::Hasher::new(),
        }
    }

    /// The next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.piece.count() == PIECE_BYTES {
                // More follows, so this piece is not the whole file, and not the root.
                self.done.push(self.piece.finalize_non_root());
                self.piece = blake3::Hasher::new();
                self.piece
                    .set_input_offset(self.done.len() as u64 * PIECE_BYTES);
            }
            let room = PIECE_BYTES - self.piece.count();
            let taken = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            self.piece.update(&bytes[..taken]);
            bytes = &bytes[taken..];
        }
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.done.len() as u64 * PIECE_BYTES + self.piece.count()
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
    pub fn finish(mut self) -> (Blake3, Option<Vec<u8>>) {
        if self.done.is_empty() {
            return (self.piece.finalize().into(), None);
        }
        let size = self.len();
        self.done.push(self.piece.finalize_non_root());
        (PieceList::root(&self.done, size), Some(self.done.concat()))
    }
}

impl Default for PieceHasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.flatten().take(size).collect()
    }

    #[test]
    fn the_root_is_the_files_blake3_around_every_boundary() {
        let piece = usize::try_from(PIECE_BYTES).unwrap();
        let whole = content(9 * piece + 2);
        let mut sizes = vec![0, 1, 1023, 1024, 1025, 65_536];
        for pieces in 1..=9 {
            sizes.extend([pieces * piece - 1, pieces * piece, pieces * piece + 1]);
        }
        for size in sizes {
            let bytes = &whole[..size];
            for step in [128 << 10, 1_000_003, 4 << 20] {
                let mut hasher = PieceHasher::new();
                bytes.chunks(step).for_each(|slice| hasher.update(slice));
                assert_eq!(hasher.len(), size as u64);
                let (root, list) = hasher.finish();
                assert_eq!(root, Blake3::of(bytes), "{size} in steps of {step}");
                assert_eq!(list.is_some(), size > piece, "{size}");
                let list = PieceList::decode(list.as_deref(), size as u64, &root).unwrap();
                assert_eq!(list.values().len() as u64, piece_count(size as u64));
            }
        }
    }

    #[test]
    fn every_piece_verifies_and_no_other_bytes_do() {
        let whole = content(2_500_000);
        let mut hasher = PieceHasher::new();
        hasher.update(&whole);
        let (root, bytes) = hasher.finish();
        let list = PieceList::decode(bytes.as_deref(), whole.len() as u64, &root).unwrap();
        assert_eq!(list.encode(), bytes);
        let pieces: Vec<_> = whole.chunks(1 << 20).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let index = index as u64;
            assert!(list.verify(index, piece));
            let mut flipped = piece.to_vec();
            flipped[12_345] ^= 1;
            assert!(!list.verify(index, &flipped));
            assert!(!list.verify(index, &piece[1..]));
            assert!(!list.verify(index, b""));
            assert!(!list.verify((index + 1) % 3, piece));
        }
        assert!(!list.verify(3, pieces[2]));
        assert!(!list.verify(u64::MAX, pieces[2]));
        assert!(!verify_piece(u64::MAX, pieces[2], &list.values()[2]));
        assert!(!verify_piece(0, &whole, &list.values()[0]));
    }

    #[test]
    fn a_file_of_one_piece_verifies_against_its_hash() {
        for size in [0, 1, 1 << 20] {
            let whole = content(size);
            let list = PieceList::decode(None, size as u64, &Blake3::of(&whole)).unwrap();
            assert_eq!(list.encode(), None);
            assert!(list.verify(0, &whole));
            assert!(!list.verify(0, &[&whole[..], b"x"].concat()));
            assert!(!list.verify(1, &whole));
        }
    }

    #[test]
    fn lists_that_do_not_fold_up_to_the_hash_are_refused() {
        let whole = content(3 << 20);
        let mut hasher = PieceHasher::new();
        hasher.update(&whole);
        let (root, list) = hasher.finish();
        let list = list.unwrap();
        let size = whole.len() as u64;
        let refused = |list: Option<&[u8]>, size| PieceList::decode(list, size, &root).is_err();
        assert!(!refused(Some(&list), size));
        assert!(refused(None, size));
        assert!(refused(Some(&[]), size));
        assert!(refused(Some(&list[..95]), size));
        assert!(refused(Some(&list[..64]), size));
        assert!(refused(Some(&list), size + 1));
        assert!(refused(
            Some(&[&list[32..64], &list[..32], &list[64..]].concat()),
            size
        ));
        for byte in 0..list.len() {
            let mut flipped = list.clone();
            flipped[byte] ^= 0x80;
            assert!(refused(Some(&flipped), size));
        }
        // One piece has no list, not even a right one.
        assert!(PieceList::decode(Some(root.as_bytes()), 5, &root).is_err());
    }
}
