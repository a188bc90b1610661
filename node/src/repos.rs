//! Repositories as readers see them: names, revisions, trees, histories, cards.
//!
//! Everything here is read from verified heads and manifests; nothing is shown that did not verify. A
//! repository appears with its first head, never before; one of another node with its first head whose
//! metadata is here as a whole, and it stays at that one until a newer is. Blocking: reads go to the store.

mod changes;
mod commit;
mod gate;
mod history;
mod invalid;
mod moved;
mod reach;
mod reader;
mod repo;
mod walk;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use cairn_protocol::accept::{Ledger, RepositoryView, Verdict};
use cairn_protocol::hash::{NamespaceId, RecordId, RepositoryId};
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};
use cairn_protocol::record::{Body, NamesTarget, Record};

pub use self::changes::{Bounds, Change, Changes, Side, Text};
pub(crate) use self::commit::attributes;
pub use self::commit::{Commit, CommitInfo, Entry, EntryKind, FileEntry};
pub use self::reach::Reach;
use self::repo::Context;
pub use self::repo::{CardView, Repo};

pub(crate) use self::gate::Pending;
pub(crate) use self::invalid::WrongClaim;
pub(crate) use self::moved::key as moved_key;
pub(crate) use self::reader::Reader;
pub(crate) use self::walk::{Outcome, Walk};

use crate::accounts::Account;
use crate::publish::NAME;
use crate::store::{Store, StoreError};

/// Redirects followed for one name; a longer chain is taken for a loop.
const REDIRECTS_MAX: usize = 8;

/// Why a repository, revision or path could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// No such repository that the caller may see.
    #[error("repository {0} not found")]
    NotFound(String),
    /// No such branch, tag or commit.
    #[error("Invalid rev id: {0}")]
    Revision(String),
    /// No such file or folder in that commit.
    #[error("Entry not found: {0}")]
    Entry(String),
    /// A short commit id that fits several commits.
    #[error("revision {0} is ambiguous: give more digits")]
    Ambiguous(String),
    /// Its bytes are not what its commit says of them.
    #[error("the commit is invalid: {0}")]
    Invalid(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored metadata that does not parse or verify.
    #[error("repository metadata is damaged: {0}")]
    Damaged(String),
}

/// All repositories that this node can show; cheap to clone.
#[derive(Debug, Clone)]
pub struct Repos {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reader: Arc<Reader>,
    store: Store,
    aliases: BTreeMap<String, String>,
    namespace_alias: String,
    state: RwLock<State>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    own_namespace: Option<NamespaceId>,
    pinned: HashSet<RepositoryId>,
    /// Plain names of accounts' namespaces, in lower case: the public one first.
    plain: HashMap<String, Vec<NamespaceId>>,
    /// Plain names of accounts' namespaces, as they are shown.
    shown_as: HashMap<NamespaceId, String>,
    /// Names from which repositories went to another account's namespace.
    moved: HashMap<String, String>,
    /// Namespaces of which nothing leaves the node.
    private: HashSet<NamespaceId>,
    table: HashMap<RepositoryId, Repo>,
    /// Of each repository the newest head whose metadata is known to be whole.
    complete: HashMap<RepositoryId, RecordId>,
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub enum Found {
    /// The repository itself (the name matched, perhaps in another case, or is a local alias of it).
    Repo(Repo),
    /// The repository was renamed: its current `namespace/name`.
    Redirect(String),
}

impl Repos {
    pub(crate) fn new(
        store: Store,
        ledger: Ledger,
        aliases: &BTreeMap<String, String>,
        namespace_alias: &str,
    ) -> Self {
        let aliases = aliases
            .iter()
            .map(|(from, to)| (from.to_ascii_lowercase(), to.clone()))
            .collect();
        Self {
            inner: Arc::new(Inner {
                reader: Arc::new(Reader::new(store.clone())),
                store,
                aliases,
                namespace_alias: namespace_alias.to_ascii_lowercase(),
                state: RwLock::new(State {
                    ledger,
                    ..State::default()
                }),
                generation: AtomicU64::new(1),
            }),
        }
    }

    /// Finds a repository by `namespace/name` or by an alias.
    pub fn find(&self, kind: RepoKind, id: &str) -> Result<Found, RepoError> {
        let missing = || RepoError::NotFound(id.chars().take(200).collect());
        let state = self.read();
        let (repository, hops) = self.lead(&state, kind, id, 0).ok_or_else(missing)?;
        let repo = state.table.get(&repository).ok_or_else(missing)?;
        Ok(if hops == 0 {
            Found::Repo(repo.clone())
        } else {
            Found::Redirect(repo.shown_name().to_owned())
        })
    }

