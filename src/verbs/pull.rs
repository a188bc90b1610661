//! `cairn pull`: fetches a repository from peers.

use std::process::ExitCode;

use anyhow::Context;
use cairn_node::control::Request;
use indicatif::HumanBytes;
use serde_json::Value;

use crate::cli;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: cli::Pull) -> Result<ExitCode, Failure> {
    // The node may have another current folder: it gets the whole path.
    let to = match arguments.to {
        Some(to) => Some(
            std::path::absolute(&to)
                .with_context(|| format!("cannot use the folder {}", to.display()))?,
        ),
        None => None,
    };
    for peer in &arguments.peers {
        if let Err(reason) = cairn_node::config::check_address(peer) {
            return Err(Failure::usage(format!("--peer {peer:?}: {reason}"))
                .hint("`cairn status` on that machine shows its addresses"));
        }
    }
    let request = Request::Pull {
        repo: arguments.repo,
        to,
        include: arguments.include,
        exclude: arguments.exclude,
        peers: arguments.peers,
    };
    let answer = session.ask(&request)?;
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let text = |member| output::text(value, member);
    let mut rows = vec![
        ("repository", text("repo")),
        ("commit", text("commit")),
        (
            "signed by",
            format!("{}, head {}", text("signer"), text("seq")),
        ),
        ("files", files(value)),
    ];
    rows.extend(whence(value).into_iter().map(|line| ("from", line)));
    if output::number(value, "fetched_files") > 0 {
        let checks =
            "signature of the head, BLAKE3 of every piece, SHA-256 and git id of every file";
        rows.push(("verified", checks.to_owned()));
    }
    let mut places = Vec::new();
    if value["to"].is_string() {
        let made = output::number(value, "written_files");
        let kept = match output::number(value, "kept_files") {
            0 => String::new(),
            kept => format!(", {} there already", output::count(kept, "file")),
        };
        places.push(format!(
            "{} ({} written{kept})",
            text("to"),
            output::count(made, "file")
        ));
    }
    if value["url"].is_string() {
        places.push(text("url"));
    }
    if places.is_empty() {
        places.push(format!(
            "{} (`--to DIR` writes the files out)",
            text("data")
        ));
    }
    rows.extend(places.into_iter().map(|place| ("where", place)));
    if !output::flag(value, "pinned") && !output::flag(value, "own") {
        let note = format!(
            "cached, until its room is needed; `cairn pin {}` keeps it",
            text("repo")
        );
        rows.push(("kept", note));
    }
    output::pairs(&rows)
}

fn files(value: &Value) -> String {
    let count = |member| output::count(output::number(value, member), "file");
    let all = format!("{}, {}", count("files"), output::bytes(value, "bytes"));
    if output::number(value, "fetched_files") == 0 {
        return format!("{all}: all here already");
    }
    let bytes = output::number(value, "fetched_bytes");
    let seconds = value["fetch_seconds"].as_f64().unwrap_or(0.0).max(0.0);
    format!(
        "{all}; {} fetched, {} in {}",
        count("fetched_files"),
        HumanBytes(bytes),
        output::pace(bytes, seconds),
    )
}

/// A line for each peer that sent something.
fn whence(value: &Value) -> Vec<String> {
    let peers = output::items(value, "peers");
    peers
        .iter()
        .map(|peer| {
            let id = match &peer["peer_id"] {
                Value::String(id) => id.clone(),
                _ => output::text(peer, "key"),
            };
            format!("{id}: {}", output::bytes(peer, "bytes"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pull_says_what_came_from_whom_how_fast_and_what_was_verified() {
        let mut value = json!({
            "repo": "k/a", "kind": "model", "commit": "c0", "signer": "ed25519:00", "seq": 2,
            "files": 3, "bytes": 4 << 20, "fetched_files": 2, "fetched_bytes": 3 << 20,
            "fetch_seconds": 0.5, "peers": [{"peer_id": "12D3", "key": "ed25519:11", "bytes": 3 << 20}],
            "to": null, "url": null, "data": "/d", "pinned": false, "own": false,
        });
        assert_eq!(
            render(&value),
            "repository  k/a\n\
             commit      c0\n\
             signed by   ed25519:00, head 2\n\
             files       3 files, 4.00 MiB; 2 files fetched, 3.00 MiB in 500 ms, 6.0 MiB/s\n\
             from        12D3: 3.00 MiB\n\
             verified    signature of the head, BLAKE3 of every piece, SHA-256 and git id of every file\n\
             where       /d (`--to DIR` writes the files out)\n\
             kept        cached, until its room is needed; `cairn pin k/a` keeps it\n"
        );
        for (member, new) in [
            ("fetched_files", json!(0)),
            ("peers", json!([])),
            ("to", json!("/t")),
            ("written_files", json!(1)),
            ("kept_files", json!(2)),
            ("url", json!("http://127.0.0.1:1/k/a")),
            ("pinned", json!(true)),
        ] {
            value[member] = new;
        }
        assert_eq!(
            render(&value),
            "repository  k/a\n\
             commit      c0\n\
             signed by   ed25519:00, head 2\n\
             files       3 files, 4.00 MiB: all here already\n\
             where       /t (1 file written, 2 files there already)\n\
             where       http://127.0.0.1:1/k/a\n"
        );
    }
}
