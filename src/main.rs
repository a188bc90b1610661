//! The `cairn` command: reads its arguments and settings, does one verb, says how it went.

mod cli;
mod failure;
mod logs;
mod output;
mod progress;
mod sample;
mod service;
mod session;
mod settings;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};
use crate::failure::Failure;
use crate::session::Session;
use crate::settings::Settings;

fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(Failure::report)
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    if let Verb::Completions { shell } = cli.verb {
        return verbs::completions::run(shell);
    }
    let settings = Settings::load(&cli)?;
    logs::start(&settings)?;
    settings.warn();
    let session = Session::new(settings, cli.global.json);
    match cli.verb {
        Verb::Up(_) => verbs::up::run(&session),
        Verb::Push(arguments) => verbs::push::run(&session, arguments),
        Verb::Ls(arguments) => verbs::ls::run(&session, &arguments),
        Verb::Info { repo } => verbs::info::run(&session, repo),
        Verb::Verify { repo } => verbs::verify::run(&session, repo),
        Verb::Pin { repo } => verbs::pin::run(&session, repo),
        Verb::Unpin { repo } => verbs::unpin::run(&session, repo),
        Verb::Pull(arguments) => verbs::pull::run(&session, arguments),
        Verb::Gc { dry_run } => verbs::gc::run(&session, dry_run),
        Verb::Doctor { rebuild } => verbs::doctor::run(&session, rebuild),
        Verb::Backup { dir } => verbs::backup::run(&session, &dir),
        Verb::Restore { dir, newest } => verbs::restore::run(&session, &dir, newest),
        Verb::Status => verbs::status::run(&session),
        Verb::Peers => verbs::peers::run(&session),
        Verb::Key(_) => verbs::key::run(&session),
        Verb::Config(_) => verbs::config::run(&session),
        Verb::Admin(verb) => verbs::admin::run(&session, verb),
        Verb::Demo => verbs::demo::run(&session),
        Verb::Completions { .. } => Ok(ExitCode::SUCCESS),
    }
}
