//! Secret keys of accounts: one file each in `keys/accounts/`, sealed with a key that follows from the node's.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) over the two seeds, bound to the account's id. What that
//! defends is said in `docs/threats.md`: copies of these files without `keys/node.key` are worth nothing, and
//! erasing the one file takes an account's keys away for ever.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use cairn_protocol::key::SecretKey;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;

use super::AccountId;
use crate::SpawnError;
use crate::folder::write_durably;
use crate::keys::read_guarded;

const PREFIX: &str = "cairn-sealed-1:";
const NONCE_BYTES: usize = 24;
const SEEDS_BYTES: usize = 64;

/// The keys of one account.
#[derive(Debug)]
pub(crate) struct AccountKeys {
    /// Root of its namespace.
    pub(crate) root: SecretKey,
    /// Signs its changes.
    pub(crate) account: SecretKey,
}

impl AccountKeys {
    pub(crate) fn new(root: [u8; 32], account: [u8; 32]) -> Self {
        Self {
            root: SecretKey::from_seed(root),
            account: SecretKey::from_seed(account),
        }
    }

    /// Root of the namespace of its private repositories.
    pub(crate) fn private_root(&self) -> SecretKey {
        let context = "cairn root of an account's private namespace 1";
        SecretKey::from_seed(blake3::derive_key(context, &self.root.seed()))
    }
}

/// Where the keys of accounts are, and what opens them.
#[derive(Debug)]
pub(crate) struct SealedKeys {
    folder: PathBuf,
    key: Hidden,
}

/// Not to be printed.
struct Hidden([u8; 32]);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl SealedKeys {
    /// The folder need not exist before the first account does.
    pub(crate) fn new(keys: &Path, node: &SecretKey) -> Self {
        let context = "cairn seal of account keys 1";
        Self {
            folder: keys.join("accounts"),
            key: Hidden(blake3::derive_key(context, &node.seed())),
        }
    }

    fn path(&self, account: &AccountId) -> PathBuf {
        self.folder.join(format!("{account}.key"))
    }

    /// Writes an account's keys; durable on return.
    pub(crate) fn write(&self, account: &AccountId, keys: &AccountKeys) -> Result<(), SpawnError> {
        let path = self.path(account);
        let refuse = |reason: String| SpawnError::Key {
            path: path.clone(),
            reason,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|error| refuse(format!("cannot be made: {error}")))?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)
            .map_err(|error| refuse(format!("no randomness from the system: {error}")))?;
        let seeds = [keys.root.seed(), keys.account.seed()].concat();
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload(account, &seeds))
            .map_err(|_| refuse("cannot be sealed".to_owned()))?;
        let line = format!(
            "{PREFIX}{}{}\n",
            HEXLOWER.encode(&nonce),
            HEXLOWER.encode(&sealed)
        );
        write_durably(&path, line.as_bytes(), 0o600)
    }

    /// Reads an account's keys.
    pub(crate) fn read(&self, account: &AccountId) -> Result<AccountKeys, SpawnError> {
        let path = self.path(account);
        let refuse = |reason: String| SpawnError::Key {
            path: path.clone(),
            reason,
        };
        let bytes = read_guarded(&path)
            .map_err(refuse)?
            .strip_prefix(PREFIX)
            .and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok())
            .filter(|bytes| bytes.len() > NONCE_BYTES)
            .ok_or_else(|| refuse(format!("is not `{PREFIX}` and hex digits")))?;
        let (nonce, sealed) = bytes.split_at(NONCE_BYTES);
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().expect("invariant: split just above");
        let seeds = self
            .cipher()
            .decrypt(&XNonce::from(nonce), payload(account, sealed))
            .ok()
            .filter(|seeds| seeds.len() == SEEDS_BYTES)
            .ok_or_else(|| {
                refuse("was sealed by another node, or is damaged: restore keys/".to_owned())
            })?;
        let seed = |at: usize| -> [u8; 32] {
            seeds[at..at + 32]
                .try_into()
                .expect("invariant: the length was checked")
        };
        Ok(AccountKeys::new(seed(0), seed(32)))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.key.0.into())
    }
}

fn payload<'a>(account: &'a AccountId, msg: &'a [u8]) -> Payload<'a, 'a> {
    Payload {
        msg,
        aad: account.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(dir: &Path, node: u8) -> SealedKeys {
        SealedKeys::new(dir, &SecretKey::from_seed([node; 32]))
    }

    #[test]
    fn keys_open_with_the_node_that_sealed_them_and_for_their_account_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (
            AccountId::from_bytes([1; 16]),
            AccountId::from_bytes([2; 16]),
        );
        let keys = sealed(dir.path(), 1);
        keys.write(&one, &AccountKeys::new([3; 32], [4; 32]))
            .unwrap();
        let read = keys.read(&one).unwrap();
        assert_eq!((read.root.seed(), read.account.seed()), ([3; 32], [4; 32]));

        let text = fs::read_to_string(keys.path(&one)).unwrap();
        assert!(!text.contains(&"03".repeat(32)));
        assert!(sealed(dir.path(), 2).read(&one).is_err());
        fs::copy(keys.path(&one), keys.path(&two)).unwrap();
        assert!(keys.read(&two).is_err());
        fs::write(keys.path(&one), text.replace(PREFIX, "x")).unwrap();
        assert!(keys.read(&one).is_err());
    }
}
