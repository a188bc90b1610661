//! Git LFS (v2 batch API) under `{repository}.git/info/lfs`: `basic` and `multipart` uploads, downloads.
//!
//! Clients of the hub send files to the links of a batch answer without their token: each link carries its
//! own right ([`crate::right`]).

mod batch;
mod transfer;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;

use crate::auth::Client;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::url;

/// Where the links of batch answers lead.
const LINKS: &str = "/api/lfs";
/// Media type of the batch API.
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/api/lfs/{oid}", any(transfer::serve))
        .route("/api/lfs/{oid}/{part}", any(transfer::serve_part))
}

/// Whether a path is of the batch API of some repository.
pub(crate) fn is_ours(path: &str) -> bool {
    path.contains(".git/info/lfs/")
}

/// `…/{namespace}/{name}.git/info/lfs/…`.
pub(crate) async fn serve(State(gateway): State<Gateway>, request: Request) -> Response {
    answer(&gateway, request)
        .await
        .unwrap_or_else(ApiError::into_response)
}

async fn answer(gateway: &Gateway, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let (id, what) = path
        .split_once(".git/info/lfs/")
        .ok_or_else(ApiError::no_route)?;
    let client = Client::of(gateway, request.headers());
    match what.trim_end_matches('/') {
        "objects/batch" if request.method() == Method::POST => {
            let segments = url::segments(id)?;
            batch::serve(gateway, client, &segments, request).await
        }
        // Nothing is locked here: git-lfs goes on without.
        "locks/verify" if request.method() == Method::POST => {
            Ok(media(&serde_json::json!({ "ours": [], "theirs": [] })))
        }
        "objects/batch" | "locks/verify" => Err(ApiError::method_not_allowed("POST")),
        _ => Err(ApiError::no_route()),
    }
}

/// A JSON answer of the batch API.
fn media(value: &serde_json::Value) -> Response {
    let headers = [(axum::http::header::CONTENT_TYPE, MEDIA_TYPE)];
    (headers, value.to_string()).into_response()
}
