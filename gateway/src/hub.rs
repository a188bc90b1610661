//! The hub API: what a repository is, what it holds, which there are.
//!
//! Every answer is made on a blocking thread from the node's own memory and manifests; `/api` paths are
//! cut here and not by the router, since they are ambiguous (see [`crate::repo`]). What is said of one
//! model needs a few of its files: those that are not here are fetched (see `files`).

mod compare;
mod facts;
mod fields;
mod files;
mod history;
mod info;
mod listing;
mod search;
mod tree;
mod weights;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use cairn_node::Reader;
use cairn_node::permission::Access;
use cairn_node::repos::Repo;
use cairn_protocol::name::RepoKind;
use serde_json::json;

pub(crate) use self::facts::Facts;
use self::files::Reach;
use crate::auth::Client;
use crate::error::{ApiError, reading_only};
use crate::gateway::Gateway;
use crate::publish::{self, Order, commit};
use crate::reply::Reply;
use crate::repo::{self, Located};
use crate::url::{self, Asked, Segment};
use crate::{accounts, body, downloads, xet};

/// What may follow a repository's id.
const VERBS: [&str; 11] = [
    "auth-check",
    "commits",
    "compare",
    "paths-info",
    "refs",
    "revision",
    "safetensors-metadata",
    "tree",
    "treesize",
    "xet-read-token",
    "xet-write-token",
];

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/api", any(no_route))
        .route("/api/{*rest}", any(serve))
}

async fn no_route() -> ApiError {
    ApiError::no_route()
}

/// A request, as far as its answer depends on it.
struct Question {
    uri: Uri,
    method: Method,
    client: Client,
    /// Whoever downloads, where this is of a download.
    reader: Option<Reader>,
    asked: Asked,
    form: Bytes,
    is_json: bool,
}

impl Question {
    fn is_post(&self) -> bool {
        self.method == Method::POST
    }

    /// The question as an order: somebody known wants something changed.
    fn order<'a>(&'a self, gateway: &'a Gateway) -> Order<'a> {
        Order {
            gateway,
            client: &self.client,
            method: &self.method,
            asked: &self.asked,
            body: &self.form,
        }
    }
}

async fn serve(State(gateway): State<Gateway>, request: Request) -> Response {
    if request.method() == Method::POST && commit::is_commit(request.uri().path()) {
        return commit::serve(gateway, request).await;
    }
    question(gateway, request).await.into_response()
}

async fn question(gateway: Gateway, request: Request) -> Result<Reply, ApiError> {
    let (parts, body) = request.into_parts();
    let config = gateway.config();
    let client = Client::of(&gateway, &parts.headers);
    let form = match parts.method {
        Method::GET | Method::HEAD => Bytes::new(),
        Method::POST | Method::PUT | Method::DELETE => {
            // Only somebody known may send much, and not many at a time.
            let is_known = client.token.is_some();
            let large = is_known
                && body::announced(&parts.headers)
                    .is_none_or(|length| length > config.body_bytes_max as u64);
            let (max, _place) = if large {
                (publish::BODY_BYTES_MAX, Some(gateway.upload_place().await?))
            } else {
                (config.body_bytes_max, None)
            };
            body::read(&parts.headers, body, max, config).await?
        }
        _ => return Err(ApiError::method_not_allowed("GET, HEAD, POST, PUT, DELETE")),
    };
    let question = Question {
        asked: Asked::new(&parts.uri, &parts.headers, config)?,
        is_json: parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")),
        method: parts.method,
        reader: downloads::reader(&gateway, &client, &parts.headers, &parts.extensions),
        client,
        uri: parts.uri,
        form,
    };
    let question = Arc::new(question);
    let asked = Arc::clone(&question);
    let (reply, is_lacking) = gateway
        .blocking(move |gateway| {
            let reach = Reach::here();
            let reply = answer(gateway, &asked, &reach);
            Ok((reply, reach.is_lacking()))
        })
        .await?;
    let waits = gateway.facts().waits();
    let Some(place) = is_lacking.then(|| waits.place()).flatten() else {
        return reply;
    };
    // Again, with what peers have.
    tokio::task::spawn_blocking(move || {
        let _place = place;
        answer(&gateway, &question, &Reach::peers())
    })
    .await
    .map_err(ApiError::internal)?
}

fn answer(gateway: &Gateway, question: &Question, reach: &Reach) -> Result<Reply, ApiError> {
    let segments = url::segments(question.uri.path())?;
    let segments = segments.get(1..).unwrap_or_default();
    let first = segments.first().map_or("", |segment| segment.text.as_ref());
    let kind = RepoKind::ALL
        .into_iter()
        .find(|kind| kind.plural() == first);
    if kind.is_none() {
        let order = question.order(gateway);
        let settings = || accounts::settings(&order, segments);
        if let Some(reply) = publish::about_all(&order, segments).or_else(settings) {
            return reply;
        }
    }
    // What changes a repository, and is not only asked with a form.
    let verbs = || {
        segments
            .iter()
            .skip(2)
            .any(|segment| publish::VERBS.contains(&&*segment.text))
    };
    let is_paths_info = segments.iter().any(|s| s.text == "paths-info");
    if kind.is_none() || !(verbs() || (question.is_post() && is_paths_info)) {
        reading_only(&question.method)?;
    }
    match (kind, segments) {
        (Some(kind), [_]) => listing::list(gateway, &question.client, kind, &question.asked),
        (Some(kind), [_, rest @ ..]) => about_repository(gateway, kind, rest, question, reach),
        (None, [only]) => about_gateway(gateway, &only.text, question),
        (None, [first, ..]) if first.text == "telemetry" => Ok(Reply::json(&json!({}))),
        _ => Err(ApiError::no_route()),
    }
}

