//! Large files being opened: one opener at a time for a file, few in all.
//!
//! A file whose times changed is hashed before it is served, for minutes where it is large. Whoever
//! else asks for it meanwhile waits here, and takes nothing that other requests need.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_protocol::hash::Blake3;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// Large files that are opened at a time.
const OPENINGS_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Openings {
    running: Mutex<HashSet<Blake3>>,
    ended: Notify,
    places: Arc<Semaphore>,
}

impl Default for Openings {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            ended: Notify::new(),
            places: Arc::new(Semaphore::new(OPENINGS_MAX)),
        }
    }
}

/// The right to open a file; given back on drop.
#[derive(Debug)]
pub(super) struct Opening {
    _turn: Turn,
    _place: OwnedSemaphorePermit,
}

impl Openings {
    /// Waits until nobody else opens this file, and for a place.
    ///
    /// # Errors
    /// Either took longer than `patience`.
    pub(super) async fn begin(
        self: &Arc<Self>,
        hash: Blake3,
        patience: Duration,
    ) -> Result<Opening, ApiError> {
        let turn = tokio::time::timeout(patience, self.turn(hash))
            .await
            .map_err(|_| ApiError::being_verified())?;
        let place = Arc::clone(&self.places).acquire_owned();
        let place = tokio::time::timeout(patience, place)
            .await
            .map_err(|_| ApiError::busy())?
            .map_err(ApiError::internal)?;
        Ok(Opening {
            _turn: turn,
            _place: place,
        })
    }

    async fn turn(self: &Arc<Self>, hash: Blake3) -> Turn {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            if self.lock().insert(hash) {
                let all = Arc::clone(self);
                return Turn { all, hash };
            }
            ended.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Blake3>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Turn {
    all: Arc<Openings>,
    hash: Blake3,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.all.lock().remove(&self.hash);
        self.all.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[tokio::test]
    async fn a_file_has_one_opener_and_others_wait() {
        let openings = Arc::new(Openings::default());
        let short = Duration::from_millis(20);
        let hash = |byte| Blake3::from_bytes([byte; 32]);
        let status = |error: ApiError| error.into_response().status().as_u16();
        let first = openings.begin(hash(1), short).await.unwrap();
        let refused = openings.begin(hash(1), short).await.unwrap_err();
        assert_eq!(status(refused), 500);
        let others = [2, 3, 4].map(|byte| openings.begin(hash(byte), short));
        let mut held = Vec::new();
        for other in others {
            held.push(other.await.unwrap());
        }
        let refused = openings.begin(hash(5), short).await.unwrap_err();
        assert_eq!(status(refused), 503);
        let waiting = openings.begin(hash(1), Duration::from_secs(10));
        let (waited, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            drop(first);
        });
        waited.unwrap();
    }
}
