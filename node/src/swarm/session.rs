//! The logical connection with one peer: a stream each way, frames on it, and what is told of it.
//!
//! A frame is its length, four bytes little-endian, and that many bytes. One task does all of a session, so
//! that what it tells comes in order: connected, frames, disconnected. The two streams belong together: when
//! one breaks, so does the session, at both ends, and a new one begins with both streams new.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::FRAME_BYTES_MAX;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::swarm::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::SwarmEvent;
use super::pace::Pace;
use super::peers::{Peers, Queued};

/// Bytes that a frame must gain within [`Patience::frame`]; less, and the peer is parted from.
const PROGRESS_BYTES: usize = 1 << 10;
/// Bytes that are read or written at once.
const CHUNK_BYTES: usize = 64 << 10;

/// How long a session waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a frame that began to gain [`PROGRESS_BYTES`] or to end.
    pub(super) frame: Duration,
    /// For the peer to take a byte, while frames wait.
    pub(super) write: Duration,
    /// For the peer to open its stream.
    pub(super) stream: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            frame: Duration::from_secs(30),
            write: Duration::from_mins(2),
            stream: Duration::from_secs(30),
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    /// It was told to.
    #[error("it was ended")]
    Ended,
    /// A stream broke, or the peer is stuck: a new session may do better.
    #[error("{0}")]
    Broken(String),
    /// The peer sent what it must not.
    #[error("{0}")]
    Misbehaved(String),
}

/// What a session runs on.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: PublicKey,
    pub(super) address: IpAddr,
    pub(super) out: Stream,
    /// Gives the peer's stream.
    pub(super) inbound: mpsc::Receiver<Stream>,
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) events: mpsc::Sender<SwarmEvent>,
    pub(super) peers: Arc<Peers>,
    pub(super) patience: Patience,
    /// Ends this session.
    pub(super) end: CancellationToken,
    /// Ends everything.
    pub(super) stop: CancellationToken,
}

impl Session {
    /// Runs to the end. The peer is in `peers` already, and is taken out here.
    pub(super) async fn run(mut self) -> End {
        let (told, end) = self.talk().await;
        self.peers.remove(&self.key);
        // What still waits is dropped before the event, so that its bytes are free again.
        self.queue.close();
        while self.queue.try_recv().is_ok() {}
        if told {
            let event = SwarmEvent::Disconnected(self.key);
            tokio::select! {
                _ = self.events.send(event) => {}
                () = self.stop.cancelled() => {}
            }
        }
        end
    }

    /// Whether the peer was told to be connected, and why the session ended.
    async fn talk(&mut self) -> (bool, End) {
        let connected = SwarmEvent::Connected(self.key, self.address);
        tokio::select! {
            sent = self.events.send(connected) => if sent.is_err() {
                return (false, End::Ended);
            },
            () = self.end.cancelled() => return (false, End::Ended),
        }
        let read = read(self.key, &mut self.inbound, &self.events, self.patience);
        let write = write(&mut self.out, &mut self.queue, self.patience.write);
        let end = tokio::select! {
            end = read => end,
            end = write => end,
            () = self.end.cancelled() => End::Ended,
        };
        (true, end)
    }
}

