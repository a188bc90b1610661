//! Fetching a list of files: small ones many at a time, large ones a few.

use std::collections::VecDeque;
use std::time::Duration;

use cairn_protocol::limits::PIECE_BYTES;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::interval;

use super::{Arriving, FetchError, Fetcher, Wanted};
use crate::store::Digests;

/// Small files of one list that are waited for at once.
const SMALL_MAX: usize = 2_048;
/// Large files of one list that are waited for at once.
const LARGE_MAX: usize = 4;
/// How often progress is told.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// What a list of files came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Digests of each file, in the order they were asked for.
    pub digests: Vec<Digests>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of content that came over the network for them.
    pub network_bytes: u64,
}

impl Fetcher {
    /// The same for a thread that may block.
    pub(crate) fn fetch_all_blocking(
        &self,
        wanted: Vec<Wanted>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Fetched, FetchError> {
        let all = Box::pin(self.fetch_all(wanted, progress));
        self.inner.runtime.block_on(all)
    }

    /// Fetches files until all are stored; `progress` is told bytes here and bytes of all.
    ///
    /// Where one can't be had, the others are fetched all the same, and its error is the answer; where the
    /// store fails or the node stops, that is the answer at once.
    pub(crate) async fn fetch_all(
        &self,
        wanted: Vec<Wanted>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Fetched, FetchError> {
        let total = wanted.iter().map(|wanted| wanted.size).sum();
        let mut digests = vec![None; wanted.len()];
        let (small, large): (VecDeque<_>, VecDeque<_>) =
            (wanted.into_iter().enumerate()).partition(|(_, wanted)| wanted.size <= PIECE_BYTES);
        let mut queues = [(small, SMALL_MAX, 0), (large, LARGE_MAX, 0)];
        let (mut done, mut network, mut failed) = (0, 0, None);
        let mut waiting = FuturesUnordered::new();
        let mut active: Vec<Arriving> = Vec::new();
        let mut tick = interval(PROGRESS_PAUSE);
        loop {
            for (queue, max, running) in &mut queues {
                while *running < *max
                    && let Some((number, wanted)) = queue.pop_front()
                {
                    *running += 1;
                    let is_large = wanted.size > PIECE_BYTES;
                    let arriving = self.fetch(wanted);
                    if is_large {
                        active.push(arriving.clone());
                    }
                    waiting.push(async move {
                        let finished = arriving.finished().await;
                        (number, arriving, finished)
                    });
                }
            }
            tokio::select! {
                ended = waiting.next() => {
                    let Some((number, arriving, finished)) = ended else {
                        break;
                    };
                    let is_large = arriving.size() > PIECE_BYTES;
                    queues[usize::from(is_large)].2 -= 1;
                    active.retain(|other| !other.is_same(&arriving));
                    network += arriving.progress().1;
                    match finished {
                        Ok(found) => {
                            done += found.size;
                            digests[number] = Some(found);
                        }
                        Err(error @ (FetchError::Store(_) | FetchError::Stopped)) => {
                            return Err(error);
                        }
                        Err(error) => drop(failed.get_or_insert(error)),
                    }
                }
                _ = tick.tick() => {
                    let part: u64 = active.iter().map(|arriving| arriving.progress().0).sum();
                    progress(done + part, total);
                }
            }
        }
        progress(done, total);
        match failed {
            Some(error) => Err(error),
            None => Ok(Fetched {
                digests: digests.into_iter().flatten().collect(),
                bytes: total,
                network_bytes: network,
            }),
        }
    }
}
