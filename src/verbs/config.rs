//! `cairn config show`: the settings in effect, and where each comes from.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::output;
use crate::session::Session;
use crate::settings::{Settings, Values};

pub(crate) fn run(session: &Session) -> Result<ExitCode, Failure> {
    let value = effective(&session.settings)?;
    output::print(&value, session.json, render)?;
    Ok(ExitCode::SUCCESS)
}

fn effective(settings: &Settings) -> Result<Value, Failure> {
    let values = serde_json::to_value(&settings.values).context("write the settings as JSON")?;
    let shown: Map<String, Value> = Values::NAMES
        .into_iter()
        .map(|name| {
            let value = json!({"value": values[name], "origin": settings.origin(name)});
            (name.to_owned(), value)
        })
        .collect();
    Ok(json!({
        "data": {"value": settings.data.to_string_lossy(), "origin": settings.data_origin},
        "file": settings.file.as_ref().map(|file| file.to_string_lossy()),
        "settings": shown,
    }))
}

fn render(value: &Value) -> String {
    let setting = |name: &str, entry: &Value| {
        let value = match &entry["value"] {
            Value::Null => "(not set)".to_owned(),
            Value::Object(aliases) if aliases.is_empty() => "(none)".to_owned(),
            Value::Object(aliases) => aliases
                .iter()
                .map(|(alias, target)| format!("{alias} = {target}"))
                .collect::<Vec<_>>()
                .join(", "),
            other => other.to_string(),
        };
        vec![name.to_owned(), value, output::text(entry, "origin")]
    };
    let mut rows = vec![setting("data", &value["data"])];
    rows.extend(
        Values::NAMES
            .into_iter()
            .map(|name| setting(name, &value["settings"][name])),
    );
    let file = value["file"].as_str().unwrap_or("none");
    format!(
        "settings file: {file}\n\n{}",
        output::table(&["SETTING", "VALUE", "ORIGIN"], &rows)
    )
}
