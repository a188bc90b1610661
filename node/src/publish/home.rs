//! The home's part: one head after another, each signed onto the one before.

use std::collections::BTreeMap;

use cairn_protocol::card::Card;
use cairn_protocol::hash::{Blake3, GitOid, RepositoryId};
use cairn_protocol::name::NamespaceName;
use cairn_protocol::record::{self, Body, Header, NamesTarget, Nonce, Record};
use cairn_protocol::refs::{RefTarget, Refs};

use super::{PublishError, Target};
use crate::journal::Entry as JournalEntry;
use crate::node::{Inner, now_s};
use crate::repos::RepoError;
use crate::store::{Batch, StoreError};

/// The branch that new ones begin at, and whose card is the repository's.
const DEFAULT_REF: &str = "refs/heads/main";

/// Where a repository and the pushed ref stand.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) repository: Option<RepositoryId>,
    pub(super) head: Option<HeadFacts>,
    pub(super) commit: Option<GitOid>,
    pub(super) root_manifest: Option<Blake3>,
    /// What the next commit goes onto, and its commit entry: the ref's, or the default branch's for a new ref.
    pub(super) base: Option<(GitOid, Blake3)>,
    /// Root manifest of that.
    pub(super) base_manifest: Option<Blake3>,
    refs: Refs,
}

#[derive(Debug, Clone)]
pub(super) struct HeadFacts {
    pub(super) seq: u64,
    body: record::Head,
}

/// What a push wants of the home.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) new: RefTarget,
    pub(super) card: Card,
    pub(super) card_text: Option<Blake3>,
}

pub(super) fn full_name(node: &Inner, target: &Target) -> String {
    format!("{}/{}", NamespaceName::Hash(node.namespace), target.name)
}

/// Reads where the repository and the ref stand now.
pub(super) fn current(node: &Inner, target: &Target) -> Result<Current, PublishError> {
    let found = node.repos.ledger(|ledger| {
        let Some(NamesTarget::Repository(id)) =
            ledger.name(&node.namespace, target.kind, &target.name.folded())
        else {
            return None;
        };
        let view = ledger.repository(id)?;
        let head = view.head.as_ref().map(|head| HeadFacts {
            seq: head.seq,
            body: head.to_body(),
        });
        Some((*id, head, view.frozen.is_some()))
    });
    let Some((repository, head, frozen)) = found else {
        return Ok(Current::default());
    };
    if frozen {
        return Err(PublishError::Frozen(full_name(node, target)));
    }
    let mut current = Current {
        repository: Some(repository),
        head,
        ..Current::default()
    };
    let reader = node.repos.reader();
    if let Some(head) = &current.head {
        current.refs = reader.refs(&head.body.refs)?;
    }
    let base = current
        .refs
        .0
        .get(&target.reference)
        .or_else(|| current.refs.0.get(DEFAULT_REF));
    if let Some(at) = base {
        let entry = reader.commit_entry(&at.entry)?;
        (current.base, current.base_manifest) = (Some((entry.commit, at.entry)), entry.manifest);
        if current.refs.0.contains_key(&target.reference) {
            (current.commit, current.root_manifest) = (Some(entry.commit), entry.manifest);
        }
    }
    Ok(current)
}

/// Signs the change and the head that takes it in, each durable before the next; returns the head's seq.
///
/// The caller holds the node's turn to publish, and `batch` has every blob that the change newly reaches.
pub(super) fn sign(
    node: &Inner,
    target: &Target,
    current: &Current,
    change: &Change,
    mut batch: Batch,
) -> Result<u64, PublishError> {
    let refs = current
        .refs
        .with_change(&target.reference, current.commit, Some(change.new.clone()))
        .map_err(|error| PublishError::Invalid(error.to_string()))?;
    let refs_hash = batch.put(refs.encode().into());

    let mut records = Vec::new();
    let (epoch, home) = (node.epoch(), &node.keys.node);
    let is_home = node.repos.ledger(|ledger| {
        ledger
            .namespace(&node.namespace)
            .is_some_and(|view| view.body.home == home.public())
    });
    if !is_home {
        return Err(PublishError::Invalid(
            "this node's key is not the home of its namespace: restore keys/node.key".to_owned(),
        ));
    }
    let repository = match current.repository {
        Some(repository) => repository,
        None => create(node, target, epoch, &mut records)?,
    };
    let signed_change = make(
        node,
        Header {
            repository: Some(repository),
            ..Header::new(epoch, now_s())
        },
        Body::Change(record::Change {
            reference: target.reference.to_string(),
            old: current.commit,
            new: Some(change.new.oid),
            entry: Some(change.new.entry),
            nonce: nonce()?,
        }),
        &node.keys.root,
    )?;
    let change_id = signed_change.id();
    records.push(signed_change);
    for record in &records {
        batch.record(record.envelope().to_vec());
    }
    batch.commit()?;
    for record in &records {
        node.repos.take(record);
    }
    node.published(&records);

    let next = node
        .repos
        .ledger(|ledger| ledger.repository(&repository).and_then(|view| view.next));
    let link = next.ok_or_else(|| PublishError::Frozen(full_name(node, target)))?;
    let seq = link.seq;
    let card = match (target.reference.to_string().as_str(), &current.head) {
        (DEFAULT_REF, _) | (_, None) => head_card(&change.card, change.card_text),
        (_, Some(head)) => head.body.card.clone(),
    };
    let head = make(
        node,
        Header {
            repository: Some(repository),
            chain: Some(link),
            ..Header::new(epoch, now_s())
        },
        Body::Head(record::Head {
            refs: refs_hash,
            changes: vec![change_id],
            card,
            settings: current
                .head
                .as_ref()
                .map_or_else(Default::default, |head| head.body.settings.clone()),
        }),
        home,
    )?;
    // The seq is spent once this returns: after a crash the next start takes this very head in.
    node.journal.append(JournalEntry::Signed {
        repository,
        epoch,
        seq,
        id: head.id(),
        envelope: head.envelope().to_vec(),
    })?;
    *unsettled(node) = Some(head);
    settle(node)?;
    Ok(seq)
}

