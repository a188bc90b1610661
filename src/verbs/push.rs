//! `cairn push`: publishes a folder.

use std::process::ExitCode;

use anyhow::Context;
use cairn_node::control::Request;
use serde_json::Value;

use crate::cli;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: cli::Push) -> Result<ExitCode, Failure> {
    let kind = arguments.kind();
    // The node may have another current folder: it gets the whole path.
    let dir = std::fs::canonicalize(&arguments.dir)
        .with_context(|| format!("cannot read folder {}", arguments.dir.display()))?;
    if !dir.is_dir() {
        return Err(Failure::new(format!("{} is not a folder", dir.display()))
            .hint("put the file into a folder, and push that"));
    }
    let request = Request::Push {
        dir,
        repo: arguments.repo,
        kind,
        reference: arguments.reference,
        message: arguments.message,
    };
    let answer = session.ask(&request)?;
    for warning in output::items(&answer.value, "warnings") {
        let text = warning
            .as_str()
            .map_or_else(|| warning.to_string(), str::to_owned);
        output::message(&format!("warning: {text}\n"));
    }
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let text = |member| output::text(value, member);
    let files = output::count(output::number(value, "files"), "file");
    let content = format!("{files}, {}", output::bytes(value, "bytes"));
    let mut rows = vec![
        ("repository", text("repo")),
        ("commit", format!("{} on {}", text("commit"), text("ref"))),
    ];
    if output::flag(value, "unchanged") {
        rows.push((
            "content",
            format!("{content}: nothing changed, nothing signed"),
        ));
    } else {
        let stored = format!(
            "{content}; {} new, {} not read again ({})",
            output::bytes(value, "new_bytes"),
            output::count(output::number(value, "reused_files"), "file"),
            output::speed(value, "new_bytes"),
        );
        rows.push(("content", stored));
        rows.push((
            "signed by",
            format!("{}, head {}", text("signer"), text("seq")),
        ));
    }
    if value["url"].is_string() {
        rows.push(("url", text("url")));
    }
    output::pairs(&rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_push_says_what_it_signed_and_one_without_change_says_so() {
        let mut value = json!({
            "repo": "k/a", "kind": "model", "commit": "c0", "ref": "refs/heads/main", "files": 2,
            "bytes": 2048, "new_bytes": 1024, "reused_files": 1, "seconds": 0.012,
            "signer": "ed25519:00", "seq": 2, "unchanged": false, "warnings": [], "url": null,
        });
        assert_eq!(
            render(&value),
            "repository  k/a\n\
             commit      c0 on refs/heads/main\n\
             content     2 files, 2.00 KiB; 1.00 KiB new, 1 file not read again (12 ms)\n\
             signed by   ed25519:00, head 2\n"
        );
        value["unchanged"] = json!(true);
        value["url"] = json!("http://127.0.0.1:1/k/a");
        assert_eq!(
            render(&value),
            "repository  k/a\n\
             commit      c0 on refs/heads/main\n\
             content     2 files, 2.00 KiB: nothing changed, nothing signed\n\
             url         http://127.0.0.1:1/k/a\n"
        );
    }
}
