//! One repository: what its head lacks is fetched from one peer after another, until it is whole.
//!
//! A peer names what is behind a head in one answer; that is a hint, and only what the walk then reaches
//! counts. What the hint left out is asked for as the walk finds it missing.
//!
//! Nothing is kept from being swept while a peer is waited for, however slow that is: where a sweep came
//! between, the walk begins anew, and fetches again what is gone.

use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::hash::{Blake3, RepositoryId};
use cairn_protocol::key::PublicKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::{Parts, blocking, own};
use super::Wrong;
use crate::blobs::TransferError;
use crate::repos::{EntryKind, Outcome, Pending, Walk};
use crate::store::{Store, StoreError};

/// Blobs asked for in one request.
const BATCH_BLOBS: usize = 1024;
/// Blobs that wait to be stored.
const WAITING_BLOBS: usize = 2;
/// Bytes that one sync makes durable.
const COMMIT_BYTES: u64 = 8 << 20;
/// Rounds of asking for exactly what is missing, before a hint is asked for, where an earlier head is whole.
const ROUNDS_WITHOUT_HINT: u32 = 6;
/// Bytes of hints that may turn out to be of no use; a peer that sends more is parted from.
const USELESS_BYTES_MAX: u64 = 64 << 20;
/// Hashes of hints for one head; what lies beyond is found by walking.
const HINTS_MAX: u64 = 1 << 20;
/// For how long a peer is refused that sent wrong bytes or endless hints.
const REFUSE_LIAR: Duration = Duration::from_mins(30);
/// How long the look-up table is asked for other providers.
const PROVIDERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a repository that is whole but for its card is held back for it.
const CARD_PATIENCE: Duration = Duration::from_secs(2);

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finished {
    /// The head in force is shown, or never will be.
    Done,
    /// Not yet, but more of it is here.
    Progressed,
    /// Not yet, and nothing of use came.
    Stuck,
}

/// Why one peer was not enough.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it gave nothing that was missing")]
    Nothing,
    #[error("the node is stopping")]
    Stopped,
}

pub(super) struct Job {
    parts: Parts,
    wrong: Wrong,
    repository: RepositoryId,
    sources: Vec<PublicKey>,
    /// Nothing failed yet: the look-up table, which takes a while, is asked another time.
    first: bool,
    stop: CancellationToken,
    fetched: u64,
    /// Whether more of a head is here than when this began.
    progressed: bool,
}

/// A head's walk.
struct Round {
    pending: Pending,
    walk: Option<Walk>,
    /// The store's sweeps when it began.
    sweeps: u64,
}

impl Round {
    /// Bytes of metadata that the walk has reached.
    fn walked(&self) -> u64 {
        self.walk.as_ref().map_or(0, Walk::bytes)
    }
}

impl Job {
    pub(super) fn new(
        parts: Parts,
        wrong: Wrong,
        repository: RepositoryId,
        sources: Vec<PublicKey>,
        first: bool,
        stop: CancellationToken,
    ) -> Self {
        Self {
            parts,
            wrong,
            repository,
            sources,
            first,
            stop,
            fetched: 0,
            progressed: false,
        }
    }

    pub(super) async fn run(mut self) -> Finished {
        while let Some(pending) = self.parts.repos.pending(&self.repository) {
            if self.wrong.contains(&pending.head) {
                return Finished::Done;
            }
            match self.complete(pending).await {
                Ok(true) => {}
                Ok(false) => return self.unfinished(),
                Err(error) => {
                    tracing::warn!(repository = %self.repository, %error, "head not completed");
                    return self.unfinished();
                }
            }
        }
        Finished::Done
    }

    fn unfinished(&self) -> Finished {
        if self.progressed {
            Finished::Progressed
        } else {
            Finished::Stuck
        }
    }

    /// Whether the head is dealt with; `false` where no peer helped further.
    async fn complete(&mut self, pending: Pending) -> Result<bool, Failure> {
        let (store, access) = (self.parts.store.clone(), self.parts.access.clone());
        let mut round = Round {
            pending,
            sweeps: store.sweeps(),
            walk: Some(Walk::new(store, access, pending.refs)),
        };
        let mut outcome = self.walk(&mut round).await?;
        let before = round.walked();
        let mut asked = Vec::new();
        let mut providers = None;
        while let Outcome::Missing(missing) = &outcome {
            let mut peers = self.peers();
            peers.extend(providers.iter().flatten().copied());
            let next = peers.into_iter().find(|peer| !asked.contains(peer));
            let Some(peer) = next else {
                if providers.is_some() || self.first {
                    tracing::debug!(
                        repository = %self.repository,
                        missing = missing.len(),
                        "no peer has the rest of a head"
                    );
                    self.progressed |= round.walked() > before;
                    return Ok(false);
                }
                let swarm = &self.parts.swarm;
                providers = Some(swarm.providers(self.repository, PROVIDERS_PATIENCE).await);
                continue;
            };
            asked.push(peer);
            match self.ask_peer(peer, &mut round, missing.clone()).await {
                Ok(finished) => outcome = finished,
                Err(Failure::Store(error)) => return Err(error.into()),
                Err(Failure::Stopped) => return Err(Failure::Stopped),
                Err(error) => {
                    self.blame(peer, &error);
                    tracing::debug!(%peer, repository = %self.repository, %error, "head not completed by a peer");
                    outcome = self.walk(&mut round).await?;
                }
            }
        }
        match outcome {
            Outcome::Wrong(reason) => self.wrong.add(self.repository, pending.head, &reason),
            _ => self.show(round, asked.last().copied()).await?,
        }
        Ok(true)
    }

