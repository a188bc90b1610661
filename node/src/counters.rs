//! What is counted and may lose a minute: downloads of repositories, and when each token was last used.
//!
//! The rule for downloads: however many files one reader asks for, of one repository, it is one download, until
//! the reader has asked for nothing of it for [`QUIET_S`], or goes on for longer than [`DOWNLOAD_S_MAX`]. Whoever
//! calls decides which requests are of a download, and what tells readers apart; they are remembered in memory
//! alone, by a hash under a secret key of the node, so that no address of theirs reaches the disk.
//!
//! Everything is answered from memory. Where something changed it is written to one file, whole, under a
//! temporary name, at most each [`WRITE_PERIOD`] and at an orderly end. A file that is damaged, or of a version
//! that is not known, means that counting starts anew, and is never a reason not to start. Not here: whether a
//! repository or a token still exists; whoever has it written says so.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_protocol::hash::{Blake3, RepositoryId};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::accounts::AccountId;
use crate::folder::write_durably;

/// Begins the file: its format, and the version of that. The checksum of all that follows the line ends it.
const MAGIC: &str = "cairn-counters 1";

/// Days that the recent downloads of a repository are counted over, the one that is not over among them.
pub const RECENT_DAYS: u64 = 30;
/// Days whose counts are kept: one more, so that a list that was begun yesterday can be gone through.
const KEPT_DAYS: u64 = RECENT_DAYS + 1;
/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

/// Seconds without a request after which the same reader's next one is another download.
const QUIET_S: u64 = 15 * 60;
/// Seconds after which what a reader goes on to ask for is another download.
const DOWNLOAD_S_MAX: u64 = DAY_S;
/// Readers that are remembered at a time; those that were quiet for longest are forgotten, and count again.
const READERS_MAX: usize = 1 << 16;

/// Repositories whose downloads are counted; those of further ones are not, until some of these are deleted.
const REPOSITORIES_MAX: usize = 50_000;
/// Tokens whose last use is known; that of further ones is not, until some of these are revoked.
const TOKENS_MAX: usize = 50_000;
/// Seconds within which uses of a token are one.
const USE_S: u64 = 60;

/// Shortest time between two writes of the file.
const WRITE_PERIOD: Duration = Duration::from_mins(1);
/// Bytes of the file, more than the bounds above can make; a larger one is not read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How often a repository was downloaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Downloads {
    /// Today and in the days before, [`RECENT_DAYS`] in all, by UTC.
    pub recent: u64,
    /// Since it was first counted here.
    pub all_time: u64,
}

/// What tells one reader from others, and nothing else of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reader([u8; 16]);

/// Counts and last uses; blocking only where they are written.
#[derive(Debug)]
pub(crate) struct Counters {
    path: PathBuf,
    /// What readers are hashed with.
    key: [u8; 32],
    downloads: Mutex<Counting>,
    /// Seconds since the Unix epoch, by token.
    uses: RwLock<HashMap<Blake3, AtomicU64>>,
    /// Something is not in the file.
    is_changed: AtomicBool,
    /// When the file was last written; held by whoever writes it.
    written: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Counting {
    repositories: HashMap<RepositoryId, Count>,
    readers: HashMap<(RepositoryId, Reader), Seen>,
}

/// The downloads of one repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    all: u64,
    /// Days since the Unix epoch, each once, and the downloads on it; those of the last [`KEPT_DAYS`] before the
    /// newest download.
    days: Vec<(u64, u64)>,
}

/// The first and the last request of one download.
#[derive(Debug, Clone, Copy)]
struct Seen {
    first_s: u64,
    last_s: u64,
}

/// What stands in the file below its first line.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    repositories: BTreeMap<RepositoryId, Count>,
    tokens: BTreeMap<Blake3, u64>,
}

impl Counters {
    /// Reads the file, as far as it can be understood; blocking.
    pub(crate) fn open(path: PathBuf, key: [u8; 32]) -> Self {
        let content = read(&path).unwrap_or_else(|reason| {
            let path = path.display();
            tracing::warn!(%path, reason, "downloads and uses of tokens are counted anew");
            Content::default()
        });
        let uses = content.tokens.into_iter().take(TOKENS_MAX);
        let repositories = content.repositories.into_iter().take(REPOSITORIES_MAX);
        Self {
            path,
            key,
            downloads: Mutex::new(Counting {
                repositories: repositories.collect(),
                readers: HashMap::new(),
            }),
            uses: RwLock::new(uses.map(|(token, at)| (token, at.into())).collect()),
            is_changed: AtomicBool::new(false),
            written: Mutex::new(None),
        }
    }

