//! The sled folder: where each frame stands, to be believed only as far as it can be checked.
//!
//! The rules of `contracts/sled.md`: every value carries its own checksum, bound to its key; every call is
//! guarded against panics, and opening and scanning against hanging too; a marker written with the data
//! says up to which frame the views go; after an unclean stop all entries are counted against the log. On
//! any trouble the folder is given up, and another one is made from the log beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::key::Key;
use crate::files::frames::first_eight;
use crate::files::segments::Location;

/// Written to a new folder; a folder with another one is made anew.
const FORMAT: &[u8] = b"cairn views 2, sled 0.34.7";
/// Time after which opening the folder counts as failed.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);
/// Time after which counting the entries counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_mins(5);
/// Bytes of a location and its checksum.
const VALUE_BYTES: usize = 24;

const FORMAT_KEY: &[u8] = b"format";
const MARKER_KEY: &[u8] = b"marker";
const CLEAN_KEY: &[u8] = b"clean";

/// Why the views cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ViewsError {
    #[error("sled")]
    Sled(#[from] sled::Error),
    #[error("the views folder")]
    Folder(#[from] std::io::Error),
    #[error("sled panicked")]
    Panicked,
    #[error("sled did not answer in time")]
    TimedOut,
    #[error("an entry is damaged")]
    Damaged,
}

/// The last frame that the views know, named so that it is found again only in the same log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) location: Location,
    pub(super) key: Key,
}

/// How a folder was left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// Where to go on from; nothing where the folder is new.
    pub(super) marker: Option<Marker>,
    /// Closed in order, so that nothing of it was lost.
    pub(super) clean: bool,
}

/// An open folder.
#[derive(Debug, Clone)]
pub(super) struct Views {
    db: sled::Db,
    index: sled::Tree,
    meta: sled::Tree,
}

impl Views {
    /// Opens the newest folder below `dir`, or begins one; removes the others.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<(Self, Opened), ViewsError> {
        std::fs::create_dir_all(dir)?;
        let mut folders = numbered(dir)?;
        let newest = folders.pop();
        remove_all(folders);
        let path = newest.map_or_else(|| dir.join("1"), |(_, path)| path);
        within(OPEN_TIMEOUT, move || Self::open_folder(&path, cache_bytes))
    }

    /// Begins a new folder beside those that are there, and removes them.
    pub(super) fn begin(dir: &Path, cache_bytes: u64) -> Result<Self, ViewsError> {
        std::fs::create_dir_all(dir)?;
        let folders = numbered(dir)?;
        let number = folders.last().map_or(0, |(number, _)| *number) + 1;
        let path = dir.join(number.to_string());
        let (views, _) = within(OPEN_TIMEOUT, move || Self::open_folder(&path, cache_bytes))?;
        remove_all(folders);
        Ok(views)
    }

    /// Removes every folder, so that nothing in them is believed after the log was rewritten.
    pub(super) fn remove(dir: &Path) -> Result<(), ViewsError> {
        remove_all(numbered(dir)?);
        Ok(())
    }

    fn open_folder(path: &Path, cache_bytes: u64) -> Result<(Self, Opened), ViewsError> {
        let db = sled::Config::default()
            .path(path)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::HighThroughput)
            .open()?;
        let index = db.open_tree("index")?;
        let meta = db.open_tree("meta")?;
        match meta.get(FORMAT_KEY)? {
            Some(format) if format != FORMAT => return Err(ViewsError::Damaged),
            Some(_) => {}
            None if index.is_empty() && meta.is_empty() => {
                meta.insert(FORMAT_KEY, FORMAT)?;
            }
            None => return Err(ViewsError::Damaged),
        }
        let marker = match meta.get(MARKER_KEY)? {
            Some(value) => Some(decode_marker(&value).ok_or(ViewsError::Damaged)?),
            None => None,
        };
        let clean = meta.remove(CLEAN_KEY)?.is_some();
        meta.flush()?;
        Ok((Self { db, index, meta }, Opened { marker, clean }))
    }

    /// Where a frame stands, as far as the views know.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Location>, ViewsError> {
        guarded(|| match self.index.get(key.as_bytes())? {
            Some(value) => decode_location(key, &value)
                .map(Some)
                .ok_or(ViewsError::Damaged),
            None => Ok(None),
        })
    }

    /// Adds entries, and then the marker that says so.
    pub(super) fn add(
        &self,
        entries: &[(Key, Location)],
        marker: Option<&Marker>,
    ) -> Result<(), ViewsError> {
        guarded(|| {
            // Not as a batch: sled frees none of the pages that one replaces before its end, several times the
            // cache for a thousand keys. Nothing counts that comes before its marker, whole or not.
            for (key, location) in entries {
                self.index
                    .insert(&key.as_bytes()[..], encode_location(key, location).to_vec())?;
            }
            if let Some(marker) = marker {
                self.meta.insert(MARKER_KEY, encode_marker(marker))?;
            }
            Ok(())
        })
    }

    /// Whether exactly these keys, by their sorted fingerprints, have an entry that is whole.
    pub(super) fn holds(&self, fingerprints: Vec<u64>) -> Result<bool, ViewsError> {
        let index = self.index.clone();
        within(CHECK_TIMEOUT, move || {
            let mut count = 0;
            for entry in &index {
                let (key, value) = entry?;
                let key = Key::from_bytes(&key).ok_or(ViewsError::Damaged)?;
                decode_location(&key, &value).ok_or(ViewsError::Damaged)?;
                if fingerprints.binary_search(&key.fingerprint()).is_err() {
                    return Ok(false);
                }
                count += 1;
            }
            Ok(count == fingerprints.len())
        })
    }

    /// Notes that nothing is left to be written, and writes it out.
    pub(super) fn close(&self) -> Result<(), ViewsError> {
        guarded(|| {
            self.db.flush()?;
            self.meta.insert(CLEAN_KEY, b"")?;
            self.db.flush()?;
            Ok(())
        })
    }

    /// A value of a named map.
    pub(super) fn named_get(&self, name: &str, key: &[u8]) -> Result<Option<Vec<u8>>, ViewsError> {
        guarded(|| {
            let tree = self.db.open_tree(tree_name(name))?;
            let Some(value) = tree.get(key)? else {
                return Ok(None);
            };
            let (checksum, value) = value.split_first_chunk::<8>().ok_or(ViewsError::Damaged)?;
            if *checksum != named_checksum(name, key, value) {
                return Err(ViewsError::Damaged);
            }
            Ok(Some(value.to_vec()))
        })
    }

    /// Keeps a value in a named map.
    pub(super) fn named_put(&self, name: &str, key: &[u8], value: &[u8]) -> Result<(), ViewsError> {
        guarded(|| {
            let mut bytes = named_checksum(name, key, value).to_vec();
            bytes.extend_from_slice(value);
            self.db.open_tree(tree_name(name))?.insert(key, bytes)?;
            Ok(())
        })
    }
}

