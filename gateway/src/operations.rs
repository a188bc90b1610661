//! How the gateway itself is: `/healthz` for those who restart it, `/metrics` for those who watch it.

use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use cairn_protocol::name::RepoKind;
use serde_json::json;

use crate::error::{ApiError, reading_only};
use crate::gateway::Gateway;
use crate::metrics;
use crate::reply::Reply;

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/healthz", any(health))
        .route("/metrics", any(scrape))
}

/// Answers without a look at the disk: whoever gets this talks to a gateway that runs.
async fn health(State(gateway): State<Gateway>, method: Method) -> Result<Reply, ApiError> {
    reading_only(&method)?;
    Ok(Reply::json(&json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "peer_id": gateway.node().peer_id(),
        "generation": gateway.node().repos().generation(),
    })))
}

async fn scrape(State(gateway): State<Gateway>, method: Method) -> Result<Response, ApiError> {
    reading_only(&method)?;
    let text = gateway
        .blocking(|gateway| {
            observe(gateway);
            Ok(metrics::render())
        })
        .await?;
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, text).into_response())
}

/// Looks at what is not counted as it happens.
fn observe(gateway: &Gateway) {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    for kind in RepoKind::ALL {
        let repos = gateway.node().repos().list(kind);
        let count = repos.iter().filter(|repo| !repo.is_private()).count();
        metrics::repositories(kind, count as f64);
    }
    metrics::documents(gateway.documents().count());
}
