//! `cairn status`: who and where the node is, what it holds, and what it fetches.

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
    let mut rows = vec![
        ("node", state),
        ("gateway", text("gateway_url")),
        ("peer id", text("peer_id")),
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
    ];
    if output::flag(value, "running") {
        rows.splice(3..3, network(value));
    }
    if output::flag(value, "plain_http") {
        let warning = "tokens travel over plain HTTP: give it a certificate (see `tls_certificate`), or put a \
                       proxy with TLS before it (see `public_url`)";
        rows.insert(2, ("warning", warning.to_owned()));
    }
    if !value["restored"].is_null() {
        let warning =
            "restored from a backup: nothing is signed before the node has caught up with a peer";
        rows.insert(2, ("warning", warning.to_owned()));
    }
    if value["cache"].is_object() {
        let at = rows.len() - 1;
        rows.insert(at, ("cache", cache(&value["cache"])));
    }
    output::pairs(&rows)
}

/// Addresses, peers, and what is being fetched.
fn network(value: &Value) -> Vec<(&'static str, String)> {
    let mut rows: Vec<_> = output::items(value, "listen_addrs")
        .iter()
        .filter_map(Value::as_str)
        .map(|address| ("listens on", address.to_owned()))
        .collect();
    if rows.is_empty() {
        rows.push(("listens on", "-".to_owned()));
    }
    let connected = output::number(value, "peers");
    rows.push(("peers", output::count(connected, "peer")));
    rows.extend(
        output::items(value, "transfers")
            .iter()
            .map(|transfer| ("fetches", fetched(transfer))),
    );
    rows
}

/// One download: its path, how far it is, how fast, from how many.
fn fetched(transfer: &Value) -> String {
    format!(
        "{}: {} of {}, {}/s from {}",
        output::text(transfer, "path"),
        output::bytes(transfer, "done"),
        output::bytes(transfer, "size"),
        output::bytes(transfer, "rate"),
        output::count(output::items(transfer, "peers").len() as u64, "peer"),
    )
}

fn cache(value: &Value) -> String {
    format!(
        "{} of at most {} in {}",
        output::bytes(value, "bytes"),
        output::bytes(value, "bound"),
        output::count(output::number(value, "files"), "file"),
    )
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
            "running": false, "peers": 2,
            "cache": {"files": 1, "bytes": 1024, "bound": 1 << 30},
            "transfers": [{"path": "model.bin", "size": 4096, "done": 1024, "rate": 512, "peers": ["a"]}],
        });
        let text = render(&value);
        assert!(
            text.contains("node       not running: `cairn up` starts it\n"),
            "{text}"
        );
        assert!(text.contains("namespace  kabc (local)\n"), "{text}");
        assert!(
            text.contains("holds      1 repository, 7 blobs, 2.00 KiB\n"),
            "{text}"
        );
        assert!(
            text.contains("cache      1.00 KiB of at most 1.00 GiB in 1 file\n"),
            "{text}"
        );
        assert!(!text.contains("listens on"), "{text}");
        value["running"] = json!(true);
        value["listen_addrs"] = json!(["/ip4/10.0.0.1/tcp/1/p2p/12D3"]);
        value["uptime_s"] = json!(7200);
        value["pid"] = json!(12);
        let text = render(&value);
        assert!(
            text.contains("node        running for 2 hours, pid 12\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "listens on  /ip4/10.0.0.1/tcp/1/p2p/12D3\n\
                 peers       2 peers\n\
                 fetches     model.bin: 1.00 KiB of 4.00 KiB, 512 B/s from 1 peer\n"
            ),
            "{text}"
        );
    }
}
