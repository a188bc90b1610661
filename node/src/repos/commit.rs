//! One commit: its fields, its tree, its ancestors.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use cairn_protocol::attributes::Attributes;
use cairn_protocol::entry::CommitEntry;
use cairn_protocol::git::CommitObject;
use cairn_protocol::hash::{Blake3, GitOid, Sha256};
use cairn_protocol::limits::ATTRIBUTES_BYTES_MAX;
use cairn_protocol::manifest::{EntryKind as ManifestKind, ManifestEntry};
use cairn_protocol::path::RepoPath;
use cairn_protocol::pointer::Pointer;
use cairn_protocol::xet::XetHash;

use super::changes::{self, Bounds, Changes};
use super::reader::damaged;
use super::reader::too_deep;
use super::repo::Repo;
use super::{Reader, RepoError};
use crate::store::StoreError;

/// First parents looked at for the last change of an entry; beyond it the oldest one seen is named.
const LAST_CHANGE_COMMITS_MAX: usize = 20_000;

/// A commit that can be read; cheap to clone.
#[derive(Debug, Clone)]
pub struct Commit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reader: Arc<Reader>,
    repo: Repo,
    info: CommitInfo,
    /// Hash of the commit entry.
    entry: Blake3,
    manifest: Option<Blake3>,
}

/// What a commit object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Git object id.
    pub oid: GitOid,
    /// First line of the message.
    pub title: String,
    /// The rest of the message, without the blank line before it.
    pub message: String,
    /// Author's name.
    pub author: String,
    /// Committer time in seconds since the Unix epoch.
    pub time: u64,
    /// Parents' ids.
    pub parents: Vec<GitOid>,
}

/// The `.gitattributes` files of a tree that may say something of these paths; those that are not here, or are
/// too large, say nothing.
pub(crate) fn attributes(
    reader: &Reader,
    root: Option<&Blake3>,
    paths: &[RepoPath],
) -> Result<Attributes, RepoError> {
    let mut attributes = Attributes::default();
    let Some(root) = root else {
        return Ok(attributes);
    };
    let above = paths.iter().flat_map(|path| {
        let path = path.as_str();
        path.match_indices('/').map(|(at, _)| &path[..at])
    });
    let folders: BTreeSet<&str> = above.chain([""]).collect();
    for folder in folders {
        let path = match folder {
            "" => ".gitattributes".to_owned(),
            folder => format!("{folder}/.gitattributes"),
        };
        let found = reader.find(root, &path)?;
        if let Some(bytes) = small(reader, found, ATTRIBUTES_BYTES_MAX as u64)? {
            attributes.add(folder, &bytes);
        }
    }
    Ok(attributes)
}

fn small(
    reader: &Reader,
    found: Option<ManifestEntry>,
    bytes_max: u64,
) -> Result<Option<Bytes>, RepoError> {
    let hash = found
        .filter(|entry| entry.kind == ManifestKind::File)
        .filter(|entry| entry.size.is_some_and(|size| size <= bytes_max))
        .and_then(|entry| entry.blake3);
    match hash.map(|hash| reader.blob(&hash)).transpose() {
        Err(RepoError::Store(StoreError::Absent { .. })) => Ok(None),
        read => read,
    }
}

/// A file or folder of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the repository's root, `/` between components, unquoted.
    pub path: String,
    /// What stands there.
    pub kind: EntryKind,
    /// Git oid of the blob (of the pointer, where LFS) or tree.
    pub oid: GitOid,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Directory,
    /// A file.
    File(FileEntry),
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Bytes of the content (not of the LFS pointer).
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Sha256,
    /// BLAKE3 of the content; unknown in partial mirrors.
    pub blake3: Option<Blake3>,
    /// For LFS files: bytes of the pointer text.
    pub pointer_size: Option<u64>,
    /// What xet calls the content, where the commit says so.
    pub xet: Option<XetHash>,
    /// Whether git's mode says executable.
    pub executable: bool,
}

