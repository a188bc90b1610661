//! Files that the gateway's node lacks: two whole nodes on loopback, one publishes, the other serves.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use cairn_gateway::{Config, Gateway};
use cairn_node::config::NetworkConfig;
use cairn_node::publish::PushRequest;
use cairn_node::repos::{Commit, EntryKind, Found};
use cairn_node::store::Content;
use cairn_node::{Config as NodeConfig, Node};
use cairn_protocol::hash::Blake3;
use cairn_protocol::name::RepoKind;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Client};
use crate::server::expected;

const MIB: usize = 1 << 20;
/// Longest wait for anything between the nodes.
const PATIENCE: Duration = Duration::from_mins(1);

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn spawn(data: &Path, network: NetworkConfig) -> Node {
    let config = NodeConfig {
        network: Some(network),
        // However full the disk is.
        cache_bytes: Some(1 << 30),
        ..NodeConfig::new(data)
    };
    Node::spawn(config).unwrap()
}

fn network(listen: &str) -> NetworkConfig {
    NetworkConfig {
        listen: vec![listen.to_owned()],
        ..NetworkConfig::default()
    }
}

/// Where a node listens on TCP, to be dialled.
fn address(node: &Node) -> String {
    wait_for("an address", || {
        node.listen_addrs()
            .into_iter()
            .find(|address| address.contains("/tcp/"))
    })
}

/// A publishes, and may go away; B follows, and has a gateway. B holds nothing at the start.
struct World {
    a: Option<Node>,
    b: Node,
    /// Of A, with its peer id.
    address: String,
    repo: String,
    gateway: SocketAddr,
    shutdown: CancellationToken,
    runtime: Option<Runtime>,
    data_a: TempDir,
    _data_b: TempDir,
}

