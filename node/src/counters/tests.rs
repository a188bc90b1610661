use super::*;

/// Noon of some day, in seconds since the Unix epoch.
const NOON_S: u64 = 20_787 * DAY_S + DAY_S / 2;

fn repository(number: u8) -> RepositoryId {
    RepositoryId::from_bytes([number; 32])
}

fn token(number: u8) -> Blake3 {
    Blake3::from_bytes([number; 32])
}

struct Rig {
    folder: tempfile::TempDir,
    counters: Counters,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let counters = open(&folder);
        Self { folder, counters }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("counters")
    }

    /// The same after an orderly end.
    fn restarted(self) -> Self {
        self.counters.write(true, |_| true, |_| true);
        let counters = open(&self.folder);
        Self { counters, ..self }
    }

    fn download(&self, number: u8, agent: &str, now_s: u64) {
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        let reader = self.counters.stranger(address, agent.as_bytes());
        self.counters.download(&repository(number), reader, now_s);
    }

    fn counts(&self, number: u8, now_s: u64) -> (u64, u64) {
        let downloads = self.counters.downloads(&repository(number), now_s);
        (downloads.recent, downloads.all_time)
    }
}

fn open(folder: &tempfile::TempDir) -> Counters {
    Counters::open(folder.path().join("counters"), [7; 32])
}

#[test]
fn one_reader_s_requests_are_one_download_until_it_is_quiet() {
    let rig = Rig::new();
    for second in [0, 0, 1, QUIET_S, 2 * QUIET_S - 1] {
        rig.download(1, "a", NOON_S + second);
    }
    assert_eq!(rig.counts(1, NOON_S), (1, 1));
    rig.download(1, "a", NOON_S + 3 * QUIET_S);
    assert_eq!(rig.counts(1, NOON_S), (2, 2));
    // Another program, another repository.
    rig.download(1, "b", NOON_S + 3 * QUIET_S);
    rig.download(2, "a", NOON_S + 3 * QUIET_S);
    assert_eq!(rig.counts(1, NOON_S), (3, 3));
    assert_eq!(rig.counts(2, NOON_S), (1, 1));
}

#[test]
fn who_never_ends_counts_once_a_day() {
    let rig = Rig::new();
    for minute in 0..3 * 24 * 60 {
        rig.download(1, "a", NOON_S + minute * 60);
    }
    assert_eq!(rig.counts(1, NOON_S + 3 * DAY_S), (3, 3));
}

#[test]
fn readers_are_told_apart_by_account_or_by_address_and_program() {
    let counters = Rig::new().counters;
    let v4 = |last| Some(IpAddr::from([10, 0, 0, last]));
    let mapped = "::ffff:10.0.0.1".parse().ok();
    let account = |number| counters.account(&AccountId::from_bytes([number; 16]));
    assert_eq!(
        counters.stranger(v4(1), b"a"),
        counters.stranger(mapped, b"a")
    );
    let all = [
        counters.stranger(v4(1), b"a"),
        counters.stranger(v4(1), b"b"),
        counters.stranger(v4(2), b"a"),
        counters.stranger(None, b"a"),
        account(1),
        account(2),
    ];
    let different: std::collections::HashSet<_> = all.into_iter().collect();
    assert_eq!(different.len(), all.len());
    // And under another key they are others.
    let other = Counters::open(PathBuf::from("counters"), [8; 32]);
    assert_ne!(other.stranger(v4(1), b"a"), all[0]);
}

#[test]
fn days_fall_off_after_thirty() {
    let rig = Rig::new();
    for day in 0..40 {
        for agent in ["a", "b"] {
            rig.download(1, agent, NOON_S + day * DAY_S);
        }
    }
    let last_s = NOON_S + 39 * DAY_S;
    assert_eq!(rig.counts(1, last_s), (60, 80));
    assert_eq!(rig.counts(1, last_s + DAY_S), (58, 80));
    assert_eq!(rig.counts(1, last_s + 29 * DAY_S), (2, 80));
    assert_eq!(rig.counts(1, last_s + 30 * DAY_S), (0, 80));
    // A list that was begun the day before still sees what it began with.
    let begun = first_day(last_s - DAY_S);
    assert_eq!(rig.counters.downloads_since(&repository(1), begun), 62);
    let days = &rig.counters.downloads.lock().repositories[&repository(1)].days;
    assert_eq!(days.len() as u64, KEPT_DAYS);
}

#[test]
fn days_of_a_clock_that_was_ahead_are_forgotten() {
    let rig = Rig::new();
    rig.download(1, "a", NOON_S + 400 * DAY_S);
    rig.download(1, "b", NOON_S);
    assert_eq!(rig.counts(1, NOON_S), (1, 2));
}

