//! What differs between two revisions: `/compare/{a}..{b}`, or from where they part: `/compare/{a}...{b}`.
//!
//! The answer is what `git diff --full-index --no-renames` prints, within bounds: where it is cut, its last
//! line says so. Texts that are only at peers are fetched as other small files are (see `files`).

mod hunks;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cairn_node::repos::{Bounds, Change, Repo, Side, Text};
use cairn_protocol::hash::GitOid;

use super::files::{Files, Reach};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::url::Segment;

/// Files that are shown; the answer is cut where more differ.
const FILES_MAX: usize = 1_000;
/// Bytes of either side of a file; a larger one is only said to differ, as a binary one is.
const SIDE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the answer; it is cut before the file that would make it larger.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Time in which the answer is made, fetched files included; it is cut before the next file.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Time in which the least that changed in one file is looked for; after it more is shown as changed.
const FILE_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes in which git looks for a zero, which no text has.
const SAMPLE_BYTES: usize = 8_000;

pub(super) fn revisions(
    gateway: &Gateway,
    repo: &Repo,
    segments: &[Segment<'_>],
    reach: &Reach,
) -> Result<Reply, ApiError> {
    let begin = Instant::now();
    let parts: Vec<&str> = segments.iter().map(|s| s.text.as_ref()).collect();
    let range = parts.join("/");
    // No name of a ref has two dots in a row, or begins with one.
    let (old, new) = range.split_once("..").ok_or_else(|| {
        ApiError::bad_request(format!("{range:?} does not name two revisions: A..B"))
    })?;
    let (new, from_base) = new
        .strip_prefix('.')
        .map_or((new, false), |new| (new, true));
    let (mut first, second) = (repo.commit(old)?, repo.commit(new)?);
    if from_base {
        let none = || ApiError::bad_request(format!("{old} and {new} have no commit in common"));
        first = first.merge_base(&second)?.ok_or_else(none)?;
    }
    let bounds = Bounds {
        files: FILES_MAX + 1,
        until: begin + TIME_MAX,
    };
    let changes = first.changes(&second, &bounds)?;
    let files = |commit| {
        Files::new(
            gateway.node(),
            gateway.facts().waits(),
            repo,
            commit,
            Some(reach),
        )
    };
    let mut sides = (files(&first), files(&second));
    let mut answer = String::new();
    let late = || format!("it took longer than {} seconds", TIME_MAX.as_secs());
    let mut cut = None;
    for (count, change) in changes.files.iter().enumerate() {
        if count >= FILES_MAX {
            cut = Some(format!("more than {FILES_MAX} files differ"));
        } else if begin.elapsed() > TIME_MAX {
            cut = Some(late());
        } else {
            let shown = show(change, &mut sides.0, &mut sides.1)?;
            if answer.len() + shown.len() <= ANSWER_BYTES_MAX {
                answer.push_str(&shown);
                continue;
            }
            cut = Some(format!("it is larger than {ANSWER_BYTES_MAX} bytes"));
        }
        break;
    }
    if let Some(cut) = cut.or_else(|| changes.is_late.then(late)) {
        // Writing to a String can't fail.
        let _ = writeln!(answer, "The answer is cut here: {cut}");
    }
    Ok(Reply::text(answer))
}

/// What git prints of one file.
fn show(change: &Change, olds: &mut Files<'_>, news: &mut Files<'_>) -> Result<String, ApiError> {
    let mut shown = String::new();
    let names = Names::of(change);
    write_head(&mut shown, change, &names);
    let oid = |side: &Option<Side>| side.as_ref().map(|side| side.oid);
    if oid(&change.old) != oid(&change.new) {
        write_body(&mut shown, change, &names, olds, news)?;
    }
    Ok(shown)
}

fn write_head(out: &mut String, change: &Change, names: &Names) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "diff --git {} {}", names.old, names.new);
    let mut same_mode = None;
    let _ = match (&change.old, &change.new) {
        (None, Some(new)) => writeln!(out, "new file mode {:06o}", new.mode),
        (Some(old), None) => writeln!(out, "deleted file mode {:06o}", old.mode),
        (Some(old), Some(new)) if old.mode != new.mode => {
            writeln!(out, "old mode {:06o}\nnew mode {:06o}", old.mode, new.mode)
        }
        (old, _) => {
            same_mode = old.as_ref().map(|old| old.mode);
            Ok(())
        }
    };
    let oid = |side: &Option<Side>| {
        let oid = side.as_ref().map(|side| side.oid);
        oid.unwrap_or(GitOid::from_bytes([0; 20])).to_hex()
    };
    let (old, new) = (oid(&change.old), oid(&change.new));
    if old != new {
        let mode = same_mode.map_or(String::new(), |mode| format!(" {mode:06o}"));
        let _ = writeln!(out, "index {old}..{new}{mode}");
    }
}

