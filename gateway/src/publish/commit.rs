//! `POST /api/…/commit/{revision}`: NDJSON, a line for each operation, read as it streams.
//!
//! Lines are cut while the body arrives and handed to a worker, which stores each file's content at once: a
//! commit may be larger than memory. Nothing of it is visible before all lines were read and the head is
//! signed. Contents of a commit that breaks off are collected like any that nothing names.

mod lines;
mod operations;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use cairn_node::permission::Access;
use cairn_node::publish::{Draft, PublishError};
use cairn_node::repos::Repo;
use cairn_protocol::name::RepoKind;
use serde_json::json;

use self::operations::Assembly;
use super::refs::full_name;
use super::url_of;
use crate::auth::Client;
use crate::body;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::repo::{self, Located};
use crate::url::{self, Asked, Segment};

/// The repository and revision that a request commits to, where it is one that does.
fn target<'a>(segments: &'a [Segment<'a>]) -> Option<(RepoKind, &'a [Segment<'a>])> {
    let (kind, rest) = segments.get(1..)?.split_first()?;
    let mut all = RepoKind::ALL.into_iter();
    let kind = all.find(|kind_of| kind_of.plural() == kind.text)?;
    let at = |index: usize| rest.get(index).is_some_and(|verb| verb.text == "commit");
    (at(2) || at(1)).then_some((kind, rest))
}

/// Whether a request's body is streamed here.
pub(crate) fn is_commit(path: &str) -> bool {
    url::segments(path).is_ok_and(|segments| target(&segments).is_some())
}

pub(crate) async fn serve(gateway: Gateway, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let config = gateway.config().clone();
    match commit(&gateway, &parts, body).await {
        Ok(reply) => reply.into_response(),
        Err((error, body)) => {
            body::refuse(&parts.headers, body, &config);
            error.into_response()
        }
    }
}

/// Where a commit goes.
struct Place {
    repo: Repo,
    revision: String,
    asked: Asked,
    client: Client,
}

enum Found {
    Here(Box<Place>),
    Moved(String),
}

/// The body comes back with an error, as far as it was not read.
async fn commit(
    gateway: &Gateway,
    parts: &Parts,
    mut body: Body,
) -> Result<Reply, (ApiError, Body)> {
    macro_rules! or_refuse {
        ($result:expr) => {
            match $result {
                Ok(value) => value,
                Err(error) => return Err((error, body)),
            }
        };
    }
    or_refuse!(body::must_be_plain(&parts.headers));
    let client = Client::of(gateway, &parts.headers);
    let uri = parts.uri.clone();
    let asked = or_refuse!(Asked::new(&uri, &parts.headers, gateway.config()));
    let found = gateway
        .blocking(move |gateway| place(gateway, uri.path(), uri.query(), asked, client))
        .await;
    let place = match or_refuse!(found) {
        Found::Here(place) => *place,
        Found::Moved(path) => {
            // Whoever follows does so on this connection, which would end with a body that nobody takes.
            body::refuse(&parts.headers, body, gateway.config());
            return Ok(Reply::moved(&path));
        }
    };
    let upload_place = or_refuse!(gateway.upload_place().await);
    let (sender, lines) = lines::channel();
    let worker = {
        let gateway = gateway.clone();
        tokio::task::spawn_blocking(move || {
            let _place = upload_place;
            make(&gateway, &place, lines)
        })
    };
    let sent = lines::pump(gateway, &mut body, sender).await;
    let made = match worker.await {
        Ok(made) => made,
        Err(error) => Err(ApiError::internal(error)),
    };
    match (sent, made) {
        (Ok(()), Ok(reply)) => Ok(reply),
        // What was wrong with the body says more than that it broke off.
        (Err(error), _) | (Ok(()), Err(error)) => Err((error, body)),
    }
}

fn place(
    gateway: &Gateway,
    path: &str,
    query: Option<&str>,
    asked: Asked,
    client: Client,
) -> Result<Found, ApiError> {
    let segments = url::segments(path)?;
    let (kind, rest) = target(&segments).ok_or_else(ApiError::no_route)?;
    let prefix = format!("/api/{}/", kind.plural());
    let readings = repo::readings(rest, |verb| verb == "commit");
    let (repo, rest) = match repo::locate(gateway, &client, kind, &prefix, readings, query)? {
        Located::Here(repo, rest) => (repo, rest),
        Located::Moved(path) => return Ok(Found::Moved(path)),
    };
    client.must(gateway, Access::Write, &repo)?;
    if asked.query.flag("create_pr") {
        return Err(ApiError::bad_request(
            "Pull requests can't be made on this node: commit to a branch",
        ));
    }
    let parts: Vec<&str> = rest[1..]
        .iter()
        .map(|segment| segment.text.as_ref())
        .collect();
    let revision = parts.join("/");
    if !repo.refs()?.contains_key(&full_name(&revision)) {
        return Err(ApiError::revision_not_found(&revision));
    }
    Ok(Found::Here(Box::new(Place {
        repo,
        revision,
        asked,
        client,
    })))
}

/// Reads all operations, and makes the commit.
fn make(gateway: &Gateway, place: &Place, mut lines: lines::Lines) -> Result<Reply, ApiError> {
    let node = gateway.node();
    let lease = node.lease();
    let reference = full_name(&place.revision);
    let mut assembly = Assembly::new(node, &place.client.who, &place.repo, &reference);
    while let Some(line) = lines.next()? {
        assembly.take(&line)?;
    }
    let (header, edits) = assembly.finish()?;
    let draft = Draft {
        reference,
        parent: header.parent_commit,
        message: match header.description.trim() {
            "" => header.summary,
            description => format!("{}\n\n{description}", header.summary),
        },
        edits,
        lease,
    };
    let account = place.client.caller()?.account;
    let made = match node.commit(&account, &place.repo, &draft) {
        Ok(made) => made,
        Err(PublishError::NoRevision(_)) => {
            return Err(ApiError::revision_not_found(&place.revision));
        }
        Err(error) => return Err(error.into()),
    };
    let oid = made.commit.to_hex();
    Ok(Reply::json(&json!({
        "success": true,
        "commitOid": oid,
        "commitUrl": format!("{}/commit/{oid}", url_of(&place.asked, &place.repo)),
        "hookOutput": "",
    })))
}
