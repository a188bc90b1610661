//! Ref names, and the refs blob of a head: what each ref points at.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use crate::format::{FormatError, Reader, check_count, small};
use crate::hash::{Blake3, GitOid};
use crate::limits::{REF_NAME_BYTES_MAX, REFS_MAX, TAG_DEPTH_MAX};

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
    pub fn branch(name: &str) -> Result<Self, RefNameError> {
        format!("refs/heads/{name}").parse()
    }

    /// The tag of this short name (`v1.0`).
    pub fn tag(name: &str) -> Result<Self, RefNameError> {
        format!("refs/tags/{name}").parse()
    }

    /// Every name that would be a folder of this one: `refs/heads/a` of `refs/heads/a/b`.
    fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl Borrow<str> for RefName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RefName {
    type Err = RefNameError;

    fn from_str(text: &str) -> Result<Self, RefNameError> {
        check_ref_name(text)?;
        Ok(Self(text.to_owned()))
    }
}

/// Checks a full ref name against git's rules, and that it is of a kind that a repository holds.
pub fn check_ref_name(name: &str) -> Result<(), RefNameError> {
    ref_name_rule(name).map_err(|rule| RefNameError {
        name: name.chars().take(200).collect(),
        rule,
    })
}

fn ref_name_rule(name: &str) -> Result<(), &'static str> {
    if name.len() > REF_NAME_BYTES_MAX {
        return Err("it is longer than 255 bytes");
    }
    let kinds = ["refs/heads/", "refs/tags/", "refs/convert/"];
    let number = name.strip_prefix("refs/pr/");
    if let Some(number) = number {
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || number.starts_with('0') || number.parse::<u64>().is_err() {
            return Err("what follows `refs/pr/` is a number from 1");
        }
    } else if !kinds.iter().any(|kind| name.starts_with(kind)) {
        return Err("it begins with none of refs/heads/, refs/tags/, refs/convert/, refs/pr/");
    }
    gix_validate::reference::branch_name(name.into()).map_err(|error| git_rule(&error))?;
    Ok(())
}

fn git_rule(error: &gix_validate::reference::name::Error) -> &'static str {
    use gix_validate::reference::name::Error;
    match error {
        Error::InvalidByte { .. } | Error::Asterisk => {
            "it has a space, a control character or one of ~ ^ : ? * [ \\"
        }
        Error::StartsWithSlash | Error::RepeatedSlash | Error::EndsWithSlash | Error::Empty => {
            "it has an empty component"
        }
        Error::RepeatedDot => "it has two dots in a row",
        Error::LockFileSuffix => "a component ends with `.lock`",
        Error::ReflogPortion => "it has `@{`",
        Error::StartsWithDot => "a component begins with a dot",
        Error::EndsWithDot => "it ends with a dot",
        _ => "git reserves it",
    }
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

const WHAT: &str = "refs blob";
const MAGIC: [u8; 8] = *b"cairnrf1";

