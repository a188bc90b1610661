//! Bodies of requests: bounded in size and in patience.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use http_body_util::BodyExt as _;

use crate::config::Config;
use crate::error::ApiError;

/// Reads a whole body.
///
/// # Errors
/// It is larger than [`Config::body_bytes_max`], makes no progress for [`Config::body_idle_timeout`],
/// is compressed (what it unpacks to is not known before), or breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    config: &Config,
) -> Result<Bytes, ApiError> {
    let max = config.body_bytes_max;
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(ApiError::unsupported_media_type(
            "Compressed request bodies are not taken",
        ));
    }
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(ApiError::body_too_large(max));
    }
    let mut whole = Vec::new();
    loop {
        let frame = tokio::time::timeout(config.body_idle_timeout, body.frame())
            .await
            .map_err(|_| ApiError::body_too_slow())?;
        let Some(frame) = frame else {
            return Ok(whole.into());
        };
        if let Ok(data) = frame.map_err(ApiError::body_broken)?.into_data() {
            if whole.len() + data.len() > max {
                return Err(ApiError::body_too_large(max));
            }
            whole.extend_from_slice(&data);
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
            ..Config::default()
        }
    }

    async fn status(headers: &[(&'static str, &'static str)], body: Body) -> u16 {
        use axum::response::IntoResponse as _;
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        match read(&headers, body, &config()).await {
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
}
