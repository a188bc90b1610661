//! Cuts the YAML out of a `README.md`.

use bstr::ByteSlice;

use crate::card::CardWarning;
use crate::limits::CARD_BYTES_MAX;

/// The text between the two `---` lines, which begins on line 2; `None` where the file begins otherwise.
///
/// A byte order mark before the first line and CRLF at the end of lines are tolerated.
pub(super) fn cut(readme: &[u8]) -> Result<Option<&str>, CardWarning> {
    let text = readme.strip_prefix("\u{feff}".as_bytes()).unwrap_or(readme);
    let mut lines = text[..text.len().min(CARD_BYTES_MAX)].lines_with_terminator();
    let Some(first) = lines.next().filter(|line| is_fence(line)) else {
        return Ok(None);
    };
    let start = first.len();
    let mut end = start;
    for line in lines {
        if is_fence(line) {
            return utf8(&text[start..end]).map(Some);
        }
        end += line.len();
    }
    Err(CardWarning {
        line: 1,
        message: if text.len() > CARD_BYTES_MAX {
            format!("no `---` ends the front matter within {CARD_BYTES_MAX} bytes")
        } else {
            "no `---` ends the front matter that this one begins".to_owned()
        },
    })
}

fn is_fence(line: &[u8]) -> bool {
    line.trim_ascii_end() == b"---"
}

fn utf8(yaml: &[u8]) -> Result<&str, CardWarning> {
    std::str::from_utf8(yaml).map_err(|error| CardWarning {
        line: 2 + yaml[..error.valid_up_to()].find_iter("\n").count() as u64,
        message: "the front matter is not valid UTF-8".to_owned(),
    })
}

/// The line of the file for a line that a YAML parser counts, to which a lone CR ends one too.
pub(super) fn line_of_parser(yaml: &str, line: u64) -> u64 {
    let mut file_line = 2;
    let mut parser_line = 1;
    for (at, byte) in yaml.bytes().enumerate() {
        if parser_line >= line {
            break;
        }
        match byte {
            b'\n' => {
                file_line += 1;
                parser_line += 1;
            }
            b'\r' if yaml.as_bytes().get(at + 1) != Some(&b'\n') => parser_line += 1,
            _ => {}
        }
    }
    file_line
}

/// The line of the file on which a member of the outermost mapping stands, or where the YAML begins.
pub(super) fn line_of(yaml: &str, member: &str) -> u64 {
    let names_it = |line: &str| {
        let line = line.trim_start_matches(['"', '\'', '{', ' ']);
        let rest = line.strip_prefix(member);
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    let outermost = |line: &str| !line.starts_with(' ');
    let found = yaml
        .lines()
        .position(|line| outermost(line) && names_it(line));
    2 + found.unwrap_or(0) as u64
}
