//! Branches and tags.

use cairn_node::permission::Who;
use cairn_node::publish::{PublishError, RefMove};
use cairn_node::repos::Repo;
use serde::Deserialize;
use serde_json::json;

use super::Order;
use crate::error::ApiError;
use crate::reply::Reply;

/// `POST /api/…/branch/{branch}`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Branch {
    starting_point: Option<String>,
    #[serde(rename = "emptyBranch")]
    is_empty: bool,
    overwrite: bool,
}

/// `POST /api/…/tag/{revision}`.
#[derive(Debug, Deserialize)]
struct Tag {
    tag: String,
}

/// `POST /api/…/super-squash/{revision}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Squash {
    message: Option<String>,
}

pub(super) fn branch(order: &Order<'_>, repo: &Repo, name: &str) -> Result<Reply, ApiError> {
    let wanted: Branch = if order.body.is_empty() {
        Branch::default()
    } else {
        order.json()?
    };
    if name.is_empty() || name.starts_with("refs/") {
        return Err(ApiError::bad_request(format!(
            "Invalid reference for a branch: {name:?}"
        )));
    }
    let full = format!("refs/heads/{name}");
    let step = match (wanted.is_empty, wanted.overwrite, wanted.starting_point) {
        (true, false, _) => RefMove::Empty,
        (true, true, _) => RefMove::Clear,
        // To be overwritten with nothing in particular, it stays as it is.
        (false, true, None) if repo.refs()?.contains_key(&full) => {
            return Ok(Reply::json(&json!({})));
        }
        (false, true, Some(revision)) => RefMove::Force(revision),
        (false, _, revision) => RefMove::Make(revision.unwrap_or_else(|| "HEAD".to_owned())),
    };
    step_to(order, repo, &full, &step)
}

pub(super) fn tag(order: &Order<'_>, repo: &Repo, revision: &str) -> Result<Reply, ApiError> {
    let wanted: Tag = order.json()?;
    if wanted.tag.starts_with("refs/") {
        return Err(ApiError::bad_request(format!(
            "Invalid reference for a tag: {:?}",
            wanted.tag
        )));
    }
    let step = RefMove::Make(revision.to_owned());
    step_to(order, repo, &format!("refs/tags/{}", wanted.tag), &step)
}

pub(super) fn delete(order: &Order<'_>, repo: &Repo, full: &str) -> Result<Reply, ApiError> {
    step_to(order, repo, full, &RefMove::Delete)
}

fn step_to(order: &Order<'_>, repo: &Repo, full: &str, step: &RefMove) -> Result<Reply, ApiError> {
    let account = order.client.caller()?.account;
    match order.gateway.node().move_ref(&account, repo, full, step) {
        Ok(()) => Ok(Reply::json(&json!({}))),
        Err(PublishError::NoRevision(name)) => {
            let short = name.splitn(3, '/').nth(2).unwrap_or(&name);
            Err(ApiError::revision_not_found(short))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn squash(order: &Order<'_>, repo: &Repo, revision: &str) -> Result<Reply, ApiError> {
    let wanted: Squash = order.json()?;
    let Who::Account(caller) = &order.client.who else {
        return Err(order.client.unauthorized());
    };
    let full = full_name(revision);
    let refs = repo.refs()?;
    if !refs.contains_key(&full) && refs.contains_key(&format!("refs/tags/{revision}")) {
        return Err(ApiError::bad_request("You cannot squash history on tags"));
    }
    let text = wanted.message.unwrap_or_default();
    let made = order
        .gateway
        .node()
        .squash(&caller.account, repo, &full, &text);
    match made {
        Ok(made) => Ok(Reply::json(&json!({ "commitOid": made.commit.to_hex() }))),
        Err(PublishError::NoRevision(_)) => Err(ApiError::revision_not_found(revision)),
        Err(error) => Err(error.into()),
    }
}

/// The full name of the ref that a revision is, if it is one that moves.
pub(super) fn full_name(revision: &str) -> String {
    match revision {
        "HEAD" => "refs/heads/main".to_owned(),
        full if full.starts_with("refs/") => full.to_owned(),
        branch => format!("refs/heads/{branch}"),
    }
}
