//! Bodies of requests: bounded in size and in patience.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderMap};
use http_body_util::BodyExt as _;

use crate::config::Config;
use crate::error::ApiError;

/// Bytes a second that the sender of a long body must be able to send.
const RATE_MIN: u64 = 256 << 10;
/// Bytes that are still read of a body that was refused, so that its sender gets to see why.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// Reads a whole body of at most so many bytes.
///
/// # Errors
/// It is larger, makes no progress for [`Config::body_idle_timeout`],
/// takes longer than [`Config::body_timeout`], is compressed (what it unpacks to is not known before), or breaks off.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    max: usize,
    config: &Config,
) -> Result<Bytes, ApiError> {
    let reading = read_bounded(headers, &mut body, max, config);
    let read = tokio::time::timeout(config.body_timeout, reading)
        .await
        .unwrap_or_else(|_| Err(ApiError::body_too_slow()));
    if read.is_err() {
        refuse(headers, body, config);
    }
    read
}

/// Reads a whole body that may take longer, the more bytes it has.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_long(
    headers: &HeaderMap,
    mut body: Body,
    max: usize,
    config: &Config,
) -> Result<Bytes, ApiError> {
    let length = announced(headers).unwrap_or(max as u64);
    let patience = config.body_timeout + Duration::from_secs(length / RATE_MIN);
    let reading = read_bounded(headers, &mut body, max, config);
    let read = tokio::time::timeout(patience, reading)
        .await
        .unwrap_or_else(|_| Err(ApiError::body_too_slow()));
    if read.is_err() {
        refuse(headers, body, config);
    }
    read
}

/// Lets the sender of a body that is not wanted see why.
pub(crate) fn refuse(headers: &HeaderMap, body: Body, config: &Config) {
    // Who waits for a go-ahead sends nothing before it, and gets none.
    if !headers.contains_key(EXPECT) {
        let lingering = tokio::time::timeout(config.body_idle_timeout, linger(body));
        drop(tokio::spawn(lingering));
    }
}

/// Takes more of a refused body while its answer goes out: closing at once would reset the connection,
/// and throw away the answer.
async fn linger(mut body: Body) {
    let mut taken = 0;
    while let Some(Ok(frame)) = body.frame().await {
        taken += frame.data_ref().map_or(0, Bytes::len);
        if taken > LINGER_BYTES_MAX {
            return;
        }
    }
}

async fn read_bounded(
    headers: &HeaderMap,
    body: &mut Body,
    max: usize,
    config: &Config,
) -> Result<Bytes, ApiError> {
    must_be_plain(headers)?;
    if announced(headers).is_some_and(|length| length > max as u64) {
        return Err(ApiError::body_too_large(max));
    }
    let expected = announced(headers).and_then(|length| usize::try_from(length).ok());
    // No more than was said, and no more than is allowed; grown where less was said.
    let mut whole = Vec::with_capacity(expected.unwrap_or(0).min(max));
    while let Some(data) = next(body, config).await? {
        if whole.len() + data.len() > max {
            return Err(ApiError::body_too_large(max));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

/// Refuses a compressed body: what it unpacks to is not known before.
pub(crate) fn must_be_plain(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_packed = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_packed {
        return Err(ApiError::unsupported_media_type(
            "Compressed request bodies are not taken",
        ));
    }
    Ok(())
}

/// Bytes that a body was said to have.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The next bytes of a body; nothing at its end.
///
/// # Errors
/// It makes no progress for [`Config::body_idle_timeout`], or breaks off.
pub(crate) async fn next(body: &mut Body, config: &Config) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame = tokio::time::timeout(config.body_idle_timeout, body.frame())
            .await
            .map_err(|_| ApiError::body_too_slow())?;
        let Some(frame) = frame else {
            return Ok(None);
        };
        if let Ok(data) = frame.map_err(ApiError::body_broken)?.into_data() {
            return Ok(Some(data));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config() -> Config {
        Config {
            body_bytes_max: 10,
            body_idle_timeout: Duration::from_millis(50),
            body_timeout: Duration::from_millis(200),
            ..Config::default()
        }
    }

    async fn status(headers: &[(&'static str, &'static str)], body: Body) -> u16 {
        use axum::response::IntoResponse as _;
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        match read(&headers, body, config().body_bytes_max, &config()).await {
            Ok(_) => 200,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_size_and_patience() {
        assert_eq!(status(&[], Body::from("0123456789")).await, 200);
        assert_eq!(status(&[], Body::from("0123456789a")).await, 413);
        let announced = [("content-length", "11")];
        assert_eq!(status(&announced, Body::empty()).await, 413);
        let packed = [("content-encoding", "gzip")];
        assert_eq!(status(&packed, Body::from("x")).await, 415);
        let (_sender, never) = http_body_util::channel::Channel::<Bytes, axum::Error>::new(1);
        assert_eq!(status(&[], Body::new(never)).await, 408);
    }

    #[tokio::test]
    async fn a_body_that_trickles_has_an_end() {
        let (mut sender, trickle) = http_body_util::channel::Channel::<Bytes, axum::Error>::new(1);
        let trickling = tokio::spawn(async move {
            let mut period = tokio::time::interval(Duration::from_millis(10));
            // Empty frames are progress, and never too much.
            while sender.send_data(Bytes::new()).await.is_ok() {
                period.tick().await;
            }
        });
        assert_eq!(status(&[], Body::new(trickle)).await, 408);
        trickling.await.unwrap();
    }

    /// Over a real connection: a sender that has sent everything, of which the gateway wants little.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_sender_of_too_much_gets_to_see_why() {
        use axum::extract::Request;
        use axum::routing::post;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let answer = async |request: Request| {
            let (parts, body) = request.into_parts();
            let config = Config::default();
            let max = config.body_bytes_max;
            read(&parts.headers, body, max, &config)
                .await
                .map(|_| "taken")
        };
        let router = axum::Router::new().route("/", post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = tokio_util::sync::CancellationToken::new();
        let token = shutdown.clone();
        let serving = tokio::spawn(async move {
            crate::server::serve(listener, router, &Config::default(), token).await
        });
        let chunked = format!("100000\r\n{}\r\n", "x".repeat(1 << 20)).repeat(3) + "0\r\n\r\n";
        let sized = "x".repeat(3 << 20);
        for (framing, body) in [
            (format!("Content-Length: {}", sized.len()), sized),
            ("Transfer-Encoding: chunked".to_owned(), chunked),
        ] {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            let head = format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n");
            client.write_all(head.as_bytes()).await.unwrap();
            client.write_all(body.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            client.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 413", "{framing}");
        }
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
