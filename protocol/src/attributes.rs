//! Which files are LFS: decided as the hub's preupload does, since it fixes commit ids for ever.
//!
//! A file is LFS where `.gitattributes` says `filter=lfs` for its path, where it is larger than
//! `REGULAR_BYTES_MAX`, or where its first bytes hold a NUL (git's own test for binary content). Empty
//! files are always regular.
//!
//! Of all attributes only `filter` matters here, and the macros that may set it. Lines that git ignores
//! are ignored; `limits` says which others are.

use std::collections::{BTreeMap, HashMap};

use bstr::{BStr, ByteSlice};
use gix_attributes::StateRef;
use gix_attributes::parse::Kind;
use gix_glob::pattern::Mode;
use gix_glob::wildmatch;

use crate::limits::{
    ATTRIBUTES_BYTES_MAX, ATTRIBUTES_DOUBLE_STARS_MAX, ATTRIBUTES_LINE_BYTES_MAX,
    REGULAR_BYTES_MAX, SAMPLE_BYTES,
};
use crate::name::RepoKind;
use crate::path::RepoPath;

/// How a file is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// As a git blob.
    Regular,
    /// As content of its own, with a pointer in git.
    Lfs,
}

/// The `.gitattributes` files of one commit.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// Lines by the folder that they stand in, in their order.
    folders: BTreeMap<String, Vec<Line>>,
    /// What each macro sets; only the file at the root can define them.
    macros: HashMap<Box<str>, Vec<Setting>>,
}

/// One line: what it sets for the paths that it matches.
#[derive(Debug, Clone)]
struct Line {
    pattern: gix_glob::Pattern,
    settings: Vec<Setting>,
}

/// One attribute and what it is set to.
#[derive(Debug, Clone)]
struct Setting {
    name: Box<str>,
    state: State,
}

/// As much of an attribute's state as decides over macros and LFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Set: a macro of this name applies.
    Set,
    /// Has the value `lfs`.
    Lfs,
    /// Unset, unspecified, or has another value.
    Other,
}

impl Attributes {
    /// Reads the `.gitattributes` file at the repository's root.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut attributes = Self::default();
        attributes.add("", bytes);
        attributes
    }

    /// Adds the `.gitattributes` file of a folder (`""` is the root, `a/b` one below), in any order.
    ///
    /// A second file of one folder takes the place of the first.
    pub fn add(&mut self, folder: &str, bytes: &[u8]) {
        if folder.is_empty() {
            self.macros.clear();
        }
        let mut lines = Vec::new();
        let text = without_long_lines(bytes);
        for (kind, assignments, _) in gix_attributes::parse(&text).filter_map(Result::ok) {
            let settings = assignments.map(|assignment| assignment.map(Setting::from));
            let Ok(settings) = settings.collect::<Result<Vec<_>, _>>() else {
                continue;
            };
            match kind {
                Kind::Macro(name) if folder.is_empty() => {
                    self.macros.insert(name.as_str().into(), settings);
                }
                Kind::Pattern(pattern) if double_stars(&pattern) <= ATTRIBUTES_DOUBLE_STARS_MAX => {
                    lines.push(Line { pattern, settings });
                }
                Kind::Macro(_) | Kind::Pattern(_) => {}
            }
        }
        self.folders.insert(folder.to_owned(), lines);
    }

    /// Whether git would give this path to the LFS filter.
    pub fn is_lfs(&self, path: &RepoPath) -> bool {
        let path = path.as_str();
        let mut decided = HashMap::new();
        // The nearest folder decides first, and in it the last line.
        let folders = path.rmatch_indices('/').map(|(at, _)| at);
        for at in folders.map(Some).chain([None]) {
            let (folder, rest) = at.map_or(("", path), |at| (&path[..at], &path[at + 1..]));
            let lines = self.folders.get(folder).map_or(&[][..], Vec::as_slice);
            for line in lines.iter().rev() {
                if line.matches(rest.into()) {
                    self.decide(&line.settings, &mut decided);
                }
                if let Some(state) = decided.get("filter") {
                    return *state == State::Lfs;
                }
            }
        }
        false
    }

    /// Takes over what is not decided yet: the last setting of a line first, and a macro's settings as
    /// soon as it is set.
    fn decide<'a>(&'a self, settings: &'a [Setting], decided: &mut HashMap<&'a str, State>) {
        let mut waiting: Vec<&Setting> = settings.iter().collect();
        while let Some(Setting { name, state }) = waiting.pop() {
            let expansion = self.macros.get(name);
            let matters = &**name == "filter" || expansion.is_some();
            if !matters || decided.contains_key(&**name) {
                continue;
            }
            decided.insert(name, *state);
            if *state == State::Set {
                waiting.extend(expansion.into_iter().flatten());
            }
        }
    }
}

