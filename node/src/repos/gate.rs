//! Which head of a repository is shown.
//!
//! The newest whose metadata is known to be whole here, as long as it is in the history of the one in
//! force; what the records take back or a head deletes is not shown, whole or not. What this node signed is whole, since it
//! signs only what it has; a head of its own namespace that comes from a peer (it was restored from a
//! backup) must be found whole as any other. Which head was found whole is remembered in a view of the
//! store, which may be lost: then the start walks.

use std::collections::{BTreeMap, HashSet};

use cairn_protocol::accept::{HeadView, RepositoryView};
use cairn_protocol::hash::{Blake3, NamespaceId, RecordId, RepositoryId};

use super::walk::{Outcome, Walk};
use super::{Repo, Repos, State};
use crate::access::Access;
use crate::publish::DELETED;

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
    let head = view.head.as_ref().filter(|head| !is_deleted(head))?;
    let newest = head.id;
    let complete = state.complete.get(repository)?;
    if *complete != newest {
        view.head = Some(state.ledger.head(repository, complete)?);
    }
    Some(view)
}

/// Whether a head deletes its repository: nothing of it has to be whole for that.
fn is_deleted(head: &HeadView<'_>) -> bool {
    head.settings.get(DELETED).is_some()
}

impl Repos {
    /// Shows what the records read at start add up to; `signed` is the newest head of each repository that
    /// this node signed.
    pub(crate) fn loaded(
        &self,
        own_namespace: NamespaceId,
        pinned: HashSet<RepositoryId>,
        signed: &BTreeMap<RepositoryId, RecordId>,
    ) {
        let heads: Vec<(RepositoryId, Vec<(RecordId, Blake3)>)> = self.ledger(|ledger| {
            let heads = |id: &RepositoryId| {
                let heads = ledger.heads(id, HEADS_WALKED_MAX);
                heads.iter().map(|head| (head.id, head.refs)).collect()
            };
            let all = ledger.repositories();
            all.map(|view| (view.id, heads(&view.id))).collect()
        });
        let view = self.inner.store.view(VIEW);
        let whole = heads.into_iter().filter_map(|(repository, heads)| {
            let remembered = view.get(repository.as_bytes()).and_then(|id| {
                let id = <[u8; RecordId::SIZE]>::try_from(id).ok()?;
                Some(RecordId::from_bytes(id))
            });
            let known = self.newest(
                &repository,
                remembered.iter().chain(signed.get(&repository)),
            );
            let head = known.or_else(|| {
                let found = self.newest_whole(&heads)?;
                self.remember_complete(&repository, &found);
                Some(found)
            });
            Some((repository, head?))
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

    /// The newest of these heads that is in the history of the one in force.
    fn newest<'a>(
        &self,
        repository: &RepositoryId,
        heads: impl Iterator<Item = &'a RecordId>,
    ) -> Option<RecordId> {
        self.ledger(|ledger| {
            let known = heads.filter_map(|id| ledger.head(repository, id));
            let newest = known.max_by_key(|head| (head.epoch, head.seq));
            newest.map(|head| head.id)
        })
    }

    pub(super) fn remember_complete(&self, repository: &RepositoryId, head: &RecordId) {
        let view = self.inner.store.view(VIEW);
        view.put(repository.as_bytes(), head.as_bytes());
    }

    /// Forgets what was whole of repositories that are not shown: their metadata may be freed now.
    pub(crate) fn forget_unshown(&self) {
        let mut state = self.write();
        let State {
            complete, table, ..
        } = &mut *state;
        let mut gone = Vec::new();
        complete.retain(|repository, _| {
            let shown = table.contains_key(repository);
            if !shown {
                gone.push(*repository);
            }
            shown
        });
        drop(state);
        let view = self.inner.store.view(VIEW);
        for repository in gone {
            view.put(repository.as_bytes(), &[]);
        }
    }

    fn newest_whole(&self, heads: &[(RecordId, Blake3)]) -> Option<RecordId> {
        let whole = heads.iter().find(|(_, refs)| {
            let mut walk = Walk::new(self.inner.store.clone(), Access::default(), *refs);
            matches!(walk.go_on(&|| false), Ok(Outcome::Complete))
        });
        whole.map(|(head, _)| *head)
    }

    /// The head in force of a repository, unless it is shown already or shows nothing.
    pub(crate) fn pending(&self, repository: &RepositoryId) -> Option<Pending> {
        let state = self.read();
        let view = state.ledger.repository(repository)?;
        // Peers don't have what is private, and are not told of it by being asked.
        if state.private.contains(&view.namespace) {
            return None;
        }
        let head = view.head.filter(|head| !is_deleted(head))?;
        if state.complete.get(repository) == Some(&head.id) {
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
        let version = |head: &RecordId| {
            let head = state.ledger.head(&repository, head)?;
            Some((head.epoch, head.seq))
        };
        // A newer one may have been published here meanwhile.
        let before = state.complete.get(&repository).and_then(version);
        if version(&head).is_none_or(|found| before.is_some_and(|before| before > found)) {
            return;
        }
        state.complete.insert(repository, head);
        self.show(&mut state, &repository);
        drop(state);
        self.bump();
        self.remember_complete(&repository, &head);
    }

    /// A repository that is shown.
    pub(crate) fn get(&self, repository: &RepositoryId) -> Option<Repo> {
        self.read().table.get(repository).cloned()
    }

    /// Whether a repository was deleted, or is of no record that this node knows.
    pub(crate) fn is_gone(&self, repository: &RepositoryId) -> bool {
        self.ledger(|ledger| {
            let view = ledger.repository(repository);
            view.is_none_or(|view| view.head.as_ref().is_some_and(is_deleted))
        })
    }

    /// What the repository would be at its head in force, shown or not.
    pub(crate) fn candidate(&self, repository: &RepositoryId) -> Option<Repo> {
        let state = self.read();
        let view = state.ledger.repository(repository)?;
        let context = state.context(&view, false);
        Repo::new(self.inner.reader.clone(), &view, context)
    }

    /// Repositories that are shown.
    pub(crate) fn all_shown(&self) -> Vec<RepositoryId> {
        self.read().table.keys().copied().collect()
    }

    /// Whether a repository is this node's own, or of an account of it.
    pub(crate) fn is_own(&self, repository: &RepositoryId) -> bool {
        let state = self.read();
        let namespace = state
            .ledger
            .repository(repository)
            .map(|view| view.namespace);
        namespace.is_some_and(|namespace| state.is_own(&namespace))
    }
}
