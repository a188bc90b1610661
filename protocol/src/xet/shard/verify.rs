//! Whether the terms of a file are what they claim, given the chunks of the xorbs that they name.

use super::{ShardFile, Term};
use crate::xet::hash::{Chunk, TreeHasher, XetHash, range_hash};

/// Why a file does not consist of its terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A xorb that is not there.
    #[error("term {term} of the file {file} names the xorb {xorb}, which is not here")]
    Missing {
        /// The file.
        file: XetHash,
        /// Which of its terms.
        term: usize,
        /// The xorb.
        xorb: XetHash,
    },
    /// A term that claims what is not so.
    #[error("term {term} of the file {file} is not valid: {rule}")]
    Term {
        /// The file.
        file: XetHash,
        /// Which of its terms.
        term: usize,
        /// What is wrong.
        rule: &'static str,
    },
    /// Terms that make up another file.
    #[error("the terms make up the file {actual}, not {expected}")]
    Hash {
        /// What the shard says.
        expected: XetHash,
        /// The hash of the chunks.
        actual: XetHash,
    },
}

impl ShardFile {
    /// Checks each term against the chunks of its xorb, and the file's hash against all of them; `chunks`
    /// gives the verified chunks of a xorb. The SHA-256 is not checked: that takes the bytes.
    pub fn verify<C: AsRef<[Chunk]>>(
        &self,
        mut chunks: impl FnMut(&XetHash) -> Option<C>,
    ) -> Result<(), VerifyError> {
        let mut tree = TreeHasher::new();
        for (index, term) in self.terms.iter().enumerate() {
            let of_xorb = chunks(&term.xorb).ok_or(VerifyError::Missing {
                file: self.hash,
                term: index,
                xorb: term.xorb,
            })?;
            let of_term = term
                .verify(of_xorb.as_ref())
                .map_err(|rule| VerifyError::Term {
                    file: self.hash,
                    term: index,
                    rule,
                })?;
            for chunk in of_term {
                tree.push(*chunk);
            }
        }
        let actual = tree.file_hash();
        if actual == self.hash {
            return Ok(());
        }
        Err(VerifyError::Hash {
            expected: self.hash,
            actual,
        })
    }
}

impl Term {
    /// The term's chunks among those of its xorb.
    fn verify<'a>(&self, of_xorb: &'a [Chunk]) -> Result<&'a [Chunk], &'static str> {
        let chunks = of_xorb
            .get(self.start as usize..self.end as usize)
            .ok_or("the xorb has fewer chunks")?;
        let size: u64 = chunks.iter().map(|chunk| u64::from(chunk.size)).sum();
        if size != u64::from(self.size) {
            return Err("its chunks have another size");
        }
        let actual = || range_hash(chunks.iter().map(|chunk| chunk.hash));
        if self.range_hash.is_some_and(|claimed| claimed != actual()) {
            return Err("its chunks have another range hash");
        }
        Ok(chunks)
    }
}
