//! Files over sockets without a copy: [`FileBytes`], and the stream that recognises them.
//!
//! A body is one ordinary [`Bytes`] that points into a mapping of the file. The mapping's address range
//! is registered here, and the stream under hyper looks up the slices it is asked to write: a hit goes
//! out by `sendfile`, everything else by an ordinary write. So hyper and axum stay unchanged, and
//! whoever copies the slice instead only loses speed, for the mapping is real.
//!
//! Invariant: a slice handed to `poll_write_vectored` is borrowed from a living [`Bytes`], and a region
//! leaves the registry before it is unmapped, so a hit always names the right file.
//!
//! A page that is not in memory would make `sendfile` wait for the disk inside a worker thread and
//! with it every request of that worker. So the next chunk is probed without waiting (`preadv2` with
//! `RWF_NOWAIT`), and a cold one is read ahead by a blocking thread first.
//!
//! TLS has to see the bytes: for it they are read from the file, with the same care (`sendfile::copied`).

#![allow(
    unsafe_code,
    reason = "the one place that maps files; each use says why it is sound"
)]

mod copied;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use memmap2::Mmap;
use rustix::fs::Advice;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::copied::CopiedStream;

/// Slices below this are written as they are: a look-up and a call of their own would cost more.
const SLICE_BYTES_MIN: usize = 16 << 10;
/// Bytes that one `sendfile` is asked for, and that are known to be in memory before it.
const CHUNK_BYTES: u64 = 2 << 20;
/// Bytes between two probes of a chunk: about the runs in which the kernel reads and forgets.
const PROBE_BYTES: u64 = 256 << 10;
/// Bytes asked of the disk ahead of a cold reader.
const AHEAD_BYTES: u64 = 8 << 20;
/// Bytes sent in one go before other tasks of the worker get their turn.
const BURST_BYTES: usize = 16 << 20;
/// Cold reads that run at a time; further ones wait for one to end.
static COLD_READS: Semaphore = Semaphore::const_new(16);

/// Mapped address ranges, by their first address.
static REGIONS: RwLock<BTreeMap<usize, Region>> = RwLock::new(BTreeMap::new());

struct Region {
    end: usize,
    file: Arc<File>,
    stamp: Stamp,
}

/// Where a slice of a mapping stands in its file.
struct Place {
    file: Arc<File>,
    stamp: Stamp,
    offset: u64,
}

impl Place {
    /// Fails once the file is not what was mapped: written to, or taken out of use.
    ///
    /// One that was removed as it was, such as to make room, is still good for whoever has it open. What is
    /// damaged is moved first, and emptied before it is removed.
    fn check(&self) -> io::Result<()> {
        let now = Stamp::of(&self.file)?;
        if now == self.stamp || (now.is_removed && now.is_same_content(&self.stamp)) {
            return Ok(());
        }
        Err(io::Error::other("the file changed while it was sent"))
    }
}

/// Changes when somebody writes to a file, or the node moves or removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: i128,
    modified: [i128; 2],
    changed: [i128; 2],
    is_removed: bool,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Self {
            size: stat.st_size.into(),
            modified: [stat.st_mtime.into(), stat.st_mtime_nsec.into()],
            changed: [stat.st_ctime.into(), stat.st_ctime_nsec.into()],
            is_removed: stat.st_nlink == 0,
        })
    }

    fn is_same_content(&self, other: &Self) -> bool {
        (self.size, self.modified) == (other.size, other.modified)
    }
}

/// Where a slice worth a `sendfile` stands.
fn locate(slice: &[u8]) -> Option<Place> {
    if slice.len() < SLICE_BYTES_MIN {
        return None;
    }
    find(slice)
}

/// Where a slice of any size stands, if it is a mapping's.
fn find(slice: &[u8]) -> Option<Place> {
    let start = slice.as_ptr() as usize;
    let regions = REGIONS.read().unwrap_or_else(PoisonError::into_inner);
    let (base, region) = regions.range(..=start).next_back()?;
    (start + slice.len() <= region.end).then(|| Place {
        file: Arc::clone(&region.file),
        stamp: region.stamp,
        offset: (start - base) as u64,
    })
}

