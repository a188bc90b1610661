//! Refs and commits: `/refs` and `/commits/{rev}`.

use std::collections::BTreeMap;

use axum::http::HeaderName;
use cairn_node::repos::{Commit, CommitInfo, Repo};
use cairn_protocol::hash::GitOid;
use serde_json::{Value, json};

use crate::dates;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::url::{Asked, Pairs};

/// Commits of a page, where the client doesn't say.
const PAGE: u64 = 50;
/// Commits of a page at most.
const PAGE_MAX: u64 = 1_000;

/// How many commits there are in all.
const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");

pub(super) fn refs(repo: &Repo, query: &Pairs) -> Result<Reply, ApiError> {
    Ok(Reply::json(&show_refs(
        repo.refs()?,
        query.flag("include_prs"),
    )))
}

fn show_refs(refs: &BTreeMap<String, GitOid>, with_pulls: bool) -> Value {
    let below = |prefix: &str| -> Value {
        refs.iter()
            .filter_map(|(name, commit)| {
                let short = name.strip_prefix(prefix)?;
                Some(json!({ "name": short, "ref": name, "targetCommit": commit.to_hex() }))
            })
            .collect()
    };
    let mut shown = json!({
        "branches": below("refs/heads/"),
        "tags": below("refs/tags/"),
        "converts": below("refs/convert/"),
    });
    if with_pulls {
        shown["pullRequests"] = below("refs/pr/");
    }
    shown
}

pub(super) fn commits(commit: &Commit, asked: &Asked) -> Result<Reply, ApiError> {
    let query = &asked.query;
    let limit = query.number("limit")?.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let page = query.number("p")?.unwrap_or(0);
    let with_formatted = query.all("expand").any(|name| name == "formatted");
    let skip = page.saturating_mul(limit);
    let total = commit.count()?;
    let shown: Vec<Value> = if skip < total {
        let limit = usize::try_from(limit).map_err(ApiError::internal)?;
        let log = commit.log(skip, limit)?;
        log.iter().map(|info| show(info, with_formatted)).collect()
    } else {
        Vec::new()
    };
    let next =
        (skip.saturating_add(limit) < total).then(|| asked.next_page("p", &(page + 1).to_string()));
    Ok(Reply::json(&shown)
        .with(TOTAL_COUNT, &total.to_string())
        .with_next(next))
}

fn show(info: &CommitInfo, with_formatted: bool) -> Value {
    let mut shown = json!({
        "id": info.oid.to_hex(),
        "title": info.title,
        "message": info.message,
        "date": dates::iso(info.time),
        "authors": [{ "user": info.author, "avatar": "" }],
    });
    if with_formatted {
        shown["formatted"] = json!({
            "title": escape(&info.title),
            "message": escape(&info.message),
        });
    }
    shown
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_grouped_and_pulls_shown_on_demand() {
        let oid = GitOid::from_bytes([1; 20]);
        let names = [
            "refs/heads/a/b",
            "refs/heads/main",
            "refs/tags/v1",
            "refs/convert/parquet",
            "refs/pr/1",
            "refs/notes/x",
        ];
        let refs = names.map(|name| (name.to_owned(), oid)).into();
        let shown = show_refs(&refs, false);
        let commit = oid.to_hex();
        assert_eq!(
            shown["branches"],
            json!([
                { "name": "a/b", "ref": "refs/heads/a/b", "targetCommit": commit },
                { "name": "main", "ref": "refs/heads/main", "targetCommit": commit },
            ])
        );
        assert_eq!(shown["tags"][0]["name"], "v1");
        assert_eq!(shown["converts"][0]["name"], "parquet");
        assert!(shown.get("pullRequests").is_none());
        assert_eq!(show_refs(&refs, true)["pullRequests"][0]["name"], "1");
    }

    #[test]
    fn formatted_messages_are_html_and_only_on_demand() {
        let info = CommitInfo {
            oid: GitOid::from_bytes([1; 20]),
            title: "a <b>".to_owned(),
            message: "\"x\" & 'y'".to_owned(),
            author: "n".to_owned(),
            time: 1,
            parents: Vec::new(),
        };
        assert!(show(&info, false).get("formatted").is_none());
        let formatted = &show(&info, true)["formatted"];
        assert_eq!(formatted["title"], "a &lt;b&gt;");
        assert_eq!(formatted["message"], "&quot;x&quot; &amp; &#39;y&#39;");
    }
}
