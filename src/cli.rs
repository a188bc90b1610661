//! The command line's grammar: every verb and flag, with the words of `--help`.

use std::path::PathBuf;

use cairn_protocol::name::RepoKind;
use clap::{Args, Parser, Subcommand};

/// A peer-to-peer registry for machine-learning models and datasets.
///
/// Start with `cairn demo`. `cairn up` runs a node; the other commands reach it through its data folder, and
/// open the folder themselves where no node runs.
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Data folder of the node [env: `CAIRN_DATA`] [default: cairn in the XDG data folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Settings [env: `CAIRN_CONFIG`] [default: cairn.toml in the data folder, else cairn/cairn.toml in the
    /// XDG configuration folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print data as one line of JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log to stderr, such as `info` or `cairn_node=debug` [env: `CAIRN_LOG`] [default: warn]
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to log: `text` or `json` [env: `CAIRN_LOG_FORMAT`] [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a node and its gateway until stopped
    Up(Up),
    /// Publish a folder: make a commit of it and sign it
    Push(Push),
    /// List repositories
    Ls(Ls),
    /// Show one repository
    Info {
        /// `[datasets/|spaces/]namespace/name`, or an alias
        repo: String,
    },
    /// Read everything again and check hashes and signatures; exit code 1 if anything is damaged
    Verify {
        /// Only this repository
        repo: Option<String>,
    },
    /// Keep a repository's content whatever `gc` does
    Pin {
        /// `[datasets/|spaces/]namespace/name`, or an alias
        repo: String,
    },
    /// Undo a pin
    Unpin {
        /// `[datasets/|spaces/]namespace/name`, or an alias
        repo: String,
    },
    /// Free the space of content that nothing pins or names
    Gc {
        /// Only say what would be freed
        #[arg(long)]
        dry_run: bool,
    },
    /// Check the data folder; exit code 1 if a check fails
    Doctor {
        /// Make every index anew from the stored records first
        #[arg(long)]
        rebuild: bool,
    },
    /// Show who and where the node is, and what it holds
    Status,
    /// The node's keys
    #[command(subcommand)]
    Key(Key),
    /// The settings
    #[command(subcommand)]
    Config(Config),
    /// Show what Cairn does: a node in a throw-away folder, with a small model to fetch
    Demo,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where the gateway listens; port 0 takes a free one [env: `CAIRN_GATEWAY`] [default: 127.0.0.1:22476]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) gateway: Option<String>,
    /// The gateway's URL as its users see it, where that is another [env: `CAIRN_PUBLIC_URL`]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
}

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The folder
    pub(crate) dir: PathBuf,
    /// The repository: `name` in this node's namespace, or `namespace/name`
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub(crate) repo: String,
    /// It is a dataset
    #[arg(long, conflicts_with = "space")]
    pub(crate) dataset: bool,
    /// It is a space
    #[arg(long)]
    pub(crate) space: bool,
    /// The branch
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    pub(crate) reference: String,
    /// Message of the commit
    #[arg(short, long)]
    pub(crate) message: Option<String>,
}

impl Push {
    pub(crate) fn kind(&self) -> RepoKind {
        match (self.dataset, self.space) {
            (true, _) => RepoKind::Dataset,
            (_, true) => RepoKind::Space,
            _ => RepoKind::Model,
        }
    }
}

/// Flags of `ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only models
    #[arg(long, group = "kind")]
    model: bool,
    /// Only datasets
    #[arg(long, group = "kind")]
    dataset: bool,
    /// Only spaces
    #[arg(long, group = "kind")]
    space: bool,
}

impl Ls {
    pub(crate) fn kind(&self) -> Option<RepoKind> {
        match (self.model, self.dataset, self.space) {
            (true, ..) => Some(RepoKind::Model),
            (_, true, _) => Some(RepoKind::Dataset),
            (_, _, true) => Some(RepoKind::Space),
            _ => None,
        }
    }
}

/// Verbs of `key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Show the public keys and the names that follow from them
    Show,
}

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show the settings in effect, and where each comes from
    Show,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kinds_exclude_each_other() {
        assert!(Cli::try_parse_from(["cairn", "push", "d", "n", "--dataset", "--space"]).is_err());
        assert!(Cli::try_parse_from(["cairn", "ls", "--dataset", "--model"]).is_err());
        let cli = Cli::try_parse_from(["cairn", "ls", "--space", "--json"]).unwrap();
        assert!(cli.global.json);
        assert!(
            matches!(cli.verb, Verb::Ls(arguments) if arguments.kind() == Some(RepoKind::Space))
        );
    }
}
