//! Publishing: a folder becomes a commit, a signed change, and a head that its home signed.
//!
//! The order on disk: contents, fsynced; then one log batch with objects, manifests, commit entry, refs
//! blob and the records the head rests on; then the journal's "seq n = id"; then the head; then memory; then
//! the answer. Whatever kills the process in between leaves blobs that nothing names, or a head in the
//! journal that the next start takes in.

mod contents;
mod home;
mod tree;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Instant;

use cairn_protocol::git::{NewCommit, ObjectKind, Signature, object_oid};
use cairn_protocol::hash::{Blake3, GitOid};
use cairn_protocol::limits::MESSAGE_BYTES_MAX;
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};
use cairn_protocol::path::PathError;
use cairn_protocol::refs::{RefName, RefTarget};
use serde::Serialize;

use crate::control::Progress;
use crate::node::Inner;
use crate::repos::RepoError;
use crate::store::StoreError;

pub(crate) use self::home::{finish_signed, is_unsettled};

/// What to publish, and where.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// Folder whose files become the commit's tree.
    pub dir: PathBuf,
    /// `name` or `namespace/name`.
    pub repo: String,
    /// What it holds.
    pub kind: RepoKind,
    /// Branch name or full ref.
    pub reference: String,
    /// Commit message; a default names the number of files.
    pub message: Option<String>,
}

/// What a push made.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// `namespace/name`.
    pub repo: String,
    /// What it holds.
    pub kind: RepoKind,
    /// Commit id.
    pub commit: GitOid,
    /// Full ref name.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Files of the commit.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Bytes that this node did not hold before.
    pub new_bytes: u64,
    /// Files not read again, since nothing about them changed.
    pub reused_files: u64,
    /// Bytes read and hashed.
    pub hashed_bytes: u64,
    /// Time from request to durable head.
    pub seconds: f64,
    /// Key that signed the head.
    pub signer: String,
    /// Key that signed the change.
    pub publisher: String,
    /// Seq of the head.
    pub seq: u64,
    /// The folder held what the ref already held: no commit was made.
    pub unchanged: bool,
    /// What the publisher should know, such as a malformed card.
    pub warnings: Vec<String>,
}

/// Why a folder was not published. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A path that git or the hub forbids.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Something in the folder that can't be published.
    #[error("{path:?} can't be published: {reason}")]
    Refused {
        /// Its path in the folder.
        path: String,
        /// Why.
        reason: String,
    },
    /// A file of the folder could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file changed while it was published.
    #[error("{path} changed while it was published: push again when nothing writes to the folder")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The request itself is not valid.
    #[error("{0}")]
    Invalid(String),
    /// The namespace is not this node's.
    #[error("namespace {0} is not this node's: publish under {1}")]
    Foreign(String, String),
    /// Somebody else moved the ref meanwhile.
    #[error("{0} moved while this was published: push again")]
    Conflict(String),
    /// The repository is frozen: its home signed two heads of one seq.
    #[error("repository {0} is frozen: two heads of one seq were signed")]
    Frozen(String),
    /// The repository could not be read.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PublishError {
    fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }
}

/// Name and ref of a push, checked.
struct Target {
    name: RepoName,
    kind: RepoKind,
    reference: RefName,
}

/// Publishes a folder; returns when the head is durable, signed, and seen by the next read.
pub(crate) fn push(
    node: &Inner,
    request: &PushRequest,
    progress: &mut dyn FnMut(Progress),
) -> Result<Pushed, PublishError> {
    let started = Instant::now();
    let target = check(node, request)?;
    let author = author(node)?;
    let message = message(request)?;
    // Held to the end, so that no sweep takes contents that no head names yet.
    let _lease = node.store.lease();
    let _whole = node.cache.pushing();
    let files = walk::walk(&request.dir)?;
    walk::settled(&files);
    if files.is_empty() {
        return Err(PublishError::Invalid(format!(
            "{} holds no files to publish",
            request.dir.display()
        )));
    }
    settle(node)?;
    let before = home::current(node, &target)?;
    let contents = contents::import(node, target.kind, &files, before.base_manifest, progress)?;
    if let Some(path) = walk::difference(&files, &walk::walk(&request.dir)?) {
        return Err(PublishError::Changed {
            path: request.dir.join(path.as_str()),
        });
    }
    let mut batch = node.store.batch();
    let (root, root_manifest) = tree::write(&node.store, &mut batch, &contents.files)?;

    // From here on no other push may move a head: the commit's parent is the head it is signed onto.
    let _turn = turn(node);
    home::settle(node)?;
    let current = home::current(node, &target)?;
    if current.commit != before.commit {
        return Err(PublishError::Conflict(target.reference.to_string()));
    }
    let (number, bytes) = contents
        .files
        .values()
        .fold((0, 0), |(n, b), f| (n + 1, b + f.size));
    let mut pushed = Pushed {
        repo: home::full_name(node, &target),
        kind: target.kind,
        commit: current.commit.unwrap_or(GitOid::from_bytes([0; 20])),
        reference: target.reference.to_string(),
        files: number,
        bytes,
        new_bytes: contents.new_bytes,
        reused_files: contents.reused_files,
        hashed_bytes: contents.hashed_bytes,
        seconds: 0.0,
        signer: node.keys.node.public().to_string(),
        publisher: node.keys.root.public().to_string(),
        seq: current.head.as_ref().map_or(0, |head| head.seq),
        unchanged: true,
        warnings: contents.warnings,
    };
    if current.root_manifest == Some(root_manifest) {
        // Trees and contents that had been found damaged may be whole again.
        batch.commit()?;
        node.repos.bump();
    } else {
        let commit = NewCommit {
            tree: root,
            parents: current.base.iter().map(|(commit, _)| *commit).collect(),
            author: author.clone(),
            committer: author,
            message: message.unwrap_or_else(|| default_message(number)),
        };
        let object = commit
            .encode()
            .map_err(|error| PublishError::Invalid(format!("commit: {error}")))?;
        let oid = object_oid(ObjectKind::Commit, &object);
        let entry = cairn_protocol::entry::CommitEntry {
            commit: oid,
            object: Blake3::of(&object),
            manifest: Some(root_manifest),
            parents: current.base.iter().map(|(_, entry)| Some(*entry)).collect(),
        }
        .encode();
        let entry_hash = Blake3::of(&entry);
        batch.put(object.into());
        batch.put(entry.into());
        let change = home::Change {
            new: RefTarget {
                oid,
                entry: entry_hash,
                tags: Vec::new(),
            },
            card: contents.card,
            card_text: contents.card_text,
        };
        pushed.seq = home::sign(node, &target, &current, &change, batch)?;
        pushed.commit = oid;
        pushed.unchanged = false;
    }
    pushed.seconds = started.elapsed().as_secs_f64();
    Ok(pushed)
}

