//! `cairn ls`: all repositories.

use std::process::ExitCode;

use cairn_node::control::Request;
use serde_json::Value;

use crate::cli;
use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &cli::Ls) -> Result<ExitCode, Failure> {
    let kind = arguments.kind();
    let answer = session.ask(&Request::Ls { kind })?;
    if !session.json && output::items(&answer.value, "repositories").is_empty() {
        output::message("no repositories; `cairn push DIR NAME` publishes one\n");
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let rows: Vec<Vec<String>> = output::items(value, "repositories")
        .iter()
        .map(|repo| {
            let marks = ["pinned", "frozen"];
            let marks = marks.into_iter().filter(|mark| output::flag(repo, mark));
            vec![
                output::text(repo, "repo"),
                output::text(repo, "kind"),
                output::text(repo, "files"),
                output::bytes(repo, "bytes"),
                output::age(repo, "last_modified"),
                output::text(repo, "commit").chars().take(10).collect(),
                marks.collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    let titles = [
        "REPOSITORY",
        "KIND",
        "FILES",
        "SIZE",
        "UPDATED",
        "COMMIT",
        "",
    ];
    output::table(&titles, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_for_each_repository() {
        let text = render(&json!({"repositories": [
            {"repo": "a/b", "kind": "model", "commit": "0123456789abcdef", "files": 3,
             "bytes": 1024, "last_modified": null, "pinned": true, "frozen": false},
            {"repo": "a/long", "kind": "dataset", "commit": null, "pinned": false},
        ]}));
        assert_eq!(
            text,
            "REPOSITORY  KIND     FILES  SIZE      UPDATED  COMMIT\n\
             a/b         model    3      1.00 KiB  -        0123456789  pinned\n\
             a/long      dataset  -      -         -        -\n"
        );
    }
}
