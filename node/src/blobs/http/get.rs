//! Asking: connections to peers, kept for the next request.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::key::PublicKey;
use futures::future::select_ok;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_RANGE, HOST, RANGE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use rustix::net::sockopt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::{Identity, path_of, range_header, read_content_range};
use crate::blobs::TransferError;
use crate::blobs::wire::{Source, StreamError};

/// Connections to one peer; what would need another goes over QUIC.
pub(super) const PEER_CONNECTIONS_MAX: usize = 8;
/// Connections to all peers, the unused ones among them; as above.
const CONNECTIONS_MAX: usize = 256;
/// Time that connecting and the handshake may take before the peer is asked over QUIC.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that the first bytes of an answer may take before the peer is asked over QUIC: some networks let
/// through a handshake and nothing that is larger. Twice it, and connecting, is less than it takes for the
/// download to leave the peer.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that could not be reached so is not tried again for so long, unless it is met anew.
const UNREACHABLE_TIME: Duration = Duration::from_mins(2);
/// A connection on which nothing comes is asked for a sign of life after this, and then
const ALIVE_AFTER: Duration = Duration::from_secs(5);
/// as often as this,
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// and is lost when it gave none so many times.
const ALIVE_TIMES: u32 = 3;
/// Peers of whom that is remembered.
const UNREACHABLE_MAX: usize = 4_096;
/// A connection that nobody used for so long is closed; less than the other end waits.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// Bytes that are read from the system at once: TLS asks for 4 KiB at a time.
const READ_BYTES: usize = 256 << 10;

type Tls = TlsStream<BufReader<TcpStream>>;
type Driver = Pin<Box<http1::Connection<TokioIo<Tls>, Empty<Bytes>>>>;

/// The peers, and connections to them.
#[derive(Debug)]
pub(in crate::blobs) struct Peers {
    identity: Identity,
    known: Mutex<HashMap<PublicKey, Peer>>,
    places: Arc<Semaphore>,
    unreachable: Cache<PublicKey, Instant>,
}

#[derive(Debug)]
struct Peer {
    idle: Vec<Connected>,
    places: Arc<Semaphore>,
}

/// A connection, driven by whoever waits for something on it.
#[derive(Debug)]
struct Connected {
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Nothing once it has ended.
    driver: Option<Driver>,
    used: Instant,
    _places: [OwnedSemaphorePermit; 2],
}

/// An answer that comes.
#[derive(Debug)]
pub(in crate::blobs) struct Answer {
    /// Bytes that come, of those asked for.
    pub(in crate::blobs) bytes: Range<u64>,
    /// Size of the whole, as the peer says.
    pub(in crate::blobs) size: u64,
    /// What came first.
    first: Option<Result<Bytes, StreamError>>,
    body: Incoming,
    connected: Connected,
}

/// A failure on a connection, of which nothing came yet.
enum Failed {
    /// The peer closed it: perhaps long ago, while it was not used.
    Closed,
    /// Nothing came for a while.
    Silent,
    Otherwise(TransferError),
}

fn broken(error: impl std::fmt::Display) -> TransferError {
    TransferError::Broken(error.to_string())
}

fn unreachable(error: impl std::fmt::Display) -> TransferError {
    TransferError::Unreachable(error.to_string())
}

impl Peers {
    pub(in crate::blobs) fn new(identity: Identity) -> Self {
        Self {
            identity,
            known: Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            unreachable: Cache::new(UNREACHABLE_MAX),
        }
    }

    /// Takes note that a peer was met: it may be another process than before, and reachable now.
    pub(in crate::blobs) fn meet(&self, peer: &PublicKey) {
        self.unreachable.remove(peer);
        self.doubt(peer);
    }

    /// Closes the unused connections to a peer that may be gone; those in use find out by themselves.
    pub(in crate::blobs) fn doubt(&self, peer: &PublicKey) {
        if let Some(known) = self.known.lock().get_mut(peer) {
            known.idle.clear();
        }
    }

