//! Bodies that are too large for memory: read by a blocking worker while they arrive.

use std::io::{self, Read};

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use tokio::sync::mpsc;

use crate::body;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// Parts of a body that wait for the worker; the sender is held up until there is room.
const PARTS: usize = 16;

/// The body as the worker reads it.
#[derive(Debug)]
pub(crate) struct BodyReader {
    parts: mpsc::Receiver<Result<Bytes, ()>>,
    now: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.parts.blocking_recv() {
                Some(Ok(part)) => self.now = part,
                Some(Err(())) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.now.len());
        buffer[..length].copy_from_slice(&self.now.split_to(length));
        Ok(length)
    }
}

/// Runs a worker on a body while it arrives.
///
/// # Errors
/// What the worker says; or that no place became free, that the body is compressed, makes no progress, or
/// breaks off.
pub(crate) async fn run<T: Send + 'static>(
    gateway: &Gateway,
    headers: &HeaderMap,
    mut body: Body,
    work: impl FnOnce(&Gateway, &mut BodyReader) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let config = gateway.config();
    let place = match body::must_be_plain(headers) {
        Ok(()) => gateway.upload_place().await,
        Err(error) => Err(error),
    };
    let place = match place {
        Ok(place) => place,
        Err(error) => {
            body::refuse(headers, body, config);
            return Err(error);
        }
    };
    let (sender, parts) = mpsc::channel(PARTS);
    let worker = {
        let gateway = gateway.clone();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let now = Bytes::new();
            work(&gateway, &mut BodyReader { parts, now })
        })
    };
    let sent = loop {
        match body::next(&mut body, config).await {
            Ok(Some(part)) => {
                // The worker has seen enough.
                if sender.send(Ok(part)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => {
                drop(sender.send(Err(())).await);
                break Err(error);
            }
        }
    };
    drop(sender);
    let done = worker.await.map_err(ApiError::internal)?;
    if sent.is_err() || done.is_err() {
        body::refuse(headers, body, config);
    }
    sent.and(done)
}
