//! The node: one data folder, opened once.

mod counting;
mod publishing;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use cairn_protocol::accept::{Ledger, Verdict};
use cairn_protocol::git::Signature;
use cairn_protocol::hash::{Blake3, NamespaceId, RecordId, RepositoryId};
use cairn_protocol::key::PublicKey;
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};
use cairn_protocol::record::{self, Body, Header, Link, Record, Role};

use crate::access::Access;
use crate::accounts::{Account, Accounts, SealedKeys, begin_namespace};
use crate::backup::Guard;
use crate::cache::{Cache, Unsettled};
use crate::config::Config;
use crate::control::Progress;
use crate::counters::Counters;
use crate::fetch::{Arriving, FetchError, Fetched, Transfer, Wanted};
use crate::files::{Files, RealFiles};
use crate::folder::Folder;
use crate::journal::{Entry as JournalEntry, Journal};
use crate::keys::Keys;
use crate::network::{Network, Rooms};
use crate::publish::{self, PublishError, Publisher, PushRequest, Pushed};
use crate::repos::{Repos, WrongClaim};
use crate::staging::{Parts, Staging};
use crate::store::{Batch, Content, Store, StoreError, StoreOptions};
use crate::swarm::{PeerInfo, SwarmError};
use crate::xet::{FileLists, Learner, SentXorbs, file_lists};

pub use self::publishing::UploadError;

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// Another process has the folder open.
    #[error("another cairn process has {path} open")]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error("{path} has data format {found:?}, and this cairn knows {known}")]
    NewerFormat {
        /// The data folder.
        path: PathBuf,
        /// Version found.
        found: String,
        /// Version known.
        known: u32,
    },
    /// A folder that holds something else.
    #[error("{path} holds {found:?} and is no data folder of cairn")]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// Something that stands in it.
        found: String,
    },
    /// A key file that others could read, or that is no key.
    #[error("key file {path}: {reason}")]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A stored record that this release can't read.
    #[error("stored record {0}")]
    Record(String),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node can't speak to others as it was told to.
    #[error(transparent)]
    Network(#[from] SwarmError),
    /// A head that was signed before a crash could not be taken in.
    #[error("finish what a crash interrupted")]
    Unfinished(#[source] Box<PublishError>),
}

/// A running node; cheap to clone. The folder is closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// First, so that its tasks end before what they use.
    pub(crate) network: Option<Network>,
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) accounts: Accounts,
    pub(crate) sealed_keys: SealedKeys,
    pub(crate) staging: Staging,
    /// Whether heads may be signed.
    pub(crate) guard: Guard,
    pub(crate) parts: Parts,
    pub(crate) sent_xorbs: SentXorbs,
    pub(crate) file_lists: FileLists,
    /// Set once the node is up.
    pub(crate) learner: OnceLock<Learner>,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) repos: Repos,
    pub(crate) cache: Cache,
    pub(crate) access: Access,
    pub(crate) counters: Counters,
    pub(crate) namespace: NamespaceId,
    /// Held by whoever moves a head.
    pub(crate) publishing: Mutex<()>,
    /// A head whose seq is spent in the journal, and that is not in the log yet.
    pub(crate) unsettled: Unsettled,
    pub(crate) gateway_url: Mutex<Option<String>>,
    /// Whether tokens travel over plain HTTP beyond this machine.
    pub(crate) is_exposed: std::sync::atomic::AtomicBool,
    pub(crate) started: Instant,
    pub(crate) namespace_name: String,
    /// Last, so that the lock outlives everything that writes.
    pub(crate) folder: Folder,
}

/// What the journal says at start.
#[derive(Debug, Default)]
struct Local {
    pinned: HashSet<RepositoryId>,
    /// Envelope of the newest head that this home signed, by repository.
    signed: BTreeMap<RepositoryId, Vec<u8>>,
    /// Claims of commits that were found wrong.
    wrong: Vec<(RepositoryId, WrongClaim)>,
    /// Names from which repositories went to another account's namespace, and what became of them, in order.
    moved: Vec<(String, Option<String>)>,
    accounts: Accounts,
    staging: Staging,
    guard: Guard,
}

