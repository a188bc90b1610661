//! Accounts: who publishes through this node, with which tokens, and what they were let into.
//!
//! Every account has a namespace of its own and a key that signs what it publishes; both are kept here,
//! sealed. A second namespace holds its private repositories: its records never leave the node,
//! so that no path has to pick them out of others. All of it is in memory, made from the journal at start;
//! a token is known by its hash alone.

mod id;
mod keys;
mod make;
mod state;

use std::sync::Arc;

use cairn_protocol::hash::{Blake3, NamespaceId, RepositoryId};
use cairn_protocol::name::NamespaceName;
use parking_lot::RwLock;

pub use self::id::AccountId;
pub use self::make::{AccountError, NewToken};
pub use self::state::{Account, Token};

pub(crate) use self::keys::{AccountKeys, SealedKeys};
pub(crate) use self::make::{
    begin_namespace, create, create_token, entitle, let_in, let_in_alike, private_namespace,
    revoke_token, set_disabled,
};

use self::state::State;
use crate::journal::Entry;
use crate::permission::{Access, Caller, Who};

/// What every token begins with: clients of the hub take no other.
pub(crate) const TOKEN_PREFIX: &str = "hf_";

/// All accounts of a node; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    state: Arc<RwLock<State>>,
}

impl Accounts {
    /// Takes over what a journal entry says; whether it was about accounts.
    pub(crate) fn take(&self, entry: &Entry) -> bool {
        self.state.write().take(entry)
    }

    /// Whether there is none at all: the node was never asked for one.
    pub fn is_empty(&self) -> bool {
        self.state.read().is_empty()
    }

    /// The account of that name, whatever its case.
    pub fn by_name(&self, name: &str) -> Option<Account> {
        self.state.read().by_name(name)
    }

    /// The account of that id.
    pub fn by_id(&self, id: &AccountId) -> Option<Account> {
        self.state.read().by_id(id)
    }

    /// The account whose namespace, public or private, that is.
    pub fn by_namespace(&self, namespace: &NamespaceId) -> Option<Account> {
        self.state.read().by_namespace(namespace)
    }

    /// All accounts by name.
    pub fn all(&self) -> Vec<Account> {
        self.state.read().all()
    }

    /// All tokens of an account that were not revoked, newest last.
    pub fn tokens(&self, account: &AccountId) -> Vec<Token> {
        self.state.read().tokens(account)
    }

    /// Whether a token was made here and not revoked.
    pub(crate) fn has_token(&self, hash: &Blake3) -> bool {
        self.state.read().has_token(hash)
    }

    /// Who a token belongs to; nothing where it is none of ours, was revoked, or has ended.
    pub fn identify(&self, secret: &str, now_s: u64) -> Option<(Caller, Token)> {
        if !secret.starts_with(TOKEN_PREFIX) || secret.len() > 256 {
            return None;
        }
        self.state.read().identify(&hash_of(secret), now_s)
    }

    /// What an account was let into.
    pub fn granted(&self, repository: &RepositoryId, who: &Who) -> Option<Access> {
        match who {
            Who::Account(caller) => self.state.read().granted(repository, &caller.account),
            Who::Operator | Who::Anyone => None,
        }
    }

    /// Who was let into a repository, and how far.
    pub fn members(&self, repository: &RepositoryId) -> Vec<(Account, Access)> {
        self.state.read().members(repository)
    }
}

/// What a token is known by.
pub(crate) fn hash_of(secret: &str) -> Blake3 {
    Blake3::from_bytes(blake3::derive_key(
        "cairn access token 1",
        secret.as_bytes(),
    ))
}

/// Whether an account may have that name: it becomes the plain name of its namespace here.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    match name.parse::<NamespaceName>() {
        Ok(NamespaceName::Plain(_)) => Ok(()),
        Ok(_) => Err(format!("{name:?} looks like a hash or a domain")),
        Err(error) => Err(error.to_string()),
    }
}
