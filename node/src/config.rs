//! What a node is told at start.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of a node, already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder that holds everything the node keeps.
    pub data: PathBuf,
    /// Bare one-segment ids of older code, and other short names: `gpt2` → `namespace/name`.
    pub aliases: BTreeMap<String, String>,
    /// Local name of this node's own namespace, so that `push DIR mymodel` and `local/mymodel` work.
    pub namespace_alias: String,
    /// Name written as the author of commits made here.
    pub author_name: Option<String>,
    /// Mail address written as the author's of commits made here.
    pub author_email: Option<String>,
    /// Bytes of memory that sled may use as its cache (its process-wide use is several times that).
    pub view_cache_bytes: u64,
}

impl Config {
    /// Defaults for a data folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            aliases: BTreeMap::new(),
            namespace_alias: "local".to_owned(),
            author_name: None,
            author_email: None,
            view_cache_bytes: 16 << 20,
        }
    }
}
