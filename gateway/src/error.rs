//! How every failure looks to a client.
//!
//! The hub's clients decide by `X-Error-Code`, show `X-Error-Message`, and read the JSON `error`; all
//! three come from here. What is not for outsiders (paths, causes) goes to the log by [`Failure`], with
//! the request's id.

use std::error::Error as _;
use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cairn_node::UploadError;
use cairn_node::accounts::AccountError;
use cairn_node::fetch::FetchError;
use cairn_node::publish::PublishError;
use cairn_node::repos::RepoError;
use cairn_node::store::StoreError;
use cairn_node::xet::XetError;
use cairn_protocol::hash::GitOid;

/// Machine-readable kind of an error.
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
/// Text of an error, for people.
pub(crate) const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");
/// Commit that an answer is from.
pub(crate) const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");

/// Code of a repository that doesn't exist, or that the caller may not see.
pub(crate) const REPO_NOT_FOUND: &str = "RepoNotFound";
/// Code of a missing branch, tag or commit.
const REVISION_NOT_FOUND: &str = "RevisionNotFound";
/// Code of a missing file or folder.
const ENTRY_NOT_FOUND: &str = "EntryNotFound";
/// Code of content that doesn't match its hash any more.
const CONTENT_DAMAGED: &str = "ContentDamaged";
/// Code of content that the node knows of and doesn't hold.
const CONTENT_ABSENT: &str = "ContentAbsent";
/// Code of a commit whose files are not what it says.
const COMMIT_INVALID: &str = "CommitInvalid";

/// Bytes of `X-Error-Message`; the JSON body has the whole text.
const MESSAGE_HEADER_BYTES_MAX: usize = 1024;