impl Refs {
    /// The refs blob.
    ///
    /// # Panics
    ///
    /// Where these refs break the format's rules; those of [`Self::decode`] and [`Self::with_change`]
    /// never do.
    pub fn encode(&self) -> Vec<u8> {
        if let Err(error) = self.check() {
            panic!("invariant: refs are checked before they are written: {error}");
        }
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&small::<u32>(self.0.len()).to_le_bytes());
        for (name, target) in &self.0 {
            out.extend_from_slice(&small::<u16>(name.0.len()).to_le_bytes());
            out.extend_from_slice(name.0.as_bytes());
            out.extend_from_slice(target.oid.as_bytes());
            out.extend_from_slice(target.entry.as_bytes());
            out.push(small(target.tags.len()));
            for tag in &target.tags {
                out.extend_from_slice(tag.as_bytes());
            }
        }
        out
    }

    /// Reads a refs blob.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, MAGIC, bytes)?;
        let count = reader.u32("count of refs")? as usize;
        check_count(WHAT, "refs", count, REFS_MAX)?;
        let mut refs = BTreeMap::new();
        for index in 0..count {
            let name = read_name(&mut reader, index)?;
            if refs.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(reader.rule(name.0, "refs are sorted by name, none twice"));
            }
            let oid = reader.oid("oid")?;
            let entry = reader.blake3("commit entry")?;
            let tags = usize::from(reader.u8("count of tags")?);
            check_count(WHAT, "tag objects on one ref's way", tags, TAG_DEPTH_MAX)?;
            let tags = (0..tags)
                .map(|_| reader.blake3("tag"))
                .collect::<Result<_, _>>()?;
            refs.insert(name, RefTarget { oid, entry, tags });
        }
        reader.finish()?;
        let refs = Self(refs);
        refs.check()?;
        Ok(refs)
    }

    /// What holds for all refs together.
    fn check(&self) -> Result<(), FormatError> {
        check_count(WHAT, "refs", self.0.len(), REFS_MAX)?;
        for (name, target) in &self.0 {
            check_count(
                WHAT,
                "tag objects on one ref's way",
                target.tags.len(),
                TAG_DEPTH_MAX,
            )?;
            if name.folders().any(|folder| self.0.contains_key(folder)) {
                return Err(FormatError::Rule {
                    what: WHAT,
                    place: name.to_string(),
                    rule: "no ref is a folder of another",
                });
            }
        }
        Ok(())
    }

    /// These refs with one of them moved from `old` to `new`, `None` where it does not exist.
    pub fn with_change(
        &self,
        name: &RefName,
        old: Option<GitOid>,
        new: Option<RefTarget>,
    ) -> Result<Self, RefsError> {
        let found = self.0.get(name).map(|target| target.oid);
        if found != old {
            return Err(RefsError::Mismatch {
                name: name.clone(),
                expected: old,
                found,
            });
        }
        let mut refs = self.clone();
        match new {
            Some(target) => {
                self.check_room(name, &target)?;
                refs.0.insert(name.clone(), target);
            }
            None if old.is_none() => return Err(RefsError::Nothing(name.clone())),
            None => drop(refs.0.remove(name)),
        }
        Ok(refs)
    }

    /// Whether a ref of this name and target can stand beside the others.
    fn check_room(&self, name: &RefName, target: &RefTarget) -> Result<(), RefsError> {
        if target.tags.len() > TAG_DEPTH_MAX {
            return Err(RefsError::TagDepth {
                name: name.clone(),
                count: target.tags.len(),
                max: TAG_DEPTH_MAX,
            });
        }
        if self.0.contains_key(name) {
            return Ok(());
        }
        let above = name
            .folders()
            .find_map(|folder| self.0.get_key_value(folder));
        let inside = format!("{name}/");
        let below = self
            .0
            .range::<str, _>((Bound::Excluded(&*inside), Bound::Unbounded))
            .next();
        let below = below.filter(|(other, _)| other.0.starts_with(&inside));
        if let Some((other, _)) = above.or(below) {
            return Err(RefsError::Conflict {
                name: name.clone(),
                other: other.clone(),
            });
        }
        if self.0.len() >= REFS_MAX {
            return Err(RefsError::TooMany { max: REFS_MAX });
        }
        Ok(())
    }
}

