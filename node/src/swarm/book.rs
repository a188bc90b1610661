//! The peer book: where peers were reached, so that a restarted node finds the others again.
//!
//! A JSON file, written anew beside the old one and renamed. Its loss is harmless, and so is garbage in it.
//! No network may fill it: peers of one prefix share a few places.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::address::Place;

/// Peers in the book; the one that was seen longest ago gives way.
const ENTRIES_MAX: usize = 1_000;
/// Peers of one prefix (/16 of IPv4, /32 of IPv6); the one that was seen longest ago gives way.
const PREFIX_MAX: usize = 16;
/// Addresses of a peer; further ones are not kept.
const ADDRESSES_MAX: usize = 8;
/// Bytes of the file; a larger one is not read.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    peers: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    peer: String,
    addresses: Vec<String>,
    /// Seconds since the Unix epoch.
    seen: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    addresses: Vec<Multiaddr>,
    seen: u64,
}

/// The book, in memory.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    entries: HashMap<PeerId, Entry>,
    changed: bool,
}

impl Book {
    /// Reads the book, as far as it can be understood; blocking.
    pub(super) fn open(path: PathBuf) -> Self {
        let mut book = Self {
            path,
            entries: HashMap::new(),
            changed: false,
        };
        match read(&book.path) {
            Ok(Some(file)) => {
                let before = file.peers.len();
                for line in file.peers {
                    let addresses = line.addresses.iter().filter_map(|text| text.parse().ok());
                    if let Ok(peer) = line.peer.parse() {
                        book.insert(peer, addresses, line.seen.min(now()));
                    }
                }
                if book.entries.len() < before {
                    let (kept, path) = (book.entries.len(), book.path.display());
                    tracing::warn!(%path, before, kept, "some lines of the peer book were left out");
                }
            }
            Ok(None) => {}
            Err(reason) => {
                let path = book.path.display();
                tracing::warn!(%path, reason, "the peer book is not used");
            }
        }
        book.changed = false;
        book
    }

    /// Notes that a peer was reached now.
    pub(super) fn seen(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        self.insert(peer, addresses, now());
    }

    fn insert(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>, seen: u64) {
        let mut known = self
            .entries
            .remove(&peer)
            .map(|entry| entry.addresses)
            .unwrap_or_default();
        let mut fresh: Vec<Multiaddr> = Vec::new();
        for address in addresses {
            let plain = Place::of(&address).and_then(|place| Some(place.at(place.ip()?)));
            if let Some(plain) = plain.filter(|plain| !fresh.contains(plain)) {
                fresh.push(plain);
            }
        }
        known.retain(|address| !fresh.contains(address));
        fresh.append(&mut known);
        fresh.truncate(ADDRESSES_MAX);
        let Some(prefix) = prefix_of(&fresh) else {
            return;
        };
        self.entries.insert(
            peer,
            Entry {
                addresses: fresh,
                seen,
            },
        );
        self.changed = true;
        let of_prefix = |entry: &Entry| prefix_of(&entry.addresses) == Some(prefix);
        if self
            .entries
            .values()
            .filter(|entry| of_prefix(entry))
            .count()
            > PREFIX_MAX
        {
            self.drop_oldest(of_prefix);
        }
        if self.entries.len() > ENTRIES_MAX {
            self.drop_oldest(|_| true);
        }
    }

    fn drop_oldest(&mut self, of: impl Fn(&Entry) -> bool) {
        let oldest = self
            .entries
            .iter()
            .filter(|(_, entry)| of(entry))
            .min_by_key(|(_, entry)| entry.seen)
            .map(|(peer, _)| *peer);
        if let Some(peer) = oldest {
            self.entries.remove(&peer);
        }
    }

