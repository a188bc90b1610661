//! Runs the binary in a world of its own: no settings of the machine reach it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where nodes listen for peers.
pub(crate) const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// A home folder with nothing in it, removed at the end.
pub(crate) struct World {
    pub(crate) home: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("CAIRN_DATA", self.data())
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Makes a folder with the given files.
    pub(crate) fn folder(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let folder = self.path(name);
        for (file, bytes) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    /// Starts `cairn up` and reads its first line.
    pub(crate) fn up(&self) -> Up {
        self.up_with(&[])
    }

    /// The same with more arguments; it meets nobody that they don't name.
    pub(crate) fn up_with(&self, arguments: &[&str]) -> Up {
        let alone = [
            "up",
            "--gateway",
            "127.0.0.1:0",
            "--listen",
            LOOPBACK,
            "--no-mdns",
        ];
        Up::start(self.command(&[&alone, arguments].concat()))
    }

    /// An address that peers of this machine reach the running node at.
    pub(crate) fn address(&self) -> String {
        let status = self.run(&["status", "--json"]).json();
        status["listen_addrs"][0].as_str().unwrap().to_owned()
    }
}

/// How a command ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Its stdout, where all went well and nothing was said.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        self.stdout
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let stdout = self.ok();
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Its stderr, where it failed with that code and printed no data.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (Some(code), ""),
            "{}",
            self.stderr
        );
        self.stderr
    }
}

/// A running `cairn up` (or `demo`); killed when dropped.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
    pub(crate) first: String,
    pub(crate) ready_after: Duration,
}

impl Up {
    pub(crate) fn start(mut command: Command) -> Self {
        let begin = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let ready_after = begin.elapsed();
        if first.is_empty() {
            let mut stderr = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut stderr)
                .unwrap();
            panic!("no first line; {:?}: {stderr}", child.wait());
        }
        Self {
            child,
            stdout,
            first,
            ready_after,
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.unwrap().success());
    }

    /// URL in the first line.
    pub(crate) fn url(&self) -> &str {
        let line = self.first.trim_end();
        line.strip_prefix("gateway ")
            .unwrap_or_else(|| panic!("{line}"))
    }

    /// Waits for the end; gives the exit code and how long it took.
    pub(crate) fn wait(&mut self) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        let status = self.child.wait().unwrap();
        (status.code(), begin.elapsed())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
