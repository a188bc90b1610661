//! `cairn admin`: accounts, their tokens, and whom a repository lets in.

use std::process::ExitCode;

use cairn_node::control::{Admin, Request};
use serde_json::Value;

use crate::cli::{self, TokenScope};
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, verb: cli::Admin) -> Result<ExitCode, Failure> {
    let (order, render): (_, fn(&Value) -> String) = match verb {
        cli::Admin::User(verb) => user(verb),
        cli::Admin::Token(verb) => token(verb),
        cli::Admin::Grant { repo, user, access } => {
            let access = match access.as_str() {
                "none" => None,
                text => Some(text.parse().map_err(|error: String| Failure::new(error))?),
            };
            (Admin::Grant { repo, user, access }, render_grant)
        }
    };
    let answer = session.ask(&Request::Admin { order })?;
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn user(verb: cli::User) -> (Admin, fn(&Value) -> String) {
    match verb {
        cli::User::Create { name, admin } => (Admin::CreateUser { name, admin }, render_user),
        cli::User::List => (Admin::Users, render_users),
        cli::User::Disable { name } => {
            let disabled = true;
            (Admin::SetDisabled { name, disabled }, render_user)
        }
        cli::User::Enable { name } => {
            let disabled = false;
            (Admin::SetDisabled { name, disabled }, render_user)
        }
    }
}

fn token(verb: cli::Token) -> (Admin, fn(&Value) -> String) {
    match verb {
        cli::Token::Create {
            user,
            scope,
            name,
            repos,
            days,
        } => {
            let order = Admin::CreateToken {
                user,
                name,
                writes: matches!(scope, TokenScope::Write),
                repos,
                days,
            };
            (order, |value| format!("{}\n", output::text(value, "token")))
        }
        cli::Token::List { user } => (Admin::Tokens { user }, render_tokens),
        cli::Token::Revoke { user, token } => (Admin::RevokeToken { user, token }, |value| {
            format!("revoked {}\n", output::text(value, "revoked"))
        }),
    }
}

fn render_user(user: &Value) -> String {
    let mut words = output::text(user, "name");
    for flag in ["admin", "disabled"] {
        if output::flag(user, flag) {
            words.push_str("  ");
            words.push_str(flag);
        }
    }
    format!("{words}  {}/…\n", output::text(user, "namespace"))
}

fn render_users(value: &Value) -> String {
    let users = output::items(value, "users");
    users.iter().map(render_user).collect()
}

fn render_tokens(value: &Value) -> String {
    let tokens = output::items(value, "tokens");
    let line = |token: &Value| {
        let id: String = output::text(token, "id").chars().take(12).collect();
        let (scope, name) = (output::text(token, "scope"), output::text(token, "name"));
        let used = match token["last_used"].as_u64() {
            Some(_) => format!("used {}", output::age(token, "last_used")),
            None => "never used".to_owned(),
        };
        format!("{id}  {scope:<5}  {used:<18}  {name}\n")
    };
    tokens.iter().map(line).collect()
}

fn render_grant(value: &Value) -> String {
    let (repo, user) = (output::text(value, "repo"), output::text(value, "user"));
    match value["access"].as_str() {
        Some(access) => format!("{user} may {access} {repo}\n"),
        None => format!("{user} was let out of {repo}\n"),
    }
}
