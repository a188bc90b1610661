//! What the command line asks of a node, over its socket or in its own process: one enum, one function.

mod admin;
pub mod socket;

pub use self::admin::Admin;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::PoisonError;

use cairn_protocol::hash::RepositoryId;
use cairn_protocol::name::{NamespaceName, RepoKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::journal::Entry as JournalEntry;
use crate::node::{Inner, Node};
use crate::publish::{PublishError, PushRequest};
use crate::pull::{self, Order};
use crate::repos::{Found, Repo, RepoError};
use crate::store::StoreError;
use crate::{audit, backup, garbage};

/// Free bytes below which `doctor` complains.
const FREE_BYTES_LOW: u64 = 1 << 30;

/// A request of the command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb", deny_unknown_fields)]
pub enum Request {
    /// Who and where the node is, and what it holds.
    Status,
    /// Publishes a folder.
    Push {
        /// Folder, absolute.
        dir: PathBuf,
        /// `name` or `namespace/name`.
        repo: String,
        /// What it holds.
        kind: RepoKind,
        /// Branch name or full ref.
        reference: String,
        /// Commit message; a default names the number of files.
        message: Option<String>,
    },
    /// Lists repositories.
    Ls {
        /// Of one kind only.
        kind: Option<RepoKind>,
    },
    /// Shows one repository.
    Info {
        /// `namespace/name`, `datasets/namespace/name`, or an alias.
        repo: String,
    },
    /// Re-hashes and re-verifies one repository or everything.
    Verify {
        /// All where absent.
        repo: Option<String>,
    },
    /// Fetches a repository from peers.
    Pull {
        /// `namespace/name`, with a kind before it and `@` and a revision behind it where they are given.
        repo: String,
        /// Folder to write the files to, absolute.
        to: Option<PathBuf>,
        /// Patterns of the files to take; all where there are none.
        include: Vec<String>,
        /// Patterns of the files to leave out.
        exclude: Vec<String>,
        /// Multiaddresses of peers to ask beside those that the node knows.
        peers: Vec<String>,
    },
    /// Shows the connected peers.
    Peers,
    /// Keeps a repository's content whatever `gc` and the cache's bound do.
    Pin {
        /// The repository.
        repo: String,
    },
    /// Undoes a pin.
    Unpin {
        /// The repository.
        repo: String,
    },
    /// Frees what nothing pins or names.
    Gc {
        /// Only says what would be freed.
        dry_run: bool,
    },
    /// Checks the data folder, and with `rebuild` makes every view anew.
    Doctor {
        /// Make the views anew.
        rebuild: bool,
    },
    /// Copies all that can't be had again to another folder.
    Backup {
        /// Folder, absolute.
        to: PathBuf,
    },
    /// Shows the public keys.
    Keys,
    /// Accounts and tokens.
    Admin {
        /// What about them.
        order: Admin,
    },
}

/// What a long request tells while it runs.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Progress {
    /// What is being done: `hashing model.safetensors`.
    pub what: String,
    /// Bytes (or items) done.
    pub done: u64,
    /// Of how many, 0 where unknown.
    pub total: u64,
}

/// A failure as the command line shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, outermost first.
    pub error: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// Puts an error and its causes into words, with what to do next where that is known.
    pub fn new(error: &(dyn std::error::Error + 'static), hint: Option<String>) -> Self {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Self {
            error: error.to_string(),
            causes,
            hint,
        }
    }
}

