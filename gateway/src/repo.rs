//! From the segments of a URL to a repository, a commit and a path.
//!
//! Hub paths are ambiguous: an id has one segment or two, a revision one or, unquoted, several. Every
//! reading is tried in a fixed order, and what the node knows decides.

use std::collections::BTreeMap;

use cairn_node::repos::{Commit, Found, Repo, RepoError};
use cairn_protocol::hash::GitOid;
use cairn_protocol::limits::{PATH_DEPTH_MAX, REF_NAME_BYTES_MAX};
use cairn_protocol::name::{RepoKind, check_segment};

use crate::auth::Client;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::url::Segment;

/// One reading of a path: which repository, what about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading<'a> {
    /// `namespace/name` or a bare name.
    pub(crate) id: String,
    /// The segments after the id; the first of them is the verb, where there is one.
    pub(crate) rest: &'a [Segment<'a>],
    /// How many segments the id has.
    id_segments: usize,
}

/// The readings of the segments after a kind's prefix, the likelier first.
///
/// A verb tells where the id ends; without any, one or two segments are an id and nothing else.
pub(crate) fn readings<'a>(
    segments: &'a [Segment<'a>],
    is_verb: impl Fn(&str) -> bool,
) -> impl Iterator<Item = Reading<'a>> {
    let verb_at = move |index: usize| match segments.get(index) {
        None => segments.len() == index,
        Some(segment) => is_verb(&segment.text),
    };
    [2, 1].into_iter().filter_map(move |length| {
        let id = segments.get(..length).filter(|_| verb_at(length))?;
        let id: Vec<&str> = id.iter().map(|segment| segment.text.as_ref()).collect();
        let id = id.join("/");
        let parts = id.split('/').count();
        let valid = parts <= 2 && id.split('/').all(|part| check_segment(part).is_ok());
        valid.then(|| Reading {
            id,
            rest: &segments[length..],
            id_segments: length,
        })
    })
}

/// A repository that was asked for.
#[derive(Debug)]
pub(crate) enum Located<'a> {
    /// It is here.
    Here(Repo, &'a [Segment<'a>]),
    /// It has another name now: the path and query to ask instead.
    Moved(String),
}

/// The first reading that names a repository.
///
/// # Errors
/// No reading does, or there is none.
pub(crate) fn locate<'a>(
    gateway: &Gateway,
    client: &Client,
    kind: RepoKind,
    prefix: &str,
    readings: impl Iterator<Item = Reading<'a>>,
    query: Option<&str>,
) -> Result<Located<'a>, ApiError> {
    for reading in readings {
        match find(gateway, client, kind, &reading.id)? {
            Some(Found::Repo(repo)) => return Ok(Located::Here(repo, reading.rest)),
            Some(Found::Redirect(id)) => {
                return Ok(Located::Moved(moved(prefix, &id, reading.rest, query)));
            }
            None => {}
        }
    }
    Err(ApiError::repository_not_found())
}

