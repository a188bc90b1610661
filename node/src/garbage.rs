//! What may be freed: everything that no head of a repository reaches.
//!
//! Marked from verified records and manifests in the log, never from the views. A history that can't be
//! read whole stops the collection: nothing is deleted while a reachable tree is missing. Repositories of
//! other nodes are marked from the head that is shown; what is here of a newer one is fetched again.

use std::collections::{HashMap, HashSet};

use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::FLAT_BYTES_MIN;
use cairn_protocol::name::RepoKind;
use cairn_protocol::record::{Body, Record};

use crate::control::Progress;
use crate::node::{Inner, now_s};
use crate::publish;
use crate::repos::{Repo, RepoError, Repos};
use crate::store::{Store, SweepReport};

/// Frees what nothing names; with `dry_run` only says what that would be. Waits for pushes under way.
pub(crate) fn collect(
    node: &Inner,
    dry_run: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<(SweepReport, Kept), RepoError> {
    // A head that is signed and not yet written names blobs that nothing in the log names. Only a push can
    // leave one, and a push has a lease: none comes while the store is held.
    publish::settle(node).map_err(|error| RepoError::Damaged(error.to_string()))?;
    let exclusive = node.store.exclusive();
    if publish::is_unsettled(node) {
        return Err(RepoError::Damaged(
            "a signed head waits to be written: free disk space and try again".to_owned(),
        ));
    }
    if !dry_run {
        node.repos.forget_unshown();
    }
    if !dry_run {
        node.staging.expire(&node.journal, now_s())?;
    }
    let mut live = mark(node, progress)?;
    live.extend(node.staging.contents());
    let lists = node.live_lists(&|content| live.contains(content))?;
    live.extend(lists);
    progress(Progress {
        what: "sweeping".to_owned(),
        done: 0,
        total: 0,
    });
    let before = node.store.stats();
    let report = exclusive.sweep(&live, dry_run)?;
    if !dry_run {
        // What is gone must not count as walked when a later head names it again.
        node.access.retain(&live);
    }
    let kept = Kept {
        blobs: before.blobs.saturating_sub(report.blobs),
        bytes: before.bytes.saturating_sub(report.bytes),
    };
    Ok((report, kept))
}

/// What a collection leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) blobs: u64,
    pub(crate) bytes: u64,
}

/// Every blob that a head reaches: refs blobs, commits with their history, trees, manifests, contents, cards.
fn mark(node: &Inner, progress: &mut dyn FnMut(Progress)) -> Result<HashSet<Blake3>, RepoError> {
    let mut marks = Marks::new(&node.store)?;
    let repos = all_repos(&node.repos);
    for (done, repo) in repos.iter().enumerate() {
        let what = format!("marking {}", repo.full_name());
        progress(Progress {
            what,
            done: done as u64,
            total: repos.len() as u64,
        });
        marks.walk(&node.repos, repo, None)?;
    }
    Ok(marks.live)
}

/// The cache's part in the log, and its bytes: small contents that only repositories of others reach which
/// nobody pinned, and only as content.
pub(crate) fn small_cached(
    store: &Store,
    repos: &Repos,
) -> Result<HashMap<Blake3, u64>, RepoError> {
    let mut marks = Marks::new(store)?;
    let (kept, others): (Vec<Repo>, Vec<Repo>) = all_repos(repos)
        .into_iter()
        .partition(|repo| repos.is_kept(&repo.id()));
    for repo in &kept {
        marks.walk(repos, repo, None)?;
    }
    // What both have is the former's, whatever else stands in the same folder.
    marks.seen.clear();
    let mut small = HashMap::new();
    for repo in &others {
        // What can't be read may need, as metadata, what another has for content.
        marks.walk(repos, repo, Some(&mut small))?;
    }
    small.retain(|hash, _| !marks.live.contains(hash));
    Ok(small)
}

/// Contents that can't be had again from peers, or that somebody wants here: of the node's own repositories, of
/// pinned ones, and what waits for a commit.
pub(crate) fn kept(node: &Inner) -> Result<HashSet<Blake3>, RepoError> {
    let mut marks = Marks::new(&node.store)?;
    for repo in all_repos(&node.repos) {
        if node.repos.is_kept(&repo.id()) {
            marks.walk(&node.repos, &repo, None)?;
        }
    }
    let mut live = marks.live;
    live.extend(node.staging.contents());
    let lists = node.live_lists(&|content| live.contains(content))?;
    live.extend(lists);
    Ok(live)
}

fn all_repos(repos: &Repos) -> Vec<Repo> {
    let of = |kind| repos.list(kind);
    RepoKind::ALL.into_iter().flat_map(of).collect()
}

/// What is needed, as far as it was walked.
struct Marks {
    live: HashSet<Blake3>,
    /// Folders that were walked.
    seen: HashSet<Blake3>,
}

impl Marks {
    fn new(store: &Store) -> Result<Self, RepoError> {
        let mut live = HashSet::new();
        // The refs blobs of older heads stay too: `verify` follows the whole chain.
        store.records(&mut |envelope| match Record::parse_trusted(envelope)
            .as_ref()
            .map(Record::body)
        {
            Ok(Body::Head(head)) => {
                live.insert(head.refs);
                live.extend(head.card.text);
            }
            Ok(Body::Account(account)) => live.extend(account.holder),
            _ => {}
        })?;
        let seen = HashSet::new();
        Ok(Self { live, seen })
    }

    /// Marks all that a repository reaches, but for its small contents where those are asked for.
    fn walk(
        &mut self,
        repos: &Repos,
        repo: &Repo,
        mut small: Option<&mut HashMap<Blake3, u64>>,
    ) -> Result<(), RepoError> {
        let reader = repos.reader();
        let Self { live, seen } = self;
        live.extend(
            repo.refs_blob()?
                .0
                .values()
                .flat_map(|target| target.tags.iter().copied()),
        );
        for entry_hash in repo.history()?.entries() {
            let entry = reader.commit_entry(&entry_hash)?;
            live.extend([entry_hash, entry.object]);
            let mut folders: Vec<Blake3> = entry.manifest.into_iter().collect();
            while let Some(folder) = folders.pop() {
                if !seen.insert(folder) {
                    continue;
                }
                let manifest = reader.manifest(&folder)?;
                live.extend([folder, manifest.tree]);
                for entry in &manifest.entries {
                    live.extend(entry.pointer);
                    folders.extend(entry.manifest);
                    match (&mut small, entry.blake3, entry.size) {
                        (Some(small), Some(hash), Some(size)) if size < FLAT_BYTES_MIN => {
                            small.insert(hash, size);
                        }
                        (_, hash, _) => live.extend(hash),
                    }
                }
            }
        }
        Ok(())
    }
}