/// Whether a head was signed that is not in the log.
pub(crate) fn is_unsettled(node: &Inner) -> bool {
    unsettled(node).is_some()
}

/// Takes in a head that was journaled and could not be written after that, as on a full disk.
///
/// Its seq is spent: signing another one for it would be equivocation. The caller holds the turn to publish.
pub(super) fn settle(node: &Inner) -> Result<(), PublishError> {
    let mut waiting = unsettled(node);
    if let Some(head) = &*waiting {
        take_head(node, head)?;
        node.published(std::slice::from_ref(head));
        *waiting = None;
    }
    Ok(())
}

fn unsettled(node: &Inner) -> std::sync::MutexGuard<'_, Option<Record>> {
    node.unsettled
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take_head(node: &Inner, head: &Record) -> Result<(), PublishError> {
    let mut batch = node.store.batch();
    batch.record(head.envelope().to_vec());
    batch.commit()?;
    let verdict = node.repos.take_own(head);
    if matches!(verdict, cairn_protocol::accept::Verdict::Accepted) {
        Ok(())
    } else {
        Err(PublishError::Repo(RepoError::Damaged(format!(
            "the head just signed was not accepted: {verdict:?}"
        ))))
    }
}

/// Takes in heads that were signed but had not reached the log when the process ended.
pub(crate) fn finish_signed(
    node: &Inner,
    signed: &BTreeMap<RepositoryId, Vec<u8>>,
) -> Result<(), PublishError> {
    for envelope in signed.values() {
        let head = Record::parse(envelope).map_err(|error| {
            PublishError::Repo(RepoError::Damaged(format!("a journaled head: {error}")))
        })?;
        // In the log already, whatever came of it since: peers may know newer ones, or another of its seq.
        let known = node.repos.ledger(|ledger| ledger.waits(&head).is_some());
        if !known {
            let id = head.id();
            tracing::info!(head = %id, "taking in a head that was signed before a crash");
            *unsettled(node) = Some(head);
            match settle(node) {
                // It is taken in by the next push, or the next start: readers need not wait for that.
                Err(PublishError::Store(error)) => {
                    tracing::warn!(%error, "the head could not be written yet");
                    return Ok(());
                }
                // It is in the log, and its seq is spent: no reason to keep the node from serving the rest.
                Err(error) => {
                    tracing::error!(head = %id, %error, "the head is not in force");
                    *unsettled(node) = None;
                }
                Ok(()) => {}
            }
        }
    }
    Ok(())
}

/// Makes the repository and names records of a new repository.
fn create(
    node: &Inner,
    target: &Target,
    epoch: u64,
    records: &mut Vec<Record>,
) -> Result<RepositoryId, PublishError> {
    let now = now_s();
    let repository = make(
        node,
        Header::new(epoch, now),
        Body::Repository(record::Repository {
            kind: target.kind,
            name: target.name.clone(),
            nonce: nonce()?,
            created_at: now,
        }),
        &node.keys.node,
    )?;
    let id = RepositoryId::from(repository.id());
    let folded = target.name.folded();
    let link = node
        .repos
        .ledger(|ledger| ledger.next_name(&node.namespace, target.kind, &folded))
        .ok_or_else(|| PublishError::Frozen(full_name(node, target)))?;
    let names = make(
        node,
        Header {
            chain: Some(link),
            ..Header::new(epoch, now)
        },
        Body::Names(record::Names {
            kind: target.kind,
            name: folded,
            target: Some(NamesTarget::Repository(id)),
        }),
        &node.keys.node,
    )?;
    records.extend([repository, names]);
    Ok(id)
}

fn make(
    node: &Inner,
    header: Header,
    body: Body,
    key: &cairn_protocol::key::SecretKey,
) -> Result<Record, PublishError> {
    Record::sign(
        Header {
            namespace: Some(node.namespace),
            ..header
        },
        body,
        &[key],
    )
    .map_err(|error| PublishError::Invalid(format!("record: {error}")))
}

fn nonce() -> Result<Nonce, PublishError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| {
        PublishError::Store(StoreError::Io {
            operation: "draw randomness from",
            path: "getrandom".into(),
            source: std::io::Error::other(error.to_string()),
        })
    })?;
    Ok(Nonce::from_bytes(nonce))
}

fn head_card(card: &Card, text: Option<Blake3>) -> record::Card {
    let tokens = card.head_tokens();
    record::Card {
        text,
        license: tokens.license,
        library_name: tokens.library_name,
        pipeline_tag: tokens.pipeline_tag,
        tags: tokens.tags,
    }
}
