//! What changes repositories: made, renamed, deleted; branches and tags; commits.
//!
//! Who asks is known, and what they may is decided, before a body is read. `commit` is the one whose body is
//! streamed; all others are small JSON.

pub(crate) mod commit;
mod preupload;
mod refs;
mod repos;
mod yaml;

use axum::body::Bytes;
use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cairn_node::permission::Access;
use cairn_node::repos::Repo;
use cairn_protocol::limits::REGULAR_BYTES_MAX;
use cairn_protocol::name::RepoKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::auth::Client;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::url::{Asked, Segment};

/// Bytes of a body that publishes; a larger one is answered 413.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 20;

/// What may follow a repository's id in a request that changes it.
pub(crate) const VERBS: [&str; 9] = [
    "branch",
    "commit",
    "duplicate",
    "lfs-files",
    "preupload",
    "settings",
    "super-squash",
    "tag",
    "user-access-request",
];

/// A request that changes something.
pub(crate) struct Order<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) client: &'a Client,
    pub(crate) method: &'a Method,
    pub(crate) asked: &'a Asked,
    pub(crate) body: &'a Bytes,
}

impl Order<'_> {
    /// The body as JSON of one form.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse(self.body)
    }
}

/// Reads JSON of one form.
///
/// # Errors
/// 400, with the place and what was expected there.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("The request's body: {error}")))
}

/// The bytes of a file that came in a request.
pub(crate) fn content_of(
    path: &str,
    content: &str,
    encoding: Option<&str>,
) -> Result<Vec<u8>, ApiError> {
    let bytes = match encoding {
        None | Some("base64") => STANDARD
            .decode(content)
            .map_err(|_| ApiError::bad_request(format!("The content of {path:?} is not base64")))?,
        Some("utf-8" | "utf8") => content.as_bytes().to_vec(),
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "{other:?} is none of base64, utf-8"
            )));
        }
    };
    if bytes.len() as u64 > REGULAR_BYTES_MAX {
        return Err(ApiError::too_large(format!(
            "{path:?} is larger than {REGULAR_BYTES_MAX} bytes: send it as LFS"
        )));
    }
    Ok(bytes)
}

/// Answers one request.
type Answer = fn(&Order<'_>) -> Result<Reply, ApiError>;

/// Requests about no one repository: `/api/repos/…` and `/api/validate-yaml`; `None` where it is neither.
pub(crate) fn about_all(
    order: &Order<'_>,
    segments: &[Segment<'_>],
) -> Option<Result<Reply, ApiError>> {
    let texts: Vec<&str> = segments
        .iter()
        .map(|segment| segment.text.as_ref())
        .collect();
    let (allowed, answer): (_, Answer) = match texts[..] {
        ["repos", "create"] => (Method::POST, repos::create),
        ["repos", "delete"] => (Method::DELETE, repos::delete),
        ["repos", "move"] => (Method::POST, repos::rename),
        ["validate-yaml"] => (Method::POST, yaml::validate),
        _ => return None,
    };
    if *order.method != allowed {
        let allowed = if allowed == Method::POST {
            "POST"
        } else {
            "DELETE"
        };
        return Some(Err(ApiError::method_not_allowed(allowed)));
    }
    Some(answer(order))
}

/// Requests that change one repository.
pub(crate) fn about(
    order: &Order<'_>,
    repo: &Repo,
    verb: &str,
    rest: &[Segment<'_>],
) -> Result<Reply, ApiError> {
    let named = joined(rest);
    let (post, delete) = (
        *order.method == Method::POST,
        *order.method == Method::DELETE,
    );
    match verb {
        "preupload" if post => preupload::decide(order, repo, rest),
        "settings" if *order.method == Method::PUT => repos::settings(order, repo),
        "branch" if post => refs::branch(order, repo, &named),
        "branch" if delete => refs::delete(order, repo, &format!("refs/heads/{named}")),
        "tag" if post => refs::tag(order, repo, &named),
        "tag" if delete => refs::delete(order, repo, &format!("refs/tags/{named}")),
        "super-squash" if post => refs::squash(order, repo, &named),
        "duplicate" if post => repos::duplicate(order, repo),
        "lfs-files" if post && named == "duplicate" => repos::copy_files(order, repo),
        "settings" => Err(ApiError::method_not_allowed("PUT")),
        "preupload" | "super-squash" | "commit" => Err(ApiError::method_not_allowed("POST")),
        "branch" | "tag" => Err(ApiError::method_not_allowed("POST, DELETE")),
        _ => Err(ApiError::no_route()),
    }
}

/// What a request that changes a repository needs.
pub(crate) fn wanted(verb: &str) -> Access {
    match verb {
        "settings" | "user-access-request" => Access::Manage,
        // What is written to is another repository.
        "duplicate" | "lfs-files" => Access::Read,
        _ => Access::Write,
    }
}

/// The rest of a path as one text: clients quote slashes in names, or don't.
fn joined(rest: &[Segment<'_>]) -> String {
    let parts: Vec<&str> = rest.iter().map(|segment| segment.text.as_ref()).collect();
    parts.join("/")
}

/// Where clients see a repository.
pub(crate) fn url_of(asked: &Asked, repo: &Repo) -> String {
    let name = repo.shown_name();
    match repo.kind() {
        RepoKind::Model => asked.absolute(&format!("/{name}")),
        kind => asked.absolute(&format!("/{}/{name}", kind.plural())),
    }
}
