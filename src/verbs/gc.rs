//! `cairn gc`: frees what nothing pins or names.

use std::process::ExitCode;

use cairn_node::control::Request;
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, dry_run: bool) -> Result<ExitCode, Failure> {
    let answer = session.ask(&Request::Gc { dry_run })?;
    output::print(&answer.value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn render(value: &Value) -> String {
    let verb = if output::flag(value, "dry_run") {
        "would free"
    } else {
        "freed"
    };
    format!(
        "{verb} {} ({}), kept {} ({})\n",
        output::bytes(value, "bytes"),
        output::count(output::number(value, "blobs"), "blob"),
        output::bytes(value, "kept_bytes"),
        output::count(output::number(value, "kept_blobs"), "blob"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dry_run_says_so() {
        let value = |dry_run: bool| json!({"dry_run": dry_run, "blobs": 1, "bytes": 2048, "kept_blobs": 2, "kept_bytes": 10});
        assert_eq!(
            render(&value(true)),
            "would free 2.00 KiB (1 blob), kept 10 B (2 blobs)\n"
        );
        assert!(render(&value(false)).starts_with("freed 2.00 KiB"));
    }
}
