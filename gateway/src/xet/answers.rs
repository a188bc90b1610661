//! How files are put together again, and the bytes that they are put together from.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use cairn_node::permission::Access;
use cairn_node::repos::Reach;
use cairn_node::xet::{Reconstruction, XetError, XorbRun};
use cairn_protocol::xet::XetHash;
use http_body::{Frame, SizeHint};
use serde_json::{Value, json};

use super::{Bearer, CAS, not_here, range_of};
use crate::dates::now_s;
use crate::error::{ApiError, ascii};
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::right::{Deed, RIGHT_S, Right};
use crate::url::{Asked, Pairs};

pub(super) async fn reconstruction(
    gateway: &Gateway,
    parts: &Parts,
    file: XetHash,
    is_v2: bool,
    bearer: Bearer,
) -> Result<Response, ApiError> {
    let range = range_of(parts)?;
    let asked = Asked::new(&parts.uri, &parts.headers, gateway.config())?;
    let answer = gateway
        .blocking(move |gateway| {
            let node = gateway.node();
            let made = node.reconstruct(&file, range.clone())?;
            let made = made.ok_or_else(not_here)?;
            if !node.may_fetch(&bearer.who, &mut Reach::new(&bearer.repo), &made.content)? {
                return Err(not_here());
            }
            if made.terms.is_empty() && range.is_some() {
                return Err(ApiError::range_not_satisfiable(0));
            }
            let url = |run: u32| {
                let right = Right {
                    object: *file.as_bytes(),
                    part: run,
                    ..Right::to_store(
                        Deed::XetRun,
                        bearer.right.repository,
                        bearer.right.account,
                        now_s() + RIGHT_S,
                    )
                };
                let query = right.seal(node);
                asked.absolute(&format!("{CAS}/xorbs/{file}/{run}{query}"))
            };
            Ok(show(&made, is_v2, &url))
        })
        .await?;
    Ok(Reply::json(&answer).into_response())
}

/// Inclusive ends where the form has them so.
fn show(made: &Reconstruction, is_v2: bool, url: &dyn Fn(u32) -> String) -> Value {
    let terms: Vec<Value> = made
        .terms
        .iter()
        .map(|term| {
            json!({
                "hash": term.xorb.to_string(),
                "unpacked_length": term.unpacked,
                "range": { "start": term.chunks.start, "end": term.chunks.end },
            })
        })
        .collect();
    let mut fetches: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for term in &made.terms {
        let (chunks, bytes) = (&term.chunks, &term.bytes);
        let last = bytes.end.saturating_sub(1);
        let fetch = if is_v2 {
            json!({
                "url": url(term.run),
                "ranges": [{
                    "chunks": { "start": chunks.start, "end": chunks.end },
                    "bytes": { "start": bytes.start, "end": last },
                }],
            })
        } else {
            json!({
                "range": { "start": chunks.start, "end": chunks.end },
                "url": url(term.run),
                "url_range": { "start": bytes.start, "end": last },
            })
        };
        let all = fetches.entry(term.xorb.to_string()).or_default();
        // Runs of equal chunks are one xorb: from either of them the bytes are the same.
        let same = |other: &Value| {
            let key = if is_v2 { "ranges" } else { "range" };
            other[key] == fetch[key]
        };
        if !all.iter().any(same) {
            all.push(fetch);
        }
    }
    json!({
        "offset_into_first_range": made.offset_into_first,
        "terms": terms,
        (if is_v2 { "xorbs" } else { "fetch_info" }): fetches,
    })
}

/// The bytes of a run; its link carries the right.
pub(super) async fn xorb(
    gateway: &Gateway,
    parts: &Parts,
    file: XetHash,
    number: u32,
    query: &Pairs,
) -> Result<Response, ApiError> {
    let node = gateway.node();
    let right = Right::open(node, Deed::XetRun, *file.as_bytes(), query, now_s())?;
    let repo = node.repos().by_id(&right.repository);
    let repo = repo.filter(|_| right.part == number).ok_or_else(not_here)?;
    let client = right.holder(gateway, false)?;
    client.must(gateway, Access::Read, &repo)?;
    let range = range_of(parts)?;
    let run = gateway
        .blocking(move |gateway| gateway.node().run(&file, number)?.ok_or_else(not_here))
        .await?;
    let len = run.len();
    let is_part = range.is_some();
    let range = range.map_or(0..len, |range| range.start..range.end.min(len));
    if range.is_empty() {
        return Err(ApiError::range_not_satisfiable(len));
    }
    let header = format!("bytes {}-{}/{len}", range.start, range.end - 1);
    let mut response = Response::new(Body::new(Sending {
        gateway: gateway.clone(),
        run: Arc::new(run),
        at: range.start,
        end: range.end,
        reading: None,
    }));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    if is_part {
        headers.insert(CONTENT_RANGE, ascii(&header));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

type Reading = Pin<Box<dyn Future<Output = Result<Vec<u8>, ApiError>> + Send>>;

/// A part of a run as a body: a step at a time, read when the client has taken the one before.
struct Sending {
    gateway: Gateway,
    run: Arc<XorbRun>,
    at: u64,
    end: u64,
    reading: Option<Reading>,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let (gateway, run, at, end) = (
            self.gateway.clone(),
            Arc::clone(&self.run),
            self.at,
            self.end,
        );
        let reading = self.reading.get_or_insert_with(|| {
            Box::pin(async move {
                let read = move |_: &Gateway| {
                    run.read(at, end)
                        .map_err(|error: XetError| ApiError::from(error))
                };
                gateway.blocking(read).await
            })
        });
        let read = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(Some(match read {
            Ok(bytes) if !bytes.is_empty() => {
                self.at += bytes.len() as u64;
                Ok(Frame::data(bytes.into()))
            }
            Ok(_) => Err(ApiError::no_route()),
            Err(error) => {
                tracing::warn!(%error, "a xorb ended while it was sent");
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
