//! The home's part: one head after another, each signed onto the one before.

use std::collections::BTreeMap;

use cairn_protocol::card::Card;
use cairn_protocol::hash::{Blake3, GitOid, NamespaceId, RepositoryId};
use cairn_protocol::json::Object;
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};
use cairn_protocol::record::{self, Body, Header, NamesTarget, Nonce, Record};
use cairn_protocol::refs::{RefName, RefTarget, Refs};

use super::lifecycle::DELETED;
use super::{PublishError, Publisher};
use crate::accounts;
use crate::journal::Entry as JournalEntry;
use crate::node::{Inner, now_s};
use crate::repos::{RepoError, moved_key};
use crate::store::{Batch, StoreError};

/// The branch that new ones begin at, and whose card is the repository's.
pub(super) const DEFAULT_REF: &str = "refs/heads/main";
/// Changes that one head takes in, so that it stays within its bytes; further ones need another head.
pub(super) const CHANGES_MAX: usize = 16;

/// A repository that is there, or is to be made.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) namespace: NamespaceId,
    pub(super) kind: RepoKind,
    pub(super) name: RepoName,
}

/// Where a repository stands.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) repository: Option<RepositoryId>,
    pub(super) head: Option<HeadFacts>,
    pub(super) refs: Refs,
}

/// Where one ref stands.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    /// The commit that it leads to.
    pub(super) commit: GitOid,
    /// Its commit entry.
    pub(super) entry: Blake3,
    /// Its root manifest.
    pub(super) manifest: Option<Blake3>,
}

#[derive(Debug, Clone)]
pub(super) struct HeadFacts {
    pub(super) seq: u64,
    body: record::Head,
}

/// What a publisher wants of the home: refs moved together, in one head.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) refs: Vec<Move>,
    /// The card that the head shows from now on; as before where absent.
    pub(super) card: Option<record::Card>,
    /// What peers must honour from now on; as before where absent.
    pub(super) settings: Option<Object>,
}

/// One ref, and where it goes; nowhere where it is deleted.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) reference: RefName,
    pub(super) new: Option<RefTarget>,
}

impl Target {
    /// The same name in both namespaces of its account: on this node they go by one name.
    pub(super) fn on_this_node(&self, node: &Inner) -> Vec<Self> {
        let namespaces = match node.accounts.by_namespace(&self.namespace) {
            Some(account) => [Some(account.namespace), account.private],
            None => [Some(self.namespace), None],
        };
        let namespaces = namespaces.into_iter().flatten();
        namespaces
            .map(|namespace| Self {
                namespace,
                ..self.clone()
            })
            .collect()
    }

    /// What the journal calls its name.
    pub(super) fn key(&self) -> String {
        moved_key(&self.namespace, self.kind, &self.name)
    }

    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", NamespaceName::Hash(self.namespace), self.name)
    }
}

impl Current {
    /// What peers must honour of it now.
    pub(super) fn settings(&self) -> Object {
        let head = self.head.as_ref();
        head.map_or_else(Object::default, |head| head.body.settings.clone())
    }

    /// The card that its head shows.
    pub(super) fn shown_card(&self) -> Option<record::Card> {
        self.head.as_ref().map(|head| head.body.card.clone())
    }

    /// Where a ref stands, if it is there.
    pub(super) fn tip(
        &self,
        node: &Inner,
        reference: &RefName,
    ) -> Result<Option<Tip>, PublishError> {
        let Some(target) = self.refs.0.get(reference) else {
            return Ok(None);
        };
        let entry = node.repos.reader().commit_entry(&target.entry)?;
        Ok(Some(Tip {
            commit: entry.commit,
            entry: target.entry,
            manifest: entry.manifest,
        }))
    }

    /// What the next commit of a ref goes onto: the ref's own, or the default branch's for a new ref.
    pub(super) fn base(
        &self,
        node: &Inner,
        reference: &RefName,
    ) -> Result<Option<Tip>, PublishError> {
        if let Some(tip) = self.tip(node, reference)? {
            return Ok(Some(tip));
        }
        self.tip(node, &default_ref())
    }
}

pub(super) fn default_ref() -> RefName {
    DEFAULT_REF.parse().expect("invariant: a valid ref name")
}

