//! Which repositories there are: `/api/models`, `/api/datasets`, `/api/spaces`.
//!
//! The node's list is in memory; it is filtered and sorted anew for each page. A page goes on after the
//! last item of the one before, by its place in the order, so that a list that changes meanwhile shows
//! nothing twice: dates and counts only rise. For that a list by downloads counts them from the same day on
//! for all of its pages. Likes are not counted: an order by them is one by date.

use cairn_node::Node;
use cairn_node::repos::{Found, Repo};
use cairn_protocol::name::RepoKind;
use serde_json::Value;

use super::fields::{self, View};
use crate::auth::Client;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::url::{Asked, Pairs};

/// Items of a page, where the client doesn't say, and at most.
const PAGE: u64 = 1_000;
/// Files that the items of one page may list in all; then the page ends early.
const PAGE_SIBLINGS_MAX: usize = 100_000;

pub(super) fn list(
    gateway: &Gateway,
    client: &Client,
    kind: RepoKind,
    asked: &Asked,
) -> Result<Reply, ApiError> {
    let query = &asked.query;
    let limit = usize::try_from(query.number("limit")?.unwrap_or(PAGE).min(PAGE))
        .map_err(ApiError::internal)?;
    let expanded = fields::expanded(kind, query)?;
    let names = expanded.unwrap_or_else(|| default_names(kind, query));
    let after = query.first("cursor").map(Cursor::parse).transpose()?;
    let order = Order::parse(query, || {
        let begun = after.as_ref().and_then(|after| after.first_day);
        begun.unwrap_or_else(|| gateway.node().downloads_first_day())
    })?;

    let repos = seen(gateway, client, kind);
    let mut filter = Filter::parse(query);
    filter.author = filter
        .author
        .map(|author| namespace(gateway.node(), kind, &repos, author));
    let mut rows: Vec<(Cursor, &Repo)> = repos
        .iter()
        .filter(|repo| filter.takes(&Row::of(repo)))
        .map(|repo| (order.place(&order.row(gateway.node(), repo)), repo))
        .filter(|(place, _)| {
            after
                .as_ref()
                .is_none_or(|after| order.follows(place, after))
        })
        .collect();
    rows.sort_by(|(one, _), (other, _)| order.compare(one, other));

    let mut items = Vec::new();
    let mut siblings = 0;
    for (_, repo) in rows.iter().take(limit) {
        let mut view = View::new(gateway, repo);
        items.push(Value::Object(view.members(&names)?));
        siblings += view.siblings();
        if siblings > PAGE_SIBLINGS_MAX {
            break;
        }
    }
    let next = match items.len() {
        0 => None,
        shown if shown == rows.len() => None,
        shown => Some(asked.next_page("cursor", &rows[shown - 1].0.to_string())),
    };
    Ok(Reply::json(&items).with_next(next))
}

/// Repositories of a kind that whoever asks may see.
pub(super) fn seen(gateway: &Gateway, client: &Client, kind: RepoKind) -> Vec<Repo> {
    let mut repos = gateway.node().repos().list(kind);
    repos.retain(|repo| client.sees(gateway, repo));
    repos
}

/// The members of an item, as `full`, `cardData` and `config` ask.
fn default_names(kind: RepoKind, query: &Pairs) -> Vec<&'static str> {
    let mut names = fields::listed(kind).to_vec();
    if query.flag("full") {
        names.extend(["sha", "siblings"]);
    }
    if query.flag("cardData") || (query.flag("full") && kind != RepoKind::Model) {
        names.push("cardData");
    }
    if query.flag("config") && kind == RepoKind::Model {
        names.push("config");
    }
    names
}