/// A registered mapping; leaves the registry before its memory is unmapped.
struct Mapping {
    map: Mmap,
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let start = self.map.as_ptr() as usize;
        let region = REGIONS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&start);
        // Closing a file can take long: every stream's look-ups would wait for it.
        drop(region);
    }
}

/// A file as [`Bytes`], whose slices leave a gateway's sockets by `sendfile`.
///
/// Cheap to clone and to slice. Never look into the bytes of a file that somebody may truncate: that
/// is a SIGBUS, as with every mapping. The stream of a gateway doesn't, the kernel ends such a
/// transfer with an error instead.
#[derive(Clone)]
pub struct FileBytes {
    whole: Bytes,
}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBytes")
            .field("size", &self.whole.len())
            .finish()
    }
}

impl FileBytes {
    /// Maps the first `size` bytes of a file.
    ///
    /// # Errors
    /// The file is shorter than that, or the system refuses the mapping.
    pub fn new(file: Arc<File>, size: u64) -> io::Result<Self> {
        let stamp = Stamp::of(&file)?;
        let stored = file.metadata()?.len();
        if stored < size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{size} bytes expected, the file has {stored}"),
            ));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(Self {
                whole: Bytes::new(),
            });
        }
        // SAFETY: stored content is never written again after its rename into place, and a mapping that
        // is shared and read-only stays mapped for the life of `Mapping`. Whoever truncates the file
        // from outside makes reads of the pages fail: the stream reads them only inside system calls.
        let map = unsafe { memmap2::MmapOptions::new().len(size).map(&*file)? };
        let start = map.as_ptr() as usize;
        let region = Region {
            end: start + size,
            file,
            stamp,
        };
        REGIONS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(start, region);
        Ok(Self {
            whole: Bytes::from_owner(Mapping { map }),
        })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.whole.len() as u64
    }

    /// A part of the file, as a body.
    ///
    /// # Panics
    /// The range ends after the file.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        let end = usize::try_from(range.end).unwrap_or(usize::MAX);
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        self.whole.slice(start..end)
    }
}

/// How far ahead of a connection's transfer its file is in memory.
#[derive(Default)]
struct ReadAhead {
    /// The file, and the part of it that was last seen in memory.
    ready: Option<(Arc<File>, Range<u64>)>,
    /// Up to where the disk was asked, once a chunk was found cold.
    asked_until: u64,
    /// The cold read that the transfer waits for.
    reading: Option<AbortOnDropHandle<()>>,
}

impl ReadAhead {
    /// Ready once the next bytes at a place can be sent without waiting for a disk: how many.
    ///
    /// Fails where the file is not what was mapped; that is seen once per chunk.
    fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        place: &Place,
        len: u64,
    ) -> Poll<io::Result<u64>> {
        if let Some(reading) = &mut self.reading {
            // A failed cold read shows again in the transfer itself, as an error of `sendfile`.
            drop(ready!(Pin::new(reading).poll(cx)));
            self.reading = None;
        }
        let ready = self
            .ready
            .as_ref()
            .filter(|(file, _)| Arc::ptr_eq(file, &place.file))
            .map(|(_, part)| part.clone());
        match ready {
            Some(part) if part.contains(&place.offset) => {
                return Poll::Ready(Ok(len.min(part.end - place.offset)));
            }
            Some(_) => {}
            None => self.asked_until = 0,
        }
        place.check()?;
        let chunk = len.min(CHUNK_BYTES);
        let end = place.offset + len;
        let part = place.offset..place.offset + chunk;
        self.ready = Some((Arc::clone(&place.file), part));
        if is_resident(&place.file, place.offset, chunk) {
            self.keep_ahead(place, end);
            return Poll::Ready(Ok(chunk));
        }
        let ahead = place.offset..end.min(place.offset + AHEAD_BYTES);
        self.asked_until = ahead.end;
        let file = Arc::clone(&place.file);
        let offset = place.offset;
        let mut reading = AbortOnDropHandle::new(tokio::spawn(async move {
            let permit = COLD_READS.acquire().await;
            let work = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                ask(&file, ahead);
                read_through(&file, offset, chunk);
            });
            drop(work.await);
        }));
        match Pin::new(&mut reading).poll(cx) {
            Poll::Ready(_) => Poll::Ready(Ok(chunk)),
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
        }
    }

    /// Has the next bytes probed anew.
    fn forget(&mut self) {
        if let Some((_, part)) = &mut self.ready {
            *part = 0..0;
        }
    }

    /// Asks the disk for more when a cold transfer has used up half of what was asked before.
    fn keep_ahead(&mut self, place: &Place, end: u64) {
        let is_cold = self.asked_until > place.offset;
        if !is_cold || self.asked_until >= end || self.asked_until - place.offset > AHEAD_BYTES / 2
        {
            return;
        }
        if is_resident(&place.file, self.asked_until, 1) {
            // Only a part of the file was cold.
            self.asked_until = 0;
            return;
        }
        // Where all places are taken the transfer meets a cold chunk, and waits in their queue.
        if let Ok(permit) = COLD_READS.try_acquire() {
            let ahead = self.asked_until..end.min(place.offset + AHEAD_BYTES);
            self.asked_until = ahead.end;
            let file = Arc::clone(&place.file);
            drop(tokio::task::spawn_blocking(move || {
                let _permit = permit;
                ask(&file, ahead);
            }));
        }
    }
}

