//! Git-LFS pointers: the three lines that git keeps in place of a large file.
//!
//! Only the canonical form is a pointer to us. Anything else that git-lfs would take (other line order,
//! extensions, CRLF) is an ordinary blob, whose BLAKE3 the manifest keeps in a column of its own.

use crate::git::{self, ObjectKind};
use crate::hash::{GitOid, Sha256};

/// What a pointer says of the file it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pointer {
    /// SHA-256 of the file.
    pub sha256: Sha256,
    /// Bytes of the file.
    pub size: u64,
}

const VERSION_AND_OID: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:";
const SIZE: &str = "\nsize ";

impl Pointer {
    /// The canonical text.
    pub fn encode(&self) -> String {
        format!("{VERSION_AND_OID}{}{SIZE}{}\n", self.sha256, self.size)
    }

    /// Reads the canonical text; `None` for every other one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(VERSION_AND_OID.as_bytes())?;
        let (sha256, rest) = rest.split_at_checked(Sha256::SIZE * 2)?;
        let digits = rest.strip_prefix(SIZE.as_bytes())?.strip_suffix(b"\n")?;
        let canonical = digits.iter().all(u8::is_ascii_digit)
            && (digits.len() == 1 || digits.first() != Some(&b'0'));
        if !canonical {
            return None;
        }
        Some(Self {
            sha256: std::str::from_utf8(sha256).ok()?.parse().ok()?,
            size: std::str::from_utf8(digits).ok()?.parse().ok()?,
        })
    }

    /// Git object id of the pointer's text, which is what the tree names.
    pub fn oid(&self) -> GitOid {
        git::object_oid(ObjectKind::Blob, self.encode().as_bytes())
    }

    /// Bytes of the pointer's text.
    #[expect(clippy::len_without_is_empty, reason = "no pointer is empty")]
    pub fn len(&self) -> u64 {
        self.encode().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer() -> Pointer {
        Pointer {
            sha256: "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
                .parse()
                .unwrap(),
            size: 12345,
        }
    }

    #[test]
    fn the_text_is_that_of_git_lfs() {
        // The example of git-lfs' own specification, in its canonical form.
        let text = "version https://git-lfs.github.com/spec/v1\n\
            oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n\
            size 12345\n";
        assert_eq!(pointer().encode(), text);
        assert_eq!(Pointer::parse(text.as_bytes()), Some(pointer()));
        assert_eq!(pointer().len(), text.len() as u64);
    }

    #[test]
    fn only_the_canonical_form_is_a_pointer() {
        let text = pointer().encode();
        for other in [
            text.replace('\n', "\r\n"),
            text.replace("size 12345", "size 012345"),
            text.replace("size 12345", "size +12345"),
            text.replace("size 12345", "size "),
            text.replace("size 12345", "size 18446744073709551616"),
            text.replace("4d7a", "4D7A"),
            text.replace("sha256:4d", "sha256:"),
            text.replace("oid ", "ext-0-foo sha256:00\noid "),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("\u{feff}{text}"),
            String::new(),
        ] {
            assert_eq!(Pointer::parse(other.as_bytes()), None, "{other:?}");
        }
        let empty = Pointer {
            size: 0,
            ..pointer()
        };
        assert_eq!(Pointer::parse(empty.encode().as_bytes()), Some(empty));
    }
}
