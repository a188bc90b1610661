//! Reads and keeps what repositories are made of: manifests, commit entries, histories.
//!
//! Everything is addressed by hash, so what is kept here can never be out of date, only dropped.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::hash::{Blake3, RepositoryId};
use cairn_protocol::limits::PATH_DEPTH_MAX;
use cairn_protocol::manifest::{EntryKind as ManifestKind, Manifest, ManifestEntry};
use cairn_protocol::refs::Refs;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::RepoError;
use super::history::History;
use super::invalid::WrongClaims;
use crate::store::Store;

/// Bytes of parsed manifests kept; the least useful are dropped beyond it.
const MANIFEST_CACHE_BYTES: u64 = 32 << 20;
/// Bytes of histories kept; the least useful are dropped beyond it and walked again when asked for.
const HISTORY_CACHE_BYTES: u64 = 64 << 20;
/// Bytes that one manifest entry is reckoned to take in memory.
const ENTRY_BYTES: u64 = 320;

#[derive(Debug, Clone)]
struct ManifestWeight;

impl Weighter<Blake3, Arc<Manifest>> for ManifestWeight {
    fn weight(&self, _: &Blake3, manifest: &Arc<Manifest>) -> u64 {
        ENTRY_BYTES * (manifest.entries.len() as u64 + 1)
    }
}

#[derive(Debug, Clone)]
struct HistoryWeight;

impl Weighter<RepositoryId, (Blake3, Arc<History>)> for HistoryWeight {
    fn weight(&self, _: &RepositoryId, (_, history): &(Blake3, Arc<History>)) -> u64 {
        history.memory_bytes()
    }
}

/// The read side shared by all repositories of a node.
#[derive(Debug)]
pub(crate) struct Reader {
    store: Store,
    manifests: Cache<Blake3, Arc<Manifest>, ManifestWeight>,
    histories: Cache<RepositoryId, (Blake3, Arc<History>), HistoryWeight>,
    wrong_claims: WrongClaims,
}

