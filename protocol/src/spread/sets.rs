//! The sets that are compared: the ids of all records that are here, one set a namespace.

use std::collections::BTreeMap;

use negentropy::{Bound, Error, Id, Item, Negentropy, NegentropyStorageBase};

use super::Known;
use super::message::{Scope, Total};
use crate::hash::{NamespaceId, RecordId};
use crate::limits::RECONCILE_BYTES_MAX;

/// A namespace's records by time and id.
#[derive(Debug, Default)]
struct Set {
    items: Vec<Item>,
    /// How many of them stand in order; the rest came since.
    sorted: usize,
    /// Of all ids as little-endian numbers, modulo 2^256.
    sum: [u64; 4],
}

impl Set {
    fn insert(&mut self, time: u64, id: RecordId) {
        let id = *id.as_bytes();
        let item = Item::with_timestamp_and_id(time, Id::from_byte_array(id));
        // Most come in the order of their times.
        if self.sorted == self.items.len() && self.items.last().is_none_or(|last| *last < item) {
            self.sorted += 1;
        }
        self.items.push(item);
        let (lanes, _) = id.as_chunks::<8>();
        let mut carry = false;
        for (lane, bytes) in self.sum.iter_mut().zip(lanes) {
            let (sum, one) = lane.overflowing_add(u64::from_le_bytes(*bytes));
            let (sum, other) = sum.overflowing_add(u64::from(carry));
            *lane = sum;
            carry = one | other;
        }
    }

    /// Puts what came since in order; a merge of two runs where that is little.
    fn sort(&mut self) {
        if self.sorted < self.items.len() {
            self.items[self.sorted..].sort_unstable();
            self.items.sort();
            self.sorted = self.items.len();
        }
    }

    fn scope(&self, namespace: NamespaceId) -> Scope {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.items.len() as u64).to_le_bytes());
        for lane in self.sum {
            hasher.update(&lane.to_le_bytes());
        }
        Scope {
            namespace,
            count: self.items.len() as u64,
            fingerprint: first_half(&hasher.finalize()),
        }
    }
}

fn first_half(hash: &blake3::Hash) -> [u8; 16] {
    let (halves, _) = hash.as_bytes().as_chunks::<16>();
    halves[0]
}

impl NegentropyStorageBase for Set {
    fn size(&self) -> Result<usize, Error> {
        Ok(self.items.len())
    }

    fn get_item(&self, index: usize) -> Result<Option<Item>, Error> {
        Ok(self.items.get(index).copied())
    }

    fn iterate(
        &self,
        begin: usize,
        end: usize,
        take: &mut dyn FnMut(Item, usize) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let items = self.items.get(begin..end).ok_or(Error::BadRange)?;
        for (index, item) in (begin..).zip(items) {
            if !take(*item, index)? {
                break;
            }
        }
        Ok(())
    }

    fn find_lower_bound(&self, first: usize, last: usize, value: &Bound) -> usize {
        let range = self.items.get(first..last).unwrap_or_default();
        first + range.partition_point(|item| *item < value.item)
    }
}

/// What a round of comparison tells who began it.
#[derive(Debug)]
pub(super) struct Learnt {
    /// The next round; none where all is known.
    pub(super) next: Option<Vec<u8>>,
    /// Here and not there, in the order in which they were taken.
    pub(super) have: Vec<RecordId>,
    /// There and not here.
    pub(super) need: Vec<RecordId>,
}

/// All sets.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// Each record's number, in the order in which they were taken: one in which none waits for another.
    order: BTreeMap<RecordId, u64>,
    scopes: BTreeMap<NamespaceId, Set>,
    total: Option<Total>,
}

impl Sets {
    /// Takes a record in, or says that it is there.
    pub(super) fn insert(&mut self, known: Known) -> bool {
        let next = self.order.len() as u64;
        if self.contains(&known.id) {
            return false;
        }
        self.order.insert(known.id, next);
        let set = self.scopes.entry(known.namespace).or_default();
        set.insert(known.time, known.id);
        self.total = None;
        true
    }

