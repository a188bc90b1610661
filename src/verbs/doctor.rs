//! `cairn doctor`: is the data folder sound?

use std::process::ExitCode;

use cairn_node::control::Request;
use serde_json::Value;

use crate::failure::Failure;
use crate::output;
use crate::session::Session;

pub(crate) fn run(session: &Session, rebuild: bool) -> Result<ExitCode, Failure> {
    let answer = session.ask(&Request::Doctor { rebuild })?;
    output::print(&answer.value, session.json, render)?;
    Ok(if output::flag(&answer.value, "ok") {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn render(value: &Value) -> String {
    let rows: Vec<Vec<String>> = output::items(value, "checks")
        .iter()
        .map(|check| {
            let verdict = if output::flag(check, "ok") {
                "ok"
            } else {
                "BAD"
            };
            vec![
                output::text(check, "name"),
                verdict.to_owned(),
                output::text(check, "detail"),
            ]
        })
        .collect();
    let mut text = output::table(&["CHECK", "RESULT", "DETAIL"], &rows);
    if output::flag(value, "rebuilt") {
        text += "indexes made anew\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bad_check_stands_out() {
        let text = render(&json!({"ok": false, "rebuilt": true, "checks": [
            {"name": "format", "ok": true, "detail": "1"},
            {"name": "log", "ok": false, "detail": "damaged at byte 12"},
        ]}));
        assert_eq!(
            text,
            "CHECK   RESULT  DETAIL\nformat  ok      1\nlog     BAD     damaged at byte 12\n\
             indexes made anew\n"
        );
    }
}