impl Local {
    /// The newest head of each repository that this home signed.
    fn heads(&self) -> BTreeMap<RepositoryId, RecordId> {
        let signed = self.signed.iter().filter_map(|(repository, envelope)| {
            let head = Record::parse_trusted(envelope).ok()?;
            Some((*repository, head.id()))
        });
        signed.collect()
    }

    /// Tells the repositories what is about them.
    fn tell(&mut self, repos: &Repos) {
        for (repository, claim) in std::mem::take(&mut self.wrong) {
            repos.mark_wrong(repository, claim);
        }
        repos.lead_away(std::mem::take(&mut self.moved));
        for account in self.accounts.all() {
            repos.name_account(&account);
        }
    }
}

impl Node {
    /// Opens (or makes) the data folder and brings the node up.
    pub fn spawn(config: Config) -> Result<Self, SpawnError> {
        Self::spawn_on(config, Arc::new(RealFiles))
    }

    /// The same over another implementation of the file operations; keys, format and lock use the real one.
    pub fn spawn_on(config: Config, files: Arc<dyn Files>) -> Result<Self, SpawnError> {
        let folder = Folder::open(&config.data)?;
        let keys = Keys::open(&folder.keys(), folder.is_new())?;
        folder.begun()?;
        let options = StoreOptions {
            view_cache_bytes: config.view_cache_bytes,
            ..StoreOptions::default()
        };
        // Verified before they were written, and checksummed since: signatures are not checked again here,
        // `verify` does that.
        let root = keys.root.public();
        let (mut ledger, mut own, mut refused) = (Ledger::default(), None, None);
        let store = Store::open(
            Arc::clone(&files),
            folder.path(),
            &options,
            &mut |envelope| match Record::parse_trusted(envelope) {
                Ok(record) => {
                    own = own.or_else(|| namespace_of(&record, &root));
                    ledger.insert(&record);
                }
                Err(error) => refused = Some(error.to_string()),
            },
        )?;
        if let Some(error) = refused {
            return Err(SpawnError::Record(error));
        }
        let repos = Repos::new(
            store.clone(),
            ledger,
            &config.aliases,
            &config.namespace_alias,
        );
        let (journal, mut local) = open_journal(files, &folder)?;
        let namespace = match own {
            Some(namespace) => namespace,
            None => found_namespace(&keys, &store, &repos)?,
        };
        let signed = local.heads();
        local.tell(&repos);
        repos.loaded(namespace, local.pinned, &signed);
        let unsettled = Unsettled::default();
        let counters = open_counters(&folder, &keys);
        let cache = Cache::new(
            store.clone(),
            repos.clone(),
            folder.path().to_owned(),
            config.cache_bytes,
            Arc::clone(&unsettled),
            local.staging.clone(),
        );
        let mut inner = Inner {
            network: None,
            config,
            sealed_keys: SealedKeys::new(&folder.keys(), &keys.node),
            keys,
            accounts: local.accounts,
            staging: local.staging,
            guard: local.guard,
            parts: Parts::new(folder.path()),
            sent_xorbs: SentXorbs::new(folder.path()),
            file_lists: file_lists(),
            learner: OnceLock::new(),
            store,
            journal,
            repos,
            cache,
            access: Access::default(),
            counters,
            namespace,
            publishing: Mutex::new(()),
            unsettled,
            gateway_url: Mutex::new(None),
            is_exposed: false.into(),
            started: Instant::now(),
            namespace_name: NamespaceName::Hash(namespace).to_string(),
            folder,
        };
        publish::finish_signed(&inner, &local.signed)
            .map_err(|error| SpawnError::Unfinished(Box::new(error)))?;
        inner.let_home_entitle()?;
        inner.warn_of_lost_keys();
        publish::finish_moves(&inner);
        // Only now may peers add to what the start found.
        if let Some(network) = &inner.config.network {
            let rooms = inner.rooms();
            let book = inner.folder.path().join("peers.json");
            inner.network = Some(Network::spawn(network, book, &inner.keys.node, &rooms)?);
        }
        let inner = Arc::new(inner);
        match Learner::spawn(Arc::downgrade(&inner)) {
            Ok(learner) => inner.learner.get_or_init(|| learner),
            Err(error) => return Err(thread_failed(&inner, error)),
        };
        Ok(Self { inner })
    }

