//! File contents: `/{id}/resolve/{rev}/{path}` and `/raw/`, with what the hub's clients read of them.
//!
//! A request for a file that was asked for before costs one look-up: [`Documents`] keeps whole answers,
//! header by header, under the URL's path. They are valid for one generation of the node, so that names,
//! branches, and content found damaged are never older than the node itself; and an open file is looked
//! at (`fstat`) before each use, and asked of the node again after a while. A file that the node lacks
//! is fetched from its peers and sent while it arrives (`arriving`); nothing is kept of such an answer.

mod arriving;
mod document;
mod headers;
mod openings;

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::LINK;
use axum::response::{IntoResponse as _, Response};
use cairn_node::fetch::{FetchError, Wanted};
use cairn_node::repos::{EntryKind, FileEntry};
use cairn_node::store::StoreError;
use cairn_protocol::hash::{Blake3, GitOid, RepositoryId};
use cairn_protocol::name::RepoKind;
use quick_cache::{Equivalent, Weighter, sync::Cache};

use self::document::{Document, Face, Facts};
pub(crate) use self::openings::Openings;
use crate::auth::Client;
use crate::error::{ApiError, REPO_COMMIT, ascii, reading_only};
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::repo::{self, Located};
use crate::url::Asked;
use crate::{downloads, lfs, url, xet};

/// Bytes of a path under which an answer is kept; longer ones are served and not kept.
const KEPT_PATH_BYTES_MAX: usize = 4 << 10;
/// Bytes up to which a file is opened at once: where it must be verified first, that is soon done.
const OPENED_AT_ONCE_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn routes() -> Router<Gateway> {
    Router::new().fallback(serve)
}

async fn serve(State(gateway): State<Gateway>, request: Request) -> Result<Response, ApiError> {
    if lfs::is_ours(request.uri().path()) {
        return Ok(lfs::serve(State(gateway), request).await);
    }
    reading_only(request.method())?;
    // Answers that are kept are given to everybody: whose token came with it is noted all the same.
    let client = Client::of(&gateway, request.headers());
    let reader = downloads::reader(&gateway, &client, request.headers(), request.extensions());
    let (response, counts_for) = answer(&gateway, client, request).await?;
    if let (Some(reader), Some(repository)) = (reader, counts_for)
        && response.status().is_success()
    {
        gateway.node().count_download(&repository, reader);
    }
    Ok(response)
}

/// The answer, and the repository that it is a download of.
async fn answer(
    gateway: &Gateway,
    client: Client,
    request: Request,
) -> Result<(Response, Option<RepositoryId>), ApiError> {
    let generation = gateway.node().repos().generation();
    let path = request.uri().path();
    if let Some(document) = gateway.documents().get(generation, path) {
        return sent(gateway, &request, &document);
    }
    let uri = request.uri().clone();
    let (loaded, is_private) = gateway
        .blocking(move |gateway| load(gateway, &client, uri.path(), uri.query()))
        .await?;
    let opened = match loaded {
        Loaded::Opened(opened) => {
            // What is kept is given to whoever asks for it.
            if let (Opened::Here(document), false) = (&opened, is_private) {
                gateway
                    .documents()
                    .put(generation, path, Arc::clone(document));
            }
            opened
        }
        Loaded::Large(found) => open(gateway, generation, path, *found, is_private).await?,
        Loaded::Moved(path) => return Ok((Reply::moved(&path).into_response(), None)),
    };
    let away = match opened {
        Opened::Here(document) => return sent(gateway, &request, &document),
        Opened::Away(away) => away,
    };
    let (head, part) = away.face.head(&request)?;
    let response = match part {
        Some(part) => arriving::fill(gateway, head, part, away.wanted, away.damage).await?,
        None => head,
    };
    Ok((response, away.face.counts_for()))
}

fn sent(
    gateway: &Gateway,
    request: &Request,
    document: &Document,
) -> Result<(Response, Option<RepositoryId>), ApiError> {
    let response = with_xet(gateway, request, document.answer(request)?)?;
    Ok((response, document.counts_for()))
}

/// Says where a token for xet is to be had, where the file can be had that way: the link depends on the request.
fn with_xet(
    gateway: &Gateway,
    request: &Request,
    mut response: Response,
) -> Result<Response, ApiError> {
    let headers = response.headers_mut();
    let commit = headers.get(REPO_COMMIT).cloned();
    if headers.contains_key(document::XET_HASH)
        && let Some(commit) = commit.as_ref().and_then(|commit| commit.to_str().ok())
        && let Some((id, _)) = request.uri().path().split_once("/resolve/")
    {
        let asked = Asked::new(request.uri(), request.headers(), gateway.config())?;
        let (kind, id) = match id.trim_start_matches('/').split_once('/') {
            Some((kind @ ("datasets" | "spaces"), id)) => (kind, id),
            _ => ("models", id.trim_start_matches('/')),
        };
        let url = asked.absolute(&format!("/api/{kind}/{id}/xet-read-token/{commit}"));
        headers.insert(LINK, ascii(&format!("<{url}>; rel=\"xet-auth\"")));
    }
    Ok(response)
}