/// An answer that says why there is no other.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    status: StatusCode,
    code: Option<&'static str>,
    message: String,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    member: Option<Box<(&'static str, String)>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What only the log learns of an answer of 500 and above; travels as an extension of the response.
#[derive(Debug, Clone)]
pub(crate) struct Failure(pub(crate) String);

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code: None,
            message: message.into(),
            header: None,
            member: None,
            source: None,
        }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// No route of ours: neither a repository's nor another.
    pub(crate) fn no_route() -> Self {
        Self::not_found("Not found")
    }

    /// Something that is not there, and that clients know no code of.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn repository_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Repository not found").code(REPO_NOT_FOUND)
    }

    pub(crate) fn revision_not_found(revision: &str) -> Self {
        let message = format!("Invalid rev id: {revision}");
        Self::new(StatusCode::NOT_FOUND, message).code(REVISION_NOT_FOUND)
    }

    /// Names the commit too: clients remember what it doesn't have.
    pub(crate) fn entry_not_found(commit: &GitOid) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Entry not found")
            .code(ENTRY_NOT_FOUND)
            .header(REPO_COMMIT, ascii(&commit.to_hex()))
    }

    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("Method not allowed: use {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
            .header(ALLOW, HeaderValue::from_static(allowed))
    }

    pub(crate) fn url_too_long(max: usize) -> Self {
        let message = format!("The URL is longer than {max} bytes");
        Self::new(StatusCode::URI_TOO_LONG, message)
    }

    pub(crate) fn body_too_large(max: usize) -> Self {
        let message = format!("The request's body is larger than {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "The request's body did not arrive in time",
        )
        .header(CONNECTION, HeaderValue::from_static("close"))
    }

    pub(crate) fn body_broken(source: axum::Error) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::bad_request("The request's body could not be read")
        }
    }

    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(crate) fn range_not_satisfiable(size: u64) -> Self {
        let message = format!("The range is not within the file's {size} bytes");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, message)
            .header(CONTENT_RANGE, ascii(&format!("bytes */{size}")))
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// A repository that only another node can change.
    pub(crate) fn elsewhere() -> Self {
        Self::forbidden(
            "This repository has its home on another node: publish through that node's gateway",
        )
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// Something of that name is there; `url` is where.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// A member of the body beside `error`.
    pub(crate) fn with(mut self, name: &'static str, value: String) -> Self {
        self.member = Some(Box::new((name, value)));
        self
    }

    pub(crate) fn unauthorized(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// A mirror that knows of a file and doesn't know its content's hash yet.
    pub(crate) fn content_unknown(path: &str) -> Self {
        let message = format!("The content of {path} has not reached this node yet");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message).code(CONTENT_ABSENT)
    }

    pub(crate) fn not_canonical_pointer() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "This file's LFS pointer is not in its canonical form, and is not shown",
        )
    }

    /// The node is busy at its bounds; soon it will not be.
    pub(crate) fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The node is busy: try again",
        )
        .header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Content that has to be read once before it is served; soon it will be.
    pub(crate) fn being_verified() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The node is verifying this file: try again in a while",
        )
        .header(RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// A failure of ours, of which outsiders learn nothing but its place in the log.
    pub(crate) fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Internal error: the node's log has the reason, under this request's id",
            )
        }
    }

    /// An account that nothing can be signed for.
    fn without_keys(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The account's keys can't be read on its node: whoever runs it finds the reason in its log",
            )
        }
    }

    /// A commit that a digest of its files proves wrong; it stays so.
    fn commit_invalid(message: String) -> Self {
        Self::new(StatusCode::GONE, message).code(COMMIT_INVALID)
    }

    /// What outsiders may know of a failure of the store; `None` where that is nothing.
    fn of_store(error: &StoreError) -> Option<Self> {
        Some(match error {
            StoreError::Damaged { hash, .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Content {hash} is damaged on this node, and not served until repaired"),
            )
            .code(CONTENT_DAMAGED),
            StoreError::Absent { hash } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Content {hash} is known to this node, but not stored on it"),
            )
            .code(CONTENT_ABSENT),
            StoreError::Full { .. } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "No space left on the node's disk",
            ),
            StoreError::TooLarge { .. } => Self::too_large(error.to_string()),
            StoreError::Disagrees { .. } | StoreError::Changed { .. } => {
                Self::bad_request(error.to_string())
            }
            StoreError::Collision => Self::unprocessable(error.to_string()),
            StoreError::Source(_) => Self::bad_request("The request's body broke off"),
            StoreError::CacheFull { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            _ => return None,
        })
    }

    fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            // Writing to a String can't fail.
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        text
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match Self::of_store(&error) {
            Some(answer) => Self {
                source: Some(error.into()),
                ..answer
            },
            None => Self::internal(error),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        let text = error.to_string();
        match error {
            PublishError::Path(_) | PublishError::Refused { .. } => Self::unprocessable(text),
            PublishError::Moved => Self::new(StatusCode::PRECONDITION_FAILED, text),
            PublishError::Missing { .. } => {
                Self::new(StatusCode::NOT_FOUND, text).code(ENTRY_NOT_FOUND)
            }
            PublishError::NoRevision(_) => {
                Self::new(StatusCode::NOT_FOUND, text).code(REVISION_NOT_FOUND)
            }
            PublishError::NotUploaded { .. } | PublishError::Invalid(_) => Self::bad_request(text),
            PublishError::Exists(_) | PublishError::Conflict(_) | PublishError::Frozen(_) => {
                Self::conflict(text)
            }
            PublishError::Restored => Self::new(StatusCode::SERVICE_UNAVAILABLE, text),
            PublishError::Keys(error) => Self::without_keys(error),
            PublishError::Elsewhere(_) | PublishError::Foreign(..) => Self::elsewhere(),
            PublishError::Repo(error) => error.into(),
            PublishError::Store(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            UploadError::Store(error) => error.into(),
            UploadError::Repo(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

impl From<XetError> for ApiError {
    fn from(error: XetError) -> Self {
        let text = error.to_string();
        match error {
            XetError::Xorb(_) | XetError::Shard(_) | XetError::File(_) | XetError::Keyed => {
                Self::bad_request(text)
            }
            XetError::TooLarge { .. } => Self::too_large(text),
            XetError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, text),
            XetError::Repo(error) => error.into(),
            XetError::Store(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let text = error.to_string();
        match error {
            AccountError::Invalid(_) => Self::bad_request(text),
            AccountError::Exists(_) => Self::conflict(text),
            AccountError::Missing(_) | AccountError::NoToken(_) => {
                Self::new(StatusCode::NOT_FOUND, text)
            }
            AccountError::Store(error) => error.into(),
            AccountError::Record(error) => error.into(),
            AccountError::Keys(error) => Self::without_keys(error),
            error => Self::internal(error),
        }
    }
}

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        let answer = match &error {
            // Whoever has it may come back; clients ask again by themselves, a few times.
            FetchError::NoProvider { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                    .code(CONTENT_ABSENT)
                    .header(RETRY_AFTER, HeaderValue::from_static("5"))
            }
            // For good: no status that clients answer by asking again.
            FetchError::Disagrees { .. } => Self::commit_invalid(error.to_string()),
            FetchError::TooLarge { .. } => {
                Self::new(StatusCode::NOT_IMPLEMENTED, error.to_string()).code(CONTENT_ABSENT)
            }
            FetchError::Offline => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).code(CONTENT_ABSENT)
            }
            FetchError::Busy | FetchError::Stopped => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                    .header(RETRY_AFTER, HeaderValue::from_static("1"))
            }
            FetchError::Store(cause) => match Self::of_store(cause) {
                Some(answer) => answer,
                None => return Self::internal(error),
            },
            _ => return Self::internal(error),
        };
        Self {
            source: Some(error.into()),
            ..answer
        }
    }
}

