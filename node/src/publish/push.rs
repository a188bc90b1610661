//! Publishing a folder: it becomes contents, trees, a commit, a signed change, a head.

use std::path::PathBuf;
use std::time::Instant;

use cairn_protocol::hash::GitOid;
use cairn_protocol::name::{RepoKind, RepoName};
use cairn_protocol::refs::RefName;
use serde::Serialize;

use super::commit::{NewHead, finish, message};
use super::home::{self, Target};
use super::{PublishError, contents, operator, tree, turn, walk};
use crate::control::Progress;
use crate::node::Inner;

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

/// Publishes a folder; returns when the head is durable, signed, and seen by the next read.
pub(crate) fn push(
    node: &Inner,
    request: &PushRequest,
    progress: &mut dyn FnMut(Progress),
) -> Result<Pushed, PublishError> {
    let started = Instant::now();
    let (target, reference) = check(node, request)?;
    let publisher = operator(node, &target.namespace)?;
    let given = request
        .message
        .as_deref()
        .map(message)
        .transpose()?
        .flatten();
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
    super::settle(node)?;
    let before = home::current(node, &target)?.base(node, &reference)?;
    let base_manifest = before.as_ref().and_then(|tip| tip.manifest);
    let contents = contents::import(node, target.kind, &files, base_manifest, progress)?;
    if let Some(path) = walk::difference(&files, &walk::walk(&request.dir)?) {
        return Err(PublishError::Changed {
            path: request.dir.join(path.as_str()),
        });
    }
    let mut batch = node.store.batch();
    let mut edits = tree::Edits::default();
    let (mut number, mut bytes) = (0, 0);
    for (path, stored) in contents.files {
        (number, bytes) = (number + 1, bytes + stored.size);
        edits.put(&path, stored);
    }
    let reader = node.repos.reader();
    let root = tree::write(&node.store, reader, &mut batch, None, &edits)?;

    // From here on no other push may move a head: the commit's parent is the head it is signed onto.
    let _turn = turn(node);
    home::settle(node)?;
    let current = home::current(node, &target)?;
    let tip = current.tip(node, &reference)?;
    let is_new_ref = tip.is_none();
    let base = current.base(node, &reference)?;
    let commit_of = |tip: &Option<home::Tip>| tip.as_ref().map(|tip| tip.commit);
    if commit_of(&base) != commit_of(&before) {
        return Err(PublishError::Conflict(reference.to_string()));
    }
    let mut pushed = Pushed {
        repo: target.full_name(),
        kind: target.kind,
        commit: commit_of(&tip).unwrap_or(GitOid::from_bytes([0; 20])),
        reference: reference.to_string(),
        files: number,
        bytes,
        new_bytes: contents.new_bytes,
        reused_files: contents.reused_files,
        hashed_bytes: contents.hashed_bytes,
        seconds: 0.0,
        signer: node.keys.node.public().to_string(),
        publisher: publisher.key.public().to_string(),
        seq: current.head.as_ref().map_or(0, |head| head.seq),
        unchanged: true,
        warnings: contents.warnings,
    };
    if !is_new_ref && tip.and_then(|tip| tip.manifest) == Some(root.1) {
        // Trees and contents that had been found damaged may be whole again.
        batch.commit()?;
        node.repos.bump();
    } else {
        let head = NewHead {
            reference,
            root,
            parents: base.into_iter().collect(),
            message: given.unwrap_or_else(|| default_message(number)),
            card: Some((contents.card, contents.card_text)),
        };
        let made = finish(node, &publisher, &target, &current, head, batch)?;
        pushed.seq = made.seq;
        pushed.commit = made.commit;
        pushed.unchanged = false;
    }
    pushed.seconds = started.elapsed().as_secs_f64();
    Ok(pushed)
}

/// Where a push goes: a repository of this node's own namespace, or of an account's.
fn check(node: &Inner, request: &PushRequest) -> Result<(Target, RefName), PublishError> {
    let invalid = |error: &dyn std::fmt::Display| PublishError::Invalid(error.to_string());
    let (namespace, name) = match request.repo.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, request.repo.as_str()),
    };
    let name: RepoName = name.parse().map_err(|error| invalid(&error))?;
    let namespace = match namespace {
        Some(text) => {
            let parsed = text.parse().map_err(|error| invalid(&error))?;
            let foreign =
                || PublishError::Foreign(text.to_owned(), node.config.namespace_alias.clone());
            node.own_namespace(&parsed, request.kind, &name)
                .ok_or_else(foreign)?
        }
        None => node.namespace,
    };
    let target = Target {
        namespace,
        kind: request.kind,
        name,
    };
    let full = if request.reference.starts_with("refs/") {
        request.reference.clone()
    } else {
        format!("refs/heads/{}", request.reference)
    };
    Ok((target, super::new_reference(&full)?))
}

fn default_message(files: u64) -> String {
    format!("Push {files} file{}\n", if files == 1 { "" } else { "s" })
}
