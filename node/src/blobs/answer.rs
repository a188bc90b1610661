//! Answers in our own protocol.

use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::{CLOSURE_HASHES_MAX, FETCH_BYTES_MAX, LOOKUP_SETS_BYTES_MAX};
use cairn_protocol::transfer::{Answer, Held, Request};
use iroh::endpoint::SendStream;
use iroh_blobs::protocol::ERR_LIMIT;

use super::serve::{Client, Cut, Server};
use super::wire::Writing;
use crate::store::StoreError;

/// Bytes of an answer that is sent whatever the limit of what is sent.
const UNLIMITED_BYTES_MAX: usize = 64 << 10;

/// An answer in parts that are limited one by one.
fn steps_of(answer: &Bytes) -> Vec<Bytes> {
    let starts = (0..answer.len()).step_by(UNLIMITED_BYTES_MAX);
    starts
        .map(|at| answer.slice(at..answer.len().min(at + UNLIMITED_BYTES_MAX)))
        .collect()
}

impl Client {
    pub(super) async fn answer_own(
        &self,
        send: &mut SendStream,
        request: &[u8],
    ) -> Result<(), Cut> {
        let request =
            Request::decode(request).map_err(|_| Cut::Refused("it is malformed", ERR_LIMIT))?;
        let answer = match request {
            Request::Lookup(hashes) => Answer::Held(self.held(hashes).await?),
            Request::List(hash) => Answer::List(self.list(hash).await?),
            Request::Closure { refs, skip } => self.closure(refs, skip).await?,
        };
        let answer = answer.encode();
        // Only what is short passes by the limit: others wait for it to know whom to ask.
        let rate = self.server.upload_rate.as_ref();
        let mut writing = Writing {
            send,
            rate: rate.filter(|_| answer.len() > UNLIMITED_BYTES_MAX),
            counts: Arc::default(),
        };
        let mut chunks: Vec<Bytes> = vec![answer.into()];
        if writing.rate.is_some() {
            chunks = steps_of(&chunks[0]);
        }
        Ok(writing.write(&mut chunks).await?)
    }

    async fn held(&self, hashes: Vec<Blake3>) -> Result<Vec<Held>, Cut> {
        let server = Arc::clone(&self.server);
        let peer = self.peer;
        let all = move || {
            let mut room = LOOKUP_SETS_BYTES_MAX;
            let held = hashes.iter().map(|hash| {
                if (server.may_read)(&peer, hash) {
                    server.held(hash, &mut room)
                } else {
                    Held::Absent
                }
            });
            held.collect()
        };
        self.work(all).await
    }

    async fn list(&self, hash: Blake3) -> Result<Option<Vec<u8>>, Cut> {
        match self.open(hash).await {
            Ok(pieces) if pieces.list().size() <= FETCH_BYTES_MAX => Ok(pieces.list().encode()),
            Ok(_) | Err(Cut::NotHere) => Ok(None),
            Err(cut) => Err(cut),
        }
    }

    async fn closure(&self, refs: Blake3, skip: u64) -> Result<Answer, Cut> {
        if !(self.server.may_read)(&self.peer, &refs) {
            return Ok(Answer::Closure(Vec::new(), false));
        }
        let (server, peer) = (Arc::clone(&self.server), self.peer);
        let walk = move || {
            let may_read = |hash: &Blake3| (server.may_read)(&peer, hash);
            server.closures.of(&server.store, &refs, &may_read)
        };
        let hashes = self.work(walk).await?;
        let skip = usize::try_from(skip)
            .unwrap_or(usize::MAX)
            .min(hashes.len());
        let rest = &hashes[skip..];
        let some = &rest[..rest.len().min(CLOSURE_HASHES_MAX)];
        Ok(Answer::Closure(some.to_vec(), some.len() < rest.len()))
    }
}

impl Server {
    /// What is here of a blob; a set of pieces only while there is room for it in the answer.
    fn held(&self, hash: &Blake3, room: &mut usize) -> Held {
        let pieces = match self.store.pieces(hash) {
            Ok(pieces) => pieces,
            Err(error) => {
                if !matches!(error, StoreError::Absent { .. }) {
                    tracing::warn!(%hash, %error, "a blob can't be served");
                }
                return Held::Absent;
            }
        };
        let size = pieces.list().size();
        let Some(held) = pieces.held() else {
            return Held::Whole(size);
        };
        let bytes = usize::try_from(held.count().div_ceil(8)).unwrap_or(usize::MAX);
        if size > FETCH_BYTES_MAX || bytes > *room || held.is_empty() {
            return Held::Absent;
        }
        *room -= bytes;
        Held::Partial(size, held)
    }
}
