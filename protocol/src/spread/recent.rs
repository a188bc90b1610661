//! A bounded memory of ids: what was not touched for long is forgotten.

use std::collections::BTreeMap;

use crate::hash::RecordId;

/// Values by id, at most `capacity` of them and at least the newest half of that.
#[derive(Debug)]
pub(super) struct Recent<V> {
    half: usize,
    young: BTreeMap<RecordId, V>,
    old: BTreeMap<RecordId, V>,
}

impl<V> Recent<V> {
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            half: capacity / 2,
            young: BTreeMap::new(),
            old: BTreeMap::new(),
        }
    }

    pub(super) fn insert(&mut self, id: RecordId, value: V) {
        self.old.remove(&id);
        self.young.insert(id, value);
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(super) fn get(&self, id: &RecordId) -> Option<&V> {
        self.young.get(id).or_else(|| self.old.get(id))
    }

    pub(super) fn contains(&self, id: &RecordId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn remove(&mut self, id: &RecordId) {
        self.young.remove(id);
        self.old.remove(id);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_half_is_always_there_and_never_more_than_the_capacity() {
        let id = |index: u64| RecordId::from_bytes(*blake3::hash(&index.to_le_bytes()).as_bytes());
        let mut recent = Recent::new(10);
        for index in 0..100 {
            recent.insert(id(index), index);
            assert!(recent.len() <= 10);
            for back in index.saturating_sub(4)..=index {
                assert_eq!(recent.get(&id(back)), Some(&back));
            }
        }
        assert!(!recent.contains(&id(50)));
        recent.remove(&id(99));
        assert!(!recent.contains(&id(99)));
    }
}
