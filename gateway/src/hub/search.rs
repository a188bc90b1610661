//! Names and tags at a glance: `/api/quicksearch` and `/api/*-tags-by-type`.

use std::collections::{BTreeMap, BTreeSet};

use cairn_node::repos::Repo;
use cairn_protocol::name::RepoKind;
use serde_json::{Map, Value, json};

use super::listing::{self, Row};
use crate::auth::Client;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::url::Pairs;

/// Hits of each kind, where the client doesn't say, and at most.
const HITS: u64 = 20;
const HITS_MAX: u64 = 100;
/// Different tags of one answer; further ones are left out.
const TAGS_MAX: usize = 20_000;

/// Repositories whose id holds a text.
pub(super) fn quick(gateway: &Gateway, client: &Client, query: &Pairs) -> Result<Reply, ApiError> {
    let text = query.first("q").unwrap_or_default().to_ascii_lowercase();
    let limit = query.number("limit")?.unwrap_or(HITS).min(HITS_MAX);
    let limit = usize::try_from(limit).map_err(ApiError::internal)?;
    let mut types = query.all("type").peekable();
    let is_any = types.peek().is_none();
    let types: BTreeSet<&str> = types.collect();
    let mut found = Map::from_iter([("orgs", json!([])), ("users", json!([]))].map(named));
    for kind in RepoKind::ALL {
        let hits: Vec<Value> = if is_any || types.contains(kind.as_str()) {
            let repos = listing::seen(gateway, client, kind);
            repos
                .iter()
                .map(Repo::shown_name)
                .filter(|id| id.to_ascii_lowercase().contains(&text))
                .take(limit)
                .map(|id| json!({ "id": id }))
                .collect()
        } else {
            Vec::new()
        };
        found.insert(kind.plural().to_owned(), hits.into());
    }
    Ok(Reply::json(&found))
}

fn named((name, value): (&str, Value)) -> (String, Value) {
    (name.to_owned(), value)
}

/// All tags of a kind's repositories, each with what it is.
pub(super) fn tags_by_type(gateway: &Gateway, client: &Client, kind: RepoKind) -> Reply {
    let repos = listing::seen(gateway, client, kind);
    Reply::json(&group(repos.iter().map(Row::of)))
}

/// `{type: [{id, label, type}]}`.
fn group<'a>(rows: impl Iterator<Item = Row<'a>>) -> Value {
    let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut count = 0;
    for row in rows {
        let named = [("library", row.library), ("pipeline_tag", row.pipeline)]
            .into_iter()
            .filter_map(|(kind, tag)| Some((kind, tag?)));
        let tags = row
            .tags
            .iter()
            .map(|tag| (type_of(tag), tag.as_str()))
            .filter(|(_, tag)| row.library != Some(tag) && row.pipeline != Some(tag));
        for (kind, tag) in named.chain(tags) {
            if count < TAGS_MAX && types.entry(kind).or_default().insert(tag) {
                count += 1;
            }
        }
    }
    types
        .into_iter()
        .map(|(kind, tags)| {
            let tags: Vec<Value> = tags
                .into_iter()
                .map(|tag| json!({ "id": tag, "label": label(tag), "type": kind }))
                .collect();
            (kind.to_owned(), Value::from(tags))
        })
        .collect::<Map<_, _>>()
        .into()
}

/// What a tag is, by its prefix; a bare code of two or three letters is a language.
fn type_of(tag: &str) -> &str {
    match tag.split_once(':') {
        Some((kind, _)) => kind,
        None if matches!(tag.len(), 2 | 3) && tag.bytes().all(|b| b.is_ascii_lowercase()) => {
            "language"
        }
        None => "other",
    }
}

fn label(tag: &str) -> &str {
    tag.split_once(':').map_or(tag, |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_grouped_by_what_they_are() {
        let tags = ["en", "license:mit", "bert", "transformers"].map(str::to_owned);
        let row = Row {
            tags: &tags,
            library: Some("transformers"),
            ..Row::default()
        };
        let groups = group([row.clone(), row].into_iter());
        assert_eq!(
            groups,
            json!({
                "language": [{ "id": "en", "label": "en", "type": "language" }],
                "library": [
                    { "id": "transformers", "label": "transformers", "type": "library" }
                ],
                "license": [{ "id": "license:mit", "label": "mit", "type": "license" }],
                "other": [{ "id": "bert", "label": "bert", "type": "other" }],
            })
        );
    }
}