impl From<gix_attributes::AssignmentRef<'_>> for Setting {
    fn from(assignment: gix_attributes::AssignmentRef<'_>) -> Self {
        Self {
            name: assignment.name.as_str().into(),
            state: match assignment.state {
                StateRef::Set => State::Set,
                StateRef::Value(value) if value.as_bstr() == "lfs" => State::Lfs,
                StateRef::Value(_) | StateRef::Unset | StateRef::Unspecified => State::Other,
            },
        }
    }
}

impl Line {
    /// Whether the pattern matches this path, which begins in the folder that the line stands in.
    ///
    /// As git does it, which compares what stands before the first wildcard by itself: what is left of
    /// `a**` is then `**`, which crosses folders.
    fn matches(&self, path: &BStr) -> bool {
        let gix_glob::Pattern {
            text,
            mode,
            first_wildcard_pos,
        } = &self.pattern;
        if mode.contains(Mode::MUST_BE_DIR) {
            return false;
        }
        if mode.contains(Mode::NO_SUB_DIR) && !mode.contains(Mode::ABSOLUTE) {
            let start = path.rfind_byte(b'/').map_or(0, |at| at + 1);
            return self
                .pattern
                .matches(path[start..].into(), wildmatch::Mode::empty());
        }
        let (literal, glob) = text.split_at(first_wildcard_pos.unwrap_or(text.len()));
        let across = wildmatch::Mode::NO_MATCH_SLASH_LITERAL;
        path.strip_prefix(literal).is_some_and(|rest| match glob {
            [] => rest.is_empty(),
            glob => gix_glob::wildmatch(glob.into(), rest.into(), across),
        })
    }
}

/// The text without what `limits` leaves out.
fn without_long_lines(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().min(ATTRIBUTES_BYTES_MAX));
    for line in bytes.lines_with_terminator() {
        if text.len() + line.len() > ATTRIBUTES_BYTES_MAX {
            break;
        }
        if line.trim_end_with(|c| c == '\n').len() < ATTRIBUTES_LINE_BYTES_MAX {
            text.extend_from_slice(line);
        }
    }
    text
}

/// Runs of two stars or more.
fn double_stars(pattern: &gix_glob::Pattern) -> usize {
    let runs = pattern.text.split(|byte| *byte != b'*');
    runs.filter(|run| run.len() > 1).count()
}

/// Decides for a file of `size` bytes; `sample` is its beginning, at least `SAMPLE_BYTES` where it has
/// as many.
pub fn decide(attributes: &Attributes, path: &RepoPath, size: u64, sample: &[u8]) -> Storage {
    let binary = || sample[..sample.len().min(SAMPLE_BYTES)].contains(&0);
    if size != 0 && (size > REGULAR_BYTES_MAX || binary() || attributes.is_lfs(path)) {
        Storage::Lfs
    } else {
        Storage::Regular
    }
}

