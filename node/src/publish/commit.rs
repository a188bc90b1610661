//! Edits of a commit become the next one: what the hub's commit API, and every other way in but a folder,
//! ends at.

use bytes::Bytes;
use cairn_protocol::card::{self, Card};
use cairn_protocol::git::{NewCommit, ObjectKind, object_oid};
use cairn_protocol::hash::{Blake3, GitOid};
use cairn_protocol::limits::{CARD_BYTES_MAX, MESSAGE_BYTES_MAX};
use cairn_protocol::path::RepoPath;
use cairn_protocol::refs::{RefName, RefTarget};

use super::contents::BATCH_BYTES_MAX;
use super::home::{self, Current, DEFAULT_REF, Move, Moves, Target, Tip};
use super::tree::{self, Edits, Stored};
use super::{PublishError, Publisher, tracking, turn};
use crate::node::Inner;
use crate::repos::Repo;
use crate::store::{Batch, Lease, Store, StoreError};

/// The model card's path.
const CARD: &str = "README.md";
/// Fewest hex digits that are taken for the beginning of a parent's id.
const PARENT_DIGITS_MIN: usize = 5;

/// Edits that are to become a commit.
#[derive(Debug)]
pub struct Draft {
    /// Full name of the ref.
    pub reference: String,
    /// What the publisher saw there: an id or its first digits; whatever is there where absent.
    pub parent: Option<String>,
    /// Commit message.
    pub message: String,
    /// What becomes of paths, in order.
    pub edits: Vec<(RepoPath, Edit)>,
    /// Keeps the contents from being collected.
    pub lease: Lease,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A file stands there.
    Put(Stored),
    /// The file there goes.
    Delete,
    /// The folder there goes, with all below it.
    DeleteFolder,
}

/// A commit that was made, or the one that holds what it would have held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its id.
    pub commit: GitOid,
    /// Seq of the head that has it.
    pub seq: u64,
}

/// Contents of small files that are stored together.
#[derive(Debug)]
pub struct Contents {
    store: Store,
    batch: Batch,
}

impl Contents {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            batch: store.batch(),
        }
    }

    /// Adds a file that git keeps as a blob.
    pub fn put(&mut self, bytes: Bytes) -> Result<Stored, StoreError> {
        let digests = self.batch.put_with(bytes, true)?;
        if self.batch.len_bytes() > BATCH_BYTES_MAX {
            std::mem::replace(&mut self.batch, self.store.batch()).commit()?;
        }
        Ok(Stored::of(&digests, false))
    }

    /// All of it is durable on return.
    pub fn finish(self) -> Result<(), StoreError> {
        self.batch.commit()
    }
}

/// Makes a commit of edits; returns when the head is durable, signed, and seen by the next read.
pub(crate) fn commit(
    node: &Inner,
    publisher: &Publisher,
    repo: &Repo,
    draft: &Draft,
) -> Result<Committed, PublishError> {
    let message = message(&draft.message)?
        .ok_or_else(|| PublishError::Invalid("the commit has no summary".to_owned()))?;
    let reference: RefName = super::new_reference(&draft.reference)?;
    let mut edits = Edits::default();
    for (path, edit) in &draft.edits {
        match edit {
            Edit::Put(stored) => edits.put(path, stored.clone()),
            Edit::Delete => edits.remove(path),
            Edit::DeleteFolder => edits.remove_folder(path),
        }
    }
    // What is here of others' may not be evicted before the head names it.
    let _whole = node.cache.pushing();
    for (path, edit) in &draft.edits {
        if let Edit::Put(stored) = edit
            && !node.store.contains(&stored.blake3)?
        {
            return Err(PublishError::NotUploaded {
                path: path.to_string(),
                sha256: stored.sha256,
            });
        }
    }
    let _turn = turn(node);
    home::settle(node)?;
    let (target, current) = stands(node, repo)?;
    let tip = current
        .tip(node, &reference)?
        .ok_or_else(|| PublishError::NoRevision(short(&draft.reference).to_owned()))?;
    if let Some(parent) = &draft.parent {
        let fits = parent.len() >= PARENT_DIGITS_MIN
            && tip
                .commit
                .to_hex()
                .starts_with(&parent.to_ascii_lowercase());
        if !fits {
            return Err(PublishError::Moved);
        }
    }
    let mut batch = node.store.batch();
    let reader = node.repos.reader();
    if let Some(rules) = tracking::rules(node, &mut batch, tip.manifest, &draft.edits)? {
        edits.put(&tracking::path(), rules);
    }
    let root = tree::write(&node.store, reader, &mut batch, tip.manifest, &edits)?;
    if tip.manifest == Some(root.1) {
        batch.commit()?;
        node.repos.bump();
        return Ok(Committed {
            commit: tip.commit,
            seq: current.head.as_ref().map_or(0, |head| head.seq),
        });
    }
    let touches_card = draft.edits.iter().any(|(path, _)| {
        let path = path.as_str();
        path == CARD || CARD.starts_with(&format!("{path}/"))
    });
    let card = if touches_card && draft.reference == DEFAULT_REF {
        // It may stand in the batch still.
        std::mem::replace(&mut batch, node.store.batch()).commit()?;
        Some(read_card(node, repo, &root.1)?)
    } else {
        None
    };
    let head = NewHead {
        reference,
        root,
        parents: vec![tip],
        message,
        card,
    };
    finish(node, publisher, &target, &current, head, batch)
}

