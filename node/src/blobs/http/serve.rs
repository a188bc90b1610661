//! Answering: one request at a time on each connection.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::limits::PIECE_BYTES;
use futures::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{BUFFER_BYTES, Identity, content_range_header, hash_of, read_range};
use crate::blobs::connections::Connections;
use crate::blobs::provide::{is_waste, not_here};
use crate::blobs::serve::{Client, Cut, HANDSHAKE_TIMEOUT, Server};
use crate::blobs::wire::{RATE_STEP_BYTES, WRITE_TIMEOUT};
use crate::store::Pieces;

/// Connections that peers made, together; a further one is closed.
const CONNECTIONS_MAX: usize = 256;
/// Connections of one peer: twice as many as a node makes, since those of before a crash may seem alive.
pub(in crate::blobs) const PEER_CONNECTIONS_MAX: usize = 2 * super::get::PEER_CONNECTIONS_MAX;
/// Time that a connection may stand between two requests, and that a request may take to come.
const IDLE_MAX: Duration = Duration::from_mins(2);
/// Pieces of an answer that are read and verified before they are sent.
const AHEAD_PIECES: usize = 2;
/// Bytes that the system takes ahead of what it can send.
const UNSENT_BYTES: u32 = 256 << 10;
/// Pause where the system gives no further connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Cut>;

/// Accepts connections until `stop`.
pub(in crate::blobs) async fn run(
    server: Arc<Server>,
    listeners: Vec<TcpListener>,
    identity: Identity,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = Connections::new(PEER_CONNECTIONS_MAX);
    let accepting = listeners.into_iter().map(|listener| {
        let (server, identity) = (Arc::clone(&server), identity.clone());
        accept(
            server,
            listener,
            identity,
            Arc::clone(&places),
            connections.clone(),
        )
    });
    let accepting = futures::future::join_all(accepting);
    stop.run_until_cancelled(accepting).await;
}

async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    identity: Identity,
    places: Arc<Semaphore>,
    connections: Connections,
) {
    // Those under way end with it.
    let mut running = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, _)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    continue;
                };
                let (server, identity) = (Arc::clone(&server), identity.clone());
                running.spawn(connection(
                    server,
                    tcp,
                    identity,
                    connections.clone(),
                    place,
                ));
            }
            Err(error) => {
                tracing::debug!(%error, "no connection can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    server: Arc<Server>,
    tcp: TcpStream,
    identity: Identity,
    connections: Connections,
    _place: OwnedSemaphorePermit,
) {
    let ready = tcp.set_nodelay(true).and_then(|()| {
        // Else the system takes megabytes ahead of a fast client, and no more until much of that is sent:
        // a client that becomes slow would look as if it had stopped reading.
        SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES)
    });
    if let Err(error) = ready {
        tracing::debug!(%error, "a connection is left as the system has it");
    }
    let mut tcp = TimeoutStream::new(tcp);
    tcp.set_write_timeout(Some(WRITE_TIMEOUT));
    let handshake = identity.accept(Box::pin(tcp));
    let (tls, peer) = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let entered = connections.enter(peer);
    let client = Arc::new(Client::new(&server, peer));
    let service = service_fn(move |request| {
        let client = Arc::clone(&client);
        async move { Ok::<_, Infallible>(answer(client, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(tls), service);
    if let Some(Err(error)) = entered.end.run_until_cancelled(serving).await {
        tracing::debug!(%peer, %error, "a connection for contents broke off");
    }
}

fn refuse(status: StatusCode) -> Response<Body> {
    let none = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(none);
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let get = hyper::header::HeaderValue::from_static("GET");
        response.headers_mut().insert(ALLOW, get);
    }
    response
}

async fn answer(client: Arc<Client>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(hash) = hash_of(request.uri().path()) else {
        return refuse(StatusCode::NOT_FOUND);
    };
    // Before the blob is opened, which costs a file and its list.
    let turn = Arc::clone(&client.server.answering).acquire_owned().await;
    // Absent and refused look the same.
    let (Ok(turn), Ok(pieces)) = (turn, client.open(hash).await) else {
        return refuse(StatusCode::NOT_FOUND);
    };
    let size = pieces.list().size();
    let range = request.headers().get(RANGE);
    let asked = match range.map(|range| range.to_str()) {
        None => 0..size,
        Some(Ok(range)) => match read_range(range, size) {
            Some(range) => range,
            None => return refuse(StatusCode::RANGE_NOT_SATISFIABLE),
        },
        Some(Err(_)) => return refuse(StatusCode::RANGE_NOT_SATISFIABLE),
    };
    // As far as it is here.
    let here = held_from(&pieces, asked.start);
    let sent = asked.start..asked.end.min(here);
    if range.is_none() && sent.end < size || sent.is_empty() && size > 0 {
        return refuse(StatusCode::NOT_FOUND);
    }
    if is_waste(sent.end - sent.start) {
        client.waste.take(1).await;
    }
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, sent.end - sent.start);
    let response = if range.is_some() {
        response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, content_range_header(&sent, size))
    } else {
        response
    };
    response
        .body(body(client, pieces, sent, turn))
        .unwrap_or_else(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR))
}

