//! Crashes and failing disks for anything that reaches the disk through [`cairn_node::files::Files`].
//!
//! Drive some work over a [`Recorder`], noting what was acknowledged; then [`replay`] checks every image
//! that a power cut could have left, and [`fail_each_call`] every call that the disk could have refused.
//! Used from a test with `#[path = "support/replay.rs"] mod replay;`.

#[path = "image.rs"]
pub(crate) mod image;
#[path = "recorder.rs"]
pub(crate) mod recorder;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use image::{Disk, Left};
use recorder::{Call, Fault, Recorder, Syncs};

/// Something acknowledged, and how many calls had been made by then.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged<F> {
    /// Calls recorded before the acknowledgement.
    pub(crate) calls: usize,
    /// What was promised.
    pub(crate) fact: F,
}

/// Everything acknowledged so far, in order.
#[derive(Debug)]
pub(crate) struct Ledger<F> {
    recorder: Arc<Recorder>,
    facts: Vec<Acknowledged<F>>,
}

impl<F> Ledger<F> {
    /// Begins one beside a recorder.
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            facts: Vec::new(),
        }
    }

    /// Notes that something is promised from now on.
    ///
    /// Nothing counts after the process would have ended.
    pub(crate) fn acknowledge(&mut self, fact: F) {
        if !self.recorder.is_dead() {
            self.facts.push(Acknowledged {
                calls: self.recorder.recorded(),
                fact,
            });
        }
    }

    /// All that was promised when so many calls had been made.
    fn facts_at(&self, calls: usize) -> Vec<&F> {
        self.facts
            .iter()
            .filter(|acknowledged| acknowledged.calls <= calls)
            .map(|acknowledged| &acknowledged.fact)
            .collect()
    }
}

/// Work that reaches the disk through a recorder, rooted in a folder, and promises things.
pub(crate) type Drive<'a, F> = &'a dyn Fn(&Arc<Recorder>, &Path, &mut Ledger<F>);

/// Opens what a crash left, and says what is wrong with it. All facts in the slice were promised.
pub(crate) type Check<'a, F> = &'a dyn Fn(&Path, &[&F]) -> Result<(), String>;

/// What came out of a replay.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Calls that were recorded.
    pub(crate) calls: usize,
    /// Different images that were checked.
    pub(crate) images: usize,
    /// What was wrong, and in which image.
    pub(crate) failures: Vec<String>,
}

/// Records work, and checks every image that a power cut at any instant of it could have left.
pub(crate) fn replay<F>(syncs: Syncs, drive: Drive<'_, F>, check: Check<'_, F>) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new(dir.path(), syncs, None));
    let mut ledger = Ledger::new(Arc::clone(&recorder));
    drive(&recorder, dir.path(), &mut ledger);
    let calls = recorder.take_calls();
    let mut outcome = Outcome {
        calls: calls.len(),
        ..Outcome::default()
    };
    let mut seen = HashSet::new();
    let mut disk = Disk::default();
    for (number, call) in calls.iter().enumerate() {
        // Before the call returns, only what was promised earlier counts.
        let promised = ledger.facts_at(number);
        if let Call::Write { bytes, .. } = call {
            for len in torn_lengths(bytes.len()) {
                let mut torn = disk.clone();
                torn.apply(&call.cut(len));
                let what = || format!("call {number} torn after {len} bytes: {}", call.summary());
                look(
                    &torn,
                    Left::Everything,
                    &promised,
                    check,
                    &mut seen,
                    &what,
                    &mut outcome,
                );
            }
        }
        disk.apply(call);
        let promised = ledger.facts_at(number + 1);
        for left in Left::ALL {
            let what = || format!("after call {number}, {left:?} left: {}", call.summary());
            look(
                &disk,
                left,
                &promised,
                check,
                &mut seen,
                &what,
                &mut outcome,
            );
        }
    }
    outcome
}

/// Lengths at which a write is torn: every sector of a short one, some of a long one.
fn torn_lengths(len: usize) -> impl Iterator<Item = usize> {
    let step = (len / 24).next_multiple_of(512).max(512);
    (0..len).step_by(step)
}

fn look<F>(
    disk: &Disk,
    left: Left,
    promised: &[&F],
    check: Check<'_, F>,
    seen: &mut HashSet<(blake3::Hash, usize)>,
    what: &dyn Fn() -> String,
    outcome: &mut Outcome,
) {
    let image = disk.image(left);
    if !seen.insert((image.hash(), promised.len())) {
        return;
    }
    outcome.images += 1;
    let dir = tempfile::tempdir().unwrap();
    image.write(dir.path());
    if let Err(wrong) = check(dir.path(), promised) {
        outcome.failures.push(format!("{}: {wrong}", what()));
    }
}

/// Does the work once for each of its calls, with that call failing, and checks what is left.
///
/// The work must not panic. What is left is what the process sees at its next start; where a sync failed,
/// also what the disk had at that moment. Returns how many runs there were.
pub(crate) fn fail_each_call<F>(fault: Fault, drive: Drive<'_, F>, check: Check<'_, F>) -> Outcome {
    let mut outcome = Outcome::default();
    for number in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new(
            dir.path(),
            Syncs::Kept,
            Some((number, fault)),
        ));
        let mut ledger = Ledger::new(Arc::clone(&recorder));
        drive(&recorder, dir.path(), &mut ledger);
        let Some(failed) = recorder.failed_call() else {
            outcome.calls = number;
            return outcome;
        };
        outcome.images += 1;
        let promised = ledger.facts_at(usize::MAX);
        if let Err(wrong) = check(dir.path(), &promised) {
            outcome
                .failures
                .push(format!("{fault:?} at call {number}, {failed}: {wrong}"));
        }
        if recorder.is_dead() {
            let mut disk = Disk::default();
            recorder
                .take_calls()
                .iter()
                .for_each(|call| disk.apply(call));
            for left in Left::ALL {
                let what = || format!("{fault:?} at call {number}, {failed}, {left:?} left");
                let seen = &mut HashSet::new();
                look(&disk, left, &promised, check, seen, &what, &mut outcome);
            }
        }
    }
    outcome
}
