//! Paths of files within a repository, and which of them we take.
//!
//! A path is taken only if it can be checked out on every common system without touching anything else
//! than the file it names. Bytes are kept as given, not normalised; [`fold`] gives the form in which two
//! paths of one commit must differ. Trees from elsewhere may hold other names: those are shown by id and
//! never become a [`RepoPath`].

use std::fmt;
use std::str::FromStr;

use bstr::{BStr, ByteSlice};
use gix_validate::path::component;

use crate::limits::{PATH_BYTES_MAX, PATH_COMPONENT_BYTES_MAX, PATH_DEPTH_MAX};

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} is not allowed: {rule}")]
pub struct PathError {
    /// The path, or its beginning where it is long; undecodable bytes as replacement characters.
    pub path: String,
    /// The rule that it breaks.
    pub rule: PathRule,
}

/// The rules that every path keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathRule {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Begins with `/`, or with a drive letter.
    #[error("it is absolute; paths begin at the repository's root")]
    Absolute,
    /// `//`, or `/` at the end.
    #[error("it has an empty component")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("it has a `.` or `..` component")]
    Relative,
    /// `\`, which separates components on some systems.
    #[error("it has a backslash")]
    Backslash,
    /// NUL or another control character.
    #[error("it has a control character")]
    Control,
    /// `.git`, or what some file system takes for it.
    #[error("a component is `.git`, or is taken for it by some file system")]
    DotGit,
    /// Ends in a dot or space, which some file systems drop.
    #[error("a component ends with a dot or a space")]
    TrailingDotOrSpace,
    /// `CON`, `NUL`, `COM1` and the like.
    #[error("a component is the name of a Windows device")]
    Device,
    /// Longer than `PATH_BYTES_MAX`.
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// Longer than `PATH_COMPONENT_BYTES_MAX`.
    #[error("a component is longer than {PATH_COMPONENT_BYTES_MAX} bytes")]
    ComponentTooLong,
    /// Deeper than `PATH_DEPTH_MAX`.
    #[error("it has more than {PATH_DEPTH_MAX} components")]
    TooDeep,
    /// Not UTF-8.
    #[error("it is not valid UTF-8")]
    NotUtf8,
}

/// A path that can be published and checked out anywhere: `/` between components, none at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

impl RepoPath {
    /// The path as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, from the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Checks a path that comes as bytes, as in a git tree or on a disk.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.parse(),
            Err(_) => Err(refused(bytes, PathRule::NotUtf8)),
        }
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepoPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        match check(text) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(rule) => Err(refused(text.as_bytes(), rule)),
        }
    }
}

fn refused(path: &[u8], rule: PathRule) -> PathError {
    let path = path.to_str_lossy().chars().take(200).collect();
    PathError { path, rule }
}

fn check(path: &str) -> Result<(), PathRule> {
    if path.is_empty() {
        return Err(PathRule::Empty);
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(PathRule::TooLong);
    }
    if path.contains(char::is_control) {
        return Err(PathRule::Control);
    }
    if path.contains('\\') {
        return Err(PathRule::Backslash);
    }
    let bytes = path.as_bytes();
    if bytes[0] == b'/' || (bytes[0].is_ascii_alphabetic() && bytes.get(1) == Some(&b':')) {
        return Err(PathRule::Absolute);
    }
    if path.split('/').count() > PATH_DEPTH_MAX {
        return Err(PathRule::TooDeep);
    }
    path.split('/').try_for_each(check_component)
}

fn check_component(name: &str) -> Result<(), PathRule> {
    if name.is_empty() {
        return Err(PathRule::EmptyComponent);
    }
    if matches!(name, "." | "..") {
        return Err(PathRule::Relative);
    }
    if name.len() > PATH_COMPONENT_BYTES_MAX {
        return Err(PathRule::ComponentTooLong);
    }
    let name: &BStr = name.into();
    // The other rules that this could check are ours above, under names of their own.
    let options = component::Options {
        protect_windows: false,
        protect_hfs: true,
        protect_ntfs: true,
    };
    if gix_validate::path::component(name, None, options).is_err() {
        return Err(PathRule::DotGit);
    }
    if name.ends_with(b".") || name.ends_with(b" ") {
        return Err(PathRule::TrailingDotOrSpace);
    }
    if gix_validate::path::component_is_windows_device(name) {
        return Err(PathRule::Device);
    }
    Ok(())
}

