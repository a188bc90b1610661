//! Pulling: all files of a commit, or those that match, fetched from peers, and written out where asked.
//!
//! A node that has just started knows little: a repository that is not known yet is waited for as long as
//! something happens. What was fetched is verified before it counts, and stays when a pull is cut off; the
//! next one goes on from there.

mod export;
mod globs;
mod search;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use cairn_protocol::hash::Blake3;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::export::{Export, ExportError, Item, Written};
use self::globs::Globs;
use self::search::Search;
use crate::control::{Failure, Progress};
use crate::fetch::{FetchError, Wanted};
use crate::node::Node;
use crate::repos::{Commit, EntryKind, FileEntry, Repo, RepoError};
use crate::store::StoreError;

/// Entries of a commit that are listed in one step.
const ENTRIES_STEP: usize = 10_000;
/// Peers that an answer names.
const PEERS_SHOWN_MAX: usize = 100;

/// What to pull.
#[derive(Debug)]
pub(crate) struct Order {
    /// `[datasets/|spaces/]namespace/name[@revision]`.
    pub(crate) repo: String,
    /// Folder to write the files to, absolute.
    pub(crate) to: Option<PathBuf>,
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// Multiaddresses of peers to ask.
    pub(crate) peers: Vec<String>,
}

/// Files of a commit that are meant.
struct Plan {
    repo: Repo,
    commit: Commit,
    files: Vec<(String, FileEntry)>,
    bytes: u64,
}