    /// What a name leads to, whether or not it can be shown.
    pub(crate) fn known(&self, kind: RepoKind, id: &str) -> Option<RepositoryId> {
        let (repository, _) = self.lead(&self.read(), kind, id, 0)?;
        Some(repository)
    }

    /// What a name leads to, and over how many redirects, with those that led to it.
    fn lead(
        &self,
        state: &State,
        kind: RepoKind,
        id: &str,
        hops: usize,
    ) -> Option<(RepositoryId, usize)> {
        let alias = self.inner.aliases.get(&id.to_ascii_lowercase());
        let target = alias.map_or(id, String::as_str);
        let (namespace, name) = target.split_once('/')?;
        let namespace: NamespaceName = namespace.parse().ok()?;
        let name: RepoName = name.parse().ok()?;
        let namespaces = state.namespaces(&self.inner.namespace_alias, &namespace);
        // What has the name itself, in whichever namespace, goes before what it only leads to.
        let direct = namespaces.iter().find_map(|namespace| {
            match state.ledger.name(namespace, kind, &name.folded())? {
                NamesTarget::Repository(id) if state.table.contains_key(id) => Some((*id, hops)),
                _ => None,
            }
        });
        if direct.is_some() {
            return direct;
        }
        namespaces.iter().find_map(|namespace| {
            let mut folded = name.folded();
            for hops in hops..REDIRECTS_MAX {
                let leads_to = state.ledger.name(namespace, kind, &folded);
                if let Some(NamesTarget::Redirect(next)) = leads_to {
                    folded = next.clone();
                    continue;
                }
                // What went away while it could not be seen to the end has its old name still.
                let away = state.moved.get(&moved_key(namespace, kind, &folded));
                return match (leads_to, away) {
                    (_, Some(away)) => self.lead(state, kind, away, hops + 1),
                    (Some(NamesTarget::Repository(repository)), None) => Some((*repository, hops)),
                    _ => None,
                };
            }
            None
        })
    }

    /// The namespaces that a name stands for on this node: an account has two.
    pub(crate) fn namespaces_of(&self, namespace: &NamespaceName) -> Vec<NamespaceId> {
        self.read()
            .namespaces(&self.inner.namespace_alias, namespace)
    }

    /// A repository that is shown, by its id.
    pub fn by_id(&self, id: &RepositoryId) -> Option<Repo> {
        self.get(id)
    }

    /// The shown repository that a name leads to in one namespace.
    pub(crate) fn find_in(
        &self,
        namespace: &NamespaceId,
        kind: RepoKind,
        name: &RepoName,
    ) -> Option<Repo> {
        let state = self.read();
        match state.ledger.name(namespace, kind, &name.folded())? {
            NamesTarget::Repository(id) => state.table.get(id).cloned(),
            NamesTarget::Redirect(_) => None,
        }
    }

    /// Takes note of an account's namespaces and their plain name here; nothing of the private one is ever
    /// told to peers.
    pub(crate) fn name_account(&self, account: &Account) {
        let mut state = self.write();
        for namespace in [Some(account.namespace), account.private]
            .into_iter()
            .flatten()
        {
            let folded = account.name.to_ascii_lowercase();
            let all = state.plain.entry(folded).or_default();
            if !all.contains(&namespace) {
                all.push(namespace);
            }
            state.shown_as.insert(namespace, account.name.clone());
        }
        state.private.extend(account.private);
        drop(state);
        self.bump();
    }

    /// Takes note of what names lead to from which repositories went to another account's namespace; nothing
    /// where others take them.
    pub(crate) fn lead_away(&self, names: impl IntoIterator<Item = (String, Option<String>)>) {
        let mut state = self.write();
        for (name, leads_to) in names {
            match leads_to {
                Some(leads_to) => state.moved.insert(name, leads_to),
                None => state.moved.remove(&name),
            };
        }
        drop(state);
        self.bump();
    }

    /// Whether a repository went from that name, and how many names there are of that sort.
    pub(crate) fn leads_away(&self, name: &str) -> (bool, usize) {
        let state = self.read();
        (state.moved.contains_key(name), state.moved.len())
    }