/// Where a repository stands now, by its id: its name may have changed since it was found.
pub(super) fn stands(node: &Inner, repo: &Repo) -> Result<(Target, Current), PublishError> {
    let gone = || PublishError::NoRevision(repo.full_name().to_owned());
    let now = node.repos.get(&repo.id()).ok_or_else(gone)?;
    let target = Target {
        namespace: now.namespace_id(),
        kind: now.kind(),
        name: now.name().clone(),
    };
    home::must_be_home(node, &target)?;
    let current = home::current(node, &target)?;
    if current.repository != Some(repo.id()) {
        return Err(gone());
    }
    Ok((target, current))
}

/// What a head is to show that was not there before.
#[derive(Debug)]
pub(super) struct NewHead {
    pub(super) reference: RefName,
    /// The commit's tree, and its manifest.
    pub(super) root: (GitOid, Blake3),
    pub(super) parents: Vec<Tip>,
    /// With the line feed that ends it.
    pub(super) message: String,
    /// The card, where it may be another than before.
    pub(super) card: Option<(Card, Option<Blake3>)>,
}

/// Writes the commit, and signs the head that has it. The caller holds the turn.
pub(super) fn finish(
    node: &Inner,
    publisher: &Publisher,
    target: &Target,
    current: &Current,
    head: NewHead,
    mut batch: Batch,
) -> Result<Committed, PublishError> {
    let commit = NewCommit {
        tree: head.root.0,
        parents: head.parents.iter().map(|tip| tip.commit).collect(),
        author: publisher.author.clone(),
        committer: publisher.author.clone(),
        message: head.message,
    };
    let object = commit
        .encode()
        .map_err(|error| PublishError::Invalid(format!("commit: {error}")))?;
    let oid = object_oid(ObjectKind::Commit, &object);
    let entry = cairn_protocol::entry::CommitEntry {
        commit: oid,
        object: Blake3::of(&object),
        manifest: Some(head.root.1),
        parents: head.parents.iter().map(|tip| Some(tip.entry)).collect(),
    }
    .encode();
    let new = RefTarget {
        oid,
        entry: Blake3::of(&entry),
        tags: Vec::new(),
    };
    batch.put(object.into());
    batch.put(entry.into());
    let is_default = head.reference.as_str() == DEFAULT_REF;
    let moves = Moves {
        refs: vec![Move {
            reference: head.reference,
            new: Some(new),
        }],
        card: head
            .card
            .filter(|_| is_default || current.head.is_none())
            .map(|(card, text)| home::head_card(&card, text)),
        settings: None,
    };
    let (_, seq) = home::sign(node, publisher, target, current, moves, batch)?;
    Ok(Committed { commit: oid, seq })
}

/// What a tree's card says, and its hash.
pub(super) fn read_card(
    node: &Inner,
    repo: &Repo,
    root: &Blake3,
) -> Result<(Card, Option<Blake3>), PublishError> {
    let found = node.repos.reader().find(root, CARD)?;
    let Some((hash, size)) = found.and_then(|entry| Some((entry.blake3?, entry.size?))) else {
        return Ok((Card::default(), None));
    };
    if size > CARD_BYTES_MAX as u64 {
        return Ok((Card::default(), Some(hash)));
    }
    let (card, _) = card::parse(&node.store.blob(&hash)?, repo.kind());
    Ok((card, Some(hash)))
}

/// A commit message with the line feed that ends it; nothing where there is none.
pub(super) fn message(text: &str) -> Result<Option<String>, PublishError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    // With the line feed that ends it.
    if text.len() >= MESSAGE_BYTES_MAX || text.contains('\0') {
        return Err(PublishError::Invalid(format!(
            "the commit message must be shorter than {MESSAGE_BYTES_MAX} bytes and hold no NUL"
        )));
    }
    Ok(Some(format!("{text}\n")))
}

fn short(reference: &str) -> &str {
    reference
        .strip_prefix("refs/heads/")
        .or_else(|| reference.strip_prefix("refs/tags/"))
        .unwrap_or(reference)
}
