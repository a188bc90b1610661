//! One repository: `/api/{models|datasets|spaces}/{id}` and `/revision/{rev}`.

use axum::http::HeaderName;
use cairn_node::repos::{Commit, Repo};
use serde_json::json;

use super::fields::{self, View};
use super::files::Reach;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::url::Pairs;

/// Shown once by clients, per topic.
const WARNING: HeaderName = HeaderName::from_static("x-hf-warning");

/// The repository at its default branch.
pub(super) fn of_repository(
    gateway: &Gateway,
    repo: &Repo,
    query: &Pairs,
    reach: &Reach,
) -> Result<Reply, ApiError> {
    show(View::new(gateway, repo).reaching(reach), repo, query)
}

/// The repository at a commit.
pub(super) fn of_commit(
    gateway: &Gateway,
    repo: &Repo,
    commit: Commit,
    query: &Pairs,
    reach: &Reach,
) -> Result<Reply, ApiError> {
    let view = View::new(gateway, repo).at(commit).reaching(reach);
    show(view, repo, query)
}

fn show(view: View<'_>, repo: &Repo, query: &Pairs) -> Result<Reply, ApiError> {
    let mut view = view.with_blobs(query.flag("blobs"));
    let asked = fields::expanded(repo.kind(), query)?;
    let names = asked.as_deref().unwrap_or(fields::whole(repo.kind()));
    let mut members = view.members(names)?;
    if query.flag("securityStatus") {
        // Nothing scans here, and nothing else is said.
        let status = json!({ "scansDone": false, "filesWithIssues": [] });
        members.insert("securityRepoStatus".to_owned(), status);
    }
    let reply = Reply::json(&members);
    Ok(if view.is_cut() {
        let text = "siblings; this repository has more files than are listed here: use its tree";
        reply.with(WARNING, text)
    } else {
        reply
    })
}
