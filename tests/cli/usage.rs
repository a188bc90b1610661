//! Help, completions and mistakes on the command line.

use super::support::World;

const VERBS: [&str; 16] = [
    "up",
    "push",
    "pull",
    "peers",
    "ls",
    "info",
    "verify",
    "pin",
    "unpin",
    "gc",
    "doctor",
    "status",
    "key",
    "config",
    "demo",
    "completions",
];

#[test]
fn help_names_every_verb_and_every_verb_has_help() {
    let world = World::new();
    let help = world.run(&["--help"]).ok();
    for verb in VERBS {
        let listed = help
            .lines()
            .any(|line| line.split_whitespace().next() == Some(verb));
        assert!(listed, "{verb} is not in\n{help}");
        let own = world.run(&[verb, "--help"]).ok();
        assert!(own.contains(&format!("Usage: cairn {verb}")), "{own}");
        for flag in ["--data", "--config", "--json", "--log", "CAIRN_DATA"] {
            assert!(own.contains(flag), "{verb} --help lacks {flag}");
        }
    }
    for verb in ["key", "config"] {
        assert!(world.run(&[verb, "show", "--help"]).ok().contains("Show"));
    }
    let version = world.run(&["--version"]).ok();
    assert_eq!(version, format!("cairn {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn mistakes_on_the_command_line_exit_with_2_and_print_no_data() {
    let world = World::new();
    let dir = world.folder("model", &[("config.json", b"{}")]);
    let dir = dir.to_str().unwrap();
    for arguments in [
        vec!["fly"],
        vec!["status", "--fast"],
        vec!["push", dir],
        vec!["push", dir, "a", "--dataset", "--space"],
        vec!["ls", "--model", "--dataset"],
        vec!["info"],
        vec!["completions", "cobol"],
        vec!["up", "--gateway", "8080"],
        vec!["up", "--public-url", "models.example.org"],
        vec!["up", "--tls-certificate", "certificate.pem"],
        vec!["up", "--tls-certificate", "", "--tls-key", "key.pem"],
        vec![
            "up",
            "--tls-certificate",
            "/nonexistent/certificate.pem",
            "--tls-key",
            "key.pem",
        ],
        vec!["up", "--listen", "0.0.0.0:22477"],
        vec!["up", "--peer", "/tcp/22477"],
        vec!["up", "--cache-size", "5 parsecs"],
        vec!["up", "--upload-rate", "1"],
        vec!["pull"],
        vec!["pull", "a/b", "--peer", "192.0.2.7"],
        vec!["ls", "--log", "a=b=c"],
        vec!["ls", "--log-format", "xml"],
        vec!["ls", "--config", "/nonexistent/cairn.toml", "--fast"],
    ] {
        let stderr = world.run(&arguments).failed(2);
        assert!(stderr.starts_with("error: "), "{arguments:?}: {stderr}");
    }
    assert!(!world.data().exists(), "a mistake made a data folder");
}

#[test]
fn a_flag_that_is_wrong_is_named_with_what_it_takes() {
    let world = World::new();
    let stderr = world.run(&["up", "--gateway", "8080"]).failed(2);
    assert!(
        stderr.starts_with("error: setting `gateway` (--gateway) is not valid: "),
        "{stderr}"
    );
    assert!(stderr.ends_with("hint: docs/cairn.toml explains every setting\n"));
}

#[test]
fn completions_know_the_verbs() {
    let world = World::new();
    for (shell, mark) in [
        ("bash", "complete -F _cairn"),
        ("zsh", "#compdef cairn"),
        ("fish", "complete -c cairn"),
    ] {
        let script = world.run(&["completions", shell]).ok();
        assert!(script.contains(mark), "{shell}");
        for verb in VERBS {
            assert!(script.contains(verb), "{shell} lacks {verb}");
        }
    }
}

#[test]
fn a_command_on_a_folder_without_a_node_says_so_and_makes_none() {
    let world = World::new();
    for arguments in [
        &["status"][..],
        &["ls"],
        &["info", "a/b"],
        &["verify"],
        &["pin", "a/b"],
        &["unpin", "a/b"],
        &["peers"],
        &["gc"],
        &["doctor"],
        &["key", "show"],
    ] {
        let stderr = world.run(arguments).failed(1);
        let data = world.data();
        let expected = format!("error: there is no node in {} yet\nhint: ", data.display());
        assert!(stderr.starts_with(&expected), "{arguments:?}: {stderr}");
        assert!(!data.exists());
    }
}

#[test]
fn a_folder_that_cannot_be_pushed_is_named() {
    let world = World::new();
    let file = world.folder("model", &[("a.txt", b"a")]).join("a.txt");
    let stderr = world.run(&["push", file.to_str().unwrap(), "a"]).failed(1);
    assert!(stderr.contains("a.txt is not a folder\nhint: "), "{stderr}");
    let stderr = world.run(&["push", "nowhere", "a"]).failed(1);
    assert_eq!(
        stderr,
        "error: cannot read folder nowhere\n    No such file or directory (os error 2)\n"
    );
    assert!(!world.data().exists());
}
