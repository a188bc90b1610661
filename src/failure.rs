//! How failures are told: `error: …`, its causes indented, `hint: …`; and the exit code.
//!
//! The one place where errors of the crates become words for a person at a terminal.

use std::fmt::Write;
use std::process::ExitCode;

use cairn_gateway::TlsError;
use cairn_node::SpawnError;
use cairn_node::control;
use cairn_node::control::socket::SocketError;
use cairn_node::store::StoreError;

use crate::output;

/// A failure that ends the command.
#[derive(Debug)]
pub(crate) struct Failure {
    error: String,
    causes: Vec<String>,
    hint: Option<String>,
    usage: bool,
}

impl Failure {
    /// The command could not be done: exit code 1.
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            causes: Vec::new(),
            hint: None,
            usage: false,
        }
    }

    /// The command line or the settings are wrong: exit code 2.
    pub(crate) fn usage(error: impl Into<String>) -> Self {
        Self {
            usage: true,
            ..Self::new(error)
        }
    }

    /// Adds a cause, under those before it.
    #[must_use]
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints the failure and gives the exit code that says so.
    pub(crate) fn report(self) -> ExitCode {
        output::message(&self.text());
        ExitCode::from(if self.usage { 2 } else { 1 })
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        for line in self.causes.iter().flat_map(|cause| cause.lines()) {
            writeln!(text, "    {line}").expect("invariant: writing to a string never fails");
        }
        if let Some(hint) = &self.hint {
            writeln!(text, "hint: {hint}").expect("invariant: writing to a string never fails");
        }
        text
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let mut chain = error.chain().map(ToString::to_string);
        Self {
            causes: chain.by_ref().skip(1).collect(),
            ..Self::new(error.to_string())
        }
    }
}

impl From<control::Failure> for Failure {
    fn from(failure: control::Failure) -> Self {
        Self {
            causes: failure.causes,
            hint: failure.hint,
            ..Self::new(failure.error)
        }
    }
}

impl From<SocketError> for Failure {
    fn from(error: SocketError) -> Self {
        let hint = match error {
            SocketError::Failed(failure) => return failure.into(),
            SocketError::Io { .. } => {
                "only the user who runs the node may command it: use that account, or another --data"
            }
            SocketError::Answer(_) => {
                "`cairn --version` tells this command's release, `cairn status` the node's"
            }
            SocketError::Ended => {
                "nothing is left half done; run the command again, and see the node's log if it ends again"
            }
            _ => return anyhow::Error::new(error).into(),
        };
        Self::from(anyhow::Error::new(error)).hint(hint)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let hint = match error {
            TlsError::Read { .. } => {
                "`tls_certificate` and `tls_key` name PEM files that the user who runs the node can read"
            }
            TlsError::NoKey { .. } | TlsError::Key { .. } => {
                "`tls_key` names a PEM file with an RSA, ECDSA or Ed25519 key (PKCS#8, SEC1 or PKCS#1), not encrypted"
            }
            TlsError::Mismatch { .. } => {
                "`tls_key` names the key that the certificate was made for, which stands first in `tls_certificate`"
            }
            _ => {
                "`tls_certificate` names a PEM file with the gateway's certificate, then those between it and the root"
            }
        };
        Self {
            usage: true,
            ..Self::from(anyhow::Error::new(error))
        }
        .hint(hint)
    }
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Self {
        let hint = match error {
            SpawnError::Locked { .. } => Some(
                "wait until that command has ended; while `cairn up` runs there, commands go through it",
            ),
            SpawnError::NewerFormat { .. } => Some(
                "use the release that wrote it or a later one, or another --data; nothing was touched",
            ),
            SpawnError::NotOurs { .. } => {
                Some("choose an empty folder, or one that does not exist yet, with --data")
            }
            SpawnError::Key { .. } => Some(
                "a key file is one line and has mode 600: restore it from a copy, or `chmod 600` it if nobody else has read it",
            ),
            SpawnError::Store(StoreError::Corrupt { .. }) => Some(
                "keep a copy of the folder, and restore what is damaged from a backup: nothing was changed",
            ),
            SpawnError::Store(_) => {
                Some("the folder must belong to this user, and its device must have room")
            }
            _ => None,
        };
        let failure = Self::from(anyhow::Error::new(error));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_indented_and_the_hint_is_last() {
        let error = std::fs::read("/nonexistent/a")
            .context("read the folder")
            .context("cannot publish")
            .unwrap_err();
        let text = Failure::from(error).hint("check the path").text();
        assert_eq!(
            text,
            "error: cannot publish\n    read the folder\n    No such file or directory (os error 2)\n\
             hint: check the path\n"
        );
    }

    #[test]
    fn a_failure_from_the_node_reads_like_one_from_here() {
        let text = Failure::from(SocketError::Failed(control::Failure {
            error: "repository a/b not found".into(),
            causes: vec!["first\nsecond".into()],
            hint: Some("`cairn ls` lists them".into()),
        }))
        .text();
        assert_eq!(
            text,
            "error: repository a/b not found\n    first\n    second\nhint: `cairn ls` lists them\n"
        );
    }
}
