//! `cairn demo`: what Cairn does, with two nodes in folders that go away again.
//!
//! The first publishes, the second fetches and serves. They share nothing but the wire: folders, keys and
//! ports are their own, and each is told of nobody else.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use cairn_node::control::{self, Request};
use cairn_node::{Config, NetworkConfig};
use cairn_protocol::name::RepoKind;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::output;
use crate::sample;
use crate::service::{self, Service, Signals};
use crate::session::Session;

/// Bytes that the second node may keep: the sample is far smaller, however full the disk is.
const CACHE_BYTES: u64 = 64 << 20;
/// Time that the two have to close their connections before what is left of them is cut off.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn run(session: &Session) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("cairn-demo-")
        .tempdir()
        .context("make a folder for the demo")?;
    let ended = service::block_on(serve(session.json, folder.path()));
    let path = folder.path().to_owned();
    remove(folder).with_context(|| format!("remove the demo's folder {}", path.display()))?;
    ended.map(|()| ExitCode::SUCCESS)
}

/// A node that was cut off may still write a last file while its folder goes.
fn remove(folder: tempfile::TempDir) -> std::io::Result<()> {
    let path = folder.keep();
    let begin = Instant::now();
    loop {
        match std::fs::remove_dir_all(&path) {
            Err(error) if begin.elapsed() > CLOSE_TIMEOUT => return Err(error),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
            Ok(()) => return Ok(()),
        }
    }
}

async fn serve(json: bool, folder: &Path) -> Result<(), Failure> {
    let mut signals = Signals::bind()?;
    let prepared = tokio::select! {
        prepared = prepare(folder) => prepared?,
        () = signals.next() => return Ok(()),
    };
    let (services, value) = prepared;
    output::print(&value, json, render)?;
    service::run(services, signals).await
}

/// Publishes on one node and fetches on the other; what was seen of it.
async fn prepare(folder: &Path) -> Result<(Vec<Service>, Value), Failure> {
    let model = folder.join(sample::NAME);
    std::fs::create_dir(&model).context("make the sample model's folder")?;
    sample::write(&model).context("write the sample model")?;
    let model = std::fs::canonicalize(&model).context("find the sample model's folder")?;

    let (first_data, data) = (folder.join("publisher"), folder.join("data"));
    let first = start(&first_data, Vec::new()).await?;
    let second = start(&data, first.node.listen_addrs()).await?;
    let pushed = push(&first, model).await?;
    let begin = Instant::now();
    let repo = output::text(&pushed, "repo");
    let pulled = pull(&second, &repo).await?;
    let transfer = crossed(&first, &second, &pulled)?;
    let value = json!({
        "gateway_url": second.gateway_url,
        "data": data.to_string_lossy(),
        "repo": repo,
        "namespace": first.node.namespace(),
        "push": pushed,
        "publisher": {
            "data": first_data.to_string_lossy(),
            "gateway_url": first.gateway_url,
            "peer_id": first.node.peer_id(),
            "listen_addrs": first.node.listen_addrs(),
        },
        "peer_id": second.node.peer_id(),
        "pull": pulled,
        "transfer": transfer,
        "seconds": begin.elapsed().as_secs_f64(),
    });
    Ok((vec![second, first], value))
}

/// A node of the demo, which is the same everywhere: no settings reach it, and it finds nobody by itself.
async fn start(data: &Path, peers: Vec<String>) -> Result<Service, Failure> {
    let config = Config {
        network: Some(NetworkConfig {
            listen: ["/ip4/127.0.0.1/tcp/0".to_owned()].into(),
            peers,
            mdns: false,
            ..NetworkConfig::default()
        }),
        cache_bytes: Some(CACHE_BYTES),
        ..Config::new(data)
    };
    let gateway = cairn_gateway::Config::default();
    Service::start(config, ([127, 0, 0, 1], 0).into(), gateway).await
}

async fn push(service: &Service, dir: PathBuf) -> Result<Value, Failure> {
    let request = Request::Push {
        dir,
        repo: sample::NAME.to_owned(),
        kind: RepoKind::Model,
        reference: "main".to_owned(),
        message: Some("A sample model".to_owned()),
    };
    ask(service, request).await
}

async fn pull(service: &Service, repo: &str) -> Result<Value, Failure> {
    let request = Request::Pull {
        repo: repo.to_owned(),
        to: None,
        include: Vec::new(),
        exclude: Vec::new(),
        peers: Vec::new(),
    };
    ask(service, request).await
}

