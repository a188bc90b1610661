//! What our own binary formats share: how their bytes are read, and why they are refused.
//!
//! Every format has one encoding. A decoder takes exactly the bytes that its encoder writes; anything
//! else (another magic, bytes left over, a column out of order) is refused and never normalised.
//! `docs/format.md` has the byte tables.

use crate::hash::{Blake3, GitOid};

/// Why bytes are not a valid manifest, commit entry, refs blob or piece list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The first eight bytes name another format or version.
    #[error("these bytes are no {0}: they begin with another format or version")]
    Magic(&'static str),
    /// The bytes end within a field.
    #[error("the {what} ends early: {field} needs bytes that are not there")]
    Short {
        /// The format.
        what: &'static str,
        /// The field that is cut off.
        field: &'static str,
    },
    /// Bytes follow the last field.
    #[error("{count} bytes follow the end of the {what}")]
    Trailing {
        /// The format.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// More of something than `limits` allows.
    #[error("the {what} has {count} {of}, more than the {max} that are allowed")]
    TooMany {
        /// The format.
        what: &'static str,
        /// What there is too much of.
        of: &'static str,
        /// How many there are.
        count: u64,
        /// How many there may be.
        max: u64,
    },
    /// A field that breaks the format's rules.
    #[error("the {what} is not valid at {place}: {rule}")]
    Rule {
        /// The format.
        what: &'static str,
        /// Which entry or field.
        place: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
}

/// Takes fields off the front of a blob; every error says which field of which format.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks the length and the magic, and stands behind it.
    pub(crate) fn new(
        what: &'static str,
        magic: [u8; 8],
        bytes: &'a [u8],
    ) -> Result<Self, FormatError> {
        check_count(what, "bytes", bytes.len(), crate::limits::OBJECT_BYTES_MAX)?;
        match bytes.strip_prefix(&magic) {
            Some(rest) => Ok(Self { what, rest }),
            None => Err(FormatError::Magic(what)),
        }
    }

    /// Stands at the first byte of a form without a magic, whose length was checked.
    pub(crate) const fn bare(what: &'static str, rest: &'a [u8]) -> Self {
        Self { what, rest }
    }

    /// All bytes that are left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// How many bytes are left.
    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether bytes are left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Stands at the beginning of a message, which has no magic: its channel says what it is.
    pub(crate) fn message(
        what: &'static str,
        bytes: &'a [u8],
        max: usize,
    ) -> Result<Self, FormatError> {
        check_count(what, "bytes", bytes.len(), max)?;
        Ok(Self { what, rest: bytes })
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], FormatError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(FormatError::Short {
                what: self.what,
                field,
            }),
        }
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N, field)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn oid(&mut self, field: &'static str) -> Result<GitOid, FormatError> {
        Ok(GitOid::from_bytes(self.array(field)?))
    }

    pub(crate) fn blake3(&mut self, field: &'static str) -> Result<Blake3, FormatError> {
        Ok(Blake3::from_bytes(self.array(field)?))
    }

    /// A byte that is 1 before a hash, or 0 where it is unknown.
    pub(crate) fn known(&mut self, field: &'static str) -> Result<Option<Blake3>, FormatError> {
        match self.u8(field)? {
            0 => Ok(None),
            1 => Ok(Some(self.blake3(field)?)),
            _ => Err(self.rule(field, "the byte before a hash is 0 (unknown) or 1 (known)")),
        }
    }

    /// Refuses bytes after the last field.
    pub(crate) fn finish(self) -> Result<(), FormatError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(FormatError::Trailing {
                what: self.what,
                count,
            }),
        }
    }

    /// An error that names the field.
    pub(crate) fn rule(&self, place: impl Into<String>, rule: &'static str) -> FormatError {
        FormatError::Rule {
            what: self.what,
            place: place.into(),
            rule,
        }
    }
}

/// Refuses a count above its limit.
pub(crate) fn check_count(
    what: &'static str,
    of: &'static str,
    count: usize,
    max: usize,
) -> Result<(), FormatError> {
    if count <= max {
        Ok(())
    } else {
        Err(FormatError::TooMany {
            what,
            of,
            count: count as u64,
            max: max as u64,
        })
    }
}

/// Writes what [`Reader::known`] reads.
pub(crate) fn write_known(out: &mut Vec<u8>, hash: Option<&Blake3>) {
    match hash {
        None => out.push(0),
        Some(hash) => {
            out.push(1);
            out.extend_from_slice(hash.as_bytes());
        }
    }
}

/// A count or length that a check has bounded, in the size that the format gives it.
pub(crate) fn small<N: TryFrom<usize>>(count: usize) -> N {
    let Ok(small) = N::try_from(count) else {
        panic!("invariant: {count} was checked against its limit");
    };
    small
}
