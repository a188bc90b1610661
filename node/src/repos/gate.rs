//! Which head of a repository is shown.
//!
//! Of this node's own repositories the newest: it made what the head names. Of others the newest whose
//! metadata was found whole here, as long as it is in the history of the one in force; what the records
//! take back is not shown, whole or not. Which head was found whole is remembered in a view of the store,
//! which may be lost: then the start walks.

use std::collections::HashSet;

use cairn_protocol::accept::RepositoryView;
use cairn_protocol::hash::{Blake3, NamespaceId, RecordId, RepositoryId};

use super::walk::{Outcome, Walk};
use super::{Repo, Repos, State};
use crate::access::Access;

/// Heads looked at, from the newest back, for one whose metadata is whole.
const HEADS_WALKED_MAX: usize = 32;
/// Name of the view that remembers.
const VIEW: &str = "complete";

/// A head that is in force and not shown, since its metadata was not found whole yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The head's record.
    pub(crate) head: RecordId,
    /// Its refs blob.
    pub(crate) refs: Blake3,
}

/// What is shown of a repository, if anything.
pub(super) fn shown<'a>(state: &'a State, repository: &RepositoryId) -> Option<RepositoryView<'a>> {
    let mut view = state.ledger.repository(repository)?;
    let newest = view.head.as_ref()?.id;
    if state.own_namespace == Some(view.namespace) {
        return Some(view);
    }
    let complete = state.complete.get(repository)?;
    if *complete != newest {
        view.head = Some(state.ledger.head(repository, complete)?);
    }
    Some(view)
}

impl Repos {
    /// Shows what the records read at start add up to.
    pub(crate) fn loaded(&self, own_namespace: NamespaceId, pinned: HashSet<RepositoryId>) {
        let heads: Vec<(RepositoryId, Vec<(RecordId, Blake3)>)> = self.ledger(|ledger| {
            let others = ledger
                .repositories()
                .filter(|view| view.namespace != own_namespace);
            let heads = |id: &RepositoryId| {
                let heads = ledger.heads(id, HEADS_WALKED_MAX);
                heads.iter().map(|head| (head.id, head.refs)).collect()
            };
            others.map(|view| (view.id, heads(&view.id))).collect()
        });
        let view = self.inner.store.view(VIEW);
        let whole = heads.into_iter().filter_map(|(repository, heads)| {
            let known = view.get(repository.as_bytes()).and_then(|id| {
                let id = RecordId::from_bytes(id.try_into().ok()?);
                self.ledger(|ledger| ledger.head(&repository, &id).map(|head| head.id))
            });
            Some((repository, known.or_else(|| self.newest_whole(&heads))?))
        });
        let complete = whole.collect();
        let mut state = self.write();
        state.own_namespace = Some(own_namespace);
        state.pinned = pinned;
        state.complete = complete;
        self.show_all(&mut state);
        drop(state);
        self.bump();
    }

    fn newest_whole(&self, heads: &[(RecordId, Blake3)]) -> Option<RecordId> {
        let whole = heads.iter().find(|(_, refs)| {
            let mut walk = Walk::new(self.inner.store.clone(), Access::default(), *refs);
            matches!(walk.go_on(&|| false), Ok(Outcome::Complete))
        });
        whole.map(|(head, _)| *head)
    }

    /// The head in force of another node's repository, unless it is shown already.
    pub(crate) fn pending(&self, repository: &RepositoryId) -> Option<Pending> {
        let state = self.read();
        let view = state.ledger.repository(repository)?;
        let head = view.head?;
        if state.own_namespace == Some(view.namespace)
            || state.complete.get(repository) == Some(&head.id)
        {
            return None;
        }
        Some(Pending {
            head: head.id,
            refs: head.refs,
        })
    }

    /// Every repository with a head that is not shown yet.
    pub(crate) fn all_pending(&self) -> Vec<RepositoryId> {
        let all: Vec<RepositoryId> =
            self.ledger(|ledger| ledger.repositories().map(|view| view.id).collect());
        all.into_iter()
            .filter(|id| self.pending(id).is_some())
            .collect()
    }

    /// Shows a repository at a head whose metadata was found whole.
    pub(crate) fn complete(&self, repository: RepositoryId, head: RecordId) {
        let mut state = self.write();
        if state.ledger.head(&repository, &head).is_none() {
            return;
        }
        state.complete.insert(repository, head);
        self.show(&mut state, &repository);
        drop(state);
        self.bump();
        let view = self.inner.store.view(VIEW);
        view.put(repository.as_bytes(), head.as_bytes());
    }

    /// A repository that is shown.
    pub(crate) fn get(&self, repository: &RepositoryId) -> Option<Repo> {
        self.read().table.get(repository).cloned()
    }

    /// What the repository would be at its head in force, shown or not.
    pub(crate) fn candidate(&self, repository: &RepositoryId) -> Option<Repo> {
        let state = self.read();
        let view = state.ledger.repository(repository)?;
        Repo::new(self.inner.reader.clone(), &view, false)
    }

    /// Repositories that are shown.
    pub(crate) fn all_shown(&self) -> Vec<RepositoryId> {
        self.read().table.keys().copied().collect()
    }

    /// Whether a repository is this node's own.
    pub(crate) fn is_own(&self, repository: &RepositoryId) -> bool {
        let state = self.read();
        let namespace = state
            .ledger
            .repository(repository)
            .map(|view| view.namespace);
        namespace.is_some() && namespace == state.own_namespace
    }
}
