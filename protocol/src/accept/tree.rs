//! The namespace records of one namespace, and which of them win.
//!
//! Each record but the first hangs on its `prev`; whether it may is decided by these two alone. The
//! tree is then walked from its first record. Where it branches, a branch that the recovery key of
//! that point signed wins over those that it didn't, whatever their versions; otherwise two records
//! of one version in different branches freeze the namespace there, and without such two the branch
//! with the highest version goes on.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::RecordId;
use crate::record::{Header, Namespace};

use super::Refusal;
use super::chain::Version;
use super::course::Course;
use super::pool::{Pool, Ticket};

/// A record whose place in the tree is proven.
#[derive(Debug, Clone)]
struct Node {
    version: Version,
    body: Namespace,
    /// Signed by the recovery key of the record before.
    recovered: bool,
}

/// A record whose `prev` is not known.
#[derive(Debug, Clone)]
struct Orphan {
    header: Header,
    body: Namespace,
    ticket: Option<Ticket>,
}

/// What came of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Planted {
    /// In the tree, with those that waited for it: these.
    Grown(Vec<RecordId>),
    /// Its `prev` is missing.
    Orphaned,
    /// Not entitled to its place.
    Refused(Refusal),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    first: Option<RecordId>,
    nodes: BTreeMap<RecordId, Node>,
    children: BTreeMap<RecordId, BTreeSet<RecordId>>,
    orphans: BTreeMap<RecordId, Orphan>,
    /// Orphans by what they wait for.
    missing: BTreeSet<(RecordId, RecordId)>,
    /// Whether two records hang on one.
    branched: bool,
}

/// What matters of a branch.
struct Branch {
    root: RecordId,
    /// The lowest id of each version.
    versions: BTreeMap<Version, RecordId>,
    /// The first record that a recovery key signed.
    recovered: Option<(Version, RecordId)>,
}

impl Tree {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.orphans.is_empty()
    }

    pub(super) fn contains(&self, id: &RecordId) -> bool {
        self.nodes.contains_key(id) || self.orphans.contains_key(id)
    }

    /// Whether a record that is known waits for the one before it.
    pub(super) fn waits(&self, id: &RecordId) -> Option<bool> {
        self.contains(id).then(|| self.orphans.contains_key(id))
    }

    /// Version and body of a record in the tree.
    pub(super) fn get(&self, id: &RecordId) -> Option<(Version, &Namespace)> {
        self.nodes.get(id).map(|node| (node.version, &node.body))
    }

    pub(super) fn forget(&mut self, id: &RecordId) {
        if let Some(orphan) = self.orphans.remove(id) {
            self.missing.remove(&(prev_of(&orphan.header, *id), *id));
        }
    }

    /// Adds a record that is not known yet; `admit` is called if it must wait.
    pub(super) fn plant(
        &mut self,
        id: RecordId,
        header: &Header,
        body: &Namespace,
        pool: &mut Pool,
        admit: impl FnOnce(&mut Pool) -> Ticket,
    ) -> Planted {
        let prev = prev_of(header, id);
        let checked = if prev == id {
            check_first(header, body)
        } else if let Some(parent) = self.nodes.get(&prev) {
            check(parent, header, body)
        } else {
            let ticket = Some(admit(pool));
            let (header, body) = (header.clone(), body.clone());
            self.missing.insert((prev, id));
            self.orphans.insert(
                id,
                Orphan {
                    header,
                    body,
                    ticket,
                },
            );
            return Planted::Orphaned;
        };
        match checked {
            Ok(recovered) => {
                self.grow(id, header, body.clone(), recovered);
                Planted::Grown(self.adopt(id, pool))
            }
            Err(refusal) => Planted::Refused(refusal),
        }
    }

    fn grow(&mut self, id: RecordId, header: &Header, body: Namespace, recovered: bool) {
        let prev = prev_of(header, id);
        if prev == id {
            self.first = Some(id);
        } else {
            let siblings = self.children.entry(prev).or_default();
            siblings.insert(id);
            self.branched |= siblings.len() > 1;
        }
        let version = version_of(header);
        let node = Node {
            version,
            body,
            recovered,
        };
        self.nodes.insert(id, node);
    }

    /// Adds the orphans that waited for a record, and theirs; all of them after the record.
    fn adopt(&mut self, id: RecordId, pool: &mut Pool) -> Vec<RecordId> {
        let mut grown = vec![id];
        let mut next = 0;
        while let Some(parent) = grown.get(next).copied() {
            next += 1;
            let (low, high) = ([0; RecordId::SIZE].into(), [0xff; RecordId::SIZE].into());
            let waiting = self.missing.range((parent, low)..=(parent, high));
            let waiting: Vec<RecordId> = waiting.map(|(_, id)| *id).collect();
            for id in waiting {
                self.missing.remove(&(parent, id));
                let Some(mut orphan) = self.orphans.remove(&id) else {
                    continue;
                };
                pool.release(&mut orphan.ticket);
                if let Ok(recovered) = check(&self.nodes[&parent], &orphan.header, &orphan.body) {
                    self.grow(id, &orphan.header, orphan.body, recovered);
                    grown.push(id);
                }
            }
        }
        grown
    }

    /// Follows records that have grown; `true` if more than grants was added to the course.
    pub(super) fn follow(&self, course: &mut Option<Course>) -> bool {
        let before = course.take().unwrap_or_default();
        let after = self.walk(&before);
        let epoch = before.epoch();
        let adds = after.as_ref().is_some_and(|(path, frozen)| {
            path.starts_with(&before.path) && *frozen == before.frozen
        });
        let Some((path, frozen)) = after else {
            return false;
        };
        let mut followed = if adds { before } else { Course::default() };
        for id in &path[followed.path.len()..] {
            let node = &self.nodes[id];
            followed.push(*id, node.version.0, &node.body);
        }
        followed.frozen = frozen;
        let more = !adds || followed.epoch() != epoch;
        *course = Some(followed);
        more
    }

    /// The records from the first to the one in force, and two that exclude each other after it.
    fn walk(&self, before: &Course) -> Option<(Vec<RecordId>, Option<[RecordId; 2]>)> {
        // Nearly always the tree is a line, and grows at its end.
        let mut path = if self.branched || before.path.is_empty() {
            vec![self.first?]
        } else {
            before.path.clone()
        };
        let mut last = *path.last()?;
        loop {
            match self.choose(last) {
                Ok(Some(next)) => last = next,
                Ok(None) => return Some((path, None)),
                Err(proof) => return Some((path, Some(proof))),
            }
            path.push(last);
        }
    }

    /// The record after `id` that counts, or two that exclude each other.
    fn choose(&self, id: RecordId) -> Result<Option<RecordId>, [RecordId; 2]> {
        let Some(children) = self.children.get(&id) else {
            return Ok(None);
        };
        if children.len() == 1 {
            return Ok(children.first().copied());
        }
        let branches: Vec<Branch> = children.iter().map(|child| self.branch(*child)).collect();
        if self.nodes[&id].body.recovery.is_some() {
            let recovered = branches.iter().filter(|branch| branch.recovered.is_some());
            let recovered: Vec<&Branch> = recovered.collect();
            let firsts = recovered.iter().filter_map(|branch| branch.recovered);
            match recovered.as_slice() {
                [] => {}
                [only] => return Ok(Some(only.root)),
                _ => return Err(lowest_two(firsts)),
            }
        }
        let mut versions: BTreeMap<Version, Vec<RecordId>> = BTreeMap::new();
        for (version, id) in branches.iter().flat_map(|branch| &branch.versions) {
            versions.entry(*version).or_default().push(*id);
        }
        if let Some((version, ids)) = versions.iter().find(|(_, ids)| ids.len() > 1) {
            return Err(lowest_two(ids.iter().map(|id| (*version, *id))));
        }
        let highest = |branch: &&Branch| branch.versions.last_key_value().map(|(key, _)| *key);
        Ok(branches
            .iter()
            .max_by_key(highest)
            .map(|branch| branch.root))
    }

    fn branch(&self, root: RecordId) -> Branch {
        let mut branch = Branch {
            root,
            versions: BTreeMap::new(),
            recovered: None,
        };
        let mut found = vec![root];
        while let Some(id) = found.pop() {
            let node = &self.nodes[&id];
            let lowest = branch.versions.entry(node.version).or_insert(id);
            *lowest = id.min(*lowest);
            if node.recovered {
                let first = branch.recovered.get_or_insert((node.version, id));
                *first = (node.version, id).min(*first);
            }
            found.extend(self.children.get(&id).into_iter().flatten());
        }
        branch
    }
}

