//! URLs as they come: paths cut into segments, queries into pairs; and as they go: absolute links.
//!
//! Segments are cut before they are decoded, since `a%2Fb` is one segment of a hub path and `a/b` two.

use std::borrow::Cow;

use axum::http::Uri;
use axum::http::header::{HOST, HeaderMap};
use axum::http::uri::Authority;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::config::Config;
use crate::error::ApiError;

/// What stands unquoted in a path segment or a query value.
const UNQUOTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Pairs of a query or form; more are refused.
const PAIRS_MAX: usize = 20_100;

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    /// As it stood in the URL.
    pub(crate) raw: &'a str,
    /// Unquoted; may hold slashes.
    pub(crate) text: Cow<'a, str>,
}

/// Cuts a path into its segments; empty ones (doubled slashes, one at the end) are left out.
///
/// # Errors
/// A `%` without two hex digits, bytes that are not UTF-8, NUL.
pub(crate) fn segments(path: &str) -> Result<Vec<Segment<'_>>, ApiError> {
    path.split('/')
        .filter(|raw| !raw.is_empty())
        .map(|raw| {
            Ok(Segment {
                raw,
                text: unquote(raw)?,
            })
        })
        .collect()
}

fn unquote(raw: &str) -> Result<Cow<'_, str>, ApiError> {
    let quoted_well = raw
        .split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if !quoted_well {
        return Err(ApiError::bad_request(
            "The URL has a % without two hex digits",
        ));
    }
    let text = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| ApiError::bad_request("The URL is not UTF-8"))?;
    if text.contains('\0') {
        return Err(ApiError::bad_request("The URL has a NUL"));
    }
    Ok(text)
}

/// Quotes one segment or value.
pub(crate) fn quote(text: &str) -> String {
    utf8_percent_encode(text, UNQUOTED).to_string()
}

/// The pairs of a query or form, in their order; `name[]` counts as `name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// # Errors
    /// More than [`PAIRS_MAX`] pairs.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, ApiError> {
        let pairs: Vec<_> = form_urlencoded::parse(text)
            .take(PAIRS_MAX + 1)
            .map(|(name, value)| {
                let name = name.trim_end_matches("[]").to_owned();
                (name, value.into_owned())
            })
            .collect();
        if pairs.len() > PAIRS_MAX {
            let message = format!("More than {PAIRS_MAX} parameters");
            return Err(ApiError::bad_request(message));
        }
        Ok(Self(pairs))
    }

    /// The first value of a name.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a name stands for yes: `true`, `True`, `1`, or no value at all.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| {
            value.is_empty() || value == "1" || value.eq_ignore_ascii_case("true")
        })
    }

    /// A whole number, where there is one.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.first(name)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| ApiError::bad_request(format!("{name:?} must be a whole number")))
            })
            .transpose()
    }

    /// These pairs as a query, with one name's values replaced by another one.
    fn with(&self, name: &str, value: &str) -> String {
        let mut query = String::new();
        let kept = self.0.iter().filter(|(key, _)| key != name);
        let changed = (name.to_owned(), value.to_owned());
        for (key, value) in kept.chain([&changed]) {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(&quote(key));
            query.push('=');
            query.push_str(&quote(value));
        }
        query
    }
}

/// Where a request was sent, for links in its answer.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Scheme and host, without a slash at the end.
    base: String,
    /// The path as it came.
    path: String,
    /// The query's pairs.
    pub(crate) query: Pairs,
}

impl Asked {
    pub(crate) fn new(uri: &Uri, headers: &HeaderMap, config: &Config) -> Result<Self, ApiError> {
        let public_url = config.public_url.as_deref();
        Ok(Self {
            base: base(uri, headers, public_url, config.tls.is_some()),
            path: uri.path().to_owned(),
            query: Pairs::parse(uri.query().unwrap_or_default().as_bytes())?,
        })
    }

    /// A path of this gateway as an absolute URL.
    pub(crate) fn absolute(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The same with another revision, which stands as `count` segments before the last `after` ones.
    pub(crate) fn with_revision(&self, revision: &str, count: usize, after: usize) -> Self {
        let segments: Vec<_> = self.path.split('/').filter(|raw| !raw.is_empty()).collect();
        let end = segments.len().saturating_sub(after);
        let start = end.saturating_sub(count);
        let path = [&segments[..start], &[revision], &segments[end..]].concat();
        Self {
            path: format!("/{}", path.join("/")),
            ..self.clone()
        }
    }

    /// A `Link` value to the page of this request that a changed parameter gives.
    pub(crate) fn next_page(&self, name: &str, value: &str) -> String {
        let query = self.query.with(name, value);
        format!("<{}{}{query}>; rel=\"next\"", self.base, self.path)
    }
}

/// The root URL that the client used, as far as it can be known.
///
/// Host names come from the request and go back to nobody but the one who sent it; what isn't a host
/// name is passed over.
fn base(uri: &Uri, headers: &HeaderMap, public_url: Option<&str>, has_tls: bool) -> String {
    if let Some(url) = public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let header = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        Some(value.split(',').next()?.trim())
    };
    let scheme = header("x-forwarded-proto")
        .filter(|scheme| !has_tls && matches!(*scheme, "http" | "https"))
        .unwrap_or(if has_tls { "https" } else { "http" });
    let host = header("x-forwarded-host")
        .and_then(authority)
        .or_else(|| header(HOST.as_str()).and_then(authority))
        .or_else(|| {
            uri.authority()
                .map(ToString::to_string)
                .and_then(|text| authority(&text))
        })
        .unwrap_or_else(|| "localhost".to_owned());
    format!("{scheme}://{host}")
}

