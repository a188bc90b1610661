//! Commit objects.

use bstr::{BStr, ByteSlice};
use gix_object::{CommitRef, WriteTo};

use crate::git::{GitError, check_count};
use crate::hash::GitOid;
use crate::limits::{MESSAGE_BYTES_MAX, OBJECT_BYTES_MAX, PARENTS_MAX};

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    /// Name; undecodable bytes of foreign commits are shown as replacement characters.
    pub name: String,
    /// Mail address, or whatever stands in its place.
    pub email: String,
    /// Seconds since the Unix epoch; 0 where a foreign commit has no sensible time.
    pub time_s: u64,
}

impl Signature {
    /// As it stands in a commit, in UTC: `Name <address> seconds +0000`.
    fn line(&self, who: &'static str) -> Result<String, GitError> {
        if self.name.trim().is_empty() {
            return Err(field(who, "the name is empty"));
        }
        if [&self.name, &self.email]
            .iter()
            .any(|text| text.contains(['\0', '\n', '<', '>']))
        {
            return Err(field(who, "it has a NUL, newline, `<` or `>`"));
        }
        if i64::try_from(self.time_s).is_err() {
            return Err(field(who, "the time is beyond what git can hold"));
        }
        Ok(format!(
            "{} <{}> {} +0000",
            self.name, self.email, self.time_s
        ))
    }
}

fn field(field: &'static str, rule: &'static str) -> GitError {
    GitError::Field { field, rule }
}

/// A commit to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCommit {
    /// The root tree.
    pub tree: GitOid,
    /// Parents, first the one that was built upon.
    pub parents: Vec<GitOid>,
    /// Who made the content.
    pub author: Signature,
    /// Who made the commit.
    pub committer: Signature,
    /// The whole message, written as it is.
    pub message: String,
}

impl NewCommit {
    /// The object's bytes, times in UTC.
    ///
    /// Refuses NUL, newlines, `<` and `>` in names and addresses, NUL in messages, and what exceeds
    /// `limits`.
    pub fn encode(&self) -> Result<Vec<u8>, GitError> {
        check_count("commit", "parents", self.parents.len(), PARENTS_MAX)?;
        check_count(
            "commit",
            "bytes of message",
            self.message.len(),
            MESSAGE_BYTES_MAX,
        )?;
        if self.message.contains('\0') {
            return Err(field("message", "it has a NUL"));
        }
        let tree = self.tree.to_hex();
        let parents: Vec<String> = self.parents.iter().map(GitOid::to_hex).collect();
        let author = self.author.line("author")?;
        let committer = self.committer.line("committer")?;
        let commit = CommitRef {
            tree: tree.as_bytes().into(),
            parents: parents
                .iter()
                .map(|parent| parent.as_bytes().into())
                .collect(),
            author: author.as_bytes().into(),
            committer: committer.as_bytes().into(),
            encoding: None,
            message: self.message.as_bytes().into(),
            extra_headers: Vec::new(),
        };
        let mut bytes = Vec::new();
        commit.write_to(&mut bytes).map_err(refuse)?;
        check_count("commit", "bytes", bytes.len(), OBJECT_BYTES_MAX)?;
        Ok(bytes)
    }
}

/// What a commit object says. The object itself is kept verbatim; this is never written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitObject {
    /// The root tree.
    pub tree: GitOid,
    /// Parents in their order.
    pub parents: Vec<GitOid>,
    /// Who made the content.
    pub author: Signature,
    /// Who made the commit.
    pub committer: Signature,
    /// First line of the message.
    pub title: String,
    /// The rest of the message, without blank lines at either end.
    pub body: String,
}

impl CommitObject {
    /// Reads a commit object of any origin: signed, with unknown headers, in an odd encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, GitError> {
        check_count("commit", "bytes", bytes.len(), OBJECT_BYTES_MAX)?;
        let commit = CommitRef::from_bytes(bytes, gix_hash::Kind::Sha1).map_err(refuse)?;
        check_count("commit", "parents", commit.parents.len(), PARENTS_MAX)?;
        let author = commit.author().map_err(refuse)?;
        let committer = commit.committer().map_err(refuse)?;
        let (title, body) = split_message(commit.message);
        Ok(Self {
            tree: oid(commit.tree)?,
            parents: commit
                .parents
                .iter()
                .map(|parent| oid(parent))
                .collect::<Result<_, _>>()?,
            author: signature(author.name, author.email, author.seconds()),
            committer: signature(committer.name, committer.email, committer.seconds()),
            title,
            body,
        })
    }
}

fn refuse(error: impl std::fmt::Display) -> GitError {
    GitError::Commit(error.to_string())
}