/// What a name leads to for whoever asks: what may not be seen is not there, and no name leads to it.
pub(crate) fn find(
    gateway: &Gateway,
    client: &Client,
    kind: RepoKind,
    id: &str,
) -> Result<Option<Found>, ApiError> {
    let repos = gateway.node().repos();
    let found = match repos.find(kind, id) {
        Ok(found) => found,
        Err(RepoError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let seen = match &found {
        Found::Repo(repo) => client.sees(gateway, repo),
        Found::Redirect(next) => match repos.find(kind, next) {
            Ok(Found::Repo(repo)) => client.sees(gateway, &repo),
            _ => false,
        },
    };
    Ok(seen.then_some(found))
}

/// The repository of that name, renamed or not, as whoever asks sees it.
///
/// # Errors
/// There is none, or none that may be seen.
pub(crate) fn named(
    gateway: &Gateway,
    client: &Client,
    kind: RepoKind,
    id: &str,
) -> Result<Repo, ApiError> {
    let mut id = id.to_owned();
    // A rename answers with the name that holds now.
    for _ in 0..2 {
        match find(gateway, client, kind, &id)? {
            Some(Found::Repo(repo)) => return Ok(repo),
            Some(Found::Redirect(next)) => id = next,
            None => break,
        }
    }
    Err(ApiError::repository_not_found())
}

/// The same request under another id; relative, so that it stays with the host that was asked.
fn moved(prefix: &str, id: &str, rest: &[Segment<'_>], query: Option<&str>) -> String {
    let mut path = format!("{prefix}{id}");
    for segment in rest {
        path.push('/');
        path.push_str(segment.raw);
    }
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// The commit that the first segments name, and the segments after them.
///
/// One segment is one revision, as most clients quote it; where that names nothing, the longest run of
/// segments that is a ref, as others leave slashes unquoted.
pub(crate) fn commit<'a>(
    repo: &Repo,
    segments: &'a [Segment<'a>],
) -> Result<(Commit, &'a [Segment<'a>]), ApiError> {
    let Some(first) = segments.first() else {
        return Err(ApiError::no_route());
    };
    match repo.commit(&first.text) {
        Ok(commit) => return Ok((commit, &segments[1..])),
        Err(RepoError::Revision(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match longest_ref(repo.refs()?, segments) {
        Some((name, length)) => Ok((repo.commit(&name)?, &segments[length..])),
        None => Err(ApiError::revision_not_found(&first.text)),
    }
}

/// The longest run of two and more segments that is a branch, a tag or a full ref name.
fn longest_ref(
    refs: &BTreeMap<String, GitOid>,
    segments: &[Segment<'_>],
) -> Option<(String, usize)> {
    let mut run = String::new();
    let mut longest = None;
    for (index, segment) in segments.iter().enumerate() {
        if index > 0 {
            run.push('/');
        }
        run.push_str(&segment.text);
        if run.len() > REF_NAME_BYTES_MAX {
            break;
        }
        let known = index > 0
            && (refs.contains_key(&run)
                || ["refs/heads/", "refs/tags/"]
                    .iter()
                    .any(|prefix| refs.contains_key(&format!("{prefix}{run}"))));
        if known {
            longest = Some((run.clone(), index + 1));
        }
    }
    longest
}

/// The path that the segments after a revision name; `None` where no stored file can have it.
pub(crate) fn path(segments: &[Segment<'_>]) -> Option<String> {
    let parts: Vec<&str> = segments
        .iter()
        .map(|segment| segment.text.as_ref())
        .collect();
    checked_path(&parts.join("/"))
}

/// A path without slashes at its ends; `None` where no stored file can have it.
pub(crate) fn checked_path(path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    let possible = path.is_empty()
        || (path.split('/').count() <= PATH_DEPTH_MAX
            && !path.contains('\0')
            && path.split('/').all(|part| !matches!(part, "" | "." | "..")));
    possible.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url;

    fn read(path: &str) -> Vec<(String, Vec<String>)> {
        let segments = url::segments(path).unwrap();
        readings(&segments, |verb| matches!(verb, "resolve" | "raw" | "tree"))
            .map(|reading| {
                assert_eq!(reading.id_segments + reading.rest.len(), segments.len());
                let rest = reading.rest.iter().map(|s| s.text.to_string()).collect();
                (reading.id, rest)
            })
            .collect()
    }

    #[test]
    fn ids_have_one_segment_or_two() {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let one = |id: &str, rest: &[&str]| (id.to_owned(), owned(rest));
        assert_eq!(read("/gpt2"), [one("gpt2", &[])]);
        assert_eq!(read("/a/b"), [one("a/b", &[])]);
        assert_eq!(
            read("/a/b/resolve/main/x"),
            [one("a/b", &["resolve", "main", "x"])]
        );
        assert_eq!(
            read("/gpt2/resolve/main/x"),
            [one("gpt2", &["resolve", "main", "x"])]
        );
        assert_eq!(
            read("/gpt2/resolve/raw/x"),
            [
                one("gpt2/resolve", &["raw", "x"]),
                one("gpt2", &["resolve", "raw", "x"])
            ]
        );
        assert_eq!(read("/a%2Fb/tree/x"), [one("a/b", &["tree", "x"])]);
        for none in [
            "/a/b/c",
            "/..%2Fb",
            "/a/b/unknown/x",
            "/a--b",
            "/",
            "/a%2Fb%2Fc",
        ] {
            assert_eq!(read(none), [], "{none}");
        }
    }

    #[test]
    fn unquoted_revisions_are_the_longest_ref() {
        let oid = GitOid::from_bytes([1; 20]);
        let refs: BTreeMap<String, GitOid> = [
            "refs/heads/main",
            "refs/heads/feature/x",
            "refs/tags/feature/x/y",
            "refs/pr/1",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), oid))
        .collect();
        let longest = |path: &str| longest_ref(&refs, &url::segments(path).unwrap());
        let some = |name: &str, length| Some((name.to_owned(), length));
        assert_eq!(longest("feature/x/file"), some("feature/x", 2));
        assert_eq!(longest("feature/x/y/file"), some("feature/x/y", 3));
        assert_eq!(longest("refs/pr/1/a/b"), some("refs/pr/1", 3));
        assert_eq!(longest("refs/heads/main/a"), some("refs/heads/main", 3));
        assert_eq!(
            longest("feature%2Fx/file"),
            None,
            "one segment is tried before"
        );
        assert_eq!(longest("other/x"), None);
    }

    #[test]
    fn paths_never_leave_the_repository() {
        for (path, expected) in [
            ("", Some("")),
            ("a/b", Some("a/b")),
            ("/a/", Some("a")),
            ("..", None),
            ("a/../b", None),
            ("a//b", None),
            ("./a", None),
            ("a\0b", None),
        ] {
            assert_eq!(checked_path(path).as_deref(), expected, "{path}");
        }
        assert_eq!(checked_path(&"a/".repeat(40)), None);
    }

    #[test]
    fn moved_requests_keep_what_follows_the_id() {
        let segments = url::segments("/resolve/refs%2Fpr%2F1/a%20b").unwrap();
        assert_eq!(
            moved("/datasets/", "n/new", &segments, Some("download=true")),
            "/datasets/n/new/resolve/refs%2Fpr%2F1/a%20b?download=true"
        );
    }
}