/// A host with an optional port, and nothing else.
fn authority(text: &str) -> Option<String> {
    let parsed: Authority = text.parse().ok()?;
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    parsed
        .as_str()
        .bytes()
        .all(plain)
        .then(|| parsed.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn public(url: &str) -> Config {
        Config {
            public_url: Some(url.to_owned()),
            ..Config::default()
        }
    }

    fn texts(path: &str) -> Option<Vec<String>> {
        let segments = segments(path).ok()?;
        Some(segments.into_iter().map(|s| s.text.into_owned()).collect())
    }

    #[test]
    fn paths_are_cut_before_they_are_decoded() {
        let expected = ["datasets", "a", "refs/pr/1", "ü b"].map(str::to_owned);
        assert_eq!(
            texts("//datasets/a//refs%2Fpr%2F1/%C3%BC%20b/").as_deref(),
            Some(&expected[..])
        );
        for bad in ["/a%", "/a%2", "/%zz", "/%ff", "/a%00b", "/%c3", "/%+1"] {
            assert_eq!(texts(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn quoted_segments_come_back(text in "[^\0]{1,40}") {
            let path = format!("/{}", quote(&text));
            prop_assert_eq!(texts(&path), Some(vec![text]));
        }

        #[test]
        fn any_path_is_cut_or_refused(path in "(/|%|[0-9a-f]|.){0,60}") {
            drop(texts(&path));
        }

        #[test]
        fn next_links_keep_every_parameter(
            pairs in proptest::collection::vec(("[a-z\\[\\]&=ü]{1,5}", ".{0,8}"), 0..5),
            cursor in ".{0,20}",
        ) {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&pairs)
                .finish();
            let uri: Uri = format!("/api/models?{query}").parse().unwrap();
            let asked = Asked::new(&uri, &HeaderMap::new(), &public("https://hub.example.org/")).unwrap();
            let link = asked.next_page("cursor", &cursor);
            let url = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
            let query = url.strip_prefix("https://hub.example.org/api/models?").unwrap();
            let again = Pairs::parse(query.as_bytes()).unwrap();
            prop_assert_eq!(again.first("cursor"), Some(cursor.as_str()));
            let kept = |pairs: &Pairs| {
                pairs.0.iter().filter(|(name, _)| name != "cursor").cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(kept(&again), kept(&asked.query));
        }
    }

    #[test]
    fn a_revision_is_replaced_where_it_stands() {
        let asked = |path: &str| {
            let uri = path.parse().unwrap();
            Asked::new(&uri, &HeaderMap::new(), &public("http://h")).unwrap()
        };
        for (path, count, after, expected) in [
            ("/api/models/a/b/tree/main", 1, 0, "/api/models/a/b/tree/0f"),
            (
                "/api/models/a/b/tree/main/x%20y/z",
                1,
                2,
                "/api/models/a/b/tree/0f/x%20y/z",
            ),
            (
                "/api/models//b/tree/feature/x/y/",
                2,
                1,
                "/api/models/b/tree/0f/y",
            ),
        ] {
            let changed = asked(path).with_revision("0f", count, after);
            assert_eq!(changed.path, expected, "{path}");
        }
    }

    #[test]
    fn pairs_have_a_bound() {
        assert!(Pairs::parse("a&".repeat(PAIRS_MAX).as_bytes()).is_ok());
        assert!(Pairs::parse("a&".repeat(PAIRS_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn links_name_the_host_that_was_asked() {
        let uri: Uri = "/api/models".parse().unwrap();
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect()
        };
        let with = |pairs| base(&uri, &headers(pairs), None, false);
        assert_eq!(with(&[("host", "localhost:8080")]), "http://localhost:8080");
        assert_eq!(with(&[("host", "[::1]:80")]), "http://[::1]:80");
        assert_eq!(
            with(&[
                ("host", "inner"),
                ("x-forwarded-host", "hub.example.org, inner"),
                ("x-forwarded-proto", "https"),
            ]),
            "https://hub.example.org"
        );
        assert_eq!(
            with(&[
                ("host", "good"),
                ("x-forwarded-host", "evil>;<x"),
                ("x-forwarded-proto", "js")
            ]),
            "http://good"
        );
        assert_eq!(with(&[("host", "user@evil")]), "http://localhost");
        let forwarded = headers(&[("host", "hub"), ("x-forwarded-proto", "http")]);
        assert_eq!(base(&uri, &forwarded, None, true), "https://hub");
    }
}