    /// Repositories to read.
    pub fn repos(&self) -> &Repos {
        &self.inner.repos
    }

    /// Opens content for reading; [`StoreError::Damaged`] and [`StoreError::Absent`] are answers, not faults.
    pub fn content(&self, hash: &Blake3) -> Result<Content, StoreError> {
        self.inner.store.content(hash)
    }

    /// Whether what is stored is what a commit claims of it; nothing where that is not known: it is not
    /// stored, or a digest was never computed. [`Node::fetch`] computes it, and refuses a wrong claim for good.
    pub fn agreement(&self, claimed: &Wanted) -> Result<Option<bool>, StoreError> {
        let Some(digests) = self.inner.store.digests(&claimed.blake3)? else {
            return Ok(None);
        };
        if digests.size != claimed.size || digests.sha256 != claimed.sha256 {
            return Ok(Some(false));
        }
        Ok(match (claimed.git, digests.git) {
            (None, _) => Some(true),
            (Some(_), None) => None,
            (Some(claimed), Some(computed)) => Some(claimed == computed),
        })
    }

    /// Publishes a folder; returns when the head is durable, signed, and seen by the next read.
    pub fn push(
        &self,
        request: &PushRequest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Pushed, PublishError> {
        publish::push(&self.inner, request, progress)
    }

    /// libp2p peer id of the node key.
    pub fn peer_id(&self) -> &str {
        &self.inner.keys.peer_id
    }

    /// Hash name of the node's own namespace.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace_name
    }

    /// Multiaddresses that peers can dial; none where the node speaks to nobody.
    pub fn listen_addrs(&self) -> Vec<String> {
        let network = self.inner.network.as_ref();
        network.map_or_else(Vec::new, |network| network.swarm.listen_addrs())
    }

