//! How a xorb stores a chunk's bytes.

use std::borrow::Cow;

use super::lz4;

/// How a xorb stores a chunk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// As they are.
    None = 0,
    /// As an LZ4 frame.
    Lz4 = 1,
    /// As an LZ4 frame of every fourth byte, then every fourth from the second on, and so on, which brings
    /// together the exponents of 32-bit floats.
    GroupedLz4 = 2,
}

impl Compression {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::GroupedLz4];

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// What is stored for the bytes of a chunk, which is within its limit.
    pub(super) fn pack(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::None => bytes.into(),
            Self::Lz4 => lz4::pack(bytes).into(),
            Self::GroupedLz4 => lz4::pack(&group(bytes)).into(),
        }
    }

    /// Makes `out` the `size` bytes of the chunk, whose size the caller has checked; otherwise says what
    /// is wrong with what is stored, and leaves in `out` what it will.
    pub(super) fn unpack(
        self,
        stored: &[u8],
        size: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        match self {
            Self::None if stored.len() == size => {
                out.clear();
                out.extend_from_slice(stored);
            }
            Self::None => return Err("it is stored as it is, but in another number of bytes"),
            Self::Lz4 => {
                out.resize(size, 0);
                lz4::unpack(stored, out)?;
            }
            Self::GroupedLz4 => {
                out.resize(2 * size, 0);
                let (bytes, grouped) = out.split_at_mut(size);
                lz4::unpack(stored, grouped)?;
                ungroup(grouped, bytes);
                out.truncate(size);
            }
        }
        Ok(())
    }
}

fn group(bytes: &[u8]) -> Vec<u8> {
    let every_fourth = |start| bytes.iter().skip(start).step_by(4);
    (0..4).flat_map(every_fourth).copied().collect()
}

/// Where the four groups of this many bytes lie: the first ones have what doesn't divide by four.
fn groups(grouped: &[u8]) -> [&[u8]; 4] {
    let mut rest = grouped;
    std::array::from_fn(|index| {
        let (group, behind) = rest.split_at((grouped.len() + 3 - index) / 4);
        rest = behind;
        group
    })
}

fn ungroup(grouped: &[u8], out: &mut [u8]) {
    let [first, second, third, fourth] = groups(grouped);
    let (fours, tail) = out.as_chunks_mut::<4>();
    let bytes = first.iter().zip(second).zip(third).zip(fourth);
    for (four, (((first, second), third), fourth)) in fours.iter_mut().zip(bytes) {
        *four = [*first, *second, *third, *fourth];
    }
    for (byte, group) in tail.iter_mut().zip([first, second, third]) {
        *byte = *group
            .last()
            .expect("invariant: a group has a byte of the tail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_every_fourth_byte_and_join_again() {
        assert_eq!(group(b"0123456789"), b"0481592637");
        for size in 0..70 {
            let bytes: Vec<u8> = (0..size).collect();
            let mut out = vec![0; bytes.len()];
            ungroup(&group(&bytes), &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn numbers_are_those_of_the_header() {
        for compression in Compression::ALL {
            assert_eq!(
                Compression::from_number(compression as u8),
                Some(compression)
            );
        }
        assert_eq!(Compression::from_number(3), None);
        assert_eq!(Compression::from_number(99), None);
    }
}
