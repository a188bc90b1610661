//! Making accounts, tokens and grants: records first, then the journal's word, then memory.

use std::collections::BTreeSet;

use cairn_protocol::hash::{Blake3, NamespaceId, RepositoryId};
use cairn_protocol::key::{PublicKey, SecretKey};
use cairn_protocol::record::{self, Body, Header, Link, Record, Role};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::Serialize;

use super::{Account, AccountId, AccountKeys, TOKEN_PREFIX, check_name, hash_of};
use crate::SpawnError;
use crate::journal::Entry;
use crate::node::{Inner, now_s};
use crate::permission::{Access, Scope};
use crate::publish::{PublishError, Publisher, make, random, turn};
use crate::store::StoreError;

/// Bytes of a token's or an account's shown name.
const NAME_BYTES_MAX: usize = 96;
/// Accounts of one node; further ones are refused.
const ACCOUNTS_MAX: usize = 100_000;
/// Tokens of one account; further ones are refused until one is revoked.
const TOKENS_MAX: usize = 1_000;
/// Repositories that one token may be limited to, and that one account record names.
const SCOPE_MAX: usize = 256;

/// Why an account or token could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// A name that can't be one.
    #[error("{0}")]
    Invalid(String),
    /// Somebody has that name.
    #[error("account {0} exists already")]
    Exists(String),
    /// Nobody has that name.
    #[error("there is no account {0}")]
    Missing(String),
    /// No such token of that account.
    #[error("there is no token {0}")]
    NoToken(String),
    /// Its keys could not be written or read.
    #[error(transparent)]
    Keys(#[from] SpawnError),
    /// A record could not be made.
    #[error(transparent)]
    Record(#[from] PublishError),
    /// The store or the journal failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token as it is shown once, to whoever it is for.
#[derive(Clone, Serialize)]
pub struct NewToken {
    /// The token itself.
    pub token: String,
    /// What it is named by from now on.
    pub id: Blake3,
    /// The account's name.
    pub user: String,
    /// What its holder calls it.
    pub name: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken")
            .field("id", &self.id)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Makes an account, with its namespace and keys.
pub(crate) fn create(node: &Inner, name: &str, is_admin: bool) -> Result<Account, AccountError> {
    check_name(name).map_err(AccountError::Invalid)?;
    let _turn = turn(node);
    if node.accounts.by_name(name).is_some() {
        return Err(AccountError::Exists(name.to_owned()));
    }
    if name.eq_ignore_ascii_case(&node.config.namespace_alias) {
        return Err(AccountError::Invalid(format!(
            "{name} is this node's own namespace: choose another name"
        )));
    }
    if node.accounts.all().len() >= ACCOUNTS_MAX {
        return Err(AccountError::Invalid(format!(
            "this node has {ACCOUNTS_MAX} accounts, as many as it may"
        )));
    }
    let id = AccountId::from_bytes(random()?);
    let keys = AccountKeys::new(random()?, random()?);
    node.sealed_keys.write(&id, &keys)?;
    let created = now_s();
    let space = begin_namespace(&keys.root, &node.keys.node.public(), false, created)?;
    let namespace = NamespaceId::from(space.id());
    let holder = holder_blob(name)?;
    let record = account_record(
        node,
        namespace,
        Link { seq: 1, prev: None },
        record::Account {
            key: keys.account.public(),
            holder: Some(Blake3::of(&holder)),
            repositories: None,
            refs: None,
            end: None,
            revoked: false,
        },
    )?;
    let mut batch = node.store.batch();
    batch.put(holder.into());
    node.take_records(batch, &[space, record])?;
    let entry = Entry::Account {
        account: id,
        name: name.to_owned(),
        admin: is_admin,
        namespace,
        private: None,
        key: keys.account.public(),
        disabled: false,
        created,
    };
    say(node, &entry)?;
    let account = node.accounts.by_id(&id);
    let account = account.ok_or_else(|| AccountError::Missing(name.to_owned()))?;
    node.repos.name_account(&account);
    Ok(account)
}

/// The namespace of an account's private repositories; made when the first of them is.
///
/// The journal says that it is private before any record of it is in the log, so that none ever leaves.
pub(crate) fn private_namespace(
    node: &Inner,
    account: &Account,
) -> Result<NamespaceId, AccountError> {
    let keys = node.sealed_keys.read(&account.id)?;
    // Always the same record: a crash after the journal's word leaves it to be written again.
    let home = node.keys.node.public();
    let space = begin_namespace(&keys.private_root(), &home, false, account.created)?;
    let namespace = NamespaceId::from(space.id());
    let _turn = turn(node);
    let mut account = current(node, account)?;
    if account.private != Some(namespace) {
        account.private = Some(namespace);
        node.repos.name_account(&account);
        say(node, &Entry::from(&account))?;
    }
    let known = node
        .repos
        .ledger(|ledger| ledger.namespace(&namespace).is_some());
    if !known {
        node.take_records(node.store.batch(), &[space])?;
    }
    Ok(namespace)
}

impl From<&Account> for Entry {
    fn from(account: &Account) -> Self {
        Self::Account {
            account: account.id,
            name: account.name.clone(),
            admin: account.is_admin,
            namespace: account.namespace,
            private: account.private,
            key: account.key,
            disabled: account.is_disabled,
            created: account.created,
        }
    }
}

/// Takes an account's tokens, or takes them no more.
pub(crate) fn set_disabled(
    node: &Inner,
    account: &Account,
    disabled: bool,
) -> Result<(), AccountError> {
    let _turn = turn(node);
    let mut account = current(node, account)?;
    account.is_disabled = disabled;
    say(node, &Entry::from(&account))
}

/// An account as it is now; asked while the turn is held, so that no entry takes back what another one said.
fn current(node: &Inner, account: &Account) -> Result<Account, AccountError> {
    let found = node.accounts.by_id(&account.id);
    found.ok_or_else(|| AccountError::Missing(account.name.clone()))
}

/// Makes a token; what lets its holder in is in the answer, and nowhere else.
pub(crate) fn create_token(
    node: &Inner,
    account: &Account,
    name: &str,
    scope: Scope,
    end: Option<u64>,
) -> Result<NewToken, AccountError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(AccountError::Invalid(format!(
            "a token's name has 1 to {NAME_BYTES_MAX} bytes, and no control characters"
        )));
    }
    if scope
        .repositories
        .as_ref()
        .is_some_and(|only| only.len() > SCOPE_MAX)
    {
        return Err(AccountError::Invalid(format!(
            "a token can be limited to at most {SCOPE_MAX} repositories"
        )));
    }
    if node.accounts.tokens(&account.id).len() >= TOKENS_MAX {
        return Err(AccountError::Invalid(format!(
            "{} has {TOKENS_MAX} tokens: revoke one first",
            account.name
        )));
    }
    let secret = BASE32_NOPAD.encode(&random::<25>()?).to_ascii_lowercase();
    let token = format!("{TOKEN_PREFIX}{secret}");
    let id = hash_of(&token);
    say(
        node,
        &Entry::Token {
            token: id,
            account: account.id,
            name: name.to_owned(),
            scope,
            created: now_s(),
            end,
        },
    )?;
    Ok(NewToken {
        token,
        id,
        user: account.name.clone(),
        name: name.to_owned(),
    })
}

/// Takes a token no more; `which` is its id, the beginning of one, or its name.
pub(crate) fn revoke_token(
    node: &Inner,
    account: &Account,
    which: &str,
) -> Result<Blake3, AccountError> {
    let tokens = node.accounts.tokens(&account.id);
    let mut found = tokens.iter().filter(|token| {
        let id = token.hash.to_hex();
        token.name == which || (which.len() >= 8 && id.starts_with(which))
    });
    let token = match (found.next(), found.next()) {
        (Some(token), None) => token.hash,
        (None, _) => return Err(AccountError::NoToken(which.to_owned())),
        (Some(_), Some(_)) => {
            return Err(AccountError::Invalid(format!(
                "{which} names several tokens: give the token's id"
            )));
        }
    };
    say(node, &Entry::TokenRevoked { token })?;
    Ok(token)
}

/// Lets an account into a repository, or (with nothing) out of it.
pub(crate) fn let_in(
    node: &Inner,
    repository: RepositoryId,
    account: &Account,
    access: Option<Access>,
) -> Result<(), AccountError> {
    say(
        node,
        &Entry::Granted {
            repository,
            account: account.id,
            access,
        },
    )
}

/// Lets the same accounts into a repository as into another one, and no others. The caller holds the turn.
pub(crate) fn let_in_alike(
    node: &Inner,
    like: &RepositoryId,
    repository: RepositoryId,
) -> Result<(), AccountError> {
    let (wanted, now) = (
        node.accounts.members(like),
        node.accounts.members(&repository),
    );
    let has = |all: &[(Account, Access)], one: &AccountId| {
        let found = all.iter().find(|(account, _)| account.id == *one);
        found.map(|(_, access)| *access)
    };
    for (account, _) in now
        .iter()
        .filter(|(one, _)| has(&wanted, &one.id).is_none())
    {
        let_in(node, repository, account, None)?;
    }
    for (account, access) in &wanted {
        if has(&now, &account.id) != Some(*access) {
            let_in(node, repository, account, Some(*access))?;
        }
    }
    Ok(())
}

/// The record that a publisher's key needs to sign changes of a repository, where it has none yet.
///
/// Whether the account may was decided before. The caller holds the turn, and stores the record.
pub(crate) fn entitle(
    node: &Inner,
    namespace: &NamespaceId,
    publisher: &Publisher,
    repository: &RepositoryId,
) -> Result<Option<Record>, PublishError> {
    let key = publisher.key.public();
    let any_ref = "refs/heads/main";
    let (may, before, link) = node.repos.ledger(|ledger| {
        (
            ledger.may_publish(namespace, &key, repository, any_ref),
            ledger
                .account(namespace, &key)
                .map(|view| view.body.clone()),
            ledger.next_account(namespace, &key),
        )
    });
    let is_revoked = before.as_ref().is_some_and(|before| before.revoked);
    if may && !is_revoked {
        return Ok(None);
    }
    let link = link.ok_or_else(|| PublishError::Frozen(format!("the account {key}")))?;
    let owns = publisher.owns.contains(namespace);
    let repositories = (!owns).then(|| {
        let before = before.as_ref().filter(|_| !is_revoked);
        let mut all: BTreeSet<RepositoryId> = before
            .and_then(|before| before.repositories.clone())
            .into_iter()
            .flatten()
            .collect();
        all.insert(*repository);
        // What is left out is granted by the record before, as long as the epoch lasts.
        while all.len() > SCOPE_MAX {
            let other = all.iter().find(|id| *id != repository).copied();
            other.map(|other| all.remove(&other));
        }
        all.into_iter().collect()
    });
    account_record(
        node,
        *namespace,
        link,
        record::Account {
            key,
            holder: before.and_then(|before| before.holder),
            repositories,
            refs: None,
            end: None,
            revoked: false,
        },
    )
    .map(Some)
}

/// The first record of a namespace whose heads this node orders.
///
/// The home may say which accounts publish there; with `publishes` the root's own key does, too.
pub(crate) fn begin_namespace(
    root: &SecretKey,
    home: &PublicKey,
    publishes: bool,
    time: u64,
) -> Result<Record, PublishError> {
    let role = |key: PublicKey, role: Role| record::Delegation {
        key,
        roles: vec![role],
        repositories: None,
        refs: None,
        end: None,
    };
    let own = publishes.then(|| role(root.public(), Role::Publish));
    let body = Body::Namespace(record::Namespace {
        root: record::RootKeys {
            keys: vec![root.public()],
            threshold: 1,
        },
        recovery: None,
        delegated: own
            .into_iter()
            .chain([role(*home, Role::Account)])
            .collect(),
        home: *home,
        claims: Vec::new(),
        carried: None,
    });
    let header = Header {
        chain: Some(Link { seq: 1, prev: None }),
        ..Header::new(1, time)
    };
    Record::sign(header, body, &[root])
        .map_err(|error| PublishError::Invalid(format!("record: {error}")))
}

fn account_record(
    node: &Inner,
    namespace: NamespaceId,
    link: Link,
    body: record::Account,
) -> Result<Record, PublishError> {
    let header = Header {
        chain: Some(link),
        ..Header::new(node.epoch(&namespace), now_s())
    };
    make(namespace, header, Body::Account(body), &node.keys.node)
}

/// What an account record's `holder` is the hash of: the plain name can be dropped, and nobody can guess it.
fn holder_blob(name: &str) -> Result<Vec<u8>, StoreError> {
    let salt = HEXLOWER.encode(&random::<16>()?);
    let blob = serde_json::json!({ "name": name, "salt": salt });
    Ok(blob.to_string().into_bytes())
}

/// The journal first, then memory.
fn say(node: &Inner, entry: &Entry) -> Result<(), AccountError> {
    node.journal.append(entry.clone())?;
    node.accounts.take(entry);
    Ok(())
}
