//! Slow, greedy and odd peers: each meets its bound, and nobody else notices.

use std::time::Duration;

use cairn_gateway::Config;
use tokio::time::Instant;

use crate::client::{Client, PATIENCE, soon};
use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_is_closed_and_others_are_served_meanwhile() {
    let config = Config {
        header_timeout: Duration::from_millis(400),
        ..Config::default()
    };
    let server = Server::start(config, 1).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(server.client().await);
    }
    let started = Instant::now();
    let mut open = slow.len();
    while open > 0 {
        assert!(
            started.elapsed() < PATIENCE,
            "{open} trickling connections stay open"
        );
        assert!(server.is_alive().await);
        open = 0;
        for client in &mut slow {
            if client.try_send("G").await.is_ok() {
                open += 1;
            }
        }
    }
    assert!(started.elapsed() >= Duration::from_millis(400));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickling_second_head_is_closed_as_well_as_a_rest() {
    let config = Config {
        header_timeout: Duration::from_millis(300),
        keep_alive_timeout: Duration::from_millis(600),
        ..Config::default()
    };
    let server = Server::start(config, 1).await;
    let mut resting = server.greeted().await;
    let mut trickling = server.greeted().await;
    trickling.send("GET /small HT").await;
    let started = Instant::now();
    assert!(trickling.is_closed().await);
    assert!(started.elapsed() >= Duration::from_millis(290));
    assert!(resting.is_closed().await);
    assert!(started.elapsed() >= Duration::from_millis(550));
    server.stop().await;
}

/// With one place, the next client is served only once the server gave up on the reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_closed() {
    let config = Config {
        connections_max: 1,
        body_idle_timeout: Duration::from_millis(500),
        ..Config::default()
    };
    for server in Server::start_both(config, 64 << 20).await {
        let mut stuck = server.client().await;
        stuck.send("GET /file HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert!(stuck.head().await.is_some());
        assert!(server.is_alive().await);
        server.stop().await;
    }
}

/// Its download lasts several times as long as the patience with readers that don't move.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_slow_but_moves_gets_everything() {
    let bytes = 32 << 20;
    let config = Config {
        body_idle_timeout: Duration::from_millis(1500),
        keep_alive_timeout: Duration::from_millis(1500),
        ..Config::default()
    };
    let [plain, secure] = Server::start_both(config, bytes).await;
    tokio::join!(read_slowly(plain, bytes), read_slowly(secure, bytes));
}

async fn read_slowly(server: Server, bytes: usize) {
    let mut client = server.client().await;
    client
        .send("GET /file HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    assert!(client.head().await.is_some());
    let mut pace = tokio::time::interval(Duration::from_millis(150));
    for _ in 0..32 {
        pace.tick().await;
        client.take(bytes / 32).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_past_the_cap_wait_for_a_place() {
    let config = Config {
        connections_max: 2,
        ..Config::default()
    };
    let server = Server::start(config, 1).await;
    let (first, second) = (server.greeted().await, server.greeted().await);
    let mut third = server.client().await;
    third
        .send("GET /small HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    let waiting = tokio::time::timeout(Duration::from_millis(200), third.answer(true)).await;
    assert!(waiting.is_err(), "a third connection was served");
    drop(first);
    assert!(third.is_closed_or_answers().await);
    drop(second);
    server.stop().await;
}

impl Client {
    /// The answer whose waiting was broken off comes after all.
    async fn is_closed_or_answers(&mut self) -> bool {
        self.answer(true)
            .await
            .is_some_and(|answer| answer.status == 200)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_heads_are_refused_and_closed() {
    let server = Server::start(Config::default(), 1).await;
    let many = "x: y\r\n".repeat(10_000);
    let rows = [
        (
            "GET /small HTTP/1.1\r\nHost: t\r\nx: ".to_owned() + &"y".repeat(1 << 20),
            431,
        ),
        (format!("GET /small HTTP/1.1\r\nHost: t\r\n{many}\r\n"), 431),
        (
            format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "u".repeat(200 << 10)),
            431,
        ),
        ("GET /small\r\n\r\n".to_owned(), 400),
        ("G\u{1}T /small HTTP/1.1\r\n\r\n".to_owned(), 400),
        (
            "GET /small HTTP/1.1\r\nContent-Length: -5\r\n\r\n".to_owned(),
            400,
        ),
        (
            "GET /small HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
        ),
        (
            "POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_owned(),
            400,
        ),
        (
            "POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            400,
        ),
        (
            "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            400,
        ),
        (
            "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"
                .to_owned(),
            400,
        ),
    ];
    for (request, status) in rows {
        let shown = &request[..request.len().min(60)];
        let started = Instant::now();
        let mut client = server.client().await;
        // A server that refuses early may close before all is sent.
        let sent = client.try_send(&request).await;
        let answer = client.answer(true).await;
        // Bytes that nobody reads any more reset the connection, and may take the answer with them.
        if sent.is_ok() && request.len() < 64 << 10 {
            assert_eq!(answer.map(|answer| answer.status), Some(status), "{shown}");
        } else if let Some(answer) = answer {
            assert_eq!(answer.status, status, "{shown}");
        }
        assert!(client.is_closed().await, "{shown}");
        assert!(started.elapsed() < Duration::from_secs(5), "{shown}");
        assert!(server.is_alive().await);
    }
    server.stop().await;
}

/// Both lengths at once is how requests are smuggled past proxies: nothing after it is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_framings_is_the_last_of_its_connection() {
    let server = Server::start(Config::default(), 1).await;
    let mut client = server.client().await;
    client
        .send(
            "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\nGET /small HTTP/1.1\r\nHost: t\r\n\r\n",
        )
        .await;
    let answer = client.answer(true).await.expect("an answer");
    assert!(answer.body.is_empty());
    assert!(soon(client.is_closed()).await);
    server.stop().await;
}
