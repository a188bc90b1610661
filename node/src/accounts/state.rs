//! What the journal's entries about accounts add up to.

use std::collections::{BTreeMap, HashMap};

use cairn_protocol::hash::{Blake3, NamespaceId, RepositoryId};
use cairn_protocol::key::PublicKey;

use super::AccountId;
use crate::journal::Entry;
use crate::permission::{Access, Caller, Scope};

/// Who publishes here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// For ever.
    pub id: AccountId,
    /// Plain name of its namespace on this node, as first given.
    pub name: String,
    /// Whether it administers the node.
    pub is_admin: bool,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// The namespace of its private repositories, once there was one.
    pub private: Option<NamespaceId>,
    /// Signs what it publishes.
    pub key: PublicKey,
    /// Its tokens are not taken any more.
    pub is_disabled: bool,
    /// Seconds since the Unix epoch.
    pub created: u64,
}

/// What lets an account in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Hash of the token: what it is named by.
    pub hash: Blake3,
    /// Whose it is.
    pub account: AccountId,
    /// What its holder calls it.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// Seconds since the Unix epoch.
    pub created: u64,
    /// Seconds since the Unix epoch from which on it is not taken any more.
    pub end: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    accounts: HashMap<AccountId, Account>,
    names: BTreeMap<String, AccountId>,
    namespaces: HashMap<NamespaceId, AccountId>,
    tokens: HashMap<Blake3, Token>,
    grants: HashMap<RepositoryId, BTreeMap<AccountId, Access>>,
}

impl State {
    pub(super) fn take(&mut self, entry: &Entry) -> bool {
        match entry {
            Entry::Account {
                account,
                name,
                admin,
                namespace,
                private,
                key,
                disabled,
                created,
            } => {
                self.names.insert(name.to_ascii_lowercase(), *account);
                for namespace in [Some(*namespace), *private].into_iter().flatten() {
                    self.namespaces.insert(namespace, *account);
                }
                let taken = Account {
                    id: *account,
                    name: name.clone(),
                    is_admin: *admin,
                    namespace: *namespace,
                    private: *private,
                    key: *key,
                    is_disabled: *disabled,
                    created: *created,
                };
                self.accounts.insert(*account, taken);
            }
            Entry::Token {
                token,
                account,
                name,
                scope,
                created,
                end,
            } => {
                let taken = Token {
                    hash: *token,
                    account: *account,
                    name: name.clone(),
                    scope: scope.clone(),
                    created: *created,
                    end: *end,
                };
                self.tokens.insert(*token, taken);
            }
            Entry::TokenRevoked { token } => {
                self.tokens.remove(token);
            }
            Entry::Granted {
                repository,
                account,
                access,
            } => {
                let members = self.grants.entry(*repository).or_default();
                match access {
                    Some(access) => members.insert(*account, *access),
                    None => members.remove(account),
                };
            }
            _ => return false,
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    pub(super) fn by_name(&self, name: &str) -> Option<Account> {
        self.by_id(self.names.get(&name.to_ascii_lowercase())?)
    }

    pub(super) fn by_id(&self, id: &AccountId) -> Option<Account> {
        self.accounts.get(id).cloned()
    }

    pub(super) fn by_namespace(&self, namespace: &NamespaceId) -> Option<Account> {
        self.by_id(self.namespaces.get(namespace)?)
    }

    pub(super) fn all(&self) -> Vec<Account> {
        self.names
            .values()
            .filter_map(|id| self.by_id(id))
            .collect()
    }

    pub(super) fn tokens(&self, account: &AccountId) -> Vec<Token> {
        let of = |token: &&Token| token.account == *account;
        let mut tokens: Vec<Token> = self.tokens.values().filter(of).cloned().collect();
        tokens.sort_by_key(|token| (token.created, token.hash));
        tokens
    }

    pub(super) fn has_token(&self, hash: &Blake3) -> bool {
        self.tokens.contains_key(hash)
    }

    pub(super) fn identify(&self, hash: &Blake3, now_s: u64) -> Option<(Caller, Token)> {
        let token = self.tokens.get(hash)?;
        let account = self.accounts.get(&token.account)?;
        if account.is_disabled || token.end.is_some_and(|end| end <= now_s) {
            return None;
        }
        let caller = Caller {
            account: account.id,
            is_admin: account.is_admin,
            scope: token.scope.clone(),
        };
        Some((caller, token.clone()))
    }

    pub(super) fn granted(&self, repository: &RepositoryId, account: &AccountId) -> Option<Access> {
        self.grants.get(repository)?.get(account).copied()
    }

    pub(super) fn members(&self, repository: &RepositoryId) -> Vec<(Account, Access)> {
        let members = self.grants.get(repository).into_iter().flatten();
        members
            .filter_map(|(id, access)| Some((self.by_id(id)?, *access)))
            .collect()
    }
}
