//! One repository at one head.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use cairn_protocol::accept::RepositoryView;
use cairn_protocol::card::Card;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RecordId, RepositoryId};
use cairn_protocol::limits::CARD_BYTES_MAX;
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};
use cairn_protocol::refs::{RefName, Refs};

use super::commit::Commit;
use super::history::{History, Match};
use super::{Entry, EntryKind, FileEntry, Reader, RepoError};

/// The default branch.
const DEFAULT_REF: &str = "refs/heads/main";
/// Entries of a commit that are read at a time when a content is looked for.
const ENTRIES_AT_ONCE: usize = 10_000;
/// Fewest hex digits that are taken for the beginning of a commit id.
const SHORT_ID_DIGITS_MIN: usize = 5;

/// One repository at its current head; cheap to clone, and a snapshot: a later push is another one.
#[derive(Debug, Clone)]
pub struct Repo {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reader: Arc<Reader>,
    id: RepositoryId,
    kind: RepoKind,
    namespace: NamespaceId,
    full_name: String,
    namespace_len: usize,
    shown_name: String,
    shown_namespace_len: usize,
    context: Context,
    signer: String,
    version: (u64, u64),
    head: RecordId,
    frozen: bool,
    created_at: u64,
    last_modified: u64,
    refs_hash: Blake3,
    refs: OnceLock<(Refs, BTreeMap<String, GitOid>)>,
    card: OnceLock<CardView>,
}

/// What is known of a repository beyond its records.
#[derive(Debug, PartialEq)]
pub(super) struct Context {
    pub(super) pinned: bool,
    /// Its name now.
    pub(super) name: RepoName,
    /// Plain name of its namespace, where that is an account's.
    pub(super) shown_namespace: Option<String>,
    pub(super) is_private: bool,
}

/// The model card's fields that listings and filters read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardView {
    /// The whole YAML front matter as JSON, `null` where there is none.
    pub data: serde_json::Value,
    /// Tags as the hub shows them: the card's `tags`, then `license:x`, `language`, `dataset:x`, library…
    pub tags: Vec<String>,
    /// `pipeline_tag`.
    pub pipeline_tag: Option<String>,
    /// `library_name`.
    pub library_name: Option<String>,
    /// `license`.
    pub license: Option<String>,
}

impl From<Card> for CardView {
    fn from(card: Card) -> Self {
        Self {
            data: card.data,
            tags: card.tags,
            pipeline_tag: card.pipeline_tag,
            library_name: card.library_name,
            license: card.license,
        }
    }
}

impl Repo {
    /// `None` while no head was accepted.
    pub(super) fn new(
        reader: Arc<Reader>,
        view: &RepositoryView<'_>,
        context: Context,
    ) -> Option<Self> {
        let head = view.head.as_ref()?;
        let name = &context.name;
        let namespace = NamespaceName::Hash(view.namespace).to_string();
        let shown_namespace = context.shown_namespace.as_ref().unwrap_or(&namespace);
        Some(Self {
            inner: Arc::new(Inner {
                reader,
                id: view.id,
                kind: view.body.kind,
                namespace: view.namespace,
                namespace_len: namespace.len(),
                full_name: format!("{namespace}/{name}"),
                shown_namespace_len: shown_namespace.len(),
                shown_name: format!("{shown_namespace}/{name}"),
                context,
                signer: head.signer.to_string(),
                version: (head.epoch, head.seq),
                head: head.id,
                frozen: view.frozen.is_some(),
                created_at: view.body.created_at,
                last_modified: head.time,
                refs_hash: head.refs,
                refs: OnceLock::new(),
                card: OnceLock::new(),
            }),
        })
    }