async fn ask(service: &Service, request: Request) -> Result<Value, Failure> {
    let node = service.node.clone();
    let stop = CancellationToken::new();
    // Ends a pull with the future that waits for it.
    let _guard = stop.clone().drop_guard();
    let done = tokio::task::spawn_blocking(move || {
        control::execute_until(&node, request, &mut |_| (), &stop)
    });
    let answer = done.await.context("ask a node of the demo")??;
    Ok(answer)
}

/// What crossed the wire, counted at the end that took it; a failure where that is less than was fetched.
fn crossed(first: &Service, second: &Service, pulled: &Value) -> Result<Value, Failure> {
    let fetched = output::number(pulled, "fetched_bytes");
    let counted = |service: &Service, member| -> Result<u64, Failure> {
        let answer = control::execute(&service.node, Request::Peers, &mut |_| ())?;
        let peers = output::items(&answer, "peers");
        Ok(peers.iter().map(|peer| output::number(peer, member)).sum())
    };
    let taken = counted(second, "taken_bytes")?;
    let sent = counted(first, "sent_bytes")?;
    if fetched == 0 || taken < fetched {
        return Err(Failure::new(format!(
            "the demo failed: of {fetched} bytes fetched only {taken} came over the wire"
        )));
    }
    Ok(json!({"taken_bytes": taken, "sent_bytes": sent, "fetched_bytes": fetched}))
}

fn render(value: &Value) -> String {
    let (push, pull) = (&value["push"], &value["pull"]);
    let (url, repo) = (
        output::text(value, "gateway_url"),
        output::text(value, "repo"),
    );
    let program = std::env::current_exe()
        .map_or_else(|_| "cairn".to_owned(), |path| path.display().to_string());
    let seconds = pull["fetch_seconds"].as_f64().unwrap_or(0.0).max(0.0);
    format!(
        r#"Two nodes run, each with its own folder and keys; they share nothing but the wire.
The first published {repo}
  content    {files}, {bytes} hashed with BLAKE3 and SHA-256 and stored durably in {speed}
  commit     {commit} on {reference}
  signed by  {signer}
The second fetched it from the first, and serves it at {url}
  verified   the head's signature, BLAKE3 of every piece, SHA-256 and git id of every file
  wire       {taken} taken from {peer}
  files      {fetched} in {pace}; signature, trees and card came before them

Try in another terminal:
  HF_ENDPOINT={url} hf download {repo}
  HF_ENDPOINT={url} python3 -c '
from transformers import AutoModel
print(AutoModel.from_pretrained("{repo}"))'
  {program} --data {data} peers

Ctrl-C stops both nodes and removes their folders.
"#,
        files = output::count(output::number(push, "files"), "file"),
        bytes = output::bytes(push, "bytes"),
        speed = output::speed(push, "new_bytes"),
        commit = output::text(push, "commit"),
        reference = output::text(push, "ref"),
        signer = output::text(push, "signer"),
        taken = output::bytes(&value["transfer"], "taken_bytes"),
        peer = output::text(&value["publisher"], "peer_id"),
        fetched = output::bytes(pull, "fetched_bytes"),
        pace = output::pace(output::number(pull, "fetched_bytes"), seconds),
        data = output::text(value, "data"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_is_told_in_twenty_lines_with_commands_to_copy() {
        let text = render(&json!({
            "gateway_url": "http://127.0.0.1:1", "data": "/d", "repo": "kabc/tiny-bert",
            "namespace": "kabc", "push": {
                "files": 8, "bytes": 120_000, "new_bytes": 120_000, "seconds": 0.01, "commit": "c0",
                "ref": "refs/heads/main", "signer": "ed25519:00",
            },
            "publisher": {"peer_id": "12D3"},
            "pull": {"fetched_bytes": 110_000, "fetch_seconds": 0.02},
            "transfer": {"taken_bytes": 118_000},
        }));
        assert!(text.lines().count() <= 20, "{text}");
        assert!(text.contains("\n  HF_ENDPOINT=http://127.0.0.1:1 hf download kabc/tiny-bert\n"));
        assert!(text.contains("8 files, 117.19 KiB hashed"));
        assert!(text.contains("115.23 KiB taken from 12D3\n"), "{text}");
        assert!(text.contains("107.42 KiB in 20 ms"), "{text}");
    }
}
