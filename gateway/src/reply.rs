//! JSON answers, made on blocking threads and sent from async ones.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LINK, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use crate::error::ascii;

/// A whole answer: a status, a few headers, a body.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Reply {
    /// 200 with a value as JSON.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("invariant: our values are JSON");
        Self::raw_json(body)
    }

    /// 200 with what is JSON already.
    pub(crate) fn raw_json(body: Vec<u8>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// 200 with plain text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let reply = Self::raw_json(text.into().into_bytes());
        reply.with(CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// The same as an error of whoever asked.
    pub(crate) fn bad_request(mut self) -> Self {
        self.status = StatusCode::BAD_REQUEST;
        self
    }

    /// 307 to a path of this host, under which a renamed repository answers.
    pub(crate) fn moved(path: &str) -> Self {
        let text = "The repository was renamed";
        let mut reply = Self::json(&serde_json::json!({ "error": text, "url": path }));
        reply.status = StatusCode::TEMPORARY_REDIRECT;
        reply.with(LOCATION, path)
    }

    /// One more header; what can't be in one becomes `?`.
    pub(crate) fn with(mut self, name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::try_from(value).unwrap_or_else(|_| ascii(value));
        self.headers.push((name, value));
        self
    }

    /// A link to the next page, where there is one.
    pub(crate) fn with_next(self, link: Option<String>) -> Self {
        match link {
            Some(link) => self.with(LINK, &link),
            None => self,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        // In its place, where it says what the body is.
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}
