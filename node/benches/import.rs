//! Seconds that the store takes, for `tests/bench`: `import FILE [ROUNDS]`, `small COUNT BYTES`, `rebuild FRAMES`.
//!
//! Prints one line of JSON. The data folder is made below `CAIRN_BENCH_DIR`, or the current folder.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints figures"
)]

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cairn_node::files::RealFiles;
use cairn_node::store::{Store, StoreOptions};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["import", file] => import(file, 1),
        ["import", file, rounds] => import(file, rounds.parse()?),
        ["small", count, bytes] => small(count.parse()?, bytes.parse()?),
        ["rebuild", frames] => rebuild(frames.parse()?),
        // `cargo bench` and `cargo test --benches` run without arguments: show that all of it works.
        [] => small(100, 1_000).and_then(|()| rebuild(1_000)),
        _ => Err("import FILE [ROUNDS] | small COUNT BYTES | rebuild FRAMES".into()),
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, std::io::Error> {
        let parent = std::env::var_os("CAIRN_BENCH_DIR").map_or_else(|| ".".into(), PathBuf::from);
        let path = parent.join(format!("cairn-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn open(folder: &Folder) -> Result<Store, Box<dyn std::error::Error>> {
    let options = StoreOptions::default();
    Ok(Store::open(
        Arc::new(RealFiles),
        &folder.0,
        &options,
        &mut |_| {},
    )?)
}

fn import(file: &str, rounds: u32) -> Outcome {
    for _ in 0..rounds {
        let folder = Folder::new()?;
        let store = open(&folder)?;
        let source = File::open(file)?;
        let size = source.metadata()?.len();
        let started = Instant::now();
        store.import(&mut &source, size, false, &mut |_| {})?;
        let seconds = started.elapsed().as_secs_f64();
        println!(r#"{{"import_bytes":{size},"seconds":{seconds:.3}}}"#);
    }
    Ok(())
}

fn small(count: u64, len: usize) -> Outcome {
    let folder = Folder::new()?;
    let store = open(&folder)?;
    let started = Instant::now();
    let mut batch = store.batch();
    for number in 0..count {
        batch.put_with(noise(number, len).into(), true)?;
    }
    batch.commit()?;
    let seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for number in 0..count {
        store.content(&cairn_protocol::hash::Blake3::of(&noise(number, len)))?;
    }
    let read = started.elapsed().as_secs_f64();
    println!(
        r#"{{"small":{count},"bytes_each":{len},"seconds":{seconds:.3},"read_seconds":{read:.3}}}"#
    );
    Ok(())
}

fn rebuild(frames: u64) -> Outcome {
    let folder = Folder::new()?;
    let store = open(&folder)?;
    for from in (0..frames).step_by(10_000) {
        let mut batch = store.batch();
        for number in from..frames.min(from + 10_000) {
            batch.put(noise(number, 300).into());
        }
        batch.commit()?;
    }
    let started = Instant::now();
    store.rebuild_views();
    let seconds = started.elapsed().as_secs_f64();
    drop(store);
    let started = Instant::now();
    let store = open(&folder)?;
    let open_clean = started.elapsed().as_secs_f64();
    drop(store);
    std::fs::remove_dir_all(folder.0.join("views"))?;
    let started = Instant::now();
    open(&folder)?;
    let open_without = started.elapsed().as_secs_f64();
    println!(
        r#"{{"frames":{frames},"rebuild_seconds":{seconds:.3},"open_seconds":{open_clean:.3},"open_without_views_seconds":{open_without:.3}}}"#
    );
    Ok(())
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}
