//! The real `git` binary agrees: on ids of blobs, trees and commits, on names of refs, and on which
//! paths its attributes give to LFS.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cairn_protocol::attributes::{Attributes, default_attributes};
use cairn_protocol::git::{
    BlobHasher, CommitObject, Mode, NewCommit, ObjectKind, Signature, TreeEntry, encode_tree,
    object_oid, parse_tree,
};
use cairn_protocol::hash::{GitOid, Sha256};
use cairn_protocol::name::RepoKind;
use cairn_protocol::path::RepoPath;
use cairn_protocol::pointer::Pointer;
use cairn_protocol::refs::check_ref_name;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

/// An empty repository of the real git, shut off from the machine's configuration.
struct Git(tempfile::TempDir);

impl Git {
    fn new() -> Self {
        let git = Self(tempfile::tempdir().expect("a temporary folder"));
        git.run(&["init", "--quiet", "--object-format=sha1"], b"");
        git
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "core.autocrlf")
            .env("GIT_CONFIG_VALUE_0", "false")
            .env("GIT_CONFIG_KEY_1", "core.attributesFile")
            .env("GIT_CONFIG_VALUE_1", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs git with this input; its exit must be a success.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        Self::run_as(self.command(arguments), input)
    }

    fn run_as(mut command: Command, input: &[u8]) -> Vec<u8> {
        let mut child = command
            .spawn()
            .expect("git must be installed to run these tests");
        let mut stdin = child.stdin.take().expect("a pipe");
        // From a thread of its own, since git answers before it has read all.
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).expect("git reads its input"));
            child.wait_with_output().expect("git ends")
        });
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
        output.stdout
    }

    /// Runs git and reads the id that it prints.
    fn oid(&self, arguments: &[&str], input: &[u8]) -> GitOid {
        let output = String::from_utf8(self.run(arguments, input)).expect("hex digits");
        output.trim().parse().expect("an object id")
    }
}

/// A folder of files and folders, as a publisher may have it.
#[derive(Debug, Clone)]
enum Node {
    File { executable: bool, content: Vec<u8> },
    Folder(BTreeMap<String, Node>),
}

fn file_name() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-c]{1,2}(\\.[a-c0]{1,2})?",
        "[a-zA-Z0-9 _.\u{e9}\u{4e2d}\u{1f980}-]{1,12}",
        "[\u{300}-\u{310}e]{1,4}",
    ];
    text.prop_filter("a path that we take", |text| {
        text.parse::<RepoPath>().is_ok()
    })
}

fn folder() -> impl Strategy<Value = BTreeMap<String, Node>> {
    let content = prop_oneof![Just(vec![]), vec(any::<u8>(), 1..200)];
    let file = (any::<bool>(), content).prop_map(|(executable, content)| Node::File {
        executable,
        content,
    });
    let node = file.prop_recursive(3, 24, 6, |node| {
        // Git has no empty folders.
        btree_map(file_name(), node, 1..6).prop_map(Node::Folder)
    });
    btree_map(file_name(), node, 0..8)
}

/// Our tree of a folder: its id, and in `paths` what git's index needs to make the same.
fn our_tree(folder: &BTreeMap<String, Node>, prefix: &str, index: &mut Vec<u8>) -> GitOid {
    let entries = folder.iter().map(|(name, node)| {
        let path = format!("{prefix}{name}");
        let (mode, oid) = match node {
            Node::Folder(inner) => (Mode::Directory, our_tree(inner, &format!("{path}/"), index)),
            Node::File {
                executable,
                content,
            } => {
                let mode = if *executable {
                    Mode::Executable
                } else {
                    Mode::File
                };
                let oid = object_oid(ObjectKind::Blob, content);
                write!(index, "{:o} {oid}\t{path}\0", mode.octal()).expect("memory");
                (mode, oid)
            }
        };
        let name = name.clone().into_bytes();
        TreeEntry { mode, name, oid }
    });
    let bytes = encode_tree(entries.collect()).expect("valid entries");
    object_oid(ObjectKind::Tree, &bytes)
}

/// Git's own tree of the same files, by way of its index.
fn gits_tree(git: &Git, index: &[u8]) -> GitOid {
    git.run(&["read-tree", "--empty"], b"");
    git.run(&["update-index", "-z", "--index-info"], index);
    // The blobs themselves are not in its store: only their ids matter.
    git.oid(&["write-tree", "--missing-ok"], b"")
}

/// Each case starts git a few times, so they are fewer than elsewhere; `PROPTEST_CASES` scales them too.
fn runner(cases: u32) -> TestRunner {
    let config = Config::default();
    TestRunner::new(Config {
        cases: (cases * config.cases / 256).max(1),
        failure_persistence: None,
        ..config
    })
}

