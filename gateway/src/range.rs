//! Byte ranges of RFC 9110, as far as the hub's clients use them: one part of a file.
//!
//! What is malformed, or asks for several parts, is ignored and answered by the whole file, as the RFC
//! allows. Numbers of any length are taken; those past 64 bits mean "past the end".

use std::ops::Range;

/// What of a file an answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it (200).
    Whole,
    /// These bytes, at least one, all within the file (206).
    Part(Range<u64>),
    /// The same, of a request that names no end: from an offset to the end of the file.
    Rest(Range<u64>),
    /// The range begins past the end, or is empty (416).
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes.
pub fn select(header: &[u8], size: u64) -> Selection {
    match std::str::from_utf8(header).ok().and_then(parse) {
        None => Selection::Whole,
        Some(Asked::From(first, last)) => {
            if first >= size {
                return Selection::Unsatisfiable;
            }
            match last {
                Some(last) => Selection::Part(first..last.saturating_add(1).min(size)),
                None => Selection::Rest(first..size),
            }
        }
        Some(Asked::Last(count)) => {
            if count == 0 || size == 0 {
                return Selection::Unsatisfiable;
            }
            Selection::Part(size.saturating_sub(count)..size)
        }
    }
}

/// A well-formed range of bytes.
enum Asked {
    /// From an offset, to the end or to an offset (included).
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

fn parse(header: &str) -> Option<Asked> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // A list with empty members is a list of the others; one of several members is ignored.
    let mut specs = set
        .split(',')
        .map(|spec| spec.trim_matches([' ', '\t']))
        .filter(|spec| !spec.is_empty());
    let spec = specs.next()?;
    if specs.next().is_some() {
        return None;
    }
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        return number(last).map(Asked::Last);
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(Asked::From(first, None));
    }
    let last = number(last)?;
    (first <= last).then_some(Asked::From(first, Some(last)))
}

/// Decimal digits of any count.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_headers_are_ignored_or_unsatisfiable_never_wrong() {
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=,",
            "bytes=a-b",
            "bytes=5-3",
            "bytes=--5",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes 0-1",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0 -1",
        ] {
            assert_eq!(
                select(ignored.as_bytes(), 10),
                Selection::Whole,
                "{ignored}"
            );
        }
        assert_eq!(select(b"bytes=\xff-1", 10), Selection::Whole);
        let huge = "9".repeat(40);
        for (header, expected) in [
            ("bytes=0-0", Selection::Part(0..1)),
            ("BYTES = 2-3", Selection::Part(2..4)),
            ("bytes=,2-3,", Selection::Part(2..4)),
            ("bytes=9-", Selection::Rest(9..10)),
            ("bytes=0-100000", Selection::Part(0..10)),
            ("bytes=-3", Selection::Part(7..10)),
            ("bytes=-30", Selection::Part(0..10)),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=10-", Selection::Unsatisfiable),
            (&format!("bytes=3-{huge}"), Selection::Part(3..10)),
            (&format!("bytes=-{huge}"), Selection::Part(0..10)),
            (&format!("bytes={huge}-"), Selection::Unsatisfiable),
            ("bytes=0-18446744073709551615", Selection::Part(0..10)),
        ] {
            assert_eq!(select(header.as_bytes(), 10), expected, "{header}");
        }
        assert_eq!(select(b"bytes=0-0", 0), Selection::Unsatisfiable);
        assert_eq!(select(b"bytes=-1", 0), Selection::Unsatisfiable);
    }

    proptest! {
        /// The bytes selected are those whose index lies in what the header says, counted one by one.
        #[test]
        fn selects_what_a_naive_model_selects(
            size in 0_u64..200,
            first in proptest::option::of(0_u64..300),
            last in proptest::option::of(0_u64..300),
        ) {
            let text = |number: Option<u64>| number.map_or(String::new(), |n| n.to_string());
            let header = format!("bytes={}-{}", text(first), text(last));
            let wanted: Vec<u64> = (0..size)
                .filter(|index| match (first, last) {
                    (Some(first), Some(last)) => (first..=last).contains(index),
                    (Some(first), None) => *index >= first,
                    (None, Some(count)) => size - index <= count,
                    (None, None) => true,
                })
                .collect();
            let malformed = match (first, last) {
                (None, None) => true,
                (Some(first), Some(last)) => first > last,
                _ => false,
            };
            let expected = match (wanted.first(), wanted.last()) {
                _ if malformed => Selection::Whole,
                (Some(start), Some(end)) if first.is_some() && last.is_none() => {
                    Selection::Rest(*start..end + 1)
                }
                (Some(start), Some(end)) => Selection::Part(*start..end + 1),
                _ => Selection::Unsatisfiable,
            };
            prop_assert_eq!(select(header.as_bytes(), size), expected);
        }

        #[test]
        fn any_header_selects_within_the_file(header in ".{0,40}", size: u64) {
            if let Selection::Part(part) | Selection::Rest(part) = select(header.as_bytes(), size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
