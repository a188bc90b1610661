//! Xet's content-addressed store, as its clients call it, under `/api/xet`; and the tokens for it.
//!
//! A token is a right of [`crate::right`] to one repository. Where clients may fall back to something older
//! they do so at 404 alone: what is not served here answers 404, whatever the method.

mod answers;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RANGE};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use cairn_node::permission::{Access, Who};
use cairn_node::repos::{FileEntry, Repo};
use cairn_protocol::limits::{SHARD_BYTES_MAX, XORB_BYTES_MAX};
use cairn_protocol::xet::XetHash;
use serde_json::json;

use crate::dates::now_s;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::publish::Order;
use crate::reply::Reply;
use crate::right::{Deed, Right};
use crate::url::{self, Pairs, Segment};
use crate::{body, intake};

/// Where the store is.
pub(crate) const CAS: &str = "/api/xet";
/// Seconds for which a token is good; clients ask for another one before it ends.
const TOKEN_S: u64 = 15 * 60;

/// Bytes of a shard that needs none of the few places of large ones.
const SMALL_BYTES_MAX: u64 = 2 << 20;

/// Where clients read a token's parts from the headers.
const CAS_URL: HeaderName = HeaderName::from_static("x-xet-cas-url");
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-xet-access-token");
const TOKEN_EXPIRATION: HeaderName = HeaderName::from_static("x-xet-token-expiration");

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/api/xet/{*rest}", any(serve))
        .route("/v1/telemetry", any(telemetry))
}

/// What clients tell of themselves is not wanted.
async fn telemetry() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `xet-read-token/{revision}` and `xet-write-token/{revision}` of a repository.
pub(crate) fn token(order: &Order<'_>, repo: &Repo, writes: bool) -> Result<Reply, ApiError> {
    let deed = if writes {
        order.client.must(order.gateway, Access::Write, repo)?;
        Deed::XetWrite
    } else {
        Deed::XetRead
    };
    let account = order.client.caller().map(|caller| caller.account).ok();
    let end = now_s() + TOKEN_S;
    let right = Right::to_store(deed, repo.id(), account, end);
    let token = right.token(order.gateway.node());
    let url = order.asked.absolute(CAS);
    Ok(
        Reply::json(&json!({ "casUrl": url, "exp": end, "accessToken": token }))
            .with(CAS_URL, &url)
            .with(ACCESS_TOKEN, &token)
            .with(TOKEN_EXPIRATION, &end.to_string()),
    )
}

async fn serve(State(gateway): State<Gateway>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    answer(&gateway, &parts, body)
        .await
        .unwrap_or_else(ApiError::into_response)
}

/// Whoever has a token, and what for.
struct Bearer {
    right: Right,
    repo: Repo,
    who: Who,
}

async fn answer(gateway: &Gateway, parts: &Parts, body: Body) -> Result<Response, ApiError> {
    let segments = url::segments(parts.uri.path())?;
    let texts: Vec<&str> = segments
        .iter()
        .map(|segment: &Segment<'_>| &*segment.text)
        .collect();
    let refused = |error: ApiError, body: Body| {
        body::refuse(&parts.headers, body, gateway.config());
        Err(error)
    };
    // hf_xet before 1.3 names no version, and means the first; before 1.1.10 each is in the singular.
    let is_v2 = texts.get(2) == Some(&"v2");
    match (texts.get(2..).unwrap_or_default(), &parts.method) {
        (["v1", "xorbs", _, hash] | ["xorbs" | "xorb", _, hash], &Method::POST) => {
            let wanted = parsed(hash).and_then(|hash| Ok((hash, bearer(gateway, parts, true)?)));
            let (hash, bearer) = match wanted {
                Ok(wanted) => wanted,
                Err(error) => return refused(error, body),
            };
            put_xorb(gateway, parts, body, hash, bearer).await
        }
        (["v1" | "v2", "shards"] | ["shards"] | ["shard", _, _], &Method::POST) => {
            let bearer = match bearer(gateway, parts, true) {
                Ok(bearer) => bearer,
                Err(error) => return refused(error, body),
            };
            put_shard(gateway, parts, body, is_v2, bearer).await
        }
        (["v1", "chunks", _, hash] | ["chunks" | "chunk", _, hash], &Method::GET) => {
            let (hash, bearer) = (parsed(hash)?, bearer(gateway, parts, true)?);
            chunk(gateway, hash, bearer).await
        }
        (
            ["v1" | "v2", "reconstructions", hash] | ["reconstructions" | "reconstruction", hash],
            &Method::GET,
        ) => {
            let (hash, bearer) = (parsed(hash)?, bearer(gateway, parts, false)?);
            answers::reconstruction(gateway, parts, hash, is_v2, bearer).await
        }
        (["xorbs", hash, run], &Method::GET) => {
            let run: u32 = run.parse().map_err(|_| not_here())?;
            let query = Pairs::parse(parts.uri.query().unwrap_or_default().as_bytes())?;
            answers::xorb(gateway, parts, parsed(hash)?, run, &query).await
        }
        _ => refused(not_here(), body),
    }
}

fn not_here() -> ApiError {
    ApiError::no_route()
}

fn parsed(text: &str) -> Result<XetHash, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad_request(format!("{text:?} is not the hash of a xorb or file")))
}