/// Whether the pages probed are in memory; where the file system can't tell, they count as such.
fn is_resident(file: &File, offset: u64, len: u64) -> bool {
    let last = offset + len - 1;
    let mut at = offset;
    loop {
        let mut byte = [0];
        let probe = rustix::io::preadv2(
            file,
            &mut [IoSliceMut::new(&mut byte)],
            at,
            ReadWriteFlags::NOWAIT,
        );
        if probe == Err(Errno::AGAIN) {
            return false;
        }
        if at == last {
            return true;
        }
        at = (at + PROBE_BYTES).min(last);
    }
}

/// Tells the kernel to begin reading a part of a file.
fn ask(file: &File, range: Range<u64>) {
    if let Some(len) = NonZeroU64::new(range.end.saturating_sub(range.start)) {
        // Advice: where it is not taken the transfer is slower, nothing else.
        let advised = rustix::fs::fadvise(file, range.start, Some(len), Advice::WillNeed);
        if let Err(error) = advised {
            tracing::trace!(%error, "fadvise");
        }
    }
}

/// Waits until a part of a file is in memory: sends it to `/dev/null`, which takes pages uncopied.
fn read_through(file: &File, mut offset: u64, len: u64) {
    static NULL: OnceLock<Option<File>> = OnceLock::new();
    let Some(null) = NULL.get_or_init(|| File::options().write(true).open("/dev/null").ok()) else {
        return;
    };
    let end = offset + len;
    while offset < end {
        let rest = usize::try_from(end - offset).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(null, file, Some(&mut offset), rest) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Whether a call is to be made again: the socket is full, or a signal came in between.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// What a [`FileStream`] tells about the bytes that pass it.
pub(crate) trait Watch: Send + Sync {
    /// Bytes came in.
    fn received(&self, bytes: usize);
    /// Bytes went out.
    fn sent(&self, bytes: usize);
    /// The peer takes nothing at the moment.
    fn blocked(&self);
}

/// A TCP connection that sends slices of [`FileBytes`] by `sendfile`.
pub(crate) struct FileStream<W> {
    stream: TcpStream,
    watch: W,
    ahead: ReadAhead,
    burst_bytes: usize,
}

impl<W: Watch> FileStream<W> {
    pub(crate) fn new(stream: TcpStream, watch: W) -> Self {
        Self {
            stream,
            watch,
            ahead: ReadAhead::default(),
            burst_bytes: 0,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let empty = bufs.iter().take_while(|slice| slice.is_empty()).count();
        let bufs = &bufs[empty..];
        let mut place = None;
        let plain = bufs
            .iter()
            .take_while(|slice| {
                place = locate(slice);
                place.is_none()
            })
            .count();
        match place {
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
            Some(place) if plain == 0 => self.poll_send_file(cx, &place, bufs[0].len() as u64),
            Some(_) => self.poll_send_head(cx, &bufs[..plain]),
        }
    }

    /// Writes what stands before a file, held back so that it shares a packet with the file's start.
    fn poll_send_head(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let mut control = SendAncillaryBuffer::default();
                let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
                Ok(rustix::net::sendmsg(
                    &self.stream,
                    bufs,
                    &mut control,
                    flags,
                )?)
            });
            match sent {
                Err(error) if is_passing(&error) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        place: &Place,
        len: u64,
    ) -> Poll<io::Result<usize>> {
        if self.burst_bytes >= BURST_BYTES {
            self.burst_bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let chunk = ready!(self.ahead.poll_ready(cx, place, len))?;
            let chunk = usize::try_from(chunk).unwrap_or(usize::MAX);
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let mut offset = place.offset;
                Ok(rustix::fs::sendfile(
                    &self.stream,
                    &place.file,
                    Some(&mut offset),
                    chunk,
                )?)
            });
            match sent {
                // Who waits long for its peer may find the pages gone again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ahead.forget(),
                Err(error) if is_passing(&error) => {}
                Ok(0) => {
                    let error = "the file ended before its expected size";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)));
                }
                Ok(sent) => {
                    self.burst_bytes += sent;
                    return Poll::Ready(Ok(sent));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn observe(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(bytes)) => self.watch.sent(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.burst_bytes = 0;
                self.watch.blocked();
            }
        }
        result
    }
}

