//! The links of batch answers: a whole file, a part of one, and the word that all parts were sent.

use std::io::Read;

use axum::extract::{Request, State};
use axum::http::header::ETAG;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use cairn_node::permission::Access;
use cairn_protocol::hash::Sha256;

use super::batch::PART_BYTES;
use crate::dates::now_s;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::right::{Deed, Right};
use crate::url::{self, Pairs};
use crate::{body, intake};

pub(super) async fn serve(State(gateway): State<Gateway>, request: Request) -> Response {
    answer(&gateway, request)
        .await
        .unwrap_or_else(ApiError::into_response)
}

pub(super) async fn serve_part(State(gateway): State<Gateway>, request: Request) -> Response {
    answer(&gateway, request)
        .await
        .unwrap_or_else(ApiError::into_response)
}

async fn answer(gateway: &Gateway, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let opened = open(gateway, &parts.method, parts.uri.path(), parts.uri.query());
    let right = match opened {
        Ok(right) => right,
        Err(error) => {
            body::refuse(&parts.headers, body, gateway.config());
            return Err(error);
        }
    };
    let headers = &parts.headers;
    match right.deed {
        Deed::Put => {
            let length = expect(headers, right.size);
            if let Err(error) = length {
                body::refuse(headers, body, gateway.config());
                return Err(error);
            }
            intake::run(gateway, headers, body, move |gateway, reader| {
                store(gateway, &right, reader)
            })
            .await?;
            Ok(StatusCode::OK.into_response())
        }
        Deed::PutPart => {
            let range = part_range(&right);
            if let Err(error) = expect(headers, range.end - range.start) {
                body::refuse(headers, body, gateway.config());
                return Err(error);
            }
            let etag = format!("\"part-{}\"", right.part);
            intake::run(gateway, headers, body, move |gateway, reader| {
                must_still_be_allowed(gateway, &right)?;
                let account = right.account.ok_or_else(ApiError::no_route)?;
                let (node, sha256) = (gateway.node(), Sha256::from_bytes(right.object));
                Ok(node.put_part(&account, &sha256, right.part, range, reader)?)
            })
            .await?;
            // Clients send it back; which parts there are is known without.
            Ok(([(ETAG, etag)], "").into_response())
        }
        Deed::XetRead | Deed::XetWrite | Deed::XetRun => Err(ApiError::no_route()),
        Deed::Complete => {
            let max = gateway.config().body_bytes_max;
            // What clients say of the parts is not needed: the whole must have the promised hash.
            body::read(headers, body, max, gateway.config()).await?;
            let place = gateway.upload_place().await?;
            let gateway = gateway.clone();
            tokio::task::spawn_blocking(move || {
                let _place = place;
                let count = right.size.div_ceil(PART_BYTES);
                must_still_be_allowed(&gateway, &right)?;
                let node = gateway.node();
                let account = right.account.ok_or_else(ApiError::no_route)?;
                let sha256 = Sha256::from_bytes(right.object);
                node.join_parts(&account, &sha256, right.size, count)?;
                Ok::<_, ApiError>(())
            })
            .await
            .map_err(ApiError::internal)??;
            Ok(StatusCode::OK.into_response())
        }
    }
}

fn store(gateway: &Gateway, right: &Right, reader: &mut dyn Read) -> Result<(), ApiError> {
    let node = gateway.node();
    must_still_be_allowed(gateway, right)?;
    let account = right.account.ok_or_else(ApiError::no_route)?;
    node.upload(
        &account,
        reader,
        right.size,
        &Sha256::from_bytes(right.object),
    )?;
    Ok(())
}

/// A link is good only as long as its account may still write there.
fn must_still_be_allowed(gateway: &Gateway, right: &Right) -> Result<(), ApiError> {
    let client = right.holder(gateway, true)?;
    let repo = gateway.node().repos().by_id(&right.repository);
    let repo = repo.ok_or_else(ApiError::repository_not_found)?;
    client.must(gateway, Access::Write, &repo)
}

/// The right that a link carries, to what its path and method say.
fn open(
    gateway: &Gateway,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Result<Right, ApiError> {
    let segments = url::segments(path)?;
    let [_, _, oid, rest @ ..] = &segments[..] else {
        return Err(ApiError::no_route());
    };
    let sha256: Sha256 = oid.text.parse().map_err(|_| ApiError::no_route())?;
    let (deed, allowed) = match rest {
        [] => (Deed::Put, Method::PUT),
        [last] if last.text == "complete" => (Deed::Complete, Method::POST),
        _ => (Deed::PutPart, Method::PUT),
    };
    if *method != allowed {
        let name = if allowed == Method::PUT {
            "PUT"
        } else {
            "POST"
        };
        return Err(ApiError::method_not_allowed(name));
    }
    let query = Pairs::parse(query.unwrap_or_default().as_bytes())?;
    let right = Right::open(gateway.node(), deed, *sha256.as_bytes(), &query, now_s())?;
    let named = rest.first().filter(|_| deed == Deed::PutPart);
    if named.is_some_and(|named| named.text != right.part.to_string()) {
        return Err(ApiError::no_route());
    }
    Ok(right)
}

/// Where one part stands in its file: all but the last are of one length.
fn part_range(right: &Right) -> std::ops::Range<u64> {
    let begin = u64::from(right.part.saturating_sub(1)).saturating_mul(PART_BYTES);
    let end = begin.saturating_add(PART_BYTES).min(right.size);
    begin.min(end)..end
}

/// Refuses a body that is said to have another length than was promised, before any of it is read.
fn expect(headers: &HeaderMap, size: u64) -> Result<(), ApiError> {
    match body::announced(headers) {
        Some(length) if length != size => Err(ApiError::bad_request(format!(
            "The body has {length} bytes, and {size} were promised"
        ))),
        _ => Ok(()),
    }
}