    pub(super) fn contains(&self, id: &RecordId) -> bool {
        self.order.contains_key(id)
    }

    /// Those that are here, none twice, in the order in which they were taken.
    pub(super) fn in_order(&self, ids: impl IntoIterator<Item = RecordId>) -> Vec<RecordId> {
        let here = ids.into_iter();
        let here: BTreeMap<u64, RecordId> = here
            .filter_map(|id| Some((*self.order.get(&id)?, id)))
            .collect();
        here.into_values().collect()
    }

    pub(super) fn namespaces(&self) -> usize {
        self.scopes.len()
    }

    /// How many records of a namespace there are.
    pub(super) fn count(&self, namespace: &NamespaceId) -> usize {
        self.scopes.get(namespace).map_or(0, |set| set.items.len())
    }

    pub(super) fn total(&mut self) -> Total {
        if let Some(total) = self.total {
            return total;
        }
        let mut hasher = blake3::Hasher::new();
        for scope in self.scopes() {
            hasher.update(scope.namespace.as_bytes());
            hasher.update(&scope.count.to_le_bytes());
            hasher.update(&scope.fingerprint);
        }
        let total = Total {
            namespaces: self.scopes.len() as u64,
            fingerprint: first_half(&hasher.finalize()),
        };
        self.total = Some(total);
        total
    }