    /// The holder of an account, wherever they are.
    pub(crate) fn account(&self, account: &AccountId) -> Reader {
        self.reader(|hasher| {
            hasher.update(b"account").update(account.as_bytes());
        })
    }

    /// Whoever comes from an address with a program that calls itself so.
    pub(crate) fn stranger(&self, address: Option<IpAddr>, program: &[u8]) -> Reader {
        self.reader(|hasher| {
            match address.map(|address| address.to_canonical()) {
                Some(IpAddr::V4(address)) => hasher.update(b"ip4").update(&address.octets()),
                Some(IpAddr::V6(address)) => hasher.update(b"ip6").update(&address.octets()),
                None => hasher.update(b"unknown"),
            };
            hasher.update(program);
        })
    }

    fn reader(&self, tell: impl FnOnce(&mut blake3::Hasher)) -> Reader {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        tell(&mut hasher);
        let mut short = [0; 16];
        hasher.finalize_xof().fill(&mut short);
        Reader(short)
    }

    /// Takes note that a reader asks for something of a repository, and counts a download if it begins one.
    pub(crate) fn download(&self, repository: &RepositoryId, reader: Reader, now_s: u64) {
        let mut counting = self.downloads.lock();
        if counting.begins(*repository, reader, now_s) && counting.count(repository, now_s / DAY_S)
        {
            self.is_changed.store(true, Ordering::Release);
        }
    }

    /// How often a repository was downloaded.
    pub(crate) fn downloads(&self, repository: &RepositoryId, now_s: u64) -> Downloads {
        Downloads {
            recent: self.downloads_since(repository, first_day(now_s)),
            all_time: self
                .downloads
                .lock()
                .repositories
                .get(repository)
                .map_or(0, |count| count.all),
        }
    }

    /// How often a repository was downloaded from a day on, as far back as days are kept.
    pub(crate) fn downloads_since(&self, repository: &RepositoryId, first_day: u64) -> u64 {
        let counting = self.downloads.lock();
        let days = counting.repositories.get(repository);
        let days = days.into_iter().flat_map(|count| &count.days);
        days.filter(|(day, _)| *day >= first_day)
            .fold(0, |sum, (_, downloads)| sum.saturating_add(*downloads))
    }

    /// A repository goes on under another id, with all that was counted.
    pub(crate) fn moved(&self, from: &RepositoryId, to: RepositoryId) {
        let mut counting = self.downloads.lock();
        if let Some(count) = counting.repositories.remove(from) {
            let target = counting.repositories.entry(to).or_default();
            count
                .days
                .iter()
                .for_each(|(day, downloads)| target.add(*day, *downloads));
            target.all = target.all.saturating_add(count.all);
            self.is_changed.store(true, Ordering::Release);
        }
    }

    /// Takes note of a use of a token that is one of ours; writes nothing where that was noted just now.
    pub(crate) fn used(&self, token: &Blake3, now_s: u64) {
        let uses = self.uses.read();
        if let Some(last) = uses.get(token) {
            // A clock that was set back is believed, too.
            if last.load(Ordering::Relaxed).abs_diff(now_s) < USE_S {
                return;
            }
            last.store(now_s, Ordering::Relaxed);
        } else {
            drop(uses);
            let mut uses = self.uses.write();
            if uses.len() >= TOKENS_MAX {
                return;
            }
            uses.insert(*token, now_s.into());
        }
        self.is_changed.store(true, Ordering::Release);
    }

    /// When a token was last used, in seconds since the Unix epoch; up to a minute before it really was.
    pub(crate) fn last_use(&self, token: &Blake3) -> Option<u64> {
        let uses = self.uses.read();
        uses.get(token).map(|last| last.load(Ordering::Relaxed))
    }

    /// Writes what changed, without what is gone; blocking. Where the file was just written this does
    /// nothing, unless it is the last time.
    pub(crate) fn write(
        &self,
        is_last: bool,
        has_repository: impl Fn(&RepositoryId) -> bool,
        has_token: impl Fn(&Blake3) -> bool,
    ) {
        let mut written = self.written.lock();
        let is_due = written.is_none_or(|at| at.elapsed() >= WRITE_PERIOD);
        if !(is_due || is_last) || !self.is_changed.swap(false, Ordering::AcqRel) {
            return;
        }
        *written = Some(Instant::now());
        self.forget(has_repository, has_token);
        if let Err(error) = write_durably(&self.path, &self.encoded(), 0o600) {
            self.is_changed.store(true, Ordering::Release);
            tracing::warn!(%error, "downloads and uses of tokens were not written");
        }
    }

