//! Repositories are made, renamed and deleted; their branches and tags, too.

use cairn_protocol::attributes::default_attributes;
use cairn_protocol::card::Card;
use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RepositoryId};
use cairn_protocol::json::{Object, Value};
use cairn_protocol::name::{RepoKind, RepoName};
use cairn_protocol::path::RepoPath;
use cairn_protocol::record::NamesTarget;
use cairn_protocol::refs::{RefName, RefTarget};

use super::commit::{Committed, NewHead, finish, message, read_card, stands};
use super::home::{self, CHANGES_MAX, Current, DEFAULT_REF, Move, Moves, Target, default_ref};
use super::tree::{self, Edits, Stored};
use super::{PublishError, Publisher, new_reference, operator, turn};
use crate::node::Inner;
use crate::repos::Repo;

/// Names of one node from which repositories went to another account's namespace; further ones stay.
const MOVED_MAX: usize = 100_000;

/// A setting of a head: the repository was deleted, and is not to be shown.
pub(crate) const DELETED: &str = "deleted";
/// A setting of a head: the id that the repository had before it was shown or hidden.
const FROM: &str = "from";
/// A setting of a head: the repository's name in the letters that its publisher gave it.
pub(crate) const NAME: &str = "name";

/// A repository that is to be made.
#[derive(Debug)]
pub struct NewRepository {
    /// Namespace that it is in.
    pub namespace: NamespaceId,
    /// What it will hold.
    pub kind: RepoKind,
    /// Its name in the namespace.
    pub name: RepoName,
    /// Files of its first commit, beside `.gitattributes`.
    pub files: Vec<(RepoPath, Stored)>,
}

/// What becomes of a branch or tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefMove {
    /// It is made, at this revision.
    Make(String),
    /// It is made, or moved, to this revision.
    Force(String),
    /// It is made, at a commit that has no files and no parents.
    Empty,
    /// It is made, or moved, to such a commit.
    Clear,
    /// It goes.
    Delete,
}

/// Makes a repository, with the hub's default `.gitattributes` in its first commit.
pub(crate) fn create(
    node: &Inner,
    publisher: &Publisher,
    new: &NewRepository,
) -> Result<(RepositoryId, Committed), PublishError> {
    let target = Target {
        namespace: new.namespace,
        kind: new.kind,
        name: new.name.clone(),
    };
    let _lease = node.store.lease();
    let mut batch = node.store.batch();
    let attributes = default_attributes(new.kind).as_bytes();
    let digests = batch.put_with(bytes::Bytes::from_static(attributes), true)?;
    let path: RepoPath = ".gitattributes".parse()?;
    let mut edits = Edits::default();
    edits.put(&path, Stored::of(&digests, false));
    for (path, stored) in &new.files {
        edits.put(path, stored.clone());
    }
    let root = tree::write(&node.store, node.repos.reader(), &mut batch, None, &edits)?;

    let _turn = turn(node);
    home::settle(node)?;
    must_be_free(node, &target, &[])?;
    let current = home::Current::default();
    let head = NewHead {
        reference: default_ref(),
        root,
        parents: Vec::new(),
        message: "initial commit\n".to_owned(),
        card: Some((Card::default(), None)),
    };
    let made = finish(node, publisher, &target, &current, head, batch)?;
    let id = home::current(node, &target)?.repository;
    id.map(|id| (id, made))
        .ok_or_else(|| PublishError::Frozen(target.full_name()))
}

/// Refuses a name that another repository has, in this namespace or the other one of its account: on this node
/// both go by one name. A name that only leads to another one is free, and so is that of a deleted one.
fn must_be_free(node: &Inner, target: &Target, but: &[RepositoryId]) -> Result<(), PublishError> {
    for other in target.on_this_node(node) {
        let found = node
            .repos
            .find_in(&other.namespace, other.kind, &other.name);
        if found.is_some_and(|repo| !but.contains(&repo.id())) {
            return Err(PublishError::Exists(target.full_name()));
        }
    }
    Ok(())
}

/// Deletes a repository: its refs go, its name is free, and its last head says that it is not to be shown.
pub(crate) fn delete(node: &Inner, publisher: &Publisher, repo: &Repo) -> Result<(), PublishError> {
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let (target, current) = stands(node, repo)?;
    // Where the name led before it was this repository's is not where it leads now.
    home::taken(node, &target);
    remove(node, publisher, &target, current)
}

