//! Brings every file's content into the store, reading only what changed since it was last read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use cairn_protocol::attributes::{Attributes, Storage, decide, default_attributes};
use cairn_protocol::card::{self, Card};
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::limits::{CARD_BYTES_MAX, FLAT_BYTES_MIN, SAMPLE_BYTES};
use cairn_protocol::name::RepoKind;
use cairn_protocol::path::RepoPath;

use super::PublishError;
use super::tree::Stored;
use super::walk::{Files, Found, Stamp};
use crate::control::Progress;
use crate::node::Inner;
use crate::store::{Batch, Store, StoreError, View};

const ATTRIBUTES: &str = ".gitattributes";
/// Bytes of one `.gitattributes`; a longer one is refused.
const ATTRIBUTES_BYTES_MAX: u64 = 1 << 20;
/// Bytes of small files that are held until they are written in one go.
pub(super) const BATCH_BYTES_MAX: u64 = 16 << 20;
/// A file this young may change again without its times showing it (they move in kernel ticks).
pub(super) const SETTLED_NS: i128 = 50_000_000;
/// Bytes of a remembered file: 32 + 32 + 1 + 20.
const REMEMBERED_BYTES: usize = 85;

/// All files of a commit, stored.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) files: BTreeMap<RepoPath, Stored>,
    pub(super) new_bytes: u64,
    pub(super) reused_files: u64,
    pub(super) hashed_bytes: u64,
    pub(super) card: Card,
    pub(super) card_text: Option<Blake3>,
    pub(super) warnings: Vec<String>,
}

/// Stores what the folder holds; durable when it returns.
pub(super) fn import(
    node: &Inner,
    kind: RepoKind,
    files: &Files,
    base_manifest: Option<Blake3>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Contents, PublishError> {
    let total: u64 = files.values().map(|found| found.stamp.size).sum();
    let mut import = Import {
        store: &node.store,
        view: node.store.view("push"),
        batch: node.store.batch(),
        attributes: Attributes::default(),
        contents: Contents::default(),
        done: 0,
    };
    let added = import.read_attributes(node, kind, files, base_manifest)?;
    for (path, found) in files {
        let started = import.done;
        let mut report = |bytes: u64| {
            progress(Progress {
                what: path.to_string(),
                done: started + bytes,
                total,
            });
        };
        report(0);
        import.file(path, found, &mut report)?;
        import.done += found.stamp.size;
    }
    if let Some((path, bytes)) = added {
        import.add(path, bytes)?;
    }
    import.read_card(kind)?;
    import.batch.commit()?;
    Ok(import.contents)
}

struct Import<'a> {
    store: &'a Store,
    view: View,
    batch: Batch,
    attributes: Attributes,
    contents: Contents,
    done: u64,
}

impl Import<'_> {
    /// Takes the folder's rules, and returns the default ones to be added where the root has none.
    fn read_attributes(
        &mut self,
        node: &Inner,
        kind: RepoKind,
        files: &Files,
        base_manifest: Option<Blake3>,
    ) -> Result<Option<(RepoPath, Bytes)>, PublishError> {
        let root: RepoPath = ATTRIBUTES.parse()?;
        let added = if files.contains_key(&root) {
            None
        } else {
            let kept = kept_attributes(node, base_manifest)?;
            let bytes = kept.unwrap_or(Bytes::from_static(default_attributes(kind).as_bytes()));
            self.attributes.add("", &bytes);
            Some((root, bytes))
        };
        for (path, found) in files {
            let folder = match path.as_str().rsplit_once('/') {
                Some((folder, ATTRIBUTES)) => folder,
                None if path.as_str() == ATTRIBUTES => "",
                _ => continue,
            };
            if found.stamp.size > ATTRIBUTES_BYTES_MAX {
                return Err(PublishError::Refused {
                    path: path.to_string(),
                    reason: format!("it is larger than {ATTRIBUTES_BYTES_MAX} bytes"),
                });
            }
            let mut file = open(found)?;
            let bytes = read(&mut file, found)?;
            self.attributes.add(folder, &bytes);
        }
        Ok(added)
    }

    fn file(
        &mut self,
        path: &RepoPath,
        found: &Found,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), PublishError> {
        let mut file = open(found)?;
        let mut sample = [0; SAMPLE_BYTES];
        let sampled = file
            .read_at(&mut sample, 0)
            .map_err(|source| PublishError::read(&found.source, source))?;
        let storage = decide(&self.attributes, path, found.stamp.size, &sample[..sampled]);
        let regular = storage == Storage::Regular;
        let key = memory_key(&found.source);
        if let Some(stored) = self.remembered(&key, found, regular)? {
            self.contents.reused_files += 1;
            self.contents.files.insert(path.clone(), stored);
            return Ok(());
        }
        let opened_at = now_ns();
        let size = found.stamp.size;
        let stored = if size < FLAT_BYTES_MIN {
            let bytes = read(&mut file, found)?;
            self.small(bytes.into(), regular, found.executable)?
        } else {
            let held = self.store.stats().bytes;
            let imported = self.store.import(&mut file, size, regular, report);
            let digests = imported.map_err(|error| match error {
                StoreError::Changed { .. } => PublishError::Changed {
                    path: found.source.clone(),
                },
                other => other.into(),
            })?;
            self.contents.new_bytes += self.store.stats().bytes.saturating_sub(held);
            Stored {
                git: digests.git.filter(|_| regular),
                ..Stored::of(&digests, found.executable)
            }
        };
        self.contents.hashed_bytes += size;
        // The bytes belong to the stamp only if the file still has it now that they were read.
        let after = std::fs::metadata(&found.source)
            .map_err(|source| PublishError::read(&found.source, source))?;
        if Stamp::of(&after) != found.stamp {
            return Err(PublishError::Changed {
                path: found.source.clone(),
            });
        }
        if found.stamp.mtime_ns.max(found.stamp.ctime_ns) + SETTLED_NS < opened_at {
            self.remember(&key, found, &stored);
        }
        self.contents.files.insert(path.clone(), stored);
        Ok(())
    }

    fn small(
        &mut self,
        bytes: Bytes,
        regular: bool,
        executable: bool,
    ) -> Result<Stored, PublishError> {
        let digests = self.batch.put_with(bytes, regular)?;
        if !self.store.contains(&digests.blake3)? {
            self.contents.new_bytes += digests.size;
        }
        if self.batch.len_bytes() > BATCH_BYTES_MAX {
            std::mem::replace(&mut self.batch, self.store.batch()).commit()?;
        }
        Ok(Stored::of(&digests, executable))
    }

    fn add(&mut self, path: RepoPath, bytes: Bytes) -> Result<(), PublishError> {
        let stored = self.small(bytes, true, false)?;
        self.contents.files.insert(path, stored);
        Ok(())
    }

    fn read_card(&mut self, kind: RepoKind) -> Result<(), PublishError> {
        let Some(stored) = self.contents.files.get(&"README.md".parse::<RepoPath>()?) else {
            return Ok(());
        };
        self.contents.card_text = Some(stored.blake3);
        if stored.size > CARD_BYTES_MAX as u64 {
            self.contents.warnings.push(format!(
                "README.md is larger than {CARD_BYTES_MAX} bytes: its card is not read"
            ));
            return Ok(());
        }
        let hash = stored.blake3;
        // It may still stand in the batch.
        std::mem::replace(&mut self.batch, self.store.batch()).commit()?;
        let (card, warning) = card::parse(&self.store.blob(&hash)?, kind);
        self.contents.card = card;
        self.contents.warnings.extend(
            warning.map(|warning| format!("README.md line {}: {}", warning.line, warning.message)),
        );
        Ok(())
    }

    /// What was learnt of this very file before, if nothing about it changed and its content is still here.
    fn remembered(
        &self,
        key: &[u8],
        found: &Found,
        regular: bool,
    ) -> Result<Option<Stored>, PublishError> {
        let Some(stored) = self.view.get(key).and_then(|value| recall(&value, found)) else {
            return Ok(None);
        };
        let usable = regular == stored.git.is_some() && self.store.contains(&stored.blake3)?;
        Ok(usable.then_some(stored))
    }

    fn remember(&self, key: &[u8], found: &Found, stored: &Stored) {
        let mut value = stamp_digest(&found.stamp).to_vec();
        value.extend_from_slice(stored.blake3.as_bytes());
        value.extend_from_slice(stored.sha256.as_bytes());
        value.push(u8::from(stored.git.is_some()));
        value.extend_from_slice(stored.git.unwrap_or(GitOid::from_bytes([0; 20])).as_bytes());
        self.view.put(key, &value);
    }
}

