//! `cairn restore`: makes a data folder of a backup.

use std::path::Path;
use std::process::ExitCode;

use cairn_node::control;
use serde_json::{Value, json};

use super::backup::failed_where_damaged;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, dir: &Path, is_newest: bool) -> Result<ExitCode, Failure> {
    let data = &session.settings.data;
    let report = cairn_node::restore(dir, data, is_newest, &mut |_| {})
        .map_err(|error| control::Failure::new(&error, error.hint()))?;
    let value = json!({
        "data": data, "blobs": report.blobs, "bytes": report.bytes, "damaged": report.damaged,
        "begun": report.begun, "waits_for_a_peer": !is_newest,
    });
    output::print(&value, session.json, render)?;
    failed_where_damaged(
        &value,
        "they are fetched from peers when they are asked for, if any has them",
    )
}

fn render(value: &Value) -> String {
    let mut text = format!(
        "restored {}, {}, to {}\n",
        output::count(output::number(value, "blobs"), "large file"),
        output::bytes(value, "bytes"),
        output::text(value, "data"),
    );
    if output::flag(value, "waits_for_a_peer") {
        text += "Nothing is signed before the node has caught up with a peer: more may have been published after \
                 the backup.\nWhere that can't be, restore with --newest.\n";
    }
    text
}
