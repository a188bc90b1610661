//! What an administrator asks: accounts, their tokens, and whom a repository lets in.

use cairn_protocol::hash::RepositoryId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Failure, find};
use crate::accounts::{Account, AccountError, NewToken, Token};
use crate::node::{Node, now_s};
use crate::permission::{Access, Scope};

/// Name of the account that the first start makes.
const FIRST_ACCOUNT: &str = "owner";
/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

/// A request about accounts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what", deny_unknown_fields)]
pub enum Admin {
    /// Makes an account.
    CreateUser {
        /// Plain name of its namespace.
        name: String,
        /// It administers the node.
        admin: bool,
    },
    /// Lists accounts.
    Users,
    /// Takes an account's tokens no more, or again.
    SetDisabled {
        /// The account's name.
        name: String,
        /// No more.
        disabled: bool,
    },
    /// Makes a token.
    CreateToken {
        /// The account's name.
        user: String,
        /// What its holder calls it.
        name: String,
        /// Whether it may change anything.
        writes: bool,
        /// Only these repositories; all where empty.
        repos: Vec<String>,
        /// Days until it ends; never where absent.
        days: Option<u64>,
    },
    /// Lists an account's tokens.
    Tokens {
        /// The account's name.
        user: String,
    },
    /// Takes a token no more.
    RevokeToken {
        /// The account's name.
        user: String,
        /// The token's id, its beginning, or its name.
        token: String,
    },
    /// Lets an account into a repository of another, or out of it.
    Grant {
        /// The repository.
        repo: String,
        /// The account's name.
        user: String,
        /// How far; not at all where absent.
        access: Option<Access>,
    },
}

impl Node {
    /// Makes the first account, an administrator's, and a token for it; nothing where there is an account.
    pub fn begin_accounts(&self) -> Result<Option<NewToken>, AccountError> {
        if !self.accounts().is_empty() {
            return Ok(None);
        }
        let account = self.create_account(FIRST_ACCOUNT, true)?;
        let scope = Scope {
            writes: true,
            repositories: None,
        };
        self.create_token(&account, "first start", scope, None)
            .map(Some)
    }
}

pub(super) fn execute(node: &Node, order: Admin) -> Result<Value, Failure> {
    let failed = |error: AccountError| {
        let hint = match &error {
            AccountError::Missing(_) => Some("`cairn admin user list` lists all".to_owned()),
            AccountError::NoToken(_) => Some("`cairn admin token list` lists all".to_owned()),
            _ => None,
        };
        Failure::new(&error, hint)
    };
    let account = |name: &str| {
        let found = node.accounts().by_name(name);
        found.ok_or_else(|| failed(AccountError::Missing(name.to_owned())))
    };
    match order {
        Admin::CreateUser { name, admin } => {
            let made = node.create_account(&name, admin).map_err(failed)?;
            Ok(shown(&made))
        }
        Admin::Users => {
            let all: Vec<Value> = node.accounts().all().iter().map(shown).collect();
            Ok(json!({ "users": all }))
        }
        Admin::SetDisabled { name, disabled } => {
            let found = account(&name)?;
            node.set_account_disabled(&found, disabled)
                .map_err(failed)?;
            Ok(shown(&account(&name)?))
        }
        Admin::CreateToken {
            user,
            name,
            writes,
            repos,
            days,
        } => {
            let ids = repos
                .iter()
                .map(|repo| find(node, repo).map(|repo| repo.id()))
                .collect::<Result<std::collections::BTreeSet<RepositoryId>, _>>()?;
            let scope = Scope {
                writes,
                repositories: (!ids.is_empty()).then_some(ids),
            };
            let end = days.map(|days| now_s().saturating_add(days.saturating_mul(DAY_S)));
            let made = node
                .create_token(&account(&user)?, &name, scope, end)
                .map_err(failed)?;
            Ok(json!(made))
        }
        Admin::Tokens { user } => {
            let tokens = node.accounts().tokens(&account(&user)?.id);
            let tokens: Vec<Value> = tokens
                .iter()
                .map(|token| shown_token(node, token))
                .collect();
            Ok(json!({ "user": user, "tokens": tokens }))
        }
        Admin::RevokeToken { user, token } => {
            let id = node
                .revoke_token(&account(&user)?, &token)
                .map_err(failed)?;
            Ok(json!({ "user": user, "revoked": id }))
        }
        Admin::Grant { repo, user, access } => {
            let (repo, user) = (find(node, &repo)?, account(&user)?);
            node.let_in(&repo, &user, access).map_err(failed)?;
            Ok(json!({ "repo": repo.shown_name(), "user": user.name, "access": access }))
        }
    }
}

fn shown(account: &Account) -> Value {
    json!({
        "name": account.name,
        "admin": account.is_admin,
        "disabled": account.is_disabled,
        "namespace": cairn_protocol::name::NamespaceName::Hash(account.namespace).to_string(),
        "key": account.key.to_string(),
        "created_at": account.created,
    })
}

fn shown_token(node: &Node, token: &Token) -> Value {
    let repos = token.scope.repositories.as_ref().map(|ids| {
        let name = |id: &RepositoryId| {
            let repo = node.repos().by_id(id);
            repo.map_or_else(|| id.to_string(), |repo| repo.shown_name().to_owned())
        };
        ids.iter().map(name).collect::<Vec<_>>()
    });
    json!({
        "id": token.hash,
        "name": token.name,
        "scope": if token.scope.writes { "write" } else { "read" },
        "repos": repos,
        "created_at": token.created,
        "end": token.end,
        "last_used": node.last_use(&token.hash),
    })
}
