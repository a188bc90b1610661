//! Who somebody is, and with which tokens: `whoami-v2`, and under `/api/settings` what `cairn admin` does, too.

use axum::http::Method;
use cairn_node::accounts::{Account, Token};
use cairn_node::permission::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::dates::{self, now_s};
use crate::error::ApiError;
use crate::publish::Order;
use crate::reply::Reply;
use crate::url::Segment;

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

/// `POST /api/settings/tokens`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewToken {
    name: String,
    /// `read` or `write`.
    scope: String,
    /// Days from now; for ever where absent.
    #[serde(default)]
    days: Option<u64>,
    /// The account; whoever asks where absent. Another one's only for an administrator.
    #[serde(default)]
    user: Option<String>,
}

/// `POST /api/settings/users`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: String,
    #[serde(default)]
    admin: bool,
}

/// `GET /api/whoami-v2`.
pub(crate) fn whoami(order: &Order<'_>) -> Result<Reply, ApiError> {
    let account = order.client.account(order.gateway)?;
    let token = order.client.token.as_ref();
    let token = token.ok_or_else(|| order.client.unauthorized())?;
    Ok(Reply::json(&json!({
        "type": "user",
        "id": account.id.to_string(),
        "name": account.name,
        "fullname": account.name,
        "email": null,
        "emailVerified": false,
        "canPay": false,
        "isPro": false,
        "periodEnd": null,
        "avatarUrl": "",
        "orgs": [],
        "auth": {
            "type": "access_token",
            "accessToken": {
                "displayName": token.name,
                "role": role(&token.scope),
                "createdAt": dates::iso(token.created),
            },
        },
    })))
}

fn role(scope: &Scope) -> &'static str {
    match (&scope.repositories, scope.writes) {
        (Some(_), _) => "fineGrained",
        (None, true) => "write",
        (None, false) => "read",
    }
}

/// `/api/settings/tokens[/{id}]` and `/api/settings/users`; `None` where it is neither.
pub(crate) fn settings(
    order: &Order<'_>,
    segments: &[Segment<'_>],
) -> Option<Result<Reply, ApiError>> {
    let texts: Vec<&str> = segments
        .iter()
        .map(|segment| segment.text.as_ref())
        .collect();
    Some(match (texts.as_slice(), order.method) {
        (["settings", "tokens"], &Method::GET) => tokens(order),
        (["settings", "tokens"], &Method::POST) => create_token(order),
        (["settings", "tokens", which], &Method::DELETE) => revoke(order, which),
        (["settings", "users"], &Method::GET) => users(order),
        (["settings", "users"], &Method::POST) => create_user(order),
        (["settings", "tokens" | "users"], _) => Err(ApiError::method_not_allowed("GET, POST")),
        (["settings", "tokens", _], _) => Err(ApiError::method_not_allowed("DELETE")),
        _ => return None,
    })
}

fn shown(order: &Order<'_>, token: &Token) -> Value {
    let last_used = order.gateway.node().last_use(&token.hash);
    json!({
        "id": token.hash.to_hex(),
        "name": token.name,
        "role": role(&token.scope),
        "createdAt": dates::iso(token.created),
        "end": token.end.map(dates::iso),
        "lastUsed": last_used.map(dates::iso),
    })
}

fn tokens(order: &Order<'_>) -> Result<Reply, ApiError> {
    let account = order.client.account(order.gateway)?;
    let tokens = order.gateway.node().accounts().tokens(&account.id);
    let shown = |token| shown(order, token);
    Ok(Reply::json(&tokens.iter().map(shown).collect::<Vec<_>>()))
}

/// The account, where whoever asks may change tokens at all: a token that may not write makes none that may.
fn changing(order: &Order<'_>) -> Result<Account, ApiError> {
    let account = order.client.account(order.gateway)?;
    let scope = &order.client.caller()?.scope;
    if !scope.writes || scope.repositories.is_some() {
        return Err(ApiError::forbidden(
            "This takes a token with the scope `write`, for all repositories",
        ));
    }
    Ok(account)
}

fn create_token(order: &Order<'_>) -> Result<Reply, ApiError> {
    let asking = changing(order)?;
    let wanted: NewToken = order.json()?;
    let node = order.gateway.node();
    let account = match &wanted.user {
        Some(name) if !name.eq_ignore_ascii_case(&asking.name) => {
            if !asking.is_admin {
                return Err(ApiError::forbidden(
                    "Only an administrator makes tokens for others",
                ));
            }
            let found = node.accounts().by_name(name);
            found.ok_or_else(|| ApiError::bad_request(format!("There is no account {name:?}")))?
        }
        _ => asking,
    };
    let scope = Scope {
        writes: match wanted.scope.as_str() {
            "write" => true,
            "read" => false,
            other => {
                return Err(ApiError::bad_request(format!(
                    "{other:?} is none of read, write"
                )));
            }
        },
        repositories: None,
    };
    let end = wanted
        .days
        .map(|days| now_s().saturating_add(days.saturating_mul(DAY_S)));
    let made = node.create_token(&account, &wanted.name, scope, end)?;
    Ok(Reply::json(&made))
}

fn revoke(order: &Order<'_>, which: &str) -> Result<Reply, ApiError> {
    let account = changing(order)?;
    let revoked = order.gateway.node().revoke_token(&account, which)?;
    Ok(Reply::json(&json!({ "id": revoked.to_hex() })))
}

fn administrator(order: &Order<'_>) -> Result<Account, ApiError> {
    let account = changing(order)?;
    if !account.is_admin {
        return Err(ApiError::forbidden("Only an administrator may do this"));
    }
    Ok(account)
}

fn users(order: &Order<'_>) -> Result<Reply, ApiError> {
    administrator(order)?;
    let all = order.gateway.node().accounts().all();
    let shown = |account: &Account| {
        json!({
            "name": account.name, "admin": account.is_admin, "disabled": account.is_disabled,
            "createdAt": dates::iso(account.created),
        })
    };
    Ok(Reply::json(&all.iter().map(shown).collect::<Vec<_>>()))
}

fn create_user(order: &Order<'_>) -> Result<Reply, ApiError> {
    administrator(order)?;
    let wanted: NewUser = order.json()?;
    let made = order
        .gateway
        .node()
        .create_account(&wanted.name, wanted.admin)?;
    Ok(Reply::json(
        &json!({ "name": made.name, "admin": made.is_admin }),
    ))
}
