//! Repositories are made, renamed and deleted; their branches and tags, too.

use cairn_protocol::attributes::default_attributes;
use cairn_protocol::card::Card;
use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RepositoryId};
use cairn_protocol::json::Object;
use cairn_protocol::name::{RepoKind, RepoName};
use cairn_protocol::path::RepoPath;
use cairn_protocol::record::NamesTarget;
use cairn_protocol::refs::{RefName, RefTarget};

use super::commit::{Committed, NewHead, finish, message, stands};
use super::home::{self, CHANGES_MAX, DEFAULT_REF, Move, Moves, Target, default_ref};
use super::tree::{self, Edits, Stored};
use super::{PublishError, Publisher, new_reference, turn};
use crate::node::Inner;
use crate::repos::Repo;

/// A setting of a head: the repository was deleted, and is not to be shown.
pub(crate) const DELETED: &str = "deleted";
/// A setting of a head: the repository's name in the letters that its publisher gave it.
pub(crate) const NAME: &str = "name";

/// A repository that is to be made.
#[derive(Debug, Clone)]
pub struct NewRepository {
    /// Namespace that it is in.
    pub namespace: NamespaceId,
    /// What it will hold.
    pub kind: RepoKind,
    /// Its name in the namespace.
    pub name: RepoName,
}

/// What becomes of a branch or tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefMove {
    /// It is made, at this revision.
    Make(String),
    /// It is made, or moved, to this revision.
    Force(String),
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
    let root = tree::write(&node.store, node.repos.reader(), &mut batch, None, &edits)?;

    let _turn = turn(node);
    home::settle(node)?;
    let mut current = home::current(node, &target)?;
    let is_taken = node.repos.ledger(|ledger| {
        let folded = target.name.folded();
        ledger
            .name(&target.namespace, target.kind, &folded)
            .is_some()
    });
    // A crash may have kept the name of a deleted one from being released.
    if is_taken && !current.settings().get(DELETED).is_some() {
        return Err(PublishError::Exists(target.full_name()));
    }
    current = home::Current::default();
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

/// Deletes a repository: its refs go, its name is free, and its last head says that it is not to be shown.
pub(crate) fn delete(node: &Inner, publisher: &Publisher, repo: &Repo) -> Result<(), PublishError> {
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let (target, mut current) = stands(node, repo)?;
    let refs: Vec<RefName> = current.refs.0.keys().cloned().collect();
    let mut parts = refs.chunks(CHANGES_MAX).peekable();
    while let Some(part) = parts.next() {
        let mut settings = None;
        if parts.peek().is_none() {
            let mut object = Object::new();
            object.set(DELETED, 1_u64);
            settings = Some(object);
        }
        let gone = |reference: &RefName| Move {
            reference: reference.clone(),
            new: None,
        };
        let moves = Moves {
            moves: part.iter().map(gone).collect(),
            card: Some(home::head_card(&Card::default(), None)),
            settings,
        };
        let batch = node.store.batch();
        home::sign(node, publisher, &target, &current, moves, batch)?;
        current = home::current(node, &target)?;
    }
    let released = home::rename(node, &target, None)?;
    take(node, vec![released])
}

/// Makes a repository of another namespace what this one is: same name, same refs. What an earlier try left is
/// completed.
pub(crate) fn transplant(
    node: &Inner,
    publisher: &Publisher,
    repo: &Repo,
    namespace: NamespaceId,
) -> Result<RepositoryId, PublishError> {
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)?;
    let (source, from) = stands(node, repo)?;
    let target = Target {
        namespace,
        ..source
    };
    home::must_be_home(node, &target)?;
    loop {
        let mut current = home::current(node, &target)?;
        if current.settings().get(DELETED).is_some() {
            current = home::Current::default();
        }
        let differs =
            |(name, new): &(&RefName, &RefTarget)| current.refs.0.get(*name) != Some(*new);
        let moves: Vec<Move> = from
            .refs
            .0
            .iter()
            .filter(differs)
            .take(CHANGES_MAX)
            .map(|(name, new)| Move {
                reference: name.clone(),
                new: Some(new.clone()),
            })
            .collect();
        match current.repository {
            Some(id) if moves.is_empty() => return Ok(id),
            _ => {}
        }
        let mut settings = Object::new();
        settings.set(NAME, repo.name().as_str());
        let moves = Moves {
            moves,
            card: from.shown_card(),
            settings: Some(settings),
        };
        home::sign(
            node,
            publisher,
            &target,
            &current,
            moves,
            node.store.batch(),
        )?;
    }
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
    let leads = node
        .repos
        .ledger(|ledger| ledger.name(&new.namespace, new.kind, &folded).cloned());
    // A name that only led here may be taken back.
    let is_own =
        matches!(&leads, Some(NamesTarget::Redirect(next)) if *next == target.name.folded());
    if leads.is_some() && !same && !is_own {
        return Err(PublishError::Exists(new.full_name()));
    }
    if !same {
        let first = home::rename(node, &new, Some(NamesTarget::Repository(repo.id())))?;
        let second = home::rename(node, &target, Some(NamesTarget::Redirect(folded)))?;
        take(node, vec![first, second])?;
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
        RefMove::Make(_) if before.is_some() => {
            return Err(PublishError::Exists(format!("Reference {reference}")));
        }
        RefMove::Make(revision) | RefMove::Force(revision) => {
            let now = node.repos.get(&repo.id()).unwrap_or_else(|| repo.clone());
            let commit = now.commit(revision)?;
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
        moves: vec![Move { reference, new }],
        ..Moves::default()
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

/// Takes records in that this home signed: the log, the state, peers.
fn take(node: &Inner, records: Vec<cairn_protocol::record::Record>) -> Result<(), PublishError> {
    let mut batch = node.store.batch();
    for record in &records {
        batch.record(record.envelope().to_vec());
    }
    batch.commit()?;
    for record in &records {
        node.repos.take(record);
    }
    node.published(&records);
    Ok(())
}
