//! Runs a simulation and prints what it has shown.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cairn_simulations::network::{self, Options};
use clap::{Args, Parser, Subcommand};

/// Cairn's protocol on a virtual network and clock.
///
/// Runs the shipped state machine and ledger with really signed records; the network, its faults and
/// the clock are virtual and drawn from a seed: the same seed gives the same trace, byte for byte.
/// It shows convergence and counts of messages, not the cost of sockets, encryption or disks.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How fast and at what cost a new head reaches all followers.
    ///
    /// All links come up within 5 s; at 60 s the first node publishes a change and the head that takes
    /// it in, which all other nodes follow. Every frame that any node sends in the 3 s from then on is
    /// counted: pushes, and comparisons by timer. Each link has a latency of 5 to 150 ms one way and up
    /// to a tenth more for each frame, and keeps frames in order; a lost frame is lost whole. Greetings
    /// are not lost. A record is stored 5 ms after it arrived.
    Spread(SpreadArgs),
}

#[derive(Debug, Args)]
struct SpreadArgs {
    /// Nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Neighbours of a node, on average.
    #[arg(long, default_value_t = 8)]
    degree: usize,
    /// Part of all frames that is lost, 0 to 1.
    #[arg(long, default_value_t = 0.02)]
    loss: f64,
    /// What all choices are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Part of the nodes that goes down for 1 to 20 s about the time of publication, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// Neighbours don't compare what they have: what was missed stays missed.
    #[arg(long)]
    no_reconcile: bool,
    /// Seconds for which the network is cut in two; each part publishes, and times count from the end.
    #[arg(long)]
    partition: Option<u64>,
    /// Seconds that the run lasts after the publication, or after the end of the partition.
    #[arg(long, default_value_t = 120)]
    horizon: u64,
    /// Write every event to this file.
    #[arg(long)]
    trace: Option<PathBuf>,
}

/// A part from 0 to 1, in millionths.
fn millionths(part: f64, what: &str) -> Result<u64> {
    ensure!(
        (0.0..=1.0).contains(&part),
        "{what} is {part}, it must be from 0 to 1"
    );
    let text = format!("{:.0}", part * 1e6);
    text.parse().with_context(|| format!("{what} is {part}"))
}

fn main() -> Result<()> {
    let Command::Spread(args) = Cli::parse().command;
    let options = Options {
        nodes: args.nodes,
        degree: args.degree,
        seed: args.seed,
        loss: millionths(args.loss, "the loss")?,
        churn: millionths(args.churn, "the churn")?,
        reconcile: !args.no_reconcile,
        partition: args.partition.map(Duration::from_secs),
        horizon: Duration::from_secs(args.horizon),
    };
    let start = Instant::now();
    let report = match &args.trace {
        None => network::run(&options, None)?,
        Some(path) => {
            let context = || format!("cannot write {}", path.display());
            let mut file = BufWriter::new(File::create(path).with_context(context)?);
            let report = network::run(&options, Some(&mut file))?;
            file.flush().with_context(context)?;
            report
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "seed                    {}", args.seed)?;
    writeln!(out, "{report}")?;
    writeln!(
        out,
        "wall time               {} ms",
        start.elapsed().as_millis()
    )?;
    let faults = options.loss > 0 || options.churn > 0;
    ensure!(
        !faults || report.lost > 0,
        "no message was lost: the faults did not happen"
    );
    Ok(())
}
