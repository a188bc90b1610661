//! Files over sockets: every byte right, on reused and pipelined connections, hot and cold.

use cairn_gateway::Config;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use crate::client::soon;
use crate::server::{Server, expected};

const FILE_BYTES: usize = 5 << 20;

/// Ranges of a file of [`FILE_BYTES`], short and long, as `Range` has them.
fn ranges() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let one = (0..FILE_BYTES, 1..FILE_BYTES).prop_map(|(start, length)| {
        let end = (start + length).min(FILE_BYTES);
        (start, end)
    });
    let short = (0..FILE_BYTES, 1..100_usize)
        .prop_map(|(start, length)| (start, (start + length).min(FILE_BYTES)));
    proptest::collection::vec(prop_oneof![one, short], 1..8)
}

fn request(start: usize, end: usize) -> String {
    let last = end - 1;
    format!("GET /file HTTP/1.1\r\nHost: test\r\nRange: bytes={start}-{last}\r\n\r\n")
}

/// One after the other, and all at once before the first answer is read.
#[test]
fn any_ranges_are_right_on_one_connection() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(Config::default(), FILE_BYTES));
    let whole = expected(0..FILE_BYTES);
    let check = |ranges: Vec<(usize, usize)>, is_pipelined: bool| {
        runtime.block_on(async {
            let mut client = server.client().await;
            if is_pipelined {
                let all: String = ranges
                    .iter()
                    .map(|(start, end)| request(*start, *end))
                    .collect();
                client.send(&all).await;
            }
            for (start, end) in ranges {
                if !is_pipelined {
                    client.send(&request(start, end)).await;
                }
                let answer = client.answer(true).await.expect("an answer");
                assert_eq!(answer.status, 206);
                assert!(answer.body == whole[start..end], "{start}..{end}");
            }
        });
    };
    let mut runner = TestRunner::new(Cases::with_cases(24));
    runner
        .run(&(ranges(), any::<bool>()), |(ranges, is_pipelined)| {
            check(ranges, is_pipelined);
            Ok(())
        })
        .unwrap();
    runtime.block_on(server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_answers_of_all_kinds_keep_their_order() {
    for server in Server::start_both(Config::default(), FILE_BYTES).await {
        let mut client = server.client().await;
        let small = "GET /small HTTP/1.1\r\nHost: test\r\n\r\n";
        let head = "HEAD /file HTTP/1.1\r\nHost: test\r\n\r\n";
        let echo = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc";
        let requests = [
            small,
            head,
            &request(7, 3_000_000),
            echo,
            head,
            &request(0, 1),
            small,
        ];
        client.send(&requests.concat()).await;
        for (number, (status, has_body, body)) in [
            (200, true, b"small".to_vec()),
            (200, false, Vec::new()),
            (206, true, expected(7..3_000_000)),
            (200, true, b"abc".to_vec()),
            (200, false, Vec::new()),
            (206, true, expected(0..1)),
            (200, true, b"small".to_vec()),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = client.answer(has_body).await.expect("an answer");
            assert_eq!(answer.status, status, "{number}");
            assert!(answer.body == body, "{number}");
            if !has_body {
                let length = FILE_BYTES.to_string();
                assert_eq!(answer.header("content-length"), Some(length.as_str()));
            }
        }
        server.stop().await;
    }
}

/// The file is dropped from memory before each round, so that every client meets a cold one.
#[tokio::test(flavor = "multi_thread")]
async fn cold_files_reach_many_clients_whole() {
    let bytes = 24 << 20;
    for server in Server::start_both(Config::default(), bytes).await {
        server.file.sync_all().unwrap();
        let whole = std::sync::Arc::new(expected(0..bytes));
        for _ in 0..3 {
            rustix::fs::fadvise(&*server.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            let mut clients = Vec::new();
            for number in 0..4 {
                let (mut client, whole) = (server.client().await, whole.clone());
                clients.push(tokio::spawn(async move {
                    let start = number * 3_333_333;
                    client.send(&request(start, whole.len())).await;
                    let answer = client.answer(true).await.expect("an answer");
                    assert!(answer.body == whole[start..], "client {number}");
                }));
            }
            for client in clients {
                soon(client).await.unwrap();
            }
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_truncated_under_a_download_ends_it_short_and_nothing_else() {
    let bytes = 64 << 20;
    for server in Server::start_both(Config::default(), bytes).await {
        let mut client = server.client().await;
        client
            .send("GET /file HTTP/1.1\r\nHost: test\r\n\r\n")
            .await;
        let (answer, length) = client.head().await.unwrap();
        assert_eq!((answer.status, length), (200, bytes));
        let start = client.take(1 << 20).await;
        assert!(start == expected(0..1 << 20));
        server.file.set_len(2 << 20).unwrap();
        let rest = client.rest().await;
        assert!(
            rest < bytes - (1 << 20),
            "{rest} bytes came of a file that is gone"
        );
        assert!(server.is_alive().await);
        let mut again = server.client().await;
        again.send(&request(0, 1 << 20)).await;
        assert!(
            again.answer(true).await.is_none(),
            "a file that changed since it was mapped is sent"
        );
        assert!(server.is_alive().await);
        server.stop().await;
    }
}