enum Loaded {
    Opened(Opened),
    /// A file that may take long to open.
    Large(Box<Found>),
    Moved(String),
}

enum Opened {
    Here(Arc<Document>),
    Away(Box<Away>),
}

/// A file that this node can't read now, and may fetch.
struct Away {
    face: Face,
    wanted: Wanted,
    /// What is wrong with this node's own copy, where it has one.
    damage: Option<StoreError>,
}

/// A file of a repository, not open yet.
struct Found {
    repository: RepositoryId,
    commit: GitOid,
    path: String,
    oid: GitOid,
    file: FileEntry,
    hash: Blake3,
    counts_for: Option<RepositoryId>,
}

impl Found {
    fn open(self, gateway: &Gateway) -> Result<Opened, ApiError> {
        let facts = Facts {
            commit: self.commit,
            path: &self.path,
            oid: self.oid,
            file: &self.file,
            xet: xet::hash_of(gateway, &self.file)?,
            counts_for: self.counts_for,
        };
        let node = gateway.node();
        let claimed = wanted(
            self.repository,
            self.path.clone(),
            self.oid,
            &self.file,
            self.hash,
        );
        let damage = match node.content(&self.hash) {
            Ok(content) => match (node.agreement(&claimed)?, node.is_networked()) {
                (Some(true), _) | (None, false) => {
                    let document = Document::file(&facts, content)?;
                    return Ok(Opened::Here(Arc::new(document)));
                }
                // Other bytes than those that its entity tag promises, or that is not known: found out by
                // who fetches, without the network where all is here.
                (Some(false) | None, true) => None,
                (Some(false), false) => {
                    let digest = "content";
                    let path = self.path;
                    return Err(FetchError::Disagrees { path, digest }.into());
                }
            },
            Err(error) if !node.is_networked() => return Err(error.into()),
            Err(StoreError::Absent { .. }) => None,
            Err(error @ StoreError::Damaged { .. }) => Some(error),
            Err(error) => return Err(error.into()),
        };
        Ok(Opened::Away(Box::new(Away {
            face: Face::of(&facts),
            wanted: claimed,
            damage,
        })))
    }
}

/// What the node needs to know to fetch a file.
pub(crate) fn wanted(
    repository: RepositoryId,
    path: String,
    oid: GitOid,
    file: &FileEntry,
    blake3: Blake3,
) -> Wanted {
    Wanted {
        repository,
        path,
        blake3,
        size: file.size,
        sha256: file.sha256,
        git: file.pointer_size.is_none().then_some(oid),
    }
}

/// Opens a large file outside the places of other requests.
///
/// It goes on, and its answer is kept, where the client goes away.
async fn open(
    gateway: &Gateway,
    generation: u64,
    path: &str,
    found: Found,
    is_private: bool,
) -> Result<Opened, ApiError> {
    let patience = gateway.config().queue_timeout;
    let opening = gateway.openings().begin(found.hash, patience).await?;
    let (gateway, path) = (gateway.clone(), path.to_owned());
    tokio::task::spawn_blocking(move || {
        let _opening = opening;
        let opened = found.open(&gateway)?;
        if let (Opened::Here(document), false) = (&opened, is_private) {
            gateway
                .documents()
                .put(generation, &path, Arc::clone(document));
        }
        Ok(opened)
    })
    .await
    .map_err(ApiError::internal)?
}

/// Finds a file of a repository and makes its answer; also says whether the repository is private.
fn load(
    gateway: &Gateway,
    client: &Client,
    path: &str,
    query: Option<&str>,
) -> Result<(Loaded, bool), ApiError> {
    // No file has an empty name: a slash at the end names nothing here.
    if path.ends_with('/') {
        return Err(ApiError::no_route());
    }
    let segments = url::segments(path)?;
    let (kind, prefix, segments) = match segments.split_first() {
        Some((first, rest)) if first.text == "datasets" => (RepoKind::Dataset, "/datasets/", rest),
        Some((first, rest)) if first.text == "spaces" => (RepoKind::Space, "/spaces/", rest),
        _ => (RepoKind::Model, "/", &segments[..]),
    };
    // A verb, a revision and a path must follow the id, else this is no URL of a file.
    let readings: Vec<_> = repo::readings(segments, |verb| matches!(verb, "resolve" | "raw"))
        .filter(|reading| reading.rest.len() >= 3)
        .collect();
    if readings.is_empty() {
        return Err(ApiError::no_route());
    }
    let (repo, rest) =
        match repo::locate(gateway, client, kind, prefix, readings.into_iter(), query)? {
            Located::Here(repo, rest) => (repo, rest),
            Located::Moved(path) => return Ok((Loaded::Moved(path), true)),
        };
    let is_private = repo.is_private();
    let (commit, path) = repo::commit(&repo, &rest[1..])?;
    let oid = commit.info().oid;
    let entry = match repo::path(path) {
        Some(path) if !path.is_empty() => commit.entry(&path)?,
        _ => None,
    };
    let entry = entry.ok_or_else(|| ApiError::entry_not_found(&oid))?;
    let EntryKind::File(file) = entry.kind else {
        return Err(ApiError::entry_not_found(&oid));
    };
    let facts = Facts {
        commit: oid,
        path: &entry.path,
        oid: entry.oid,
        file: &file,
        xet: None,
        counts_for: None,
    };
    if let Some(size) = file.pointer_size.filter(|_| rest[0].text == "raw") {
        let document = Document::pointer(&facts, size)?;
        return Ok((Loaded::Opened(Opened::Here(Arc::new(document))), is_private));
    }
    let hash = file
        .blake3
        .ok_or_else(|| ApiError::content_unknown(&entry.path))?;
    let found = Found {
        repository: repo.id(),
        commit: oid,
        path: entry.path,
        oid: entry.oid,
        file,
        hash,
        counts_for: (rest[0].text == "resolve").then_some(repo.id()),
    };
    if found.file.size > OPENED_AT_ONCE_BYTES_MAX {
        return Ok((Loaded::Large(Box::new(found)), is_private));
    }
    Ok((Loaded::Opened(found.open(gateway)?), is_private))
}

