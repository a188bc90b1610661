//! Files over streams that have to see the bytes, as TLS does.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Place, ReadAhead, find};

/// Bytes read from a file at a time: what TLS takes in one go.
const BUFFER_BYTES: usize = 64 << 10;

/// A stream that reads slices of [`super::FileBytes`] from their file, and writes what it read.
///
/// The mapping itself must not be looked into: where the file was truncated meanwhile that would end the
/// process, and where it is cold make a worker thread wait for the disk.
pub(crate) struct CopiedStream<S> {
    stream: S,
    ahead: ReadAhead,
    /// Empty until the first file.
    buffer: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> CopiedStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: ReadAhead::default(),
            buffer: Vec::new(),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let empty = bufs.iter().take_while(|slice| slice.is_empty()).count();
        let bufs = &bufs[empty..];
        let mut place = None;
        let plain = bufs
            .iter()
            .take_while(|slice| {
                place = find(slice);
                place.is_none()
            })
            .count();
        match place {
            Some(place) if plain == 0 => self.poll_send_file(cx, &place, bufs[0].len()),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, &bufs[..plain]),
        }
    }

    /// What the stream doesn't take is read again at the next call: nothing is kept that could be stale.
    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        place: &Place,
        len: usize,
    ) -> Poll<io::Result<usize>> {
        let chunk = ready!(self.ahead.poll_ready(cx, place, len as u64))?;
        self.buffer.resize(BUFFER_BYTES, 0);
        let wanted = usize::try_from(chunk).map_or(BUFFER_BYTES, |chunk| chunk.min(BUFFER_BYTES));
        let read = loop {
            match rustix::io::pread(&place.file, &mut self.buffer[..wanted], place.offset) {
                Err(Errno::INTR) => {}
                Ok(0) => {
                    let error = "the file ended before its expected size";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)));
                }
                read => break read?,
            }
        };
        let sent = Pin::new(&mut self.stream).poll_write(cx, &self.buffer[..read]);
        if sent.is_pending() {
            // Who waits long for its peer may find the pages gone again.
            self.ahead.forget();
        }
        sent
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CopiedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CopiedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::FileBytes;
    use super::*;

    fn file(size: usize) -> (std::fs::File, FileBytes) {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..=250).cycle().take(size).collect();
        file.write_all(&content).unwrap();
        let bytes = FileBytes::new(Arc::new(file.try_clone().unwrap()), size as u64).unwrap();
        (file, bytes)
    }

    #[tokio::test]
    async fn files_and_what_stands_around_them_come_in_their_order() {
        let (_file, bytes) = file(300_000);
        let (near, mut far) = tokio::io::duplex(10_000);
        let mut near = CopiedStream::new(near);
        let (long, short) = (bytes.slice(1..299_000), bytes.slice(299_000..299_010));
        let parts: [&[u8]; 5] = [b"head", &long, b"", b"middle", &short];
        let expected = parts.concat();
        let write = async {
            let mut slices = parts.map(IoSlice::new);
            let mut rest = &mut slices[..];
            while !rest.is_empty() {
                let sent = near.write_vectored(rest).await.unwrap();
                IoSlice::advance_slices(&mut rest, sent);
            }
            near.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), got) = tokio::join!(write, far.read_to_end(&mut read));
        got.unwrap();
        assert!(read == expected);
    }

    #[tokio::test]
    async fn a_file_that_was_truncated_is_an_error_and_no_signal() {
        let (file, bytes) = file(100_000);
        let (near, _far) = tokio::io::duplex(1 << 20);
        let mut near = CopiedStream::new(near);
        near.write_all(&bytes.slice(0..50_000)).await.unwrap();
        file.set_len(0).unwrap();
        for part in [bytes.slice(50_000..100_000), bytes.slice(99_990..100_000)] {
            near.write_all(&part).await.unwrap_err();
        }
    }
}