impl World {
    fn new(files: &[(&str, Vec<u8>)], upload_rate: Option<u64>) -> Self {
        let (data_a, data_b, folder) = (
            TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
        );
        for (path, bytes) in files {
            std::fs::write(folder.path().join(path), bytes).unwrap();
        }
        let a = spawn(
            data_a.path(),
            NetworkConfig {
                upload_rate,
                ..network("/ip4/127.0.0.1/tcp/0")
            },
        );
        let request = PushRequest {
            dir: folder.path().to_owned(),
            repo: "tiny".to_owned(),
            kind: RepoKind::Model,
            reference: "main".to_owned(),
            message: None,
        };
        let pushed = a.push(&request, &mut |_| {}).unwrap();
        let address = address(&a);
        let b = spawn(
            data_b.path(),
            NetworkConfig {
                peers: vec![address.clone()],
                ..network("/ip4/127.0.0.1/tcp/0")
            },
        );
        let repo = format!("{}/tiny", a.namespace());
        wait_for("the head of A at B", || {
            let found = b.repos().find(RepoKind::Model, &repo);
            matches!(found, Ok(Found::Repo(found)) if found.commit(&pushed.commit.to_hex()).is_ok())
                .then_some(())
        });
        let runtime = Runtime::new().unwrap();
        let shutdown = CancellationToken::new();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let gateway = listener.local_addr().unwrap();
        let serving = Gateway::new(b.clone(), Config::default()).serve(listener, shutdown.clone());
        runtime.spawn(serving);
        Self {
            a: Some(a),
            b,
            address,
            repo,
            gateway,
            shutdown,
            runtime: Some(runtime),
            data_a,
            _data_b: data_b,
        }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    fn path(&self, file: &str) -> String {
        format!("/{}/resolve/main/{file}", self.repo)
    }

    fn get(&self, file: &str, headers: &str) -> Answer {
        let path = self.path(file);
        self.run(async {
            let mut client = Client::connect(self.gateway).await;
            client.get(&path, headers).await.expect("an answer")
        })
    }

    fn head(&self, file: &str, headers: &str) -> Answer {
        let path = self.path(file);
        self.run(async {
            let mut client = Client::connect(self.gateway).await;
            let head = format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
            client.send(&head).await;
            client.answer(false).await.expect("an answer")
        })
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.run(async {
            let mut client = Client::connect(self.gateway).await;
            client.get(path, "").await.expect("an answer")
        });
        assert_eq!(answer.status, 200);
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn hash(&self, file: &str) -> Blake3 {
        let Found::Repo(repo) = self.b.repos().find(RepoKind::Model, &self.repo).unwrap() else {
            panic!("renamed");
        };
        let commit: Commit = repo.commit("main").unwrap();
        match commit.entry(file).unwrap().unwrap().kind {
            EntryKind::File(file) => file.blake3.unwrap(),
            EntryKind::Directory => panic!("a folder"),
        }
    }

    /// Bytes of content that B took from others.
    fn taken(&self) -> u64 {
        self.b.traffic().iter().map(|(_, _, taken)| taken).sum()
    }

    fn stop_a(&mut self) {
        drop(self.a.take());
        wait_for("B sees A go", || self.b.peers().is_empty().then_some(()));
    }

    fn start_a(&mut self) {
        let listen = self.address.split("/p2p/").next().unwrap();
        self.a = Some(spawn(self.data_a.path(), network(listen)));
        wait_for("B sees A again", || {
            (!self.b.peers().is_empty()).then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // Before the nodes, which may not end on a thread of a runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }
}

fn safetensors(bytes: usize) -> Vec<u8> {
    let header = br#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend(expected(file.len()..bytes));
    file
}

#[test]
fn a_file_of_another_node_is_served_as_if_it_had_always_been_here() {
    let model = safetensors(5 * MIB + 77);
    let world = World::new(
        &[
            (
                "config.json",
                br#"{"model_type":"bert","architectures":["BertModel"]}"#.to_vec(),
            ),
            ("model.safetensors", model.clone()),
            ("notes.txt", expected(0..3_000)),
            ("empty.txt", Vec::new()),
        ],
        None,
    );
    let before = world.taken();
    let head = world.head("model.safetensors", "");
    assert_eq!(head.status, 200);
    let length = model.len().to_string();
    assert_eq!(head.header("content-length"), Some(length.as_str()));
    let etag = head.header("etag").unwrap().to_owned();
    let unchanged = world.get_unchanged("model.safetensors", &etag);
    assert_eq!(unchanged, 304);
    let hash = world.hash("model.safetensors");
    assert!(world.b.content(&hash).is_err(), "a HEAD fetched the file");
    assert!(world.b.transfers().is_empty());
    assert_eq!(world.taken(), before);

    let got = world.get("model.safetensors", "");
    assert_eq!((got.status, got.header("etag")), (200, Some(etag.as_str())));
    assert!(got.body == model);
    assert!(matches!(world.b.content(&hash), Ok(Content::Flat(_))));
    let taken = world.taken();
    assert!(taken >= before + model.len() as u64);
    let again = world.get("model.safetensors", "Range: bytes=5-\r\n");
    assert_eq!(again.status, 206);
    assert!(again.body == model[5..]);
    assert_eq!(world.taken(), taken, "what is here is fetched again");

    assert!(world.get("notes.txt", "").body == expected(0..3_000));
    let empty = world.get("empty.txt", "");
    assert_eq!((empty.status, empty.body), (200, Vec::new()));
}

impl World {
    fn get_unchanged(&self, file: &str, etag: &str) -> u16 {
        self.head(file, &format!("If-None-Match: {etag}\r\n"))
            .status
    }
}

#[test]
fn what_a_model_is_follows_from_files_that_are_fetched_for_it() {
    let model = safetensors(64 * MIB);
    let world = World::new(
        &[
            (
                "config.json",
                br#"{"model_type":"bert","architectures":["BertModel"]}"#.to_vec(),
            ),
            ("model.safetensors", model),
        ],
        None,
    );
    let list = world.json("/api/models?config=true");
    assert_eq!(list[0]["config"], Value::Null, "a listing fetches nothing");
    let info = world.json(&format!("/api/models/{}", world.repo));
    assert_eq!(info["config"]["model_type"], "bert");
    assert_eq!(info["safetensors"]["total"], 6);
    assert!(
        world.taken() < 16 * MIB as u64,
        "all of a model's weights came"
    );
    let weights = world.json(&format!(
        "/api/models/{}/safetensors-metadata/model.safetensors",
        world.repo
    ));
    assert_eq!(weights["headers"]["model.safetensors"]["a"]["dtype"], "F32");
}

#[test]
fn a_bounded_range_does_not_wait_for_the_file() {
    let bytes = expected(0..64 * MIB);
    let world = World::new(&[("data.parquet", bytes.clone())], None);
    let last = bytes.len() - 1;
    let footer = world.get(
        "data.parquet",
        &format!("Range: bytes={}-{last}\r\n", last - 9_999),
    );
    assert_eq!(footer.status, 206);
    assert!(footer.body == bytes[last - 9_999..]);
    let middle = world.get("data.parquet", "Range: bytes=33554000-33555000\r\n");
    assert!(middle.body == bytes[33_554_000..=33_555_000]);
    let taken = world.taken();
    assert!(
        taken < 8 * MIB as u64,
        "{taken} bytes came for two small ranges"
    );
}

#[test]
fn ten_clients_at_once_cause_one_download() {
    let bytes = expected(0..24 * MIB);
    let world = World::new(&[("model.bin", bytes.clone())], None);
    let path = world.path("model.bin");
    world.run(async {
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let (path, address) = (path.clone(), world.gateway);
                tokio::spawn(async move {
                    let mut client = Client::connect(address).await;
                    client.get(&path, "").await.expect("an answer").body
                })
            })
            .collect();
        for client in clients {
            assert!(client.await.unwrap() == bytes);
        }
    });
    let taken = world.taken();
    assert!(taken < 26 * MIB as u64, "{taken} bytes came for one file");
}

#[test]
fn a_download_whose_source_goes_away_ends_short_and_is_taken_up_again() {
    let bytes = expected(0..48 * MIB);
    let mut world = World::new(&[("model.bin", bytes.clone())], Some(8 << 20));
    let path = world.path("model.bin");
    let (mut client, length) = world.run(async {
        let mut client = Client::connect(world.gateway).await;
        client
            .send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await;
        let (answer, length) = client.head().await.expect("an answer");
        assert_eq!(answer.status, 200);
        let start = client.take(4 * MIB).await;
        assert!(start == bytes[..4 * MIB]);
        (client, length)
    });
    assert_eq!(length, bytes.len());
    drop(world.a.take());
    let rest = world.run(async { client.rest().await });
    let had = 4 * MIB + rest;
    assert!(had < length, "a body ended as if it were whole");

    world.stop_a();
    let absent = world.get("model.bin", &format!("Range: bytes={}-\r\n", 47 * MIB));
    assert_eq!(absent.status, 503);
    assert_eq!(absent.header("x-error-code"), Some("ContentAbsent"));
    assert!(absent.header("retry-after").is_some());
    assert_eq!(world.head("model.bin", "").status, 200);

    let before = world.taken();
    world.start_a();
    let resumed = world.get("model.bin", &format!("Range: bytes={had}-\r\n"));
    assert_eq!(resumed.status, 206);
    assert!(resumed.body == bytes[had..]);
    let taken = world.taken() - before;
    assert!(
        taken <= (length - 4 * MIB + 16 * MIB) as u64,
        "{taken} bytes came again"
    );
}

#[test]
fn a_client_that_goes_away_stops_its_download() {
    let bytes = expected(0..48 * MIB);
    let world = World::new(&[("model.bin", bytes)], Some(8 << 20));
    let path = world.path("model.bin");
    let mut client = world.run(async {
        let mut client = Client::connect(world.gateway).await;
        client
            .send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await;
        client.head().await.expect("an answer");
        client
    });
    world.run(client.take(MIB));
    assert!(!world.b.transfers().is_empty());
    drop(client);
    wait_for("the download stops", || {
        world.b.transfers().is_empty().then_some(())
    });
    assert!(world.b.content(&world.hash("model.bin")).is_err());
}

#[test]
fn a_damaged_file_is_healed_while_it_is_asked_for() {
    let bytes = expected(0..5 * MIB);
    let world = World::new(&[("model.bin", bytes.clone())], None);
    assert!(world.get("model.bin", "").body == bytes);
    let hash = world.hash("model.bin");
    let Ok(Content::Flat(flat)) = world.b.content(&hash) else {
        panic!("a large file is a flat one");
    };
    let mut permissions = std::fs::metadata(&flat.path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "a file of this test")]
    permissions.set_readonly(false);
    std::fs::set_permissions(&flat.path, permissions).unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&flat.path)
        .unwrap();
    let place = 3 * MIB as u64 + 7;
    let wrong = bytes[3 * MIB + 7] ^ 1;
    std::os::unix::fs::FileExt::write_all_at(&file, &[wrong], place).unwrap();
    drop(file);
    let healed = world.get("model.bin", "");
    assert_eq!(healed.status, 200);
    assert!(healed.body == bytes);
    assert!(world.b.content(&hash).is_ok());
}