impl Commit {
    pub(super) fn open(
        reader: Arc<Reader>,
        repo: Repo,
        hash: Blake3,
        entry: &CommitEntry,
    ) -> Result<Self, RepoError> {
        let info = read_info(&reader, entry)?;
        Ok(Self {
            inner: Arc::new(Inner {
                reader,
                repo,
                info,
                entry: hash,
                manifest: entry.manifest,
            }),
        })
    }

    /// Hash of its commit entry.
    pub(crate) fn entry_hash(&self) -> Blake3 {
        self.inner.entry
    }

    /// The commit object's fields.
    pub fn info(&self) -> &CommitInfo {
        &self.inner.info
    }

    /// Why the commit is invalid, where a file of it was fetched and found to be another than it says.
    pub fn invalid(&self) -> Result<Option<String>, RepoError> {
        let reader = &self.inner.reader;
        let claims = reader.wrong_claims().of(&self.inner.repo.id());
        if claims.is_empty() {
            return Ok(None);
        }
        let mut folders = vec![(String::new(), self.root()?)];
        let mut seen = HashSet::new();
        while let Some((prefix, folder)) = folders.pop() {
            if !seen.insert(folder) {
                continue;
            }
            for entry in &reader.manifest(&folder)?.entries {
                let path = format!("{prefix}{}", String::from_utf8_lossy(&entry.name));
                if let Some(claim) = claims.iter().find(|claim| claim.is_made_by(entry)) {
                    return Ok(Some(claim.reason(&path)));
                }
                if let (ManifestKind::Directory, Some(below)) = (entry.kind, entry.manifest) {
                    folders.push((format!("{path}/"), below));
                }
            }
        }
        Ok(None)
    }

    /// What stands at a path (`""` is the root folder); `None` where nothing does. [`RepoError::Invalid`]
    /// for a file whose bytes were found to be others than the commit says.
    pub fn entry(&self, path: &str) -> Result<Option<Entry>, RepoError> {
        if path.is_empty() {
            let object = self.root()?;
            let tree = self.inner.reader.manifest(&object)?;
            let oid = cairn_protocol::git::object_oid(
                cairn_protocol::git::ObjectKind::Tree,
                &tree.tree_bytes(),
            );
            return Ok(Some(Entry {
                path: String::new(),
                kind: EntryKind::Directory,
                oid,
            }));
        }
        let found = self.inner.reader.find(&self.root()?, path)?;
        let wrong = self.inner.reader.wrong_claims();
        if let Some(entry) = &found
            && let Some(claim) = wrong.made_by(&self.inner.repo.id(), entry)
        {
            return Err(RepoError::Invalid(claim.reason(path)));
        }
        Ok(found.and_then(|entry| shown(path.to_owned(), &entry)))
    }

    /// The `.gitattributes` files that may say something of these paths.
    pub fn attributes(&self, paths: &[RepoPath]) -> Result<Attributes, RepoError> {
        attributes(&self.inner.reader, self.inner.manifest.as_ref(), paths)
    }

    /// A file's bytes, if it is here and has at most so many.
    pub fn small_file(&self, path: &str, bytes_max: u64) -> Result<Option<Bytes>, RepoError> {
        let found = self.inner.reader.find(&self.root()?, path)?;
        small(&self.inner.reader, found, bytes_max)
    }

