//! `cairn info`: one repository.

use std::process::ExitCode;

use cairn_node::control::Request;
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, repo: String) -> Result<ExitCode, Failure> {
    let answer = session.ask(&Request::Info { repo })?;
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let yes = |member| {
        if output::flag(value, member) {
            "yes"
        } else {
            "no"
        }
    };
    let text = |member| output::text(value, member);
    let files = value["files"]
        .as_u64()
        .map_or_else(|| "-".to_owned(), |files| output::count(files, "file"));
    let mut rows = vec![
        ("repository", text("repo")),
        ("kind", text("kind")),
        ("id", text("id")),
        ("commit", text("commit")),
        (
            "content",
            format!("{files}, {}", output::bytes(value, "bytes")),
        ),
        ("signed by", text("signer")),
        (
            "head",
            format!("epoch {}, seq {}", text("epoch"), text("seq")),
        ),
        ("created", output::age(value, "created_at")),
        ("updated", output::age(value, "last_modified")),
        ("downloads", downloads(value)),
        ("pinned", yes("pinned").to_owned()),
        ("license", text("license")),
        ("library", text("library_name")),
        ("task", text("pipeline_tag")),
        ("tags", text("tags")),
    ];
    if output::flag(value, "frozen") {
        let why = "yes: two heads of one seq were signed, the last agreed one is shown";
        rows.push(("frozen", why.to_owned()));
    }
    if let Some(count) = value["attestations"].as_u64().filter(|count| *count > 0) {
        rows.push(("attested", output::count(count, "finding")));
    }
    let refs = value["refs"].as_object().into_iter().flatten();
    for (index, (name, commit)) in refs.enumerate() {
        let commit = commit.as_str().unwrap_or("-");
        let label = if index == 0 { "refs" } else { "" };
        rows.push((label, format!("{commit} {name}")));
    }
    output::pairs(&rows)
}

/// Those of the last thirty days, and all.
fn downloads(value: &Value) -> String {
    let of = |member| output::number(value, member);
    let (recent, all) = (of("downloads"), of("downloads_all_time"));
    format!("{recent} in the last 30 days, {all} in all")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refs_and_a_freeze_are_shown() {
        let text = render(&json!({
            "repo": "local/a", "kind": "model", "id": "ab", "commit": "c0", "epoch": 1, "seq": 3,
            "refs": {"refs/heads/main": "c0", "refs/tags/v1": "c1"},
            "signer": "ed25519:00", "created_at": 1, "last_modified": 1, "pinned": true,
            "downloads": 3, "downloads_all_time": 40,
            "frozen": true, "attestations": 2, "files": 2, "bytes": 2048, "tags": ["x", "y"], "license": null,
        }));
        for line in [
            "repository  local/a",
            "content     2 files, 2.00 KiB",
            "head        epoch 1, seq 3",
            "downloads   3 in the last 30 days, 40 in all",
            "license     -",
            "tags        x, y",
            "refs        c0 refs/heads/main",
            "            c1 refs/tags/v1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("frozen      yes"));
        assert!(text.contains("attested    2 findings"));
    }
}
