//! What this node keeps of the look-up table for others: heads by repository, and who provides it.
//!
//! Whoever stores a record checks it: it must be the envelope of a head, with good signatures, of the
//! repository that the key names, and newer than what is kept. Whether its signer was entitled can't be known
//! here: whoever looks a repository up asks its ledger. Memory is bounded: what is over a bound is refused.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use cairn_protocol::hash::{RecordId, RepositoryId};
use cairn_protocol::limits::{
    LOOKUP_BYTES_MAX, LOOKUP_PROVIDERS_MAX, LOOKUP_RECORDS_MAX, LOOKUP_VALUE_BYTES_MAX,
};
use cairn_protocol::record::{Body, Record as Signed};
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};

use super::address::Place;

/// What a key begins with; the repository's id follows.
const KEY_PREFIX: &[u8] = b"/cairn/repository/1/";
/// Providers of one repository; the oldest gives way.
const PROVIDERS_PER_KEY_MAX: usize = 20;
/// Records or provider records that one peer may have kept here; further ones are refused.
const PER_PEER_MAX: usize = 10_000;
/// Addresses of a provider that are kept.
const PROVIDER_ADDRESSES_MAX: usize = 8;
/// Bytes that an entry costs beyond its value, about.
const ENTRY_BYTES: usize = 512;
/// Time between two searches for what expired.
const PURGE_EVERY: Duration = Duration::from_mins(1);

/// The key of a repository.
pub(super) fn key_of(repository: RepositoryId) -> RecordKey {
    let mut key = KEY_PREFIX.to_vec();
    key.extend_from_slice(repository.as_bytes());
    RecordKey::from(key)
}

/// The repository of a key.
pub(super) fn repository_of(key: &RecordKey) -> Option<RepositoryId> {
    let id = key.as_ref().strip_prefix(KEY_PREFIX)?;
    Some(RepositoryId::from_bytes(id.try_into().ok()?))
}

/// A head that verified, as far as one record can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: RecordId,
    /// Epoch and sequence number: the greater is newer.
    pub(super) version: (u64, u64),
    pub(super) envelope: Vec<u8>,
}

/// Why a record is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its key is of no repository")]
    Key,
    #[error("its value has {0} bytes, at most {LOOKUP_VALUE_BYTES_MAX} are kept")]
    Large(usize),
    #[error("its value is no record: {0}")]
    Record(String),
    #[error("its value is no head of the key's repository")]
    Other,
    #[error("a newer one is kept")]
    Old,
    #[error("this node is what the repository is announced by")]
    Own,
    #[error("this peer has too many kept here")]
    Peer,
    #[error("there is no room")]
    Full,
}

impl Found {
    /// Checks a value of the look-up table.
    pub(super) fn check(key: &RecordKey, value: &[u8]) -> Result<Self, Refusal> {
        let repository = repository_of(key).ok_or(Refusal::Key)?;
        if value.len() > LOOKUP_VALUE_BYTES_MAX {
            return Err(Refusal::Large(value.len()));
        }
        let signed = Signed::parse(value).map_err(|error| Refusal::Record(error.to_string()))?;
        let header = signed.header();
        let chain = header.chain.as_ref();
        match (signed.body(), chain) {
            (Body::Head(_), Some(link)) if header.repository == Some(repository) => Ok(Self {
                id: signed.id(),
                version: (header.epoch, link.seq),
                envelope: value.to_vec(),
            }),
            _ => Err(Refusal::Other),
        }
    }
}

#[derive(Debug)]
struct Kept {
    record: Record,
    id: RecordId,
    version: (u64, u64),
    /// Whom it came from; this node itself where it is announced here.
    source: PeerId,
}

/// The table's part that is kept here.
#[derive(Debug)]
pub(super) struct Records {
    local: PeerId,
    heads: HashMap<RecordKey, Kept>,
    bytes: usize,
    /// Newest first.
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
    provider_count: usize,
    /// Records and provider records of each peer.
    held: HashMap<PeerId, usize>,
    purged: Instant,
}

impl Records {
    pub(super) fn new(local: PeerId) -> Self {
        Self {
            local,
            heads: HashMap::new(),
            bytes: 0,
            providers: HashMap::new(),
            provider_count: 0,
            held: HashMap::new(),
            purged: Instant::now(),
        }
    }

    /// Whether a value is kept already, so that nothing need be verified; its time is renewed.
    pub(super) fn renew(&mut self, record: &Record) -> bool {
        match self.heads.get_mut(&record.key) {
            Some(kept) if kept.record.value == record.value => {
                if kept.source != self.local {
                    kept.record.expires = record.expires.max(kept.record.expires);
                }
                true
            }
            _ => false,
        }
    }