    /// Closes what nobody used for a while; to be called now and then.
    pub(in crate::blobs) fn close_idle(&self) {
        self.known.lock().retain(|_, peer| {
            peer.idle.retain(|one| one.used.elapsed() < IDLE_MAX);
            !peer.idle.is_empty() || peer.places.available_permits() < PEER_CONNECTIONS_MAX
        });
    }

    /// Asks a peer for bytes of a blob. [`TransferError::Unreachable`] where it can't be asked so now.
    pub(in crate::blobs) async fn ask(
        &self,
        peer: PublicKey,
        addresses: &[SocketAddr],
        hash: &Blake3,
        bytes: Range<u64>,
    ) -> Result<Answer, TransferError> {
        while let Some(connected) = self.idle(&peer) {
            match request(connected, hash, &bytes).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Closed) => {}
                // The others are of the same age.
                Err(Failed::Silent) => self.doubt(&peer),
                Err(Failed::Otherwise(error)) => return Err(error),
            }
        }
        let connected = self.connect(peer, addresses).await?;
        match request(connected, hash, &bytes).await {
            Ok(answer) => Ok(answer),
            Err(Failed::Closed) => Err(self.no_tcp(peer, "it closes the connection")),
            Err(Failed::Silent) => Err(self.no_tcp(peer, "nothing comes over it")),
            Err(Failed::Otherwise(error)) => Err(error),
        }
    }

    /// A connection that is kept.
    fn idle(&self, peer: &PublicKey) -> Option<Connected> {
        self.known.lock().get_mut(peer)?.idle.pop()
    }

    async fn connect(
        &self,
        peer: PublicKey,
        addresses: &[SocketAddr],
    ) -> Result<Connected, TransferError> {
        let failed = self.unreachable.get(&peer);
        if failed.is_some_and(|since| since.elapsed() < UNREACHABLE_TIME) {
            return Err(unreachable("it could not be reached over TCP lately"));
        }
        let busy = |_| unreachable("all connections are in use");
        let place = {
            let mut peers = self.known.lock();
            let known = peers.entry(peer).or_insert_with(|| Peer {
                idle: Vec::new(),
                places: Arc::new(Semaphore::new(PEER_CONNECTIONS_MAX)),
            });
            let place = Arc::clone(&known.places).try_acquire_owned();
            place.map_err(busy)?
        };
        let places = Arc::clone(&self.places);
        let places = [place, places.try_acquire_owned().map_err(busy)?];
        let connecting = (addresses.iter()).map(|address| Box::pin(self.dial(*address, &peer)));
        let connecting: Vec<_> = connecting.collect();
        if connecting.is_empty() {
            return Err(unreachable("no address is known of it"));
        }
        let connected = match timeout(CONNECT_TIMEOUT, select_ok(connecting)).await {
            Ok(Ok((tls, _))) => {
                let handshake = http1::handshake(TokioIo::new(tls)).await;
                handshake.map_err(|error| error.to_string())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        };
        match connected {
            Ok((sender, driver)) => Ok(Connected {
                sender,
                driver: Some(Box::pin(driver)),
                used: Instant::now(),
                _places: places,
            }),
            Err(error) => Err(self.no_tcp(peer, error)),
        }
    }

    /// Takes note that a peer can't be reached so.
    fn no_tcp(&self, peer: PublicKey, error: impl std::fmt::Display) -> TransferError {
        tracing::debug!(%peer, %error, "no TCP: it is asked over QUIC");
        self.unreachable.insert(peer, Instant::now());
        unreachable(error)
    }

    async fn dial(&self, address: SocketAddr, peer: &PublicKey) -> io::Result<Tls> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        // A machine that lost its power says no farewell: it is noticed by its silence.
        sockopt::set_socket_keepalive(&tcp, true)?;
        sockopt::set_tcp_keepidle(&tcp, ALIVE_AFTER)?;
        sockopt::set_tcp_keepintvl(&tcp, ALIVE_EVERY)?;
        sockopt::set_tcp_keepcnt(&tcp, ALIVE_TIMES)?;
        let tcp = BufReader::with_capacity(READ_BYTES, tcp);
        self.identity.connect(tcp, peer).await
    }

    /// Keeps the connection of an answer that was read to its end.
    pub(in crate::blobs) fn keep(&self, peer: &PublicKey, answer: Answer) {
        let Answer {
            body,
            mut connected,
            ..
        } = answer;
        if !body.is_end_stream() || connected.driver.is_none() {
            return;
        }
        drop(body);
        connected.used = Instant::now();
        if let Some(known) = self.known.lock().get_mut(peer) {
            known.idle.push(connected);
        }
    }
}

