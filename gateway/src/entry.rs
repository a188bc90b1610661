//! What every request and every answer passes: bounds, ids, CORS, counting, the log.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CONNECTION, ORIGIN,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tower::Service;

use crate::error::{ApiError, ERROR_CODE, Failure, REPO_NOT_FOUND};
use crate::gateway::Gateway;
use crate::metrics::{self, Family};
use crate::{content, hub, lfs, operations, xet};

/// Names an answer in the log and to its receiver.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What browsers may read of an answer.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag,X-Xet-Hash",
);

/// All routes of a gateway, behind what every request passes.
pub(crate) fn service(
    gateway: Gateway,
) -> impl Service<
    Request,
    Response = Response,
    Error = Infallible,
    Future: Future<Output = Result<Response, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let url_bytes_max = gateway.config().url_bytes_max;
    let router = Router::new()
        .merge(operations::routes())
        .merge(lfs::routes())
        .merge(xet::routes())
        .merge(hub::routes())
        .merge(content::routes())
        .with_state(gateway);
    tower::service_fn(move |request| {
        let router = router.clone();
        async move { Ok(pass(router, request, url_bytes_max).await) }
    })
}

async fn pass(router: Router, request: Request, url_bytes_max: usize) -> Response {
    let started = Instant::now();
    let id = request_id();
    let method = request.method().clone();
    let family = family(request.uri().path());
    let is_cross_origin = request.headers().contains_key(ORIGIN);
    let is_anonymous = !request.headers().contains_key(AUTHORIZATION);
    let path = tracing::enabled!(tracing::Level::DEBUG).then(|| request.uri().path().to_owned());

    let mut response = answer(router, request, url_bytes_max).await;

    if is_anonymous {
        hide_from_strangers(&mut response);
    }
    let status = response.status();
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"cairn\""),
        );
    }
    if is_cross_origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    headers.insert(REQUEST_ID, id.clone());
    if let Some(Failure(reason)) = response.extensions_mut().remove() {
        tracing::error!(request = ?id, %reason, "request failed");
    }
    let took = started.elapsed();
    if let Some(path) = path {
        tracing::debug!(request = ?id, %method, path, status = status.as_u16(), ?took);
    }
    metrics::answered(family, status, took);
    response
}

async fn answer(mut router: Router, mut request: Request, url_bytes_max: usize) -> Response {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if length > url_bytes_max {
        return ApiError::url_too_long(url_bytes_max).into_response();
    }
    // Whoever stands in front may read another coding otherwise than we do, and see other requests in it.
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let odd = codings
        .next()
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if odd || codings.next().is_some() {
        let mut refused =
            ApiError::bad_request("Transfer-Encoding must be chunked, once").into_response();
        refused
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        return refused;
    }
    if request.method() == Method::OPTIONS {
        return preflight();
    }
    if uri.path().contains("//") {
        *request.uri_mut() = collapsed(uri);
    }
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The hub answers 401 to whom it doesn't know, be the repository private or none: so do we.
fn hide_from_strangers(response: &mut Response) {
    let is_missing = response.status() == StatusCode::NOT_FOUND
        && response
            .headers()
            .get(ERROR_CODE)
            .is_some_and(|code| code == REPO_NOT_FOUND);
    if is_missing {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
}

/// The same URI without doubled slashes: some clients keep the one at the end of their endpoint.
fn collapsed(uri: &Uri) -> Uri {
    let mut path = String::with_capacity(uri.path().len());
    for c in uri.path().chars() {
        if !(c == '/' && path.ends_with('/')) {
            path.push(c);
        }
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn family(path: &str) -> Family {
    let mut segments = path.trim_start_matches('/').split('/');
    match (segments.next(), segments.next()) {
        (Some("api"), Some("lfs")) => Family::Lfs,
        (Some("api"), Some("xet")) => Family::Xet,
        (Some("api"), _) => Family::Hub,
        (Some("healthz" | "metrics"), _) => Family::Operations,
        _ if path.contains("/info/lfs/") => Family::Lfs,
        _ if path.contains("/resolve/") || path.contains("/raw/") => Family::Content,
        _ => Family::Other,
    }
}

/// Answers a browser that asks whether it may ask.
fn preflight() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        ),
        (ACCESS_CONTROL_ALLOW_HEADERS, "*, Authorization"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Sixteen hex digits that no other answer of this process has.
fn request_id() -> HeaderValue {
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // An odd step visits every number once, and neighbours don't look alike.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut rest = START.wrapping_add(count.wrapping_mul(STEP));
    let mut digits = [0; 16];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
    HeaderValue::from_bytes(&digits).expect("invariant: hex digits are a header value")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn doubled_slashes_collapse_and_the_query_stays() {
        let uri: Uri = "http://h//datasets///a?x=//y".parse().unwrap();
        assert_eq!(collapsed(&uri), "http://h/datasets/a?x=//y");
    }

    #[test]
    fn ids_differ() {
        let ids: HashSet<_> = (0..10_000).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn strangers_see_missing_repositories_as_unauthorized_and_nothing_else() {
        let seen = |error: ApiError| {
            let mut response = error.into_response();
            hide_from_strangers(&mut response);
            response.status().as_u16()
        };
        assert_eq!(seen(ApiError::repository_not_found()), 401);
        assert_eq!(seen(ApiError::revision_not_found("x")), 404);
        assert_eq!(seen(ApiError::no_route()), 404);
    }
}
