//! `cairn up`: a node and its gateway, until stopped.

use std::process::ExitCode;

use cairn_gateway::Tls;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::service::{self, Service, Signals};
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<ExitCode, Failure> {
    let values = &session.settings.values;
    let tls = match (&values.tls_certificate, &values.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::load(certificate.clone(), key.clone())?),
        _ => None,
    };
    service::block_on(serve(session, tls))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(session: &Session, tls: Option<Tls>) -> Result<(), Failure> {
    let settings = &session.settings;
    let public_url = settings.values.public_url.clone();
    let gateway = settings.values.gateway;
    let signals = Signals::bind()?;
    let config = cairn_gateway::Config {
        public_url: public_url.clone(),
        tls,
        xet_downloads: settings.values.xet_downloads,
        ..cairn_gateway::Config::default()
    };
    let service = Service::start(settings.networked(), gateway, config).await?;
    let first = service
        .node
        .begin_accounts()
        .map_err(|error| Failure::new(error.to_string()))?;
    let value = json!({
        "admin_user": first.as_ref().map(|first| &first.user),
        "admin_token": first.as_ref().map(|first| &first.token),
        "gateway_url": service.gateway_url,
        "public_url": public_url,
        "data": settings.data.to_string_lossy(),
        "namespace": service.node.namespace(),
        "namespace_alias": settings.values.namespace_alias,
        "peer_id": service.node.peer_id(),
        "listen_addrs": service.node.listen_addrs(),
    });
    output::print(&value, session.json, render)?;
    service.run(signals).await
}

/// The first line has one space, so that scripts can take the URL from it.
fn render(value: &Value) -> String {
    let text = |member| output::text(value, member);
    let mut lines = vec![format!("gateway {}", text("gateway_url"))];
    if value["public_url"].is_string() {
        lines.push(format!("public  {}", text("public_url")));
    }
    lines.push(format!("data    {}", text("data")));
    lines.push(format!(
        "names   {}/… (here also {}/…)",
        text("namespace"),
        text("namespace_alias")
    ));
    lines.push(format!("peer    {}", text("peer_id")));
    lines.extend(
        output::items(value, "listen_addrs")
            .iter()
            .filter_map(Value::as_str)
            .map(|address| format!("listens {address}")),
    );
    if value["admin_token"].is_string() {
        lines.push(format!(
            "token   {} (of {}; shown this once)",
            text("admin_token"),
            text("admin_user")
        ));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_comes_first() {
        let text = render(&json!({
            "gateway_url": "http://127.0.0.1:1", "public_url": null, "data": "/d",
            "namespace": "kabc", "namespace_alias": "local", "peer_id": "12D3",
            "listen_addrs": ["/ip4/10.0.0.1/tcp/1/p2p/12D3"],
        }));
        assert_eq!(
            text,
            "gateway http://127.0.0.1:1\n\
             data    /d\n\
             names   kabc/… (here also local/…)\n\
             peer    12D3\n\
             listens /ip4/10.0.0.1/tcp/1/p2p/12D3\n"
        );
        let text = render(&json!({
            "gateway_url": "http://127.0.0.1:1", "public_url": null, "data": "/d",
            "namespace": "kabc", "namespace_alias": "local", "peer_id": "12D3",
            "listen_addrs": [], "admin_user": "admin", "admin_token": "hf_x",
        }));
        assert!(text.ends_with("\ntoken   hf_x (of admin; shown this once)\n"));
    }
}
