//! Repositories are made, deleted, renamed; who may see them is changed.

use cairn_node::permission::Access;
use cairn_node::publish::{PublishError, Stored};
use cairn_node::repos::Repo;
use cairn_protocol::hash::Blake3;
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};
use cairn_protocol::path::RepoPath;
use serde::Deserialize;
use serde_json::json;

use super::{Order, content_of, url_of};
use crate::error::ApiError;
use crate::reply::Reply;
use crate::repo;

/// Digits of an id in the form that hub clients expect.
const ID_DIGITS: usize = 24;

/// `POST /api/repos/create`; members that mean nothing here are passed over.
#[derive(Debug, Deserialize)]
struct Create {
    name: String,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    visibility: Option<String>,
    #[serde(default)]
    sdk: Option<String>,
    /// Of the first commit.
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
struct File {
    path: String,
    content: String,
    #[serde(default)]
    encoding: Option<String>,
}

/// `DELETE /api/repos/delete`.
#[derive(Debug, Deserialize)]
struct Delete {
    name: String,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// `POST /api/repos/move`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Move {
    from_repo: String,
    to_repo: String,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// `PUT /api/…/settings`.
#[derive(Debug, Deserialize)]
struct Settings {
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    visibility: Option<String>,
    #[serde(default)]
    gated: Option<serde_json::Value>,
}

pub(super) fn create(order: &Order<'_>) -> Result<Reply, ApiError> {
    let account = order.client.account(order.gateway)?;
    let wanted: Create = order.json()?;
    let kind = kind_of(wanted.kind.as_deref())?;
    if kind == RepoKind::Space && wanted.sdk.is_none() {
        return Err(ApiError::bad_request("A space needs an `sdk`"));
    }
    let is_private = is_private(wanted.private, wanted.visibility.as_deref())?.unwrap_or(false);
    let (namespace, name) = parts(wanted.organization.as_deref(), &wanted.name, &account.name)?;
    may_make_in(order, &namespace, ApiError::forbidden)?;
    let node = order.gateway.node();
    let _lease = node.lease();
    let files = stored(order, &wanted.files)?;
    let (id, own) = (&account.id, name.clone());
    let made = node.create_repository(id, &namespace, kind, own, is_private, files);
    answered(order, kind, &format!("{namespace}/{name}"), made)
}

/// Goes on only where whoever asks may make repositories in a namespace; `unknown` is for one that is not there.
fn may_make_in(
    order: &Order<'_>,
    namespace: &NamespaceName,
    unknown: fn(String) -> ApiError,
) -> Result<(), ApiError> {
    let node = order.gateway.node();
    let ruling = node.rule_namespace(&order.client.who, namespace);
    let missing = || unknown(format!("There is no namespace {namespace} on this node"));
    order.client.ruled(ruling.ok_or_else(missing)?)
}

/// Where the new repository is, or the one that has its name.
fn answered(
    order: &Order<'_>,
    kind: RepoKind,
    id: &str,
    made: Result<Repo, PublishError>,
) -> Result<Reply, ApiError> {
    match made {
        Ok(repo) => Ok(shown(order, &repo)),
        Err(PublishError::Exists(_)) => {
            let message = format!("You already created this {kind} repo: {id}");
            let conflict = ApiError::conflict(message);
            Err(match repo::named(order.gateway, order.client, kind, id) {
                Ok(repo) => conflict.with("url", url_of(order.asked, &repo)),
                Err(_) => conflict,
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Files that come with the request, stored.
fn stored(order: &Order<'_>, files: &[File]) -> Result<Vec<(RepoPath, Stored)>, ApiError> {
    let mut contents = order.gateway.node().contents();
    let mut all = Vec::with_capacity(files.len());
    for file in files {
        let path: RepoPath = file
            .path
            .parse()
            .map_err(|error| ApiError::unprocessable(format!("{error}")))?;
        let bytes = content_of(&file.path, &file.content, file.encoding.as_deref())?;
        all.push((path, contents.put(bytes.into())?));
    }
    contents.finish()?;
    Ok(all)
}

fn shown(order: &Order<'_>, repo: &Repo) -> Reply {
    let id = Blake3::of(repo.id().as_bytes()).to_hex();
    Reply::json(&json!({
        "url": url_of(order.asked, repo),
        "name": repo.shown_name(),
        "id": &id[..ID_DIGITS],
    }))
}

pub(super) fn delete(order: &Order<'_>) -> Result<Reply, ApiError> {
    let account = order.client.account(order.gateway)?;
    let wanted: Delete = order.json()?;
    let kind = kind_of(wanted.kind.as_deref())?;
    let (namespace, name) = parts(wanted.organization.as_deref(), &wanted.name, &account.name)?;
    let repo = repo::named(
        order.gateway,
        order.client,
        kind,
        &format!("{namespace}/{name}"),
    )?;
    order.client.must(order.gateway, Access::Manage, &repo)?;
    order.gateway.node().delete_repository(&account.id, &repo)?;
    Ok(Reply::text("OK"))
}

pub(super) fn rename(order: &Order<'_>) -> Result<Reply, ApiError> {
    let account = order.client.account(order.gateway)?;
    let wanted: Move = order.json()?;
    let kind = kind_of(wanted.kind.as_deref())?;
    let repo = repo::named(order.gateway, order.client, kind, &wanted.from_repo)?;
    order.client.must(order.gateway, Access::Manage, &repo)?;
    let (namespace, name) = parts(None, &wanted.to_repo, repo.shown_namespace())?;
    let text = namespace.to_string();
    let is_own = |own: &str| text.eq_ignore_ascii_case(own);
    if !is_own(repo.shown_namespace()) && !is_own(repo.namespace()) {
        may_make_in(order, &namespace, ApiError::not_found)?;
    }
    let node = order.gateway.node();
    match node.move_repository(&account.id, &repo, &namespace, &name) {
        Ok(()) => Ok(Reply::json(&json!({}))),
        Err(PublishError::Exists(_)) => {
            let message = format!(
                "A {kind} repository called {} already exists",
                wanted.to_repo
            );
            Err(ApiError::conflict(message))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn settings(order: &Order<'_>, repo: &Repo) -> Result<Reply, ApiError> {
    let account = order.client.account(order.gateway)?;
    let wanted: Settings = order.json()?;
    if let Some(gated) = wanted.gated
        && gated != json!(false)
        && !gated.is_null()
    {
        return Err(ApiError::bad_request(
            "Repositories can't be gated on this node: make it private and let people in",
        ));
    }
    let private = is_private(wanted.private, wanted.visibility.as_deref())?;
    let now = match private {
        Some(private) if private != repo.is_private() => {
            let node = order.gateway.node();
            node.set_visibility(&account.id, repo, private)?
        }
        _ => repo.clone(),
    };
    Ok(Reply::json(
        &json!({ "private": now.is_private(), "gated": false }),
    ))
}

fn kind_of(kind: Option<&str>) -> Result<RepoKind, ApiError> {
    let Some(text) = kind else {
        return Ok(RepoKind::Model);
    };
    let mut all = RepoKind::ALL.into_iter();
    all.find(|kind| kind.as_str() == text)
        .ok_or_else(|| ApiError::bad_request(format!("{text:?} is none of model, dataset, space")))
}

fn is_private(private: Option<bool>, visibility: Option<&str>) -> Result<Option<bool>, ApiError> {
    match visibility {
        None => Ok(private),
        Some("public") => Ok(Some(false)),
        Some("private") => Ok(Some(true)),
        Some(other) => Err(ApiError::bad_request(format!(
            "{other:?} is none of public, private"
        ))),
    }
}

/// `POST /api/…/duplicate`.
#[derive(Debug, Deserialize)]
struct Duplicate {
    repository: String,
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    visibility: Option<String>,
}

pub(super) fn duplicate(order: &Order<'_>, repo: &Repo) -> Result<Reply, ApiError> {
    let account = order.client.account(order.gateway)?;
    let wanted: Duplicate = order.json()?;
    let private = is_private(wanted.private, wanted.visibility.as_deref())?;
    let (namespace, name) = parts(None, &wanted.repository, &account.name)?;
    may_make_in(order, &namespace, ApiError::forbidden)?;
    let node = order.gateway.node();
    let is_private = private.unwrap_or_else(|| repo.is_private());
    let made = node.duplicate_repository(&account.id, repo, &namespace, &name, is_private);
    answered(order, repo.kind(), &format!("{namespace}/{name}"), made)
}

/// `POST /api/…/lfs-files/duplicate`: contents that commits to another repository will name.
#[derive(Debug, Deserialize)]
struct Copies {
    target: CopyTarget,
    files: Vec<CopyFile>,
}

#[derive(Debug, Deserialize)]
struct CopyTarget {
    name: String,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CopyFile {
    sha256: String,
}

/// Files of one request; more are answered 413.
const COPIES_MAX: usize = 1_000;

pub(super) fn copy_files(order: &Order<'_>, repo: &Repo) -> Result<Reply, ApiError> {
    let account = order.client.caller()?.account;
    let wanted: Copies = order.json()?;
    if wanted.files.len() > COPIES_MAX {
        return Err(ApiError::too_large(format!("More than {COPIES_MAX} files")));
    }
    let kind = kind_of(wanted.target.kind.as_deref())?;
    let target = repo::named(order.gateway, order.client, kind, &wanted.target.name)?;
    order.client.must(order.gateway, Access::Write, &target)?;
    let mut contents = Vec::with_capacity(wanted.files.len());
    for file in &wanted.files {
        let sha256 = file.sha256.parse().map_err(|_| {
            ApiError::bad_request(format!("{:?} is not 64 hex digits", file.sha256))
        })?;
        contents.push(sha256);
    }
    let missing = order.gateway.node().stage_from(&account, repo, &contents)?;
    let failed = missing.iter().map(
        |sha256| json!({ "sha256": sha256.to_hex(), "error": "This repository has no such file" }),
    );
    Ok(Reply::json(
        &json!({ "failed": failed.collect::<Vec<_>>() }),
    ))
}

/// Namespace and name, checked.
fn parts(
    organization: Option<&str>,
    name: &str,
    own: &str,
) -> Result<(NamespaceName, RepoName), ApiError> {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None => (organization.unwrap_or(own), name),
    };
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    Ok((
        namespace.parse().map_err(|error| bad(&error))?,
        name.parse().map_err(|error| bad(&error))?,
    ))
}