/// Does what is asked, to its end; the answer is what `--json` prints.
///
/// # Errors
/// Whatever the request meets, already put into words.
pub fn execute(
    node: &Node,
    request: Request,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, Failure> {
    execute_until(node, request, progress, &CancellationToken::new())
}

/// The same, where `stop` ends a pull early, whose next try goes on from there. Everything else is brought
/// to its end all the same.
///
/// # Errors
/// As [`execute`].
pub fn execute_until(
    node: &Node,
    request: Request,
    progress: &mut dyn FnMut(Progress),
    stop: &CancellationToken,
) -> Result<Value, Failure> {
    let inner = &node.inner;
    match request {
        Request::Status => Ok(status(node)),
        Request::Peers => Ok(peers(node)),
        Request::Pull {
            repo,
            to,
            include,
            exclude,
            peers,
        } => {
            let order = Order {
                repo,
                to,
                include,
                exclude,
                peers,
            };
            let mut pulled = pull::pull(node, &order, progress, stop)?;
            pulled["url"] = url_of(inner, &pulled).into();
            Ok(pulled)
        }
        Request::Push {
            dir,
            repo,
            kind,
            reference,
            message,
        } => push(
            node,
            &PushRequest {
                dir,
                repo,
                kind,
                reference,
                message,
            },
            progress,
        ),
        Request::Ls { kind } => Ok(ls(inner, kind)),
        Request::Info { repo } => {
            let repo = find(node, &repo)?;
            let mut info = info(&repo).map_err(|error| failed(&error))?;
            info["attestations"] = json!(node.repos().attestations(&repo.id()));
            let downloads = node.downloads(&repo.id());
            info["downloads"] = downloads.recent.into();
            info["downloads_all_time"] = downloads.all_time.into();
            Ok(info)
        }
        Request::Verify { repo } => {
            let repo = repo.map(|repo| find(node, &repo)).transpose()?;
            let report =
                audit::verify(inner, repo.as_ref(), progress).map_err(|error| failed(&error))?;
            Ok(json(&report))
        }
        Request::Pin { repo } => pin(node, &repo, true),
        Request::Unpin { repo } => pin(node, &repo, false),
        Request::Gc { dry_run } => {
            let (report, kept) =
                garbage::collect(inner, dry_run, progress).map_err(|error| failed(&error))?;
            inner.repos.bump();
            Ok(json!({
                "dry_run": dry_run, "blobs": report.blobs, "bytes": report.bytes,
                "strays": report.strays, "freed_bytes": report.freed_bytes,
                "kept_blobs": kept.blobs, "kept_bytes": kept.bytes,
            }))
        }
        Request::Backup { to } => {
            let report = backup::backup(inner, &to, progress)
                .map_err(|error| Failure::new(&error, error.hint()))?;
            Ok(json(&report))
        }
        Request::Admin { order } => admin::execute(node, order),
        Request::Doctor { rebuild } => Ok(doctor(inner, rebuild, progress)),
        Request::Keys => Ok(json!({
            "node": inner.keys.node.public().to_string(),
            "peer_id": inner.keys.peer_id,
            "namespace_root": inner.keys.root.public().to_string(),
            "namespace": node.namespace(),
            "sealed": false,
        })),
    }
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("invariant: reports have string keys only")
}

fn status(all: &Node) -> Value {
    let node = &all.inner;
    let cache = node.cache.usage();
    let stats = node.store.stats();
    let url = node
        .gateway_url
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let repositories: usize = RepoKind::ALL
        .into_iter()
        .map(|kind| node.repos.list(kind).len())
        .sum();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "format": crate::folder::FORMAT,
        "peer_id": node.keys.peer_id,
        "listen_addrs": all.listen_addrs(),
        "peers": all.peers().len(),
        "transfers": all.transfers(),
        "cache": cache.map_err(|error| tracing::warn!(%error, "the cache can't be looked at")).ok(),
        "gateway_url": url,
        "plain_http": node.is_exposed.load(std::sync::atomic::Ordering::Relaxed),
        "restored": node.guard.restored(),
        "namespace": NamespaceName::Hash(node.namespace).to_string(),
        "namespace_alias": node.config.namespace_alias,
        "data": node.folder.path(),
        "repositories": repositories,
        "blobs": stats.blobs,
        "bytes": stats.bytes,
        "uptime_s": url.as_ref().map(|_| node.started.elapsed().as_secs()),
        "pid": std::process::id(),
        "running": url.is_some(),
    })
}

/// Who is connected, and what was exchanged with each.
fn peers(node: &Node) -> Value {
    let traffic = node
        .inner
        .network
        .as_ref()
        .map(|network| network.blobs.traffic());
    let traffic: HashMap<String, (u64, u64)> = traffic
        .into_iter()
        .flatten()
        .map(|(key, sent, taken)| (key.to_string(), (sent, taken)))
        .collect();
    let mut peers = node.peers();
    peers.sort_by(|a, b| (b.connected_s, &a.peer_id).cmp(&(a.connected_s, &b.peer_id)));
    let peers: Vec<Value> = peers
        .iter()
        .map(|peer| {
            let (sent, taken) = traffic.get(&peer.key).copied().unwrap_or_default();
            let mut value = json(peer);
            value["sent_bytes"] = sent.into();
            value["taken_bytes"] = taken.into();
            value
        })
        .collect();
    json!({ "peers": peers })
}