/// Reads frames until something is wrong. While an event waits to be taken, or the peer is ahead of its pace,
/// nothing is read, and the peer waits too.
async fn read(
    key: PublicKey,
    inbound: &mut mpsc::Receiver<Stream>,
    events: &mpsc::Sender<SwarmEvent>,
    patience: Patience,
) -> End {
    let mut stream = match timeout(patience.stream, inbound.recv()).await {
        Ok(Some(stream)) => stream,
        Ok(None) => return End::Ended,
        Err(_) => return End::Broken("it opened no stream to send on".to_owned()),
    };
    let mut pace = Pace::new(std::time::Instant::now());
    loop {
        let frame = match read_frame(&mut stream, patience.frame).await {
            Ok(frame) => frame,
            Err(end) => return end,
        };
        let wait = pace.take(std::time::Instant::now(), frame.len());
        if events.send(SwarmEvent::Frame(key, frame)).await.is_err() {
            return End::Ended;
        }
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// Reads one frame. There is no time limit before its first byte; memory grows only as bytes come.
async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    patience: Duration,
) -> Result<Vec<u8>, End> {
    let mut head = [0; 4];
    let first = stream.read(&mut head).await.map_err(broken)?;
    if first == 0 {
        return Err(End::Broken("it closed its stream".to_owned()));
    }
    let mut progress = Progress::new(patience);
    let mut filled = first;
    while filled < head.len() {
        filled += progress.read(stream, &mut head[filled..]).await?;
    }
    let length = u32::from_le_bytes(head) as usize;
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(End::Misbehaved(format!(
            "it sent a frame of {length} bytes, 1 to {FRAME_BYTES_MAX} are taken"
        )));
    }
    let mut frame = Vec::new();
    while frame.len() < length {
        let filled = frame.len();
        frame.resize(length.min(filled + CHUNK_BYTES), 0);
        let count = progress.read(stream, &mut frame[filled..]).await?;
        frame.truncate(filled + count);
    }
    Ok(frame)
}

/// Watches that a frame gains bytes.
struct Progress {
    patience: Duration,
    until: Instant,
    gained: usize,
}

impl Progress {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            until: Instant::now() + patience,
            gained: 0,
        }
    }

    async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut [u8],
    ) -> Result<usize, End> {
        let count = match timeout_at(self.until, stream.read(buffer)).await {
            Ok(Ok(0)) => {
                return Err(End::Broken(
                    "it closed its stream within a frame".to_owned(),
                ));
            }
            Ok(Ok(count)) => count,
            Ok(Err(error)) => return Err(broken(error)),
            Err(_) => {
                return Err(End::Misbehaved(format!(
                    "it sent a frame at less than {PROGRESS_BYTES} bytes in {:?}",
                    self.patience
                )));
            }
        };
        self.gained += count;
        if self.gained >= PROGRESS_BYTES {
            *self = Self::new(self.patience);
        }
        Ok(count)
    }
}

/// Writes what is queued until something is wrong.
async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    queue: &mut mpsc::Receiver<Queued>,
    patience: Duration,
) -> End {
    while let Some(queued) = queue.recv().await {
        if let Err(end) = write_frame(stream, queued.frame(), patience, queue.is_empty()).await {
            return end;
        }
    }
    End::Ended
}

async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
    patience: Duration,
    flush: bool,
) -> Result<(), End> {
    let stuck = |_| End::Broken(format!("it took nothing for {patience:?}"));
    let length = u32::try_from(frame.len()).expect("invariant: a queued frame is within its limit");
    for mut bytes in [&length.to_le_bytes()[..], frame] {
        while !bytes.is_empty() {
            let chunk = &bytes[..bytes.len().min(CHUNK_BYTES)];
            let written = timeout(patience, stream.write(chunk)).await;
            match written.map_err(stuck)?.map_err(broken)? {
                0 => return Err(End::Broken("it takes no more".to_owned())),
                count => bytes = &bytes[count..],
            }
        }
    }
    if flush {
        let flushed = timeout(patience, stream.flush()).await;
        flushed.map_err(stuck)?.map_err(broken)?;
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn broken(error: std::io::Error) -> End {
    End::Broken(format!("its stream broke: {error}"))
}

/// Bytes of frames that wait for all peers together.
pub(super) type QueuedBytes = Arc<AtomicUsize>;

/// Takes from a count unless that would pass a limit.
pub(super) fn reserve(count: &AtomicUsize, add: usize, max: usize) -> bool {
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            held.checked_add(add).filter(|sum| *sum <= max)
        })
        .is_ok()
}