/// Takes in a head that was signed and could not be written, before anything else rests on its ref.
pub(crate) fn settle(node: &Inner) -> Result<(), PublishError> {
    // First: who holds the store for itself asks what is unsettled, which is held below.
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)
}

/// The turn to move a head.
fn turn(node: &Inner) -> std::sync::MutexGuard<'_, ()> {
    node.publishing
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn check(node: &Inner, request: &PushRequest) -> Result<Target, PublishError> {
    let invalid = |error: &dyn std::fmt::Display| PublishError::Invalid(error.to_string());
    let (namespace, name) = match request.repo.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, request.repo.as_str()),
    };
    if let Some(namespace) = namespace {
        let parsed: NamespaceName = namespace.parse().map_err(|error| invalid(&error))?;
        let own = match &parsed {
            NamespaceName::Hash(id) => *id == node.namespace,
            NamespaceName::Plain(plain) => plain.eq_ignore_ascii_case(&node.config.namespace_alias),
            NamespaceName::Domain(_) => false,
        };
        if !own {
            return Err(PublishError::Foreign(
                namespace.to_owned(),
                node.config.namespace_alias.clone(),
            ));
        }
    }
    // Whoever asks for a commit by its id must get that commit, not a branch of that name.
    let short = request.reference.rsplit('/').next().unwrap_or_default();
    if short.len() == 40 && short.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(PublishError::Invalid(format!(
            "ref {:?} is named like a commit id: choose another name",
            request.reference
        )));
    }
    let full = if request.reference.starts_with("refs/") {
        request.reference.clone()
    } else {
        format!("refs/heads/{}", request.reference)
    };
    Ok(Target {
        name: name.parse().map_err(|error| invalid(&error))?,
        kind: request.kind,
        reference: full.parse().map_err(|error| invalid(&error))?,
    })
}

fn message(request: &PushRequest) -> Result<Option<String>, PublishError> {
    let Some(text) = request
        .message
        .as_deref()
        .map(str::trim)
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    // With the line feed that ends it.
    if text.len() >= MESSAGE_BYTES_MAX || text.contains('\0') {
        return Err(PublishError::Invalid(format!(
            "the commit message must be shorter than {MESSAGE_BYTES_MAX} bytes and hold no NUL"
        )));
    }
    Ok(Some(format!("{text}\n")))
}

fn default_message(files: u64) -> String {
    format!("Push {files} file{}\n", if files == 1 { "" } else { "s" })
}

fn author(node: &Inner) -> Result<Signature, PublishError> {
    let name = node
        .config
        .author_name
        .clone()
        .unwrap_or_else(|| "cairn".to_owned());
    let email = node
        .config
        .author_email
        .clone()
        .unwrap_or_else(|| "noreply@cairn.invalid".to_owned());
    let is_bad = |text: &str| {
        text.trim().is_empty()
            || text
                .chars()
                .any(|c| c.is_control() || matches!(c, '<' | '>'))
    };
    if is_bad(&name) || is_bad(&email) {
        return Err(PublishError::Invalid(
            "author_name and author_email must not be empty, nor hold < > or control characters"
                .to_owned(),
        ));
    }
    Ok(Signature {
        name,
        email,
        time_s: crate::node::now_s(),
    })
}
