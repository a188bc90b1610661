//! `cairn demo`: what Cairn does, in a folder that goes away again.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use cairn_node::control::{self, Request};
use cairn_protocol::name::RepoKind;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::sample;
use crate::service::{self, Service};
use crate::session::Session;

pub(crate) fn run(session: &Session) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("cairn-demo-")
        .tempdir()
        .context("make a folder for the demo")?;
    let ended = service::block_on(serve(session.json, folder.path()));
    let path = folder.path().to_owned();
    folder
        .close()
        .with_context(|| format!("remove the demo's folder {}", path.display()))?;
    ended.map(|()| ExitCode::SUCCESS)
}

async fn serve(json: bool, folder: &Path) -> Result<(), Failure> {
    let (data, model) = (folder.join("data"), folder.join(sample::NAME));
    std::fs::create_dir(&model).context("make the sample model's folder")?;
    sample::write(&model).context("write the sample model")?;

    // The demo is the same everywhere: no settings reach it.
    let config = cairn_node::Config::new(&data);
    let alias = config.namespace_alias.clone();
    let any_port = ([127, 0, 0, 1], 0).into();
    let service = Service::start(config, any_port, None).await?;
    let pushed = push(&service, &model).await?;
    let value = json!({
        "gateway_url": service.gateway_url,
        "data": data.to_string_lossy(),
        "repo": format!("{alias}/{}", sample::NAME),
        "namespace": service.node.namespace(),
        "push": pushed,
    });
    output::print(&value, json, render)?;
    service.run().await
}

async fn push(service: &Service, model: &Path) -> Result<Value, Failure> {
    let request = Request::Push {
        dir: std::fs::canonicalize(model).context("find the sample model's folder")?,
        repo: sample::NAME.to_owned(),
        kind: RepoKind::Model,
        reference: "main".to_owned(),
        message: Some("A sample model".to_owned()),
    };
    let node = service.node.clone();
    let pushed = tokio::task::spawn_blocking(move || control::execute(&node, request, &mut |_| ()))
        .await
        .context("publish the sample model")??;
    Ok(pushed)
}

fn render(value: &Value) -> String {
    let push = &value["push"];
    let (url, repo) = (
        output::text(value, "gateway_url"),
        output::text(value, "repo"),
    );
    let program = std::env::current_exe()
        .map_or_else(|_| "cairn".to_owned(), |path| path.display().to_string());
    format!(
        r#"A node runs in {data}; its gateway is {url}
Published {repo}: {files}, {bytes} hashed with BLAKE3 and SHA-256 and stored durably in {speed}
  commit     {commit} on {reference}
  signed by  {signer}
  namespace  {namespace}, here called {alias}

Try in another terminal:
  HF_ENDPOINT={url} hf download {repo}
  HF_ENDPOINT={url} python3 -c '
from transformers import AutoModel
print(AutoModel.from_pretrained("{repo}"))'
  {program} --data {data} ls

Ctrl-C stops the node and removes its folder.
"#,
        data = output::text(value, "data"),
        files = output::count(output::number(push, "files"), "file"),
        bytes = output::bytes(push, "bytes"),
        speed = output::speed(push, "new_bytes"),
        commit = output::text(push, "commit"),
        reference = output::text(push, "ref"),
        signer = output::text(push, "signer"),
        namespace = output::text(value, "namespace"),
        alias = repo.split('/').next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_is_told_in_fifteen_lines_with_commands_to_copy() {
        let text = render(&json!({
            "gateway_url": "http://127.0.0.1:1", "data": "/d", "repo": "local/tiny-bert",
            "namespace": "kabc", "push": {
                "files": 8, "bytes": 120_000, "new_bytes": 120_000, "seconds": 0.01, "commit": "c0",
                "ref": "refs/heads/main", "signer": "ed25519:00",
            },
        }));
        assert!(text.lines().count() <= 15, "{text}");
        assert!(text.contains("\n  HF_ENDPOINT=http://127.0.0.1:1 hf download local/tiny-bert\n"));
        assert!(text.contains("8 files, 117.19 KiB hashed"));
    }
}
