//! Commit entries: where to find a commit, its files and its parents by BLAKE3.

use crate::format::{FormatError, Reader, check_count, small, write_known};
use crate::hash::{Blake3, GitOid};
use crate::limits::PARENTS_MAX;

const WHAT: &str = "commit entry";
const MAGIC: [u8; 8] = *b"cairnce1";

/// One commit, as the head's refs and its children's entries lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitEntry {
    /// Git's id of the commit.
    pub commit: GitOid,
    /// BLAKE3 of the commit object.
    pub object: Blake3,
    /// BLAKE3 of the root directory's manifest; unknown in partial mirrors.
    pub manifest: Option<Blake3>,
    /// BLAKE3 of each parent's commit entry, in the commit's order; unknown in shallow histories.
    pub parents: Vec<Option<Blake3>>,
}

impl CommitEntry {
    /// The commit entry's bytes.
    ///
    /// # Panics
    ///
    /// Where there are more parents than `PARENTS_MAX`; a commit that parses has no more.
    pub fn encode(&self) -> Vec<u8> {
        let parents = self.parents.len();
        assert!(
            parents <= PARENTS_MAX,
            "invariant: a commit has at most {PARENTS_MAX} parents, not {parents}"
        );
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(self.commit.as_bytes());
        out.extend_from_slice(self.object.as_bytes());
        write_known(&mut out, self.manifest.as_ref());
        out.extend_from_slice(&small::<u16>(parents).to_le_bytes());
        for parent in &self.parents {
            write_known(&mut out, parent.as_ref());
        }
        out
    }

    /// Reads a commit entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, MAGIC, bytes)?;
        let commit = reader.oid("commit oid")?;
        let object = reader.blake3("commit object")?;
        let manifest = reader.known("manifest")?;
        let parents = usize::from(reader.u16("count of parents")?);
        check_count(WHAT, "parents", parents, PARENTS_MAX)?;
        let parents = (0..parents)
            .map(|_| reader.known("parent"))
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self {
            commit,
            object,
            manifest,
            parents,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> CommitEntry {
        CommitEntry {
            commit: GitOid::from_bytes([1; 20]),
            object: Blake3::from_bytes([2; 32]),
            manifest: Some(Blake3::from_bytes([3; 32])),
            parents: vec![Some(Blake3::from_bytes([4; 32])), None],
        }
    }

    #[test]
    fn the_bytes_have_one_encoding() {
        let bytes = entry().encode();
        assert_eq!(bytes.len(), 8 + 20 + 32 + 33 + 2 + 33 + 1);
        assert_eq!(CommitEntry::decode(&bytes), Ok(entry()));
        for end in 0..bytes.len() {
            assert!(CommitEntry::decode(&bytes[..end]).is_err());
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(matches!(
            CommitEntry::decode(&longer),
            Err(FormatError::Trailing { .. })
        ));
        let mut flag = bytes;
        flag[60] = 2;
        assert!(matches!(
            CommitEntry::decode(&flag),
            Err(FormatError::Rule { .. })
        ));
    }

    #[test]
    fn too_many_parents_are_refused() {
        let mut bytes = entry().encode();
        bytes.truncate(93);
        bytes.extend_from_slice(&65u16.to_le_bytes());
        bytes.extend_from_slice(&[0; 65]);
        assert!(matches!(
            CommitEntry::decode(&bytes),
            Err(FormatError::TooMany { count: 65, .. })
        ));
    }
}