/// The end of what is here without a gap from this byte on.
fn held_from(pieces: &Pieces, start: u64) -> u64 {
    let size = pieces.list().size();
    let Some(held) = pieces.held() else {
        return size;
    };
    let missing = (start / PIECE_BYTES..held.count()).find(|index| !held.contains(*index));
    missing.map_or(size, |index| (index * PIECE_BYTES).max(start).min(size))
}

/// Bytes of a blob, each piece verified before any of it is sent; ends early where one is not what it was.
fn body(
    client: Arc<Client>,
    pieces: Pieces,
    bytes: Range<u64>,
    turn: OwnedSemaphorePermit,
) -> Body {
    let indices = bytes.start / PIECE_BYTES..bytes.end.div_ceil(PIECE_BYTES);
    let counts = client.server.traffic.of(&client.peer);
    let step = match client.server.upload_rate {
        Some(_) => RATE_STEP_BYTES,
        None => usize::MAX,
    };
    let reading = Arc::clone(&client);
    let parts = stream::iter(indices)
        .map(move |index| {
            let (client, pieces, bytes) = (Arc::clone(&reading), pieces.clone(), bytes.clone());
            // A task of its own: hyper asks for no more while the client is slow, and what nobody asks for
            // would keep its place among those that work.
            let read = tokio::spawn(async move {
                let hash = pieces.hash();
                let read = client.work(move || pieces.read(index)).await?;
                let piece = read.map_err(|error| not_here(hash, &error))?;
                let at = index * PIECE_BYTES;
                let within =
                    |byte: u64| usize::try_from(byte.saturating_sub(at)).unwrap_or(usize::MAX);
                let end = within(bytes.end).min(piece.len());
                Ok::<_, Cut>(piece.slice(within(bytes.start).min(end)..end))
            });
            let read = AbortOnDropHandle::new(read);
            async move { read.await.unwrap_or(Err(Cut::NotHere)) }
        })
        .buffered(AHEAD_PIECES)
        .flat_map(move |piece| stream::iter(steps(piece, step)))
        .then(move |part| {
            let client = Arc::clone(&client);
            let counts = Arc::clone(&counts);
            async move {
                let part = part?;
                if let Some(rate) = &client.server.upload_rate {
                    rate.take(part.len() as u64).await;
                }
                counts.add_sent(part.len() as u64);
                Ok(Frame::data(part))
            }
        })
        .inspect(move |_| {
            // Held until the answer is sent or its connection is gone.
            let _turn = &turn;
        });
    StreamBody::new(parts).boxed_unsync()
}

fn steps(piece: Result<Bytes, Cut>, step: usize) -> Vec<Result<Bytes, Cut>> {
    let mut rest = match piece {
        Ok(piece) => piece,
        Err(cut) => return vec![Err(cut)],
    };
    let mut steps = Vec::new();
    while rest.len() > step {
        steps.push(Ok(rest.split_to(step)));
    }
    steps.push(Ok(rest));
    steps
}
