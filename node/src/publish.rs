//! Publishing: a folder, or edits of a commit, become a commit, a signed change, and a head that its home
//! signed.
//!
//! The order on disk: contents, fsynced; then one log batch with objects, manifests, commit entry, refs
//! blob and the records the head rests on; then the journal's "seq n = id"; then the head; then memory; then
//! the answer. Whatever kills the process in between leaves blobs that nothing names, or a head in the
//! journal that the next start takes in.

mod commit;
mod contents;
mod home;
mod lifecycle;
mod push;
mod tracking;
mod tree;
mod walk;

use std::path::{Path, PathBuf};

use cairn_protocol::git::Signature;
use cairn_protocol::hash::{NamespaceId, Sha256};
use cairn_protocol::key::SecretKey;
use cairn_protocol::path::PathError;
use cairn_protocol::refs::RefName;

use crate::node::Inner;
use crate::repos::RepoError;
use crate::store::StoreError;

pub use self::commit::{Committed, Contents, Draft, Edit};
pub use self::lifecycle::{NewRepository, RefMove};
pub use self::push::{PushRequest, Pushed};
pub use self::tree::Stored;

pub(crate) use self::commit::commit;
pub(crate) use self::home::{finish_signed, is_unsettled, make, random};
pub(crate) use self::lifecycle::{
    DELETED, NAME, create, delete, duplicate, finish_moves, move_ref, rename, squash, transplant,
};
pub(crate) use self::push::push;

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
    /// The ref is not where the publisher saw it.
    #[error("The branch was updated since you opened this page. Please refresh and try again.")]
    Moved,
    /// What is to be changed or deleted is not there.
    #[error("A file with this name doesn't exist: {path}")]
    Missing {
        /// Its path in the repository.
        path: String,
    },
    /// A content that nobody sent, or that the publisher may not read.
    #[error("{path}: its content {sha256} was not uploaded")]
    NotUploaded {
        /// Its path in the repository.
        path: String,
        /// Its SHA-256.
        sha256: Sha256,
    },
    /// Something of that name is there already.
    #[error("{0} already exists")]
    Exists(String),
    /// A branch or tag that is not there.
    #[error("Invalid rev id: {0}")]
    NoRevision(String),
    /// Only the repository's home can change it, which is another node.
    #[error("{0} has its home on another node: publish there")]
    Elsewhere(String),
    /// This home was restored from a backup, and may have signed more since than it knows.
    #[error(
        "this node was restored from a backup and has met no peer since that could know of newer commits: nothing is signed until it has"
    )]
    Restored,
    /// The repository is frozen: its home signed two heads of one seq.
    #[error("repository {0} is frozen: two heads of one seq were signed")]
    Frozen(String),
    /// The keys of the account that publishes could not be read.
    #[error("the publisher's keys")]
    Keys(#[source] Box<crate::SpawnError>),
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

/// Who publishes: signs the changes, and stands in the commits.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Signs the changes.
    pub(crate) key: SecretKey,
    /// Author and committer.
    pub(crate) author: Signature,
    /// Namespaces in which the key may publish everything.
    pub(crate) owns: Vec<NamespaceId>,
}

/// The operator, who publishes in this node's own namespace with its root, and in an account's as it.
pub(crate) fn operator(node: &Inner, namespace: &NamespaceId) -> Result<Publisher, PublishError> {
    let author = author(node)?;
    match node.accounts.by_namespace(namespace) {
        Some(account) => Ok(Publisher {
            author,
            ..node.publisher(&account)?
        }),
        None => Ok(Publisher {
            key: SecretKey::from_seed(node.keys.root.seed()),
            author,
            owns: vec![node.namespace],
        }),
    }
}

/// A ref that may be made.
///
/// Whoever asks for a commit by its id must get that commit, not a branch of that name.
fn new_reference(full: &str) -> Result<RefName, PublishError> {
    let short = full.rsplit('/').next().unwrap_or_default();
    if short.len() == 40 && short.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(PublishError::Invalid(format!(
            "ref {full:?} is named like a commit id: choose another name"
        )));
    }
    full.parse()
        .map_err(|error: cairn_protocol::refs::RefNameError| {
            PublishError::Invalid(error.to_string())
        })
}

/// Takes in a head that was signed and could not be written, before anything else rests on its ref.
pub(crate) fn settle(node: &Inner) -> Result<(), PublishError> {
    // First: who holds the store for itself asks what is unsettled, which is held below.
    let _lease = node.store.lease();
    let _turn = turn(node);
    home::settle(node)
}

/// The turn to move a head.
pub(crate) fn turn(node: &Inner) -> std::sync::MutexGuard<'_, ()> {
    node.publishing
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
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