    /// Peers that are connected now.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let network = self.inner.network.as_ref();
        network.map_or_else(Vec::new, |network| network.swarm.peers())
    }

    /// Downloads under way.
    pub fn transfers(&self) -> Vec<Transfer> {
        let network = self.inner.network.as_ref();
        network.map_or_else(Vec::new, |network| network.fetcher.transfers())
    }

    /// Bytes of content sent to and taken from each peer since the start: key, sent, taken.
    pub fn traffic(&self) -> Vec<(PublicKey, u64, u64)> {
        let network = self.inner.network.as_ref();
        network.map_or_else(Vec::new, |network| network.blobs.traffic())
    }

    /// Whether the node speaks to others at all.
    pub fn is_networked(&self) -> bool {
        self.inner.network.is_some()
    }

    /// Joins the download of a file that is not here, or begins it; returns at once, from any thread.
    pub fn fetch(&self, wanted: Wanted) -> Result<Arriving, FetchError> {
        let network = self.inner.network.as_ref().ok_or(FetchError::Offline)?;
        self.may_ask_for(&wanted)?;
        Ok(network.fetcher.fetch(wanted))
    }

    /// Fetches files until all are stored; `progress` is told bytes here and bytes of all. Not to be called
    /// on a thread that runs async tasks.
    pub fn fetch_all(
        &self,
        wanted: Vec<Wanted>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Fetched, FetchError> {
        let network = self.inner.network.as_ref().ok_or(FetchError::Offline)?;
        wanted
            .iter()
            .try_for_each(|wanted| self.may_ask_for(wanted))?;
        network.fetcher.fetch_all_blocking(wanted, progress)
    }

    /// Peers are not asked for what is private: they would learn of it, and don't have it.
    fn may_ask_for(&self, wanted: &Wanted) -> Result<(), FetchError> {
        let repo = self.inner.repos.get(&wanted.repository);
        if repo.is_some_and(|repo| repo.is_private()) {
            return Err(FetchError::Offline);
        }
        Ok(())
    }

    /// Tells the node where its gateway answers, and whether other machines reach it over plain HTTP: for
    /// `status`.
    pub fn set_gateway(&self, url: String, is_exposed: bool) {
        *self
            .inner
            .gateway_url
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(url);
        self.inner
            .is_exposed
            .store(is_exposed, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Inner {
    /// What the network works on.
    fn rooms(&self) -> Rooms {
        Rooms {
            store: self.store.clone(),
            repos: self.repos.clone(),
            access: self.access.clone(),
            cache: self.cache.clone(),
            journal: self.journal.clone(),
            guard: self.guard.clone(),
        }
    }

    /// Takes in records that this node signed: into the log, then the state, then to peers.
    pub(crate) fn take_records(
        &self,
        mut batch: Batch,
        records: &[Record],
    ) -> Result<(), StoreError> {
        for record in records {
            batch.record(record.envelope().to_vec());
        }
        batch.commit()?;
        for record in records {
            self.repos.take(record);
        }
        self.published(records);
        Ok(())
    }

    /// Tells peers of records that were stored here and are in the state; never waits for them.
    pub(crate) fn published(&self, records: &[Record]) {
        if let Some(network) = &self.network {
            network.follower.published(records);
        }
    }

    /// The epoch of a namespace.
    pub(crate) fn epoch(&self, namespace: &NamespaceId) -> u64 {
        self.repos
            .ledger(|ledger| ledger.namespace(namespace).map_or(1, |view| view.epoch))
    }

    /// Whether this node's key orders the heads of a namespace.
    pub(crate) fn is_home(&self, namespace: &NamespaceId) -> bool {
        let key = self.keys.node.public();
        self.repos.ledger(|ledger| {
            let view = ledger.namespace(namespace);
            view.is_some_and(|view| view.body.home == key)
        })
    }

    /// The namespace of this node's own, or of an account, that a repository of that name is in, or would be.
    pub(crate) fn own_namespace(
        &self,
        namespace: &NamespaceName,
        kind: RepoKind,
        name: &RepoName,
    ) -> Option<NamespaceId> {
        let all = self.repos.namespaces_of(namespace);
        let has = |id: &&NamespaceId| {
            self.repos
                .ledger(|ledger| ledger.name(id, kind, &name.folded()).is_some())
        };
        let found = all.iter().find(has).or_else(|| all.first()).copied()?;
        (found == self.namespace || self.accounts.by_namespace(&found).is_some()).then_some(found)
    }

    /// Says at start which accounts can't publish. The others can, so that it is no reason not to start.
    fn warn_of_lost_keys(&self) {
        for account in self.accounts.all() {
            if let Err(error) = self.sealed_keys.read(&account.id) {
                let account = account.name;
                tracing::warn!(%account, %error, "nothing can be published in this account's name: restore its key from a copy, or set its mode to 600");
            }
        }
    }

    /// An account as a publisher.
    pub(crate) fn publisher(&self, account: &Account) -> Result<Publisher, PublishError> {
        let keys = self
            .sealed_keys
            .read(&account.id)
            .map_err(|error| PublishError::Keys(Box::new(error)))?;
        Ok(Publisher {
            key: keys.account,
            author: Signature {
                name: account.name.clone(),
                email: format!("{}@users.noreply.cairn.invalid", account.name),
                time_s: now_s(),
            },
            owns: [Some(account.namespace), account.private]
                .into_iter()
                .flatten()
                .collect(),
        })
    }

    /// Lets the home entitle accounts in this node's own namespace, where its root has not said so yet.
    fn let_home_entitle(&self) -> Result<(), SpawnError> {
        if self.guard.restored().is_some() {
            return Ok(());
        }
        let home = self.keys.node.public();
        let changed = self.repos.ledger(|ledger| {
            let view = ledger.namespace(&self.namespace)?;
            let has = |delegation: &record::Delegation| {
                delegation.key == home && delegation.roles.contains(&Role::Account)
            };
            let lets = view.body.delegated.iter().any(has);
            let ours = view.frozen.is_none() && view.body.home == home;
            let root = [self.keys.root.public()];
            (ours && !lets && view.body.root.are_met_by(&root))
                .then(|| (view.epoch, view.seq, view.record, view.body.clone()))
        });
        let Some((epoch, seq, prev, mut body)) = changed else {
            return Ok(());
        };
        body.delegated.push(record::Delegation {
            key: home,
            roles: vec![Role::Account],
            repositories: None,
            refs: None,
            end: None,
        });
        let header = Header {
            namespace: Some(self.namespace),
            chain: Some(Link {
                seq: seq + 1,
                prev: Some(prev),
            }),
            ..Header::new(epoch, now_s())
        };
        let record = Record::sign(header, Body::Namespace(body), &[&self.keys.root])
            .map_err(|error| SpawnError::Record(format!("of this node's namespace: {error}")))?;
        let mut batch = self.store.batch();
        batch.record(record.envelope().to_vec());
        batch.commit()?;
        self.repos.take(&record);
        Ok(())
    }
}

fn thread_failed(inner: &Inner, source: std::io::Error) -> SpawnError {
    SpawnError::Store(StoreError::Io {
        operation: "start a thread for",
        path: inner.folder.path().to_owned(),
        source,
    })
}

/// Readers are told apart under a key that only this node has.
fn open_counters(folder: &Folder, keys: &Keys) -> Counters {
    let key = blake3::derive_key("cairn readers of repositories 1", &keys.node.seed());
    Counters::open(folder.path().join("counters"), key)
}

fn open_journal(files: Arc<dyn Files>, folder: &Folder) -> Result<(Journal, Local), SpawnError> {
    let (journal, entries) = Journal::open(files, &folder.journal())?;
    let mut local = Local::default();
    for entry in entries {
        if local.accounts.take(&entry) || local.staging.take(&entry) || local.guard.take(&entry) {
            continue;
        }
        match entry {
            JournalEntry::Pinned { repository } => {
                local.pinned.insert(repository);
            }
            JournalEntry::Unpinned { repository } => {
                local.pinned.remove(&repository);
            }
            JournalEntry::Signed {
                repository,
                envelope,
                ..
            } => {
                local.signed.insert(repository, envelope);
            }
            JournalEntry::Invalid {
                repository,
                path,
                blake3,
                size,
                sha256,
                git,
                digest,
            } => {
                let claim = WrongClaim {
                    path,
                    blake3,
                    size,
                    sha256,
                    git,
                    digest,
                };
                local.wrong.push((repository, claim));
            }
            JournalEntry::Alias { name, target } => {
                local.moved.push((name, target));
            }
            // The rest was taken above.
            _ => {}
        }
    }
    Ok((journal, local))
}

/// The namespace that a record begins, if this root key signed it: anybody can name a key.
pub(crate) fn namespace_of(record: &Record, root: &PublicKey) -> Option<NamespaceId> {
    match record.body() {
        Body::Namespace(body)
            if record.header().namespace.is_none()
                && body.root.keys.contains(root)
                && record.header().signers.contains(root) =>
        {
            Some(NamespaceId::from(record.id()))
        }
        _ => None,
    }
}

/// Signs the first record of this node's own namespace, and stores it.
fn found_namespace(keys: &Keys, store: &Store, repos: &Repos) -> Result<NamespaceId, SpawnError> {
    let record = begin_namespace(&keys.root, &keys.node.public(), true, now_s())
        .map_err(|error| SpawnError::Record(format!("of the new namespace: {error}")))?;
    let mut batch = store.batch();
    batch.record(record.envelope().to_vec());
    batch.commit()?;
    match repos.take(&record) {
        Verdict::Accepted => Ok(NamespaceId::from(record.id())),
        verdict => Err(SpawnError::Record(format!(
            "of the new namespace: {verdict:?}"
        ))),
    }
}

/// Wall time in whole seconds, to be shown and to sort by; nothing is accepted or refused by it.
pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
