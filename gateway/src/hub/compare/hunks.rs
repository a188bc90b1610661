//! The hunks of a unified diff, as git writes them.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Instant;

use similar::{Algorithm, DiffOp, TextDiff};

/// Lines shown before and after what changed.
const CONTEXT: usize = 3;
/// Bytes shown of the line that a hunk's place is known by.
const HEADING_BYTES_MAX: usize = 80;

/// Writes what makes the new text of the old one; nothing where they are the same. After the deadline more
/// is shown as changed than has to be.
pub(super) fn write(out: &mut String, old: &str, new: &str, deadline: Instant) {
    let (old, new) = (lines(old), lines(new));
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Myers)
        .deadline(deadline)
        .diff_slices(&old, &new);
    let mut heading = Heading::default();
    for group in diff.grouped_ops(CONTEXT) {
        write_group(out, &old, &new, &group, &mut heading);
    }
}

/// Lines with their ends, of which git knows one.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn write_group(
    out: &mut String,
    old: &[&str],
    new: &[&str],
    group: &[DiffOp],
    heading: &mut Heading,
) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return;
    };
    let olds = first.old_range().start..last.old_range().end;
    out.push_str("@@ -");
    write_range(out, &olds);
    out.push_str(" +");
    write_range(out, &(first.new_range().start..last.new_range().end));
    out.push_str(" @@");
    if let Some(line) = heading.above(old, olds.start) {
        out.push(' ');
        out.push_str(line);
    }
    out.push('\n');
    for op in group {
        if let DiffOp::Equal { .. } = op {
            write_lines(out, ' ', old, op.old_range());
        } else {
            write_lines(out, '-', old, op.old_range());
            write_lines(out, '+', new, op.new_range());
        }
    }
}

/// Lines are counted from 1; an empty range names the line before it.
fn write_range(out: &mut String, lines: &Range<usize>) {
    let start = lines.start + usize::from(!lines.is_empty());
    // Writing to a String can't fail.
    let _ = match lines.len() {
        1 => write!(out, "{start}"),
        count => write!(out, "{start},{count}"),
    };
}

fn write_lines(out: &mut String, sign: char, lines: &[&str], range: Range<usize>) {
    for line in &lines[range] {
        out.push(sign);
        out.push_str(line);
        if !line.ends_with('\n') {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// The last line above a hunk that begins with a letter, `_` or `$`: git's guess at where it is.
#[derive(Default)]
struct Heading {
    line: Option<usize>,
    looked_at: usize,
}

impl Heading {
    fn above<'a>(&mut self, old: &[&'a str], start: usize) -> Option<&'a str> {
        let is_one = |line: &&str| {
            line.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
        };
        let looked_at = std::mem::replace(&mut self.looked_at, start);
        let found = old[looked_at..self.looked_at].iter().rposition(is_one);
        self.line = found.map(|at| looked_at + at).or(self.line);
        let line = old[self.line?];
        let shown = &line[..line.floor_char_boundary(HEADING_BYTES_MAX)];
        Some(shown.trim_end_matches([' ', '\t', '\n', '\r']))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn hunks(old: &str, new: &str) -> String {
        let mut out = String::new();
        let deadline = Instant::now() + Duration::from_mins(1);
        write(&mut out, old, new, deadline);
        out
    }

    /// The new text, made of the old one and the hunks as a reader of them does.
    fn applied(old: &str, hunks: &str) -> String {
        let olds: Vec<&str> = old.split_inclusive('\n').collect();
        let (mut new, mut at) = (String::new(), 0);
        for line in hunks.split_inclusive('\n') {
            let (sign, text) = line.split_at(1);
            match sign {
                "@" => {
                    let range = text.split(['-', ' ', '+']).nth(2).unwrap();
                    let (start, count) = range.split_once(',').unwrap_or((range, "1"));
                    let start: usize = start.parse().unwrap();
                    let start = start - usize::from(count != "0");
                    new.extend(olds[at..start].iter().copied());
                    at = start;
                }
                "\\" => {
                    new.truncate(new.trim_end_matches('\n').len());
                }
                "+" => new.push_str(text),
                sign => {
                    let whole = olds[at].trim_end_matches('\n') == text.trim_end_matches('\n');
                    assert!(whole, "{text:?} is not line {at}");
                    at += 1;
                    if sign == " " {
                        new.push_str(olds[at - 1]);
                    }
                }
            }
        }
        new.extend(olds[at..].iter().copied());
        new
    }

    #[test]
    fn hunks_have_context_and_a_heading() {
        let lines: Vec<String> = (0..30).map(|n| format!(" {n}\n")).collect();
        let old = format!("heading one \n{}", lines.concat());
        let new = old
            .replace(" 9\n", " nine\n")
            .replace(" 16\n", "")
            .replace(" 29\n", " 29");
        assert_eq!(
            hunks(&old, &new),
            "@@ -8,14 +8,13 @@ heading one\n  6\n  7\n  8\n- 9\n+ nine\n  10\n  11\n  12\n  13\n  14\n  15\n- 16\n  17\n  18\n  19\n\
             @@ -28,4 +27,4 @@ heading one\n  26\n  27\n  28\n- 29\n+ 29\n\\ No newline at end of file\n"
        );
    }

    #[test]
    fn empty_texts_have_no_lines() {
        assert_eq!(hunks("", ""), "");
        assert_eq!(hunks("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(hunks("a\nb\n", ""), "@@ -1,2 +0,0 @@\n-a\n-b\n");
    }

    proptest! {
        #[test]
        fn a_reader_makes_the_new_text_of_them(
            old in "([a-c ]{0,2}\n){0,40}[a-b]{0,1}",
            new in "([a-c ]{0,2}\n){0,40}[a-b]{0,1}",
        ) {
            // Ends of lines apart, which this reader takes as they are in the old text.
            let (old, new) = (format!("{}\n", old.trim_end()), format!("{}\n", new.trim_end()));
            prop_assert_eq!(applied(&old, &hunks(&old, &new)), new);
        }
    }
}