/// The namespace that an author's name means: itself, or the one that it is a local alias of.
///
/// The node resolves aliases of repositories only, so an alias shows by leading to one of its own.
fn namespace(node: &Node, kind: RepoKind, repos: &[Repo], author: String) -> String {
    if repos
        .iter()
        .any(|repo| repo.shown_namespace().eq_ignore_ascii_case(&author))
    {
        return author;
    }
    let hashed = repos
        .iter()
        .find(|repo| repo.namespace().eq_ignore_ascii_case(&author));
    if let Some(repo) = hashed {
        return repo.shown_namespace().to_owned();
    }
    let own = repos
        .iter()
        .find(|repo| repo.namespace() == node.namespace());
    let is_alias = own.is_some_and(|own| {
        let name = own.full_name().rsplit('/').next().unwrap_or_default();
        let found = node.repos().find(kind, &format!("{author}/{name}"));
        matches!(found, Ok(Found::Repo(found)) if found.id() == own.id())
    });
    if is_alias {
        node.namespace().to_owned()
    } else {
        author
    }
}

/// What filters and orders look at.
#[derive(Debug, Clone, Default)]
pub(super) struct Row<'a> {
    pub(super) id: &'a str,
    pub(super) namespace: &'a str,
    pub(super) tags: &'a [String],
    pub(super) library: Option<&'a str>,
    pub(super) pipeline: Option<&'a str>,
    pub(super) card: Option<&'a Value>,
    pub(super) created_at: u64,
    pub(super) last_modified: u64,
    /// Counted where the order is by them.
    pub(super) downloads: u64,
}

impl<'a> Row<'a> {
    pub(super) fn of(repo: &'a Repo) -> Self {
        let card = repo.card();
        Self {
            id: repo.shown_name(),
            namespace: repo.shown_namespace(),
            tags: &card.tags,
            library: card.library_name.as_deref(),
            pipeline: card.pipeline_tag.as_deref(),
            card: Some(&card.data),
            created_at: repo.created_at(),
            last_modified: repo.last_modified(),
            downloads: 0,
        }
    }

    fn has(&self, tag: &str) -> bool {
        let is = |other: &str| other.eq_ignore_ascii_case(tag);
        // Models have bare language codes, and are asked for as `language:en`.
        let bare = tag
            .split_once(':')
            .filter(|(kind, _)| kind.eq_ignore_ascii_case("language"))
            .map(|(_, code)| code);
        self.tags
            .iter()
            .any(|other| is(other) || bare.is_some_and(|bare| other.eq_ignore_ascii_case(bare)))
            || self.library.is_some_and(is)
            || self.pipeline.is_some_and(is)
    }

    /// Whether a member of the card is, or holds, a text.
    fn card_has(&self, member: &str, text: &str) -> bool {
        let is = |value: &Value| value.as_str().is_some_and(|v| v.eq_ignore_ascii_case(text));
        match self.card.and_then(|card| card.get(member)) {
            Some(Value::Array(values)) => values.iter().any(is),
            Some(value) => is(value),
            None => false,
        }
    }
}

/// Which repositories a listing shows.
#[derive(Debug, Default)]
struct Filter {
    author: Option<String>,
    searches: Vec<String>,
    tags: Vec<String>,
    pipelines: Vec<String>,
    libraries: Vec<String>,
    /// Members of a card and what they must hold.
    card: Vec<(&'static str, String)>,
    /// Asks for what no repository here is: gated, or warm for inference.
    is_empty: bool,
}

impl Filter {
    fn parse(query: &Pairs) -> Self {
        let listed = |name: &str| -> Vec<String> {
            query
                .all(name)
                .flat_map(|value| value.split(','))
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
                .collect()
        };
        let searches = ["search", "dataset_name"]
            .into_iter()
            .flat_map(|name| query.all(name))
            .map(str::to_ascii_lowercase)
            .collect();
        let card = ["sdk", "models", "datasets"]
            .into_iter()
            .flat_map(|member| listed(member).into_iter().map(move |value| (member, value)))
            .collect();
        let names = |name: &str| query.first(name).is_some_and(|value| !value.is_empty());
        Self {
            author: query.first("author").map(str::to_owned),
            searches,
            tags: [listed("filter"), listed("tags")].concat(),
            pipelines: listed("pipeline_tag"),
            libraries: listed("library"),
            card,
            is_empty: query.first("gated") == Some("true")
                || names("inference")
                || names("inference_provider")
                || names("apps"),
        }
    }

