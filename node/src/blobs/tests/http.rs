//! Contents over TCP.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::stock::Stock;
use super::*;
use crate::blobs::http::Identity;
use crate::blobs::serve::HANDSHAKE_TIMEOUT;
use crate::blobs::wire::WRITE_TIMEOUT;

fn identity(seed: u8) -> (Identity, PublicKey) {
    let key = SecretKey::from_seed([seed; 32]);
    (Identity::new(&key).unwrap(), key.public())
}

/// Passes TCP connections on, at a port at which nothing is to be had over UDP; counts them.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>, DropGuard) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, stop) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
    let counted = Arc::clone(&count);
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                tokio::io::copy_bidirectional(&mut near, &mut far)
                    .await
                    .ok();
            });
        }
    }));
    (address, count, stop.drop_guard())
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_come_over_tcp_and_a_connection_is_used_again() {
    let bytes = content((9 << 20) + 3, 1);
    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    let hash = theirs.add(&bytes);
    let (_, list) = list_of(&bytes);
    let (address, connections, _stop) = relay(theirs.address()).await;
    ours.blobs.meet(theirs.key, vec![address]);
    for pieces in [0..10, 3..4, 9..10, 2..9] {
        let (came, ended) = ours.pieces(theirs.key, hash, &list, pieces.clone()).await;
        ended.unwrap_or_else(|error| panic!("{pieces:?}: {error}"));
        let [from, to] =
            [pieces.start, pieces.end].map(|at| ((at as usize) << 20).min(bytes.len()));
        assert!(joined(&came) == bytes[from..to], "{pieces:?}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    // Who is met anew may be another process.
    ours.blobs.meet(theirs.key, vec![address]);
    let (_, ended) = ours.pieces(theirs.key, hash, &list, 0..2).await;
    ended.unwrap();
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_the_peer_closed_is_replaced() {
    let bytes = content(4 << 20, 1);
    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    let hash = theirs.add(&bytes);
    let (_, list) = list_of(&bytes);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    ours.blobs
        .meet(theirs.key, vec![listener.local_addr().unwrap()]);
    for _ in 0..2 {
        let passing = async {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(theirs.address()).await.unwrap();
            tokio::io::copy_bidirectional(&mut near, &mut far)
                .await
                .ok();
        };
        tokio::select! {
            () = passing => panic!("it lasts as long as somebody passes on"),
            (came, ended) = ours.pieces(theirs.key, hash, &list, 0..4) => {
                ended.unwrap();
                assert!(joined(&came) == bytes);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_over_tcp_is_asked_over_quic_and_that_is_remembered() {
    let bytes = content((3 << 20) + 9, 1);
    // An iroh-blobs program, and at the same port number what takes connections and says nothing on them.
    let (stock, silent) = loop {
        let stock = Stock::new(false).await;
        if let Ok(silent) = TcpListener::bind(stock.address()).await {
            break (stock, silent);
        }
    };
    let hash = stock.add(&bytes).await;
    let (_, list) = list_of(&bytes);
    let ours = Node::new(1).await;
    ours.blobs.meet(stock.key(), vec![stock.address()]);
    for _ in 0..2 {
        let (came, ended) = ours.pieces(stock.key(), hash, &list, 0..4).await;
        ended.unwrap();
        assert!(joined(&came) == bytes);
    }
    silent.accept().await.unwrap();
    let again = timeout(Duration::ZERO, silent.accept()).await;
    assert!(again.is_err(), "it was tried once");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_a_peers_address_is_told_and_asked_nothing() {
    let bytes = content(3 << 20, 1);
    let (ours, other) = (Node::new(1).await, Node::new(3).await);
    let hash = other.add(&bytes);
    let (_, list) = list_of(&bytes);
    let (_, victim) = identity(2);
    let (address, connections, _stop) = relay(other.address()).await;
    ours.blobs.meet(victim, vec![address]);
    let (came, ended) = ours.pieces(victim, hash, &list, 0..3).await;
    assert!(
        matches!(ended, Err(TransferError::Unreachable(_))),
        "{ended:?}"
    );
    assert!(came.is_empty());
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert_eq!(other.blobs.traffic(), []);
}

/// What a peer does after it has read a request.
enum Deed {
    /// Sends this, and closes.
    Send(Vec<u8>),
    /// Sends this, and then nothing.
    Stall(Vec<u8>),
    /// Sends this, and then a byte now and then.
    Crawl(Vec<u8>),
}

/// Answers one request.
async fn misbehave(listener: TcpListener, identity: Identity, deed: Deed) {
    let (tcp, _) = listener.accept().await.unwrap();
    let (mut stream, _) = identity.accept(tcp).await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let (Deed::Send(bytes) | Deed::Stall(bytes) | Deed::Crawl(bytes)) = &deed;
    // Who has enough goes in the middle of it.
    stream.write_all(bytes).await.ok();
    stream.flush().await.ok();
    match deed {
        Deed::Send(_) => {
            stream.shutdown().await.ok();
            stream.read_to_end(&mut Vec::new()).await.ok();
        }
        Deed::Stall(_) => std::future::pending().await,
        Deed::Crawl(_) => loop {
            if stream.write_all(b"x").await.is_err() || stream.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        },
    }
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [head.replace('\n', "\r\n").as_bytes(), b"\r\n", body].concat()
}

type Is = fn(&TransferError) -> bool;

/// What a server may do, how the transfer is to end, and how many pieces come before.
fn lies(bytes: &[u8]) -> Vec<(&'static str, Deed, Is, usize)> {
    let absent: Is = |error| matches!(error, TransferError::Absent);
    let broken: Is = |error| matches!(error, TransferError::Broken(_));
    let lied: Is = |error| matches!(error, TransferError::Lied(_));
    let unreachable: Is = |error| matches!(error, TransferError::Unreachable(_));
    let size = bytes.len();
    let head = |range: &str, len: usize| {
        format!("HTTP/1.1 206 Partial Content\nContent-Length: {len}\nContent-Range: {range}\n")
    };
    let last = size - 1;
    let right = head(&format!("bytes 0-{last}/{size}"), size);
    let sent = |head: &str, body: &[u8]| Deed::Send(answer(head, body));
    let ranged = |range: String, body: &[u8]| sent(&head(&range, body.len()), body);
    let mut flipped = bytes.to_vec();
    flipped[(1 << 20) + 5] ^= 1;
    let prefix = &bytes[..(1 << 20) + 99];
    let endless = format!("HTTP/1.1 206 Partial Content\nX: {}", "x".repeat(2 << 20));
    let larger = format!("bytes 0-{last}/{}", size + 1);
    let later = format!("bytes 1-{last}/{size}");
    let half = format!("bytes 0-1048575/{size}");
    let headed = answer(&right, b"");
    let (within, crawling) = (answer(&right, prefix), answer(&right, prefix));
    let short = head(&format!("bytes 0-{last}/{size}"), 10);
    let whole = format!("HTTP/1.1 200 OK\nContent-Length: {size}\n");
    let missing = "HTTP/1.1 404 Not Found\nContent-Length: 0\n";
    let failing = "HTTP/1.1 500 Oh\nContent-Length: 0\n";
    let elsewhere = "HTTP/1.1 302 Found\nLocation: /\nContent-Length: 0\n";
    vec![
        ("a flipped bit", sent(&right, &flipped), lied, 1),
        ("an early end", sent(&right, prefix), absent, 1),
        ("silence within", Deed::Stall(within), broken, 1),
        ("a byte now and then", Deed::Crawl(crawling), broken, 1),
        ("another size", ranged(larger, bytes), lied, 0),
        ("another range", ranged(later, &bytes[1..]), lied, 0),
        ("half of it", ranged(half, &bytes[..1 << 20]), absent, 1),
        ("less than it says", sent(&short, &bytes[..10]), absent, 0),
        ("no range", sent(&whole, bytes), broken, 0),
        ("not there", sent(missing, b""), absent, 0),
        ("an error", sent(failing, b""), broken, 0),
        ("a redirect", sent(elsewhere, b""), broken, 0),
        // Asked over QUIC then, where nobody is.
        ("silence", Deed::Stall(Vec::new()), unreachable, 0),
        ("a head alone", Deed::Stall(headed), unreachable, 0),
        ("no HTTP", Deed::Send(bytes.to_vec()), unreachable, 0),
        (
            "an endless head",
            Deed::Send(endless.into()),
            unreachable,
            0,
        ),
        ("nothing", Deed::Send(Vec::new()), unreachable, 0),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lying_server_sends_never_comes_out() {
    let bytes = content((2 << 20) + 77, 3);
    let (hash, list) = list_of(&bytes);
    let cases = lies(&bytes);
    let ours = Arc::new(Node::new(1).await);
    let mut trials = tokio::task::JoinSet::new();
    for (number, (what, deed, is, pieces)) in cases.into_iter().enumerate() {
        let (ours, list, bytes) = (Arc::clone(&ours), Arc::clone(&list), bytes.clone());
        trials.spawn(async move {
            let (identity, key) = identity(100 + number as u8);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            ours.blobs.meet(key, vec![address]);
            let peer = tokio::spawn(misbehave(listener, identity, deed));
            let (came, ended) = ours.pieces(key, hash, &list, 0..3).await;
            peer.abort();
            assert!(ended.as_ref().is_err_and(is), "{what}: {ended:?}");
            assert_eq!(came.len(), pieces, "{what}");
            assert!(joined(&came) == bytes[..pieces << 20], "{what}");
        });
    }
    while let Some(ended) = trials.join_next().await {
        ended.unwrap();
    }
}

/// A connection to a node, as anybody can make it.
async fn connect(node: &Node) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(node.address()).await.unwrap();
    let connected = identity(77).0.connect(tcp, &node.key).await;
    connected.unwrap()
}

/// All that comes to a request, after which the connection is to be closed.
async fn ask(node: &Node, request: &str) -> Vec<u8> {
    let mut stream = connect(node).await;
    let request = request.replace('\n', "\r\n");
    // Who refuses may close before it has read all.
    stream.write_all(request.as_bytes()).await.ok();
    stream.flush().await.ok();
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    read.expect("in time").ok();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_any_client_are_answered_as_http_says() {
    let bytes = content((2 << 20) + 77, 3);
    let (secret, _) = list_of(&content(5 << 20, 9));
    let may_read: MayRead = Arc::new(move |_, hash| *hash != secret);
    let node = Node::with(1, config(), may_read).await;
    let hash = node.add(&bytes);
    node.add(&content(5 << 20, 9));
    let partial = content(3 << 20, 4);
    let (part, list) = list_of(&partial);
    let partly = node.store.partial(&part, &list).unwrap();
    let piece = Bytes::copy_from_slice(&partial[1 << 20..2 << 20]);
    partly.write(1, &[piece]).unwrap();
    let get = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\nHost: node\nConnection: close\n{more}\n")
    };
    let range = |range: &str| format!("Range: {range}\n");
    let path = |hash: &Blake3| format!("/blobs/{hash}");
    let size = bytes.len();
    let cases = [
        (get(&path(&hash), ""), 200, Some(&bytes[..])),
        (
            get(&path(&hash), &range("bytes=5-6")),
            206,
            Some(&bytes[5..7]),
        ),
        (
            get(&path(&hash), &range("bytes=1048570-1048590")),
            206,
            Some(&bytes[1_048_570..1_048_591]),
        ),
        (
            get(&path(&hash), &range("bytes=2097152-99999999")),
            206,
            Some(&bytes[2 << 20..]),
        ),
        (
            get(&path(&hash), &range(&format!("bytes={size}-"))),
            416,
            None,
        ),
        (get(&path(&hash), &range("bytes=9-8")), 416, None),
        (get(&path(&hash), &range("bytes=0-1,4-5")), 416, None),
        (get(&path(&part), ""), 404, None),
        (get(&path(&part), &range("bytes=0-9")), 404, None),
        (
            get(&path(&part), &range("bytes=1048577-3000000")),
            206,
            Some(&partial[(1 << 20) + 1..2 << 20]),
        ),
        (get(&path(&secret), &range("bytes=0-9")), 404, None),
        (get(&path(&Blake3::of(b"absent")), ""), 404, None),
        (get("/blobs/../../etc/passwd", ""), 404, None),
        (get("/", ""), 404, None),
        (get(&path(&hash), "").replace("GET", "POST"), 405, None),
        (
            get(&path(&hash), &format!("X: {}\n", "x".repeat(100_000))),
            431,
            None,
        ),
        ("\u{0}\u{1}\u{2}\n\n".to_owned(), 400, None),
    ];
    for (request, status, body) in cases {
        let shown: String = request.chars().take(200).collect();
        let answer = ask(&node, &request).await;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{shown}: {answer:?}"));
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown}: {head}"
        );
        if let Some(body) = body {
            assert!(answer[end + 4..] == *body, "{shown}");
        }
    }
}

/// Asks for all of a blob, and reads nothing of it.
async fn ask_and_stop(node: &Node, hash: Blake3) -> TlsStream<TcpStream> {
    let mut stream = connect(node).await;
    let request = format!("GET /blobs/{hash} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_stops_reading_is_parted_from() {
    // More than systems keep of it for who does not read.
    const SIZE: usize = 40 << 20;
    const { assert!(WRITE_TIMEOUT.as_secs() < HANDSHAKE_TIMEOUT.as_secs()) };
    let node = Node::new(1).await;
    let hash = node.add(&content(SIZE, 1));
    let mut silent = TcpStream::connect(node.address()).await.unwrap();
    let mut greedy = ask_and_stop(&node, hash).await;
    let parted = timeout(HANDSHAKE_TIMEOUT + DEADLINE, silent.read_u8()).await;
    assert!(parted.expect("in time").is_err());
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, greedy.read_to_end(&mut rest)).await;
    assert!(read.expect("in time").is_err() || rest.len() < SIZE);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_stop_reading_keep_nobody_else_waiting() {
    let node = Node::new(1).await;
    let hash = node.add(&content(40 << 20, 1));
    let bytes = content((3 << 20) + 1, 2);
    let wanted = node.add(&bytes);
    let (_, list) = list_of(&bytes);
    let mut stopped = Vec::new();
    for _ in 0..crate::blobs::http::PEER_CONNECTIONS_MAX {
        stopped.push(ask_and_stop(&node, hash).await);
    }
    let begin = Instant::now();
    let other = Node::new(2).await;
    other.meet(&node);
    for carrier in CARRIERS {
        let got = other.pieces_over(Some(carrier), node.key, wanted, &list, 0..4);
        let (came, ended) = got.await;
        ended.unwrap();
        assert!(joined(&came) == bytes);
    }
    let took = begin.elapsed();
    assert!(took < WRITE_TIMEOUT, "before those are cut: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_connections_a_peer_is_asked_over_quic_until_one_is_free() {
    let bytes = content((3 << 20) + 1, 2);
    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    ours.meet(&theirs);
    let hash = theirs.add(&bytes);
    let (_, list) = list_of(&bytes);
    let (http, addresses) = (&ours.blobs.inner.http, [theirs.address()]);
    let mut answers = Vec::new();
    for _ in 0..crate::blobs::http::PEER_CONNECTIONS_MAX / 2 {
        let asked = http.ask(theirs.key, &addresses, &hash, 0..1 << 20);
        answers.push(asked.await.unwrap());
    }
    let over_tcp = async || {
        let got = ours.pieces_over(Some(Carrier::Tcp), theirs.key, hash, &list, 0..4);
        got.await.1
    };
    let busy = over_tcp().await;
    assert!(
        matches!(busy, Err(TransferError::Unreachable(_))),
        "{busy:?}"
    );
    let (came, ended) = ours.pieces(theirs.key, hash, &list, 0..4).await;
    ended.unwrap();
    assert!(joined(&came) == bytes);
    // One that goes in the middle of its answer leaves its place.
    answers.pop();
    over_tcp().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_connection_of_a_peer_ends_its_oldest() {
    let node = Node::new(1).await;
    let max = crate::blobs::http::PEER_CONNECTIONS_MAX;
    let mut all = Vec::new();
    for _ in 0..=max {
        let mut stream = connect(&node).await;
        // An answer shows that it is counted.
        let request = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n";
        stream.write_all(request).await.unwrap();
        stream.flush().await.unwrap();
        timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap();
        all.push(stream);
    }
    let mut rest = Vec::new();
    let ended = timeout(DEADLINE, all[0].read_to_end(&mut rest)).await;
    ended.expect("the oldest is closed").ok();
    let second = timeout(Duration::ZERO, all[1].read_to_end(&mut rest)).await;
    assert!(second.is_err(), "the others are not");
}