fn write_body(
    out: &mut String,
    change: &Change,
    names: &Names,
    olds: &mut Files<'_>,
    news: &mut Files<'_>,
) -> Result<(), ApiError> {
    let old_name = change
        .old
        .as_ref()
        .map_or("/dev/null", |_| names.old.as_str());
    let new_name = change
        .new
        .as_ref()
        .map_or("/dev/null", |_| names.new.as_str());
    let sides = [&change.old, &change.new];
    let texts = if sides.into_iter().flatten().any(is_large) {
        [Read::Binary, Read::Binary]
    } else {
        [
            read(change, change.old.as_ref(), olds)?,
            read(change, change.new.as_ref(), news)?,
        ]
    };
    // Writing to a String can't fail.
    let _ = match &texts {
        [Read::Text(old), Read::Text(new)] => {
            let mut hunks = String::new();
            hunks::write(&mut hunks, old, new, Instant::now() + FILE_TIME_MAX);
            if hunks.is_empty() {
                Ok(())
            } else {
                let (old, new) = (ended(old_name), ended(new_name));
                write!(out, "--- {old}\n+++ {new}\n{hunks}")
            }
        }
        [Read::Away, _] | [_, Read::Away] => {
            writeln!(
                out,
                "The content of {old_name} and {new_name} has not reached this node yet"
            )
        }
        _ => writeln!(out, "Binary files {old_name} and {new_name} differ"),
    };
    Ok(())
}

fn is_large(side: &Side) -> bool {
    matches!(&side.text, Text::File(file) if file.size > SIDE_BYTES_MAX)
}

/// One side of a file, as far as it can be shown.
enum Read {
    Text(String),
    Binary,
    Away,
}

fn read(change: &Change, side: Option<&Side>, files: &mut Files<'_>) -> Result<Read, ApiError> {
    let Some(side) = side else {
        return Ok(Read::Text(String::new()));
    };
    let bytes = match &side.text {
        Text::Here(bytes) => Some(bytes.to_vec()),
        Text::File(file) => {
            let path = String::from_utf8_lossy(&change.path).into_owned();
            let opened = files.open_file(path, side.oid, file)?;
            opened.and_then(|file| files.read_whole(&file))
        }
        Text::Unknown => None,
    };
    Ok(match bytes {
        None => Read::Away,
        Some(bytes) if bytes.iter().take(SAMPLE_BYTES).any(|byte| *byte == 0) => Read::Binary,
        Some(bytes) => String::from_utf8(bytes).map_or(Read::Binary, Read::Text),
    })
}

/// A file's two names, quoted as git quotes them.
struct Names {
    old: String,
    new: String,
}

impl Names {
    fn of(change: &Change) -> Self {
        let [old, new] = ["a/", "b/"].map(|side| quoted(&[side.as_bytes(), &change.path].concat()));
        Self { old, new }
    }
}

/// Some readers take the end of a name with spaces from a tab.
fn ended(name: &str) -> String {
    let end = if name.contains(' ') { "\t" } else { "" };
    format!("{name}{end}")
}

/// A path as it is, where it is printable ASCII; else in quotes, other bytes in octal.
fn quoted(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path {
        let escape = match byte {
            0x07 => 'a',
            0x08 => 'b',
            b'\t' => 't',
            b'\n' => 'n',
            0x0b => 'v',
            0x0c => 'f',
            b'\r' => 'r',
            b'"' => '"',
            b'\\' => '\\',
            b' '..=b'~' => {
                text.push(char::from(*byte));
                continue;
            }
            _ => {
                // Writing to a String can't fail.
                let _ = write!(text, "\\{byte:03o}");
                continue;
            }
        };
        text.extend(['\\', escape]);
    }
    if text.len() == path.len() {
        text
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_git_quotes_them() {
        for (path, expected) in [
            ("a/plain name", "a/plain name"),
            ("a/ö", "\"a/\\303\\266\""),
            ("a/\"\\\t\u{1}", "\"a/\\\"\\\\\\t\\001\""),
        ] {
            assert_eq!(quoted(path.as_bytes()), expected);
        }
        assert_eq!(ended("a/plain name"), "a/plain name\t");
        assert_eq!(ended("a/name"), "a/name");
    }
}