/// The lowest two of at least two, their ids in order.
fn lowest_two(records: impl Iterator<Item = (Version, RecordId)>) -> [RecordId; 2] {
    let sorted: BTreeSet<(Version, RecordId)> = records.collect();
    let mut ids = sorted.into_iter().map(|(_, id)| id);
    let mut next = || {
        ids.next()
            .expect("invariant: two branches have a record each")
    };
    let mut pair = [next(), next()];
    pair.sort();
    pair
}

fn version_of(header: &Header) -> Version {
    (header.epoch, header.chain.map_or(1, |link| link.seq))
}

/// The record that this one hangs on; a first record hangs on itself.
fn prev_of(header: &Header, id: RecordId) -> RecordId {
    header.chain.and_then(|link| link.prev).unwrap_or(id)
}

fn check_first(header: &Header, body: &Namespace) -> Result<bool, Refusal> {
    if header
        .signers
        .iter()
        .any(|key| !body.root.keys.contains(key))
    {
        return Err(Refusal::Stranger);
    }
    if !body.root.are_met_by(&header.signers) {
        return Err(Refusal::Threshold);
    }
    if body.carried.is_some() {
        return Err(Refusal::Carried);
    }
    Ok(false)
}

/// Whether a record may hang on another, and if so, whether the recovery key signed it.
fn check(parent: &Node, header: &Header, body: &Namespace) -> Result<bool, Refusal> {
    let (epoch, seq) = parent.version;
    let version = version_of(header);
    if version != (epoch, seq + 1) && version != (epoch + 1, 1) {
        return Err(Refusal::Version);
    }
    let same_epoch = version.0 == epoch;
    if same_epoch && body.home != parent.body.home {
        return Err(Refusal::Home);
    }
    if same_epoch && body.carried != parent.body.carried {
        return Err(Refusal::Carried);
    }
    let is_recovery = |key| parent.body.recovery == Some(crate::key::PublicKey::fingerprint(key));
    let recovered = header.signers.iter().any(is_recovery);
    let (old, new) = (&parent.body.root, &body.root);
    let known = |key| old.keys.contains(key) || new.keys.contains(key) || is_recovery(key);
    if !header.signers.iter().all(known) {
        return Err(Refusal::Stranger);
    }
    if !new.are_met_by(&header.signers) || !(recovered || old.are_met_by(&header.signers)) {
        return Err(Refusal::Threshold);
    }
    // The root may set a recovery key where there is none; only the recovery key replaces itself.
    if parent.body.recovery.is_some() && body.recovery != parent.body.recovery && !recovered {
        return Err(Refusal::Recovery);
    }
    Ok(recovered)
}
