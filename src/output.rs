//! What is printed: data to stdout, messages to stderr, and the pieces that verbs build their text from.
//!
//! Names and texts come from model cards and from folders of others, so that control characters in them
//! never reach the terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde_json::Value;

use crate::failure::Failure;

/// Prints a value: as a line of JSON, or as the text that `render` makes of it.
pub(crate) fn print(
    value: &Value,
    json: bool,
    render: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    if json {
        data(&format!("{value}\n"))
    } else {
        data(&clean(&render(value)))
    }
}

/// Writes to stdout; a reader that has seen enough (`| head`) is no failure.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("write to stdout").into())
        }
        _ => Ok(()),
    }
}

/// Writes a message to stderr, where it can.
pub(crate) fn message(text: &str) {
    io::stderr()
        .lock()
        .write_all(clean(text).as_bytes())
        .unwrap_or_default();
}

/// The text without control characters other than line breaks.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Text of a member, `-` where there is none.
pub(crate) fn text(value: &Value, member: &str) -> String {
    match &value[member] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            })
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

/// Number of a member, 0 where there is none.
pub(crate) fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or(0)
}

/// Whether a member says yes.
pub(crate) fn flag(value: &Value, member: &str) -> bool {
    value[member].as_bool().unwrap_or(false)
}

/// Elements of a member, none where there is none.
pub(crate) fn items<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().map_or(&[], Vec::as_slice)
}

/// `12.3 MiB`.
pub(crate) fn bytes(value: &Value, member: &str) -> String {
    value[member]
        .as_u64()
        .map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

/// `1 file`, `1,200 files`, `3 repositories`.
pub(crate) fn count(number: u64, one: &str) -> String {
    let many = match one.strip_suffix('y') {
        _ if number == 1 => one.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    format!("{} {many}", HumanCount(number))
}

/// `(12 ms, 1.20 GiB/s)`: time that something took, and its rate where that means anything.
pub(crate) fn speed(value: &Value, bytes: &str) -> String {
    let seconds = value["seconds"].as_f64().unwrap_or(0.0).max(0.0);
    pace(value[bytes].as_u64().unwrap_or(0), seconds)
}

/// `12 ms`, or `1.2 s, 85 MiB/s` where a rate means anything.
pub(crate) fn pace(bytes: u64, seconds: f64) -> String {
    let time = if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    };
    if seconds < 0.001 || bytes < 1 << 16 {
        return time;
    }
    #[allow(clippy::cast_precision_loss, reason = "it is shown with few digits")]
    let rate = bytes as f64 / seconds / 1_048_576.0;
    let digits = usize::from(rate < 10.0);
    format!("{time}, {rate:.digits$} MiB/s")
}

/// `3 minutes ago`, for seconds since the Unix epoch.
pub(crate) fn age(value: &Value, member: &str) -> String {
    let Some(then) = value[member].as_u64() else {
        return "-".to_owned();
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    match now.saturating_sub(then) {
        0 => "now".to_owned(),
        seconds => format!("{} ago", HumanDuration(Duration::from_secs(seconds))),
    }
}

/// Lines of `name  value`, values aligned.
pub(crate) fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        writeln!(text, "{name:width$}  {value}")
            .expect("invariant: writing to a string never fails");
    }
    text
}

/// Aligned columns under a line of titles.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = titles.iter().map(|title| title.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&mut titles.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(
            clean("a\x1b[31mb\r\nc\u{9b}d"),
            "a\u{fffd}[31mb\u{fffd}\nc\u{fffd}d"
        );
    }

    #[test]
    fn columns_line_up() {
        let text = table(
            &["REPO", "SIZE"],
            &[
                vec!["local/é".into(), "1 B".into()],
                vec!["a".into(), "-".into()],
            ],
        );
        assert_eq!(text, "REPO     SIZE\nlocal/é  1 B\na        -\n");
    }

    #[test]
    fn counts_and_members_read_as_words() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(1_200, "file"), "1,200 files");
        assert_eq!(count(0, "repository"), "0 repositories");
        let value = json!({"a": null, "b": ["x", "y"], "c": 3, "seconds": 2.0, "bytes": 4 << 20});
        assert_eq!(text(&value, "a"), "-");
        assert_eq!(text(&value, "b"), "x, y");
        assert_eq!(text(&value, "c"), "3");
        assert_eq!(speed(&value, "bytes"), "2.0 s, 2.0 MiB/s");
        assert_eq!(speed(&json!({"seconds": 0.012}), "bytes"), "12 ms");
    }
}
