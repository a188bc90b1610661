//! Paths of files within a repository, and which of them we take.
//!
//! A path is taken only if it can be checked out on every common system without touching anything else
//! than the file it names. Bytes are kept as given, not normalised; [`fold`] gives the form in which two
//! paths of one commit must differ. Trees from elsewhere may hold other names: those are shown by id and
//! never become a [`RepoPath`].

use std::fmt;
use std::str::FromStr;

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
    #[error("it is longer than 1024 bytes")]
    TooLong,
    /// Longer than `PATH_COMPONENT_BYTES_MAX`.
    #[error("a component is longer than 255 bytes")]
    ComponentTooLong,
    /// Deeper than `PATH_DEPTH_MAX`.
    #[error("it has more than 32 components")]
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
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, PathError> {
        todo!()
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepoPath {
    type Err = PathError;

    fn from_str(_text: &str) -> Result<Self, PathError> {
        todo!()
    }
}

/// The form in which two paths of one commit must differ, since some file systems don't tell case apart.
pub fn fold(path: &str) -> String {
    path.to_lowercase()
}
