//! Who asks: the token of a request, and what it lets its holder do.
//!
//! A token that this node doesn't know counts as none where something is only read: whoever comes with the
//! token of another hub still gets what everybody may read. Where none is not enough it is said to be wrong.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cairn_node::accounts::{Account, Token};
use cairn_node::permission::{Access, Caller, Ruling, Who};
use cairn_node::repos::Repo;

use crate::error::ApiError;
use crate::gateway::Gateway;

/// Whoever sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) who: Who,
    /// The token, where it is one of ours.
    pub(crate) token: Option<Token>,
    /// There was a token, and it is none of ours.
    is_wrong: bool,
}

impl Client {
    /// Whoever sends these headers: `Authorization: Bearer TOKEN`, or Basic with the token for a password.
    pub(crate) fn of(gateway: &Gateway, headers: &HeaderMap) -> Self {
        let credentials = headers.get(AUTHORIZATION);
        let token = credentials.and_then(|value| secret(value.to_str().ok()?));
        let known = token.and_then(|token| gateway.node().identify(&token));
        let is_wrong = credentials.is_some() && known.is_none();
        let (who, token) = known.map_or((Who::Anyone, None), |(who, token)| (who, Some(token)));
        Self {
            who,
            token,
            is_wrong,
        }
    }

    /// Somebody who was known before, without a token of their own.
    pub(crate) const fn known(who: Who) -> Self {
        Self {
            who,
            token: None,
            is_wrong: false,
        }
    }

    /// The account that asks.
    ///
    /// # Errors
    /// 401 where none does.
    pub(crate) fn caller(&self) -> Result<&Caller, ApiError> {
        match &self.who {
            Who::Account(caller) => Ok(caller),
            Who::Anyone | Who::Operator => Err(self.unauthorized()),
        }
    }

    /// The account that asks, with what is known of it.
    ///
    /// # Errors
    /// 401 where none does.
    pub(crate) fn account(&self, gateway: &Gateway) -> Result<Account, ApiError> {
        let caller = self.caller()?;
        let account = gateway.node().accounts().by_id(&caller.account);
        account.ok_or_else(|| self.unauthorized())
    }

    /// Whether whoever asks may see a repository.
    pub(crate) fn sees(&self, gateway: &Gateway, repo: &Repo) -> bool {
        gateway.node().may_read(&self.who, repo)
    }

    /// Goes on only where whoever asks may.
    ///
    /// # Errors
    /// 401, 403, or 404 as for a repository that doesn't exist.
    pub(crate) fn must(
        &self,
        gateway: &Gateway,
        wanted: Access,
        repo: &Repo,
    ) -> Result<(), ApiError> {
        self.ruled(gateway.node().rule(&self.who, wanted, repo))
    }

    /// What a ruling means to whoever asks.
    pub(crate) fn ruled(&self, ruling: Ruling) -> Result<(), ApiError> {
        match ruling {
            Ruling::Allowed => Ok(()),
            Ruling::Hidden => Err(ApiError::repository_not_found()),
            Ruling::Unauthorized => Err(self.unauthorized()),
            Ruling::Forbidden => Err(ApiError::forbidden(
                "You don't have the rights to do this in this repository",
            )),
            Ruling::TokenForbids => Err(ApiError::forbidden(
                "This token may not do this: make one with the scope `write`, for this repository",
            )),
            Ruling::Elsewhere => Err(ApiError::elsewhere()),
        }
    }

    pub(crate) fn unauthorized(&self) -> ApiError {
        ApiError::unauthorized(if self.is_wrong {
            "Invalid credentials in Authorization header"
        } else {
            "Invalid username or password."
        })
    }
}

/// The token in a value of `Authorization`.
fn secret(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (_, password) = pair.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_as_bearer_or_as_a_password() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(secret("Bearer hf_x"), some("hf_x"));
        assert_eq!(secret("bearer  hf_x "), some("hf_x"));
        let pair = STANDARD.encode("anybody:hf_x");
        assert_eq!(secret(&format!("Basic {pair}")), some("hf_x"));
        for none in ["", "Bearer", "Digest x", "Basic !", "Basic eHg="] {
            assert_eq!(secret(none), None, "{none}");
        }
    }
}
