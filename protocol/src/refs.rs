//! Ref names, and the refs blob of a head: what each ref points at.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::format::FormatError;
use crate::hash::{Blake3, GitOid};

/// Why a ref name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ref name {name:?} is not valid: {rule}")]
pub struct RefNameError {
    /// The name, or its beginning where it is long.
    pub name: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// A full ref name: `refs/heads/…`, `refs/tags/…`, `refs/convert/…` or `refs/pr/N`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

impl RefName {
    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The branch of this short name (`main`).
    pub fn branch(_name: &str) -> Result<Self, RefNameError> {
        todo!()
    }

    /// The tag of this short name (`v1.0`).
    pub fn tag(_name: &str) -> Result<Self, RefNameError> {
        todo!()
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RefName {
    type Err = RefNameError;

    fn from_str(_text: &str) -> Result<Self, RefNameError> {
        todo!()
    }
}

/// Checks a full ref name against git's rules and ours.
pub fn check_ref_name(_name: &str) -> Result<(), RefNameError> {
    todo!()
}

/// What a ref points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefTarget {
    /// The commit, or the annotated tag object.
    pub oid: GitOid,
    /// BLAKE3 of the commit entry that the ref leads to.
    pub entry: Blake3,
    /// BLAKE3 of each tag object on the way, outermost first.
    pub tags: Vec<Blake3>,
}

/// All refs of a repository at one head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs(pub BTreeMap<RefName, RefTarget>);

/// Why a ref was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefsError {
    /// The ref has moved, or is or is not there, since the change was made.
    #[error("ref {name} is at {} and not at {}", shown(*found), shown(*expected))]
    Mismatch {
        /// Which ref.
        name: RefName,
        /// Where the change expected it.
        expected: Option<GitOid>,
        /// Where it is.
        found: Option<GitOid>,
    },
    /// One name would be a directory of the other.
    #[error("ref {name} can't stand beside {other}: one would be a folder of the other")]
    Conflict {
        /// The new ref.
        name: RefName,
        /// The one that is there.
        other: RefName,
    },
    /// Neither an old nor a new target.
    #[error("ref {0} is not there and would not be: the change changes nothing")]
    Nothing(RefName),
    /// The repository has as many refs as it may.
    #[error("the repository has {max} refs, as many as it may")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// More tag objects between ref and commit than fit.
    #[error("ref {name} leads over {count} tag objects, more than {max}")]
    TagDepth {
        /// Which ref.
        name: RefName,
        /// How many tag objects.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

fn shown(oid: Option<GitOid>) -> String {
    oid.map_or_else(|| "nothing".to_owned(), |oid| oid.to_hex())
}

impl Refs {
    /// The refs blob.
    ///
    /// # Panics
    ///
    /// Where these refs break the format's rules; those of [`Self::decode`] and [`Self::with_change`]
    /// never do.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a refs blob.
    pub fn decode(_bytes: &[u8]) -> Result<Self, FormatError> {
        todo!()
    }

    /// These refs with one of them moved from `old` to `new`, `None` where it does not exist.
    pub fn with_change(
        &self,
        _name: &RefName,
        _old: Option<GitOid>,
        _new: Option<RefTarget>,
    ) -> Result<Self, RefsError> {
        todo!()
    }
}