/// The caller holds the turn.
fn remove(
    node: &Inner,
    publisher: &Publisher,
    target: &Target,
    mut current: Current,
) -> Result<(), PublishError> {
    let refs: Vec<RefName> = current.refs.0.keys().cloned().collect();
    for part in refs.chunks(CHANGES_MAX) {
        // The first head already hides it, so that no reader sees it with some of its refs.
        let mut settings = Object::new();
        settings.set(DELETED, 1_u64);
        let gone = |reference: &RefName| Move {
            reference: reference.clone(),
            new: None,
        };
        let moves = Moves {
            refs: part.iter().map(gone).collect(),
            card: Some(home::head_card(&Card::default(), None)),
            settings: Some(settings),
        };
        let batch = node.store.batch();
        home::sign(node, publisher, target, &current, moves, batch)?;
        current = home::current(node, target)?;
    }
    let released = home::rename(node, target, None)?;
    Ok(node.take_records(node.store.batch(), &[released])?)
}

/// Moves a repository to another namespace, of its account or of another one: it is made there with the same
/// refs, and deleted here, while nobody else publishes. `on_made` is told the new id before anybody sees it.
///
/// Until the copy is shown the repository stands where it stood, and another try goes on with what is there; from
/// then on it stands where the copy does, and a start completes the rest (see [`finish_moves`]).
pub(crate) fn transplant(
    node: &Inner,
    publisher: &Publisher,
    repo: &Repo,
    namespace: NamespaceId,
    name: &RepoName,
    on_made: impl FnOnce(&RepositoryId) -> Result<(), PublishError>,
) -> Result<RepositoryId, PublishError> {
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let (source, from) = stands(node, repo)?;
    let target = Target {
        namespace,
        name: name.clone(),
        ..source.clone()
    };
    home::must_be_home(node, &target)?;
    let owner = |namespace| node.accounts.by_namespace(namespace).map(|owner| owner.id);
    let goes_away = owner(&source.namespace) != owner(&namespace);
    if goes_away {
        must_be_room(node, &source)?;
    }
    let id = loop {
        let mut current = home::current(node, &target)?;
        let settings = current.settings();
        let is_hidden = settings.get(DELETED).is_some();
        let is_ours =
            matches!(settings.get(FROM), Some(Value::Text(id)) if *id == repo.id().to_hex());
        // One that was deleted, or that a crash left without its first head, is in nobody's way.
        if !is_ours && (is_hidden || current.head.is_none()) {
            current = Current::default();
        } else if !is_ours && current.repository.is_some() {
            return Err(PublishError::Exists(target.full_name()));
        }
        let own: Vec<RepositoryId> = current.repository.into_iter().collect();
        must_be_free(node, &target, &[&own[..], &[repo.id()]].concat())?;
        let differs =
            |(name, new): &(&RefName, &RefTarget)| current.refs.0.get(*name) != Some(*new);
        let all: Vec<Move> = from
            .refs
            .0
            .iter()
            .filter(differs)
            .map(|(name, new)| Move {
                reference: name.clone(),
                new: Some(new.clone()),
            })
            .collect();
        if let Some(id) = current.repository.filter(|_| all.is_empty()) {
            break id;
        }
        // What is seen may have gone on by itself.
        if is_ours && !is_hidden {
            return Err(PublishError::Exists(target.full_name()));
        }
        let mut settings = Object::new();
        settings.set(NAME, name.as_str());
        settings.set(FROM, repo.id().to_hex());
        settings.set(DELETED, 1_u64);
        let moves = Moves {
            refs: all.into_iter().take(CHANGES_MAX).collect(),
            card: from.shown_card(),
            settings: Some(settings),
        };
        let batch = node.store.batch();
        home::sign(node, publisher, &target, &current, moves, batch)?;
    };
    on_made(&id)?;
    if goes_away {
        home::lead_away(node, &source, Some(&target))?;
    } else {
        lead_on(node, &source, &target)?;
    }
    set(node, publisher, &target, Some(&repo.id()))?;
    remove(node, publisher, &source, from)?;
    // What it was before is nobody's business; needed no more.
    set(node, publisher, &target, None)?;
    Ok(id)
}

/// Shows a repository; with the id of the one that it takes the place of, as long as that is there.
fn set(
    node: &Inner,
    publisher: &Publisher,
    target: &Target,
    from: Option<&RepositoryId>,
) -> Result<(), PublishError> {
    let current = home::current(node, target)?;
    let mut settings = Object::new();
    settings.set(NAME, target.name.as_str());
    if let Some(from) = from {
        settings.set(FROM, from.to_hex());
    }
    let moves = Moves {
        settings: Some(settings),
        ..Moves::default()
    };
    let batch = node.store.batch();
    home::sign(node, publisher, target, &current, moves, batch)?;
    Ok(())
}

