//! One command's way to its node: through the socket of the one that runs, else by opening the folder.

use std::time::{Duration, Instant};

use cairn_node::control::socket::Client;
use cairn_node::control::{self, Request};
use cairn_node::{Node, SpawnError};
use serde_json::Value;

use crate::failure::Failure;
use crate::progress::Bar;
use crate::settings::Settings;

/// How long to wait for a folder that another process has open without answering: a node that is starting
/// or stopping, or a short command.
const LOCKED_WAIT: Duration = Duration::from_secs(2);
/// Time between two tries.
const LOCKED_PAUSE: Duration = Duration::from_millis(50);

/// Settings and form of output of one command.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) json: bool,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Answered {
    /// What the node said.
    pub(crate) value: Value,
    /// A running node said it; otherwise this process opened the folder.
    pub(crate) running: bool,
}

impl Session {
    pub(crate) fn new(settings: Settings, json: bool) -> Self {
        Self { settings, json }
    }

    /// Does a request, showing its progress.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answered, Failure> {
        let data = &self.settings.data;
        let mut bar = Bar::new(request, self.json);
        let begin = Instant::now();
        loop {
            if let Some(client) = Client::connect(data)? {
                let value = client.ask(request, &mut |progress| bar.show(&progress))?;
                return Ok(Answered {
                    value,
                    running: true,
                });
            }
            let pulls = matches!(request, Request::Pull { .. });
            if !pulls && !matches!(request, Request::Push { .. }) {
                self.expect_folder()?;
            }
            let config = if pulls {
                self.settings.networked()
            } else {
                self.settings.node()
            };
            match Node::spawn(config) {
                Ok(node) => {
                    let value = control::execute(&node, request.clone(), &mut |progress| {
                        bar.show(&progress);
                    })?;
                    return Ok(Answered {
                        value,
                        running: false,
                    });
                }
                Err(SpawnError::Locked { .. }) if begin.elapsed() < LOCKED_WAIT => {
                    std::thread::sleep(LOCKED_PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Refuses a folder that holds nothing: a mistyped `--data` should not become a node with new keys.
    fn expect_folder(&self) -> Result<(), Failure> {
        let data = &self.settings.data;
        let anything = match std::fs::read_dir(data) {
            Ok(entries) => entries
                .flatten()
                .any(|entry| entry.file_name() != crate::settings::FILE_NAME),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                let error = anyhow::Error::new(error);
                return Err(error
                    .context(format!("cannot read the data folder {}", data.display()))
                    .into());
            }
        };
        if anything {
            return Ok(());
        }
        Err(
            Failure::new(format!("there is no node in {} yet", data.display())).hint(
                "`cairn up`, `cairn push` or `cairn pull` makes one; `--data` or CAIRN_DATA names another folder",
            ),
        )
    }
}