/// Sends a request, and waits for the answer's head and first bytes.
async fn request(
    connected: Connected,
    hash: &Blake3,
    bytes: &Range<u64>,
) -> Result<Answer, Failed> {
    let answer = timeout(FIRST_TIMEOUT, request_patiently(connected, hash, bytes));
    answer.await.unwrap_or(Err(Failed::Silent))
}

async fn request_patiently(
    mut connected: Connected,
    hash: &Blake3,
    bytes: &Range<u64>,
) -> Result<Answer, Failed> {
    let request = Request::get(path_of(hash))
        .header(HOST, "node")
        .header(RANGE, range_header(bytes))
        .body(Empty::new())
        .map_err(|error| Failed::Otherwise(broken(error)))?;
    let Connected { sender, driver, .. } = &mut connected;
    let response = async {
        let mut response = pin!(async {
            sender.ready().await?;
            sender.send_request(request).await
        });
        if let Some(running) = driver {
            tokio::select! {
                biased;
                response = &mut response => return response,
                _ = running => *driver = None,
            }
        }
        // What it brought before its end is there still.
        response.await
    };
    let response = response.await.map_err(|_| Failed::Closed)?;
    let (bytes, size) = head(&response, bytes).map_err(Failed::Otherwise)?;
    let mut answer = Answer {
        bytes,
        size,
        first: None,
        body: response.into_body(),
        connected,
    };
    answer.first = Some(answer.next().await);
    Ok(answer)
}

/// What an answer's head says that comes.
fn head(
    response: &Response<Incoming>,
    asked: &Range<u64>,
) -> Result<(Range<u64>, u64), TransferError> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        // The latter where the blob is smaller than the peer was told.
        StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
            return Err(TransferError::Absent);
        }
        other => return Err(broken(format_args!("it answers with status {other}"))),
    }
    let range = response.headers().get(CONTENT_RANGE);
    let range = range.and_then(|range| read_content_range(range.to_str().ok()?));
    match range {
        Some((bytes, size)) if bytes.start == asked.start && bytes.end <= asked.end => {
            Ok((bytes, size))
        }
        _ => Err(TransferError::Lied(
            "another range than was asked for".to_owned(),
        )),
    }
}

/// Whether the peer closed the connection within an answer, with a farewell of TLS or without.
fn is_cut_short(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|of| of.downcast_ref::<io::Error>());
    error.is_incomplete_message() || io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof)
}

impl Answer {
    /// The next bytes that came.
    async fn next(&mut self) -> Result<Bytes, StreamError> {
        let driver = &mut self.connected.driver;
        let body = &mut self.body;
        let frame = async {
            if let Some(running) = driver {
                tokio::select! {
                    biased;
                    frame = body.frame() => return frame,
                    _ = running => *driver = None,
                }
            }
            // What it brought before its end is there still.
            body.frame().await
        };
        match frame.await {
            Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
            None => Err(StreamError::Ended),
            Some(Err(error)) if is_cut_short(&error) => Err(StreamError::Ended),
            Some(Err(_)) => Err(StreamError::Lost),
        }
    }
}

impl Source for Answer {
    async fn read(&mut self, chunks: &mut [Bytes]) -> Result<usize, StreamError> {
        let next = match self.first.take() {
            Some(first) => first?,
            None => self.next().await?,
        };
        if let Some(first) = chunks.first_mut() {
            *first = next;
        }
        Ok(1)
    }
}