#[test]
fn trees_have_the_ids_that_git_gives_them() {
    let git = Git::new();
    let result = runner(24).run(&folder(), |folder| {
        let mut index = Vec::new();
        let ours = our_tree(&folder, "", &mut index);
        prop_assert_eq!(ours, gits_tree(&git, &index));
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_folder_of_ten_thousand_files_has_the_id_that_git_gives_it() {
    let git = Git::new();
    let file = |index: u32| {
        let content = index.to_le_bytes()[..(index % 5) as usize].to_vec();
        let executable = index.is_multiple_of(7);
        // Names that sort otherwise as text than as numbers.
        (
            format!("{index}.bin"),
            Node::File {
                executable,
                content,
            },
        )
    };
    let inner: BTreeMap<_, _> = (0..10_000).map(file).collect();
    let folder = BTreeMap::from([("many".to_owned(), Node::Folder(inner))]);
    let mut index = Vec::new();
    assert_eq!(our_tree(&folder, "", &mut index), gits_tree(&git, &index));
}

#[test]
fn blobs_have_the_ids_that_git_gives_them() {
    let git = Git::new();
    for content in [vec![], b"\r\n\0".to_vec(), vec![0x5a; 3_000_000]] {
        let mut hasher = BlobHasher::new(content.len() as u64);
        content
            .chunks(65_536)
            .for_each(|slice| hasher.update(slice));
        let ours = hasher.finish().unwrap();
        assert_eq!(ours, git.oid(&["hash-object", "--stdin"], &content));
    }
    let pointer = Pointer {
        sha256: Sha256::from_bytes([0xab; 32]),
        size: 5_000_000_000,
    };
    let text = pointer.encode();
    assert_eq!(
        pointer.oid(),
        git.oid(&["hash-object", "--stdin"], text.as_bytes())
    );
}

#[test]
fn git_takes_our_trees_as_well_formed() {
    let git = Git::new();
    let oid = git.oid(&["hash-object", "-w", "--stdin"], b"content");
    let entry = |mode, name: &str| TreeEntry {
        mode,
        name: name.into(),
        oid,
    };
    let tree = encode_tree(vec![
        entry(Mode::Executable, "run"),
        entry(Mode::File, "run.sh"),
        entry(Mode::Symlink, "run-link"),
        entry(Mode::Gitlink, "Run"),
    ]);
    let tree = tree.unwrap();
    let written = git.oid(&["hash-object", "-w", "-t", "tree", "--stdin"], &tree);
    assert_eq!(written, object_oid(ObjectKind::Tree, &tree));
    let listed = git.run(&["ls-tree", "-z", &written.to_hex()], b"");
    let listed = String::from_utf8(listed).unwrap();
    let names: Vec<_> = listed
        .split_terminator('\0')
        .map(|line| &line[line.len() - 3..])
        .collect();
    assert_eq!(names, ["Run", "run", "ink", ".sh"]);
    assert_eq!(
        parse_tree(&git.run(&["cat-file", "tree", &written.to_hex()], b""))
            .unwrap()
            .len(),
        4
    );
}

fn text() -> impl Strategy<Value = String> {
    // Git trims names itself, and takes no control characters from its environment.
    "[a-zA-Z\u{e9}\u{4e2d}]([a-zA-Z \u{e9}\u{4e2d}-]{0,10}[a-zA-Z\u{e9}\u{4e2d}])?"
}

fn signature() -> impl Strategy<Value = Signature> {
    (
        text(),
        "[a-z]{1,8}@[a-z]{1,8}",
        100_000_000..4_000_000_000_u64,
    )
        .prop_map(|(name, email, time_s)| Signature {
            name,
            email,
            time_s,
        })
}

#[test]
fn commits_have_the_ids_that_git_gives_them() {
    let git = Git::new();
    let tree = git.oid(&["write-tree"], b"");
    let mut parents: Vec<GitOid> = Vec::new();
    let fields = (signature(), signature(), "[^\0]{1,60}", 0..3_usize);
    let mut runner = runner(24);
    for _ in 0..24 {
        let (author, committer, message, count) =
            fields.new_tree(&mut runner).expect("values").current();
        let ours = NewCommit {
            tree,
            parents: parents.iter().rev().take(count).copied().collect(),
            author,
            committer,
            message,
        };
        let bytes = ours.encode().unwrap();
        let tree = tree.to_hex();
        let mut arguments = vec!["commit-tree", &*tree, "-F", "-"];
        let hex: Vec<_> = ours.parents.iter().map(GitOid::to_hex).collect();
        for parent in &hex {
            arguments.extend(["-p", parent]);
        }
        let mut command = git.command(&arguments);
        for (who, signature) in [("AUTHOR", &ours.author), ("COMMITTER", &ours.committer)] {
            command.env(format!("GIT_{who}_NAME"), &signature.name);
            command.env(format!("GIT_{who}_EMAIL"), &signature.email);
            command.env(
                format!("GIT_{who}_DATE"),
                format!("@{} +0000", signature.time_s),
            );
        }
        let gits = Git::run_as(command, ours.message.as_bytes());
        let gits: GitOid = String::from_utf8(gits).unwrap().trim().parse().unwrap();
        assert_eq!(object_oid(ObjectKind::Commit, &bytes), gits, "{ours:?}");
        let stored = git.run(&["cat-file", "commit", &gits.to_hex()], b"");
        assert_eq!(stored, bytes);
        assert_eq!(
            CommitObject::parse(&stored).unwrap().committer,
            ours.committer
        );
        parents.push(gits);
    }
}

#[test]
fn ref_names_are_those_that_git_takes() {
    let git = Git::new();
    let name = "refs/(heads|tags|convert)/([a-c./@{}~^:?*\\[ -]|\\.lock|HEAD|\u{e9}){0,6}";
    let result = runner(200).run(&name, |name| {
        let mut command = git.command(&["check-ref-format", &name]);
        let gits = command
            .output()
            .expect("git must be installed")
            .status
            .success();
        // Git refuses this one where a branch is made.
        let gits = gits && name != "refs/heads/HEAD";
        prop_assert_eq!(check_ref_name(&name).is_ok(), gits, "{}", name);
        Ok(())
    });
    result.unwrap();
}

/// A pattern, mostly of pieces that the generated paths have.
fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "/?([ab*?]|\\*\\*|\\[ab\\]|\\[!a\\]){1,3}(/([ab*]|\\*\\*){1,2}){0,2}(\\.(bin|txt|\\*))?/?",
        1 => "\"[ab ]{1,3}\"",
        1 => "[!#\\\\][ab*]{1,2}",
        1 => "\\[attr\\](m1|m2|m3)",
    ]
}

fn attributes_text() -> impl Strategy<Value = String> {
    let setting = prop::sample::select(vec![
        "filter=lfs",
        "filter=lfs",
        "-filter",
        "!filter",
        "filter",
        "filter=other",
        "text",
        "-text",
        "m1",
        "-m1",
        "m2",
        "!m2",
        "m3",
        "diff=lfs",
        "b@d",
        "binary",
    ]);
    let line = (pattern(), vec(setting, 1..4))
        .prop_map(|(pattern, settings)| format!("{pattern} {}", settings.join(" ")));
    let line = prop_oneof![6 => line, 1 => Just("# comment".to_owned()), 1 => Just(String::new())];
    vec(line, 0..8).prop_map(|lines| lines.into_iter().map(|line| line + "\n").collect())
}

fn attribute_paths() -> impl Strategy<Value = Vec<String>> {
    let path = "([ab]{1,2}/){0,3}[ab ]{0,1}[ab]{1,2}(\\.(bin|txt))?";
    vec(
        path.prop_filter("a path that we take", |path| {
            path.parse::<RepoPath>().is_ok()
        }),
        1..20,
    )
}

/// For each path, whether git's `filter` attribute is `lfs`.
fn gits_filters(git: &Git, paths: &[String]) -> Vec<bool> {
    let input = paths.iter().fold(String::new(), |mut input, path| {
        write!(input, "{path}\0").expect("memory");
        input
    });
    let output = git.run(&["check-attr", "-z", "--stdin", "filter"], input.as_bytes());
    let output = String::from_utf8(output).expect("UTF-8 paths");
    let fields: Vec<_> = output.split_terminator('\0').collect();
    fields.chunks(3).map(|answer| answer[2] == "lfs").collect()
}

#[test]
fn attributes_give_to_lfs_the_paths_that_git_gives() {
    let git = Git::new();
    let texts = (attributes_text(), attributes_text(), attributes_text());
    let result = runner(150).run(&(texts, attribute_paths()), |((root, a, ab), paths)| {
        let mut attributes = Attributes::default();
        for (folder, text) in [("a/b", &ab), ("", &root), ("a", &a)] {
            let path = git.path().join(folder);
            std::fs::create_dir_all(&path).expect("a folder");
            std::fs::write(path.join(".gitattributes"), text).expect("a file");
            attributes.add(folder, text.as_bytes());
        }
        let ours = paths
            .iter()
            .map(|path| attributes.is_lfs(&path.parse().expect("valid")));
        let ours: Vec<_> = ours.collect();
        prop_assert_eq!(ours, gits_filters(&git, &paths), "{:?}", paths);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn the_default_attributes_mean_to_git_what_they_mean_to_us() {
    let names = [
        "model.safetensors",
        "model.bin",
        "bin",
        "x.bin.txt",
        "saved_model/x",
        "saved_model/a/b/x",
        "a/saved_model/x",
        "x.tar",
        "x.tar.gz",
        "a/events.tfevents.1",
        "tfevents",
        "config.json",
        "README.md",
        "x.lfs.y",
        "clip.mp4",
        "a/b/c.webp",
        ".bin",
        "x.PT",
        "x.pt",
        "x.npz",
        "x.mds",
    ];
    let paths: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    for kind in RepoKind::ALL {
        let git = Git::new();
        let text = default_attributes(kind);
        std::fs::write(git.path().join(".gitattributes"), text).unwrap();
        let attributes = Attributes::parse(text.as_bytes());
        let ours = paths
            .iter()
            .map(|path| attributes.is_lfs(&path.parse().unwrap()));
        assert_eq!(
            ours.collect::<Vec<_>>(),
            gits_filters(&git, &paths),
            "{kind}"
        );
    }
}