    fn takes(&self, row: &Row<'_>) -> bool {
        let any = |wanted: &[String], has: Option<&str>| {
            wanted.is_empty()
                || has.is_some_and(|has| wanted.iter().any(|one| one.eq_ignore_ascii_case(has)))
        };
        let id = row.id.to_ascii_lowercase();
        !self.is_empty
            && self
                .author
                .as_ref()
                .is_none_or(|author| row.namespace.eq_ignore_ascii_case(author))
            && self.searches.iter().all(|text| id.contains(text))
            && self.tags.iter().all(|tag| row.has(tag))
            && any(&self.pipelines, row.pipeline)
            && self.libraries.iter().all(|library| row.has(library))
            && self
                .card
                .iter()
                .all(|(member, text)| row.card_has(member, text))
    }
}

/// A row's place in an order: a date or a count, then the id. Its text is what a `cursor` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    rank: u64,
    /// The day from which on downloads count, where it is their count.
    first_day: Option<u64>,
    id: String,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.rank)?;
        if let Some(first_day) = self.first_day {
            write!(f, ".{first_day}")?;
        }
        write!(f, ":{}", self.id)
    }
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, ApiError> {
        text.split_once(':')
            .and_then(|(place, id)| {
                let (rank, first_day) = match place.split_once('.') {
                    Some((rank, day)) => (rank, Some(day.parse().ok()?)),
                    None => (place, None),
                };
                Some(Self {
                    rank: rank.parse().ok()?,
                    first_day,
                    id: id.to_owned(),
                })
            })
            .ok_or_else(|| ApiError::bad_request("\"cursor\" is not one that this gateway gave"))
    }
}

/// In which order a listing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    by: By,
    is_ascending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    LastModified,
    CreatedAt,
    /// From a day on.
    Downloads(u64),
    Id,
}

impl Order {
    /// What a query asks for; downloads count from `first_day` on.
    fn parse(query: &Pairs, first_day: impl FnOnce() -> u64) -> Result<Self, ApiError> {
        const KNOWN: [&str; 9] = [
            "lastModified",
            "createdAt",
            "id",
            "trendingScore",
            "downloads",
            "likes",
            "likes30d",
            "num_parameters",
            "mainSize",
        ];
        let by = match query.first("sort") {
            Some("createdAt" | "created_at") => By::CreatedAt,
            Some("id") => By::Id,
            Some("downloads" | "downloads30d") => By::Downloads(first_day()),
            None | Some("" | "last_modified" | "trending_score" | "likes7d") => By::LastModified,
            Some(known) if KNOWN.contains(&known) => By::LastModified,
            Some(other) => {
                let (other, known) = (other.escape_debug(), KNOWN.join("|"));
                return Err(ApiError::bad_request(format!(
                    "Invalid option for \"sort\": \"{other}\". Expected one of: {known}"
                )));
            }
        };
        // The hub sorts descending, whatever else older clients say than `1`.
        let is_ascending = query.first("direction") == Some("1");
        Ok(Self { by, is_ascending })
    }

