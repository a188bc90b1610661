//! `cairn backup`: copies all that can't be had again, while the node serves.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use cairn_node::control::Request;
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, dir: &Path) -> Result<ExitCode, Failure> {
    // The node may have another current folder: it gets the whole path.
    let to = std::path::absolute(dir).context("cannot find the current folder")?;
    let answer = session.ask(&Request::Backup { to })?;
    output::print(&answer.value, session.json, render)?;
    failed_where_damaged(&answer.value, "run `cairn verify` to see of what they are")
}

fn render(value: &Value) -> String {
    format!(
        "backed up {}, {}; {} copied\n\
         The backup holds the node's keys: keep it as safe as the node.\n",
        output::count(output::number(value, "blobs"), "large file"),
        output::bytes(value, "bytes"),
        output::bytes(value, "copied_bytes"),
    )
}

/// An exit code that says whether all is in the copy.
pub(super) fn failed_where_damaged(value: &Value, hint: &str) -> Result<ExitCode, Failure> {
    let damaged = output::items(value, "damaged");
    if damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<&str> = damaged.iter().filter_map(Value::as_str).collect();
    Err(Failure::new(format!(
        "{} left out: {}",
        output::count(names.len() as u64, "damaged file"),
        names.join(", ")
    ))
    .hint(hint))
}
