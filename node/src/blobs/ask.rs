//! Asking in our own protocol.

use std::collections::HashSet;

use cairn_protocol::hash::Blake3;
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::{
    CLOSURE_HASHES_MAX, LOOKUP_HASHES_MAX, LOOKUP_SETS_BYTES_MAX, TRANSFER_ANSWER_BYTES_MAX,
};
use cairn_protocol::piece::{PieceList, piece_count};
use cairn_protocol::transfer::{self, Answer, Held, Request};

use super::wire::{PROGRESS_BYTES, Reading, StreamError};
use super::{Inner, TransferError};

/// Bytes of an answer beside its hashes, list or sets.
const FRAME_BYTES: usize = 16;
/// Bytes of one blob in an answer to a look-up, beside its set.
const HELD_BYTES: usize = 9;

fn lied(error: impl std::fmt::Display) -> TransferError {
    TransferError::Lied(error.to_string())
}

fn other() -> TransferError {
    lied("an answer to another question")
}

impl Inner {
    /// One request, and its answer of at most `max` bytes.
    async fn ask(
        &self,
        peer: PublicKey,
        request: &Request,
        max: usize,
    ) -> Result<Answer, TransferError> {
        let max = max.min(TRANSFER_ANSWER_BYTES_MAX);
        let mut stream = self.pool.open(peer, transfer::ALPN).await?;
        let sent = stream.send.write_chunk(request.encode().into()).await;
        sent.map_err(|error| TransferError::Broken(error.to_string()))?;
        stream.send.finish().ok();
        let mut reading = Reading::new(&mut stream.recv, None, self.traffic.of(&peer));
        let mut bytes = Vec::new();
        loop {
            let from = bytes.len();
            bytes.resize(from + PROGRESS_BYTES, 0);
            let (read, ended) = reading.fill_or_end(&mut bytes[from..]).await;
            bytes.truncate(from + read);
            if bytes.len() > max {
                return Err(lied(StreamError::TooLong(max)));
            }
            match ended {
                None => {}
                Some(StreamError::Ended) => break,
                Some(error) => return Err(error.of_transfer()),
            }
        }
        if bytes.is_empty() {
            return Err(TransferError::Absent);
        }
        Answer::decode(&bytes).map_err(lied)
    }

    pub(super) async fn ask_held(
        &self,
        peer: PublicKey,
        hashes: &[Blake3],
    ) -> Result<Vec<Held>, TransferError> {
        let mut all = Vec::with_capacity(hashes.len());
        for hashes in hashes.chunks(LOOKUP_HASHES_MAX) {
            let max = FRAME_BYTES + hashes.len() * HELD_BYTES + LOOKUP_SETS_BYTES_MAX;
            let request = Request::Lookup(hashes.to_vec());
            match self.ask(peer, &request, max).await? {
                Answer::Held(held) if held.len() == hashes.len() => all.extend(held),
                _ => return Err(other()),
            }
        }
        Ok(all)
    }

    pub(super) async fn ask_list(
        &self,
        peer: PublicKey,
        hash: &Blake3,
        size: u64,
    ) -> Result<PieceList, TransferError> {
        let bytes = usize::try_from(piece_count(size) * 32).unwrap_or(usize::MAX);
        let max = bytes.saturating_add(FRAME_BYTES);
        match self.ask(peer, &Request::List(*hash), max).await? {
            Answer::List(None) => Err(TransferError::Absent),
            Answer::List(list) => PieceList::decode(list.as_deref(), size, hash).map_err(lied),
            _ => Err(other()),
        }
    }

    pub(super) async fn ask_closure(
        &self,
        peer: PublicKey,
        refs: Blake3,
        skip: u64,
    ) -> Result<(Vec<Blake3>, bool), TransferError> {
        let max = FRAME_BYTES + CLOSURE_HASHES_MAX * Blake3::SIZE;
        match self
            .ask(peer, &Request::Closure { refs, skip }, max)
            .await?
        {
            Answer::Closure(hashes, true) if hashes.len() < CLOSURE_HASHES_MAX => {
                Err(lied("an answer that says there is more and is not full"))
            }
            Answer::Closure(hashes, more) => {
                let mut seen = HashSet::with_capacity(hashes.len());
                if hashes.iter().all(|hash| seen.insert(hash)) {
                    Ok((hashes, more))
                } else {
                    Err(lied("an answer that names a blob twice"))
                }
            }
            _ => Err(other()),
        }
    }
}
