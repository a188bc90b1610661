//! What the command line asks of a node, over its socket or in its own process: one enum, one function.

pub mod socket;

use std::path::PathBuf;

use cairn_protocol::name::RepoKind;
use serde::{Deserialize, Serialize};

use crate::node::Node;

/// A request of the command line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verb", deny_unknown_fields)]
pub enum Request {
    /// Who and where the node is, and what it holds.
    Status,
    /// Publishes a folder.
    Push {
        /// Folder, absolute.
        dir: PathBuf,
        /// `name` or `namespace/name`.
        repo: String,
        /// What it holds.
        kind: RepoKind,
        /// Branch name or full ref.
        reference: String,
        /// Commit message; a default names the number of files.
        message: Option<String>,
    },
    /// Lists repositories.
    Ls {
        /// Of one kind only.
        kind: Option<RepoKind>,
    },
    /// Shows one repository.
    Info {
        /// `namespace/name`, `datasets/namespace/name`, or an alias.
        repo: String,
    },
    /// Re-hashes and re-verifies one repository or everything.
    Verify {
        /// All where absent.
        repo: Option<String>,
    },
    /// Keeps a repository's content whatever `gc` does.
    Pin {
        /// The repository.
        repo: String,
    },
    /// Undoes a pin.
    Unpin {
        /// The repository.
        repo: String,
    },
    /// Frees what nothing pins or names.
    Gc {
        /// Only says what would be freed.
        dry_run: bool,
    },
    /// Checks the data folder, and with `rebuild` makes every view anew.
    Doctor {
        /// Make the views anew.
        rebuild: bool,
    },
    /// Shows the public keys.
    Keys,
}

/// What a long request tells while it runs.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Progress {
    /// What is being done: `hashing model.safetensors`.
    pub what: String,
    /// Bytes (or items) done.
    pub done: u64,
    /// Of how many, 0 where unknown.
    pub total: u64,
}

/// A failure as the command line shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, outermost first.
    pub error: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

/// Does what is asked; the answer is what `--json` prints.
///
/// # Errors
/// Whatever the request meets, already put into words.
pub fn execute(
    _node: &Node,
    _request: Request,
    _progress: &mut dyn FnMut(Progress),
) -> Result<serde_json::Value, Failure> {
    todo!()
}