    /// Whether there is any namespace of which nothing may leave the node.
    pub(crate) fn has_private(&self) -> bool {
        !self.read().private.is_empty()
    }

    /// Whether nothing of a namespace may leave the node.
    pub(crate) fn is_private(&self, namespace: &NamespaceId) -> bool {
        self.read().private.contains(namespace)
    }

    /// Every repository of a kind, in no particular order; cheap (the list is kept in memory).
    pub fn list(&self, kind: RepoKind) -> Vec<Repo> {
        self.read()
            .table
            .values()
            .filter(|repo| repo.kind() == kind)
            .cloned()
            .collect()
    }

    /// Rises whenever any name or head changes and whenever content is found damaged or healed: a cache
    /// keyed by it never shows the past.
    pub fn generation(&self) -> u64 {
        // Both only rise, so their sum does at every change of either.
        self.inner.generation.load(Ordering::Acquire) + self.inner.reader.alarms()
    }

    pub(crate) fn reader(&self) -> &Arc<Reader> {
        &self.inner.reader
    }

    pub(crate) fn bump(&self) {
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes a verified record into the state, and shows what follows from it.
    pub(crate) fn take(&self, record: &Record) -> Verdict {
        let mut state = self.write();
        let verdict = state.ledger.insert(record);
        self.show_touched(&mut state, record);
        drop(state);
        self.bump();
        verdict
    }

    /// Takes verified records into the state; nothing of them is shown before [`Self::show_taken`].
    pub(crate) fn take_unseen<'a>(
        &self,
        records: impl Iterator<Item = &'a Record>,
    ) -> Vec<Verdict> {
        // One may cost a walk through its whole namespace: readers go on in between.
        records
            .map(|record| self.write().ledger.insert(record))
            .collect()
    }

    /// Takes in a verified head that this node signed, and shows it: all that it names is here.
    pub(crate) fn take_own(&self, head: &Record) -> Verdict {
        let mut state = self.write();
        let verdict = state.ledger.insert(head);
        let repository = head.header().repository;
        if let (Verdict::Accepted, Some(repository)) = (verdict, repository) {
            state.complete.insert(repository, head.id());
        }
        self.show_touched(&mut state, head);
        drop(state);
        self.bump();
        if let (Verdict::Accepted, Some(repository)) = (verdict, repository) {
            self.remember_complete(&repository, &head.id());
        }
        verdict
    }

    /// Shows what follows from records that were taken in.
    pub(crate) fn show_taken<'a>(&self, records: impl Iterator<Item = &'a Record>) {
        let mut state = self.write();
        let all = records.flat_map(|record| touched(&state.ledger, record));
        let all: BTreeSet<RepositoryId> = all.collect();
        for repository in all {
            self.show(&mut state, &repository);
        }
        drop(state);
        self.bump();
    }

    fn show_touched(&self, state: &mut State, record: &Record) {
        for repository in touched(&state.ledger, record) {
            self.show(state, &repository);
        }
    }

    pub(crate) fn set_pinned(&self, repository: RepositoryId, pinned: bool) {
        let mut state = self.write();
        if pinned {
            state.pinned.insert(repository);
        } else {
            state.pinned.remove(&repository);
        }
        self.show(&mut state, &repository);
        drop(state);
        self.bump();
    }

    /// Whether a repository's content is kept: it is this node's own, or pinned.
    pub(crate) fn is_kept(&self, repository: &RepositoryId) -> bool {
        self.is_own(repository) || self.read().pinned.contains(repository)
    }

    /// Whether a namespace is this node's own or an account's, by its hash or its local name.
    pub(crate) fn is_own_namespace(&self, namespace: &NamespaceName) -> bool {
        let state = self.read();
        let found = state.namespaces(&self.inner.namespace_alias, namespace);
        found.iter().any(|namespace| state.is_own(namespace))
    }

    /// Whether a wrong claim is new, and there is room to remember it.
    pub(crate) fn is_new_wrong_claim(&self, repository: &RepositoryId, claim: &WrongClaim) -> bool {
        let reader = &self.inner.reader;
        reader.wrong_claims().is_new(repository, claim)
    }

    /// Marks every commit of a repository that makes a claim as invalid.
    pub(crate) fn mark_wrong(&self, repository: RepositoryId, claim: WrongClaim) {
        if self.inner.reader.wrong_claims().add(repository, claim) {
            self.bump();
        }
    }

