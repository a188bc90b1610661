//! Files that this node lacks: fetched from peers, and sent while they arrive.
//!
//! A status is sent once the first bytes are here, so that a file that nobody has gets a clear answer.
//! What goes wrong later ends the connection before the length that was promised, and clients ask for
//! the rest. Nothing here is kept for later requests: a file that has arrived is a stored one.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use cairn_node::fetch::{Arriving, FetchError, Wanted};
use cairn_node::store::StoreError;
use cairn_protocol::limits::PIECE_BYTES;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::document::Part;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::metrics;
use crate::server::LongBody;

/// Bytes that come in any order, as an [`Arriving`] has them.
pub(super) trait Source: Send + Sync + 'static {
    /// Some bytes from a place on, at most so many; at least one, and at most to the end of a piece.
    fn read(
        &self,
        offset: u64,
        len_max: u64,
    ) -> impl Future<Output = Result<Bytes, FetchError>> + Send;

    /// Fetches all of it, and tells whether it is what was claimed.
    fn finished(&self) -> impl Future<Output = Result<(), FetchError>> + Send;
}

impl Source for Arriving {
    async fn read(&self, offset: u64, len_max: u64) -> Result<Bytes, FetchError> {
        Self::read(self, offset, len_max).await
    }

    async fn finished(&self) -> Result<(), FetchError> {
        Self::finished(self).await.map(drop)
    }
}

/// Gives an answer its body: a part of a file that the node fetches, or joins the fetching of.
///
/// `damage` is why the node's own copy can't be sent, where it has one.
///
/// # Errors
/// Too many such answers are under way, or the first bytes did not come.
pub(super) async fn fill(
    gateway: &Gateway,
    mut response: Response,
    part: Part,
    wanted: Wanted,
    damage: Option<StoreError>,
) -> Result<Response, ApiError> {
    let places = Arc::clone(gateway.arrivals()).acquire_owned();
    let place = tokio::time::timeout(gateway.config().queue_timeout, places)
        .await
        .map_err(|_| ApiError::busy())?
        .map_err(ApiError::internal)?;
    let begun = async {
        let arriving = gateway.node().fetch(wanted.clone())?;
        metrics::fetch_begun();
        Arrival::begin(arriving, &part, wanted.size, place).await
    };
    match begun.await {
        Ok(arrival) => {
            *response.body_mut() = Body::new(arrival);
            response.extensions_mut().insert(LongBody);
            Ok(response)
        }
        Err(error) => Err(match (error, damage) {
            (FetchError::NoProvider { .. } | FetchError::Offline, Some(damage)) => damage.into(),
            (error, _) => error.into(),
        }),
    }
}

type Finishing = Pin<Box<dyn Future<Output = Result<(), FetchError>> + Send>>;
type Reading = Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send>>;

/// A part of a file as a body: a piece at a time, read when the client has taken the one before.
struct Arrival<S> {
    /// One reader, who is known to the download by where it read before.
    source: Arc<S>,
    at: u64,
    end: u64,
    first: Option<Bytes>,
    reading: Option<Reading>,
    /// Of an answer that ends where the file does. It has all of the file fetched, however fast the
    /// client is; and until it agrees the last piece is held back.
    finishing: Option<Finishing>,
    held_from: u64,
    _place: OwnedSemaphorePermit,
}

