//! The real node under test, its gateway and its memory.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Time within which whatever must happen has happened, on a loaded machine of two cores.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A running `cairn up` in a folder of its own; killed when dropped.
pub(crate) struct Node {
    home: tempfile::TempDir,
    child: Child,
    pub(crate) address: String,
    gateway: String,
    pub(crate) namespace: String,
}

impl Node {
    /// Starts it on a free port of loopback.
    pub(crate) fn start() -> Self {
        Self::start_beside(&[])
    }

    /// The same, connected to others.
    pub(crate) fn start_beside(peers: &[&Node]) -> Self {
        let home = tempfile::Builder::new().prefix("cairn-").tempdir().unwrap();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let mut command = command(&home);
        command.args(["up", "--gateway", "127.0.0.1:0", "--no-mdns"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        // However full this machine's disk is.
        command.env("CAIRN_CACHE_SIZE", "1GiB");
        for peer in peers {
            command.args(["--peer", &peer.address]);
        }
        let child = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self {
            home,
            child,
            address: String::new(),
            gateway: String::new(),
            namespace: String::new(),
        };
        let status = node.wait("it is up", |node| {
            // Before that, the verb itself would have the data folder open for a moment.
            node.log().contains("gateway http").then_some(())?;
            let status = node.try_json(&["status"])?;
            status["gateway_url"].is_string().then_some(status)
        });
        node.address = status["listen_addrs"][0].as_str().unwrap().to_owned();
        let url = status["gateway_url"].as_str().unwrap();
        node.gateway = url.trim_start_matches("http://").to_owned();
        node.namespace = status["namespace"].as_str().unwrap().to_owned();
        node
    }

    /// Asks until there is an answer.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(
                Instant::now() < end,
                "not within {PATIENCE:?}: {what}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// A verb with `--json`, `None` where it failed.
    pub(crate) fn try_json(&self, arguments: &[&str]) -> Option<Value> {
        let done = command(&self.home)
            .args(arguments)
            .arg("--json")
            .output()
            .unwrap();
        serde_json::from_slice(&done.stdout).ok()
    }

    /// A verb that must succeed.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.try_json(arguments)
            .unwrap_or_else(|| panic!("{arguments:?} failed\n{}", self.log()))
    }

    /// A folder of files below the node's home.
    pub(crate) fn folder(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let folder = self.home.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in files {
            std::fs::write(folder.join(file), bytes).unwrap();
        }
        folder
    }

    /// Status and body of a GET.
    pub(crate) fn get(&self, path: &str) -> (u16, Vec<u8>) {
        self.getter().get(path)
    }

    /// Its gateway, for another thread.
    pub(crate) fn getter(&self) -> Getter {
        Getter {
            host: self.gateway.clone(),
        }
    }

    /// Waits until a repository is shown at a commit.
    #[track_caller]
    pub(crate) fn shows(&self, repo: &str, commit: &str) {
        let path = format!("/api/models/{repo}/revision/{commit}");
        self.wait(&format!("{path} is shown"), |node| {
            (node.get(&path).0 == 200).then_some(())
        });
    }

    /// Ids of all models.
    pub(crate) fn models(&self) -> Vec<String> {
        let (status, body) = self.get("/api/models?limit=1000");
        assert_eq!(status, 200);
        let models: Value = serde_json::from_slice(&body).unwrap();
        let ids = models.as_array().unwrap().iter();
        let ids = ids.map(|model| model["id"].as_str().unwrap().to_owned());
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        ids
    }

    /// Peer ids that it is connected to.
    pub(crate) fn peers(&self) -> Vec<String> {
        let peers = self.json(&["peers"]);
        let peers = peers["peers"].as_array().unwrap().iter();
        peers
            .map(|peer| peer["peer_id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until a peer is no longer connected, and the log says once why.
    #[track_caller]
    pub(crate) fn drops(&self, peer: &str, why: &str) {
        self.wait(&format!("{peer} is dropped because it {why}"), |node| {
            (!node.peers().contains(&peer.to_owned()) && node.log().contains(why)).then_some(())
        });
        let log = self.log();
        let said = log.lines().filter(|line| line.contains(why)).count();
        assert_eq!(said, 1, "said once, not {said} times:\n{}", self.log());
    }

    /// Everything stored is what it should be, nothing panicked, and it still answers.
    #[track_caller]
    pub(crate) fn is_well(&self) {
        let verified = self.json(&["verify"]);
        assert_eq!(
            verified["damaged"].as_array().map(Vec::len),
            Some(0),
            "{verified}"
        );
        assert!(!self.log().contains("panicked"), "{}", self.log());
        assert_eq!(self.get("/healthz").0, 200);
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() << 10
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
}

fn command(home: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command
        .env_clear()
        .env("HOME", home.path())
        .env("CAIRN_DATA", home.path().join("data"))
        .stdin(Stdio::null());
    command
}

/// A client of a gateway.
pub(crate) struct Getter {
    host: String,
}

impl Getter {
    /// Status and body of a GET.
    pub(crate) fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let host = &self.host;
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        // A connection that is cut off gives what came before.
        stream.read_to_end(&mut answer).unwrap_or_default();
        let end = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(&answer)));
        let status = std::str::from_utf8(&answer[9..12]).unwrap();
        (status.parse().unwrap(), answer[end + 4..].to_vec())
    }
}
