//! Lines of a body while it arrives, each within a bound, all long ones together within another.

use axum::body::Body;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::body;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// Bytes of one line: base64 of the largest file that is sent inline, and its path.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 20;
/// Bytes from which on a line counts as long, and needs one of a few places.
const LONG_BYTES_MIN: usize = 1 << 20;
/// Lines that wait for the worker.
const WAITING: usize = 1;

/// One line; its place is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    bytes: Vec<u8>,
    place: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Line {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

enum Item {
    Line(Line),
    /// The body was whole.
    End,
}

/// Where lines go.
pub(super) struct Sender(mpsc::Sender<Item>);

/// Where lines come from.
pub(super) struct Lines(mpsc::Receiver<Item>);

pub(super) fn channel() -> (Sender, Lines) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Sender(sender), Lines(receiver))
}

impl Lines {
    /// The next line; nothing once the whole body was read. Blocking.
    ///
    /// # Errors
    /// The body broke off.
    pub(super) fn next(&mut self) -> Result<Option<Line>, ApiError> {
        match self.0.blocking_recv() {
            Some(Item::Line(line)) => Ok(Some(line)),
            Some(Item::End) => Ok(None),
            None => Err(ApiError::bad_request("The request's body broke off")),
        }
    }
}

/// Cuts a body into lines, and hands them over; ends early where nobody takes them any more.
///
/// # Errors
/// A line is too long, the body makes no progress or breaks off, or no place became free.
pub(super) async fn pump(
    gateway: &Gateway,
    body: &mut Body,
    Sender(sender): Sender,
) -> Result<(), ApiError> {
    let mut line = Line {
        bytes: Vec::new(),
        place: None,
    };
    while let Some(part) = body::next(body, gateway.config()).await? {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let (piece, ends) = match rest.iter().position(|byte| *byte == b'\n') {
                Some(at) => (&rest[..at], true),
                None => (rest, false),
            };
            if line.bytes.len() + piece.len() > LINE_BYTES_MAX {
                return Err(ApiError::too_large(format!(
                    "A line of the commit is longer than {LINE_BYTES_MAX} bytes: send the file as LFS"
                )));
            }
            if line.bytes.len() + piece.len() > LONG_BYTES_MIN && line.place.is_none() {
                line.place = Some(gateway.line_place().await?);
            }
            line.bytes.extend_from_slice(piece);
            rest = &rest[piece.len() + usize::from(ends)..];
            if ends {
                let next = Line {
                    bytes: Vec::new(),
                    place: None,
                };
                let whole = std::mem::replace(&mut line, next);
                if !whole.is_empty() && sender.send(Item::Line(whole)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
    if !line.is_empty() && sender.send(Item::Line(line)).await.is_err() {
        return Ok(());
    }
    // Where the worker is gone, its error is the answer.
    drop(sender.send(Item::End).await);
    Ok(())
}
