//! Values of content headers: types, file names, entity tags.

use axum::http::HeaderValue;
use axum::http::header::{HeaderMap, IF_NONE_MATCH, IF_RANGE};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What RFC 8187 wants quoted in an extended value.
const EXTENDED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}');

/// A type by the file's extension; never one that a browser would run, whatever the file says.
pub(super) fn content_type(path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = match name.rsplit_once('.') {
        Some((_, extension)) => extension.to_ascii_lowercase(),
        None => String::new(),
    };
    HeaderValue::from_static(match extension.as_str() {
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "csv" => "text/csv; charset=utf-8",
        "txt" | "md" | "py" | "yaml" | "yml" | "toml" | "ini" | "cfg" | "sh" | "rs" | "c" | "h"
        | "cpp" | "cu" | "js" | "ts" | "css" | "html" | "htm" | "xhtml" | "xml" | "svg"
        | "jinja" | "tsv" | "log" | "tex" | "ipynb" | "gitattributes" | "gitignore" => {
            "text/plain; charset=utf-8"
        }
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "flac" => "audio/flac",
        "ogg" => "audio/ogg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        _ if matches!(name, "LICENSE" | "README" | "NOTICE") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    })
}

/// `Content-Disposition` with the file's name, for old readers and for all.
pub(super) fn disposition(kind: &str, path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String = name
        .chars()
        .map(|c| match c {
            '"' | '\\' => '_',
            ' '..='~' => c,
            _ => '_',
        })
        .collect();
    let extended = utf8_percent_encode(name, EXTENDED);
    let value = format!("{kind}; filename*=UTF-8''{extended}; filename=\"{plain}\";");
    HeaderValue::try_from(value).expect("invariant: printable ASCII is a header value")
}

/// Whether a client's copy is the current one (`If-None-Match`, compared weakly).
pub(super) fn is_unchanged(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Whether a range may be taken (`If-Range`, compared strongly; a date never fits, we send none).
pub(super) fn is_range_valid(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get(IF_RANGE)
        .is_none_or(|value| value.as_bytes() == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_type_that_browsers_run() {
        for path in ["a.html", "b/c.HTM", "x.svg", "x.js", "x.xml", "x.xhtml"] {
            assert_eq!(content_type(path), "text/plain; charset=utf-8", "{path}");
        }
        assert_eq!(content_type("dir.html/model"), "application/octet-stream");
        assert_eq!(content_type("config.json"), "application/json");
        assert_eq!(content_type(".gitattributes"), "text/plain; charset=utf-8");
    }

    #[test]
    fn names_are_quoted_for_old_and_new_readers() {
        assert_eq!(
            disposition("inline", "d/model.bin"),
            "inline; filename*=UTF-8''model.bin; filename=\"model.bin\";"
        );
        assert_eq!(
            disposition("attachment", "d/ü \"x\";\r\n.txt"),
            "attachment; filename*=UTF-8''%C3%BC%20%22x%22%3B%0D%0A.txt; filename=\"_ _x_;__.txt\";"
        );
    }

    #[test]
    fn entity_tags_compare_as_the_rfc_says() {
        let with = |name, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        let etag = "\"abc\"";
        for fresh in ["\"abc\"", "W/\"abc\"", "*", "\"x\", \"abc\""] {
            assert!(is_unchanged(&with(IF_NONE_MATCH, fresh), etag), "{fresh}");
        }
        for stale in ["\"x\"", "abc", ""] {
            assert!(!is_unchanged(&with(IF_NONE_MATCH, stale), etag), "{stale}");
        }
        assert!(is_range_valid(&HeaderMap::new(), etag));
        assert!(is_range_valid(&with(IF_RANGE, "\"abc\""), etag));
        for other in ["W/\"abc\"", "\"x\"", "Sat, 21 Nov 2026 08:30:00 GMT"] {
            assert!(!is_range_valid(&with(IF_RANGE, other), etag), "{other}");
        }
    }
}