    /// Whether this is what a view shows.
    pub(super) fn shows(&self, view: &RepositoryView<'_>, context: &Context) -> bool {
        let same = |head: &cairn_protocol::accept::HeadView<'_>| {
            (head.epoch, head.seq) == self.inner.version && head.id == self.inner.head
        };
        view.head.as_ref().is_some_and(same)
            && view.frozen.is_some() == self.inner.frozen
            && *context == self.inner.context
    }

    /// The head's record.
    pub(crate) fn head(&self) -> RecordId {
        self.inner.head
    }

    /// Hash of the refs blob.
    pub(crate) fn refs_hash(&self) -> Blake3 {
        self.inner.refs_hash
    }

    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        self.inner.id
    }

    /// What it holds.
    pub fn kind(&self) -> RepoKind {
        self.inner.kind
    }

    /// `namespace/name` in its canonical form (the namespace as its hash name).
    pub fn full_name(&self) -> &str {
        &self.inner.full_name
    }

    /// The namespace part of [`Self::full_name`].
    pub fn namespace(&self) -> &str {
        &self.inner.full_name[..self.inner.namespace_len]
    }

    /// The namespace's id.
    pub fn namespace_id(&self) -> NamespaceId {
        self.inner.namespace
    }

    /// Its name in the namespace.
    pub fn name(&self) -> &RepoName {
        &self.inner.context.name
    }

    /// `namespace/name` as this node's users know it: an account's namespace under its plain name.
    pub fn shown_name(&self) -> &str {
        &self.inner.shown_name
    }

    /// The namespace part of [`Self::shown_name`].
    pub fn shown_namespace(&self) -> &str {
        &self.inner.shown_name[..self.inner.shown_namespace_len]
    }

    /// Whether only those may see it who were let in.
    pub fn is_private(&self) -> bool {
        self.inner.context.is_private
    }

    /// Key that signed the head, as `ed25519:` and hex.
    pub fn signer(&self) -> &str {
        &self.inner.signer
    }

    /// Epoch and seq of the head.
    pub fn version(&self) -> (u64, u64) {
        self.inner.version
    }

    /// Two heads of one seq were signed: this shows the last agreed one.
    pub fn is_frozen(&self) -> bool {
        self.inner.frozen
    }

    /// Whether its content is kept by `gc` whatever else happens.
    pub fn is_pinned(&self) -> bool {
        self.inner.context.pinned
    }

    /// Seconds since the Unix epoch at which the repository record was signed.
    pub fn created_at(&self) -> u64 {
        self.inner.created_at
    }

    /// Seconds since the Unix epoch of the head.
    pub fn last_modified(&self) -> u64 {
        self.inner.last_modified
    }

    /// Full ref name (`refs/heads/main`, `refs/tags/v1`) → commit that it leads to (tags peeled).
    pub fn refs(&self) -> Result<&BTreeMap<String, GitOid>, RepoError> {
        Ok(&self.loaded_refs()?.1)
    }

    pub(crate) fn refs_blob(&self) -> Result<&Refs, RepoError> {
        Ok(&self.loaded_refs()?.0)
    }

    fn loaded_refs(&self) -> Result<&(Refs, BTreeMap<String, GitOid>), RepoError> {
        if let Some(loaded) = self.inner.refs.get() {
            return Ok(loaded);
        }
        let refs = self.inner.reader.refs(&self.inner.refs_hash)?;
        let mut commits = BTreeMap::new();
        for (name, target) in &refs.0 {
            let oid = if target.tags.is_empty() {
                target.oid
            } else {
                self.inner.reader.commit_entry(&target.entry)?.commit
            };
            commits.insert(name.to_string(), oid);
        }
        Ok(self.inner.refs.get_or_init(|| (refs, commits)))
    }

    /// The card of the default branch; empty where there is none or it can't be read.
    pub fn card(&self) -> &CardView {
        self.inner.card.get_or_init(|| {
            self.read_card()
                .unwrap_or_else(|error| {
                    tracing::warn!(repo = self.full_name(), %error, "card not read");
                    None
                })
                .unwrap_or_default()
        })
    }

    /// The default branch's README, where it is short enough to be read for its card.
    pub(crate) fn card_file(&self) -> Result<Option<Entry>, RepoError> {
        if self.default_commit()?.is_none() {
            return Ok(None);
        }
        let entry = self.commit("HEAD")?.entry("README.md")?;
        Ok(entry.filter(|entry| match &entry.kind {
            EntryKind::File(file) => file.size <= CARD_BYTES_MAX as u64,
            EntryKind::Directory => false,
        }))
    }

    fn read_card(&self) -> Result<Option<CardView>, RepoError> {
        let Some(Entry {
            kind: EntryKind::File(file),
            ..
        }) = self.card_file()?
        else {
            return Ok(None);
        };
        let Some(hash) = file.blake3 else {
            return Ok(None);
        };
        let bytes = self.inner.reader.blob(&hash)?;
        Ok(Some(
            cairn_protocol::card::parse(&bytes, self.kind()).0.into(),
        ))
    }

    /// Shows every file of every commit that a ref leads to, the default branch's first, until `see` has enough.
    pub fn each_file(
        &self,
        see: &mut dyn FnMut(&GitOid, &str, &FileEntry) -> bool,
    ) -> Result<(), RepoError> {
        let refs = self.refs()?;
        let default = refs.get(DEFAULT_REF);
        let mut seen = HashSet::new();
        for oid in default.into_iter().chain(refs.values()) {
            if !seen.insert(oid) {
                continue;
            }
            let commit = self.commit(&oid.to_hex())?;
            let mut after: Option<String> = None;
            loop {
                let entries = commit.tree("", true, after.as_deref(), ENTRIES_AT_ONCE)?;
                for entry in &entries {
                    if let EntryKind::File(file) = &entry.kind
                        && !see(oid, &entry.path, file)
                    {
                        return Ok(());
                    }
                }
                if entries.len() < ENTRIES_AT_ONCE {
                    break;
                }
                after = entries.last().map(|entry| entry.path.clone());
            }
        }
        Ok(())
    }

    /// Why the default branch's commit is invalid, where a file of it was fetched and found to be another
    /// than it says.
    pub fn invalid(&self) -> Result<Option<String>, RepoError> {
        let claims = self.inner.reader.wrong_claims().of(&self.inner.id);
        if claims.is_empty() || self.default_commit()?.is_none() {
            return Ok(None);
        }
        self.commit("HEAD")?.invalid()
    }

    /// The default branch's commit, `None` where nothing was pushed to it yet.
    pub fn default_commit(&self) -> Result<Option<GitOid>, RepoError> {
        Ok(self.refs()?.get(DEFAULT_REF).copied())
    }

    /// Resolves a branch, tag, full ref name, `HEAD`, commit id or unambiguous prefix (5+ digits) of one.
    ///
    /// Only commits that this repository's refs reach are found: a hash is not a capability.
    pub fn commit(&self, revision: &str) -> Result<Commit, RepoError> {
        let missing = || RepoError::Revision(revision.chars().take(200).collect());
        let name = if revision == "HEAD" {
            DEFAULT_REF
        } else {
            revision
        };
        if let Ok(oid) = revision.parse::<GitOid>() {
            let history = self.history()?;
            if let Some(index) = history.index_of(&oid) {
                return self.open(history.entry(index));
            }
        }
        let refs = self.refs_blob()?;
        let candidates = [
            name.to_owned(),
            format!("refs/heads/{name}"),
            format!("refs/tags/{name}"),
        ];
        for candidate in candidates {
            let target = candidate
                .parse::<RefName>()
                .ok()
                .and_then(|name| refs.0.get(&name));
            if let Some(target) = target {
                return self.open(target.entry);
            }
        }
        let hex = (SHORT_ID_DIGITS_MIN..=40).contains(&revision.len())
            && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex {
            return Err(missing());
        }
        let history = self.history()?;
        match history.find(&revision.to_ascii_lowercase()) {
            Match::One(index) => self.open(history.entry(index)),
            Match::None => Err(missing()),
            Match::Several => Err(RepoError::Ambiguous(revision.to_owned())),
        }
    }

    pub(super) fn open(&self, entry: Blake3) -> Result<Commit, RepoError> {
        let read: CommitEntry = self.inner.reader.commit_entry(&entry)?;
        Commit::open(Arc::clone(&self.inner.reader), self.clone(), entry, &read)
    }

    /// Every commit that the refs reach.
    pub(crate) fn history(&self) -> Result<Arc<History>, RepoError> {
        self.inner
            .reader
            .history(self.inner.id, self.inner.refs_hash, self.refs_blob()?)
    }
}