/// Reads where a repository stands now.
pub(super) fn current(node: &Inner, target: &Target) -> Result<Current, PublishError> {
    let found = node.repos.ledger(|ledger| {
        let Some(NamesTarget::Repository(id)) =
            ledger.name(&target.namespace, target.kind, &target.name.folded())
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
        return Err(PublishError::Frozen(target.full_name()));
    }
    let mut current = Current {
        repository: Some(repository),
        head,
        ..Current::default()
    };
    if let Some(head) = &current.head {
        current.refs = node.repos.reader().refs(&head.body.refs)?;
    }
    Ok(current)
}

/// Signs the changes and the head that takes them in, each durable before the next; returns the repository
/// and the head's seq. A repository that is not there yet is made.
///
/// The caller holds the node's turn to publish, and `batch` has every blob that the changes newly reach.
pub(super) fn sign(
    node: &Inner,
    publisher: &Publisher,
    target: &Target,
    current: &Current,
    wanted: Moves,
    mut batch: Batch,
) -> Result<(RepositoryId, u64), PublishError> {
    let invalid = |error: &dyn std::fmt::Display| PublishError::Invalid(error.to_string());
    let mut refs = current.refs.clone();
    for step in &wanted.refs {
        let old = refs.0.get(&step.reference).map(|target| target.oid);
        refs = refs
            .with_change(&step.reference, old, step.new.clone())
            .map_err(|error| invalid(&error))?;
    }
    let refs_hash = batch.put(refs.encode().into());

    let mut records = Vec::new();
    let (epoch, home) = (node.epoch(&target.namespace), &node.keys.node);
    must_be_home(node, target)?;
    let repository = match current.repository {
        Some(repository) => repository,
        None => create(node, target, epoch, &mut records)?,
    };
    let entitling = accounts::entitle(node, &target.namespace, publisher, &repository)?;
    records.extend(entitling);
    let mut changes = Vec::new();
    for step in &wanted.refs {
        let old = current.refs.0.get(&step.reference);
        let change = make(
            target.namespace,
            Header {
                repository: Some(repository),
                ..Header::new(epoch, now_s())
            },
            Body::Change(record::Change {
                reference: step.reference.to_string(),
                old: old.map(|target| target.oid),
                new: step.new.as_ref().map(|target| target.oid),
                entry: step.new.as_ref().map(|target| target.entry),
                nonce: nonce()?,
            }),
            &publisher.key,
        )?;
        changes.push(change.id());
        records.push(change);
    }
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
    let link = next.ok_or_else(|| PublishError::Frozen(target.full_name()))?;
    let seq = link.seq;
    let before = current.head.as_ref().map(|head| &head.body);
    let settings = match (wanted.settings, before) {
        (Some(settings), _) => settings,
        (None, Some(before)) => before.settings.clone(),
        (None, None) => Object::default(),
    };
    let is_shown = settings.get(DELETED).is_none();
    let head = make(
        target.namespace,
        Header {
            repository: Some(repository),
            chain: Some(link),
            ..Header::new(epoch, now_s())
        },
        Body::Head(record::Head {
            refs: refs_hash,
            changes,
            card: match (wanted.card, before) {
                (Some(card), _) => card,
                (None, Some(before)) => before.card.clone(),
                (None, None) => head_card(&Card::default(), None),
            },
            settings,
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
    if is_shown {
        taken(node, target);
    }
    Ok((repository, seq))
}

/// Refuses where another node's key orders the heads of the namespace, or this one may not know all of them.
pub(super) fn must_be_home(node: &Inner, target: &Target) -> Result<(), PublishError> {
    if node.guard.restored().is_some() {
        return Err(PublishError::Restored);
    }
    if node.is_home(&target.namespace) {
        return Ok(());
    }
    if target.namespace == node.namespace {
        return Err(PublishError::Invalid(
            "this node's key is not the home of its namespace: restore keys/node.key".to_owned(),
        ));
    }
    Err(PublishError::Elsewhere(target.full_name()))
}

/// Says what a name leads to from now on: a repository, another name, or nothing. The caller holds the turn.
pub(super) fn rename(
    node: &Inner,
    target: &Target,
    leads_to: Option<NamesTarget>,
) -> Result<Record, PublishError> {
    let folded = target.name.folded();
    let link = node
        .repos
        .ledger(|ledger| ledger.next_name(&target.namespace, target.kind, &folded))
        .ok_or_else(|| PublishError::Frozen(target.full_name()))?;
    make(
        target.namespace,
        Header {
            chain: Some(link),
            ..Header::new(node.epoch(&target.namespace), now_s())
        },
        Body::Names(record::Names {
            kind: target.kind,
            name: folded,
            target: leads_to,
        }),
        &node.keys.node,
    )
}

/// A name leads nowhere else any more, since a repository has it that readers see.
///
/// Not before that: what comes in between is no reason for the name to lead nowhere. Until the journal could say
/// it, the name's own repository goes before what it led to.
pub(super) fn taken(node: &Inner, target: &Target) {
    for old in target.on_this_node(node) {
        if node.repos.leads_away(&old.key()).0
            && let Err(error) = lead_away(node, &old, None)
        {
            tracing::warn!(%error, name = %old.full_name(), "where the name led is not forgotten yet");
        }
    }
}

/// Says what a name leads to on this node from which a repository goes to another account's namespace; nothing
/// where another one takes it. The caller holds the turn.
pub(super) fn lead_away(
    node: &Inner,
    old: &Target,
    new: Option<&Target>,
) -> Result<(), PublishError> {
    let leads_to = new.map(|new| {
        // By the plain name it is found in either namespace of the account.
        let account = node.accounts.by_namespace(&new.namespace);
        account.map_or_else(
            || new.full_name(),
            |account| format!("{}/{}", account.name, new.name),
        )
    });
    node.journal.append(JournalEntry::Alias {
        name: old.key(),
        target: leads_to.clone(),
    })?;
    node.repos.lead_away([(old.key(), leads_to)]);
    Ok(())
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
        target.namespace,
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
    let names = rename(node, target, Some(NamesTarget::Repository(id)))?;
    records.extend([repository, names]);
    Ok(id)
}

pub(crate) fn make(
    namespace: NamespaceId,
    header: Header,
    body: Body,
    key: &cairn_protocol::key::SecretKey,
) -> Result<Record, PublishError> {
    Record::sign(
        Header {
            namespace: Some(namespace),
            ..header
        },
        body,
        &[key],
    )
    .map_err(|error| PublishError::Invalid(format!("record: {error}")))
}

fn nonce() -> Result<Nonce, PublishError> {
    Ok(Nonce::from_bytes(random()?))
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Io {
        operation: "draw randomness from",
        path: "getrandom".into(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

pub(super) fn head_card(card: &Card, text: Option<Blake3>) -> record::Card {
    let tokens = card.head_tokens();
    record::Card {
        text,
        license: tokens.license,
        library_name: tokens.library_name,
        pipeline_tag: tokens.pipeline_tag,
        tags: tokens.tags,
    }
}
