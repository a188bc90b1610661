//! A publisher moves a ref.

use crate::hash::{Blake3, GitOid};
use crate::json::Object;
use crate::limits::REF_NAME_BYTES_MAX;

use super::members::Members;
use super::{Nonce, RecordError};

/// A change record; its id is its idempotency key, for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Full name of the ref.
    pub reference: String,
    /// What the ref must point at for the home to take the change in; absent: it must not exist.
    pub old: Option<GitOid>,
    /// What it points at then; absent: it is deleted.
    pub new: Option<GitOid>,
    /// BLAKE3 of the new commit's entry, where there is a new object.
    pub entry: Option<Blake3>,
    /// Drawn once, when the change is staged.
    pub nonce: Nonce,
}

impl Change {
    pub(super) const MEMBERS: &[&str] = &["ref", "old", "new", "entry", "nonce"];

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let reference = members.text("ref")?;
        check_ref_name(reference)
            .map_err(|error| members.wrong("ref", format!("does not read: {error}")))?;
        let change = Self {
            reference: reference.to_owned(),
            old: members.parsed_or_null("old")?,
            new: members.parsed_or_null("new")?,
            entry: members.parsed_or_null("entry")?,
            nonce: members.parsed("nonce")?,
        };
        if change.old.is_none() && change.new.is_none() {
            return Err(members.wrong("new", "is null where `old` is: nothing changes"));
        }
        if change.entry.is_some() != change.new.is_some() {
            return Err(members.wrong("entry", "must stand exactly where `new` does"));
        }
        Ok(change)
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        payload.set("ref", self.reference.as_str());
        payload.set("old", self.old.map(|oid| oid.to_hex()));
        payload.set("new", self.new.map(|oid| oid.to_hex()));
        payload.set("entry", self.entry.map(|hash| hash.to_hex()));
        payload.set("nonce", self.nonce.to_string());
    }
}

/// A text that is not the full name of a ref.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a full ref name: `refs/…`, at most {REF_NAME_BYTES_MAX} bytes, as git allows it"
)]
pub struct RefNameError(String);

/// Checks the full name of a ref against git's rules (`git check-ref-format`).
pub fn check_ref_name(name: &str) -> Result<(), RefNameError> {
    check(name, |byte| byte != b'*')
}

/// Checks a pattern of refs: a full name in which `*` may stand.
pub(super) fn check_ref_pattern(pattern: &str) -> Result<(), RefNameError> {
    check(pattern, |_| true)
}

fn check(name: &str, allowed: impl Fn(u8) -> bool) -> Result<(), RefNameError> {
    let plain =
        |byte: u8| byte > b' ' && byte != 0x7f && !b"~^:?[\\".contains(&byte) && allowed(byte);
    #[allow(
        clippy::case_sensitive_file_extension_comparisons,
        reason = "git compares it so"
    )]
    let component = |component: &str| {
        !component.is_empty() && !component.starts_with('.') && !component.ends_with(".lock")
    };
    let valid = name.len() <= REF_NAME_BYTES_MAX
        && name.starts_with("refs/")
        && name.bytes().all(plain)
        && name.split('/').all(component)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.');
    if valid {
        Ok(())
    } else {
        Err(RefNameError(name.chars().take(80).collect()))
    }
}

/// Whether a ref's name fits a pattern, in which `*` stands for any text, `/` and none included.
pub fn ref_matches(pattern: &str, name: &str) -> bool {
    let Some((first, pattern)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let (between, last) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    // The earliest place of each part between leaves the most for what follows.
    for part in between.split('*') {
        let Some(position) = rest.find(part) else {
            return false;
        };
        rest = &rest[position + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ref_names_follow_git() {
        for good in [
            "refs/heads/main",
            "refs/heads/a/b.c",
            "refs/pr/1",
            "refs/tags/v1@2",
            "refs/heads/ümläut",
            &format!("refs/{}", "a".repeat(250)),
        ] {
            assert_eq!(check_ref_name(good), Ok(()));
        }
        for bad in [
            "",
            "main",
            "refs",
            "refs/",
            "refs//main",
            "refs/heads/",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a.lock/b",
            "refs/heads/a..b",
            "refs/heads/a.",
            "refs/heads/a b",
            "refs/heads/a\tb",
            "refs/heads/a\x7f",
            "refs/heads/a~1",
            "refs/heads/a^",
            "refs/heads/a:b",
            "refs/heads/a?",
            "refs/heads/a*",
            "refs/heads/a[b",
            "refs/heads/a\\b",
            "refs/heads/@{1}",
            &format!("refs/{}", "a".repeat(251)),
        ] {
            assert!(check_ref_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("refs/heads/main", "refs/heads/main", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("refs/heads/*", "refs/heads/a/b", true),
            ("refs/heads/*", "refs/heads/", true),
            ("refs/heads/*", "refs/tags/a", false),
            ("refs/*/main", "refs/heads/main", true),
            ("refs/*/main", "refs/main", false),
            ("refs/heads/a*b*a", "refs/heads/aba", true),
            ("refs/heads/a*b*a", "refs/heads/aa", false),
            ("refs/heads/a*a", "refs/heads/a", false),
            ("refs/**", "refs/x", true),
        ] {
            assert_eq!(ref_matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
