//! iroh-blobs' wire form of a blob, made from its pieces and their list alone.
//!
//! An answer is the size, then the hash tree in pre-order: 64 bytes for each pair of subtrees, 16 KiB for
//! each leaf. Pairs above the pieces come from the piece list, those inside a piece are computed from its
//! bytes, which also proves the bytes; so no hash tree is kept on the disk.

use bao_tree::io::mixed::{EncodedItem, traverse_selected_rec};
use bao_tree::{BlockSize, ChunkNum, ChunkRanges, ChunkRangesRef, TreeNode};
use blake3::hazmat::{self, HasherExt as _, Mode};
use bytes::Bytes;
use cairn_protocol::piece::ChainingValue;

/// Binary logarithm of the chunks (of 1 KiB) in a leaf, iroh-blobs' group.
pub(super) const GROUP: BlockSize = BlockSize::from_chunk_log(GROUP_LOG);
/// The same of a piece.
pub(super) const PIECE: BlockSize = BlockSize::from_chunk_log(PIECE_LOG);
const GROUP_LOG: u8 = 4;
const PIECE_LOG: u8 = 10;
const GROUP_BYTES: usize = 1024 << GROUP_LOG;

/// Chaining values of a row of equal subtrees, and of all that they fold up to: `levels[0]` is the row.
#[derive(Debug)]
pub(super) struct Pyramid {
    levels: Vec<Vec<ChainingValue>>,
}

impl Pyramid {
    /// Folds a row of one or more.
    pub(super) fn new(row: Vec<ChainingValue>) -> Self {
        let mut levels = vec![row];
        while let Some(row) = levels.last().filter(|row| row.len() > 1) {
            let next = row.chunks(2).map(|pair| match pair {
                [left, right] => hazmat::merge_subtrees_non_root(left, right, Mode::Hash),
                // The last of an odd row goes up as it is.
                alone => alone[0],
            });
            levels.push(next.collect());
        }
        Self { levels }
    }

    /// Bytes that it takes in memory, roughly.
    pub(super) fn bytes(&self) -> u64 {
        self.levels.iter().map(|row| row.len() as u64 * 32).sum()
    }

    /// The two subtrees under a node above the pieces; the row is the piece list.
    pub(super) fn pair_above_pieces(&self, node: TreeNode) -> Option<[ChainingValue; 2]> {
        let level = node.level().checked_sub(u32::from(PIECE_LOG))?;
        let left = usize::try_from(node.chunk_range().start.0 >> node.level()).ok()?;
        self.pair(usize::try_from(level).ok()?, left)
    }

    fn pair(&self, level: usize, left: usize) -> Option<[ChainingValue; 2]> {
        let row = self.levels.get(level)?;
        Some([*row.get(left)?, *row.get(left + 1)?])
    }

    /// What all fold up to, as the hash of a whole file or as that of a part of one.
    fn top(&self, whole_file: bool) -> ChainingValue {
        match self
            .levels
            .len()
            .checked_sub(2)
            .and_then(|level| self.pair(level, 0))
        {
            Some([left, right]) if whole_file => {
                *hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
            }
            _ => self.levels[self.levels.len() - 1][0],
        }
    }
}

/// Hash pairs and leaves in the order of the wire; the leaves are slices of the piece.
#[derive(Debug, Default)]
struct Parts {
    pairs: Vec<u8>,
    order: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// So many bytes of the pairs.
    Pairs(usize),
    Leaf(Bytes),
}

impl Parts {
    fn pair(&mut self, left: &ChainingValue, right: &ChainingValue) {
        self.pairs.extend_from_slice(left);
        self.pairs.extend_from_slice(right);
        if let Some(Part::Pairs(bytes)) = self.order.last_mut() {
            *bytes += 64;
        } else {
            self.order.push(Part::Pairs(64));
        }
    }

    fn into_chunks(self) -> Vec<Bytes> {
        let mut pairs = Bytes::from(self.pairs);
        let chunks = self.order.into_iter().map(|part| match part {
            Part::Pairs(bytes) => pairs.split_to(bytes),
            Part::Leaf(bytes) => bytes,
        });
        chunks.collect()
    }
}

