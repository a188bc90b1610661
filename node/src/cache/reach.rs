//! What repositories reach of the files that could be evicted, remembered from one look to the next.

use std::collections::{HashMap, HashSet};

use cairn_protocol::hash::{Blake3, RepositoryId};
use cairn_protocol::limits::FLAT_BYTES_MIN;

use crate::repos::{Repo, RepoError, Repos};

/// Hashes that are remembered; repositories beyond that are walked again at each look.
const HASHES_MAX: usize = 1 << 20;

/// The model card's path.
const CARD: &[u8] = b"README.md";

/// Files that a repository's refs reach, of those that are large enough to be flat.
#[derive(Debug)]
struct Reach {
    version: (u64, u64),
    contents: Vec<Blake3>,
    metadata: Vec<Blake3>,
}

/// What is remembered of all repositories.
#[derive(Debug, Default)]
pub(super) struct Reaches {
    known: HashMap<RepositoryId, Reach>,
    hashes: usize,
}

impl Reaches {
    /// Those of the stored files that only repositories reach which are not kept, and only as content.
    pub(super) fn cached<V>(
        &mut self,
        all: &Repos,
        repos: &[Repo],
        stored: &HashMap<Blake3, V>,
        is_kept: &dyn Fn(&Repo) -> bool,
    ) -> Result<HashSet<Blake3>, RepoError> {
        let mut cached = HashSet::new();
        let mut needed = HashSet::new();
        let here = |hash: &&Blake3| stored.contains_key(*hash);
        let shown: HashSet<RepositoryId> = repos.iter().map(Repo::id).collect();
        self.forget(|id| !shown.contains(id));
        for repo in repos {
            let walked = match self.known.get(&repo.id()) {
                Some(reach) if reach.version == repo.version() => None,
                _ => Some(walk(all, repo, stored)),
            };
            let walked = match walked.transpose() {
                Ok(walked) => walked,
                // Without its metadata none of its files is known to be content, so none is evicted.
                Err(error) if !is_kept(repo) => {
                    tracing::debug!(repo = repo.full_name(), %error, "not looked at for the cache");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let reach = match &walked {
                Some(walked) => walked,
                None => &self.known[&repo.id()],
            };
            let contents = reach.contents.iter().filter(here).copied();
            if is_kept(repo) {
                needed.extend(contents);
            } else {
                cached.extend(contents);
            }
            needed.extend(reach.metadata.iter().filter(here).copied());
            if let Some(walked) = walked {
                self.remember(repo.id(), walked);
            }
        }
        Ok(&cached - &needed)
    }

    fn forget(&mut self, gone: impl Fn(&RepositoryId) -> bool) {
        let hashes = &mut self.hashes;
        self.known.retain(|id, reach| {
            let keep = !gone(id);
            if !keep {
                *hashes -= reach.len();
            }
            keep
        });
    }

    fn remember(&mut self, id: RepositoryId, reach: Reach) {
        if let Some(before) = self.known.remove(&id) {
            self.hashes -= before.len();
        }
        if self.hashes + reach.len() <= HASHES_MAX {
            self.hashes += reach.len();
            self.known.insert(id, reach);
        }
    }
}

impl Reach {
    fn len(&self) -> usize {
        // One for the entry itself, so that empty repositories are bounded too.
        1 + self.contents.len() + self.metadata.len()
    }
}

/// Walks all commits of a repository.
fn walk<V>(all: &Repos, repo: &Repo, stored: &HashMap<Blake3, V>) -> Result<Reach, RepoError> {
    let reader = all.reader();
    let (mut contents, mut metadata, mut seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    let tags = repo.refs_blob()?.0.values();
    metadata.extend(tags.flat_map(|target| target.tags.iter().copied()));
    metadata.insert(repo.refs_hash());
    for entry_hash in repo.history()?.entries() {
        let entry = reader.commit_entry(&entry_hash)?;
        metadata.extend([entry_hash, entry.object]);
        let mut folders: Vec<Blake3> = entry.manifest.into_iter().collect();
        if let Some(root) = entry.manifest {
            // Heads name the card's text: it is here as long as the repository is shown.
            let card = reader.manifest(&root)?;
            metadata.extend(card.find(CARD).and_then(|entry| entry.blake3));
        }
        while let Some(folder) = folders.pop() {
            if !seen.insert(folder) {
                continue;
            }
            let manifest = reader.manifest(&folder)?;
            metadata.extend([folder, manifest.tree]);
            for entry in &manifest.entries {
                metadata.extend(entry.pointer);
                folders.extend(entry.manifest);
                if entry.size.is_some_and(|size| size >= FLAT_BYTES_MIN) {
                    contents.extend(entry.blake3);
                }
            }
        }
    }
    // Metadata is all here before a repository is shown: what is not a flat file now never will be.
    metadata.retain(|hash| stored.contains_key(hash));
    Ok(Reach {
        version: repo.version(),
        contents: contents.into_iter().collect(),
        metadata: metadata.into_iter().collect(),
    })
}