impl<W: Watch + Unpin> AsyncRead for FileStream<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let received = buf.filled().len() - before;
        if received > 0 {
            self.watch.received(received);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: Watch + Unpin> AsyncWrite for FileStream<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = self.poll_send(cx, &[IoSlice::new(buf)]);
        self.observe(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.poll_send(cx, bufs);
        self.observe(sent)
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

    use super::*;

    #[test]
    fn slices_are_located_only_while_their_mapping_lives() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 200_000]).unwrap();
        let bytes = FileBytes::new(Arc::new(file), 200_000).unwrap();
        let part = bytes.slice(50_000..150_000);
        assert_eq!(locate(&part).unwrap().offset, 50_000);
        assert!(locate(&part[..100]).is_none(), "short slices are copied");
        let other = vec![0; 100_000];
        assert!(locate(&other).is_none());
        let start = bytes.slice(0..200_000).as_ptr() as usize;
        drop(bytes);
        assert!(locate(&part).is_some(), "a living slice keeps the mapping");
        drop(part);
        assert!(!REGIONS.read().unwrap().contains_key(&start));
    }

    #[test]
    fn a_file_taken_out_of_use_is_not_sent_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let bytes = FileBytes::new(Arc::new(File::open(&path).unwrap()), 100_000).unwrap();
        let part = bytes.slice(0..100_000);
        locate(&part).unwrap().check().unwrap();
        // File systems count time in ticks.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::rename(&path, dir.path().join("b")).unwrap();
        locate(&part).unwrap().check().unwrap_err();
    }

    #[test]
    fn a_file_removed_as_it_was_is_sent_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let bytes = FileBytes::new(Arc::new(File::open(&path).unwrap()), 100_000).unwrap();
        let part = bytes.slice(0..100_000);
        let writer = File::options().write(true).open(&path).unwrap();
        // File systems count time in ticks.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::remove_file(&path).unwrap();
        locate(&part).unwrap().check().unwrap();
        writer.set_len(0).unwrap();
        locate(&part).unwrap().check().unwrap_err();
    }

    #[test]
    fn a_file_shorter_than_said_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let error = FileBytes::new(Arc::new(file), 11).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn reading_through_brings_a_file_into_memory() {
        let mut file = tempfile::tempfile_in(".").unwrap();
        file.write_all(&vec![7; 3 << 20]).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        read_through(&file, 0, 3 << 20);
        assert!(is_resident(&file, 0, 3 << 20));
    }
}