/// The `.gitattributes` that is committed where a repository brings none: the hub's own, to the byte.
pub fn default_attributes(kind: RepoKind) -> &'static str {
    match kind {
        RepoKind::Model | RepoKind::Space => include_str!("attributes/model.txt"),
        RepoKind::Dataset => include_str!("attributes/dataset.txt"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{ObjectKind, object_oid};

    fn path(path: &str) -> RepoPath {
        path.parse().unwrap()
    }

    fn lfs(attributes: &str, of: &str) -> bool {
        Attributes::parse(attributes.as_bytes()).is_lfs(&path(of))
    }

    #[test]
    fn the_defaults_are_the_hubs_own_blobs() {
        // The ids and sizes that the hub shows for `.gitattributes` of fresh repositories.
        for (kind, oid, size) in [
            (
                RepoKind::Model,
                "a6344aac8c09253b3b630fb776ae94478aa0275b",
                1519,
            ),
            (
                RepoKind::Space,
                "a6344aac8c09253b3b630fb776ae94478aa0275b",
                1519,
            ),
            (
                RepoKind::Dataset,
                "1ef325f1b111266a6b26e0196871bd78baa8c2f3",
                2461,
            ),
        ] {
            let text = default_attributes(kind);
            assert_eq!(object_oid(ObjectKind::Blob, text.as_bytes()).to_hex(), oid);
            assert_eq!(text.len(), size);
        }
    }

    #[test]
    fn the_defaults_take_weights_and_leave_text() {
        let model = default_attributes(RepoKind::Model);
        for large in [
            "model.safetensors",
            "a/b/pytorch_model.bin",
            "x.tar.gz",
            "saved_model/a/b/c.txt",
            "saved_model/variables.txt",
            "runs/events.out.tfevents.123.host",
            "x.lfs.txt",
        ] {
            assert!(lfs(model, large), "{large}");
        }
        for small in [
            "config.json",
            "README.md",
            "saved_model.txt",
            "bin",
            "x.binary",
            "a.mp4",
        ] {
            assert!(!lfs(model, small), "{small}");
        }
        assert!(lfs(default_attributes(RepoKind::Dataset), "clips/a.mp4"));
    }

    #[test]
    fn the_nearest_file_and_its_last_line_decide() {
        let mut attributes = Attributes::default();
        attributes.add(
            "a/b",
            b"*.txt filter=lfs\nkeep.txt -filter\n/top.bin !filter\n",
        );
        attributes.add("", b"*.bin filter=lfs\na/b/x.txt -filter\n");
        for (of, expected) in [
            ("x.bin", true),
            ("a/b/x.txt", true),
            ("a/b/c/x.txt", true),
            ("a/b/keep.txt", false),
            ("a/b/top.bin", false),
            ("a/b/c/top.bin", true),
            ("a/x.txt", false),
            ("a/bb/x.txt", false),
        ] {
            assert_eq!(attributes.is_lfs(&path(of)), expected, "{of}");
        }
        attributes.add("a/b", b"");
        assert!(!attributes.is_lfs(&path("a/b/x.txt")));
    }

    #[test]
    fn macros_apply_where_they_are_set_and_are_defined_at_the_root_only() {
        let text = "[attr]large filter=lfs -text\n[attr]huge large\n*.a huge\n*.b large filter\n\
            *.c -large\n*.d filter=lfs\n*.d !filter\n";
        assert!(lfs(text, "x.a"));
        assert!(!lfs(text, "x.b"));
        assert!(!lfs(text, "x.c"));
        assert!(!lfs(text, "x.d"));
        let mut nested = Attributes::default();
        nested.add("d", b"[attr]large filter=lfs\n* large\n");
        assert!(!nested.is_lfs(&path("d/x")));
    }

    #[test]
    fn lines_that_git_ignores_are_ignored() {
        let long = format!(
            "x{} filter=lfs\n* -filter",
            " ".repeat(ATTRIBUTES_LINE_BYTES_MAX)
        );
        assert!(!lfs(&long, "x"));
        assert!(!lfs("!x filter=lfs", "x"));
        assert!(!lfs("x filter=lfs b@d", "x"));
        assert!(!lfs("x filter=lfs builtin_x", "x"));
        assert!(!lfs("# x filter=lfs", "x"));
        assert!(lfs("\u{feff}x filter=lfs\r\n", "x"));
        assert!(lfs("\"a b\" filter=lfs", "a b"));
    }

    #[test]
    fn patterns_that_take_exponential_time_have_no_effect() {
        let deep = vec!["a"; 31].join("/");
        assert!(!lfs(&format!("{}b filter=lfs", "**/a/".repeat(60)), &deep));
        assert!(!lfs(&format!("{}* filter=lfs", "**/".repeat(600)), &deep));
        assert!(lfs(&format!("{}* filter=lfs", "**/".repeat(4)), &deep));
    }

    #[test]
    fn size_and_content_decide_where_attributes_do_not() {
        let none = Attributes::default();
        let all = Attributes::parse(b"* filter=lfs");
        let of = |attributes, size, sample: &[u8]| decide(attributes, &path("x"), size, sample);
        assert_eq!(of(&none, 10, b"text"), Storage::Regular);
        assert_eq!(of(&none, 10, b"te\0xt"), Storage::Lfs);
        assert_eq!(of(&none, REGULAR_BYTES_MAX, b"text"), Storage::Regular);
        assert_eq!(of(&none, REGULAR_BYTES_MAX + 1, b"text"), Storage::Lfs);
        assert_eq!(of(&all, 1, b"x"), Storage::Lfs);
        assert_eq!(of(&all, 0, b""), Storage::Regular);
        // The sample ends after 512 bytes, however many are given.
        let late = [&[b'x'; SAMPLE_BYTES][..], b"\0"].concat();
        assert_eq!(of(&none, 513, &late), Storage::Regular);
        assert_eq!(of(&none, 513, &late[1..]), Storage::Lfs);
    }
}