/// The holder of the token in a request.
fn bearer(gateway: &Gateway, parts: &Parts, writes: bool) -> Result<Bearer, ApiError> {
    let unknown = || ApiError::unauthorized("Invalid credentials in Authorization header");
    let value = parts.headers.get(AUTHORIZATION).ok_or_else(unknown)?;
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.strip_prefix("Bearer "));
    let node = gateway.node();
    let right = Right::of_token(node, token.ok_or_else(unknown)?, now_s()).ok_or_else(unknown)?;
    if writes && right.deed != Deed::XetWrite {
        return Err(ApiError::forbidden("This token may only read"));
    }
    let repo = node.repos().by_id(&right.repository);
    let repo = repo.ok_or_else(ApiError::repository_not_found)?;
    let client = right.holder(gateway, writes)?;
    let wanted = if writes { Access::Write } else { Access::Read };
    client.must(gateway, wanted, &repo)?;
    let who = client.who;
    Ok(Bearer { right, repo, who })
}

async fn put_xorb(
    gateway: &Gateway,
    parts: &Parts,
    body: Body,
    hash: XetHash,
    bearer: Bearer,
) -> Result<Response, ApiError> {
    if body::announced(&parts.headers).is_some_and(|length| length > XORB_BYTES_MAX as u64) {
        body::refuse(&parts.headers, body, gateway.config());
        return Err(ApiError::body_too_large(XORB_BYTES_MAX));
    }
    let account = bearer.right.account.ok_or_else(not_here)?;
    let headers = &parts.headers;
    let was_inserted = intake::run(gateway, headers, body, move |gateway, reader| {
        Ok(gateway.node().put_xorb(&account, &hash, reader)?)
    })
    .await?;
    Ok(Reply::json(&json!({ "was_inserted": was_inserted })).into_response())
}

async fn put_shard(
    gateway: &Gateway,
    parts: &Parts,
    body: Body,
    is_stream: bool,
    bearer: Bearer,
) -> Result<Response, ApiError> {
    let (bytes, place) = whole(gateway, parts, body, SHARD_BYTES_MAX).await?;
    let account = bearer.right.account.ok_or_else(not_here)?;
    let gateway = gateway.clone();
    // Files are put together meanwhile: that is no short call.
    let put = tokio::task::spawn_blocking(move || {
        let _place = place;
        let Bearer { repo, who, .. } = bearer;
        gateway.node().put_shard(&account, &who, &repo, &bytes)
    });
    let is_new = put.await.map_err(ApiError::internal)??;
    if is_stream {
        let kind = [(CONTENT_TYPE, "application/x-ndjson")];
        return Ok((kind, "{\"type\":\"result\"}\n").into_response());
    }
    Ok(Reply::json(&json!({ "result": u8::from(is_new) })).into_response())
}

/// A whole body of one of the few that may be in memory at a time.
async fn whole(
    gateway: &Gateway,
    parts: &Parts,
    body: Body,
    max: usize,
) -> Result<(Bytes, tokio::sync::OwnedSemaphorePermit), ApiError> {
    // Small ones are many, and hold up no large one.
    let is_small = body::announced(&parts.headers).is_some_and(|length| length <= SMALL_BYTES_MAX);
    let place = if is_small {
        gateway.upload_place().await
    } else {
        gateway.xorb_place().await
    };
    let place = match place {
        Ok(place) => place,
        Err(error) => {
            body::refuse(&parts.headers, body, gateway.config());
            return Err(error);
        }
    };
    let bytes = body::read_long(&parts.headers, body, max, gateway.config()).await?;
    Ok((bytes, place))
}

async fn chunk(gateway: &Gateway, hash: XetHash, bearer: Bearer) -> Result<Response, ApiError> {
    let answer = gateway
        .blocking(move |gateway| {
            let node = gateway.node();
            Ok(node.dedup_answer(&bearer.who, &bearer.repo, &hash)?)
        })
        .await?;
    let bytes = answer.ok_or_else(not_here)?;
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, bytes).into_response())
}

/// The bytes that a request asks for, as far as a `Range` of one part says.
fn range_of(parts: &Parts) -> Result<Option<std::ops::Range<u64>>, ApiError> {
    let Some(value) = parts.headers.get(RANGE) else {
        return Ok(None);
    };
    let bad = || ApiError::bad_request("Range must be bytes=FIRST-LAST");
    let text = value.to_str().map_err(|_| bad())?;
    let (first, last) = text
        .trim()
        .strip_prefix("bytes=")
        .and_then(|text| text.split_once('-'))
        .ok_or_else(bad)?;
    let first: u64 = first.trim().parse().map_err(|_| bad())?;
    let last: u64 = match last.trim() {
        "" => u64::MAX - 1,
        last => last.parse().map_err(|_| bad())?,
    };
    if last < first {
        return Err(bad());
    }
    Ok(Some(first..last.saturating_add(1)))
}

/// What xet calls a file, where it can be downloaded that way from here.
pub(crate) fn hash_of(gateway: &Gateway, file: &FileEntry) -> Result<Option<XetHash>, ApiError> {
    let (Some(hash), Some(content)) = (file.xet, file.blake3) else {
        return Ok(None);
    };
    let is_here = gateway.config().xet_downloads
        && file.pointer_size.is_some()
        && gateway.node().has_xet(&hash, &content)?;
    Ok(is_here.then_some(hash))
}