/// The wire form of those chunks of a piece that `ranges` selects; `None` where the bytes are not those of
/// the chaining value. `ranges` counts from the file's start, canonical as bao-tree's iterators give it.
pub(super) fn encode_piece(
    index: u64,
    bytes: &Bytes,
    only: bool,
    value: &ChainingValue,
    ranges: &ChunkRangesRef,
) -> Option<Vec<Bytes>> {
    let start = index << PIECE_LOG;
    let mut parts = Parts::default();
    if bytes.len() <= GROUP_BYTES {
        let found = encode_group(start, bytes.clone(), only, ranges, &mut parts);
        return (found == *value).then(|| parts.into_chunks());
    }
    let groups = bytes.chunks(GROUP_BYTES).enumerate().map(|(group, bytes)| {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset((start << 10) + (group * GROUP_BYTES) as u64);
        hasher.update(bytes).finalize_non_root()
    });
    let pyramid = Pyramid::new(groups.collect());
    if pyramid.top(only) != *value {
        return None;
    }
    let all = ChunkRanges::all();
    let piece = PieceEncoder {
        start,
        bytes,
        pyramid: &pyramid,
        all: &all,
    };
    piece.encode(pyramid.levels.len() - 1, 0, ranges, &mut parts);
    Some(parts.into_chunks())
}

/// Walks the groups of one piece in pre-order.
struct PieceEncoder<'a> {
    start: u64,
    bytes: &'a Bytes,
    pyramid: &'a Pyramid,
    all: &'a ChunkRangesRef,
}

impl PieceEncoder<'_> {
    fn encode(&self, level: usize, index: usize, ranges: &ChunkRangesRef, parts: &mut Parts) {
        if ranges.is_empty() {
            return;
        }
        if level == 0 {
            let from = index * GROUP_BYTES;
            let to = (from + GROUP_BYTES).min(self.bytes.len());
            let bytes = self.bytes.slice(from..to);
            if ranges.is_all() {
                parts.order.push(Part::Leaf(bytes));
            } else {
                let start = self.start + ((index as u64) << GROUP_LOG);
                encode_group(start, bytes, false, ranges, parts);
            }
            return;
        }
        let left = 2 * index;
        let Some([left_value, right_value]) = self.pyramid.pair(level - 1, left) else {
            return self.encode(level - 1, left, ranges, parts);
        };
        parts.pair(&left_value, &right_value);
        let chunk = |child: usize| {
            ChunkNum(self.start + ((child as u64) << (level - 1 + usize::from(GROUP_LOG))))
        };
        let (of_left, of_right) = ranges.split(chunk(left + 1));
        self.encode(level - 1, left, self.canonical(of_left, chunk(left)), parts);
        self.encode(
            level - 1,
            left + 1,
            self.canonical(of_right, chunk(left + 1)),
            parts,
        );
    }

    /// One open range from the subtree's start on, or from before, selects all of it.
    fn canonical<'b>(&'b self, ranges: &'b ChunkRangesRef, start: ChunkNum) -> &'b ChunkRangesRef {
        match ranges.boundaries() {
            [from] if *from <= start => self.all,
            _ => ranges,
        }
    }
}

/// Writes one group, or the selected chunks of it with the pairs that prove them; its chaining value.
fn encode_group(
    start: u64,
    bytes: Bytes,
    only: bool,
    ranges: &ChunkRangesRef,
    parts: &mut Parts,
) -> ChainingValue {
    let mut items = Vec::new();
    let start = ChunkNum(start);
    let value = traverse_selected_rec(
        start,
        bytes,
        only,
        ranges,
        u32::from(GROUP_LOG),
        true,
        &mut items,
    );
    for item in items {
        match item {
            EncodedItem::Parent(parent) => {
                parts.pair(parent.pair.0.as_bytes(), parent.pair.1.as_bytes());
            }
            EncodedItem::Leaf(leaf) => parts.order.push(Part::Leaf(leaf.data)),
            EncodedItem::Size(_) | EncodedItem::Error(_) | EncodedItem::Done => {}
        }
    }
    *value.as_bytes()
}