fn read_name(reader: &mut Reader<'_>, index: usize) -> Result<RefName, FormatError> {
    let length = usize::from(reader.u16("length of a name")?);
    let name = reader.bytes(length, "name")?;
    let name = std::str::from_utf8(name)
        .map_err(|_| reader.rule(format!("ref {index}"), "names are UTF-8"))?;
    name.parse()
        .map_err(|error: RefNameError| reader.rule(error.name, error.rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(byte: u8) -> RefTarget {
        RefTarget {
            oid: GitOid::from_bytes([byte; 20]),
            entry: Blake3::from_bytes([byte; 32]),
            tags: vec![Blake3::from_bytes([byte; 32]); usize::from(byte % 3)],
        }
    }

    fn oid(byte: u8) -> GitOid {
        GitOid::from_bytes([byte; 20])
    }

    fn name(name: &str) -> RefName {
        name.parse().unwrap()
    }

    #[test]
    fn names_follow_gits_rules_within_our_kinds() {
        for good in [
            "refs/heads/main",
            "refs/heads/feature/x.y",
            "refs/heads/数据",
            "refs/heads/@",
            "refs/heads/-x",
            "refs/tags/v1.0",
            "refs/pr/1",
            "refs/pr/18446744073709551615",
            "refs/convert/parquet",
        ] {
            assert_eq!(check_ref_name(good), Ok(()), "{good}");
        }
        let long = format!("refs/heads/{}", "x".repeat(REF_NAME_BYTES_MAX));
        for bad in [
            "",
            "main",
            "HEAD",
            "refs/heads/",
            "refs/heads",
            "refs/notes/x",
            "refs/heads/HEAD",
            "refs/heads//x",
            "refs/heads/x/",
            "refs/heads/.x",
            "refs/heads/x/.y",
            "refs/heads/x.",
            "refs/heads/x..y",
            "refs/heads/x.lock",
            "refs/heads/x.lock/y",
            "refs/heads/x y",
            "refs/heads/x\ny",
            "refs/heads/x~1",
            "refs/heads/x^",
            "refs/heads/x:y",
            "refs/heads/x?",
            "refs/heads/x*",
            "refs/heads/[x",
            "refs/heads/x\\y",
            "refs/heads/x@{1}",
            "refs/heads/x\u{7f}",
            "refs/pr/",
            "refs/pr/0",
            "refs/pr/01",
            "refs/pr/+1",
            "refs/pr/1/head",
            "refs/pr/18446744073709551616",
            &long,
        ] {
            assert!(check_ref_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_change_is_taken_only_at_the_expected_target() {
        let main = name("refs/heads/main");
        let refs = Refs::default()
            .with_change(&main, None, Some(target(1)))
            .unwrap();
        let refs = refs
            .with_change(&main, Some(oid(1)), Some(target(2)))
            .unwrap();
        assert_eq!(
            refs.with_change(&main, Some(oid(1)), Some(target(3))),
            Err(RefsError::Mismatch {
                name: main.clone(),
                expected: Some(oid(1)),
                found: Some(oid(2))
            })
        );
        assert!(refs.with_change(&main, None, Some(target(3))).is_err());
        assert!(refs.with_change(&main, Some(oid(1)), None).is_err());
        assert_eq!(refs.0[&main], target(2));
        let empty = refs.with_change(&main, Some(oid(2)), None).unwrap();
        assert_eq!(empty, Refs::default());
        assert_eq!(
            empty.with_change(&main, None, None),
            Err(RefsError::Nothing(main))
        );
    }

    #[test]
    fn a_ref_is_never_a_folder_of_another() {
        let refs = Refs::default()
            .with_change(&name("refs/heads/a/b"), None, Some(target(1)))
            .unwrap()
            .with_change(&name("refs/heads/a-b"), None, Some(target(1)))
            .unwrap();
        for conflicting in ["refs/heads/a", "refs/heads/a/b/c"] {
            let result = refs.with_change(&name(conflicting), None, Some(target(2)));
            assert!(
                matches!(result, Err(RefsError::Conflict { .. })),
                "{conflicting}"
            );
        }
        for free in ["refs/heads/a/c", "refs/heads/ab", "refs/tags/a"] {
            assert!(
                refs.with_change(&name(free), None, Some(target(2))).is_ok(),
                "{free}"
            );
        }
    }

    #[test]
    fn limits_refuse_by_name() {
        let mut refs = Refs::default();
        for index in 0..REFS_MAX {
            refs.0
                .insert(name(&format!("refs/tags/{index}")), target(0));
        }
        assert_eq!(Refs::decode(&refs.encode()).as_ref(), Ok(&refs));
        assert_eq!(
            refs.with_change(&name("refs/tags/more"), None, Some(target(0))),
            Err(RefsError::TooMany { max: REFS_MAX })
        );
        let moved = refs.with_change(&name("refs/tags/1"), Some(oid(0)), Some(target(1)));
        assert_eq!(moved.unwrap().0.len(), REFS_MAX);
        let mut deep = target(1);
        deep.tags = vec![Blake3::from_bytes([0; 32]); TAG_DEPTH_MAX + 1];
        assert!(matches!(
            Refs::default().with_change(&name("refs/tags/x"), None, Some(deep)),
            Err(RefsError::TagDepth { .. })
        ));
    }

    #[test]
    fn the_blob_has_one_encoding() {
        let mut refs = Refs::default();
        refs.0.insert(name("refs/heads/b"), target(1));
        refs.0.insert(name("refs/heads/a"), target(2));
        let bytes = refs.encode();
        assert_eq!(Refs::decode(&bytes), Ok(refs));
        assert!(matches!(
            Refs::decode(b"cairnrf2"),
            Err(FormatError::Magic(_))
        ));
        assert!(matches!(
            Refs::decode(&[&bytes[..], b"x"].concat()),
            Err(FormatError::Trailing { count: 1, .. })
        ));
        for end in 0..bytes.len() {
            assert!(Refs::decode(&bytes[..end]).is_err());
        }
        // The two refs with their places changed.
        let one = 2 + "refs/heads/a".len() + 20 + 32 + 1 + 2 * 32;
        let swapped = [&bytes[..12], &bytes[12 + one..], &bytes[12..12 + one]].concat();
        assert!(matches!(
            Refs::decode(&swapped),
            Err(FormatError::Rule { .. })
        ));
    }
}