#[test]
fn tables_are_bounded() {
    let mut counting = Counting::default();
    let reader = |number: usize| Reader((number as u128).to_le_bytes());
    for number in 0..2 * READERS_MAX {
        assert!(counting.begins(
            repository(1),
            reader(number),
            NOON_S + number as u64 / 1_000
        ));
        assert!(counting.readers.len() <= READERS_MAX);
    }
    let last = 2 * READERS_MAX - 1;
    let now_s = NOON_S + last as u64 / 1_000;
    assert!(
        !counting.begins(repository(1), reader(last), now_s),
        "the newest are known"
    );
    assert!(
        counting.begins(repository(1), reader(0), now_s),
        "the oldest gave way"
    );
    // All at once, and all of them long ago.
    let mut counting = Counting::default();
    for number in 0..=READERS_MAX {
        assert!(counting.begins(repository(1), reader(number), NOON_S));
    }
    assert_eq!(counting.readers.len(), 1);

    let mut id = [0; 32];
    for number in 0..=REPOSITORIES_MAX as u64 {
        id[..8].copy_from_slice(&number.to_le_bytes());
        let counted = counting.count(&RepositoryId::from_bytes(id), 1);
        assert_eq!(counted, number < REPOSITORIES_MAX as u64);
    }
    assert!(counting.count(&RepositoryId::from_bytes([0; 32]), 1));
}

#[test]
fn uses_of_a_token_have_a_resolution_of_a_minute() {
    let rig = Rig::new();
    assert_eq!(rig.counters.last_use(&token(1)), None);
    for (second, noted) in [(0, 0), (59, 0), (60, 60), (90, 60), (200, 200), (100, 100)] {
        rig.counters.used(&token(1), NOON_S + second);
        assert_eq!(rig.counters.last_use(&token(1)), Some(NOON_S + noted));
    }
    assert_eq!(rig.counters.last_use(&token(2)), None);
}

#[test]
fn all_of_it_outlives_the_process_and_no_reader_does() {
    let rig = Rig::new();
    rig.download(1, "a", NOON_S);
    rig.download(1, "b", NOON_S + DAY_S);
    rig.download(2, "a", NOON_S);
    rig.counters.used(&token(1), NOON_S);
    let rig = rig.restarted();
    assert_eq!(rig.counts(1, NOON_S + DAY_S), (2, 2));
    assert_eq!(rig.counts(2, NOON_S), (1, 1));
    assert_eq!(rig.counters.last_use(&token(1)), Some(NOON_S));
    assert!(rig.counters.downloads.lock().readers.is_empty());
    assert!(!rig.path().with_extension("tmp").exists());
}

#[test]
fn the_file_is_written_once_a_minute_and_only_for_something_new() {
    let rig = Rig::new();
    let write = |is_last| rig.counters.write(is_last, |_| true, |_| true);
    write(true);
    assert!(!rig.path().exists(), "nothing to write");
    rig.download(1, "a", NOON_S);
    write(false);
    let first = std::fs::read(rig.path()).unwrap();
    rig.download(1, "b", NOON_S);
    write(false);
    assert_eq!(std::fs::read(rig.path()).unwrap(), first, "too soon");
    *rig.counters.written.lock() = Instant::now().checked_sub(WRITE_PERIOD);
    write(false);
    assert_ne!(std::fs::read(rig.path()).unwrap(), first);
    rig.download(1, "c", NOON_S);
    write(true);
    assert_eq!(rig.restarted().counts(1, NOON_S), (3, 3));
}

#[test]
fn what_can_t_be_written_is_tried_again() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path()).unwrap();
    rig.download(1, "a", NOON_S);
    rig.counters.write(true, |_| true, |_| true);
    std::fs::remove_dir(rig.path()).unwrap();
    assert_eq!(rig.restarted().counts(1, NOON_S), (1, 1));
}

#[test]
fn what_is_gone_leaves_and_what_moves_keeps_its_count() {
    let rig = Rig::new();
    for number in 1..=3 {
        rig.download(number, "a", NOON_S);
        rig.counters.used(&token(number), NOON_S);
    }
    rig.counters.moved(&repository(3), repository(4));
    rig.counters.moved(&repository(8), repository(9));
    // A second try of the same.
    rig.download(3, "c", NOON_S);
    rig.download(3, "b", NOON_S + DAY_S);
    rig.counters.moved(&repository(3), repository(4));
    rig.counters
        .write(true, |id| *id != repository(1), |id| *id != token(2));
    let rig = rig.restarted();
    let counts = [1, 2, 3, 4, 9].map(|number| rig.counts(number, NOON_S).1);
    assert_eq!(counts, [0, 1, 0, 3, 0]);
    assert_eq!(rig.counts(4, NOON_S + 30 * DAY_S), (1, 3));
    let uses = [1, 2, 3].map(|number| rig.counters.last_use(&token(number)).is_some());
    assert_eq!(uses, [true, false, true]);
}

#[test]
fn a_damaged_file_means_counting_anew() {
    let rig = Rig::new();
    rig.download(1, "a", NOON_S);
    let rig = rig.restarted();
    let path = rig.path();
    let good = std::fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let newer = String::from_utf8(good.clone())
        .unwrap()
        .replace("counters 1", "counters 2");
    for bad in [
        Vec::new(),
        b"junk\n{}".to_vec(),
        vec![0xff; 100],
        good[..good.len() - 1].to_vec(),
        flipped(0),
        flipped(30),
        flipped(good.len() - 3),
        newer.into_bytes(),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let counters = open(&rig.folder);
        assert_eq!(
            counters.downloads(&repository(1), NOON_S),
            Downloads::default()
        );
        // And goes on from there.
        let reader = counters.stranger(None, b"a");
        counters.download(&repository(1), reader, NOON_S);
        counters.write(true, |_| true, |_| true);
        assert_eq!(
            open(&rig.folder).downloads(&repository(1), NOON_S).all_time,
            1
        );
    }
}
