//! Shutting down: what rests is closed, what runs may end, and nothing lasts longer than it may.

use std::time::Duration;

use cairn_gateway::Config;

use crate::client::soon;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn resting_connections_close_and_running_requests_end() {
    let server = Server::start(Config::default(), 1).await;
    let (arrived, release) = (server.arrived.clone(), server.release.clone());
    let mut resting = server.greeted().await;
    let mut silent = server.client().await;
    let mut running = server.client().await;
    running
        .send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    soon(arrived.notified()).await;
    server.shutdown.cancel();
    assert!(resting.is_closed().await);
    assert!(silent.is_closed().await);
    release.notify_one();
    let answer = running.answer(true).await.expect("an answer");
    assert_eq!(answer.body, b"held");
    assert!(running.is_closed().await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_end_are_cut() {
    let config = Config {
        drain_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    let server = Server::start(config, 1).await;
    let arrived = server.arrived.clone();
    let mut running = server.client().await;
    running
        .send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    soon(arrived.notified()).await;
    server.stop().await;
    assert!(running.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_are_refused_while_it_drains() {
    let server = Server::start(Config::default(), 1).await;
    let (arrived, release) = (server.arrived.clone(), server.release.clone());
    let address = server.address;
    let mut running = server.client().await;
    running
        .send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        .await;
    soon(arrived.notified()).await;
    let mut resting = server.greeted().await;
    server.shutdown.cancel();
    // Connections are told after the listener was closed.
    assert!(resting.is_closed().await);
    let refused = soon(async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await;
    release.notify_one();
    assert!(running.answer(true).await.is_some());
    server.stop().await;
}