impl<S: Source> Arrival<S> {
    /// Waits for the first bytes of a part of a file of `size` bytes.
    async fn begin(
        source: S,
        part: &Part,
        size: u64,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, FetchError> {
        let source = Arc::new(source);
        let mut arrival = Self {
            at: part.range.start,
            end: part.range.end,
            first: None,
            reading: None,
            finishing: None,
            held_from: u64::MAX,
            source: Arc::clone(&source),
            _place: place,
        };
        if part.is_open {
            arrival.held_from = size.saturating_sub(1) / PIECE_BYTES * PIECE_BYTES;
            arrival.finishing = Some(Box::pin(async move { source.finished().await }));
        }
        let first = poll_fn(|cx| arrival.poll_read(cx)).await?;
        arrival.first = Some(first);
        Ok(arrival)
    }

    /// The next bytes: none at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, FetchError>> {
        if let Some(finishing) = &mut self.finishing
            && let Poll::Ready(finished) = finishing.as_mut().poll(cx)
        {
            self.finishing = None;
            finished?;
            self.held_from = u64::MAX;
        }
        if self.at >= self.held_from {
            return Poll::Pending;
        }
        let rest = self.end.min(self.held_from) - self.at;
        if rest == 0 {
            return Poll::Ready(Ok(Bytes::new()));
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (source, at) = (Arc::clone(&self.source), self.at);
            Box::pin(async move { source.read(at, rest).await })
        });
        let read = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(read)
    }
}

