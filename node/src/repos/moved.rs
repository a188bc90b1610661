//! Names from which repositories went to another account's namespace, and what they lead to on this node.
//!
//! Signed names lead only within their namespace: these are local state, told by the journal.

use cairn_protocol::hash::NamespaceId;
use cairn_protocol::name::{NamespaceName, RepoKind, RepoName};

/// What the journal calls a name.
pub(crate) fn key(namespace: &NamespaceId, kind: RepoKind, name: &RepoName) -> String {
    let (kind, namespace) = (kind.plural(), NamespaceName::Hash(*namespace));
    format!("{kind}/{namespace}/{}", name.folded())
}