    /// What the order looks at.
    fn row<'a>(self, node: &Node, repo: &'a Repo) -> Row<'a> {
        let mut row = Row::of(repo);
        if let By::Downloads(first_day) = self.by {
            row.downloads = node.downloads_since(&repo.id(), first_day);
        }
        row
    }

    fn place(self, row: &Row<'_>) -> Cursor {
        let (rank, first_day) = match self.by {
            By::LastModified => (row.last_modified, None),
            By::CreatedAt => (row.created_at, None),
            By::Downloads(first_day) => (row.downloads, Some(first_day)),
            By::Id => (0, None),
        };
        let id = row.id.to_owned();
        Cursor {
            rank,
            first_day,
            id,
        }
    }

    fn compare(self, one: &Cursor, other: &Cursor) -> std::cmp::Ordering {
        let by_rank = if self.is_ascending {
            one.rank.cmp(&other.rank)
        } else {
            other.rank.cmp(&one.rank)
        };
        by_rank.then_with(|| one.id.cmp(&other.id))
    }

    fn follows(self, place: &Cursor, after: &Cursor) -> bool {
        self.compare(place, after).is_gt()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(query: &str) -> Filter {
        Filter::parse(&Pairs::parse(query.as_bytes()).unwrap())
    }

    #[test]
    fn filters_look_at_tags_library_pipeline_and_card() {
        let tags = ["en", "license:mit", "bert", "task_categories:qa"].map(str::to_owned);
        let card = json!({ "sdk": "gradio", "datasets": ["a/b"] });
        let row = Row {
            id: "Org/Mini-LM",
            namespace: "Org",
            tags: &tags,
            library: Some("transformers"),
            pipeline: Some("fill-mask"),
            card: Some(&card),
            ..Row::default()
        };
        for taken in [
            "",
            "author=org",
            "search=mini&search=lm",
            "search=ORG%2Fmini",
            "filter=bert&filter=en",
            "filter=bert,license:MIT",
            "filter=language:en",
            "filter=transformers",
            "filter=fill-mask",
            "filter=task_categories:qa",
            "pipeline_tag=fill-mask",
            "pipeline_tag=x&pipeline_tag=fill-mask",
            "library=transformers",
            "sdk=gradio",
            "datasets=a/b",
            "gated=false",
        ] {
            assert!(filter(taken).takes(&row), "{taken}");
        }
        for refused in [
            "author=other",
            "author=",
            "search=mini&search=x",
            "filter=bert&filter=x",
            "filter=language:de",
            "filter=license:apache-2.0",
            "pipeline_tag=x",
            "library=x",
            "sdk=docker",
            "models=a/b",
            "gated=true",
            "inference=warm",
        ] {
            assert!(!filter(refused).takes(&row), "{refused}");
        }
    }

    /// Pages of one item each, followed by their cursors, show every row once, in order.
    #[test]
    fn pages_follow_one_another_in_every_order() {
        let rows: Vec<Row<'_>> = [
            ("b/x", 5, 1, 7),
            ("a/x", 5, 2, 0),
            ("c/x", 9, 3, 0),
            ("d/x", 0, 4, 12),
        ]
        .into_iter()
        .map(|(id, last_modified, created_at, downloads)| Row {
            id,
            created_at,
            last_modified,
            downloads,
            ..Row::default()
        })
        .collect();
        for (query, expected) in [
            ("", ["c/x", "a/x", "b/x", "d/x"]),
            ("sort=likes", ["c/x", "a/x", "b/x", "d/x"]),
            ("sort=downloads", ["d/x", "b/x", "a/x", "c/x"]),
            ("direction=1", ["d/x", "a/x", "b/x", "c/x"]),
            ("sort=createdAt&direction=-1", ["d/x", "c/x", "a/x", "b/x"]),
            ("sort=id", ["a/x", "b/x", "c/x", "d/x"]),
        ] {
            let pairs = Pairs::parse(query.as_bytes()).unwrap();
            let order = Order::parse(&pairs, || 20_787).unwrap();
            let mut after: Option<Cursor> = None;
            let mut shown = Vec::new();
            while let Some(next) = rows
                .iter()
                .map(|row| order.place(row))
                .filter(|place| {
                    after
                        .as_ref()
                        .is_none_or(|after| order.follows(place, after))
                })
                .min_by(|one, other| order.compare(one, other))
            {
                assert_eq!(Cursor::parse(&next.to_string()).unwrap(), next);
                shown.push(next.id.clone());
                after = Some(next);
            }
            assert_eq!(shown, expected, "{query}");
        }
        assert!(Order::parse(&Pairs::parse(b"sort=colour").unwrap(), || 0).is_err());
        for odd in ["x", "1", ".:a", "1.:a", ".1:a", "1.2.3:a", "-1:a"] {
            assert!(Cursor::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn items_have_what_the_query_asks() {
        let names =
            |query: &str| default_names(RepoKind::Model, &Pairs::parse(query.as_bytes()).unwrap());
        assert!(!names("").contains(&"siblings"));
        let full = names("full=true&config=True&cardData=1");
        for name in ["siblings", "sha", "config", "cardData"] {
            assert!(full.contains(&name), "{name}");
        }
    }
}