    /// Peers to dial: the newest of each prefix first, then the second of each, and so on.
    pub(super) fn candidates(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut newest: Vec<_> = self.entries.iter().collect();
        newest.sort_by_key(|(peer, entry)| (std::cmp::Reverse(entry.seen), **peer));
        let mut seen_of: HashMap<_, usize> = HashMap::new();
        let mut ranked: Vec<_> = newest
            .into_iter()
            .map(|(peer, entry)| {
                let rank = seen_of.entry(prefix_of(&entry.addresses)).or_default();
                *rank += 1;
                (*rank, *peer, entry.addresses.clone())
            })
            .collect();
        ranked.sort_by_key(|(rank, ..)| *rank);
        ranked
            .into_iter()
            .map(|(_, peer, addresses)| (peer, addresses))
            .collect()
    }

    /// The file's path and new content, if there is anything new.
    pub(super) fn take_changes(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut peers: Vec<_> = self
            .entries
            .iter()
            .map(|(peer, entry)| Line {
                peer: peer.to_string(),
                addresses: entry.addresses.iter().map(ToString::to_string).collect(),
                seen: entry.seen,
            })
            .collect();
        peers.sort_by(|a, b| b.seen.cmp(&a.seen).then_with(|| a.peer.cmp(&b.peer)));
        let file = File { version: 1, peers };
        let bytes = serde_json::to_vec_pretty(&file).expect("invariant: plain data is JSON");
        Some((self.path.clone(), bytes))
    }
}

/// Writes a book; blocking. It isn't made durable: an old or lost one does.
pub(super) fn write(path: &Path, bytes: &[u8]) {
    let temporary = path.with_extension("new");
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "the peer book was not written");
    }
}

fn read(path: &Path) -> Result<Option<File>, String> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("{} bytes are too many", metadata.len()));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let file: File = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is not known", file.version));
    }
    Ok(Some(file))
}

/// The network that the first address is of.
fn prefix_of(addresses: &[Multiaddr]) -> Option<(bool, [u8; 4])> {
    let ip = addresses
        .first()
        .and_then(|address| Place::of(address)?.ip())?;
    Some(match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            (true, [a, b, 0, 0])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.octets();
            (false, [a, b, c, d])
        }
    })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn save(book: &mut Book) {
        let (path, bytes) = book.take_changes().unwrap();
        write(&path, &bytes);
    }

    #[test]
    fn no_prefix_fills_the_book_and_candidates_are_diverse() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let mut book = Book::open(path.clone());
        let lone = PeerId::random();
        book.insert(lone, [address("/ip4/203.0.113.1/tcp/1")], 1);
        for third in 0..=255 {
            let of_one = format!("/ip4/198.51.{third}.1/tcp/1");
            book.insert(PeerId::random(), [address(&of_one)], 1_000);
        }
        assert_eq!(book.entries.len(), 1 + PREFIX_MAX);
        let candidates = book.candidates();
        assert!(candidates[..2].iter().any(|(peer, _)| *peer == lone));
        for (first, second) in (0..40).flat_map(|first| (0..40).map(move |second| (first, second)))
        {
            let of_many = format!("/ip4/{}.{second}.0.1/tcp/1", first + 11);
            book.insert(PeerId::random(), [address(&of_many)], 2_000);
        }
        assert_eq!(book.entries.len(), ENTRIES_MAX);
        save(&mut book);
        assert!(book.take_changes().is_none(), "nothing new");
        let again = Book::open(path);
        assert_eq!(again.entries, book.entries);
    }

    #[test]
    fn garbage_is_left_out_and_harmless() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let peer = PeerId::random();
        for (content, kept) in [
            ("not json".to_owned(), 0),
            (r#"{"version":2,"peers":[]}"#.to_owned(), 0),
            (
                format!(
                    r#"{{"version":1,"peers":[
                    {{"peer":"x","addresses":["/ip4/10.0.0.1/tcp/1"],"seen":1}},
                    {{"peer":"{peer}","addresses":["junk","/dns/a/tcp/1","/ip4/10.0.0.1/tcp/1"],"seen":99999999999999}},
                    {{"peer":"{}","addresses":[],"seen":1}}]}}"#,
                    PeerId::random()
                ),
                1,
            ),
        ] {
            std::fs::write(&path, content).unwrap();
            let book = Book::open(path.clone());
            assert_eq!(book.entries.len(), kept);
            assert!(book.entries.values().all(|entry| entry.seen <= now()));
        }
    }
}
