//! Commands and the node they reach: one that runs, or the folder itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Ran, Up, World, text};

/// Longest time from a stop to the end.
const STOP_MAX: Duration = Duration::from_secs(5);
const CARD: &[u8] = b"---\nlicense: mit\ntags:\n- small\n---\n# A model\n";

fn model(world: &World) -> PathBuf {
    world.folder(
        "model",
        &[
            ("README.md", CARD),
            ("config.json", b"{\"model_type\": \"bert\"}\n"),
            ("sub/model.safetensors", &vec![7; 200_000]),
        ],
    )
}

fn get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn has(value: &Value, members: &[&str]) {
    for member in members {
        assert!(value.get(member).is_some(), "no {member} in {value}");
    }
}

#[test]
fn up_on_an_empty_folder_is_ready_within_a_second() {
    // The best of three: other tests run beside this one.
    let best = (0..3).map(|_| World::new().up().ready_after).min().unwrap();
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[test]
fn up_says_where_it_is_and_stops_in_good_order() {
    let world = World::new();
    let mut up = world.up();
    let status = world.run(&["status", "--json"]).json();
    assert_eq!(status["gateway_url"], up.url());
    assert_eq!(status["running"], true);
    assert_eq!(status["pid"], up.child.id());
    assert!(status["uptime_s"].is_u64());
    assert!(status["listen_addrs"].is_array());
    assert!(!status["peer_id"].as_str().unwrap().is_empty());
    assert_eq!(status["data"], text(&world.data()));
    assert!(get(up.url(), "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(up.url(), "/metrics").starts_with("HTTP/1.1 200"));

    let socket = world.data().join("control.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Connections that rest do not hold it up.
    let resting = TcpStream::connect(up.url().strip_prefix("http://").unwrap()).unwrap();
    up.signal("TERM");
    let (code, took) = up.wait();
    assert_eq!(code, Some(0));
    assert!(took < STOP_MAX, "{took:?}");
    drop(resting);
    assert!(!socket.exists());
    let mut rest = String::new();
    up.stdout.read_to_string(&mut rest).unwrap();
    for name in ["data ", "names ", "peer ", "listens "] {
        assert!(rest.lines().any(|line| line.starts_with(name)), "{rest}");
    }
    assert!(rest.contains(status["peer_id"].as_str().unwrap()));

    // The same node comes back.
    let mut up = world.up();
    let again = world.run(&["status", "--json"]).json();
    assert_eq!(again["peer_id"], status["peer_id"]);
    assert_eq!(again["namespace"], status["namespace"]);
    up.signal("INT");
    assert_eq!(up.wait().0, Some(0));
}

#[test]
fn commands_do_the_same_with_a_running_node_and_without() {
    let world = World::new();
    let model = model(&world);
    let mut up = world.up();
    let pushed = world
        .run(&["push", text(&model), "mymodel", "-m", "First", "--json"])
        .json();
    assert_eq!(
        pushed["files"].as_u64(),
        Some(4),
        "with .gitattributes: {pushed}"
    );
    assert_eq!(pushed["commit"].as_str().unwrap().len(), 40);
    assert_eq!(pushed["unchanged"], false);
    assert_eq!(pushed["warnings"], json!([]));
    let repo = pushed["repo"].as_str().unwrap();
    let mut with = answers(&world, repo);
    up.signal("TERM");
    assert_eq!(up.wait().0, Some(0));

    let mut without = answers(&world, repo);
    // What a verification notes about each file supersedes what the one before noted.
    for answers in [&mut with, &mut without] {
        answers["gc"]["freed_bytes"] = Value::Null;
    }
    assert_eq!(with, without);
    assert_eq!(world.run(&["status", "--json"]).json()["running"], false);
    assert_eq!(without["ls"]["repositories"][0]["commit"], pushed["commit"]);
    assert_eq!(without["info"]["license"], "mit");

    // A push without a node, of the same files: nothing to sign.
    let again = world
        .run(&["push", text(&model), "mymodel", "--json"])
        .json();
    assert_eq!(again["unchanged"], true);
    assert_eq!(again["commit"], pushed["commit"]);
    assert_eq!(again["reused_files"], 3, "{again}");
}

/// What the reading verbs say, and pin and unpin.
fn answers(world: &World, repo: &str) -> Value {
    let ask = |arguments: &[&str]| world.run(&[arguments, &["--json"]].concat()).json();
    let mut verify = ask(&["verify", repo]);
    verify["seconds"] = json!(0);
    let answers = json!({
        "ls": ask(&["ls"]),
        "models": ask(&["ls", "--model"]),
        "datasets": ask(&["ls", "--dataset"]),
        "info": ask(&["info", "local/mymodel"]),
        "verify": verify,
        "pin": ask(&["pin", repo]),
        "pinned": ask(&["info", repo]),
        "unpin": ask(&["unpin", repo]),
        "gc": ask(&["gc", "--dry-run"]),
        "keys": ask(&["key", "show"]),
    });
    assert_eq!(answers["ls"], answers["models"]);
    assert_eq!(answers["datasets"], json!({"repositories": []}));
    assert_eq!(answers["pinned"]["pinned"], true);
    for (verb, pinned) in [("pin", true), ("unpin", false)] {
        assert_eq!(answers[verb]["repo"], repo);
        assert_eq!(answers[verb]["pinned"], pinned);
    }
    assert_eq!(answers["verify"]["damaged"], json!([]));
    assert_eq!(answers["gc"]["dry_run"], true);
    answers
}

#[test]
#[allow(clippy::too_many_lines, reason = "a list of names")]
fn answers_have_the_members_that_scripts_rely_on() {
    let world = World::new();
    let model = model(&world);
    let ask = |arguments: &[&str]| world.run(&[arguments, &["--json"]].concat()).json();
    let pushed = ask(&["push", text(&model), "mymodel"]);
    has(
        &pushed,
        &[
            "repo",
            "kind",
            "commit",
            "ref",
            "files",
            "bytes",
            "new_bytes",
            "reused_files",
            "seconds",
            "signer",
            "seq",
            "unchanged",
            "warnings",
            "url",
        ],
    );
    let repo = pushed["repo"].as_str().unwrap();
    has(
        &ask(&["status"]),
        &[
            "version",
            "format",
            "peer_id",
            "listen_addrs",
            "peers",
            "transfers",
            "cache",
            "gateway_url",
            "namespace",
            "namespace_alias",
            "data",
            "repositories",
            "blobs",
            "bytes",
            "uptime_s",
            "pid",
            "running",
        ],
    );
    has(
        &ask(&["ls"])["repositories"][0],
        &[
            "repo",
            "kind",
            "commit",
            "last_modified",
            "pinned",
            "frozen",
        ],
    );
    has(
        &ask(&["info", repo]),
        &[
            "repo",
            "kind",
            "id",
            "commit",
            "refs",
            "signer",
            "epoch",
            "seq",
            "created_at",
            "last_modified",
            "pinned",
            "downloads",
            "downloads_all_time",
            "frozen",
            "files",
            "bytes",
            "tags",
            "pipeline_tag",
            "library_name",
            "license",
        ],
    );
    has(
        &ask(&["verify"]),
        &[
            "repositories",
            "records",
            "blobs",
            "bytes",
            "seconds",
            "damaged",
        ],
    );
    has(
        &ask(&["gc"]),
        &["dry_run", "blobs", "bytes", "kept_blobs", "kept_bytes"],
    );
    for arguments in [&["doctor"][..], &["doctor", "--rebuild"]] {
        let doctor = ask(arguments);
        has(&doctor, &["checks"]);
        assert_eq!(doctor["ok"], true, "{doctor}");
        assert_eq!(doctor["rebuilt"], arguments.len() == 2);
    }
    has(
        &ask(&["key", "show"]),
        &["node", "peer_id", "namespace_root", "namespace", "sealed"],
    );
}

#[test]
fn people_get_text_and_a_pipe_gets_no_progress() {
    let world = World::new();
    let model = model(&world);
    // `ok` also says that nothing came on stderr: no bar, no message.
    let pushed = world.run(&["push", text(&model), "mymodel"]).ok();
    assert!(pushed.contains("signed by   ed25519:"), "{pushed}");
    let listed = world.run(&["ls"]).ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("/mymodel"), "{listed}");
    assert!(world.run(&["verify"]).ok().ends_with("all sound\n"));
    assert!(world.run(&["doctor"]).ok().starts_with("CHECK"));
    assert!(world.run(&["status"]).ok().contains("not running"));
    assert!(world.run(&["gc"]).ok().starts_with("freed "));
    assert!(world.run(&["key", "show"]).ok().contains("namespace root"));
    let pinned = world.run(&["pin", "local/mymodel"]).ok();
    assert!(pinned.ends_with("/mymodel is pinned\n"), "{pinned}");
}

#[test]
fn a_terminal_gets_a_bar_with_rate_and_time_left() {
    let world = World::new();
    let folder = world.folder("big", &[("model.bin", &vec![1; 64 << 20])]);
    let command = format!(
        "{} push {} big",
        env!("CARGO_BIN_EXE_cairn"),
        folder.display()
    );
    let ran = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("CAIRN_DATA", world.data())
        .env("HOME", world.home.path())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let screen = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{screen}");
    assert!(screen.contains("of 64.00 MiB,"), "{screen}");
    assert!(screen.contains("B/s,"), "{screen}");
    assert!(screen.contains(" left "), "{screen}");
}

#[test]
fn an_unknown_repository_is_a_failure_with_a_message() {
    let world = World::new();
    let up = world.up();
    for arguments in [
        &["info", "local/absent"][..],
        &["verify", "local/absent"],
        &["pin", "local/absent"],
        &["info", "a b"],
        &["push", text(world.home.path()), "a--b"],
    ] {
        let with = world.run(arguments).failed(1);
        assert!(with.starts_with("error: "), "{arguments:?}: {with}");
    }
    drop(up);
    let without = world.run(&["info", "local/absent"]).failed(1);
    assert!(without.contains("local/absent"), "{without}");
}

#[test]
fn a_second_node_on_one_folder_is_refused_and_the_first_goes_on() {
    let world = World::new();
    let up = world.up();
    let stderr = world.run(&["up", "--gateway", "127.0.0.1:0"]).failed(1);
    let expected = format!(
        "error: another cairn process has {} open\nhint: `cairn status`",
        world.data().display()
    );
    assert!(stderr.starts_with(&expected), "{stderr}");
    let status = world.run(&["status", "--json"]).json();
    assert_eq!(status["pid"], up.child.id());
}

#[test]
fn a_folder_that_a_silent_process_has_open_is_left_alone() {
    let world = World::new();
    let node = cairn_node::Node::spawn(cairn_node::Config::new(world.data())).unwrap();
    let stderr = world.run(&["ls"]).failed(1);
    assert!(
        stderr.starts_with("error: another cairn process has"),
        "{stderr}"
    );
    assert!(stderr.contains("\nhint: wait until"), "{stderr}");
    drop(node);
    assert_eq!(
        world.run(&["ls", "--json"]).json(),
        json!({"repositories": []})
    );
}

#[test]
fn a_port_that_is_taken_is_said_with_the_way_out() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let stderr = world.run(&["up", "--gateway", &address]).failed(1);
    assert!(
        stderr.starts_with(&format!("error: the gateway cannot listen on {address}\n")),
        "{stderr}"
    );
    assert!(stderr.contains("`--gateway 127.0.0.1:0`"), "{stderr}");
}

#[test]
fn what_a_killed_node_leaves_stands_in_nobody_s_way() {
    let world = World::new();
    let mut up = world.up();
    let before = world.run(&["status", "--json"]).json();
    up.signal("KILL");
    up.wait();
    assert!(world.data().join("control.sock").exists());
    let status = world.run(&["status", "--json"]).json();
    assert_eq!(status["running"], false);
    assert_eq!(status["pid"], Value::Null);
    assert_eq!(status["peer_id"], before["peer_id"]);
    let up = world.up();
    let status = world.run(&["status", "--json"]).json();
    assert_eq!(status["pid"], up.child.id());
}

#[test]
fn a_folder_with_a_long_path_works_alike() {
    let world = World::new();
    let data = world
        .path(&"d".repeat(100))
        .join("e".repeat(100))
        .join("data");
    let up = world.up_with(&["--data", text(&data)]);
    let status = world.run(&["status", "--json", "--data", text(&data)]);
    assert_eq!(status.json()["pid"], up.child.id());
}

#[test]
fn a_malformed_card_publishes_with_a_warning_that_names_the_line() {
    let world = World::new();
    let folder = world.folder(
        "model",
        &[(
            "README.md",
            b"---\nlicense: mit\ntags: [a\n---\n# A model\n",
        )],
    );
    let ran = world.run(&["push", text(&folder), "odd", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("warning: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("line "), "{}", ran.stderr);
    let pushed: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(pushed["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn damage_is_named_and_gives_exit_code_1() {
    let world = World::new();
    let model = model(&world);
    world.run(&["push", text(&model), "mymodel"]).ok();
    let blobs: Vec<PathBuf> = std::fs::read_dir(world.data().join("blobs"))
        .unwrap()
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| std::fs::metadata(path).unwrap().len() == 200_000)
        .collect();
    assert_eq!(blobs.len(), 1);
    let mut bytes = std::fs::read(&blobs[0]).unwrap();
    bytes[100_000] ^= 1;
    // The file may be read-only; its owner may still replace its bytes.
    std::fs::set_permissions(&blobs[0], std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&blobs[0], bytes).unwrap();

    let ran: Ran = world.run(&["verify", "--json"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("error: 1 object damaged\n"),
        "{}",
        ran.stderr
    );
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    let damaged = &value["damaged"][0];
    let hash = blobs[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(damaged["hash"], hash);
    assert_eq!(damaged["file"], "sub/model.safetensors");
    let told = world.run(&["verify"]).stdout;
    assert!(told.contains(&format!("damaged: {hash} ")), "{told}");
}

#[test]
fn the_demo_shows_itself_and_leaves_nothing() {
    let world = World::new();
    let temporary = world.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = world.command(&["demo"]);
    command.env("TMPDIR", &temporary);
    let mut demo = Up::start(command);
    let mut told = demo.first.clone();
    while !told.contains("Ctrl-C") {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut demo.stdout, &mut line).unwrap();
        assert!(!line.is_empty(), "{told}");
        told += &line;
    }
    assert!(told.lines().count() <= 20, "{told}");
    assert!(told.contains(" taken from 12D3"), "{told}");
    assert!(told.contains("signed by  ed25519:"), "{told}");
    let url = told
        .split_whitespace()
        .find_map(|word| word.strip_prefix("HF_ENDPOINT="))
        .unwrap();
    let folder = std::fs::read_dir(&temporary).unwrap().next().unwrap();
    let folder = folder.unwrap().path();
    let (first, second) = (folder.join("publisher"), folder.join("data"));
    let ask =
        |verb: &str, data: &PathBuf| world.run(&[verb, "--json", "--data", text(data)]).json();
    let listed = ask("ls", &second);
    let repo = listed["repositories"][0]["repo"].as_str().unwrap();
    assert!(repo.ends_with("/tiny-bert"), "{repo}");
    assert_eq!(ask("ls", &first)["repositories"][0]["repo"], repo);
    let answer = get(url, &format!("/{repo}/resolve/main/config.json"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("BertModel"), "{answer}");
    // Two nodes with keys of their own, and what the one took the other sent.
    let (one, two) = (ask("status", &first), ask("status", &second));
    assert_ne!(one["peer_id"], two["peer_id"]);
    assert_ne!(one["namespace"], two["namespace"]);
    let (sent, taken) = (ask("peers", &first), ask("peers", &second));
    assert_eq!(taken["peers"][0]["peer_id"], one["peer_id"]);
    assert_eq!(sent["peers"][0]["peer_id"], two["peer_id"]);
    let taken = taken["peers"][0]["taken_bytes"].as_u64().unwrap();
    assert!(taken > 50_000, "{taken}");

    demo.signal("INT");
    let (code, took) = demo.wait();
    assert_eq!(code, Some(0));
    assert!(took < STOP_MAX, "{took:?}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}