impl From<RepoError> for ApiError {
    fn from(error: RepoError) -> Self {
        match error {
            RepoError::NotFound(_) => Self::repository_not_found(),
            RepoError::Revision(revision) => Self::revision_not_found(&revision),
            // Those who know the commit say `entry_not_found` themselves.
            RepoError::Entry(_) => {
                Self::new(StatusCode::NOT_FOUND, "Entry not found").code(ENTRY_NOT_FOUND)
            }
            RepoError::Ambiguous(_) => {
                Self::new(StatusCode::NOT_FOUND, error.to_string()).code(REVISION_NOT_FOUND)
            }
            RepoError::Invalid(_) => Self::commit_invalid(error.to_string()),
            RepoError::Store(error) => error.into(),
            _ => Self::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "error": self.message });
        if let Some(member) = &self.member {
            body[member.0] = member.1.as_str().into();
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        if self.status.is_server_error() {
            response.extensions_mut().insert(Failure(self.chain()));
        }
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        headers.insert(ERROR_MESSAGE, ascii(&self.message));
        if let Some(code) = self.code {
            headers.insert(ERROR_CODE, HeaderValue::from_static(code));
        }
        if let Some(header) = self.header {
            headers.insert(header.0, header.1);
        }
        response
    }
}

/// Text as a header value: what isn't printable ASCII becomes `?`, and the end of a long one is cut.
pub(crate) fn ascii(text: &str) -> HeaderValue {
    let safe: String = text
        .chars()
        .take(MESSAGE_HEADER_BYTES_MAX)
        .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
        .collect();
    HeaderValue::try_from(safe).expect("invariant: printable ASCII is a header value")
}

/// Refuses methods other than GET and HEAD.
pub(crate) fn reading_only(method: &Method) -> Result<(), ApiError> {
    if method == Method::GET || method == Method::HEAD {
        Ok(())
    } else {
        Err(ApiError::method_not_allowed("GET, HEAD"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_safe_in_headers_and_whole_in_json() {
        let error = ApiError::revision_not_found("a\r\nX-Evil: ü");
        let response = error.into_response();
        assert_eq!(
            response.headers()[ERROR_MESSAGE],
            "Invalid rev id: a??X-Evil: ?"
        );
        assert_eq!(response.headers()[ERROR_CODE], REVISION_NOT_FOUND);
        assert_eq!(ascii(&"x".repeat(5000)).len(), MESSAGE_HEADER_BYTES_MAX);
    }

    #[test]
    fn paths_of_the_node_stay_in_its_log() {
        let error = StoreError::Io {
            operation: "read",
            path: "/secret/place".into(),
            source: std::io::Error::other("disk on fire"),
        };
        let response = ApiError::from(error).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let message = response.headers()[ERROR_MESSAGE].to_str().unwrap();
        assert!(!message.contains("secret"));
        let failure = response.extensions().get::<Failure>().unwrap();
        assert!(failure.0.contains("/secret/place") && failure.0.contains("disk on fire"));
    }

    /// Clients ask again after 408, 429, 500, 502, 503 and 504, and not after others.
    #[test]
    fn a_fetch_that_failed_for_good_is_not_asked_for_again() {
        let path = || "a".to_owned();
        let hash = cairn_protocol::hash::Blake3::from_bytes([1; 32]);
        let full = StoreError::Full {
            path: "/secret".into(),
        };
        let no_room = StoreError::CacheFull { size: 2, bound: 1 };
        for (error, status, code) in [
            (
                FetchError::NoProvider { path: path(), hash },
                503,
                Some(CONTENT_ABSENT),
            ),
            (FetchError::Busy, 503, None),
            (
                FetchError::Disagrees {
                    path: path(),
                    digest: "sha256",
                },
                410,
                Some(COMMIT_INVALID),
            ),
            (
                FetchError::TooLarge {
                    path: path(),
                    size: u64::MAX,
                },
                501,
                Some(CONTENT_ABSENT),
            ),
            (FetchError::Store(std::sync::Arc::new(full)), 507, None),
            (FetchError::Store(std::sync::Arc::new(no_room)), 507, None),
        ] {
            let response = ApiError::from(error).into_response();
            let headers = response.headers();
            assert_eq!(response.status().as_u16(), status);
            let shown = headers.get(ERROR_CODE).map(|code| code.to_str().unwrap());
            assert_eq!(shown, code, "{status}");
            assert_eq!(headers.contains_key(RETRY_AFTER), status == 503);
            let message = headers[ERROR_MESSAGE].to_str().unwrap();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
