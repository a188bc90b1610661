//! The fuzz targets on stable Rust: from committed seeds, by mutations that a seed number determines.
//!
//! `CAIRN_FUZZ_SECONDS` is the time for each target (0.5 where not given), `CAIRN_FUZZ_SEED` the number
//! that determines every mutation. A failure prints both, the number of the case and its bytes.

#[path = "fuzz/mutation.rs"]
mod mutation;

#[allow(
    unreachable_pub,
    clippy::type_complexity,
    reason = "shared with the libFuzzer binaries"
)]
#[path = "../fuzz/targets/formats.rs"]
mod formats;

#[path = "../fuzz/targets/records.rs"]
mod records;

#[path = "../fuzz/targets/spread.rs"]
mod spread;

#[allow(unreachable_pub, reason = "shared with the libFuzzer binaries")]
#[path = "../fuzz/targets/transfer.rs"]
mod transfer;

#[allow(unreachable_pub, reason = "shared with the libFuzzer binaries")]
#[path = "../fuzz/targets/xet.rs"]
mod xet;

use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mutation::{Mutator, Xorshift};

type Target = (&'static str, fn(&[u8]));

/// Every list of targets.
const LISTS: &[&[Target]] = &[
    formats::TARGETS,
    records::TARGETS,
    spread::TARGETS,
    transfer::TARGETS,
    xet::TARGETS,
];

/// No input of at most 64 KiB may take as long, even in a debug build on a busy machine.
const CASE_TIME_MAX: Duration = Duration::from_secs(10);

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{name}={text} is not valid"))
}

/// The committed seeds of a target, in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let files = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no seeds", folder.display());
    files
        .iter()
        .map(|file| std::fs::read(file).expect("a readable seed"))
        .collect()
}

/// Runs a target on one input; a panic or an endless case names what is needed to see it again.
fn run_case((name, target): Target, case: u64, seed: u64, input: &[u8]) {
    let start = Instant::now();
    let result = catch_unwind(|| target(input));
    let took = start.elapsed();
    assert!(
        result.is_ok() && took <= CASE_TIME_MAX,
        "target {name}, CAIRN_FUZZ_SEED={seed}, case {case}, {took:?}: {input:02x?}"
    );
}

fn run_target(target: Target, seed: u64, time: Duration) -> u64 {
    let seeds = seeds(target.0);
    for (index, input) in seeds.iter().enumerate() {
        run_case(target, index as u64, seed, input);
    }
    let mutator = Mutator::new(&seeds);
    let of_target = target.0.bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let end = Instant::now() + time;
    let mut case = 0;
    while Instant::now() < end {
        // Each case by itself, so that its number is enough to make it again.
        let input = mutator.input(&mut Xorshift::new(of_target.wrapping_add(case)));
        run_case(target, case, seed, &input);
        case += 1;
    }
    case
}

#[test]
fn no_parser_of_foreign_bytes_panics_or_takes_what_it_would_write_otherwise() {
    let seed = variable("CAIRN_FUZZ_SEED", 1_u64);
    let time = Duration::from_secs_f64(variable("CAIRN_FUZZ_SECONDS", 0.5));
    println!("CAIRN_FUZZ_SEED={seed}, {time:?} a target");
    let queue = Mutex::new(LISTS.concat().into_iter().collect::<VecDeque<Target>>());
    let next = || queue.lock().expect("no target panics here").pop_front();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let cases = run_target(target, seed, time);
                    println!("{}: {cases} cases", target.0);
                    assert!(cases > 0 || time.is_zero(), "{} ran no case", target.0);
                }
            });
        }
    });
}

#[test]
fn every_case_can_be_made_again_from_its_number() {
    let seeds = vec![b"one seed".to_vec(), b"another".to_vec()];
    let mutator = Mutator::new(&seeds);
    let input = |case| mutator.input(&mut Xorshift::new(case));
    let inputs: Vec<_> = (0..1_000).map(input).collect();
    assert_eq!(inputs, (0..1_000).map(input).collect::<Vec<_>>());
    let distinct: std::collections::HashSet<_> = inputs.iter().collect();
    assert!(
        distinct.len() > 500,
        "{} of 1000 inputs differ",
        distinct.len()
    );
}
