//! The commits that a repository's refs reach, in an order where parents come first.
//!
//! Held in memory for the repositories in use: some 90 bytes a commit. Answers membership, logs, counts and
//! short ids without touching the store.

use std::collections::{BinaryHeap, HashMap, HashSet};

use cairn_protocol::entry::CommitEntry;
use cairn_protocol::hash::{Blake3, GitOid};

use super::RepoError;

/// Commits of one repository; a longer history is refused rather than held.
const COMMITS_MAX: usize = 5_000_000;

/// One commit and where its parents stand.
#[derive(Debug, Clone)]
struct Link {
    oid: GitOid,
    entry: Blake3,
    parents: Vec<u32>,
    /// Commits from here to the root, itself included, where no merge lies between; 0 otherwise.
    chain: u32,
}

/// A repository's commit graph.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    links: Vec<Link>,
    /// Indices into `links`, sorted by oid.
    by_oid: Vec<u32>,
    tips: HashSet<Blake3>,
}

/// What a commit id or the beginning of one leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Match {
    None,
    One(usize),
    Several,
}

type Read<'a> = dyn Fn(&Blake3) -> Result<CommitEntry, RepoError> + 'a;

impl History {
    /// Walks everything that the tips reach.
    pub(crate) fn walk(tips: &[Blake3], read: &Read<'_>) -> Result<Self, RepoError> {
        let mut history = Self::default();
        history.add(tips, read)?;
        history.index();
        Ok(history)
    }

    /// This history with new tips, or `None` where that would keep commits which nothing reaches any more.
    pub(crate) fn extended(
        &self,
        tips: &[Blake3],
        read: &Read<'_>,
    ) -> Result<Option<Self>, RepoError> {
        let mut history = self.clone();
        let before = history.links.len();
        history.tips.clear();
        history.add(tips, read)?;
        let continued: HashSet<Blake3> = history.links[before..]
            .iter()
            .flat_map(|link| &link.parents)
            .map(|&parent| history.links[parent as usize].entry)
            .collect();
        let reached = self
            .tips
            .iter()
            .all(|tip| history.tips.contains(tip) || continued.contains(tip));
        if !reached {
            return Ok(None);
        }
        history.index();
        Ok(Some(history))
    }

    /// Depth first, parents before children.
    fn add(&mut self, tips: &[Blake3], read: &Read<'_>) -> Result<(), RepoError> {
        self.tips.extend(tips);
        let mut placed: HashMap<GitOid, u32> = HashMap::new();
        let known = |history: &Self, placed: &HashMap<GitOid, u32>, oid: &GitOid| {
            placed.get(oid).copied().or_else(|| history.position(oid))
        };
        for tip in tips {
            let mut stack = vec![(*tip, read(tip)?, false)];
            while let Some((hash, entry, expanded)) = stack.pop() {
                if known(self, &placed, &entry.commit).is_some() {
                    continue;
                }
                let mut parents = Vec::with_capacity(entry.parents.len());
                let mut missing = Vec::new();
                // A partial mirror may not know a parent: its history begins there.
                for parent in entry.parents.iter().flatten() {
                    let read_parent = read(parent)?;
                    match known(self, &placed, &read_parent.commit) {
                        Some(index) => parents.push(index),
                        None => missing.push((*parent, read_parent, false)),
                    }
                }
                if !missing.is_empty() {
                    if expanded {
                        return Err(RepoError::Damaged(format!(
                            "commit {} is its own ancestor",
                            entry.commit
                        )));
                    }
                    stack.push((hash, entry, true));
                    stack.extend(missing);
                    continue;
                }
                if self.links.len() >= COMMITS_MAX {
                    return Err(RepoError::Damaged(format!(
                        "more than {COMMITS_MAX} commits in one history"
                    )));
                }
                let chain = match parents.as_slice() {
                    [] => 1,
                    [parent] => match self.links[*parent as usize].chain {
                        0 => 0,
                        chain => chain + 1,
                    },
                    _ => 0,
                };
                let index = u32::try_from(self.links.len())
                    .expect("invariant: COMMITS_MAX is far below 2^32");
                placed.insert(entry.commit, index);
                self.links.push(Link {
                    oid: entry.commit,
                    entry: hash,
                    parents,
                    chain,
                });
            }
        }
        Ok(())
    }

    fn index(&mut self) {
        self.by_oid = (0..u32::try_from(self.links.len())
            .expect("invariant: COMMITS_MAX is far below 2^32"))
            .collect();
        let links = &self.links;
        self.by_oid
            .sort_unstable_by_key(|&index| links[index as usize].oid);
    }

    fn position(&self, oid: &GitOid) -> Option<u32> {
        self.by_oid
            .binary_search_by_key(oid, |&index| self.links[index as usize].oid)
            .ok()
            .map(|at| self.by_oid[at])
    }

