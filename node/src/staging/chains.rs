//! Files that are hashed while their parts arrive: those that come one after another from the first on, as most
//! clients send them, need not be read again once all are here.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::store::Running;

/// Files that nobody writes to at the moment; beyond them one is let go of for each that begins.
const CHAINS_MAX: usize = 1_024;

/// By the folder of a file's parts.
#[derive(Debug, Default)]
pub(super) struct Chains {
    all: Mutex<HashMap<PathBuf, Chain>>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Chain {
    /// The bytes so far; away while a part is added to it.
    running: Option<Running>,
    /// Where the last part that was hashed, or is being hashed, ends.
    end: u64,
    /// Parts that are being written.
    writing: Vec<Range<u64>>,
    /// Something may have been written over what was hashed: the file must be read.
    is_void: bool,
}

impl Chains {
    /// A part is about to be written: what it can be hashed with.
    pub(super) fn begin(&self, folder: &Path, part: &Range<u64>) -> Option<Running> {
        let mut all = self.all.lock();
        if !all.contains_key(folder) {
            // One that is written to stays, since another writer has to be told of this one.
            if all.len() >= CHAINS_MAX
                && let Some(idle) = all.iter().find(|(_, chain)| chain.writing.is_empty())
            {
                let idle = idle.0.clone();
                all.remove(&idle);
            }
            // What came before this process is not in it.
            let chain = Chain {
                running: Some(Running::new()),
                ..Chain::default()
            };
            all.insert(folder.to_owned(), chain);
        }
        let chain = all.get_mut(folder)?;
        chain.is_void |= part.start < chain.end
            || chain
                .writing
                .iter()
                .any(|other| part.start < other.end && other.start < part.end);
        chain.writing.push(part.clone());
        if chain.is_void || part.start != chain.end {
            return None;
        }
        let running = chain.running.take()?;
        chain.end = part.end;
        Some(running)
    }

    /// It was written; or it was not, and then `running` is nothing, and the file will be read.
    pub(super) fn end(&self, folder: &Path, part: &Range<u64>, running: Option<Running>) {
        let mut all = self.all.lock();
        let Some(chain) = all.get_mut(folder) else {
            return;
        };
        if let Some(at) = chain.writing.iter().position(|other| other == part) {
            chain.writing.swap_remove(at);
        }
        if running.is_some() {
            chain.running = running;
        }
        // The file will be read anyway.
        if chain.writing.is_empty() && (chain.is_void || chain.running.is_none()) {
            all.remove(folder);
        }
    }

    /// Lets go of a file; its hashes as far as they go, if they are to be trusted.
    pub(super) fn take(&self, folder: &Path) -> Option<Running> {
        let chain = self.all.lock().remove(folder)?;
        chain.running.filter(|_| !chain.is_void)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use cairn_protocol::hash::{Blake3, Sha256};
    use proptest::prelude::*;

    use super::{CHAINS_MAX, Chains};
    use crate::accounts::AccountId;
    use crate::staging::parts::{Part, Parts};
    use crate::store::Running;

    const PART: usize = 3;
    const COUNT: usize = 4;

    /// Puts one part, with bytes of its own.
    fn put(parts: &Parts, number: usize, byte: u8) {
        let part = Part {
            account: &AccountId::from_bytes([1; 16]),
            sha256: &Sha256::from_bytes([2; 32]),
            number: u32::try_from(number + 1).unwrap(),
            offset: (number * PART) as u64,
            length: PART as u64,
        };
        parts.put(&part, &mut &[byte; PART][..]).unwrap();
    }

    /// What was hashed as the parts came, if all of it was, and what stands in the file.
    fn taken(parts: &Parts) -> (Option<Running>, Vec<u8>) {
        let (account, sha256) = (AccountId::from_bytes([1; 16]), Sha256::from_bytes([2; 32]));
        let size = (PART * COUNT) as u64;
        let taken = parts.take(&account, &sha256, size, COUNT as u64, |path, running| {
            Ok((running, std::fs::read(path).unwrap()))
        });
        let (running, bytes) = taken.unwrap();
        (running.filter(|running| running.hashed() == size), bytes)
    }

    #[test]
    fn parts_in_their_order_are_hashed_as_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let parts = Parts::new(dir.path());
        (0..COUNT).for_each(|number| put(&parts, number, 7));
        let (running, bytes) = taken(&parts);
        assert_eq!(running.unwrap().blake3(), Blake3::of(&bytes));
    }

    /// However many others there are, whoever writes is known: else two could write one part unseen.
    #[test]
    fn a_writer_is_known_among_any_number_of_files() {
        let chains = Chains::default();
        let folder = |number: usize| PathBuf::from(number.to_string());
        let part = 0..3;
        let mut writers = Vec::new();
        for number in 0..CHAINS_MAX + 10 {
            writers.push(chains.begin(&folder(number), &part));
        }
        let late = folder(CHAINS_MAX + 5);
        assert!(chains.begin(&late, &part).is_none());
        chains.end(&late, &part, None);
        // The first writer is done, or not; another part goes on where it stopped, and may be wrong.
        assert!(chains.begin(&late, &(3..6)).is_none());
        assert!(chains.take(&late).is_none());
        for (number, running) in writers.into_iter().enumerate() {
            chains.end(&folder(number), &part, running);
        }
        (0..CHAINS_MAX).for_each(|number| drop(chains.begin(&folder(number + 10_000), &part)));
        assert!(chains.all.lock().len() <= CHAINS_MAX + 10);
    }

    /// What failed is of no use, and takes no place.
    #[test]
    fn a_file_whose_writer_failed_is_let_go_of() {
        let chains = Chains::default();
        for number in 0..CHAINS_MAX {
            let folder = PathBuf::from(number.to_string());
            assert!(chains.begin(&folder, &(0..3)).is_some());
            chains.end(&folder, &(0..3), None);
        }
        assert!(chains.all.lock().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_hashed_is_what_stands_there(
            steps in prop::collection::vec((0..COUNT, any::<u8>()), 0..8),
            threads in 1..3_usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let parts = Arc::new(Parts::new(dir.path()));
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let (parts, steps) = (&parts, &steps);
                    scope.spawn(move || {
                        for (number, byte) in steps.iter().skip(thread) {
                            put(parts, *number, *byte);
                        }
                    });
                }
            });
            (0..COUNT).for_each(|number| put(&parts, number, 9));
            let (running, bytes) = taken(&parts);
            if let Some(running) = running {
                prop_assert_eq!(running.blake3(), Blake3::of(&bytes));
            }
        }
    }
}