/// Completes what a crash left of moves: what a copy that is shown took the place of goes.
pub(crate) fn finish_moves(node: &Inner) {
    let all = RepoKind::ALL
        .into_iter()
        .flat_map(|kind| node.repos.list(kind));
    let copies = all.filter_map(|repo| {
        if !node.is_home(&repo.namespace_id()) {
            return None;
        }
        let settings = node.repos.ledger(|ledger| {
            let head = ledger.repository(&repo.id())?.head?;
            Some(head.to_body().settings)
        })?;
        match settings.get(FROM)? {
            Value::Text(id) => Some((repo, id.parse::<RepositoryId>().ok()?)),
            _ => None,
        }
    });
    for (copy, source) in copies.collect::<Vec<_>>() {
        if let Err(error) = finish_move(node, &copy, &source) {
            let (repo, error) = (copy.full_name(), &error as &dyn std::error::Error);
            tracing::warn!(%repo, error, "it was moved, and what it was before is still there");
        }
    }
}

fn finish_move(node: &Inner, copy: &Repo, source: &RepositoryId) -> Result<(), PublishError> {
    let _lease = node.store.lease();
    let _turn = turn(node);
    let (target, current) = stands(node, copy)?;
    if let Some(source) = node.repos.get(source) {
        let (place, before) = stands(node, &source)?;
        if before.refs != current.refs {
            return Err(PublishError::Exists(target.full_name()));
        }
        remove(node, &operator(node, &place.namespace)?, &place, before)?;
    }
    set(node, &operator(node, &target.namespace)?, &target, None)
}

/// Refuses where too many names lead to other namespaces.
fn must_be_room(node: &Inner, source: &Target) -> Result<(), PublishError> {
    let (is_one, count) = node.repos.leads_away(&source.key());
    if is_one || count < MOVED_MAX {
        return Ok(());
    }
    Err(PublishError::Invalid(format!(
        "{MOVED_MAX} repositories went from their namespaces on this node, as many as may: duplicate it"
    )))
}

/// Makes a repository that begins where another one stands: the same refs, history and files.
pub(crate) fn duplicate(
    node: &Inner,
    publisher: &Publisher,
    repo: &Repo,
    namespace: NamespaceId,
    name: &RepoName,
) -> Result<RepositoryId, PublishError> {
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let target = Target {
        namespace,
        kind: repo.kind(),
        name: name.clone(),
    };
    home::must_be_home(node, &target)?;
    must_be_free(node, &target, &[])?;
    let now = node.repos.get(&repo.id()).unwrap_or_else(|| repo.clone());
    let all: Vec<(&RefName, &RefTarget)> = now.refs_blob()?.0.iter().collect();
    let card = node.repos.ledger(|ledger| {
        let head = ledger.repository(&repo.id())?.head;
        head.map(|head| head.to_body().card)
    });
    let mut current = Current::default();
    // The default branch first: a crash leaves a repository that can be read and deleted.
    let (main, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(name, _)| name.as_str() == DEFAULT_REF);
    let steps: Vec<_> = main.into_iter().chain(others).collect();
    if steps.is_empty() {
        return Err(PublishError::Invalid("it has no branches yet".to_owned()));
    }
    for part in steps.chunks(CHANGES_MAX) {
        let step = |(name, new): &(&RefName, &RefTarget)| Move {
            reference: (*name).clone(),
            new: Some((*new).clone()),
        };
        let moves = Moves {
            refs: part.iter().map(step).collect(),
            card: card.clone(),
            settings: None,
        };
        let batch = node.store.batch();
        home::sign(node, publisher, &target, &current, moves, batch)?;
        current = home::current(node, &target)?;
    }
    current
        .repository
        .ok_or_else(|| PublishError::Frozen(target.full_name()))
}

/// Names that led to a repository in one namespace lead to it in the other, too, where they are free.
fn lead_on(node: &Inner, source: &Target, target: &Target) -> Result<(), PublishError> {
    let folded = source.name.folded();
    let names: Vec<RepoName> = node.repos.ledger(|ledger| {
        let led = ledger.names(&source.namespace).filter(|(kind, name, to)| {
            *kind == source.kind
                && matches!(to, NamesTarget::Redirect(next) if *next == folded)
                && ledger.name(&target.namespace, *kind, name).is_none()
        });
        led.map(|(_, name, _)| name.clone()).collect()
    });
    let redirect = |name: RepoName| {
        let old = Target {
            name,
            ..target.clone()
        };
        home::rename(node, &old, Some(NamesTarget::Redirect(folded.clone())))
    };
    let records = names
        .iter()
        .cloned()
        .map(redirect)
        .collect::<Result<Vec<_>, _>>()?;
    node.take_records(node.store.batch(), &records)?;
    for name in names {
        let old = Target {
            name,
            ..target.clone()
        };
        home::taken(node, &old);
    }
    Ok(())
}

