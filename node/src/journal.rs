//! Local state that must not be lost: an append-only, hash-chained journal, synced before an answer.
//!
//! Audit log and database are one thing. Every entry names the hash of the one before it, so that none can
//! be taken out or changed unseen. The journal is cut into segments; each begins with a snapshot, which is
//! chained like all else: the newest entry about each subject, which is what the state is made of.

mod entry;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use entry::Entry;

use crate::files::Files;
use crate::files::frames::FRAME_PAYLOAD_BYTES_MAX;
use crate::files::group::GroupCommit;
use crate::files::segments::{Appender, Folder, NewFrame};
use crate::store::StoreError;
use state::{ENTRY, Link, State, frame};

/// Names the journal's format in every segment and checksum.
const MAGIC: [u8; 8] = *b"cairnjn1";
/// Bytes from which on a segment is closed, unless its snapshot alone takes half of them.
const SEGMENT_BYTES: u64 = 16 << 20;

/// The journal; cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    group: Arc<GroupCommit<Entry>>,
}

impl Journal {
    /// Opens (or makes) the journal in a folder, whose parent exists, and that nothing else has open.
    ///
    /// Also returns the entries that make up its state, in order: the newest snapshot, and all that came
    /// after it. An incomplete last frame is cut off; [`StoreError::Corrupt`] at any other bad one, and
    /// where an entry does not follow the one before it.
    pub fn open(files: Arc<dyn Files>, dir: &Path) -> Result<(Self, Vec<Entry>), StoreError> {
        Self::open_with(files, dir, SEGMENT_BYTES)
    }

    fn open_with(
        files: Arc<dyn Files>,
        dir: &Path,
        segment_bytes: u64,
    ) -> Result<(Self, Vec<Entry>), StoreError> {
        let folder = Folder {
            files,
            dir: dir.to_owned(),
            magic: MAGIC,
            may_rot: None,
        };
        let mut state = State::default();
        let (_, first) = State::default().snapshot(now());
        let (appender, _) = Appender::open(folder.clone(), &first, &mut |segment, frame| {
            state
                .read(frame.kind, frame.payload)
                .map_err(|reason| StoreError::Corrupt {
                    path: folder.path(segment),
                    offset: frame.offset,
                    reason,
                })
        })?;
        let entries = state.take_replayed();
        let mut writer = Writer {
            appender,
            state,
            segment_bytes,
            snapshot_bytes: 0,
        };
        let group = GroupCommit::spawn("journal writer", move |entries| writer.commit(entries))
            .map_err(|source| StoreError::Io {
                operation: "start a thread for",
                path: dir.to_owned(),
                source,
            })?;
        Ok((
            Self {
                group: Arc::new(group),
            },
            entries,
        ))
    }

    /// Adds an entry; durable on return.
    pub fn append(&self, entry: Entry) -> Result<(), StoreError> {
        self.group.commit(entry)
    }
}

#[derive(Debug)]
struct Writer {
    appender: Appender,
    state: State,
    segment_bytes: u64,
    snapshot_bytes: u64,
}

impl Writer {
    fn commit(&mut self, entries: Vec<Entry>) -> Vec<Result<(), StoreError>> {
        let limit = self.segment_bytes.max(self.snapshot_bytes * 2);
        if self.appender.len() >= limit
            && let Err(error) = self.roll()
        {
            // The old segment takes entries all the same, unless a sync failed.
            tracing::warn!(%error, "the journal could not begin a new segment");
        }
        let time = now();
        let mut head = self.state.head();
        let mut frames = Vec::new();
        let mut results = Vec::new();
        let mut taken = Vec::new();
        for entry in entries {
            let link = Link {
                prev: head,
                time,
                entry,
            };
            let frame = frame(ENTRY, &link);
            let size = frame.len() as u64;
            if size > FRAME_PAYLOAD_BYTES_MAX as u64 {
                let max = FRAME_PAYLOAD_BYTES_MAX as u64;
                results.push(Err(StoreError::TooLarge {
                    what: "a journal entry",
                    size,
                    max,
                }));
                continue;
            }
            head = state::hash_of(&frame);
            frames.push(frame);
            taken.push(link.entry);
            results.push(Ok(()));
        }
        if frames.is_empty() {
            return results;
        }
        match self.appender.append(&frames) {
            Ok(_) => self.state.extend(taken, head),
            Err(error) => {
                results
                    .iter_mut()
                    .filter(|r| r.is_ok())
                    .for_each(|r| *r = Err(error.again()));
            }
        }
        results
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let (head, frames) = self.state.snapshot(now());
        self.appender.roll(&frames)?;
        self.state.extend(Vec::new(), head);
        self.snapshot_bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        Ok(())
    }
}

impl Drop for Writer {
    /// Leaves a mark at the end, so that whatever is bad before it at the next start is known to be damage.
    fn drop(&mut self) {
        if !self.appender.is_sealed()
            && let Err(error) = self.appender.append(&[] as &[NewFrame])
        {
            tracing::warn!(%error, "the journal was not closed in order");
        }
    }
}