/// Prepared answers by generation and path, within a bound of bytes.
#[derive(Debug)]
pub(crate) struct Documents {
    cache: Cache<Key, Arc<Document>, Weigh>,
    newest: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    generation: u64,
    path: Box<str>,
}

/// A [`Key`] that owns nothing; hashes alike.
#[derive(Hash)]
struct KeyRef<'a> {
    generation: u64,
    path: &'a str,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.generation == key.generation && *self.path == *key.path
    }
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<Key, Arc<Document>> for Weigh {
    fn weight(&self, key: &Key, document: &Arc<Document>) -> u64 {
        key.path.len() as u64 + document.weight()
    }
}

impl Documents {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let typical_bytes = 4 << 10;
        let count = usize::try_from(bytes_max / typical_bytes).unwrap_or(usize::MAX);
        Self {
            cache: Cache::with_weighter(count, bytes_max, Weigh),
            newest: AtomicU64::new(0),
        }
    }

    /// How many answers are kept.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.cache.len()).unwrap_or(u32::MAX)
    }

    fn get(&self, generation: u64, path: &str) -> Option<Arc<Document>> {
        let key = KeyRef { generation, path };
        let document = self.cache.get(&key)?;
        if document.is_fresh() {
            return Some(document);
        }
        self.cache.remove(&key);
        None
    }

    fn put(&self, generation: u64, path: &str, document: Arc<Document>) {
        if path.len() > KEPT_PATH_BYTES_MAX {
            return;
        }
        self.retire(generation);
        let key = Key {
            generation,
            path: path.into(),
        };
        if self.newest.load(Ordering::Relaxed) == generation {
            self.cache.insert(key.clone(), document);
        }
        // Another thread may have cleared the cache in between.
        if self.newest.load(Ordering::Relaxed) != generation {
            self.cache.remove(&key);
        }
    }

    /// Drops what generations before this one left: it can't be asked for again, and keeps files open.
    pub(crate) fn retire(&self, generation: u64) {
        if self.newest.fetch_max(generation, Ordering::Relaxed) < generation {
            self.cache.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_node::repos::FileEntry;
    use cairn_node::store::Content;
    use cairn_protocol::hash::{GitOid, Sha256};

    use super::*;

    fn document(bytes: usize) -> Arc<Document> {
        let file = FileEntry {
            size: bytes as u64,
            sha256: Sha256::from_bytes([1; 32]),
            blake3: None,
            pointer_size: None,
            xet: None,
            executable: false,
        };
        let facts = Facts {
            commit: GitOid::from_bytes([2; 20]),
            path: "a",
            oid: GitOid::from_bytes([3; 20]),
            file: &file,
            xet: None,
            counts_for: None,
        };
        let content = Content::Small(vec![0; bytes].into());
        Arc::new(Document::file(&facts, content).unwrap())
    }

    #[test]
    fn answers_are_kept_for_their_generation_only() {
        let documents = Documents::new(1 << 20);
        documents.put(1, "/a", document(10));
        assert!(documents.get(1, "/a").is_some());
        assert!(documents.get(2, "/a").is_none());
        assert!(documents.get(1, "/b").is_none());
        documents.put(2, "/b", document(10));
        assert!(documents.get(1, "/a").is_none());
        // A late answer of the past is not asked for, and throws nothing away.
        documents.put(1, "/a", document(10));
        assert!(documents.get(2, "/b").is_some());
        assert!(documents.get(1, "/a").is_none(), "nor is it kept");
        documents.retire(3);
        assert_eq!(documents.count(), 0);
    }

    #[test]
    fn answers_are_kept_within_a_bound() {
        let documents = Documents::new(1 << 20);
        for number in 0..1_000 {
            documents.put(1, &format!("/{number}"), document(50_000));
        }
        assert!(documents.cache.weight() <= 1 << 20);
        assert!(documents.count() > 0);
        documents.put(2, &"/x".repeat(KEPT_PATH_BYTES_MAX), document(1));
        assert!(documents.get(1, "/999").is_some() || documents.count() > 0);
    }
}