fn about_gateway(gateway: &Gateway, what: &str, question: &Question) -> Result<Reply, ApiError> {
    match what {
        "whoami-v2" => accounts::whoami(&question.order(gateway)),
        "telemetry" => Ok(Reply::json(&json!({}))),
        "agent-harnesses" => Ok(Reply::json(
            &json!({ "standardEnvVars": [], "harnesses": {} }),
        )),
        "models-tags-by-type" => Ok(search::tags_by_type(
            gateway,
            &question.client,
            RepoKind::Model,
        )),
        "datasets-tags-by-type" => Ok(search::tags_by_type(
            gateway,
            &question.client,
            RepoKind::Dataset,
        )),
        "quicksearch" => search::quick(gateway, &question.client, &question.asked.query),
        _ => Err(ApiError::no_route()),
    }
}

fn about_repository(
    gateway: &Gateway,
    kind: RepoKind,
    segments: &[Segment<'_>],
    question: &Question,
    reach: &Reach,
) -> Result<Reply, ApiError> {
    let prefix = format!("/api/{}/", kind.plural());
    let is_verb = |verb: &str| VERBS.contains(&verb) || publish::VERBS.contains(&verb);
    let readings: Vec<_> = repo::readings(segments, is_verb).collect();
    if readings.is_empty() {
        return Err(ApiError::no_route());
    }
    let query = question.uri.query();
    let client = &question.client;
    match repo::locate(gateway, client, kind, &prefix, readings.into_iter(), query)? {
        Located::Moved(path) => Ok(Reply::moved(&path)),
        Located::Here(repo, rest) => match rest.split_first() {
            Some((verb, rest)) if publish::VERBS.contains(&&*verb.text) => {
                client.must(gateway, publish::wanted(&verb.text), &repo)?;
                publish::about(&question.order(gateway), &repo, &verb.text, rest)
            }
            None => info::of_repository(gateway, &repo, &question.asked.query, reach),
            Some((verb, rest)) => about(gateway, &repo, &verb.text, rest, question, reach),
        },
    }
}

fn about(
    gateway: &Gateway,
    repo: &Repo,
    verb: &str,
    rest: &[Segment<'_>],
    question: &Question,
    reach: &Reach,
) -> Result<Reply, ApiError> {
    let asked = &question.asked;
    match (verb, rest) {
        ("auth-check", []) => Ok(Reply::json(&json!({}))),
        ("auth-check", [what]) if what.text == "write" => {
            question.client.must(gateway, Access::Write, repo)?;
            Ok(Reply::json(&json!({})))
        }
        ("xet-read-token", [_, ..]) => {
            let token = xet::token(&question.order(gateway), repo, false)?;
            // Clients that learned all else from the tree ask for none of its files by their paths.
            if let Some(reader) = question.reader {
                gateway.node().count_download(&repo.id(), reader);
            }
            Ok(token)
        }
        ("xet-write-token", [_, ..]) => xet::token(&question.order(gateway), repo, true),
        ("refs", []) => history::refs(repo, &asked.query),
        ("compare", [_, ..]) => compare::revisions(gateway, repo, rest, reach),
        ("safetensors-metadata", [_, ..]) => weights::metadata(gateway, repo, rest, reach),
        ("revision" | "commits" | "paths-info" | "tree" | "treesize", [_, ..]) => {
            let (commit, path) = repo::commit(repo, rest)?;
            match verb {
                "tree" => {
                    // The next pages are of this commit, wherever its branch is by then.
                    let oid = commit.info().oid.to_hex();
                    let asked = asked.with_revision(&oid, rest.len() - path.len(), path.len());
                    tree::list(gateway, &commit, path, &asked)
                }
                "treesize" => tree::size(&commit, path),
                _ if !path.is_empty() => Err(no_such_revision(rest)),
                "revision" => info::of_commit(gateway, repo, commit, &asked.query, reach),
                "commits" => history::commits(&commit, asked),
                _ if !question.is_post() => Err(ApiError::method_not_allowed("POST")),
                _ => tree::paths(gateway, &commit, &question.form, question.is_json),
            }
        }
        _ => Err(ApiError::no_route()),
    }
}

/// All of the segments were to name a revision, and only some do.
fn no_such_revision(segments: &[Segment<'_>]) -> ApiError {
    let parts: Vec<&str> = segments.iter().map(|s| s.text.as_ref()).collect();
    ApiError::revision_not_found(&parts.join("/"))
}
