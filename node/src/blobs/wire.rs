//! Reading and writing a stream by progress: who stops is left, whoever is only slow is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use iroh::endpoint::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::{Instant, timeout_at};

use super::TransferError;
use super::rate::Rate;
use super::traffic::Counts;

/// Bytes that must move within a timeout, or all that are left where that is less.
pub(super) const PROGRESS_BYTES: usize = 16 << 10;
/// Time that a peer we read from has for as much; tests would not wait so long.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 20 });
/// Time that a peer which reads from us has for as much.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// Chunks of a stream, of a datagram each, that are read at once.
const CHUNKS: usize = 32;
/// Bytes that are taken from the rate at once.
pub(super) const RATE_STEP_BYTES: usize = 64 << 10;

/// A stream that did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    /// It ended before.
    #[error("the stream ended early")]
    Ended,
    /// The peer broke it off with this code.
    #[error("the peer broke off with code {0}")]
    Reset(VarInt),
    /// Too little moved for too long.
    #[error("too little moved for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The connection is lost.
    #[error("the connection is lost")]
    Lost,
    /// More than is taken.
    #[error("it has more than {0} bytes")]
    TooLong(usize),
}

impl StreamError {
    /// As a getter sees it: who ends without a word or with a code has not got the rest.
    pub(super) fn of_transfer(self) -> TransferError {
        match self {
            Self::Ended => TransferError::Absent,
            Self::Reset(code)
                if code == iroh_blobs::protocol::ERR_PERMISSION
                    || code == iroh_blobs::protocol::ERR_INTERNAL =>
            {
                TransferError::Absent
            }
            Self::Reset(_) | Self::Stalled(_) | Self::Lost | Self::TooLong(_) => {
                TransferError::Broken(self.to_string())
            }
        }
    }
}

/// Where an answer comes from.
pub(super) trait Source: Send {
    /// Chunks that came, one at least, put at the beginning of these; how many.
    fn read(
        &mut self,
        chunks: &mut [Bytes],
    ) -> impl Future<Output = Result<usize, StreamError>> + Send;
}

impl Source for RecvStream {
    /// As many as have come, so that the connection, which its own tasks use too, is locked seldom.
    async fn read(&mut self, chunks: &mut [Bytes]) -> Result<usize, StreamError> {
        match self.read_many_chunks(chunks).await {
            Ok(Some(count)) => Ok(count),
            Ok(None) => Err(StreamError::Ended),
            Err(ReadError::Reset(code)) => Err(StreamError::Reset(code)),
            Err(_) => Err(StreamError::Lost),
        }
    }
}

/// Reads an answer.
#[derive(Debug)]
pub(super) struct Reading<'a, S = RecvStream> {
    source: &'a mut S,
    /// All bytes that are read pass this.
    rate: Option<&'a Rate>,
    pub(super) counts: Arc<Counts>,
    /// What came and is not read yet: the first `ended` of these, less the first `begun`.
    chunks: Box<[Bytes; CHUNKS]>,
    begun: usize,
    ended: usize,
}

impl<'a, S: Source> Reading<'a, S> {
    pub(super) fn new(source: &'a mut S, rate: Option<&'a Rate>, counts: Arc<Counts>) -> Self {
        Self {
            source,
            rate,
            counts,
            chunks: Box::default(),
            begun: 0,
            ended: 0,
        }
    }

    /// Fills a buffer.
    pub(super) async fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StreamError> {
        match self.fill_or_end(buffer).await {
            (_, None) => Ok(()),
            (_, Some(error)) => Err(error),
        }
    }

    /// Fills a buffer as far as possible: how far, and why no further.
    pub(super) async fn fill_or_end(&mut self, buffer: &mut [u8]) -> (usize, Option<StreamError>) {
        let mut filled = self.take(buffer);
        if filled == buffer.len() {
            return (filled, None);
        }
        let ended = self.fill_from(buffer, &mut filled).await.err();
        (filled, ended)
    }