/// Seconds since the Unix epoch: noted beside each entry, and never decided by.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cairn_protocol::hash::{Blake3, RecordId, RepositoryId};
    use proptest::prelude::*;

    use super::*;
    use crate::files::RealFiles;

    fn repository(number: u8) -> RepositoryId {
        RepositoryId::from_bytes([number; 32])
    }

    fn signed(number: u8, seq: u64) -> Entry {
        let envelope = format!("envelope {number} {seq}").into_bytes();
        Entry::Signed {
            repository: repository(number),
            epoch: 1,
            seq,
            id: RecordId::from_bytes(*Blake3::of(&envelope).as_bytes()),
            envelope,
        }
    }

    fn alias(name: &str, target: Option<&str>) -> Entry {
        Entry::Alias {
            name: name.to_owned(),
            target: target.map(str::to_owned),
        }
    }

    fn open(dir: &Path, segment_bytes: u64) -> Result<(Journal, Vec<Entry>), StoreError> {
        Journal::open_with(Arc::new(RealFiles), &dir.join("journal"), segment_bytes)
    }

    #[test]
    fn entries_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let entries = [
            Entry::Pinned {
                repository: repository(1),
            },
            signed(1, 1),
            alias("gpt2", Some("openai/gpt2")),
            signed(1, 2),
            Entry::Unpinned {
                repository: repository(1),
            },
            alias("gpt2", None),
        ];
        for split in 0..entries.len() {
            let (journal, replayed) = open(dir.path(), SEGMENT_BYTES).unwrap();
            assert_eq!(replayed, entries[..split]);
            journal.append(entries[split].clone()).unwrap();
        }
        assert_eq!(open(dir.path(), SEGMENT_BYTES).unwrap().1, entries);
    }

    #[test]
    fn the_form_on_disk_is_fixed() {
        let entry = signed(7, 9);
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            json,
            format!(
                r#"{{"kind":"signed","repository":"{}","epoch":1,"seq":9,"id":"{}","envelope":"ZW52ZWxvcGUgNyA5"}}"#,
                "07".repeat(32),
                Blake3::of(b"envelope 7 9"),
            )
        );
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }

    #[test]
    fn a_bad_frame_stops_the_start_and_names_its_offset() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path(), SEGMENT_BYTES).unwrap();
        for seq in 1..20 {
            journal.append(signed(1, seq)).unwrap();
        }
        drop(journal);
        let path = dir.path().join("journal/00000001.seg");
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(37) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            match open(dir.path(), SEGMENT_BYTES) {
                Err(StoreError::Corrupt {
                    path: named,
                    offset,
                    ..
                }) => {
                    assert_eq!(named, path);
                    assert!(offset <= at as u64 && at as u64 <= offset + 600);
                }
                other => panic!("{at}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal/00000001.seg");
        let (journal, _) = open(dir.path(), SEGMENT_BYTES).unwrap();
        journal.append(signed(1, 1)).unwrap();
        let good = fs::metadata(&path).unwrap().len();
        journal.append(signed(1, 2)).unwrap();
        let whole = fs::read(&path).unwrap();
        drop(journal);
        for len in usize::try_from(good).unwrap()..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let (journal, replayed) = open(dir.path(), SEGMENT_BYTES).unwrap();
            assert_eq!(replayed, [signed(1, 1)]);
            journal.append(signed(1, 3)).unwrap();
            drop(journal);
            assert_eq!(
                open(dir.path(), SEGMENT_BYTES).unwrap().1,
                [signed(1, 1), signed(1, 3)]
            );
        }
    }

    #[test]
    fn a_whole_frame_from_another_history_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, first) in [(&one, 1), (&two, 2)] {
            let (journal, _) = open(dir.path(), 1).unwrap();
            journal.append(signed(first, 1)).unwrap();
            journal.append(signed(3, 1)).unwrap();
            journal.append(signed(4, 1)).unwrap();
        }
        let name = "journal/00000003.seg";
        fs::copy(two.path().join(name), one.path().join(name)).unwrap();
        assert!(matches!(
            open(one.path(), 1),
            Err(StoreError::Corrupt { .. })
        ));
    }

    fn entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (0..4_u8).prop_map(|number| Entry::Pinned {
                repository: repository(number)
            }),
            (0..4_u8).prop_map(|number| Entry::Unpinned {
                repository: repository(number)
            }),
            (0..4_u8, 1..9_u64).prop_map(|(number, seq)| signed(number, seq)),
            ("[a-c]", prop::option::of("[x-z]"))
                .prop_map(|(name, target)| alias(&name, target.as_deref())),
        ]
    }

    /// What a reader makes of entries: the newest about each subject.
    fn state(entries: &[Entry]) -> std::collections::BTreeMap<String, Entry> {
        let mut state = std::collections::BTreeMap::<String, Entry>::new();
        for entry in entries {
            let subject = format!("{:?}", entry.subject());
            if state
                .get(&subject)
                .is_none_or(|earlier| entry.replaces(earlier))
            {
                state.insert(subject, entry.clone());
            }
        }
        state.retain(|_, entry| !entry.is_void());
        state
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn the_state_survives_any_cutting_into_segments(
            entries in prop::collection::vec(entry(), 0..60),
            segment_bytes in 1..6_000_u64,
            restart_every in 1..20_usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            for some in entries.chunks(restart_every) {
                let (journal, _) = open(dir.path(), segment_bytes).unwrap();
                for entry in some {
                    journal.append(entry.clone()).unwrap();
                }
            }
            let (_, replayed) = open(dir.path(), segment_bytes).unwrap();
            prop_assert_eq!(state(&replayed), state(&entries));
        }
    }
}
