//! The node's own keys: files of mode 0600 in `keys/`, made at the first start.
//!
//! A key file is one line, `ed25519-seed:` and 64 hex digits. It is not sealed: whoever reads the file has
//! the key, which `cairn key show` says.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use cairn_protocol::key::SecretKey;
use data_encoding::HEXLOWER;

use crate::SpawnError;
use crate::folder::write_durably;

const PREFIX: &str = "ed25519-seed:";

/// The two keys that every node has.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Transport identity and home signatures.
    pub(crate) node: SecretKey,
    /// Root of the node's own namespace, and the publisher in it.
    pub(crate) root: SecretKey,
    /// libp2p peer id of the node key.
    pub(crate) peer_id: String,
}

impl Keys {
    /// Reads the keys; makes those that are not there only at a folder's first start, since a key made in
    /// place of a lost one would be another node.
    pub(crate) fn open(folder: &Path, first_start: bool) -> Result<Self, SpawnError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| SpawnError::Key {
                path: folder.to_owned(),
                reason: format!("cannot be made: {error}"),
            })?;
        let node_seed = read_or_make(&folder.join("node.key"), first_start)?;
        let root_seed = read_or_make(&folder.join("root.key"), first_start)?;
        let peer_id = libp2p_identity::Keypair::ed25519_from_bytes(node_seed)
            .expect("invariant: every 32 bytes are an Ed25519 seed")
            .public()
            .to_peer_id()
            .to_string();
        Ok(Self {
            node: SecretKey::from_seed(node_seed),
            root: SecretKey::from_seed(root_seed),
            peer_id,
        })
    }
}

fn read_or_make(path: &Path, may_make: bool) -> Result<[u8; 32], SpawnError> {
    let refuse = |reason: String| SpawnError::Key {
        path: path.to_owned(),
        reason,
    };
    if may_make && !path.exists() {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| refuse(format!("no randomness from the system: {error}")))?;
        write_durably(
            path,
            format!("{PREFIX}{}\n", HEXLOWER.encode(&seed)).as_bytes(),
            0o600,
        )?;
        return Ok(seed);
    }
    read_guarded(path)
        .map_err(refuse)?
        .strip_prefix(PREFIX)
        .and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| refuse(format!("is not `{PREFIX}` and 64 hex digits")))
}

/// The line of a key file that its owner alone may read or change; else why not.
pub(crate) fn read_guarded(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("others may read or change it (mode {mode:03o})"));
    }
    if metadata.len() > 1024 {
        return Err("is too large to be a key".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(text.trim_end().to_owned())
}
