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
    /// Fetch a repository from peers, and write it to a folder where one is named
    Pull(Pull),
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
    /// Copy all that can't be had again to another folder: keys, accounts, repositories, what waits for commits
    Backup {
        /// Folder of the backup, on another disk; a second backup to it copies what is new
        dir: PathBuf,
    },
    /// Make a data folder of a backup
    Restore {
        /// Folder of the backup
        dir: PathBuf,
        /// Nothing was published since the backup was made: sign at once, without meeting a peer first
        #[arg(long)]
        newest: bool,
    },
    /// Show who and where the node is, what it holds, and what it fetches
    Status,
    /// Show the peers that the node is connected to
    Peers,
    /// The node's keys
    #[command(subcommand)]
    Key(Key),
    /// The settings
    #[command(subcommand)]
    Config(Config),
    /// Accounts, their tokens, and whom a repository lets in
    #[command(subcommand)]
    Admin(Admin),
    /// Show what Cairn does: two nodes in throw-away folders, and a small model that one fetches from the other
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
    /// Certificate chain to serve HTTPS with, a PEM file [env: `CAIRN_TLS_CERTIFICATE`]
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_certificate: Option<String>,
    /// The certificate's private key, a PEM file [env: `CAIRN_TLS_KEY`]
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<String>,
    /// Where peers reach the node, such as /ip4/0.0.0.0/tcp/22477 [env: `CAIRN_LISTEN`, commas between]
    /// [default: TCP and QUIC on port 22477 of every interface, or on free ports where that is taken]
    #[arg(long, value_name = "MULTIADDR", num_args = 1.., action = clap::ArgAction::Append)]
    pub(crate) listen: Vec<String>,
    /// A peer to keep connected to, such as /ip4/192.0.2.7/tcp/22477 [env: `CAIRN_PEERS`, commas between]
    #[arg(long = "peer", value_name = "MULTIADDR", num_args = 1.., action = clap::ArgAction::Append)]
    pub(crate) peers: Vec<String>,
    /// Neither look for peers on the local network nor be found there [env: `CAIRN_MDNS=false`]
    #[arg(long)]
    pub(crate) no_mdns: bool,
    /// How much to keep of what was fetched and is not pinned, such as 200GB [env: `CAIRN_CACHE_SIZE`]
    /// [default: as much as leaves 10 % of the disk free]
    #[arg(long, value_name = "BYTES")]
    pub(crate) cache_size: Option<String>,
    /// Content sent to all peers together, at most, in bytes a second [env: `CAIRN_UPLOAD_RATE`]
    /// [default: no limit]
    #[arg(long, value_name = "BYTES")]
    pub(crate) upload_rate: Option<String>,
    /// Content taken from all peers together, at most, in bytes a second [env: `CAIRN_DOWNLOAD_RATE`]
    /// [default: no limit]
    #[arg(long, value_name = "BYTES")]
    pub(crate) download_rate: Option<String>,
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// `[datasets/|spaces/]namespace/name`, or an alias; `@` and a branch, tag or commit behind it
    #[arg(value_name = "REPO[@REVISION]")]
    pub(crate) repo: String,
    /// Write the files into this folder, too
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Only files that match; `*` also stands for `/`, and `folder/` for all below it. May be repeated
    #[arg(long, value_name = "GLOB", action = clap::ArgAction::Append)]
    pub(crate) include: Vec<String>,
    /// No files that match. May be repeated
    #[arg(long, value_name = "GLOB", action = clap::ArgAction::Append)]
    pub(crate) exclude: Vec<String>,
    /// A peer to ask, such as /ip4/192.0.2.7/tcp/22477; beside those of the settings and those known.
    /// May be repeated
    #[arg(long = "peer", value_name = "MULTIADDR", action = clap::ArgAction::Append)]
    pub(crate) peers: Vec<String>,
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

/// Verbs of `admin`.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Accounts, which publish through this node
    #[command(subcommand)]
    User(User),
    /// Access tokens, with which clients say who they are
    #[command(subcommand)]
    Token(Token),
    /// Let an account into a repository of another, or out of it
    Grant {
        /// `[datasets/|spaces/]namespace/name`
        repo: String,
        /// The account
        user: String,
        /// How far: `read`, `write`, `manage`, or `none`
        access: String,
    },
}

/// Verbs of `admin user`.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make an account, with a namespace and a key of its own
    Create {
        /// Its name, which is its namespace's on this node
        name: String,
        /// It administers the node: it may do everything, and make other accounts
        #[arg(long)]
        admin: bool,
    },
    /// List accounts
    List,
    /// Take an account's tokens no more
    Disable {
        /// The account
        name: String,
    },
    /// Take an account's tokens again
    Enable {
        /// The account
        name: String,
    },
}

/// Verbs of `admin token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, this once
    Create {
        /// The account
        #[arg(long)]
        user: String,
        /// What it is for
        #[arg(long, value_enum, default_value_t = TokenScope::Read)]
        scope: TokenScope,
        /// What to call it
        #[arg(long, default_value = "cairn admin")]
        name: String,
        /// Only for this repository (beside what everybody may read). May be repeated
        #[arg(long = "repo", value_name = "REPO", action = clap::ArgAction::Append)]
        repos: Vec<String>,
        /// Days until it ends [default: never]
        #[arg(long)]
        days: Option<u64>,
    },
    /// List an account's tokens
    List {
        /// The account
        #[arg(long)]
        user: String,
    },
    /// Take a token no more
    Revoke {
        /// The account
        #[arg(long)]
        user: String,
        /// The token's id, its first 8 digits or more, or its name
        token: String,
    },
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TokenScope {
    /// See what the account may see
    Read,
    /// Change what the account may change, too
    Write,
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
