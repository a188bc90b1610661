//! The hub API: what a repository is, what it holds, which there are.
//!
//! Every answer is made on a blocking thread from the node's own memory and manifests; `/api` paths are
//! cut here and not by the router, since they are ambiguous (see [`crate::repo`]). What is said of one
//! model needs a few of its files: those that are not here are fetched (see `files`).

mod body;
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
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Uri};
use axum::routing::any;
use cairn_node::repos::Repo;
use cairn_protocol::name::RepoKind;
use serde_json::json;

pub(crate) use self::facts::Facts;
use self::files::Reach;
use crate::error::{ApiError, reading_only};
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::repo::{self, Located};
use crate::url::{self, Asked, Segment};

/// What may follow a repository's id.
const VERBS: [&str; 8] = [
    "auth-check",
    "commits",
    "paths-info",
    "refs",
    "revision",
    "safetensors-metadata",
    "tree",
    "treesize",
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
    asked: Asked,
    form: Bytes,
    is_json: bool,
    is_post: bool,
    has_credentials: bool,
}

async fn serve(State(gateway): State<Gateway>, request: Request) -> Result<Reply, ApiError> {
    let (parts, body) = request.into_parts();
    let config = gateway.config();
    let is_post = parts.method == Method::POST;
    let form = if is_post {
        body::read(&parts.headers, body, config).await?
    } else {
        reading_only(&parts.method)?;
        Bytes::new()
    };
    let question = Question {
        asked: Asked::new(&parts.uri, &parts.headers, config.public_url.as_deref())?,
        is_json: parts
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")),
        has_credentials: parts.headers.contains_key(AUTHORIZATION),
        uri: parts.uri,
        form,
        is_post,
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
    let is_paths_info = kind.is_some() && segments.iter().any(|s| s.text == "paths-info");
    if question.is_post && !is_paths_info {
        return Err(ApiError::method_not_allowed("GET, HEAD"));
    }
    match (kind, segments) {
        (Some(kind), [_]) => listing::list(gateway, kind, &question.asked),
        (Some(kind), [_, rest @ ..]) => about_repository(gateway, kind, rest, question, reach),
        (None, [only]) => about_gateway(gateway, &only.text, question),
        (None, [first, ..]) if first.text == "telemetry" => Ok(Reply::json(&json!({}))),
        _ => Err(ApiError::no_route()),
    }
}

fn about_gateway(gateway: &Gateway, what: &str, question: &Question) -> Result<Reply, ApiError> {
    match what {
        "whoami-v2" => Err(ApiError::unauthorized(if question.has_credentials {
            "Invalid credentials in Authorization header"
        } else {
            "Invalid username or password."
        })),
        "telemetry" => Ok(Reply::json(&json!({}))),
        "agent-harnesses" => Ok(Reply::json(
            &json!({ "standardEnvVars": [], "harnesses": {} }),
        )),
        "models-tags-by-type" => Ok(search::tags_by_type(gateway, RepoKind::Model)),
        "datasets-tags-by-type" => Ok(search::tags_by_type(gateway, RepoKind::Dataset)),
        "quicksearch" => search::quick(gateway, &question.asked.query),
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
    let readings: Vec<_> = repo::readings(segments, |verb| VERBS.contains(&verb)).collect();
    if readings.is_empty() {
        return Err(ApiError::no_route());
    }
    let query = question.uri.query();
    match repo::locate(gateway.node(), kind, &prefix, readings.into_iter(), query)? {
        Located::Moved(path) => Ok(Reply::moved(&path)),
        Located::Here(repo, rest) => match rest.split_first() {
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
        ("refs", []) => history::refs(repo, &asked.query),
        ("safetensors-metadata", [_, ..]) => weights::metadata(gateway, repo, rest, reach),
        ("revision" | "commits" | "paths-info" | "tree" | "treesize", [_, ..]) => {
            let (commit, path) = repo::commit(repo, rest)?;
            match verb {
                "tree" => {
                    // The next pages are of this commit, wherever its branch is by then.
                    let oid = commit.info().oid.to_hex();
                    let asked = asked.with_revision(&oid, rest.len() - path.len(), path.len());
                    tree::list(&commit, path, &asked)
                }
                "treesize" => tree::size(&commit, path),
                _ if !path.is_empty() => Err(no_such_revision(rest)),
                "revision" => info::of_commit(gateway, repo, commit, &asked.query, reach),
                "commits" => history::commits(&commit, asked),
                _ if !question.is_post => Err(ApiError::method_not_allowed("POST")),
                _ => tree::paths(&commit, &question.form, question.is_json),
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
