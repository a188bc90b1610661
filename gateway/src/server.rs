//! Connections: accepts them, bounds them, serves on them, drains them.
//!
//! HTTP/1.1 by hyper over the streams of [`crate::sendfile`], within TLS where there is a certificate.
//! Every wait on a peer has an end: the TLS handshake, the head of a request and
//! the rest between requests by `activity`, a body that is read by its handler, a peer that
//! takes nothing by the kernel (`TCP_USER_TIMEOUT`, which knows of progress that no write shows).
//! There is no HTTP/2: none of the clients needs it, and what is not there can't be abused.

mod activity;

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use self::activity::{Activity, Answering, Verdict};
use crate::config::Config;
use crate::downloads::Origin;
use crate::metrics;
use crate::sendfile::{CopiedStream, FileStream};
use crate::tls::Tls;

/// Wait after the first failed accept; doubles up to [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest wait between two accepts while the system refuses them (no file descriptors, no memory).
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Serves on a listener until `shutdown` is cancelled, then drains.
///
/// A shutdown stops accepting, closes connections that rest, lets running requests end within
/// [`Config::drain_timeout`], and closes what is left.
///
/// # Errors
/// None at the moment: a failed accept is tried again, with a pause.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    config: &Config,
    shutdown: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let server = Arc::new(Server {
        service,
        config: config.clone(),
        builder: builder(config),
        draining: shutdown.clone(),
        closing: CancellationToken::new(),
    });
    let places = Arc::new(Semaphore::new(config.connections_max));
    let connections = TaskTracker::new();
    let accepting = accept_all(&server, &listener, &places, &connections);
    shutdown.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    let drained = tokio::time::timeout(config.drain_timeout, connections.wait()).await;
    if drained.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "closing connections whose requests did not end in time"
        );
        server.closing.cancel();
        connections.wait().await;
    }
    Ok(())
}

fn builder(config: &Config) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(config.headers_max)
        .max_header_size(config.header_bytes_max)
        // The buffer must hold a head of the largest size and what is pipelined behind it.
        .max_buf_size(config.header_bytes_max.max(8 << 10) + (8 << 10))
        .writev(true);
    builder
}

struct Server<S> {
    service: S,
    config: Config,
    builder: http1::Builder,
    draining: CancellationToken,
    closing: CancellationToken,
}

/// Accepts for ever; where all places are taken, the next connection waits in the backlog.
async fn accept_all<S>(
    server: &Arc<Server<S>>,
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    connections: &TaskTracker,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                pause = ACCEPT_PAUSE_MIN;
                let origin = Origin(from.ip());
                connections.spawn(connection(Arc::clone(server), stream, origin, place));
            }
            Err(error) if concerns_one_connection(&error) => {
                tracing::debug!(%error, "accept");
            }
            Err(error) => {
                tracing::warn!(%error, ?pause, "accept failed: trying again after a pause");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Serves one connection to its end; the place is free again after it.
async fn connection<S>(
    server: Arc<Server<S>>,
    stream: TcpStream,
    origin: Origin,
    place: OwnedSemaphorePermit,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let _place = place;
    let _counted = metrics::OpenConnection::new();
    prepare(&stream, &server.config);
    let activity = Arc::new(Activity::new(&server.config));
    let stream = FileStream::new(stream, Arc::clone(&activity));
    match &server.config.tls {
        None => exchange(&server, stream, origin, &activity).await,
        Some(tls) => {
            if let Some(stream) = handshake(tls, stream, &activity, &server.draining).await {
                exchange(&server, CopiedStream::new(stream), origin, &activity).await;
            }
        }
    }
}

/// Begins TLS; none where that failed or took too long, or a shutdown came first.
async fn handshake<IO>(
    tls: &Tls,
    stream: IO,
    activity: &Activity,
    draining: &CancellationToken,
) -> Option<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let bounded = tokio::time::timeout_at(activity.first_check(), tls.accept(stream));
    match draining.run_until_cancelled(bounded).await? {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
        Err(_) => tracing::debug!("connection closed: the TLS handshake was slow"),
    }
    None
}

/// Answers requests over a stream until it ends.
async fn exchange<S, IO>(server: &Server<S>, stream: IO, origin: Origin, activity: &Arc<Activity>)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TokioIo::new(stream);
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let answering = activity.request();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(origin);
        let answer = server.service.clone().call(request);
        async move {
            let Ok(mut response) = answer.await;
            if response.extensions().get::<LongBody>().is_some() {
                let body = std::mem::take(response.body_mut());
                *response.body_mut() = Body::new(Working {
                    body,
                    _answering: answering,
                });
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut serving = pin!(server.builder.serve_connection(stream, service));
    let mut check = pin!(tokio::time::sleep_until(activity.first_check()));
    let draining = server.draining.child_token();
    let mut drain = pin!(draining.cancelled());
    let closing = server.closing.child_token();
    let mut close = pin!(closing.cancelled());
    let mut is_draining = false;
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection");
                }
                return;
            }
            () = check.as_mut() => match activity.check(Instant::now()) {
                Verdict::CheckAt(at) => check.as_mut().reset(at),
                Verdict::Close(reason) => {
                    tracing::debug!(reason, "connection closed");
                    return;
                }
            },
            () = drain.as_mut(), if !is_draining => {
                is_draining = true;
                serving.as_mut().graceful_shutdown();
            }
            () = close.as_mut() => return,
        }
    }
}

/// Marks a response whose body waits for others than its reader: until it ends the connection counts as
/// one that is worked on, and not as one that rests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LongBody;

/// A body whose handler works on it until it ends.
struct Working {
    body: Body,
    _answering: Answering,
}

