//! `cairn verify`: reads everything again, and checks hashes and signatures.

use std::fmt::Write;
use std::process::ExitCode;

use cairn_node::control::Request;
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, repo: Option<String>) -> Result<ExitCode, Failure> {
    let answer = session.ask(&Request::Verify { repo })?;
    output::print(&answer.value, session.json, render)?;
    let damaged = output::items(&answer.value, "damaged");
    if damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(format!(
        "{} damaged",
        output::count(damaged.len() as u64, "object")
    ))
    .hint("damaged content is not served; push the files again to replace it"))
}

fn render(value: &Value) -> String {
    let mut text = format!(
        "checked {}, {}, {}, {} ({})\n",
        output::count(output::number(value, "repositories"), "repository"),
        output::count(output::number(value, "records"), "record"),
        output::count(output::number(value, "blobs"), "blob"),
        output::bytes(value, "bytes"),
        output::speed(value, "bytes"),
    );
    let damaged = output::items(value, "damaged");
    if damaged.is_empty() {
        text += "all sound\n";
    }
    // What others signed and is not so: nothing that this node could put right.
    let invalid = output::items(value, "invalid");
    let damaged = damaged.iter().map(|item| ("damaged", item));
    let invalid = invalid.iter().map(|item| ("invalid as published", item));
    for (what, item) in damaged.chain(invalid) {
        let named = |member: &str| item[member].as_str().unwrap_or_default().to_owned();
        let file = match (named("repo"), named("file")) {
            (repo, _) if repo.is_empty() => String::new(),
            (repo, file) if file.is_empty() => format!(" of {repo}"),
            (repo, file) => format!(" {file} of {repo}"),
        };
        let path = match named("path") {
            path if path.is_empty() => path,
            path => format!(" ({path})"),
        };
        let (hash, reason) = (output::text(item, "hash"), output::text(item, "reason"));
        writeln!(text, "{what}: {hash}{file}{path}: {reason}")
            .expect("invariant: writing to a string never fails");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn damage_is_named_by_hash_repository_and_file() {
        let mut value = json!({
            "repositories": 1, "records": 5, "blobs": 9, "bytes": 2048, "seconds": 0.5, "damaged": [],
        });
        assert_eq!(
            render(&value),
            "checked 1 repository, 5 records, 9 blobs, 2.00 KiB (500 ms)\nall sound\n"
        );
        value["damaged"] = json!([
            {"hash": "ab", "path": "/d/blobs/ab", "repo": "k/a", "file": "x.bin", "reason": "wrong hash"},
            {"hash": "cd", "reason": "absent"},
        ]);
        assert!(render(&value).ends_with(
            "damaged: ab x.bin of k/a (/d/blobs/ab): wrong hash\ndamaged: cd: absent\n"
        ));
        value["damaged"] = json!([]);
        value["invalid"] = json!([{"hash": "ef", "repo": "k/b", "reason": "wrong digests"}]);
        assert!(
            render(&value).ends_with("all sound\ninvalid as published: ef of k/b: wrong digests\n")
        );
    }
}