    /// Runs a question on the accepted records.
    pub(crate) fn ledger<T>(&self, ask: impl FnOnce(&Ledger) -> T) -> T {
        ask(&self.read().ledger)
    }

    /// How many attestations there are about a repository, by whomever.
    pub fn attestations(&self, repository: &RepositoryId) -> usize {
        self.ledger(|ledger| ledger.attestations(repository).count())
    }

    fn show_all(&self, state: &mut State) {
        let all: Vec<RepositoryId> = state.ledger.repositories().map(|view| view.id).collect();
        for repository in all {
            self.show(state, &repository);
        }
    }

    fn show(&self, state: &mut State, repository: &RepositoryId) {
        let pinned = state.pinned.contains(repository);
        let view = gate::shown(state, repository);
        let context = view.as_ref().map(|view| state.context(view, pinned));
        let before = state.table.get(repository);
        if let (Some(view), Some(context), Some(before)) = (&view, &context, before)
            && before.shows(view, context)
        {
            return;
        }
        let shown = view
            .zip(context)
            .and_then(|(view, context)| Repo::new(Arc::clone(&self.inner.reader), &view, context));
        match shown {
            Some(repo) => state.table.insert(*repository, repo),
            None => state.table.remove(repository),
        };
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.inner
            .state
            .read()
            .expect("invariant: no holder of the lock panics")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.inner
            .state
            .write()
            .expect("invariant: no holder of the lock panics")
    }
}

/// Repositories whose view a record may change.
pub(crate) fn touched(ledger: &Ledger, record: &Record) -> Vec<RepositoryId> {
    match record.body() {
        Body::Namespace(_) => {
            let namespace = record.namespace();
            ledger.repositories_of(&namespace).copied().collect()
        }
        Body::Repository(_) => vec![RepositoryId::from(record.id())],
        // Heads may have waited for changes that it lets its key sign.
        Body::Account(account) => {
            let all = ledger.repositories_of(&record.namespace()).copied();
            account
                .repositories
                .clone()
                .unwrap_or_else(|| all.collect())
        }
        Body::Names(names) => match &names.target {
            Some(NamesTarget::Repository(id)) => vec![*id],
            _ => Vec::new(),
        },
        _ => record.header().repository.into_iter().collect(),
    }
}

/// The name that a repository has now, in the letters in which it was given.
fn name_of(ledger: &Ledger, view: &RepositoryView<'_>) -> RepoName {
    let given = view.head.as_ref().and_then(|head| {
        let Some(cairn_protocol::json::Value::Text(name)) = head.settings.get(NAME) else {
            return None;
        };
        name.parse::<RepoName>().ok()
    });
    let first = &view.body.name;
    let leads_here = |name: &RepoName| {
        let target = ledger.name(&view.namespace, view.body.kind, &name.folded());
        matches!(target, Some(NamesTarget::Repository(id)) if *id == view.id)
    };
    if let Some(given) = given.filter(leads_here) {
        return given;
    }
    if leads_here(first) {
        return first.clone();
    }
    // Renamed, and the head that says in which letters is not here yet.
    let renamed = ledger.names(&view.namespace).find(|(kind, _, target)| {
        *kind == view.body.kind && matches!(target, NamesTarget::Repository(id) if *id == view.id)
    });
    renamed.map_or_else(|| first.clone(), |(_, name, _)| name.clone())
}

impl State {
    /// Whether this node's own, or an account's.
    fn is_own(&self, namespace: &NamespaceId) -> bool {
        self.own_namespace == Some(*namespace) || self.shown_as.contains_key(namespace)
    }

    /// What is known of a repository beyond its records.
    fn context(&self, view: &RepositoryView<'_>, pinned: bool) -> Context {
        Context {
            pinned,
            name: name_of(&self.ledger, view),
            shown_namespace: self.shown_as.get(&view.namespace).cloned(),
            is_private: self.private.contains(&view.namespace),
        }
    }

    /// The ids behind a namespace's name, where this node knows it.
    fn namespaces(&self, alias: &str, name: &NamespaceName) -> Vec<NamespaceId> {
        match name {
            NamespaceName::Hash(id) => vec![*id],
            NamespaceName::Plain(plain) if plain == alias => {
                self.own_namespace.into_iter().collect()
            }
            NamespaceName::Plain(plain) => self.plain.get(plain).cloned().unwrap_or_default(),
            // Domain proofs come with names that hold beyond this node.
            NamespaceName::Domain(_) => Vec::new(),
        }
    }
}