/// Does it; the answer is what `--json` prints. Blocking.
pub(crate) fn pull(
    node: &Node,
    order: &Order,
    progress: &mut dyn FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Value, Failure> {
    let begin = Instant::now();
    let globs = Globs::new(&order.include, &order.exclude)?;
    let mut export = match &order.to {
        Some(to) => Some(Export::open(to).map_err(|error| not_written(&error))?),
        None => None,
    };
    dial(node, &order.peers)?;
    let (name, revision) = match order.repo.split_once('@') {
        Some((name, revision)) => (name, revision),
        None => (order.repo.as_str(), "HEAD"),
    };
    let (repo, commit) = Search::new(node, name, revision).find(progress, stop)?;
    let plan = Plan::new(repo, commit, &globs)?;
    let before = traffic(node);
    let fetching = Instant::now();
    let came = fetch(node, &plan, progress, stop)?;
    let seconds = fetching.elapsed().as_secs_f64();
    let peers = from_whom(node, &before);
    let written = match &mut export {
        Some(export) => Some(write(node, &plan, export, progress, stop)?),
        None => None,
    };
    let (epoch, seq) = plan.repo.version();
    Ok(json!({
        "repo": plan.repo.full_name(),
        "kind": plan.repo.kind(),
        "commit": plan.commit.info().oid,
        "revision": revision,
        "signer": plan.repo.signer(),
        "epoch": epoch,
        "seq": seq,
        "files": plan.files.len(),
        "bytes": plan.bytes,
        "fetched_files": came.files,
        "fetched_bytes": came.bytes,
        "network_bytes": came.network_bytes,
        "fetch_seconds": seconds,
        "seconds": begin.elapsed().as_secs_f64(),
        "peers": peers,
        "connected": node.peers().len(),
        "to": order.to,
        "written_files": written.map(|written| written.0),
        "kept_files": written.map(|written| written.1),
        "pinned": plan.repo.is_pinned(),
        "own": node.repos().is_own(&plan.repo.id()),
        "data": node.inner.folder.path(),
    }))
}

fn dial(node: &Node, peers: &[String]) -> Result<(), Failure> {
    let hint = || Some("a peer's `cairn status` shows the addresses that it listens on".to_owned());
    for peer in peers {
        let Some(network) = &node.inner.network else {
            return Err(Failure::new(&FetchError::Offline, None));
        };
        if let Err(reason) = crate::config::check_address(peer) {
            return Err(failure(format!("peer {peer:?}: {reason}"), hint()));
        }
        network
            .swarm
            .dial(peer)
            .map_err(|error| Failure::new(&error, hint()))?;
    }
    Ok(())
}

impl Plan {
    fn new(repo: Repo, commit: Commit, globs: &Globs) -> Result<Self, Failure> {
        let failed = |error: RepoError| Failure::new(&error, None);
        let (mut files, mut bytes, mut all) = (Vec::new(), 0, 0_usize);
        let mut after: Option<String> = None;
        loop {
            let page = commit
                .tree("", true, after.as_deref(), ENTRIES_STEP)
                .map_err(failed)?;
            let Some(last) = page.last() else { break };
            after = Some(last.path.clone());
            for entry in page {
                let EntryKind::File(file) = entry.kind else {
                    continue;
                };
                all += 1;
                if globs.take(&entry.path) {
                    bytes += file.size;
                    files.push((entry.path, file));
                }
            }
        }
        if files.is_empty() && all > 0 {
            let hint = "`*` also stands for `/`, and `folder/` for everything below it";
            return Err(failure(
                format!("none of the {all} files of {} matches", repo.full_name()),
                Some(hint.to_owned()),
            ));
        }
        Ok(Self {
            repo,
            commit,
            files,
            bytes,
        })
    }

    /// What is not stored here, each content once.
    fn wanted(&self, node: &Node) -> Result<Vec<Wanted>, Failure> {
        let mut wanted: BTreeMap<Blake3, Wanted> = BTreeMap::new();
        let mut order = Vec::new();
        for (path, file) in &self.files {
            let hash = content_of(path, file)?;
            if wanted.contains_key(&hash) {
                continue;
            }
            let git = match file.pointer_size {
                Some(_) => None,
                None => self.git(path)?,
            };
            let claimed = Wanted {
                repository: self.repo.id(),
                path: path.clone(),
                blake3: hash,
                size: file.size,
                sha256: file.sha256,
                git,
            };
            let failed = |error| Failure::new(&error, None);
            // Stored for somebody else's sake, it may be other bytes than this commit claims.
            match node.agreement(&claimed).map_err(failed)? {
                Some(true) => continue,
                None if node.inner.network.is_none()
                    && node.inner.store.contains(&hash).map_err(failed)? =>
                {
                    continue;
                }
                Some(false) | None => {}
            }
            order.push(hash);
            wanted.insert(hash, claimed);
        }
        Ok(order
            .into_iter()
            .filter_map(|hash| wanted.remove(&hash))
            .collect())
    }

    fn git(&self, path: &str) -> Result<Option<cairn_protocol::hash::GitOid>, Failure> {
        let entry = self.commit.entry(path);
        Ok(entry
            .map_err(|error| Failure::new(&error, None))?
            .map(|entry| entry.oid))
    }
}

fn content_of(path: &str, file: &FileEntry) -> Result<Blake3, Failure> {
    file.blake3.ok_or_else(|| {
        failure(
            format!("the content of {path} is not known yet: the repository is a partial mirror"),
            Some("`--exclude` leaves files out".to_owned()),
        )
    })
}

/// Fetches what is not here.
fn fetch(
    node: &Node,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Came, Failure> {
    let wanted = plan.wanted(node)?;
    let files = wanted.len();
    if files == 0 {
        return Ok(Came::default());
    }
    let network = node.inner.network.as_ref();
    let network = network.ok_or_else(|| not_fetched(&FetchError::Offline))?;
    let name = plan.repo.full_name();
    let mut tell = |done, total| {
        let what = match node.peers().len() {
            1 => format!("fetching {name}, 1 peer"),
            peers => format!("fetching {name}, {peers} peers"),
        };
        progress(Progress { what, done, total });
    };
    // Whoever lets go of the files ends their downloads.
    let fetching = async {
        tokio::select! {
            () = stop.cancelled() => Err(stopped()),
            done = network.fetcher.fetch_all(wanted, &mut tell) => {
                done.map_err(|error| not_fetched(&error))
            }
        }
    };
    let fetched = network.handle().block_on(Box::pin(fetching))?;
    Ok(Came {
        files,
        bytes: fetched.bytes,
        network_bytes: fetched.network_bytes,
    })
}

/// What a pull brought here.
#[derive(Debug, Default)]
struct Came {
    files: usize,
    bytes: u64,
    network_bytes: u64,
}

fn not_fetched(error: &FetchError) -> Failure {
    let hint = match error {
        FetchError::NoProvider { .. } => {
            "what is here stays, and pulling again goes on from there; `cairn peers` shows who is \
             connected, `--peer MULTIADDR` names another"
        }
        FetchError::Offline => "`cairn up` runs a node that speaks to others",
        FetchError::Store(error) => match &**error {
            StoreError::Full { .. } => {
                "free disk space or run `cairn gc`, and pull again: it goes on from there"
            }
            StoreError::CacheFull { .. } => {
                "free disk space, of which a tenth stays free where `cache_size` is not set, or set it, or \
                 `cairn pin` the repository, and pull again"
            }
            _ => "`cairn doctor` and the node's log tell more",
        },
        FetchError::Disagrees { .. } => {
            "its publisher has to push it again; nothing of that file was kept"
        }
        _ => "what was verified stays; pulling again goes on from there",
    };
    Failure::new(error, Some(hint.to_owned()))
}

/// Bytes sent to and taken from each peer so far.
fn traffic(node: &Node) -> HashMap<String, (u64, u64)> {
    let Some(network) = &node.inner.network else {
        return HashMap::new();
    };
    let all = network.blobs.traffic().into_iter();
    all.map(|(key, sent, taken)| (key.to_string(), (sent, taken)))
        .collect()
}

/// Bytes taken from each peer since `before`, most first.
fn from_whom(node: &Node, before: &HashMap<String, (u64, u64)>) -> Vec<Value> {
    let ids: HashMap<String, String> = node
        .peers()
        .into_iter()
        .map(|peer| (peer.key, peer.peer_id))
        .collect();
    let mut peers: Vec<(u64, String)> = traffic(node)
        .into_iter()
        .map(|(key, (_, taken))| {
            let earlier = before.get(&key).map_or(0, |(_, taken)| *taken);
            (taken.saturating_sub(earlier), key)
        })
        .filter(|(bytes, _)| *bytes > 0)
        .collect();
    peers.sort_by(|a, b| b.cmp(a));
    peers.truncate(PEERS_SHOWN_MAX);
    peers
        .into_iter()
        .map(|(bytes, key)| json!({"peer_id": ids.get(&key), "key": key, "bytes": bytes}))
        .collect()
}

/// Writes every file out; how many were made and how many were there.
fn write(
    node: &Node,
    plan: &Plan,
    export: &mut Export,
    progress: &mut dyn FnMut(Progress),
    stop: &CancellationToken,
) -> Result<(usize, usize), Failure> {
    let (mut made, mut kept, mut done) = (0, 0, 0);
    for (path, file) in &plan.files {
        cancelled(stop)?;
        let hash = content_of(path, file)?;
        let content = node.content(&hash).map_err(|error| {
            let hint = matches!(error, StoreError::Absent { .. })
                .then(|| "it was evicted meanwhile: pull again, or `cairn pin` first".to_owned());
            Failure::new(&error, hint)
        })?;
        let item = Item {
            path,
            hash: &hash,
            size: file.size,
            executable: file.executable,
        };
        let mut here = 0;
        let mut tell = |bytes: u64| {
            here += bytes;
            progress(Progress {
                what: format!("writing {path}"),
                done: (done + here).min(plan.bytes),
                total: plan.bytes,
            });
        };
        match export.write(&item, &content, &mut tell) {
            Ok(Written::Made) => made += 1,
            Ok(Written::Kept) => kept += 1,
            Err(error) => return Err(not_written(&error)),
        }
        done += file.size;
    }
    Ok((made, kept))
}

fn not_written(error: &ExportError) -> Failure {
    let hint = match error {
        ExportError::Full { .. } => "free disk space and pull again: it goes on from there",
        ExportError::Link { .. } | ExportError::Folder { .. } => {
            "move it away, or choose another folder with `--to`"
        }
        ExportError::Busy { .. } => "wait until it has ended, or choose another folder with `--to`",
        ExportError::Path(_) => "`--exclude` leaves it out",
        ExportError::Io { .. } => "check that the folder may be written to",
        ExportError::Store(_) => "`cairn verify` names what is damaged; pulling again heals it",
    };
    Failure::new(error, Some(hint.to_owned()))
}

fn cancelled(stop: &CancellationToken) -> Result<(), Failure> {
    if stop.is_cancelled() {
        return Err(stopped());
    }
    Ok(())
}

fn stopped() -> Failure {
    failure(
        "the pull was stopped".to_owned(),
        Some("what was verified stays; pulling again goes on from there".to_owned()),
    )
}

fn failure(error: String, hint: Option<String>) -> Failure {
    Failure {
        error,
        causes: Vec::new(),
        hint,
    }
}
