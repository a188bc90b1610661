//! Progress bars: on stderr, with rate and time left; none where nobody watches.

use std::io::IsTerminal;
use std::time::Duration;

use cairn_node::control::{Progress, Request};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Time between two turns of the spinner.
const TURN: Duration = Duration::from_millis(200);

/// What a request's progress counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Bytes hashed, copied, verified.
    Bytes,
    /// Records, blobs, repositories.
    Items,
}

/// The bar of one request; gone from the screen when dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    drawn: ProgressBar,
    unit: Unit,
    known: Option<bool>,
}

impl Bar {
    /// A spinner until the first progress comes, then a bar.
    ///
    /// It draws nothing for requests that are done at once, with `--json`, and when stdout or stderr is no
    /// terminal.
    pub(crate) fn new(request: &Request, json: bool) -> Self {
        let (unit, what) = match request {
            Request::Push { .. } => (Unit::Bytes, "publishing"),
            Request::Pull { .. } => (Unit::Bytes, "looking for the repository"),
            Request::Verify { .. } => (Unit::Bytes, "verifying"),
            Request::Backup { .. } => (Unit::Bytes, "copying the state"),
            Request::Gc { .. } => (Unit::Items, "collecting"),
            Request::Doctor { .. } => (Unit::Items, "checking"),
            _ => (Unit::Items, ""),
        };
        let terminal = || std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let drawn = if what.is_empty() || json || !terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        } else {
            let drawn = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            drawn.set_style(template("{spinner} {elapsed} {wide_msg}"));
            drawn.set_message(what);
            drawn.enable_steady_tick(TURN);
            drawn
        };
        Self {
            drawn,
            unit,
            known: None,
        }
    }

    /// Shows how far the request is.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let known = progress.total > 0;
        if self.known != Some(known) {
            self.known = Some(known);
            self.drawn.set_style(style(self.unit, known));
        }
        if progress.done < self.drawn.position() {
            // Another step began: its rate and time left are its own.
            self.drawn.reset();
        }
        if known {
            self.drawn.set_length(progress.total);
        }
        self.drawn.set_message(output::clean(&progress.what));
        self.drawn.set_position(progress.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.drawn.finish_and_clear();
    }
}

fn style(unit: Unit, known: bool) -> ProgressStyle {
    template(match (unit, known) {
        (Unit::Bytes, true) => {
            "{bar:16} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left  {wide_msg}"
        }
        (Unit::Bytes, false) => "{spinner} {bytes}, {bytes_per_sec}  {wide_msg}",
        (Unit::Items, true) => {
            "{bar:16} {human_pos} of {human_len}, {per_sec}, {eta} left  {wide_msg}"
        }
        (Unit::Items, false) => "{spinner} {human_pos}, {per_sec}  {wide_msg}",
    })
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text).expect("invariant: the templates are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_taken_whatever_came_before() {
        for request in [
            Request::Verify { repo: None },
            Request::Gc { dry_run: true },
        ] {
            let mut bar = Bar::new(&request, true);
            for (done, total) in [(0, 0), (1, 0), (1, 3), (0, 2)] {
                bar.show(&Progress {
                    what: "hashing\x1b".into(),
                    done,
                    total,
                });
                assert_eq!(bar.drawn.position(), done);
                assert_eq!(bar.drawn.message(), "hashing\u{fffd}");
            }
        }
    }
}