    /// Parts from a peer that sent what does not verify.
    fn blame(&self, peer: PublicKey, error: &Failure) {
        if let Failure::Transfer(TransferError::Lied(what)) = error {
            let reason = format!("it sent wrong data: {what}");
            self.parts.swarm.part(&peer, &reason, REFUSE_LIAR);
        }
    }

    /// Peers that are connected, those first that its records came from.
    fn peers(&self) -> Vec<PublicKey> {
        let connected = self.parts.swarm.connected();
        let is_source = |peer: &&PublicKey| self.sources.contains(peer);
        let sources = self.sources.iter().filter(|peer| connected.contains(peer));
        let others = connected.iter().filter(|peer| !is_source(peer));
        sources.chain(others).copied().collect()
    }

    async fn walk(&self, round: &mut Round) -> Result<Outcome, Failure> {
        let mut walk = round.walk.take().ok_or(Failure::Stopped)?;
        let (parts, stop) = (self.parts.clone(), self.stop.clone());
        let (refs, before) = (round.pending.refs, round.sweeps);
        let gone = blocking(move || {
            let _lease = parts.store.lease();
            let sweeps = parts.store.sweeps();
            if sweeps != before {
                walk = Walk::new(parts.store.clone(), parts.access.clone(), refs);
            }
            let outcome = walk.go_on(&|| stop.is_cancelled());
            (walk, sweeps, outcome)
        });
        let (walk, sweeps, outcome) = gone.await.ok_or(Failure::Stopped)?;
        (round.walk, round.sweeps) = (Some(walk), sweeps);
        Ok(outcome?)
    }

    /// Fetches from one peer until the walk is through, or the peer gives nothing more.
    async fn ask_peer(
        &mut self,
        peer: PublicKey,
        round: &mut Round,
        mut missing: Vec<Blake3>,
    ) -> Result<Outcome, Failure> {
        let has_earlier = self.parts.repos.get(&self.repository).is_some();
        let hint_after = if has_earlier { ROUNDS_WITHOUT_HINT } else { 0 };
        let mut rounds = 0;
        let mut hinted = false;
        loop {
            if rounds >= hint_after && !hinted {
                hinted = true;
                // Whatever comes of the hint, what is missing then is asked for by name.
                if let Err(error) = self.follow_hint(peer, round, &missing).await {
                    match error {
                        Failure::Transfer(TransferError::Lied(_)) => return Err(error),
                        Failure::Transfer(error) => {
                            tracing::debug!(%peer, %error, "a hint did not help");
                        }
                        other => return Err(other),
                    }
                }
            } else {
                let got = self.fetch(peer, &missing).await?;
                if got == 0 {
                    return Err(Failure::Nothing);
                }
            }
            match self.walk(round).await? {
                Outcome::Missing(still) => {
                    rounds += 1;
                    missing = still;
                }
                finished => return Ok(finished),
            }
        }
    }

    /// Fetches what the peer says is behind the head, as long as that is of use.
    async fn follow_hint(
        &mut self,
        peer: PublicKey,
        round: &mut Round,
        missing: &[Blake3],
    ) -> Result<(), Failure> {
        let refs = round.pending.refs;
        let mut first: Vec<Blake3> = missing
            .iter()
            .copied()
            .filter(|hash| *hash == refs)
            .collect();
        let (mut skip, before) = (0, self.fetched);
        let sweeps = round.sweeps;
        loop {
            let (page, more) = self.parts.blobs.closure(peer, refs, skip).await?;
            skip += page.len() as u64;
            let is_last = !more || page.is_empty() || skip >= HINTS_MAX;
            let store = self.parts.store.clone();
            let lacking = blocking(move || {
                let lacks = |hash: &Blake3| Ok(!store.contains(hash)?);
                let kept = page.into_iter().filter_map(|hash| match lacks(&hash) {
                    Ok(true) => Some(Ok(hash)),
                    Ok(false) => None,
                    Err(error) => Some(Err(error)),
                });
                kept.collect::<Result<Vec<Blake3>, StoreError>>()
            });
            first.extend(lacking.await.ok_or(Failure::Stopped)??);
            for batch in first.chunks(BATCH_BLOBS) {
                self.fetch(peer, batch).await?;
                let useless = (self.fetched - before).saturating_sub(round.walked());
                if useless > USELESS_BYTES_MAX / 2 {
                    // Perhaps the walk only lags behind.
                    let outcome = self.walk(round).await?;
                    let useless = (self.fetched - before).saturating_sub(round.walked());
                    match outcome {
                        // What a sweep took was of use perhaps.
                        Outcome::Missing(_) if round.sweeps != sweeps => return Ok(()),
                        Outcome::Missing(_) if useless > USELESS_BYTES_MAX => {
                            let what = "hints that lead nowhere".to_owned();
                            return Err(TransferError::Lied(what).into());
                        }
                        Outcome::Missing(_) => {}
                        _ => return Ok(()),
                    }
                }
            }
            first.clear();
            if is_last {
                return Ok(());
            }
        }
    }

