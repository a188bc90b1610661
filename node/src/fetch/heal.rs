//! Healing: what is stored and no longer matches its hash is fetched again from a peer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::OBJECT_BYTES_MAX;
use cairn_protocol::transfer::Held;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::claims::Claimed;
use super::search::{LOOK_UP_TIMEOUT, progressing};
use super::{FetchError, Fetcher};
use crate::access::{Access, prefix};
use crate::blobs::TransferError;
use crate::store::{Claim, Digests};

/// How often it is looked whether something was found damaged.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Blobs that are healed at once.
const HEALING_MAX: usize = 4;
/// Time until a blob is tried again that could not be healed; doubled each time, up to the last.
const PAUSES: [Duration; 2] = [Duration::from_secs(30), Duration::from_mins(15)];
/// Blobs whose next try is kept in mind; further ones wait until others are healed.
const WAITING_MAX: usize = 10_000;

/// A blob that could not be healed.
#[derive(Debug, Clone, Copy)]
struct Failed {
    again: Instant,
    pause: Duration,
}

/// Heals what is damaged, as long as the node runs.
pub(super) fn spawn(fetcher: &Fetcher, access: Access) {
    // Not counted as a use of the node: it ends with it.
    let fetcher = fetcher.clone();
    fetcher.inner.clone().tasks.spawn(async move {
        let stop = fetcher.inner.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = watch(&fetcher, &access) => {}
        }
    });
}

async fn watch(fetcher: &Fetcher, access: &Access) {
    let store = &fetcher.inner.store;
    let mut failed: HashMap<Blake3, Failed> = HashMap::new();
    let mut alarms = None;
    let mut healing: JoinSet<(Blake3, Result<(), FetchError>)> = JoinSet::new();
    let mut under_way = Vec::new();
    let mut damaged = Vec::new();
    let mut tick = interval(LOOK_PAUSE);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            Some(Ok((hash, healed))) = healing.join_next() => {
                under_way.retain(|other| *other != hash);
                damaged.retain(|(other, _)| *other != hash);
                match healed {
                    Ok(()) => {
                        tracing::info!(%hash, "damaged content was healed from a peer");
                        failed.remove(&hash);
                    }
                    Err(error) => {
                        let pause = failed.get(&hash).map_or(PAUSES[0], |failed| {
                            (failed.pause * 2).min(PAUSES[1])
                        });
                        tracing::warn!(%hash, %error, "damaged content could not be healed yet");
                        // Up to half as long again, so that not all nodes ask at once.
                        let jitter = pause.mul_f64(f64::from(fetcher.inner.seed().to_le_bytes()[7]) / 512.0);
                        let again = Instant::now() + pause + jitter;
                        if failed.len() < WAITING_MAX || failed.contains_key(&hash) {
                            failed.insert(hash, Failed { again, pause });
                        }
                    }
                }
            }
        }
        let now = Instant::now();
        let risen = alarms.replace(store.alarms()) != Some(store.alarms());
        let due = failed.values().any(|failed| failed.again <= now);
        if risen || due {
            let store = store.clone();
            match fetcher.inner.blocking(move || store.damaged()).await {
                Ok(found) => {
                    failed.retain(|hash, _| found.iter().any(|(other, _)| other == hash));
                    damaged = found;
                    damaged.truncate(WAITING_MAX);
                }
                Err(error) => tracing::warn!(%error, "cannot tell what is damaged"),
            }
        }
        for (hash, digests) in &damaged {
            let waits = failed.get(hash).is_some_and(|failed| failed.again > now)
                // Peers don't have what is private, and are not told of it by being asked.
                || (fetcher.inner.cache.has_private() && !access.is_public(&prefix(hash)));
            if healing.len() < HEALING_MAX && !waits && !under_way.contains(hash) {
                under_way.push(*hash);
                let (fetcher, hash, digests) = (fetcher.clone(), *hash, *digests);
                healing.spawn(async move { (hash, fetcher.heal(hash, digests).await) });
            }
        }
    }
}

impl Fetcher {
    /// Fetches a blob again that this node had, by the digests that it computed of it then.
    pub(crate) async fn heal(
        &self,
        hash: Blake3,
        digests: Option<Digests>,
    ) -> Result<(), FetchError> {
        let Some(Digests {
            sha256, git, size, ..
        }) = digests
        else {
            return self.heal_object(hash).await;
        };
        let claimed = Claimed {
            repository: None,
            path: "damaged content".to_owned(),
            claim: Claim { sha256, git },
        };
        self.join(hash, size, claimed).finished().await.map(|_| ())
    }

    /// One of our own objects, of which nothing is known but the hash.
    async fn heal_object(&self, hash: Blake3) -> Result<(), FetchError> {
        let blobs = &self.inner.blobs;
        for peer in self.inner.peers() {
            let held = timeout(LOOK_UP_TIMEOUT, blobs.look_up(peer, vec![hash])).await;
            let Ok(Ok(held)) = held else {
                continue;
            };
            if !matches!(held[..], [Held::Whole(size)] if size <= OBJECT_BYTES_MAX as u64) {
                continue;
            }
            let (into, mut coming) = mpsc::channel::<(Blake3, Bytes)>(1);
            let asked = progressing(blobs, &peer, blobs.blobs(peer, vec![hash], into));
            let (result, blob) = tokio::join!(asked, coming.recv());
            match (result, blob) {
                (Ok(()), Some((found, bytes))) if found == hash => {
                    let store = self.inner.store.clone();
                    let keep = move || {
                        let mut batch = store.batch();
                        batch.put(bytes);
                        batch.commit()
                    };
                    return self.inner.blocking(keep).await;
                }
                (Err(TransferError::Lied(what)), _) => self.inner.lied(&peer, &what),
                _ => {}
            }
        }
        let path = "damaged object".to_owned();
        Err(FetchError::NoProvider { path, hash })
    }
}
