//! `cairn pin`: keeps a repository's content whatever `gc` does.

use std::process::ExitCode;

use cairn_node::control::Request;
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, repo: String) -> Result<ExitCode, Failure> {
    change(session, &Request::Pin { repo })
}

/// Pins or unpins, and says which it is now.
pub(super) fn change(session: &Session, request: &Request) -> Result<ExitCode, Failure> {
    let answer = session.ask(request)?;
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let state = if output::flag(value, "pinned") {
        "pinned"
    } else {
        "not pinned"
    };
    format!("{} is {state}\n", output::text(value, "repo"))
}