    /// Entries below a folder, depth first in git's order, after the path `after`, at most `limit`.
    ///
    /// Recursive listings include the folders themselves. [`RepoError::Entry`] where `dir` is no folder.
    pub fn tree(
        &self,
        dir: &str,
        recursive: bool,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Entry>, RepoError> {
        let start = self.folder(dir)?;
        let prefix = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        let after = after.and_then(|path| path.strip_prefix(prefix.as_str()));
        let mut found = Vec::new();
        let page = Page { recursive, limit };
        self.list((&start, 0), &prefix, after, page, &mut found)?;
        Ok(found)
    }

    fn list(
        &self,
        (folder, depth): (&Blake3, usize),
        prefix: &str,
        after: Option<&str>,
        page: Page,
        found: &mut Vec<Entry>,
    ) -> Result<(), RepoError> {
        too_deep(depth, folder)?;
        let manifest = self.inner.reader.manifest(folder)?;
        let (first, mut rest) = match after {
            Some(after) => {
                let (name, rest) = after
                    .split_once('/')
                    .map_or((after, None), |(a, b)| (a, Some(b)));
                let position = manifest
                    .entries
                    .iter()
                    .position(|e| e.name == name.as_bytes());
                // A name that is not there makes no page: an old cursor ends its listing.
                let Some(position) = position else {
                    return Ok(());
                };
                (position, Some(rest))
            }
            None => (0, None),
        };
        for entry in &manifest.entries[first..] {
            if found.len() >= page.limit {
                return Ok(());
            }
            let Ok(name) = std::str::from_utf8(&entry.name) else {
                continue;
            };
            let path = format!("{prefix}{name}");
            // The entry that the cursor names was shown; what stands below it may not have been.
            let resumed = rest.take();
            if resumed.is_none() {
                found.extend(shown(path.clone(), entry));
            }
            if let (true, ManifestKind::Directory, Some(below)) =
                (page.recursive, entry.kind, &entry.manifest)
            {
                let (after, below) = (resumed.flatten(), (below, depth + 1));
                self.list(below, &format!("{path}/"), after, page, found)?;
            }
        }
        Ok(())
    }

    /// This commit and its ancestors, newest first, after `skip` of them, at most `limit`.
    pub fn log(&self, skip: u64, limit: usize) -> Result<Vec<CommitInfo>, RepoError> {
        let (history, index) = self.placed()?;
        history
            .log(index, skip, limit)
            .iter()
            .map(|entry| read_info(&self.inner.reader, &self.inner.reader.commit_entry(entry)?))
            .collect()
    }

    /// How many commits [`Self::log`] holds in all.
    pub fn count(&self) -> Result<u64, RepoError> {
        let (history, index) = self.placed()?;
        Ok(history.count(index))
    }

    /// The files that differ between this commit and another one of its repository, in git's order.
    pub fn changes(&self, new: &Self, bounds: &Bounds) -> Result<Changes, RepoError> {
        changes::between(&self.inner.reader, &self.root()?, &new.root()?, bounds)
    }

    /// The newest commit that this one and another one of its repository both come from; one of them where
    /// several are, `None` where none is.
    pub fn merge_base(&self, other: &Self) -> Result<Option<Self>, RepoError> {
        let (history, index) = self.placed()?;
        let Some(other) = history.index_of(&other.inner.info.oid) else {
            return Ok(None);
        };
        let base = history.merge_base(index, other);
        base.map(|base| self.inner.repo.open(history.entry(base)))
            .transpose()
    }

    /// For each path the newest commit that changed it, along first parents.
    pub fn last_changes(&self, paths: &[&str]) -> Result<Vec<CommitInfo>, RepoError> {
        let reader = &self.inner.reader;
        let (history, index) = self.placed()?;
        let mut open: Vec<usize> = (0..paths.len()).collect();
        let mut answers: Vec<Option<Blake3>> = vec![None; paths.len()];
        let mut commits = history
            .first_parents(index)
            .take(LAST_CHANGE_COMMITS_MAX)
            .peekable();
        while let Some(current) = commits.next() {
            if open.is_empty() {
                break;
            }
            let Some(parent) = commits.peek() else {
                open.drain(..).for_each(|at| answers[at] = Some(current));
                break;
            };
            let (root, before) = (
                reader.commit_entry(&current)?.manifest,
                reader.commit_entry(parent)?.manifest,
            );
            if root == before {
                continue;
            }
            let mut still = Vec::with_capacity(open.len());
            for at in open {
                if self.same(root, before, paths[at])? {
                    still.push(at);
                } else {
                    answers[at] = Some(current);
                }
            }
            open = still;
        }
        let mut read: std::collections::HashMap<Blake3, CommitInfo> =
            std::collections::HashMap::new();
        let mut infos = Vec::with_capacity(paths.len());
        for answer in answers {
            let Some(hash) = answer else {
                infos.push(self.inner.info.clone());
                continue;
            };
            if let Some(info) = read.get(&hash) {
                infos.push(info.clone());
                continue;
            }
            let info = read_info(reader, &reader.commit_entry(&hash)?)?;
            read.insert(hash, info.clone());
            infos.push(info);
        }
        Ok(infos)
    }

    fn same(
        &self,
        now: Option<Blake3>,
        before: Option<Blake3>,
        path: &str,
    ) -> Result<bool, RepoError> {
        let find = |root: Option<Blake3>| -> Result<Option<(u32, GitOid)>, RepoError> {
            let Some(root) = root else { return Ok(None) };
            Ok(self
                .inner
                .reader
                .find(&root, path)?
                .map(|entry| (entry.mode, entry.oid)))
        };
        Ok(find(now)? == find(before)?)
    }

    /// Bytes of all files below a folder.
    pub fn size(&self, dir: &str) -> Result<u64, RepoError> {
        Ok(self.sums(dir)?.1)
    }

    /// Number and bytes of all files below a folder.
    pub fn sums(&self, dir: &str) -> Result<(u64, u64), RepoError> {
        self.inner.reader.sums(&self.folder(dir)?)
    }

    pub(crate) fn root(&self) -> Result<Blake3, RepoError> {
        self.inner.manifest.ok_or_else(|| {
            RepoError::Damaged(format!(
                "commit {} has no manifest yet",
                self.inner.info.oid
            ))
        })
    }

    fn folder(&self, dir: &str) -> Result<Blake3, RepoError> {
        let root = self.root()?;
        if dir.is_empty() {
            return Ok(root);
        }
        match self.inner.reader.find(&root, dir)? {
            Some(ManifestEntry {
                kind: ManifestKind::Directory,
                manifest: Some(found),
                ..
            }) => Ok(found),
            _ => Err(RepoError::Entry(dir.chars().take(200).collect())),
        }
    }

    fn placed(&self) -> Result<(Arc<super::history::History>, usize), RepoError> {
        let history = self.inner.repo.history()?;
        let index = history.index_of(&self.inner.info.oid).ok_or_else(|| {
            RepoError::Damaged(format!(
                "commit {} is not in its history",
                self.inner.info.oid
            ))
        })?;
        Ok((history, index))
    }
}

fn read_info(reader: &Reader, entry: &CommitEntry) -> Result<CommitInfo, RepoError> {
    let bytes = reader.blob(&entry.object)?;
    let object = CommitObject::parse(&bytes)
        .map_err(|error| damaged("commit object", &entry.object, &error))?;
    Ok(CommitInfo {
        oid: entry.commit,
        title: object.title,
        message: object.body,
        author: object.author.name,
        time: object.committer.time_s,
        parents: object.parents,
    })
}

/// How far one looks for entries.
#[derive(Debug, Clone, Copy)]
struct Page {
    recursive: bool,
    limit: usize,
}

/// What readers are shown; links and gitlinks are in the tree, and are not checked out.
fn shown(path: String, entry: &ManifestEntry) -> Option<Entry> {
    let kind = match entry.kind {
        ManifestKind::Directory => EntryKind::Directory,
        ManifestKind::File | ManifestKind::Lfs => EntryKind::File(file(entry)?),
        ManifestKind::Symlink | ManifestKind::Gitlink => return None,
    };
    Some(Entry {
        path,
        kind,
        oid: entry.oid,
    })
}

/// What is known of a file's content; `None` where that is nothing.
pub(super) fn file(entry: &ManifestEntry) -> Option<FileEntry> {
    let (size, sha256) = (entry.size?, entry.sha256?);
    let pointer =
        (entry.kind == ManifestKind::Lfs).then(|| Pointer { sha256, size }.encode().len() as u64);
    Some(FileEntry {
        size,
        sha256,
        blake3: entry.blake3,
        pointer_size: pointer,
        xet: entry.xet.map(XetHash::from_bytes),
        executable: entry.mode == cairn_protocol::git::Mode::Executable.octal(),
    })
}