    async fn fill_from(
        &mut self,
        buffer: &mut [u8],
        filled: &mut usize,
    ) -> Result<(), StreamError> {
        let mut since = 0;
        let mut deadline = Instant::now() + READ_TIMEOUT;
        while *filled < buffer.len() {
            let read = self.source.read(&mut self.chunks[..]);
            let read = timeout_at(deadline, read).await;
            let count = read.map_err(|_| StreamError::Stalled(READ_TIMEOUT))??;
            (self.begun, self.ended) = (0, count);
            let bytes: usize = self.chunks[..count].iter().map(Bytes::len).sum();
            self.counts.add_moved(bytes as u64);
            if let Some(rate) = self.rate {
                // Our own waiting is not the peer's.
                let before = Instant::now();
                rate.take(bytes as u64).await;
                deadline += before.elapsed();
            }
            *filled += self.take(&mut buffer[*filled..]);
            since += bytes;
            if since >= PROGRESS_BYTES {
                since = 0;
                deadline = Instant::now() + READ_TIMEOUT;
            }
        }
        Ok(())
    }

    /// Moves what came into a buffer, as far as it goes.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len() && self.begun < self.ended {
            let chunk = &mut self.chunks[self.begun];
            let len = chunk.len().min(buffer.len() - filled);
            buffer[filled..filled + len].copy_from_slice(&chunk[..len]);
            filled += len;
            if len == chunk.len() {
                // Its memory is the network's again.
                *chunk = Bytes::new();
                self.begun += 1;
            } else {
                chunk.advance(len);
            }
        }
        filled
    }

    /// Reads and drops so many bytes, at most 64.
    pub(super) async fn skip(&mut self, bytes: usize) -> Result<(), StreamError> {
        self.fill(&mut [0; 64][..bytes.min(64)]).await
    }
}

/// Reads what a peer sends up to its end, in `time` altogether: for what is small.
pub(super) async fn read_small(
    recv: &mut RecvStream,
    max: usize,
    time: Duration,
) -> Result<Vec<u8>, StreamError> {
    let read = timeout_at(Instant::now() + time, recv.read_to_end(max)).await;
    match read.map_err(|_| StreamError::Stalled(time))? {
        Ok(bytes) => Ok(bytes),
        Err(iroh::endpoint::ReadToEndError::TooLong) => Err(StreamError::TooLong(max)),
        Err(iroh::endpoint::ReadToEndError::Read(ReadError::Reset(code))) => {
            Err(StreamError::Reset(code))
        }
        Err(iroh::endpoint::ReadToEndError::Read(_)) => Err(StreamError::Lost),
    }
}

/// Writes an answer.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    pub(super) send: &'a mut SendStream,
    /// All bytes that are written pass this.
    pub(super) rate: Option<&'a Rate>,
    pub(super) counts: Arc<Counts>,
}

impl Writing<'_> {
    /// Writes buffers without copying them.
    pub(super) async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamError> {
        let Some(rate) = self.rate else {
            return self.write_now(chunks).await;
        };
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut step = 0;
            let mut count = 0;
            while let Some(chunk) = rest.get(count).filter(|_| step < RATE_STEP_BYTES) {
                step += chunk.len();
                count += 1;
            }
            let (now, later) = rest.split_at_mut(count);
            rate.take(step as u64).await;
            self.write_now(now).await?;
            rest = later;
        }
        Ok(())
    }

    async fn write_now(&mut self, chunks: &mut [Bytes]) -> Result<(), StreamError> {
        let mut rest = chunks;
        let mut since = 0;
        let mut deadline = Instant::now() + WRITE_TIMEOUT;
        while !rest.is_empty() {
            let written = timeout_at(deadline, self.send.write_many_chunks(&mut rest)).await;
            let bytes = match written.map_err(|_| StreamError::Stalled(WRITE_TIMEOUT))? {
                Ok(bytes) => bytes,
                Err(WriteError::Stopped(code)) => return Err(StreamError::Reset(code)),
                Err(_) => return Err(StreamError::Lost),
            };
            self.counts.add_sent(bytes as u64);
            since += bytes;
            if since >= PROGRESS_BYTES {
                since = 0;
                deadline = Instant::now() + WRITE_TIMEOUT;
            }
        }
        Ok(())
    }
}
