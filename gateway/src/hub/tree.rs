//! Files and folders of a commit: `/tree/{rev}[/{path}]`, `/paths-info/{rev}`, `/treesize/{rev}`.

use std::collections::HashSet;

use axum::body::Bytes;
use cairn_node::repos::{Commit, CommitInfo, Entry, EntryKind, RepoError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields;
use crate::dates;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::repo;
use crate::url::{Asked, Pairs, Segment};
use crate::xet;

/// Entries of a page, and of a page that says who changed each last.
const PAGE: u64 = 1_000;
const EXPANDED_PAGE: u64 = 100;
/// Paths of one `paths-info`, and of one that says who changed each last; more are refused.
const PATHS_MAX: usize = 20_000;
const EXPANDED_PATHS_MAX: usize = 1_000;

/// One page of a folder.
pub(super) fn list(
    gateway: &Gateway,
    commit: &Commit,
    path: &[Segment<'_>],
    asked: &Asked,
) -> Result<Reply, ApiError> {
    let query = &asked.query;
    let is_expanded = query.flag("expand");
    let limit = page_limit(query, is_expanded)?;
    let oid = commit.info().oid;
    let path = repo::path(path).ok_or_else(|| ApiError::entry_not_found(&oid))?;
    let is_recursive = query.flag("recursive");
    let cursor = query.first("cursor");
    if let Some(cursor) = cursor
        && (!is_below(cursor, &path, is_recursive) || commit.entry(cursor)?.is_none())
    {
        return Err(ApiError::bad_request("The cursor names nothing here"));
    }
    let mut entries = commit
        .tree(&path, is_recursive, cursor, limit + 1)
        .map_err(|error| match error {
            RepoError::Entry(_) => ApiError::entry_not_found(&oid),
            error => error.into(),
        })?;
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries
        .last()
        .filter(|_| has_more)
        .map(|last| asked.next_page("cursor", &last.path));
    Ok(Reply::json(&show(gateway, commit, &entries, is_expanded)?).with_next(next))
}

/// Whether a listing of a folder can have an entry of this path.
fn is_below(path: &str, folder: &str, is_recursive: bool) -> bool {
    let rest = match folder {
        "" => Some(path),
        folder => path
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/')),
    };
    let is_whole = repo::checked_path(path).is_some_and(|checked| checked == path);
    is_whole && rest.is_some_and(|rest| !rest.is_empty() && (is_recursive || !rest.contains('/')))
}

fn page_limit(query: &Pairs, is_expanded: bool) -> Result<usize, ApiError> {
    let page = if is_expanded { EXPANDED_PAGE } else { PAGE };
    let limit = query.number("limit")?.unwrap_or(page).clamp(1, page);
    usize::try_from(limit).map_err(ApiError::internal)
}

/// Those of some paths that there are.
pub(super) fn paths(
    gateway: &Gateway,
    commit: &Commit,
    form: &Bytes,
    is_json: bool,
) -> Result<Reply, ApiError> {
    let wanted = Wanted::parse(form, is_json)?;
    let mut entries = Vec::with_capacity(wanted.paths.len());
    let mut seen = HashSet::new();
    for path in &wanted.paths {
        let Some(path) = repo::checked_path(path) else {
            continue;
        };
        // The root itself is no entry.
        if !path.is_empty() && seen.insert(path.clone()) {
            entries.extend(commit.entry(&path)?);
        }
    }
    Ok(Reply::json(&show(
        gateway,
        commit,
        &entries,
        wanted.expand,
    )?))
}

/// What `paths-info` is asked, as a form or as JSON.
#[derive(Debug, PartialEq, Deserialize)]
struct Wanted {
    paths: Vec<String>,
    #[serde(default)]
    expand: bool,
}

impl Wanted {
    fn parse(form: &[u8], is_json: bool) -> Result<Self, ApiError> {
        let wanted: Self = if is_json {
            serde_json::from_slice(form).map_err(|error| {
                ApiError::bad_request(format!("The body is not what paths-info takes: {error}"))
            })?
        } else {
            let pairs = Pairs::parse(form)?;
            Self {
                paths: pairs.all("paths").map(str::to_owned).collect(),
                expand: pairs.flag("expand"),
            }
        };
        let max = if wanted.expand {
            EXPANDED_PATHS_MAX
        } else {
            PATHS_MAX
        };
        if wanted.paths.len() > max {
            let message = format!("More than {max} paths: ask in several requests");
            return Err(ApiError::bad_request(message));
        }
        Ok(wanted)
    }
}

/// Bytes of all files below a folder.
pub(super) fn size(commit: &Commit, path: &[Segment<'_>]) -> Result<Reply, ApiError> {
    let oid = commit.info().oid;
    let path = repo::path(path).ok_or_else(|| ApiError::entry_not_found(&oid))?;
    let size = match commit.size(&path) {
        Err(RepoError::Entry(_)) => return Err(ApiError::entry_not_found(&oid)),
        size => size?,
    };
    Ok(Reply::json(&json!({ "path": path, "size": size })))
}

fn show(
    gateway: &Gateway,
    commit: &Commit,
    entries: &[Entry],
    is_expanded: bool,
) -> Result<Vec<Value>, ApiError> {
    let changes = if is_expanded {
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        commit.last_changes(&paths)?.into_iter().map(Some).collect()
    } else {
        vec![None; entries.len()]
    };
    let shown = entries.iter().zip(&changes);
    shown
        .map(|(entry, change)| {
            let mut shown = show_entry(entry, change.as_ref());
            if let EntryKind::File(file) = &entry.kind
                && let Some(hash) = xet::hash_of(gateway, file)?
            {
                shown["xetHash"] = hash.to_string().into();
            }
            Ok(shown)
        })
        .collect()
}

fn show_entry(entry: &Entry, change: Option<&CommitInfo>) -> Value {
    let oid = entry.oid.to_hex();
    let mut shown = match &entry.kind {
        EntryKind::Directory => {
            json!({ "type": "directory", "oid": oid, "size": 0, "path": entry.path })
        }
        EntryKind::File(file) => {
            let mut shown =
                json!({ "type": "file", "oid": oid, "size": file.size, "path": entry.path });
            if let Some(lfs) = fields::lfs("oid", file) {
                shown["lfs"] = lfs;
            }
            if change.is_some() {
                shown["securityFileStatus"] =
                    json!({ "status": "unscanned", "avScan": null, "pickleImportScan": null });
            }
            shown
        }
    };
    if let Some(change) = change {
        shown["lastCommit"] = json!({
            "id": change.oid.to_hex(),
            "title": change.title,
            "date": dates::iso(change.time),
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use cairn_node::repos::FileEntry;
    use cairn_protocol::hash::{GitOid, Sha256};

    use super::*;

    #[test]
    fn paths_come_as_a_form_or_as_json() {
        let expected = Wanted {
            paths: vec!["a b".to_owned(), "c/d".to_owned()],
            expand: true,
        };
        let form = b"paths=a+b&paths=c%2Fd&expand=true";
        assert_eq!(Wanted::parse(form, false).unwrap(), expected);
        let json = br#"{"paths":["a b","c/d"],"expand":true}"#;
        assert_eq!(Wanted::parse(json, true).unwrap(), expected);
        assert!(Wanted::parse(b"{", true).is_err());
        let many = "paths=x&".repeat(PATHS_MAX + 1);
        assert!(Wanted::parse(many.as_bytes(), false).is_err());
        let expanded = |count| format!("expand=true{}", "&paths=x".repeat(count));
        assert!(Wanted::parse(expanded(1_000).as_bytes(), false).is_ok());
        assert!(Wanted::parse(expanded(1_001).as_bytes(), false).is_err());
    }

    #[test]
    fn last_commits_and_scans_are_shown_only_when_expanded() {
        let entry = Entry {
            path: "a/b".to_owned(),
            kind: EntryKind::File(FileEntry {
                size: 9,
                sha256: Sha256::from_bytes([1; 32]),
                blake3: None,
                pointer_size: None,
                xet: None,
                executable: false,
            }),
            oid: GitOid::from_bytes([2; 20]),
        };
        let plain = show_entry(&entry, None);
        let oid = "02".repeat(20);
        assert_eq!(
            plain,
            json!({ "type": "file", "oid": oid, "size": 9, "path": "a/b" })
        );
        let change = CommitInfo {
            oid: GitOid::from_bytes([3; 20]),
            title: "t".to_owned(),
            message: String::new(),
            author: "a".to_owned(),
            time: 0,
            parents: Vec::new(),
        };
        let shown = show_entry(&entry, Some(&change));
        assert_eq!(shown["lastCommit"]["date"], "1970-01-01T00:00:00.000Z");
        assert!(shown["securityFileStatus"]["avScan"].is_null());
    }

    #[test]
    fn cursors_are_paths_of_their_listing() {
        assert!(is_below("a", "", false));
        assert!(is_below("a/b", "a", false));
        assert!(is_below("a/b/c", "a", true));
        for (path, folder) in [
            ("", ""),
            ("a/b/c", "a"),
            ("ab/c", "a"),
            ("a", "a"),
            ("a/", "a"),
        ] {
            assert!(!is_below(path, folder, false), "{path:?} in {folder:?}");
        }
        assert!(!is_below("../a", "", true));
    }

    #[test]
    fn pages_have_a_bound() {
        let limit =
            |query: &str, expanded| page_limit(&Pairs::parse(query.as_bytes()).unwrap(), expanded);
        assert_eq!(limit("", false).unwrap(), 1000);
        assert_eq!(limit("", true).unwrap(), 100);
        assert_eq!(limit("limit=7", false).unwrap(), 7);
        assert_eq!(limit("limit=0", false).unwrap(), 1);
        assert_eq!(limit("limit=99999999999", true).unwrap(), 100);
        assert!(limit("limit=-1", false).is_err());
    }
}
