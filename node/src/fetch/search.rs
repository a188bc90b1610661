//! Who has a file: connected peers are asked, then the look-up table of repositories.

use std::collections::{BTreeSet, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_protocol::hash::{Blake3, RepositoryId};
use cairn_protocol::key::PublicKey;
use cairn_protocol::transfer::Held;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Inner;
use crate::blobs::{Blobs, TransferError};

/// Peers that are asked about one file, and kept in mind; further ones are left out.
const PEERS_MAX: usize = 256;
/// Time that a peer has to say what it holds.
pub(super) const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// After this a peer that had nothing is asked again, while nobody else has it.
const AGAIN_HUNGRY: Duration = Duration::from_secs(2);
/// After this it is asked again otherwise.
const AGAIN_FED: Duration = Duration::from_secs(30);
/// After this a peer that is on its way to have all is asked again, once what it had is used up.
const AGAIN_PARTIAL: Duration = Duration::from_secs(1);
/// Time between two questions to the look-up table.
const TABLE_PAUSE: Duration = Duration::from_secs(5);
/// Time that the look-up table has.
pub(super) const TABLE_PATIENCE: Duration = Duration::from_secs(3);
/// Time within which [`PROGRESS_BYTES`] must come.
const PROGRESS_TIME: Duration = Duration::from_secs(15);
/// Bytes that count as progress: a byte a second is none.
pub(super) const PROGRESS_BYTES: u64 = 16 << 10;

/// The search for providers of one file.
#[derive(Debug)]
pub(super) struct Search {
    hash: Blake3,
    repository: Option<RepositoryId>,
    peers: HashMap<PublicKey, Seen>,
    asking: JoinSet<Option<(PublicKey, Result<Held, TransferError>)>>,
    table_asked: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Awaited,
    Nothing,
    Part,
    Whole,
}

impl Search {
    pub(super) fn new(hash: Blake3, repository: Option<RepositoryId>) -> Self {
        Self {
            hash,
            repository,
            peers: HashMap::new(),
            asking: JoinSet::new(),
            table_asked: None,
        }
    }

    /// Asks whom it is time to ask; `hungry` where nobody has what is missing, `idle` are those whose
    /// offer is used up.
    pub(super) fn ask_around(
        &mut self,
        inner: &Arc<Inner>,
        hungry: bool,
        idle: &BTreeSet<PublicKey>,
    ) {
        let connected = inner.peers();
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain(|peer, _| connected.contains(peer));
        }
        for peer in connected {
            let due = match self.peers.get(&peer) {
                None => self.peers.len() < PEERS_MAX,
                Some(seen) => {
                    let pause = match seen.answer {
                        Answer::Nothing | Answer::Whole if hungry => AGAIN_HUNGRY,
                        Answer::Nothing => AGAIN_FED,
                        Answer::Part if hungry || idle.contains(&peer) => AGAIN_PARTIAL,
                        Answer::Awaited | Answer::Part | Answer::Whole => continue,
                    };
                    seen.at.elapsed() >= pause
                }
            };
            if due {
                self.ask(inner, peer);
            }
        }
        if let Some(repository) = self.repository
            && hungry
            && self
                .table_asked
                .is_none_or(|at| at.elapsed() >= TABLE_PAUSE)
        {
            self.table_asked = Some(Instant::now());
            let inner = Arc::clone(inner);
            self.asking.spawn(async move {
                // Dialled meanwhile; they are asked once they are connected.
                drop(inner.swarm.providers(repository, TABLE_PATIENCE).await);
                None
            });
        }
    }

    fn ask(&mut self, inner: &Arc<Inner>, peer: PublicKey) {
        let seen = Seen {
            at: Instant::now(),
            answer: Answer::Awaited,
        };
        self.peers.insert(peer, seen);
        let (blobs, hash) = (inner.blobs.clone(), self.hash);
        self.asking.spawn(async move {
            let asked = timeout(LOOK_UP_TIMEOUT, blobs.look_up(peer, vec![hash])).await;
            let held = match asked {
                Ok(Ok(held)) => Ok(held.into_iter().next().unwrap_or(Held::Absent)),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(TransferError::Broken("it does not answer".to_owned())),
            };
            Some((peer, held))
        });
    }

    /// The next answer.
    pub(super) async fn next(&mut self) -> (PublicKey, Result<Held, TransferError>) {
        loop {
            match self.asking.join_next().await {
                None => return pending().await,
                Some(Ok(Some((peer, held)))) => {
                    let answer = match &held {
                        Ok(Held::Whole(_)) => Answer::Whole,
                        Ok(Held::Partial(..)) => Answer::Part,
                        Ok(Held::Absent) | Err(_) => Answer::Nothing,
                    };
                    let at = Instant::now();
                    self.peers.insert(peer, Seen { at, answer });
                    return (peer, held);
                }
                Some(_) => {}
            }
        }
    }

    /// A peer turned out not to have it, or not to be reached.
    pub(super) fn has_not(&mut self, peer: PublicKey) {
        let seen = Seen {
            at: Instant::now(),
            answer: Answer::Nothing,
        };
        self.peers.insert(peer, seen);
    }

    /// Whether anybody was asked and may still have it.
    pub(super) fn is_awaiting(&self) -> bool {
        (self.peers.values()).any(|seen| seen.answer == Answer::Awaited)
    }
}

/// Waits until a peer has sent next to nothing for a while.
async fn stalled(blobs: &Blobs, peer: &PublicKey) {
    slower_than(blobs, peer, PROGRESS_TIME, PROGRESS_BYTES).await;
}

/// Waits until a peer has sent less than so many bytes in such a time.
pub(super) async fn slower_than(blobs: &Blobs, peer: &PublicKey, time: Duration, bytes: u64) {
    let mut before = blobs.moved(peer);
    loop {
        sleep(time).await;
        let now = blobs.moved(peer);
        if now.saturating_sub(before) < bytes {
            return;
        }
        before = now;
    }
}

/// Does what a peer is asked for, as long as it makes progress.
pub(super) async fn progressing<T>(
    blobs: &Blobs,
    peer: &PublicKey,
    work: impl Future<Output = Result<T, TransferError>>,
) -> Result<T, TransferError> {
    tokio::select! {
        done = work => done,
        () = stalled(blobs, peer) => Err(TransferError::Broken("it makes no progress".to_owned())),
    }
}

/// Whether a file has so many bytes, shown by its last piece.
pub(super) async fn prove_size(blobs: &Blobs, peer: PublicKey, hash: Blake3, size: u64) -> bool {
    let prove = async {
        let list = Arc::new(Box::pin(blobs.list(peer, hash, size)).await?);
        let end = list.values().len() as u64;
        let (into, mut pieces) = tokio::sync::mpsc::channel(1);
        let asked = Box::pin(blobs.pieces(peer, hash, list, end - 1..end, into));
        let (asked, piece) = tokio::join!(asked, pieces.recv());
        asked.map(|()| piece.is_some_and(|piece| piece.index + 1 == end))
    };
    progressing(blobs, &peer, Box::pin(prove))
        .await
        .unwrap_or(false)
}