/// The form in which two paths of one commit must differ, since some file systems don't tell case apart.
pub fn fold(path: &str) -> String {
    path.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str) -> Option<PathRule> {
        path.parse::<RepoPath>().err().map(|error| error.rule)
    }

    #[test]
    fn ordinary_names_are_taken_as_they_are() {
        let deepest = vec!["d"; PATH_DEPTH_MAX].join("/");
        let longest = "n".repeat(PATH_COMPONENT_BYTES_MAX);
        for path in [
            "config.json",
            ".gitattributes",
            ".gitignore",
            ".github/workflows/test.yml",
            "saved_model/variables/variables.data-00000-of-00001",
            "données/数据 集.csv",
            "e\u{301}.txt",
            "ab:c",
            "what?.txt",
            "git~2",
            "..data",
            "console.log",
            "com10",
            " leading space",
            deepest.as_str(),
            longest.as_str(),
        ] {
            assert_eq!(rule(path), None, "{path}");
            assert_eq!(path.parse::<RepoPath>().unwrap().as_str(), path);
        }
    }

    #[test]
    fn each_rule_refuses_by_name() {
        use PathRule::{
            Absolute, Backslash, ComponentTooLong, Control, Device, DotGit, Empty, EmptyComponent,
            Relative, TooDeep, TooLong, TrailingDotOrSpace,
        };
        for (path, expected) in [
            ("", Empty),
            ("/etc/passwd", Absolute),
            ("C:/x", Absolute),
            ("c:x", Absolute),
            ("a//b", EmptyComponent),
            ("a/", EmptyComponent),
            ("..", Relative),
            ("a/../b", Relative),
            ("./a", Relative),
            ("a\\b", Backslash),
            ("..\\ddd", Backslash),
            ("a\0b", Control),
            ("a\nb", Control),
            ("a\u{7f}", Control),
            ("a\u{85}", Control),
            (".git", DotGit),
            ("a/.GiT/hooks/x", DotGit),
            (".git ", DotGit),
            (".git.", DotGit),
            (".git...", DotGit),
            (".git::$INDEX_ALLOCATION/x", DotGit),
            ("git~1", DotGit),
            ("GIT~1/config", DotGit),
            (".g\u{200c}it", DotGit),
            (".git\u{feff}", DotGit),
            ("\u{202e}.git", DotGit),
            ("a.", TrailingDotOrSpace),
            ("a /b", TrailingDotOrSpace),
            ("con", Device),
            ("NUL.txt", Device),
            ("a/com1", Device),
            ("LPT9.tar.gz", Device),
            ("CONIN$", Device),
            (&"x/".repeat(PATH_DEPTH_MAX), TooDeep),
            (&"x".repeat(PATH_COMPONENT_BYTES_MAX + 1), ComponentTooLong),
            (&"x".repeat(PATH_BYTES_MAX + 1), TooLong),
        ] {
            assert_eq!(rule(path), Some(expected), "{path:?}");
        }
        assert_eq!(
            RepoPath::from_bytes(b"a\xff").map_err(|error| error.rule),
            Err(PathRule::NotUtf8)
        );
    }

    #[test]
    fn an_error_names_path_and_rule() {
        assert_eq!(
            "a/../b".parse::<RepoPath>().unwrap_err().to_string(),
            "path \"a/../b\" is not allowed: it has a `.` or `..` component"
        );
        let long = "é".repeat(2_000).parse::<RepoPath>().unwrap_err();
        assert_eq!(long.path.chars().count(), 200);
    }

    #[test]
    fn folding_tells_apart_what_every_file_system_does() {
        assert_eq!(fold("Straße/ÉTÉ.TXT"), fold("straße/été.txt"));
        assert_ne!(fold("a_b"), fold("a-b"));
    }
}
