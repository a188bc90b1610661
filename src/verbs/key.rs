//! `cairn key show`: public keys, and the names that follow from them.

use std::process::ExitCode;

use cairn_node::control::Request;
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<ExitCode, Failure> {
    let answer = session.ask(&Request::Keys)?;
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let sealed = if output::flag(value, "sealed") {
        "sealed with a passphrase"
    } else {
        "in files that only this user can read"
    };
    output::pairs(&[
        ("node", output::text(value, "node")),
        ("peer id", output::text(value, "peer_id")),
        ("namespace root", output::text(value, "namespace_root")),
        ("namespace", output::text(value, "namespace")),
        ("secret keys", sealed.to_owned()),
    ])
}
