//! Buffers of a piece each, used again: memory fresh from the system costs about as much as filling it.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use cairn_protocol::limits::PIECE_BYTES;
use parking_lot::Mutex;

/// Bytes of a buffer that is kept.
#[expect(clippy::cast_possible_truncation, reason = "a piece fits memory")]
const BUFFER_BYTES: usize = PIECE_BYTES as usize;
/// Below this a buffer is made for the occasion.
const SMALL_BYTES: usize = BUFFER_BYTES / 4;
/// Buffers that are kept while nobody uses them.
const FREE_MAX: usize = 16;

static FREE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// Bytes to be filled; what they are at first is of no meaning.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Buffer {
    /// One of so many bytes.
    pub(crate) fn new(len: usize) -> Self {
        let fits = (SMALL_BYTES..=BUFFER_BYTES).contains(&len);
        let free = if fits { FREE.lock().pop() } else { None };
        let bytes = free.unwrap_or_else(|| {
            let len = if fits { BUFFER_BYTES } else { len };
            vec![0; len].into_boxed_slice()
        });
        Self { bytes, len }
    }

    /// The bytes, to be shared; the memory is used again when the last of them is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() != BUFFER_BYTES {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = FREE.lock();
        if free.len() < FREE_MAX {
            free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_the_length_asked_for_and_clones_keep_it() {
        for len in [
            0,
            1,
            SMALL_BYTES,
            BUFFER_BYTES - 1,
            BUFFER_BYTES,
            BUFFER_BYTES + 1,
        ] {
            let mut buffer = Buffer::new(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(7);
            let bytes = buffer.freeze();
            let part = bytes.slice(len / 2..);
            drop(bytes);
            // Whoever is given memory next is not given this.
            let mut other = Buffer::new(len);
            other.fill(9);
            assert!(part.iter().all(|byte| *byte == 7), "{len}");
        }
    }
}