    /// Finds a commit by the first hex digits of its id.
    pub(crate) fn find(&self, prefix: &str) -> Match {
        let start = self
            .by_oid
            .partition_point(|&index| self.links[index as usize].oid.to_hex().as_str() < prefix);
        let fits = |at: usize| {
            self.by_oid
                .get(at)
                .is_some_and(|&index| self.links[index as usize].oid.to_hex().starts_with(prefix))
        };
        match (fits(start), fits(start + 1)) {
            (false, _) => Match::None,
            (true, false) => Match::One(self.by_oid[start] as usize),
            (true, true) => Match::Several,
        }
    }

    /// BLAKE3 of the commit entry at a position.
    pub(crate) fn entry(&self, index: usize) -> Blake3 {
        self.links[index].entry
    }

    /// All commits, parents first, as hashes of their commit entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Blake3> + '_ {
        self.links.iter().map(|link| link.entry)
    }

    /// Position of a commit.
    pub(crate) fn index_of(&self, oid: &GitOid) -> Option<usize> {
        self.position(oid).map(|index| index as usize)
    }

    /// A commit's ancestors, itself first, as hashes of commit entries: `skip` left out, at most `limit`.
    pub(crate) fn log(&self, from: usize, skip: u64, limit: usize) -> Vec<Blake3> {
        let mut found = Vec::new();
        let mut ancestors = self.ancestors(from);
        // On an unbranched stretch the n-th ancestor is found without visiting those before it only when
        // positions are consecutive; visiting is a few nanoseconds each, so it is not made cleverer.
        let mut left = skip;
        while left > 0 {
            if ancestors.next().is_none() {
                return found;
            }
            left -= 1;
        }
        found.extend(ancestors.take(limit).map(|index| self.links[index].entry));
        found
    }

    /// How many commits [`Self::log`] has in all.
    pub(crate) fn count(&self, from: usize) -> u64 {
        match self.links[from].chain {
            0 => self.ancestors(from).count() as u64,
            chain => u64::from(chain),
        }
    }

    /// First parents of a commit, itself first, as hashes of commit entries.
    pub(crate) fn first_parents(&self, from: usize) -> impl Iterator<Item = Blake3> + '_ {
        let next = |&index: &usize| {
            self.links[index]
                .parents
                .first()
                .map(|&parent| parent as usize)
        };
        std::iter::successors(Some(from), next).map(|index| self.links[index].entry)
    }

    /// The newest commit that both come from.
    pub(crate) fn merge_base(&self, a: usize, b: usize) -> Option<usize> {
        let mut heap = BinaryHeap::from([(a, [true, false]), (b, [false, true])]);
        while let Some((index, mut from)) = heap.pop() {
            // Positions fall strictly: when a commit comes out, so did all that lead to it.
            while let Some((_, other)) = heap.peek().filter(|(same, _)| *same == index) {
                from = [from[0] || other[0], from[1] || other[1]];
                heap.pop();
            }
            if from == [true; 2] {
                return Some(index);
            }
            let parents = self.links[index].parents.iter();
            heap.extend(parents.map(|&parent| (parent as usize, from)));
        }
        None
    }

    fn ancestors(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        let mut heap = BinaryHeap::from([from]);
        let mut last = None;
        std::iter::from_fn(move || {
            loop {
                // Positions fall strictly, so one commit reached twice comes out twice in a row.
                let index = heap.pop()?;
                if last == Some(index) {
                    continue;
                }
                last = Some(index);
                heap.extend(
                    self.links[index]
                        .parents
                        .iter()
                        .map(|&parent| parent as usize),
                );
                return Some(index);
            }
        })
    }

    /// Bytes that this takes in memory, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        128 + self.links.len() as u64 * 92
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history of commits by number, each with its parents; its tips are all of them.
    fn history(parents: &[&[usize]]) -> History {
        let hash = |number: usize| Blake3::of(&number.to_le_bytes());
        let tips: Vec<Blake3> = (0..parents.len()).map(hash).collect();
        let read = |wanted: &Blake3| {
            let number = tips.iter().position(|hash| hash == wanted).unwrap();
            Ok(CommitEntry {
                commit: oid(number),
                object: *wanted,
                manifest: None,
                parents: parents[number]
                    .iter()
                    .map(|parent| Some(hash(*parent)))
                    .collect(),
            })
        };
        History::walk(&tips, &read).unwrap()
    }

    fn oid(number: usize) -> GitOid {
        GitOid::from_bytes([u8::try_from(number).unwrap(); 20])
    }

    #[test]
    fn the_merge_base_is_the_newest_commit_that_both_come_from() {
        // 0 - 1 - 2 - 5 (merges 4), 1 - 3 - 4, and 6 by itself.
        let history = history(&[&[], &[0], &[1], &[1], &[3], &[2, 4], &[]]);
        let base = |a: usize, b: usize| {
            let at = |number| history.index_of(&oid(number)).unwrap();
            let base = history.merge_base(at(a), at(b))?;
            (0..7).find(|number| at(*number) == base)
        };
        for (a, b, expected) in [
            (2, 4, Some(1)),
            (0, 4, Some(0)),
            (3, 3, Some(3)),
            (5, 4, Some(4)),
            (5, 2, Some(2)),
            (6, 5, None),
        ] {
            assert_eq!(base(a, b), expected, "{a} and {b}");
            assert_eq!(base(b, a), expected, "{b} and {a}");
        }
    }
}
