//! Logs: to stderr, in the form and with the filter of the settings.

use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::settings::{LogFormat, Settings, Values};

/// What libraries warn of and is an ordinary state of a node: that it knows no peers yet, say.
const QUIET: &str = ",libp2p_kad=error";

/// Starts logging for the whole process.
pub(crate) fn start(settings: &Settings) -> Result<(), Failure> {
    let mut filter = settings.values.log.clone();
    if filter == Values::default().log {
        // Whoever asks for more gets everything.
        filter += QUIET;
    }
    let filter =
        EnvFilter::try_new(filter).map_err(|error| settings.refuse("log", &error.to_string()))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match settings.values.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