    /// Fetches blobs and stores them; how many came. An error only where none did, or one was wrong.
    async fn fetch(&mut self, peer: PublicKey, hashes: &[Blake3]) -> Result<u64, Failure> {
        let mut count = 0;
        for batch in hashes.chunks(BATCH_BLOBS) {
            let (into, mut came) = mpsc::channel(WAITING_BLOBS);
            let blobs = self.parts.blobs.clone();
            let asked = batch.to_vec();
            let transfer = tokio::spawn(async move { blobs.blobs(peer, asked, into).await });
            let mut held: Vec<Bytes> = Vec::new();
            let mut bytes = 0;
            while let Some((_, blob)) = came.recv().await {
                count += 1;
                bytes += blob.len() as u64;
                self.fetched += blob.len() as u64;
                held.push(blob);
                if bytes >= COMMIT_BYTES {
                    bytes = 0;
                    store_all(&self.parts.store, std::mem::take(&mut held)).await?;
                }
            }
            store_all(&self.parts.store, held).await?;
            match transfer.await {
                Ok(Ok(())) => {}
                Ok(Err(error @ TransferError::Lied(_))) => return Err(error.into()),
                Ok(Err(error)) if count == 0 => return Err(error.into()),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, count, "a transfer ended early");
                    return Ok(count);
                }
                Err(_) => return Err(Failure::Stopped),
            }
        }
        Ok(count)
    }

    /// Shows the repository at a head that is whole; not where a sweep came between.
    async fn show(&self, round: Round, source: Option<PublicKey>) -> Result<(), Failure> {
        if let Some(peer) = source.or(self.peers().first().copied()) {
            let card = tokio::time::timeout(CARD_PATIENCE, self.fetch_card(peer)).await;
            if let Ok(Err(error)) = card {
                tracing::debug!(repository = %self.repository, %error, "card not fetched");
            }
        }
        let (parts, repository) = (self.parts.clone(), self.repository);
        let shown = blocking(move || {
            let _lease = parts.store.lease();
            let Some(walk) = round.walk.filter(|_| parts.store.sweeps() == round.sweeps) else {
                return;
            };
            walk.publish();
            own::relate_heads(&parts, &repository);
            parts.repos.complete(repository, round.pending.head);
        });
        shown.await.ok_or(Failure::Stopped)?;
        own::announce(&self.parts, self.repository).await;
        Ok(())
    }

    /// Fetches the text that listings read the card from, where it isn't here.
    async fn fetch_card(&self, peer: PublicKey) -> Result<(), Failure> {
        let (parts, repository) = (self.parts.clone(), self.repository);
        let found = blocking(move || {
            let repo = parts.repos.candidate(&repository)?;
            let entry = repo.card_file().ok().flatten()?;
            let EntryKind::File(file) = &entry.kind else {
                return None;
            };
            let hash = file.blake3?;
            let lacks = !parts.store.contains(&hash).unwrap_or(true);
            lacks.then(|| (hash, file.clone(), entry.oid))
        });
        let Some((hash, file, oid)) = found.await.flatten() else {
            return Ok(());
        };
        let (into, mut came) = mpsc::channel(1);
        let transfer = self.parts.blobs.blobs(peer, vec![hash], into);
        let (sent, text) = tokio::join!(transfer, came.recv());
        sent?;
        let Some((_, text)) = text else {
            return Ok(());
        };
        let store = self.parts.store.clone();
        let stored = blocking(move || {
            let git = file.pointer_size.is_none();
            let mut batch = store.batch();
            let digests = batch.put_with(text, git)?;
            let fits = digests.sha256 == file.sha256
                && digests.size == file.size
                && digests.git.is_none_or(|git| git == oid);
            // What disagrees is left to whoever reads it: the download says why.
            if fits { batch.commit() } else { Ok(()) }
        });
        stored.await.ok_or(Failure::Stopped)??;
        Ok(())
    }
}

async fn store_all(store: &Store, blobs: Vec<Bytes>) -> Result<(), Failure> {
    if blobs.is_empty() {
        return Ok(());
    }
    let store = store.clone();
    let stored = blocking(move || {
        let mut batch = store.batch();
        for blob in blobs {
            batch.put(blob);
        }
        batch.commit()
    });
    Ok(stored.await.ok_or(Failure::Stopped)??)
}