impl Reader {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            manifests: cache(MANIFEST_CACHE_BYTES, ManifestWeight),
            histories: cache(HISTORY_CACHE_BYTES, HistoryWeight),
            wrong_claims: WrongClaims::default(),
        }
    }

    pub(super) fn wrong_claims(&self) -> &WrongClaims {
        &self.wrong_claims
    }

    pub(crate) fn alarms(&self) -> u64 {
        self.store.alarms()
    }

    pub(crate) fn blob(&self, hash: &Blake3) -> Result<Bytes, RepoError> {
        Ok(self.store.blob(hash)?)
    }

    pub(crate) fn manifest(&self, hash: &Blake3) -> Result<Arc<Manifest>, RepoError> {
        self.manifests.get_or_insert_with(hash, || {
            let bytes = self.blob(hash)?;
            let decoded = Manifest::decode(&bytes);
            let mut manifest = decoded.map_err(|error| damaged("manifest", hash, &error))?;
            // What it is reckoned to take is what it takes.
            manifest.entries.shrink_to_fit();
            Ok::<_, RepoError>(Arc::new(manifest))
        })
    }

    pub(crate) fn commit_entry(&self, hash: &Blake3) -> Result<CommitEntry, RepoError> {
        let bytes = self.blob(hash)?;
        CommitEntry::decode(&bytes).map_err(|error| damaged("commit entry", hash, &error))
    }

    pub(crate) fn refs(&self, hash: &Blake3) -> Result<Refs, RepoError> {
        let bytes = self.blob(hash)?;
        Refs::decode(&bytes).map_err(|error| damaged("refs blob", hash, &error))
    }

    /// The manifest entry at a path below a root manifest; `None` where nothing stands there.
    pub(crate) fn find(
        &self,
        root: &Blake3,
        path: &str,
    ) -> Result<Option<ManifestEntry>, RepoError> {
        let mut folder = *root;
        let mut components = path.split('/').peekable();
        while let Some(component) = components.next() {
            let manifest = self.manifest(&folder)?;
            let Some(entry) = manifest.find(component.as_bytes()) else {
                return Ok(None);
            };
            if components.peek().is_none() {
                return Ok(Some(entry.clone()));
            }
            match (entry.kind, entry.manifest) {
                (ManifestKind::Directory, Some(next)) => folder = next,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Number and bytes of all files below a folder.
    pub(super) fn sums(&self, folder: &Blake3) -> Result<(u64, u64), RepoError> {
        self.sums_below(folder, 0, &mut HashMap::new())
    }

    /// Each manifest is read once, in however many folders it stands.
    fn sums_below(
        &self,
        folder: &Blake3,
        depth: usize,
        known: &mut HashMap<Blake3, (u64, u64)>,
    ) -> Result<(u64, u64), RepoError> {
        if let Some(sums) = known.get(folder) {
            return Ok(*sums);
        }
        too_deep(depth, folder)?;
        let mut sums = (0_u64, 0_u64);
        for entry in &self.manifest(folder)?.entries {
            let (files, bytes) = match (entry.kind, &entry.manifest) {
                (ManifestKind::Directory, Some(below)) => {
                    self.sums_below(below, depth + 1, known)?
                }
                (ManifestKind::File | ManifestKind::Lfs, _) => (1, entry.size.unwrap_or(0)),
                _ => continue,
            };
            sums = (sums.0.saturating_add(files), sums.1.saturating_add(bytes));
        }
        known.insert(*folder, sums);
        Ok(sums)
    }

    /// All commits that a repository's refs reach, walked anew only where the last walk can't be extended.
    pub(crate) fn history(
        &self,
        repository: RepositoryId,
        refs_hash: Blake3,
        refs: &Refs,
    ) -> Result<Arc<History>, RepoError> {
        let kept = self.histories.get(&repository);
        if let Some((hash, history)) = &kept
            && *hash == refs_hash
        {
            return Ok(Arc::clone(history));
        }
        let tips: Vec<Blake3> = refs.0.values().map(|target| target.entry).collect();
        let read = |hash: &Blake3| self.commit_entry(hash);
        let extended = match &kept {
            Some((_, history)) => history.extended(&tips, &read)?,
            None => None,
        };
        let history = match extended {
            Some(history) => history,
            None => History::walk(&tips, &read)?,
        };
        let history = Arc::new(history);
        self.histories
            .insert(repository, (refs_hash, Arc::clone(&history)));
        Ok(history)
    }
}

/// A cache of one shard: several would each refuse what is larger than their part of the bound.
fn cache<K, V, W>(bytes: u64, weighter: W) -> Cache<K, V, W>
where
    K: Eq + std::hash::Hash + Clone,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(1024)
        .weight_capacity(bytes)
        .build()
        .expect("invariant: both capacities are given");
    Cache::with_options(
        options,
        weighter,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}

/// Nobody makes a folder deeper than paths may be; whoever walks down is spared one that a peer made by hand.
pub(super) fn too_deep(depth: usize, folder: &Blake3) -> Result<(), RepoError> {
    if depth > PATH_DEPTH_MAX {
        return Err(RepoError::Damaged(format!(
            "folder {folder} lies deeper than {PATH_DEPTH_MAX} folders"
        )));
    }
    Ok(())
}

pub(crate) fn damaged(what: &str, hash: &Blake3, error: &dyn std::fmt::Display) -> RepoError {
    RepoError::Damaged(format!("{what} {hash}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use cairn_protocol::hash::GitOid;

    use super::*;
    use crate::repos::changes::{Bounds, Changes, between};

    /// Manifests that a peer made by hand: their bytes are right, and what they stand for is absurd.
    struct Made {
        reader: Reader,
        store: Store,
        _dir: tempfile::TempDir,
    }

    impl Made {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = crate::store::open_store(dir.path());
            Self {
                reader: Reader::new(store.clone()),
                store,
                _dir: dir,
            }
        }

        fn manifest(&self, entries: Vec<ManifestEntry>) -> Blake3 {
            let manifest = Manifest::new(Blake3::of(b"a tree"), entries).unwrap();
            let mut batch = self.store.batch();
            let hash = batch.put(manifest.encode().into());
            batch.commit().unwrap();
            hash
        }

        /// Folders, each the only one in the one above it, and `first` in the lowest.
        fn deep(&self, depth: usize, first: Blake3) -> Blake3 {
            (0..depth).fold(first, |below, _| self.manifest(vec![folder(0, below)]))
        }

        fn compare(
            &self,
            old: &Blake3,
            new: &Blake3,
            time: Duration,
        ) -> Result<Changes, RepoError> {
            let bounds = Bounds {
                files: 10,
                until: Instant::now() + time,
            };
            between(&self.reader, old, new, &bounds)
        }
    }

    fn entry(name: String, kind: ManifestKind, mode: u32) -> ManifestEntry {
        ManifestEntry::new(name, mode, GitOid::from_bytes([1; 20]), kind)
    }

    fn folder(number: usize, below: Blake3) -> ManifestEntry {
        ManifestEntry {
            manifest: Some(below),
            ..entry(format!("{number:04}"), ManifestKind::Directory, 0o40_000)
        }
    }

    #[test]
    fn folders_beyond_all_depth_are_an_error() {
        let made = Made::new();
        let file = made.manifest(vec![entry("a".into(), ManifestKind::File, 0o100_644)]);
        let empty = made.manifest(Vec::new());
        let deepest = made.deep(PATH_DEPTH_MAX, file);
        assert_eq!(made.reader.sums(&deepest).unwrap(), (1, 0));
        let found = made.compare(&empty, &deepest, Duration::from_secs(30));
        assert_eq!(found.unwrap().files.len(), 1);
        let deeper = made.deep(20_000, file);
        for refused in [
            made.reader.sums(&deeper).map(drop),
            made.compare(&empty, &deeper, Duration::from_secs(30))
                .map(drop),
        ] {
            assert!(matches!(refused, Err(RepoError::Damaged(_))), "{refused:?}");
        }
    }

    #[test]
    fn folders_without_number_are_walked_once_or_not_for_long() {
        let made = Made::new();
        let empty = made.manifest(Vec::new());
        let many = (0..6).fold(empty, |below, _| {
            made.manifest((0..1_000).map(|number| folder(number, below)).collect())
        });
        assert_eq!(made.reader.sums(&many).unwrap(), (0, 0));
        let found = made
            .compare(&empty, &many, Duration::from_millis(50))
            .unwrap();
        assert!(found.is_late && found.files.is_empty());
    }
}