impl<S: Source> http_body::Body for Arrival<S> {
    type Data = Bytes;
    type Error = FetchError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FetchError>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let read = match self.first.take() {
            Some(first) => Ok(first),
            None => ready!(self.poll_read(cx)),
        };
        Poll::Ready(Some(match read {
            Ok(bytes) => {
                debug_assert!(!bytes.is_empty(), "a read has at least one byte");
                self.at += bytes.len() as u64;
                metrics::arriving_sent(bytes.len());
                Ok(Frame::data(bytes))
            }
            Err(error) => {
                tracing::warn!(at = self.at, %error, "a download ended while it was sent on");
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}

impl<S> Drop for Arrival<S> {
    fn drop(&mut self) {
        if self.at < self.end {
            metrics::arriving_aborted();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Mutex;

    use cairn_protocol::hash::Blake3;
    use http_body_util::BodyExt as _;
    use tokio::sync::{Semaphore, watch};

    use super::*;

    const SIZE: u64 = 3 * PIECE_BYTES + 5;

    fn byte(at: u64) -> u8 {
        u8::try_from(at * 7 % 251).unwrap()
    }

    /// A download that a test lets go on.
    #[derive(Clone)]
    struct Download {
        state: watch::Receiver<State>,
        reads: Arc<Mutex<Vec<Range<u64>>>>,
    }

    #[derive(Clone, Default)]
    struct State {
        here_until: u64,
        finished: bool,
        error: Option<FetchError>,
    }

    impl Download {
        async fn wait(&self, is: impl FnMut(&State) -> bool) -> Result<(), FetchError> {
            let mut state = self.state.clone();
            let state = state.wait_for(is).await.expect("the test lives");
            state.error.clone().map_or(Ok(()), Err)
        }
    }

    impl Source for Download {
        async fn read(&self, offset: u64, len_max: u64) -> Result<Bytes, FetchError> {
            let piece_end = (offset / PIECE_BYTES + 1) * PIECE_BYTES;
            let end = (offset + len_max).min(piece_end);
            self.reads.lock().unwrap().push(offset..end);
            self.wait(|state| state.here_until >= end || state.error.is_some())
                .await?;
            Ok((offset..end).map(byte).collect())
        }

        async fn finished(&self) -> Result<(), FetchError> {
            self.wait(|state| state.finished || state.error.is_some())
                .await
        }
    }

    fn download(state: State) -> (watch::Sender<State>, Download) {
        let (sender, state) = watch::channel(state);
        let reads = Arc::default();
        (sender, Download { state, reads })
    }

    fn gone() -> FetchError {
        FetchError::NoProvider {
            path: "a".to_owned(),
            hash: Blake3::from_bytes([1; 32]),
        }
    }

    async fn place() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap()
    }

    async fn begin(
        download: &Download,
        range: Range<u64>,
        is_open: bool,
    ) -> Result<Arrival<Download>, FetchError> {
        let place = place().await;
        let part = Part { range, is_open };
        Arrival::begin(download.clone(), &part, SIZE, place).await
    }

    async fn next(arrival: &mut Arrival<Download>) -> Option<Result<Bytes, FetchError>> {
        let frame = arrival.frame().await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    fn is_pending<T>(future: impl Future<Output = T>) -> bool {
        let mut future = std::pin::pin!(future);
        let waker = std::task::Waker::noop();
        let polled = future.as_mut().poll(&mut Context::from_waker(waker));
        polled.is_pending()
    }

    #[tokio::test]
    async fn a_whole_answer_holds_its_last_piece_back_until_the_digests_agree() {
        let (sender, download) = download(State {
            here_until: SIZE,
            ..State::default()
        });
        for start in [0, 5, PIECE_BYTES + 1] {
            let mut arrival = begin(&download, start..SIZE, true).await.unwrap();
            let mut at = start;
            while at < 3 * PIECE_BYTES {
                let bytes = next(&mut arrival).await.unwrap().unwrap();
                assert!(bytes.len() as u64 <= PIECE_BYTES);
                assert!(bytes.iter().copied().eq((at..).take(bytes.len()).map(byte)));
                at += bytes.len() as u64;
            }
            assert_eq!(at, 3 * PIECE_BYTES, "nothing of the last piece was sent");
            assert!(is_pending(arrival.frame()));
            sender.send_modify(|state| state.finished = true);
            assert_eq!(next(&mut arrival).await.unwrap().unwrap().len(), 5);
            assert!(next(&mut arrival).await.is_none());
            sender.send_modify(|state| state.finished = false);
        }
        // An answer that begins in the last piece is held back as a whole.
        assert!(is_pending(begin(&download, SIZE - 1..SIZE, true)));
    }

    #[tokio::test]
    async fn a_bounded_range_goes_out_when_its_pieces_are_here() {
        let (_sender, download) = download(State {
            here_until: SIZE,
            ..State::default()
        });
        let arrival = begin(&download, SIZE - 8..SIZE, false).await.unwrap();
        let body = arrival.collect().await.unwrap().to_bytes();
        assert!(body.iter().copied().eq((SIZE - 8..SIZE).map(byte)));
        let asked = download.reads.lock().unwrap();
        assert!(asked.iter().all(|read| read.start >= SIZE - 8), "{asked:?}");
    }

    #[tokio::test]
    async fn nothing_is_read_before_the_client_takes_what_was() {
        let (_sender, download) = download(State {
            here_until: SIZE,
            ..State::default()
        });
        let mut arrival = begin(&download, 0..SIZE, true).await.unwrap();
        assert_eq!(download.reads.lock().unwrap().len(), 1);
        next(&mut arrival).await.unwrap().unwrap();
        assert_eq!(download.reads.lock().unwrap().len(), 1);
        next(&mut arrival).await.unwrap().unwrap();
        assert_eq!(download.reads.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_a_status_before_the_first_byte_and_an_error_after() {
        let (sender, download) = download(State {
            here_until: PIECE_BYTES,
            ..State::default()
        });
        let mut arrival = begin(&download, 0..SIZE, true).await.unwrap();
        next(&mut arrival).await.unwrap().unwrap();
        assert!(is_pending(arrival.frame()), "the second piece is not here");
        sender.send_modify(|state| state.error = Some(gone()));
        assert!(next(&mut arrival).await.unwrap().is_err());
        assert!(!http_body::Body::is_end_stream(&arrival), "no clean end");
        assert!(begin(&download, 0..SIZE, true).await.is_err());
    }

    #[tokio::test]
    async fn an_empty_file_is_fetched_too() {
        let (sender, download) = download(State::default());
        let part = Part {
            range: 0..0,
            is_open: true,
        };
        let place = place().await;
        sender.send_modify(|state| state.finished = true);
        let arrival = Arrival::begin(download.clone(), &part, 0, place).await;
        let body = arrival.unwrap().collect().await.unwrap();
        assert!(body.to_bytes().is_empty());
        assert!(download.reads.lock().unwrap().is_empty());
    }
}
