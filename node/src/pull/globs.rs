//! Which files of a repository are meant: patterns as the hub's own clients read them.
//!
//! `*` stands for anything, `/` too; `?` for one character; `[…]` for one of a set; a pattern that ends in
//! `/` for everything below that folder. Nothing else has a meaning, so that a name can be given as it is.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::control::Failure;

/// Patterns of one request, at most; more are refused.
const PATTERNS_MAX: usize = 1_000;

/// What to take and what to leave out.
#[derive(Debug)]
pub(super) struct Globs {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Globs {
    /// Reads the patterns; without any to include, every file is.
    pub(super) fn new(include: &[String], exclude: &[String]) -> Result<Self, Failure> {
        if include.len() + exclude.len() > PATTERNS_MAX {
            return Err(Failure {
                error: format!("more than {PATTERNS_MAX} patterns"),
                causes: Vec::new(),
                hint: Some("`*` also stands for `/`: one pattern can name a whole folder".into()),
            });
        }
        Ok(Self {
            include: match include {
                [] => None,
                patterns => Some(set(patterns)?),
            },
            exclude: set(exclude)?,
        })
    }

    /// Whether a file is meant.
    pub(super) fn take(&self, path: &str) -> bool {
        let included = self.include.as_ref().is_none_or(|set| set.is_match(path));
        included && !self.exclude.is_match(path)
    }
}

fn set(patterns: &[String]) -> Result<GlobSet, Failure> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(&translate(pattern))
            .literal_separator(false)
            .backslash_escape(false)
            .build()
            .map_err(|error| refuse(pattern, &error))?;
        set.add(glob);
    }
    set.build()
        .map_err(|error| refuse(&patterns.join(" "), &error))
}

fn refuse(pattern: &str, error: &globset::Error) -> Failure {
    Failure {
        error: format!("{pattern:?} is no pattern: {}", error.kind()),
        causes: Vec::new(),
        hint: Some(
            "`*` stands for anything, `?` for one character, `[abc]` for one of a set".into(),
        ),
    }
}

/// Takes away what has a meaning only to the matcher: alternatives, and two stars for whole folders.
fn translate(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len() + 1);
    let mut in_set = false;
    let mut last = '\0';
    for c in pattern.chars() {
        match c {
            '{' | '}' if !in_set => text.extend(['[', c, ']']),
            '*' if !in_set && last == '*' => {}
            _ => text.push(c),
        }
        in_set = match c {
            '[' => true,
            ']' => false,
            _ => in_set,
        };
        last = c;
    }
    if pattern.ends_with('/') {
        text.push('*');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(include: &[&str], exclude: &[&str], path: &str) -> bool {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        Globs::new(&owned(include), &owned(exclude))
            .unwrap()
            .take(path)
    }

    #[test]
    fn patterns_mean_what_they_mean_to_the_hubs_clients() {
        for (pattern, path, expected) in [
            ("*.json", "config.json", true),
            ("*.json", "a/b/config.json", true),
            ("*.json", ".hidden.json", true),
            ("*.json", "config.jsonl", false),
            ("*.JSON", "config.json", false),
            ("onnx/", "onnx/model.onnx", true),
            ("onnx/", "onnx/a/b.bin", true),
            ("onnx/", "onnx", false),
            ("onnx", "onnx/model.onnx", false),
            ("a/**/b", "a/x/b", true),
            ("a/**/b", "a/b", false),
            ("**/b", "b", false),
            ("model-0000[12]-*", "model-00002-of-3", true),
            ("model-0000[!12]-*", "model-00002-of-3", false),
            ("?.txt", "a.txt", true),
            ("{a,b}.txt", "a.txt", false),
            ("{a,b}.txt", "{a,b}.txt", true),
        ] {
            assert_eq!(takes(&[pattern], &[], path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_left_out_goes_before_what_is_taken() {
        assert!(takes(&[], &[], "a"));
        assert!(takes(&["a", "b"], &["c"], "b"));
        assert!(!takes(&["*"], &["*.bin"], "x/y.bin"));
        assert!(!takes(&["a"], &[], "b"));
        let failure = Globs::new(&["[a".to_owned()], &[]).unwrap_err();
        assert!(
            failure.error.contains("\"[a\" is no pattern"),
            "{failure:?}"
        );
    }
}