/// Gives a repository another name in its namespace; the old one leads to it from now on.
pub(crate) fn rename(
    node: &Inner,
    publisher: &Publisher,
    repo: &Repo,
    name: &RepoName,
) -> Result<(), PublishError> {
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let (target, current) = stands(node, repo)?;
    let new = Target {
        name: name.clone(),
        ..target.clone()
    };
    let folded = new.name.folded();
    let same = folded == target.name.folded();
    must_be_free(node, &new, &[repo.id()])?;
    if !same {
        let first = home::rename(node, &new, Some(NamesTarget::Repository(repo.id())))?;
        let second = home::rename(node, &target, Some(NamesTarget::Redirect(folded)))?;
        node.take_records(node.store.batch(), &[first, second])?;
    }
    // Names are in lower case; what is shown is as it was given.
    let mut settings = current.settings();
    settings.set(NAME, name.as_str());
    let moves = Moves {
        settings: Some(settings),
        ..Moves::default()
    };
    home::sign(node, publisher, &new, &current, moves, node.store.batch())?;
    Ok(())
}

/// Makes, moves or deletes a branch or tag, given by its full name.
pub(crate) fn move_ref(
    node: &Inner,
    publisher: &Publisher,
    repo: &Repo,
    reference: &str,
    wanted: &RefMove,
) -> Result<(), PublishError> {
    let reference = new_reference(reference)?;
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let (target, current) = stands(node, repo)?;
    let before = current.refs.0.get(&reference);
    let mut card = None;
    let new = match wanted {
        RefMove::Delete if before.is_none() => {
            return Err(PublishError::NoRevision(reference.to_string()));
        }
        RefMove::Delete if reference.as_str() == DEFAULT_REF => {
            return Err(PublishError::Invalid(format!(
                "Cannot delete {DEFAULT_REF}"
            )));
        }
        RefMove::Delete => None,
        RefMove::Make(_) | RefMove::Empty if before.is_some() => {
            return Err(PublishError::Exists(format!("Reference {reference}")));
        }
        RefMove::Empty | RefMove::Clear => {
            let mut batch = node.store.batch();
            let (store, reader) = (&node.store, node.repos.reader());
            let root = tree::write(store, reader, &mut batch, None, &Edits::default())?;
            let head = NewHead {
                reference,
                root,
                parents: Vec::new(),
                message: "initial commit\n".to_owned(),
                card: Some((Card::default(), None)),
            };
            finish(node, publisher, &target, &current, head, batch)?;
            return Ok(());
        }
        RefMove::Make(revision) | RefMove::Force(revision) => {
            let now = node.repos.get(&repo.id()).unwrap_or_else(|| repo.clone());
            let commit = now.commit(revision)?;
            if reference.as_str() == DEFAULT_REF {
                let (new, text) = read_card(node, &now, &commit.root()?)?;
                card = Some(home::head_card(&new, text));
            }
            Some(RefTarget {
                oid: commit.info().oid,
                entry: commit.entry_hash(),
                tags: Vec::new(),
            })
        }
    };
    if before == new.as_ref() {
        return Ok(());
    }
    let moves = Moves {
        refs: vec![Move { reference, new }],
        card,
        settings: None,
    };
    let batch = node.store.batch();
    home::sign(node, publisher, &target, &current, moves, batch)?;
    Ok(())
}

/// Makes one commit of a ref's whole history: the same files, no parents.
pub(crate) fn squash(
    node: &Inner,
    publisher: &Publisher,
    repo: &Repo,
    reference: &str,
    summary: &str,
) -> Result<Committed, PublishError> {
    let reference: RefName = new_reference(reference)?;
    let text = message(summary)?.unwrap_or_else(|| "Super-squash branch\n".to_owned());
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let (target, current) = stands(node, repo)?;
    let tip = current
        .tip(node, &reference)?
        .ok_or_else(|| PublishError::NoRevision(reference.to_string()))?;
    let root = node.root_of(&tip)?;
    let head = NewHead {
        reference,
        root,
        parents: Vec::new(),
        message: text,
        card: None,
    };
    finish(node, publisher, &target, &current, head, node.store.batch())
}

impl Inner {
    /// Tree and manifest of a commit.
    fn root_of(&self, tip: &home::Tip) -> Result<(GitOid, Blake3), PublishError> {
        let lacks = || PublishError::Invalid("the commit's files are not known here".to_owned());
        let manifest = tip.manifest.ok_or_else(lacks)?;
        let tree = self.repos.reader().manifest(&manifest)?.tree_bytes();
        let kind = cairn_protocol::git::ObjectKind::Tree;
        Ok((cairn_protocol::git::object_oid(kind, &tree), manifest))
    }
}