/// The rules of the commit before, for a folder that has none: they decided which of its files are LFS.
fn kept_attributes(node: &Inner, root: Option<Blake3>) -> Result<Option<Bytes>, PublishError> {
    let Some(root) = root else { return Ok(None) };
    let reader = node.repos.reader();
    let found = reader.find(&root, ATTRIBUTES)?;
    let hash = found
        .filter(|entry| entry.size.is_some_and(|size| size <= ATTRIBUTES_BYTES_MAX))
        .and_then(|entry| entry.blake3);
    Ok(hash.map(|hash| reader.blob(&hash)).transpose()?)
}

/// Reads back what [`Import::remember`] wrote, if the file is still as it was then.
fn recall(value: &[u8], found: &Found) -> Option<Stored> {
    let (stamp, facts) = value.split_at_checked(32)?;
    if stamp != stamp_digest(&found.stamp) || facts.len() != REMEMBERED_BYTES {
        return None;
    }
    let git = GitOid::from_bytes(facts[65..].try_into().ok()?);
    Some(Stored {
        size: found.stamp.size,
        blake3: Blake3::from_bytes(facts[..32].try_into().ok()?),
        sha256: Sha256::from_bytes(facts[32..64].try_into().ok()?),
        git: (facts[64] == 1).then_some(git),
        xet: None,
        executable: found.executable,
    })
}

fn open(found: &Found) -> Result<File, PublishError> {
    let file =
        File::open(&found.source).map_err(|source| PublishError::read(&found.source, source))?;
    let metadata = file
        .metadata()
        .map_err(|source| PublishError::read(&found.source, source))?;
    if Stamp::of(&metadata) != found.stamp {
        return Err(PublishError::Changed {
            path: found.source.clone(),
        });
    }
    Ok(file)
}

fn read(file: &mut File, found: &Found) -> Result<Vec<u8>, PublishError> {
    let size = found.stamp.size;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(size + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| PublishError::read(&found.source, source))?;
    if bytes.len() as u64 != size {
        return Err(PublishError::Changed {
            path: found.source.clone(),
        });
    }
    Ok(bytes)
}

fn memory_key(path: &Path) -> Vec<u8> {
    Blake3::of(path.as_os_str().as_encoded_bytes())
        .as_bytes()
        .to_vec()
}

fn stamp_digest(stamp: &Stamp) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(56);
    bytes.extend_from_slice(&stamp.device.to_le_bytes());
    bytes.extend_from_slice(&stamp.inode.to_le_bytes());
    bytes.extend_from_slice(&stamp.size.to_le_bytes());
    bytes.extend_from_slice(&stamp.mtime_ns.to_le_bytes());
    bytes.extend_from_slice(&stamp.ctime_ns.to_le_bytes());
    *Blake3::of(&bytes).as_bytes()
}

pub(super) fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
        })
}
