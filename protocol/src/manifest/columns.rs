//! The columns of a manifest's entry: numbered, length-prefixed, in ascending order, absent where unknown.

use crate::format::{FormatError, Reader, small};
use crate::hash::{Blake3, Sha256};
use crate::manifest::{EntryKind, ManifestEntry};

const SIZE: u8 = 1;
const SHA256: u8 = 2;
const BLAKE3: u8 = 3;
const XET: u8 = 4;
const MANIFEST: u8 = 5;
const POINTER: u8 = 6;
/// Higher numbers are columns of a later version.
const KNOWN_MAX: u8 = POINTER;

/// Checks that the columns are those of the entry's kind, and that the unknown ones can be written.
pub(super) fn check(entry: &ManifestEntry) -> Result<(), FormatError> {
    let has = [
        entry.size.is_some(),
        entry.sha256.is_some(),
        entry.blake3.is_some(),
        entry.xet.is_some(),
        entry.manifest.is_some(),
        entry.pointer.is_some(),
    ];
    let [size, sha256, blake3, xet, manifest, pointer] = has;
    let rule = match entry.kind {
        EntryKind::File | EntryKind::Symlink if manifest || pointer => {
            Some("a file of git's has neither a manifest nor a pointer")
        }
        EntryKind::File | EntryKind::Symlink if blake3 && !(size && sha256) => {
            Some("where the BLAKE3 is known, size and SHA-256 are")
        }
        EntryKind::Symlink if xet => Some("a symbolic link has no Xet hash"),
        EntryKind::Lfs if manifest => Some("an LFS file has no manifest"),
        EntryKind::Lfs if !(size && sha256) => Some("size and SHA-256 of an LFS file are known"),
        EntryKind::Directory if has != [false, false, false, false, true, false] => {
            Some("a directory has a manifest and nothing else")
        }
        EntryKind::Gitlink if has.contains(&true) => Some("a gitlink has no columns"),
        _ => None,
    };
    if let Some(rule) = rule {
        return Err(entry.rule(rule));
    }
    check_unknown(entry)
}

fn check_unknown(entry: &ManifestEntry) -> Result<(), FormatError> {
    let mut last = KNOWN_MAX;
    for (number, value) in &entry.unknown {
        if *number <= last {
            return Err(entry.rule("columns stand in ascending order, none twice, none numbered 0"));
        }
        if value.len() > usize::from(u16::MAX) {
            return Err(entry.rule("a column has at most 65535 bytes"));
        }
        last = *number;
    }
    Ok(())
}

/// Bytes that [`write`] writes.
pub(super) fn size(entry: &ManifestEntry) -> usize {
    let known = known(entry).map(|(_, value)| 3 + value.len());
    let unknown = entry.unknown.iter().map(|(_, value)| 3 + value.len());
    1 + known.chain(unknown).sum::<usize>()
}

/// Writes the columns of an entry that [`check`] has passed.
pub(super) fn write(entry: &ManifestEntry, out: &mut Vec<u8>) {
    out.push(small(known(entry).count() + entry.unknown.len()));
    let mut column = |number: u8, value: &[u8]| {
        out.push(number);
        out.extend_from_slice(&small::<u16>(value.len()).to_le_bytes());
        out.extend_from_slice(value);
    };
    for (number, value) in known(entry) {
        column(number, value.bytes());
    }
    for (number, value) in &entry.unknown {
        column(*number, value);
    }
}

/// Reads the columns into an entry that has none yet.
pub(super) fn read(entry: &mut ManifestEntry, reader: &mut Reader<'_>) -> Result<(), FormatError> {
    let count = reader.u8("count of columns")?;
    let mut last = 0;
    for _ in 0..count {
        let number = reader.u8("number of a column")?;
        let length = usize::from(reader.u16("length of a column")?);
        let value = reader.bytes(length, "column")?;
        if number <= last {
            return Err(entry.rule("columns stand in ascending order, none twice, none numbered 0"));
        }
        last = number;
        let hash = <[u8; 32]>::try_from(value);
        let wrong = || entry.rule("a column has the length of its type");
        match number {
            SIZE => {
                let bytes = value.try_into().map_err(|_| wrong())?;
                entry.size = Some(u64::from_le_bytes(bytes));
            }
            SHA256 => entry.sha256 = Some(Sha256::from_bytes(hash.map_err(|_| wrong())?)),
            BLAKE3 => entry.blake3 = Some(Blake3::from_bytes(hash.map_err(|_| wrong())?)),
            XET => entry.xet = Some(hash.map_err(|_| wrong())?),
            MANIFEST => entry.manifest = Some(Blake3::from_bytes(hash.map_err(|_| wrong())?)),
            POINTER => entry.pointer = Some(Blake3::from_bytes(hash.map_err(|_| wrong())?)),
            _ => entry.unknown.push((number, value.to_vec())),
        }
    }
    Ok(())
}

/// The value of a known column.
enum Value<'a> {
    Number([u8; 8]),
    Hash(&'a [u8; 32]),
}

impl Value<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Number(bytes) => bytes,
            Self::Hash(bytes) => *bytes,
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }
}

/// The known columns that the entry has, in ascending order.
fn known(entry: &ManifestEntry) -> impl Iterator<Item = (u8, Value<'_>)> {
    let size = entry
        .size
        .map(|size| (SIZE, Value::Number(size.to_le_bytes())));
    let hashes = [
        (SHA256, entry.sha256.as_ref().map(Sha256::as_bytes)),
        (BLAKE3, entry.blake3.as_ref().map(Blake3::as_bytes)),
        (XET, entry.xet.as_ref()),
        (MANIFEST, entry.manifest.as_ref().map(Blake3::as_bytes)),
        (POINTER, entry.pointer.as_ref().map(Blake3::as_bytes)),
    ];
    let hashes = hashes
        .into_iter()
        .filter_map(|(number, hash)| Some((number, Value::Hash(hash?))));
    size.into_iter().chain(hashes)
}