    /// Keeps a record that a peer gave, or this node itself.
    pub(super) fn keep(&mut self, source: PeerId, mut record: Record) -> Result<(), Refusal> {
        let own = source == self.local;
        if !own && self.renew(&record) {
            return Ok(());
        }
        let found = Found::check(&record.key, &record.value)?;
        if let Some(kept) = self.heads.get(&record.key) {
            if kept.source == self.local && !own {
                return Err(Refusal::Own);
            }
            if found.version < kept.version
                || (found.version == kept.version && found.id != kept.id && !own)
            {
                return Err(Refusal::Old);
            }
        } else {
            self.make_room(&source)?;
        }
        self.drop_record(&record.key);
        record.publisher = Some(source);
        if own {
            record.expires = None;
        }
        self.bytes += record.value.len() + ENTRY_BYTES;
        *self.held.entry(source).or_default() += 1;
        let kept = Kept {
            id: found.id,
            version: found.version,
            source,
            record,
        };
        self.heads.insert(kept.record.key.clone(), kept);
        Ok(())
    }

    /// Keeps that a peer provides a repository.
    pub(super) fn keep_provider(&mut self, mut record: ProviderRecord) -> Result<(), Refusal> {
        repository_of(&record.key).ok_or(Refusal::Key)?;
        record.addresses = kept_addresses(&record.addresses);
        let own = record.provider == self.local;
        if own {
            record.expires = None;
        }
        self.remove_provider(&record.key.clone(), &record.provider.clone());
        self.make_room(&record.provider)?;
        let local = self.local;
        let providers = self.providers.entry(record.key.clone()).or_default();
        let mut gone = None;
        if providers.len() >= PROVIDERS_PER_KEY_MAX {
            let oldest = providers.iter().rposition(|held| held.provider != local);
            gone = oldest.map(|oldest| providers.remove(oldest).provider);
        }
        *self.held.entry(record.provider).or_default() += 1;
        self.provider_count += 1;
        providers.insert(0, record);
        if let Some(gone) = gone {
            self.provider_count -= 1;
            self.release(&gone);
        }
        Ok(())
    }

    /// Checks that one more entry of a peer fits, after what expired is gone.
    fn make_room(&mut self, source: &PeerId) -> Result<(), Refusal> {
        if self.purged.elapsed() >= PURGE_EVERY {
            self.purge(Instant::now());
        }
        if *source == self.local {
            return Ok(());
        }
        if self
            .held
            .get(source)
            .is_some_and(|held| *held >= PER_PEER_MAX)
        {
            return Err(Refusal::Peer);
        }
        let full = self.heads.len() >= LOOKUP_RECORDS_MAX
            || self.bytes >= LOOKUP_BYTES_MAX
            || self.provider_count >= LOOKUP_PROVIDERS_MAX;
        if full { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Drops what expired.
    pub(super) fn purge(&mut self, now: Instant) {
        self.purged = now;
        let expired = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let keys: Vec<_> = self
            .heads
            .iter()
            .filter(|(_, kept)| expired(kept.record.expires))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.drop_record(&key);
        }
        let mut gone = Vec::new();
        self.providers.retain(|_, providers| {
            providers.retain(|record| {
                let is_gone = expired(record.expires);
                if is_gone {
                    gone.push(record.provider);
                }
                !is_gone
            });
            !providers.is_empty()
        });
        self.provider_count -= gone.len();
        for provider in gone {
            self.release(&provider);
        }
    }

    fn drop_record(&mut self, key: &RecordKey) {
        if let Some(kept) = self.heads.remove(key) {
            self.bytes -= kept.record.value.len() + ENTRY_BYTES;
            self.release(&kept.source);
        }
    }

    fn release(&mut self, peer: &PeerId) {
        if let Some(held) = self.held.get_mut(peer) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(peer);
            }
        }
    }
}

fn kept_addresses(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let known = addresses.iter().filter_map(|address| {
        let place = Place::of(address)?;
        Some(place.at(place.ip()?))
    });
    known.take(PROVIDER_ADDRESSES_MAX).collect()
}

impl RecordStore for Records {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.heads.get(key).map(|kept| Cow::Borrowed(&kept.record))
    }

    /// Only for what this node announces itself: what others give comes through [`Records::keep`].
    fn put(&mut self, record: Record) -> StoreResult<()> {
        self.keep(self.local, record).map_err(|refusal| {
            tracing::debug!(%refusal, "an announced head was not kept");
            Error::MaxRecords
        })
    }

    fn remove(&mut self, key: &RecordKey) {
        self.drop_record(key);
    }

    /// None: what is announced again, the node itself decides.
    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        self.keep_provider(record)
            .map_err(|_| Error::MaxProvidedKeys)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let now = Instant::now();
        let kept = self.providers.get(key).into_iter().flatten();
        kept.filter(|record| record.expires.is_none_or(|at| at > now))
            .cloned()
            .collect()
    }

    /// None, as with [`Self::records`].
    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        let Some(providers) = self.providers.get_mut(key) else {
            return;
        };
        let before = providers.len();
        providers.retain(|record| record.provider != *provider);
        let gone = before - providers.len();
        if providers.is_empty() {
            self.providers.remove(key);
        }
        self.provider_count -= gone;
        for _ in 0..gone {
            self.release(provider);
        }
    }
}
