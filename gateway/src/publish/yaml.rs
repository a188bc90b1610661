//! `POST /api/validate-yaml`: clients ask before every commit that has a README.

use cairn_protocol::card;
use cairn_protocol::name::RepoKind;
use serde::Deserialize;
use serde_json::json;

use super::Order;
use crate::error::ApiError;
use crate::reply::Reply;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Validate {
    content: String,
    #[serde(default)]
    repo_type: Option<String>,
}

/// Answers in JSON whatever it finds: clients parse it before they look at the status.
pub(super) fn validate(order: &Order<'_>) -> Result<Reply, ApiError> {
    let asked: Validate = order.json()?;
    let kind = match asked.repo_type.as_deref() {
        Some("dataset") => RepoKind::Dataset,
        Some("space") => RepoKind::Space,
        _ => RepoKind::Model,
    };
    let (card, warning) = card::parse(asked.content.as_bytes(), kind);
    let mut errors = Vec::new();
    if let Some(warning) = warning {
        let message = format!("line {}: {}", warning.line, warning.message);
        errors.push(json!({ "message": message }));
    }
    let index = card.data.get("model-index");
    if index.is_some_and(|index| !index.is_array() && !index.is_null()) {
        errors.push(json!({ "message": "\"model-index\" must be an array" }));
    }
    let reply = Reply::json(&json!({ "errors": errors, "warnings": [] }));
    Ok(if errors.is_empty() {
        reply
    } else {
        reply.bad_request()
    })
}
