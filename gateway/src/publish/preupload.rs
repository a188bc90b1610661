//! `POST /api/…/preupload/{revision}`: how each file is to be sent, and which not at all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cairn_node::repos::{EntryKind, Repo};
use cairn_protocol::attributes::{Attributes, Storage, decide as storage_of};
use cairn_protocol::limits::SAMPLE_BYTES;
use cairn_protocol::path::RepoPath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Order;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::repo;
use crate::url::Segment;

/// Files of one request; more are answered 413.
const FILES_MAX: usize = 1_000;
/// Bytes of a `.gitignore` that are read; a longer one ignores nothing.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preupload {
    files: Vec<File>,
    #[serde(default)]
    git_ignore: Option<String>,
    #[serde(default)]
    git_attributes: Option<String>,
}

#[derive(Debug, Deserialize)]
struct File {
    path: String,
    #[serde(default)]
    sample: String,
    size: u64,
}

pub(super) fn decide(
    order: &Order<'_>,
    repo: &Repo,
    rest: &[Segment<'_>],
) -> Result<Reply, ApiError> {
    let asked: Preupload = order.json()?;
    if asked.files.len() > FILES_MAX {
        return Err(ApiError::too_large(format!(
            "More than {FILES_MAX} files: ask for some of them at a time"
        )));
    }
    let (commit, left) = repo::commit(repo, rest)?;
    if !left.is_empty() {
        return Err(ApiError::revision_not_found(&super::joined(rest)));
    }
    let paths: Vec<RepoPath> = asked
        .files
        .iter()
        .map(|file| {
            file.path
                .parse()
                .map_err(|error| ApiError::unprocessable(format!("{error}")))
        })
        .collect::<Result<_, _>>()?;
    let mut attributes: Attributes = commit.attributes(&paths)?;
    if let Some(text) = &asked.git_attributes {
        attributes.add("", text.as_bytes());
    }
    let ignored = match &asked.git_ignore {
        Some(text) if text.len() as u64 > IGNORE_BYTES_MAX => {
            return Err(ApiError::too_large(format!(
                "A .gitignore of more than {IGNORE_BYTES_MAX} bytes is not read"
            )));
        }
        Some(text) => rules(text),
        None => committed_rules(&commit)?,
    };
    let mut files: Vec<Value> = Vec::with_capacity(paths.len());
    for (file, path) in asked.files.iter().zip(&paths) {
        let mut sample = STANDARD.decode(&file.sample).map_err(|_| {
            ApiError::bad_request(format!("The sample of {:?} is not base64", file.path))
        })?;
        sample.truncate(SAMPLE_BYTES);
        let mode = match storage_of(&attributes, path, file.size, &sample) {
            Storage::Lfs => "lfs",
            Storage::Regular => "regular",
        };
        let oid = match commit
            .entry(path.as_str())?
            .map(|entry| (entry.oid, entry.kind))
        {
            Some((oid, EntryKind::File(now))) => Some(match now.pointer_size {
                Some(_) => now.sha256.to_hex(),
                None => oid.to_hex(),
            }),
            _ => None,
        };
        let is_ignored = ignored
            .matched_path_or_any_parents(path.as_str(), false)
            .is_ignore();
        files.push(json!({
            "path": file.path,
            "uploadMode": mode,
            "shouldIgnore": is_ignored,
            "oid": oid,
        }));
    }
    Ok(Reply::json(&json!({
        "files": files,
        "commitOid": commit.info().oid.to_hex(),
    })))
}

fn committed_rules(commit: &cairn_node::repos::Commit) -> Result<Gitignore, ApiError> {
    let text = commit.small_file(".gitignore", IGNORE_BYTES_MAX)?;
    Ok(text.map_or_else(Gitignore::empty, |bytes| {
        rules(&String::from_utf8_lossy(&bytes))
    }))
}

/// Rules of a `.gitignore` at the root; lines that are none are passed over, as git does.
fn rules(text: &str) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in text.lines() {
        if let Err(error) = builder.add_line(None, line) {
            tracing::debug!(%error, "a line of .gitignore");
        }
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}