fn tree_name(name: &str) -> Vec<u8> {
    [b"view:", name.as_bytes()].concat()
}

fn named_checksum(name: &str, key: &[u8], value: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in [name.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(value);
    first_eight(&hasher.finalize())
}

fn encode_location(key: &Key, location: &Location) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    value[..4].copy_from_slice(&location.segment.to_le_bytes());
    value[4..12].copy_from_slice(&location.offset.to_le_bytes());
    value[12..16].copy_from_slice(&location.len.to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&value[..16]);
    value[16..].copy_from_slice(&first_eight(&hasher.finalize()));
    value
}

fn decode_location(key: &Key, value: &[u8]) -> Option<Location> {
    let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
    let location = Location {
        segment: u32::from_le_bytes(*value[..4].first_chunk()?),
        offset: u64::from_le_bytes(*value[4..12].first_chunk()?),
        len: u32::from_le_bytes(*value[12..16].first_chunk()?),
    };
    (encode_location(key, &location) == *value).then_some(location)
}

fn encode_marker(marker: &Marker) -> Vec<u8> {
    let mut value = marker.key.as_bytes().to_vec();
    value.extend_from_slice(&encode_location(&marker.key, &marker.location));
    value
}

fn decode_marker(value: &[u8]) -> Option<Marker> {
    let (key, location) = value.split_first_chunk::<33>()?;
    let key = Key::from_bytes(key)?;
    Some(Marker {
        location: decode_location(&key, location)?,
        key,
    })
}

/// Folders with a number for a name, in their order.
fn numbered(dir: &Path) -> Result<Vec<(u64, PathBuf)>, ViewsError> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some(number) = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
        {
            folders.push((number, path));
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

fn remove_all(folders: Vec<(u64, PathBuf)>) {
    for (_, path) in folders {
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "old views could not be removed");
        }
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, ViewsError>) -> Result<T, ViewsError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(ViewsError::Panicked))
}

/// Does work on a thread of its own, which is left behind where it takes too long.
fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T, ViewsError> + Send + 'static,
) -> Result<T, ViewsError> {
    let (answer, answered) = sync_channel(1);
    std::thread::Builder::new()
        .name("views".to_owned())
        .spawn(move || {
            // Nobody waits any more where this took too long.
            answer.send(guarded(work)).unwrap_or_default();
        })?;
    answered
        .recv_timeout(limit)
        .unwrap_or(Err(ViewsError::TimedOut))
}
