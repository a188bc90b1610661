//! Settings: their sources, their order, and what is said of wrong ones.

use serde_json::{Value, json};

use super::support::{Ran, World, text};

const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cairn.toml");

fn show(world: &World, arguments: &[&str]) -> Value {
    let arguments = [&["config", "show", "--json"], arguments].concat();
    world.run(&arguments).json()
}

fn values(shown: &Value) -> Value {
    shown["settings"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, setting)| (name.clone(), setting["value"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn the_documented_file_holds_every_setting_and_the_defaults() {
    let world = World::new();
    let defaults = show(&world, &[]);
    assert_eq!(defaults["file"], Value::Null);
    let documented = show(&world, &["--config", DOCUMENTED]);
    assert_eq!(documented["file"], DOCUMENTED);
    assert_eq!(values(&documented), values(&defaults));

    let file = std::fs::read_to_string(DOCUMENTED).unwrap();
    for (name, setting) in documented["settings"].as_object().unwrap() {
        let live = file
            .lines()
            .any(|line| line.starts_with(&format!("{name} = ")) || *line == format!("[{name}]"));
        let commented = file
            .lines()
            .any(|line| line.starts_with(&format!("# {name} = ")));
        assert!(live || (setting["value"].is_null() && commented), "{name}");
        if live {
            assert_eq!(setting["origin"], DOCUMENTED, "{name}");
        }
    }

    // The examples in comments are settings too.
    let uncommented = |line| {
        let example = str::strip_prefix(line, "# ").filter(|rest| {
            rest.split_once(" = ")
                .is_some_and(|(name, _)| !name.contains(' '))
        });
        example.unwrap_or(line)
    };
    let examples: Vec<&str> = file.lines().map(uncommented).collect();
    let path = world.path("examples.toml");
    std::fs::write(&path, examples.join("\n")).unwrap();
    let shown = values(&show(&world, &["--config", text(&path)]));
    assert_eq!(shown["author_name"], "Ada Lovelace");
    assert_eq!(shown["aliases"], json!({"gpt2": "local/gpt2"}));
    assert!(
        shown
            .as_object()
            .unwrap()
            .values()
            .all(|value| !value.is_null())
    );
}

#[test]
fn flags_go_before_the_environment_before_the_file_before_the_default() {
    let world = World::new();
    std::fs::create_dir(world.data()).unwrap();
    let file = world.data().join("cairn.toml");
    std::fs::write(
        &file,
        "log = \"info\"\nlog_format = \"json\"\nauthor_name = \"File\"\n[aliases]\na = \"local/a\"\n",
    )
    .unwrap();
    let output = world
        .command(&["config", "show", "--json", "--log", "error"])
        .env("CAIRN_LOG", "debug")
        .env("CAIRN_AUTHOR_NAME", "1234")
        .env("CAIRN_ALIASES", "b=local/b, c = local/c")
        .env("CAIRN_VIEW_CACHE_BYTES", "2097152")
        .env("CAIRN_PUBLIC_URL", "")
        .output()
        .unwrap();
    let shown = Ran::of(output).json();
    let setting = |name: &str| {
        let setting = &shown["settings"][name];
        (
            setting["value"].clone(),
            setting["origin"].as_str().unwrap(),
        )
    };
    assert_eq!(setting("log"), (json!("error"), "--log"));
    assert_eq!(setting("log_format"), (json!("json"), text(&file)));
    // A number is a name like any other.
    assert_eq!(
        setting("author_name"),
        (json!("1234"), "environment CAIRN_AUTHOR_NAME")
    );
    assert_eq!(
        setting("view_cache_bytes"),
        (json!(2_097_152), "environment CAIRN_VIEW_CACHE_BYTES")
    );
    assert_eq!(
        setting("aliases").0,
        json!({"a": "local/a", "b": "local/b", "c": "local/c"})
    );
    assert_eq!(setting("public_url"), (Value::Null, "default"));
    assert_eq!(setting("namespace_alias"), (json!("local"), "default"));
    assert_eq!(shown["data"]["origin"], "environment CAIRN_DATA");
    assert_eq!(shown["file"], text(&file));
}

#[test]
fn settings_of_the_network_are_lists_switches_and_sizes_with_units() {
    let world = World::new();
    let file = world.path("cairn.toml");
    std::fs::write(
        &file,
        "peers = [\"/ip4/192.0.2.1/tcp/1\"]\ncache_size = \"2GiB\"\nupload_rate = 1_000_000\n",
    )
    .unwrap();
    let output = world
        .command(&["config", "show", "--json", "--config", text(&file)])
        .env(
            "CAIRN_LISTEN",
            "/ip4/127.0.0.1/tcp/0, /ip6/::1/udp/0/quic-v1",
        )
        .env("CAIRN_MDNS", "false")
        .env("CAIRN_DOWNLOAD_RATE", "1.5 MB")
        .output();
    let shown = values(&Ran::of(output.unwrap()).json());
    assert_eq!(
        shown["listen"],
        json!(["/ip4/127.0.0.1/tcp/0", "/ip6/::1/udp/0/quic-v1"])
    );
    assert_eq!(shown["peers"], json!(["/ip4/192.0.2.1/tcp/1"]));
    assert_eq!(shown["mdns"], false);
    assert_eq!(shown["cache_size"], 2_u64 << 30);
    assert_eq!(shown["upload_rate"], 1_000_000);
    assert_eq!(shown["download_rate"], 1_500_000);
}

#[test]
fn paths_begin_where_they_were_written() {
    let world = World::new();
    std::fs::create_dir(world.path("etc")).unwrap();
    let file = world.path("etc/cairn.toml");
    std::fs::write(&file, "tls_certificate = \"c.pem\"\ntls_key = \"k.pem\"\n").unwrap();
    let output = world
        .command(&["config", "show", "--json", "--config", text(&file)])
        .current_dir(world.path("."))
        .env("CAIRN_TLS_KEY", "other.pem")
        .output();
    let shown = values(&Ran::of(output.unwrap()).json());
    assert_eq!(shown["tls_certificate"], text(&world.path("etc/c.pem")));
    assert_eq!(shown["tls_key"], text(&world.path("other.pem")));
}

#[test]
fn people_read_a_table_of_them() {
    let world = World::new();
    let shown = world
        .run(&["config", "show", "--data", text(&world.path("other"))])
        .ok();
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("settings file: none"));
    let row = |name: &str| {
        let mut lines = shown.lines().map(str::split_whitespace);
        lines
            .find_map(|mut row| (row.next() == Some(name)).then(|| row.collect::<Vec<_>>()))
            .unwrap_or_else(|| panic!("{name} is not in\n{shown}"))
    };
    assert_eq!(row("gateway"), ["\"127.0.0.1:22476\"", "default"]);
    assert_eq!(row("author_name"), ["(not", "set)", "default"]);
    let data = format!("{:?}", world.path("other"));
    assert_eq!(row("data"), [data.as_str(), "--data"]);
}

#[test]
fn the_data_folder_and_the_user_s_file_follow_xdg() {
    let world = World::new();
    let bare = |variables: &[(&str, &str)]| {
        let mut command = world.command(&["config", "show", "--json"]);
        command.env_remove("CAIRN_DATA");
        for (name, value) in variables {
            command.env(name, value);
        }
        Ran::of(command.output().unwrap())
    };
    let shown = bare(&[]).json();
    let data = world.path(".local/share/cairn");
    assert_eq!(shown["data"]["value"], text(&data));
    assert_eq!(shown["data"]["origin"], "default");

    let user = world.path(".config/cairn");
    std::fs::create_dir_all(&user).unwrap();
    std::fs::write(user.join("cairn.toml"), "log = \"info\"").unwrap();
    assert_eq!(bare(&[]).json()["settings"]["log"]["value"], "info");
    // One in the data folder goes before it, one that is named before both.
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("cairn.toml"), "log = \"debug\"").unwrap();
    assert_eq!(bare(&[]).json()["settings"]["log"]["value"], "debug");
    let named = world.path("named.toml");
    std::fs::write(&named, "log = \"trace\"").unwrap();
    let shown = bare(&[("CAIRN_CONFIG", text(&named))]).json();
    assert_eq!(shown["settings"]["log"]["value"], "trace");

    let elsewhere = world.path("elsewhere");
    let shown = bare(&[("XDG_DATA_HOME", text(&elsewhere))]).json();
    assert_eq!(shown["data"]["value"], text(&elsewhere.join("cairn")));
    let stderr = bare(&[("HOME", ""), ("XDG_DATA_HOME", "relative")]).failed(2);
    assert!(
        stderr.starts_with("error: there is no home folder"),
        "{stderr}"
    );
}

#[test]
fn a_wrong_file_is_named_with_what_is_wrong() {
    let world = World::new();
    let path = world.path("cairn.toml");
    let failure = |text: &str| {
        std::fs::write(&path, text).unwrap();
        world
            .run(&["config", "show", "--config", path.to_str().unwrap()])
            .failed(2)
    };
    let file = text(&path);
    assert_eq!(
        failure("gatway = \"127.0.0.1:0\""),
        format!(
            "error: unknown setting `gatway` in {file}\n\
             hint: the settings are gateway, public_url, tls_certificate, tls_key, listen, peers, mdns, \
             cache_size, upload_rate, download_rate, xet_downloads, namespace_alias, author_name, author_email, \
             view_cache_bytes, log, log_format, aliases\n"
        )
    );
    for (text, expected) in [
        ("gateway = \"here\"", "setting `gateway`"),
        ("gateway = 80", "setting `gateway`"),
        ("tls_key = \"k.pem\"", "setting `tls_key`"),
        ("tls_certificate = \"c.pem\"", "setting `tls_certificate`"),
        ("view_cache_bytes = \"much\"", "setting `view_cache_bytes`"),
        ("view_cache_bytes = 10", "setting `view_cache_bytes`"),
        ("view_cache_bytes = -1", "setting `view_cache_bytes`"),
        ("namespace_alias = \"a.b\"", "setting `namespace_alias`"),
        ("namespace_alias = \"a b\"", "setting `namespace_alias`"),
        ("namespace_alias = \"api\"", "setting `namespace_alias`"),
        ("author_email = \"<a@b>\"", "setting `author_email`"),
        ("log = \"a=b=c\"", "setting `log`"),
        ("log_format = \"xml\"", "setting `log_format`"),
        ("listen = \"/ip4/127.0.0.1/tcp/0\"", "setting `listen`"),
        ("listen = [\"127.0.0.1:0\"]", "setting `listen`"),
        ("peers = [\"/ip4/127.0.0.1\"]", "setting `peers`"),
        ("mdns = \"maybe\"", "setting `mdns`"),
        ("cache_size = \"much\"", "setting `cache_size`"),
        ("cache_size = -1", "setting `cache_size`"),
        ("upload_rate = 10", "setting `upload_rate`"),
        ("download_rate = \"1.5\"", "setting `download_rate`"),
        ("[aliases]\ngpt2 = \"gpt2\"", "setting `aliases`"),
        ("[aliases]\n\"a/b\" = \"c/d\"", "setting `aliases`"),
        ("[aliases]\ngpt2 = \"a/b/c\"", "setting `aliases`"),
    ] {
        let stderr = failure(text);
        assert!(
            stderr.starts_with(&format!("error: {expected}")),
            "{stderr}"
        );
        assert!(stderr.lines().next().unwrap().contains(file), "{stderr}");
    }
    let stderr = failure("log = ");
    assert!(
        stderr.starts_with(&format!(
            "error: settings file {file} is not valid TOML\n    "
        )),
        "{stderr}"
    );
    assert!(stderr.contains("line 1"), "{stderr}");
    let stderr = failure(&"#".repeat(2 << 20));
    assert!(stderr.contains("larger than 1 MiB"), "{stderr}");
    std::fs::remove_file(&path).unwrap();
    let stderr = world.run(&["config", "show", "--config", file]).failed(2);
    assert!(stderr.contains("cannot read settings file"), "{stderr}");
}

#[test]
fn a_wrong_variable_is_named_and_a_strange_one_is_warned_of() {
    let world = World::new();
    for (name, value) in [
        ("CAIRN_GATEWAY", "here"),
        ("CAIRN_VIEW_CACHE_BYTES", "much"),
        ("CAIRN_ALIASES", "gpt2"),
        ("CAIRN_LISTEN", "/ip4/127.0.0.1/tcp/0,here"),
        ("CAIRN_MDNS", "maybe"),
        ("CAIRN_CACHE_SIZE", "much"),
        ("CAIRN_LOG_FORMAT", "xml"),
    ] {
        let output = world.command(&["config", "show"]).env(name, value).output();
        let stderr = Ran::of(output.unwrap()).failed(2);
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
    let output = world
        .command(&["config", "show", "--log-format", "json"])
        .env("CAIRN_GATWAY", "127.0.0.1:0")
        .output();
    let ran = Ran::of(output.unwrap());
    assert_eq!(ran.code, Some(0));
    let logged: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(logged["level"], "WARN");
    let message = logged["fields"]["message"].as_str().unwrap();
    assert!(message.contains("CAIRN_GATWAY"), "{message}");
}