    /// Lets go of what is gone.
    fn forget(
        &self,
        has_repository: impl Fn(&RepositoryId) -> bool,
        has_token: impl Fn(&Blake3) -> bool,
    ) {
        // Asked without the locks: readers don't wait for it.
        let counted: Vec<RepositoryId> = {
            let counting = self.downloads.lock();
            counting.repositories.keys().copied().collect()
        };
        for gone in counted.iter().filter(|id| !has_repository(id)) {
            self.downloads.lock().repositories.remove(gone);
        }
        let used: Vec<Blake3> = self.uses.read().keys().copied().collect();
        for gone in used.iter().filter(|token| !has_token(token)) {
            self.uses.write().remove(gone);
        }
    }

    fn encoded(&self) -> Vec<u8> {
        let repositories = self.downloads.lock().repositories.clone();
        let tokens: BTreeMap<Blake3, u64> = {
            let uses = self.uses.read();
            let last = |(token, at): (&Blake3, &AtomicU64)| (*token, at.load(Ordering::Relaxed));
            uses.iter().map(last).collect()
        };
        let content = Content {
            repositories: repositories.into_iter().collect(),
            tokens,
        };
        let body = serde_json::to_string(&content).expect("invariant: keys are hex digits");
        let mut text = String::with_capacity(body.len() + 128);
        writeln!(text, "{MAGIC} {}", blake3::hash(body.as_bytes()))
            .expect("invariant: writing to a string never fails");
        text.push_str(&body);
        text.into_bytes()
    }
}

impl Counting {
    /// Whether a request begins a download.
    fn begins(&mut self, repository: RepositoryId, reader: Reader, now_s: u64) -> bool {
        if let Some(seen) = self.readers.get_mut(&(repository, reader)) {
            let goes_on = now_s.saturating_sub(seen.last_s) < QUIET_S
                && now_s.saturating_sub(seen.first_s) < DOWNLOAD_S_MAX;
            seen.last_s = now_s;
            if !goes_on {
                seen.first_s = now_s;
            }
            return !goes_on;
        }
        if self.readers.len() >= READERS_MAX {
            self.make_room(now_s);
        }
        let seen = Seen {
            first_s: now_s,
            last_s: now_s,
        };
        self.readers.insert((repository, reader), seen);
        true
    }

    /// Forgets readers that count again anyhow; where they are few, those that were quiet for longest.
    fn make_room(&mut self, now_s: u64) {
        self.readers
            .retain(|_, seen| now_s.saturating_sub(seen.last_s) < QUIET_S);
        // A quarter at a time, so that a full table is not gone through for each new reader.
        let kept_max = READERS_MAX / 4 * 3;
        if self.readers.len() > kept_max {
            let mut times: Vec<u64> = self.readers.values().map(|seen| seen.last_s).collect();
            let quiet = times.len() - kept_max;
            let (_, limit, _) = times.select_nth_unstable(quiet - 1);
            let limit = *limit;
            self.readers.retain(|_, seen| seen.last_s > limit);
        }
    }

    /// Counts a download; whether there was room to.
    fn count(&mut self, repository: &RepositoryId, today: u64) -> bool {
        let has_room = self.repositories.len() < REPOSITORIES_MAX;
        if !has_room && !self.repositories.contains_key(repository) {
            return false;
        }
        let count = self.repositories.entry(*repository).or_default();
        count.all = count.all.saturating_add(1);
        // Days to come are of a clock that went wrong.
        let is_kept = |day: u64| day <= today && day + KEPT_DAYS > today;
        count.days.retain(|(day, _)| is_kept(*day));
        count.add(today, 1);
        true
    }
}

impl Count {
    fn add(&mut self, day: u64, more: u64) {
        match self.days.iter_mut().find(|(other, _)| *other == day) {
            Some((_, downloads)) => *downloads = downloads.saturating_add(more),
            None => self.days.push((day, more)),
        }
    }
}

/// The first of the days that recent downloads are counted over, in days since the Unix epoch.
pub(crate) fn first_day(now_s: u64) -> u64 {
    (now_s / DAY_S).saturating_sub(RECENT_DAYS - 1)
}

fn read(path: &Path) -> Result<Content, String> {
    let size = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Content::default()),
        Err(error) => return Err(error.to_string()),
    };
    if size > FILE_BYTES_MAX {
        return Err(format!("{size} bytes are too many"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (line, body) = text.split_once('\n').ok_or("it is cut off")?;
    let checksum = line
        .strip_prefix(MAGIC)
        .ok_or("its version is not known, or it is damaged")?;
    if checksum.trim_start() != blake3::hash(body.as_bytes()).to_hex().as_str() {
        return Err("it is damaged".to_owned());
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