impl http_body::Body for Working {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn prepare(stream: &TcpStream, config: &Config) {
    let idle_ms = u32::try_from(config.body_idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, idle_ms)?));
    if let Err(error) = set {
        tracing::debug!(%error, "socket options");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::tls::tests::Pair;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// One byte that comes when it is told to; says when nobody waits for it any more.
    struct Late {
        release: Pin<Box<dyn Future<Output = ()> + Send>>,
        _gone: Gone,
        is_sent: bool,
    }

    struct Gone(mpsc::Sender<()>);

    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }

    impl http_body::Body for Late {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.is_sent {
                return Poll::Ready(None);
            }
            std::task::ready!(self.release.as_mut().poll(cx));
            self.is_sent = true;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(u64::from(!self.is_sent))
        }
    }

    struct Rig {
        address: std::net::SocketAddr,
        release: watch::Sender<bool>,
        gone: mpsc::Receiver<()>,
        stop: tokio_util::sync::DropGuard,
    }

    /// `/long` answers with a marked body, `/early` never, everything else with a plain one.
    async fn rig() -> Rig {
        rig_with(None).await
    }

    async fn rig_with(tls: Option<Tls>) -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (release, released) = watch::channel(false);
        let (gone, gone_receiver) = mpsc::channel(8);
        let service = tower::service_fn(move |request: Request| {
            let (mut released, gone) = (released.clone(), Gone(gone.clone()));
            async move {
                if request.uri().path() == "/early" {
                    std::future::pending::<()>().await;
                }
                let release = Box::pin(async move {
                    drop(released.wait_for(|is| *is).await);
                });
                let mut response = Response::new(Body::new(Late {
                    release,
                    _gone: gone,
                    is_sent: false,
                }));
                if request.uri().path() == "/long" {
                    response.extensions_mut().insert(LongBody);
                }
                Ok(response)
            }
        });
        // Long enough for a handshake on a machine that is busy.
        let rest = Duration::from_millis(if tls.is_some() { 2_000 } else { 100 });
        let config = Config {
            header_timeout: rest,
            keep_alive_timeout: rest,
            tls,
            ..Config::default()
        };
        let stop = CancellationToken::new();
        let serving = stop.clone();
        #[allow(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(async move { serve(listener, service, &config, serving).await });
        Rig {
            address,
            release,
            gone: gone_receiver,
            stop: stop.drop_guard(),
        }
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, path).await;
        stream
    }

    async fn ask(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn rest(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        drop(read.expect("the connection ends"));
        bytes
    }

    #[tokio::test]
    async fn a_body_that_waits_for_a_download_is_no_resting_connection() {
        let rig = rig().await;
        let long = get(rig.address, "/long").await;
        // Ends without its byte, once it has rested for as long as a connection may.
        let plain = rest(get(rig.address, "/plain").await).await;
        assert!(plain.ends_with(b"\r\n\r\n"));
        rig.release.send_replace(true);
        // And once it has ended it rests like any other.
        let long = rest(long).await;
        assert!(long.ends_with(b"\r\n\r\nx"));
        drop(rig.stop);
    }

    #[tokio::test]
    async fn who_goes_away_while_nothing_comes_is_not_waited_for() {
        let mut rig = rig().await;
        for path in ["/long", "/early"] {
            let mut stream = get(rig.address, path).await;
            if path == "/long" {
                stream.read_exact(&mut [0; 17]).await.unwrap();
            }
            drop(stream);
            let gone = tokio::time::timeout(PATIENCE, rig.gone.recv()).await;
            gone.expect("the answer is dropped").unwrap();
        }
        drop(rig.stop);
    }

    #[tokio::test]
    async fn waits_within_tls_end_like_those_without() {
        let pair = Pair::new();
        let rig = rig_with(Some(pair.load().unwrap())).await;
        let connect = async || {
            let stream = TcpStream::connect(rig.address).await.unwrap();
            pair.connect(stream).await.unwrap()
        };
        rig.release.send_replace(true);
        let no_handshake = async { rest(TcpStream::connect(rig.address).await.unwrap()).await };
        let no_head = async { rest(connect().await).await };
        let half_a_head = async {
            let mut stream = connect().await;
            stream.write_all(b"GET /plain").await.unwrap();
            rest(stream).await
        };
        let one_request = async {
            let mut stream = connect().await;
            ask(&mut stream, "/plain").await;
            rest(stream).await
        };
        let ends = tokio::join!(no_handshake, no_head, half_a_head, one_request);
        assert_eq!([&*ends.0, &*ends.1, &*ends.2], [b"", b"", b""]);
        assert!(ends.3.ends_with(b"\r\n\r\nx"));
        drop(rig.stop);
    }

    #[tokio::test]
    async fn plain_http_at_a_port_with_tls_is_closed() {
        let pair = Pair::new();
        let rig = rig_with(Some(pair.load().unwrap())).await;
        let answer = rest(get(rig.address, "/plain").await).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        drop(rig.stop);
    }

    #[tokio::test]
    async fn a_shutdown_does_not_wait_for_a_handshake() {
        let pair = Pair::new();
        let tls = pair.load().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tower::service_fn(async |_: Request| Ok(Response::new(Body::empty())));
        let config = Config {
            header_timeout: PATIENCE * 10,
            drain_timeout: PATIENCE * 10,
            tls: Some(tls),
            ..Config::default()
        };
        let stop = CancellationToken::new();
        let serving = serve(listener, service, &config, stop.clone());
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            // Served after it, so that it is known to be there.
            let second = TcpStream::connect(address).await.unwrap();
            drop(pair.connect(second).await.unwrap());
            stop.cancel();
            rest(stream).await
        };
        let both = async { tokio::join!(serving, client) };
        let ended = tokio::time::timeout(PATIENCE, both).await;
        ended.expect("the shutdown ends").0.unwrap();
    }
}