    /// All summaries, by namespace.
    pub(super) fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.scopes.iter().map(|(id, set)| set.scope(*id))
    }

    /// The summary of one namespace, of none too.
    pub(super) fn scope(&self, namespace: NamespaceId) -> Scope {
        match self.scopes.get(&namespace) {
            Some(set) => set.scope(namespace),
            None => Set::default().scope(namespace),
        }
    }

    /// The summaries of what lies above the first bound and, where there is one, not above the other.
    pub(super) fn scopes_between(
        &self,
        above: Option<NamespaceId>,
        last: Option<NamespaceId>,
    ) -> Vec<Scope> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if matches!((above, last), (Some(above), Some(last)) if last <= above) {
            return Vec::new();
        }
        let range = (
            above.map_or(Unbounded, Excluded),
            last.map_or(Unbounded, Included),
        );
        let scopes = self.scopes.range(range);
        scopes.map(|(id, set)| set.scope(*id)).collect()
    }

    /// The first round over a namespace.
    pub(super) fn begin(&mut self, namespace: &NamespaceId) -> Result<Vec<u8>, Error> {
        #[allow(
            clippy::redundant_closure_for_method_calls,
            reason = "the method alone is not general enough in its lifetime"
        )]
        self.with(namespace, |compared| compared.initiate())
    }

    /// The answer to a neighbour's round.
    pub(super) fn answer(
        &mut self,
        namespace: &NamespaceId,
        round: &[u8],
    ) -> Result<Vec<u8>, Error> {
        self.with(namespace, |compared| compared.reconcile(round))
    }

    /// What a neighbour's answer tells.
    pub(super) fn learn(&mut self, namespace: &NamespaceId, round: &[u8]) -> Result<Learnt, Error> {
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let next = self.with(namespace, |compared| {
            compared.set_initiator();
            compared.reconcile_with_ids(round, &mut have, &mut need)
        })?;
        let ids = |ids: Vec<Id>| {
            ids.into_iter()
                .map(|id| RecordId::from_bytes(id.to_bytes()))
        };
        // They come in an order that differs from run to run.
        let mut need: Vec<RecordId> = ids(need).collect();
        need.sort_unstable();
        need.dedup();
        Ok(Learnt {
            next,
            have: self.in_order(ids(have)),
            need,
        })
    }

    /// Each round stands by itself: nothing is kept of a comparison but what it has led to.
    fn with<T>(
        &mut self,
        namespace: &NamespaceId,
        compare: impl FnOnce(&mut Negentropy<'_, Set>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let none = Set::default();
        let set = match self.scopes.get_mut(namespace) {
            Some(set) => {
                set.sort();
                &*set
            }
            None => &none,
        };
        compare(&mut Negentropy::borrowed(set, RECONCILE_BYTES_MAX as u64)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(index: u32) -> RecordId {
        RecordId::from_bytes(*blake3::hash(&index.to_le_bytes()).as_bytes())
    }

    fn known(index: u32) -> Known {
        Known {
            id: id(index),
            namespace: NamespaceId::from_bytes([1; 32]),
            time: u64::from(index) / 50,
        }
    }

    /// Compares to the end; what the one lacks, what the other lacks, and the rounds.
    fn compare(one: &mut Sets, other: &mut Sets) -> (Vec<RecordId>, Vec<RecordId>, usize) {
        let namespace = NamespaceId::from_bytes([1; 32]);
        let (mut have, mut need, mut rounds) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(one.begin(&namespace).expect("a round"));
        while let Some(round) = next {
            assert!(round.len() <= RECONCILE_BYTES_MAX + 4_096);
            let answer = other.answer(&namespace, &round).expect("an answer");
            assert!(answer.len() <= RECONCILE_BYTES_MAX + 4_096);
            let learnt = one.learn(&namespace, &answer).expect("a result");
            have.extend(learnt.have);
            need.extend(learnt.need);
            next = learnt.next;
            rounds += 1;
        }
        (have, need, rounds)
    }

    proptest! {
        #[test]
        fn a_comparison_finds_exactly_what_differs(
            members in proptest::collection::vec((0_u32..3000, 0_u8..3), 0..600),
        ) {
            let (mut one, mut other) = (Sets::default(), Sets::default());
            for (index, side) in &members {
                if *side != 1 { one.insert(known(*index)); }
                if *side != 2 { other.insert(known(*index)); }
            }
            let (mut have, mut need, _) = compare(&mut one, &mut other);
            have.sort();
            need.sort();
            let lacks = |from: &Sets, to: &Sets| -> Vec<RecordId> {
                from.order.keys().filter(|id| !to.contains(id)).copied().collect()
            };
            prop_assert_eq!(&have, &lacks(&one, &other));
            prop_assert_eq!(&need, &lacks(&other, &one));
            prop_assert_eq!(one.total() == other.total(), have.is_empty() && need.is_empty());
        }
    }

    #[test]
    fn a_newcomer_learns_a_large_set_in_rounds_of_bounded_size() {
        let (mut one, mut other) = (Sets::default(), Sets::default());
        (0..20_000).rev().for_each(|index| {
            other.insert(known(index));
        });
        let (have, need, rounds) = compare(&mut one, &mut other);
        assert_eq!((have.len(), need.len()), (0, 20_000));
        assert!((9..=14).contains(&rounds), "{rounds}");
        let (have, need, rounds) = compare(&mut other, &mut one);
        assert_eq!((have.len(), need.len(), rounds), (20_000, 0, 1));
        let in_order: Vec<_> = (0..20_000).rev().map(id).collect();
        assert_eq!(have, in_order, "what rests on others comes after them");
    }

    #[test]
    fn a_fingerprint_tells_sets_apart_in_whatever_order_they_came() {
        let (mut one, mut other) = (Sets::default(), Sets::default());
        for index in 0..100 {
            assert!(one.insert(known(index)));
            assert!(!one.insert(known(index)));
            other.insert(known(99 - index));
            assert_eq!(one.total() == other.total(), index == 99);
        }
        assert_eq!(one.total().namespaces, 1);
        let [scope] = one.scopes().collect::<Vec<_>>()[..] else {
            panic!("one namespace")
        };
        assert_eq!((scope, scope.count), (other.scope(scope.namespace), 100));
    }
}