/// Where the gateway shows a repository; none where there is no gateway.
fn url_of(node: &Inner, answer: &Value) -> Option<String> {
    let url = node
        .gateway_url
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()?;
    let repo = answer["repo"].as_str()?;
    let kind: RepoKind = serde_json::from_value(answer["kind"].clone()).ok()?;
    Some(match kind {
        RepoKind::Model => format!("{url}/{repo}"),
        kind => format!("{url}/{}/{repo}", kind.plural()),
    })
}

fn push(
    node: &Node,
    request: &PushRequest,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, Failure> {
    let pushed = node.push(request, progress).map_err(|error| {
        let hint = match &error {
            PublishError::Path(_) | PublishError::Refused { .. } => {
                Some("rename or remove it, or name it in .gitignore, and push again".to_owned())
            }
            PublishError::Store(StoreError::Full { .. }) => {
                Some("free disk space or run `cairn gc`, and push again".into())
            }
            PublishError::Read { .. } => Some("check that it exists and may be read".to_owned()),
            _ => None,
        };
        Failure::new(&error, hint)
    })?;
    let mut value = json(&pushed);
    value["url"] = url_of(&node.inner, &value).into();
    Ok(value)
}

fn ls(node: &Inner, only: Option<RepoKind>) -> Value {
    let mut repositories: Vec<(String, Value)> = Vec::new();
    for kind in RepoKind::ALL
        .into_iter()
        .filter(|kind| only.is_none_or(|only| only == *kind))
    {
        for repo in node.repos.list(kind) {
            let commit = repo.default_commit().ok().flatten();
            let sums = repo.commit("HEAD").and_then(|commit| commit.sums("")).ok();
            repositories.push((
                repo.shown_name().to_owned(),
                json!({
                    "repo": repo.shown_name(),
                    "private": repo.is_private(),
                    "kind": kind,
                    "commit": commit,
                    "files": sums.map(|sums| sums.0),
                    "bytes": sums.map(|sums| sums.1),
                    "last_modified": repo.last_modified(),
                    "pinned": repo.is_pinned(),
                    "frozen": repo.is_frozen(),
                }),
            ));
        }
    }
    repositories.sort_by(|a, b| a.0.cmp(&b.0));
    json!({ "repositories": repositories.into_iter().map(|(_, value)| value).collect::<Vec<_>>() })
}

fn info(repo: &Repo) -> Result<Value, RepoError> {
    let default = repo.default_commit()?;
    let sums = match default {
        Some(_) => Some(repo.commit("HEAD")?.sums("")?),
        None => None,
    };
    let card = repo.card();
    let (epoch, seq) = repo.version();
    Ok(json!({
        "repo": repo.shown_name(),
        "private": repo.is_private(),
        "kind": repo.kind(),
        "id": repo.id(),
        "commit": default,
        "refs": repo.refs()?,
        "signer": repo.signer(),
        "epoch": epoch,
        "seq": seq,
        "created_at": repo.created_at(),
        "last_modified": repo.last_modified(),
        "pinned": repo.is_pinned(),
        "frozen": repo.is_frozen(),
        "files": sums.map(|sums| sums.0),
        "bytes": sums.map(|sums| sums.1),
        "tags": card.tags,
        "pipeline_tag": card.pipeline_tag,
        "library_name": card.library_name,
        "license": card.license,
    }))
}

/// Finds a repository by `[models/|datasets/|spaces/][namespace/]name`; a bare name is looked for in this
/// node's own namespace too, and in every kind.
pub(crate) fn find(node: &Node, text: &str) -> Result<Repo, Failure> {
    let (kinds, id) = kinds(text);
    let own = format!("{}/{id}", node.namespace());
    let ids = if id.contains('/') {
        vec![id]
    } else {
        vec![id, own.as_str()]
    };
    let mut found = Vec::new();
    for kind in kinds {
        for id in &ids {
            let mut id = (*id).to_owned();
            // A rename answers with the name that holds now.
            for _ in 0..2 {
                match node.repos().find(kind, &id) {
                    Ok(Found::Repo(repo)) => {
                        found.push(repo);
                        break;
                    }
                    Ok(Found::Redirect(next)) => id = next,
                    Err(_) => break,
                }
            }
        }
    }
    found.dedup_by_key(|repo| repo.id());
    match found.as_slice() {
        [repo] => Ok(repo.clone()),
        [] => Err(Failure {
            error: format!("repository {text} not found"),
            causes: Vec::new(),
            hint: Some("`cairn ls` lists what this node holds".to_owned()),
        }),
        several => Err(Failure {
            error: format!(
                "{text} names {} repositories of different kinds",
                several.len()
            ),
            causes: Vec::new(),
            hint: Some("put models/, datasets/ or spaces/ in front of it".to_owned()),
        }),
    }
}

/// The kinds that a name may be of, and the name without them.
fn kinds(text: &str) -> (Vec<RepoKind>, &str) {
    let prefixed = text.split_once('/').and_then(|(first, rest)| {
        let mut all = RepoKind::ALL.into_iter();
        let kind = all.find(|kind| kind.plural() == first)?;
        Some((vec![kind], rest))
    });
    prefixed.unwrap_or_else(|| (RepoKind::ALL.to_vec(), text))
}

/// The one repository that a name leads to, whether or not it can be shown.
pub(crate) fn known(node: &Node, text: &str) -> Option<RepositoryId> {
    let (kinds, id) = kinds(text);
    let mut known = kinds
        .into_iter()
        .filter_map(|kind| node.repos().known(kind, id));
    known.next().filter(|_| known.next().is_none())
}

fn pin(node: &Node, repo: &str, pinned: bool) -> Result<Value, Failure> {
    let repo = find(node, repo)?;
    if repo.is_pinned() != pinned {
        let repository = repo.id();
        // What is being swept was chosen by what was pinned then.
        let _lease = node.inner.store.lease();
        let entry = if pinned {
            JournalEntry::Pinned { repository }
        } else {
            JournalEntry::Unpinned { repository }
        };
        node.inner
            .journal
            .append(entry)
            .map_err(|error| Failure::new(&error, None))?;
        node.inner.repos.set_pinned(repository, pinned);
    }
    Ok(json!({ "repo": repo.shown_name(), "kind": repo.kind(), "pinned": pinned }))
}

/// Says of each part of the data folder whether it is in order.
fn doctor(node: &Inner, rebuild: bool, progress: &mut dyn FnMut(Progress)) -> Value {
    if rebuild {
        progress(Progress {
            what: "rebuilding the views".to_owned(),
            done: 0,
            total: 0,
        });
        node.store.rebuild_views();
    }
    let stats = node.store.stats();
    let mut checks = vec![
        json!({ "name": "format", "ok": true, "detail": format!("version {}", crate::folder::FORMAT) }),
        json!({ "name": "keys", "ok": true, "detail": "node and namespace root, readable by their owner only, not sealed" }),
        json!({
            "name": "log", "ok": true,
            "detail": format!("{} segments, {} bytes, read at start", stats.segments, stats.log_bytes),
        }),
    ];
    let mut unreadable = Vec::new();
    let mut repositories = 0;
    for repo in RepoKind::ALL
        .into_iter()
        .flat_map(|kind| node.repos.list(kind))
    {
        repositories += 1;
        if let Err(error) = info(&repo) {
            unreadable.push(format!("{}: {error}", repo.full_name()));
        }
    }
    checks.push(json!({
        "name": "repositories", "ok": unreadable.is_empty(),
        "detail": if unreadable.is_empty() {
            format!("{repositories} readable")
        } else {
            unreadable.join("; ")
        },
    }));
    let free = free_bytes(node.folder.path());
    checks.push(json!({
        "name": "disk", "ok": free.is_none_or(|free| free >= FREE_BYTES_LOW),
        "detail": free.map_or_else(|| "free space unknown".to_owned(), |free| format!("{free} bytes free")),
    }));
    let ok = checks.iter().all(|check| check["ok"] == true);
    json!({ "ok": ok, "checks": checks, "rebuilt": rebuild })
}

fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn failed(error: &RepoError) -> Failure {
    let hint = matches!(error, RepoError::Damaged(_) | RepoError::Store(_)).then(|| {
        "`cairn verify` names what is damaged; pushing the same files again heals it".into()
    });
    Failure::new(error, hint)
}
