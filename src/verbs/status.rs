//! `cairn status`: who and where the node is, and what it holds.

use std::process::ExitCode;
use std::time::Duration;

use cairn_node::control::Request;
use indicatif::HumanDuration;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<ExitCode, Failure> {
    let mut answer = session.ask(&Request::Status)?;
    answer.value["running"] = json!(answer.running);
    if !answer.running {
        // What this process says of itself while it has the folder open is nothing about a node.
        answer.value["pid"] = Value::Null;
        answer.value["uptime_s"] = Value::Null;
    }
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let text = |member| output::text(value, member);
    let state = if output::flag(value, "running") {
        let uptime = Duration::from_secs(output::number(value, "uptime_s"));
        format!("running for {}, pid {}", HumanDuration(uptime), text("pid"))
    } else {
        "not running: `cairn up` starts it".to_owned()
    };
    output::pairs(&[
        ("node", state),
        ("gateway", text("gateway_url")),
        ("peer id", text("peer_id")),
        ("listens on", text("listen_addrs")),
        (
            "namespace",
            format!("{} ({})", text("namespace"), text("namespace_alias")),
        ),
        ("data", text("data")),
        (
            "holds",
            format!(
                "{}, {}, {}",
                output::count(output::number(value, "repositories"), "repository"),
                output::count(output::number(value, "blobs"), "blob"),
                output::bytes(value, "bytes"),
            ),
        ),
        (
            "release",
            format!("{}, data format {}", text("version"), text("format")),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_run_says_how_to_start_it() {
        let mut value = json!({
            "version": "0.1.0", "format": 1, "peer_id": "12D3", "listen_addrs": [],
            "gateway_url": null, "namespace": "kabc", "namespace_alias": "local", "data": "/d",
            "repositories": 1, "blobs": 7, "bytes": 2048, "uptime_s": null, "pid": null,
            "running": false,
        });
        let text = render(&value);
        assert!(
            text.contains("node        not running: `cairn up` starts it\n"),
            "{text}"
        );
        assert!(text.contains("namespace   kabc (local)\n"), "{text}");
        assert!(
            text.contains("holds       1 repository, 7 blobs, 2.00 KiB\n"),
            "{text}"
        );
        value["running"] = json!(true);
        value["uptime_s"] = json!(7200);
        value["pid"] = json!(12);
        let text = render(&value);
        assert!(
            text.contains("node        running for 2 hours, pid 12\n"),
            "{text}"
        );
    }
}
