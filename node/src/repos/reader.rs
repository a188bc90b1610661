//! Reads and keeps what repositories are made of: manifests, commit entries, histories.
//!
//! Everything is addressed by hash, so what is kept here can never be out of date, only dropped.

use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::hash::{Blake3, RepositoryId};
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

pub(crate) fn damaged(what: &str, hash: &Blake3, error: &dyn std::fmt::Display) -> RepoError {
    RepoError::Damaged(format!("{what} {hash}: {error}"))
}