fn signature(name: &BStr, email: &BStr, seconds: i64) -> Signature {
    Signature {
        name: name.to_str_lossy().into_owned(),
        email: email.to_str_lossy().into_owned(),
        time_s: u64::try_from(seconds).unwrap_or(0),
    }
}

/// The first line, and the rest, without blank lines around either.
fn split_message(message: &BStr) -> (String, String) {
    let message = message.to_str_lossy();
    let message = message.trim_start_matches(['\n', '\r']);
    let (title, rest) = message.split_once('\n').unwrap_or((message, ""));
    let body = rest.trim_start_matches(['\n', '\r']).trim_end();
    (title.trim_end().to_owned(), body.to_owned())
}

fn oid(hex: &BStr) -> Result<GitOid, GitError> {
    // Git reads digits of either case.
    let hex = hex.to_str_lossy().to_ascii_lowercase();
    hex.parse()
        .map_err(|_| GitError::Commit(format!("{hex} is no object id")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{ObjectKind, object_oid};

    fn person(name: &str) -> Signature {
        Signature {
            name: name.into(),
            email: "a@example.org".into(),
            time_s: 1_700_000_000,
        }
    }

    fn commit() -> NewCommit {
        NewCommit {
            tree: object_oid(ObjectKind::Tree, b""),
            parents: vec![GitOid::from_bytes([1; 20]), GitOid::from_bytes([2; 20])],
            author: person("Ada Lovelace"),
            committer: person("Zoë"),
            message: "Add weights\n\nTwo lines\nof text.\n".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = commit().encode().unwrap();
        let read = CommitObject::parse(&bytes).unwrap();
        assert_eq!(read.tree, commit().tree);
        assert_eq!(read.parents, commit().parents);
        assert_eq!(read.author, commit().author);
        assert_eq!(read.committer, commit().committer);
        assert_eq!(read.title, "Add weights");
        assert_eq!(read.body, "Two lines\nof text.");
    }

    #[test]
    fn fields_that_would_forge_other_lines_are_refused() {
        for bad in ["A\nB", "A\0", "A <b", "A> 0 +0000", "", " "] {
            for committer in [false, true] {
                let mut commit = commit();
                let who = if committer {
                    &mut commit.committer
                } else {
                    &mut commit.author
                };
                who.name = bad.into();
                assert!(
                    matches!(commit.encode(), Err(GitError::Field { .. })),
                    "{bad:?}"
                );
            }
        }
        let mut bad = commit();
        bad.author.email = "a@b>\ncommitter x <y".into();
        assert!(bad.encode().is_err());
        let mut bad = commit();
        bad.message = "a\0b".into();
        assert!(bad.encode().is_err());
        let mut bad = commit();
        bad.committer.time_s = u64::MAX;
        assert!(bad.encode().is_err());
    }

    #[test]
    fn limits_refuse_by_name() {
        let mut many = commit();
        many.parents = vec![GitOid::from_bytes([1; 20]); PARENTS_MAX + 1];
        assert!(
            many.encode()
                .unwrap_err()
                .to_string()
                .contains("65 parents")
        );
        let mut long = commit();
        long.message = "x".repeat(MESSAGE_BYTES_MAX + 1);
        assert!(long.encode().is_err());
    }

    #[test]
    fn foreign_commits_are_read_as_they_come() {
        let bytes = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
            author  <nobody> -1 +0000\n\
            committer J\xf6rg <j@example.org> 1700000000 -0730\n\
            encoding ISO-8859-1\n\
            gpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n\
            x-unknown y\n\
            \n\n\nTitle  \r\n\r\nbody\n\n";
        let read = CommitObject::parse(bytes).unwrap();
        assert_eq!(read.author.name, "");
        assert_eq!(read.author.time_s, 0);
        assert_eq!(read.committer.name, "J\u{fffd}rg");
        assert_eq!(read.committer.time_s, 1_700_000_000);
        assert_eq!((&*read.title, &*read.body), ("Title", "body"));
        let empty = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
            author a <b> 1 +0000\ncommitter a <b> 1 +0000\n\n";
        assert_eq!(CommitObject::parse(empty).unwrap().title, "");
    }

    #[test]
    fn bytes_that_are_no_commit_are_refused() {
        let whole = commit().encode().unwrap();
        let headers = whole.windows(2).position(|pair| pair == b"\n\n").unwrap();
        for end in 0..=headers {
            assert!(CommitObject::parse(&whole[..end]).is_err(), "{end}");
        }
        assert!(CommitObject::parse(b"tree x\n").is_err());
    }
}
