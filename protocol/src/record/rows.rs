//! The map from repository to head that a freshness, or a new epoch, names by its hash.
//!
//! One blob of 64-byte rows: repository id, then head id, zeros where the repository has no head;
//! sorted by repository, none twice. One encoding: what decodes re-encodes to the same bytes.

use std::collections::BTreeMap;

use crate::hash::{Blake3, RecordId, RepositoryId};
use crate::limits::OBJECT_BYTES_MAX;

/// Bytes of one row.
const ROW_BYTES: usize = RepositoryId::SIZE + RecordId::SIZE;

/// Why bytes are not rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// Over the limit; not parsed.
    #[error("rows of {0} bytes, at most {OBJECT_BYTES_MAX} are read")]
    TooLarge(usize),
    /// The last row is not whole.
    #[error("rows of {0} bytes, not a multiple of {ROW_BYTES}")]
    Torn(usize),
    /// A row that should stand before the one before it, or stands twice.
    #[error("row {0} is not above the row before it")]
    Order(usize),
}

/// Repositories and their heads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows(Vec<(RepositoryId, Option<RecordId>)>);

impl Rows {
    /// The rows of a map; an all-zero head id means none, as it does in the bytes.
    pub fn new(heads: &BTreeMap<RepositoryId, Option<RecordId>>) -> Result<Self, RowsError> {
        let bytes = heads.len().saturating_mul(ROW_BYTES);
        if bytes > OBJECT_BYTES_MAX {
            return Err(RowsError::TooLarge(bytes));
        }
        let none = RecordId::from_bytes([0; RecordId::SIZE]);
        let row = |(id, head): (&RepositoryId, &Option<RecordId>)| {
            (*id, head.filter(|head| *head != none))
        };
        Ok(Self(heads.iter().map(row).collect()))
    }

    /// Decodes the one form.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowsError> {
        if bytes.len() > OBJECT_BYTES_MAX {
            return Err(RowsError::TooLarge(bytes.len()));
        }
        let (rows, torn) = bytes.as_chunks::<ROW_BYTES>();
        if !torn.is_empty() {
            return Err(RowsError::Torn(bytes.len()));
        }
        let mut decoded: Vec<(RepositoryId, Option<RecordId>)> = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let (id, head) = halves(row);
            let id = RepositoryId::from_bytes(id);
            if decoded.last().is_some_and(|(last, _)| *last >= id) {
                return Err(RowsError::Order(index));
            }
            decoded.push((id, (head != [0; RecordId::SIZE]).then(|| head.into())));
        }
        Ok(Self(decoded))
    }

    /// The one form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * ROW_BYTES);
        for (id, head) in &self.0 {
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(
                head.map_or([0; RecordId::SIZE], |head| *head.as_bytes())
                    .as_slice(),
            );
        }
        bytes
    }

    /// BLAKE3 of the one form: what records name it by.
    pub fn hash(&self) -> Blake3 {
        Blake3::of(&self.encode())
    }

    /// The row of a repository: `None` without one, `Some(None)` for one without a head.
    pub fn get(&self, repository: &RepositoryId) -> Option<Option<RecordId>> {
        let index = self
            .0
            .binary_search_by_key(repository, |(id, _)| *id)
            .ok()?;
        Some(self.0[index].1)
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (RepositoryId, Option<RecordId>)> {
        self.0.iter().copied()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A row's two ids.
fn halves(row: &[u8; ROW_BYTES]) -> ([u8; RepositoryId::SIZE], [u8; RecordId::SIZE]) {
    let (id, head) = row.split_at(RepositoryId::SIZE);
    let whole = "invariant: a row is two ids";
    (id.try_into().expect(whole), head.try_into().expect(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_encoding_and_nothing_else_is_taken() {
        let (low, high) = ([1; 32], [2; 32]);
        let heads = BTreeMap::from([(high.into(), Some([9; 32].into())), (low.into(), None)]);
        let rows = Rows::new(&heads).unwrap();
        let bytes = rows.encode();
        assert_eq!(bytes, [low, [0; 32], high, [9; 32]].concat());
        assert_eq!(Rows::decode(&bytes), Ok(rows.clone()));
        assert_eq!(rows.hash(), Blake3::of(&bytes));
        assert_eq!(rows.get(&low.into()), Some(None));
        assert_eq!(rows.get(&high.into()), Some(Some([9; 32].into())));
        assert_eq!(rows.get(&[3; 32].into()), None);
        assert_eq!(Rows::decode(&bytes[..127]), Err(RowsError::Torn(127)));
        let swapped = [high, [9; 32], low, [0; 32]].concat();
        assert_eq!(Rows::decode(&swapped), Err(RowsError::Order(1)));
        let twice = [low, [0; 32], low, [9; 32]].concat();
        assert_eq!(Rows::decode(&twice), Err(RowsError::Order(1)));
        assert_eq!(Rows::decode(&[]), Ok(Rows::default()));
    }

    #[test]
    fn zeros_for_a_head_mean_none() {
        let heads = BTreeMap::from([([1; 32].into(), Some([0; 32].into()))]);
        let rows = Rows::new(&heads).unwrap();
        assert_eq!(Rows::decode(&rows.encode()), Ok(rows));
    }
}
