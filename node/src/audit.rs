//! Verification of everything from records down to bytes, against the disk and never against a cache.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use cairn_protocol::git::{CommitObject, ObjectKind, object_oid};
use cairn_protocol::hash::{Blake3, GitOid, RecordId, RepositoryId};
use cairn_protocol::manifest::{EntryKind, Manifest, ManifestEntry};
use cairn_protocol::name::RepoKind;
use cairn_protocol::pointer::Pointer;
use cairn_protocol::record::{Body, Change, Head, Record};
use cairn_protocol::refs::Refs;
use serde::Serialize;

use crate::control::Progress;
use crate::node::Inner;
use crate::repos::{Repo, RepoError};
use crate::store::StoreError;

/// What a verification found.
#[derive(Debug, Default, Serialize)]
pub struct AuditReport {
    /// Repositories looked at.
    pub repositories: u64,
    /// Records whose signatures were checked.
    pub records: u64,
    /// Blobs that were read and hashed.
    pub blobs: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Contents of other nodes' repositories that are not here: they are fetched when they are read.
    pub absent: u64,
    /// How long it took.
    pub seconds: f64,
    /// What did not verify.
    pub damaged: Vec<Damage>,
    /// What is stored as it was signed, and is wrong: other nodes' publishers claim what is not so.
    pub invalid: Vec<Damage>,
}

/// Something that did not verify.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Damage {
    /// Hash of the blob, or id of the record.
    pub hash: String,
    /// Where it stands on disk, where that is known.
    pub path: Option<String>,
    /// Repository it belongs to.
    pub repo: Option<String>,
    /// File of the repository.
    pub file: Option<String>,
    /// What is wrong.
    pub reason: String,
}

/// Verifies one repository, or everything that the node holds.
pub(crate) fn verify(
    node: &Inner,
    only: Option<&Repo>,
    progress: &mut dyn FnMut(Progress),
) -> Result<AuditReport, RepoError> {
    let started = Instant::now();
    let mut audit = Audit {
        node,
        report: AuditReport::default(),
        all_read: false,
        blobs: HashMap::new(),
        folders: HashSet::new(),
        absent: HashSet::new(),
        progress,
    };
    if only.is_none() {
        audit.everything()?;
    }
    let chains = audit.records(only)?;
    let repos: Vec<Repo> = match only {
        Some(repo) => vec![repo.clone()],
        None => RepoKind::ALL
            .into_iter()
            .flat_map(|kind| node.repos.list(kind))
            .collect(),
    };
    for repo in &repos {
        audit.repo(repo, chains.get(&repo.id()));
    }
    audit.unnamed();
    audit.report.repositories = repos.len() as u64;
    audit.report.absent = audit.absent.len() as u64;
    audit.report.seconds = started.elapsed().as_secs_f64();
    Ok(audit.report)
}

/// Heads by version, and the changes they took in.
#[derive(Debug, Default)]
struct Chain {
    heads: BTreeMap<(u64, u64), (RecordId, Head)>,
    changes: HashMap<RecordId, Change>,
}

struct Audit<'a> {
    node: &'a Inner,
    report: AuditReport,
    /// Everything was read already: what is not known to be bad is good.
    all_read: bool,
    /// Blobs read so far, and what was wrong with the bad ones.
    blobs: HashMap<Blake3, Option<(String, Option<String>)>>,
    folders: HashSet<Blake3>,
    absent: HashSet<Blake3>,
    progress: &'a mut dyn FnMut(Progress),
}

impl Audit<'_> {
    /// Checks every signature, and gathers each repository's heads.
    fn records(&mut self, only: Option<&Repo>) -> Result<HashMap<RepositoryId, Chain>, RepoError> {
        let mut chains: HashMap<RepositoryId, Chain> = HashMap::new();
        let report = &mut self.report;
        self.node.store.records(&mut |envelope| {
            let record = match Record::parse(envelope) {
                Ok(record) => record,
                Err(error) => {
                    report.damaged.push(Damage {
                        hash: Blake3::of(envelope).to_hex(),
                        path: None,
                        repo: None,
                        file: None,
                        reason: format!("record: {error}"),
                    });
                    return;
                }
            };
            let repository = record.header().repository;
            if only.is_some_and(|repo| repository.is_some_and(|id| id != repo.id())) {
                return;
            }
            report.records += 1;
            let Some(repository) = repository else { return };
            let chain = chains.entry(repository).or_default();
            match record.body() {
                Body::Head(head) => {
                    let header = record.header();
                    let seq = header.chain.as_ref().map_or(0, |link| link.seq);
                    chain
                        .heads
                        .insert((header.epoch, seq), (record.id(), head.clone()));
                }
                Body::Change(change) => {
                    chain.changes.insert(record.id(), change.clone());
                }
                _ => {}
            }
        })?;
        Ok(chains)
    }

    fn repo(&mut self, repo: &Repo, chain: Option<&Chain>) {
        if let Some(chain) = chain {
            self.chain(repo, chain);
        }
        let history = match repo.history() {
            Ok(history) => history,
            Err(error) => return self.wrong(repo, None, &error.to_string(), None, None),
        };
        for entry in history.entries() {
            if let Err(error) = self.commit(repo, &entry) {
                self.wrong(repo, Some(entry), &error.to_string(), None, None);
            }
        }
    }

    /// Each head's refs are the refs before it with exactly its changes made.
    fn chain(&mut self, repo: &Repo, chain: &Chain) {
        let is_own = self.node.repos.is_own(&repo.id());
        let mut before = Some(Refs::default());
        for (version, (id, head)) in &chain.heads {
            // What is newer than what is shown is on its way, or will never be shown. Of another node's
            // repository only the refs of heads that were completed here are here.
            if *version > repo.version() || (!is_own && self.is_absent(&head.refs)) {
                before = None;
                continue;
            }
            let refs = match self
                .checked(repo, &head.refs, "refs blob", None)
                .map(|bytes| Refs::decode(&bytes).map_err(|error| error.to_string()))
            {
                Some(Ok(refs)) => refs,
                Some(Err(reason)) => {
                    self.claim(repo, &head.refs, &reason, None);
                    return;
                }
                None => return,
            };
            if let Some(before) = &before
                && let Err(reason) = follows(before, &refs, head, &chain.changes)
            {
                let found = Damage {
                    hash: id.to_hex(),
                    path: None,
                    repo: Some(repo.full_name().to_owned()),
                    file: None,
                    reason: format!("head: {reason}"),
                };
                self.add_claim(repo, found);
            }
            before = Some(refs);
        }
    }

    fn commit(&mut self, repo: &Repo, hash: &Blake3) -> Result<(), RepoError> {
        self.checked(repo, hash, "commit entry", None);
        let entry = self.node.repos.reader().commit_entry(hash)?;
        if let Some(bytes) = self.checked(repo, &entry.object, "commit object", None) {
            let object = CommitObject::parse(&bytes);
            if object_oid(ObjectKind::Commit, &bytes) != entry.commit {
                let reason = "is not the commit it stands for";
                self.claim(repo, &entry.object, reason, None);
            }
            if let (Ok(object), Some(manifest)) = (object, entry.manifest) {
                self.folder(repo, &manifest, object.tree, "");
            }
        }
        Ok(())
    }

    fn folder(&mut self, repo: &Repo, hash: &Blake3, tree: GitOid, prefix: &str) {
        if !self.folders.insert(*hash) {
            return;
        }
        let Some(bytes) = self.checked(repo, hash, "manifest", Some(prefix)) else {
            return;
        };
        let manifest = match Manifest::decode(&bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                return self.claim(repo, hash, &error.to_string(), Some(prefix));
            }
        };
        let object = manifest.tree_bytes();
        if Blake3::of(&object) != manifest.tree || object_oid(ObjectKind::Tree, &object) != tree {
            self.claim(repo, hash, "is not the tree it stands for", Some(prefix));
        }
        self.checked(repo, &manifest.tree, "tree object", Some(prefix));
        for entry in &manifest.entries {
            let path = format!("{prefix}{}", String::from_utf8_lossy(&entry.name));
            match (entry.kind, entry.manifest) {
                (EntryKind::Directory, Some(below)) => {
                    self.folder(repo, &below, entry.oid, &format!("{path}/"));
                }
                (EntryKind::File | EntryKind::Lfs, _) => self.file(repo, entry, &path),
                _ => {}
            }
        }
    }

    fn file(&mut self, repo: &Repo, entry: &ManifestEntry, path: &str) {
        let Some(hash) = entry.blake3 else { return };
        if !repo.is_pinned() && !self.node.repos.is_own(&repo.id()) && self.is_absent(&hash) {
            self.absent.insert(hash);
            return;
        }
        if !self.sound(repo, &hash, "content", Some(path)) {
            return;
        }
        let digests = match self.node.store.digests(&hash) {
            Ok(Some(digests)) => digests,
            Ok(None) => {
                return self.wrong(
                    repo,
                    Some(hash),
                    "content: it is not stored",
                    Some(path),
                    None,
                );
            }
            Err(error) => {
                return self.wrong(repo, Some(hash), &error.to_string(), Some(path), None);
            }
        };
        let oid = match (entry.kind, digests.git) {
            (EntryKind::Lfs, _) => entry.sha256.map(|sha256| {
                Pointer {
                    sha256,
                    size: digests.size,
                }
                .oid()
            }),
            (_, git) => git,
        };
        let fits = entry.size == Some(digests.size)
            && entry.sha256 == Some(digests.sha256)
            && oid.is_none_or(|oid| oid == entry.oid);
        if !fits {
            let reason = "digests differ from the manifest's";
            self.claim(repo, &hash, reason, Some(path));
        }
    }

    /// Whether a blob is not stored at all; a damaged one is.
    fn is_absent(&self, hash: &Blake3) -> bool {
        let store = &self.node.store;
        matches!(store.contains(hash), Ok(false))
            && matches!(store.content(hash), Err(StoreError::Absent { .. }))
    }

    /// Reads everything once, in the order it is stored.
    fn everything(&mut self) -> Result<(), RepoError> {
        let progress = &mut self.progress;
        let findings = self.node.store.verify_all(&mut |done, total| {
            progress(Progress {
                what: "verifying".to_owned(),
                done,
                total,
            });
        })?;
        for finding in findings {
            let path = Some(finding.path.display().to_string());
            match finding.hash {
                _ if finding.healed => {
                    tracing::info!(path, reason = finding.reason, "damage that was put right");
                }
                Some(hash) => {
                    self.blobs.insert(hash, Some((finding.reason, path)));
                }
                None => self.report.damaged.push(Damage {
                    hash: finding.hash.map_or_else(String::new, |hash| hash.to_hex()),
                    path,
                    repo: None,
                    file: None,
                    reason: finding.reason,
                }),
            }
        }
        let stats = self.node.store.stats();
        (self.report.blobs, self.report.bytes) = (stats.blobs, stats.bytes);
        self.all_read = true;
        Ok(())
    }

    /// Damage that no repository's walk met.
    fn unnamed(&mut self) {
        let named: HashSet<String> = self
            .report
            .damaged
            .iter()
            .map(|damage| damage.hash.clone())
            .collect();
        for (hash, wrong) in &self.blobs {
            if let Some((reason, path)) = wrong
                && !named.contains(&hash.to_hex())
            {
                self.report.damaged.push(Damage {
                    hash: hash.to_hex(),
                    path: path.clone(),
                    repo: None,
                    file: None,
                    reason: reason.clone(),
                });
            }
        }
    }

    fn checked(
        &mut self,
        repo: &Repo,
        hash: &Blake3,
        what: &str,
        file: Option<&str>,
    ) -> Option<bytes::Bytes> {
        if !self.sound(repo, hash, what, file) {
            return None;
        }
        match self.node.store.blob(hash) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.wrong(repo, Some(*hash), &format!("{what}: {error}"), file, None);
                None
            }
        }
    }

    /// Reads and hashes a blob once; says of each file that it is bad for.
    fn sound(&mut self, repo: &Repo, hash: &Blake3, what: &str, file: Option<&str>) -> bool {
        match self.read(hash) {
            None => true,
            Some((reason, path)) => {
                let reason = format!("{what}: {reason}");
                self.wrong(repo, Some(*hash), &reason, file, path);
                false
            }
        }
    }

    fn read(&mut self, hash: &Blake3) -> Option<(String, Option<String>)> {
        if let Some(known) = self.blobs.get(hash) {
            return known.clone();
        }
        if self.all_read {
            return None;
        }
        let wrong = match self.node.store.verify(hash) {
            Ok(()) => {
                self.report.blobs += 1;
                self.report.bytes += self.size(hash);
                None
            }
            Err(error) => {
                let path = match &error {
                    StoreError::Damaged { path, .. } => Some(path.display().to_string()),
                    _ => None,
                };
                Some((error.to_string(), path))
            }
        };
        (self.progress)(Progress {
            what: "verifying".to_owned(),
            done: self.report.bytes,
            total: 0,
        });
        self.blobs.insert(*hash, wrong.clone());
        wrong
    }

    fn size(&self, hash: &Blake3) -> u64 {
        self.node
            .store
            .content(hash)
            .map_or(0, |content| content.size())
    }

    fn wrong(
        &mut self,
        repo: &Repo,
        hash: Option<Blake3>,
        reason: &str,
        file: Option<&str>,
        path: Option<String>,
    ) {
        let damage = damage(repo, hash, reason, file, path);
        if !self.report.damaged.contains(&damage) {
            self.report.damaged.push(damage);
        }
    }

    /// Sound bytes that are not what a publisher says of them.
    fn claim(&mut self, repo: &Repo, hash: &Blake3, reason: &str, file: Option<&str>) {
        self.add_claim(repo, damage(repo, Some(*hash), reason, file, None));
    }

    /// This node makes no wrong claims: in its own repositories such a thing is damage.
    fn add_claim(&mut self, repo: &Repo, found: Damage) {
        let list = if self.node.repos.is_own(&repo.id()) {
            &mut self.report.damaged
        } else {
            &mut self.report.invalid
        };
        if !list.contains(&found) {
            list.push(found);
        }
    }
}

fn damage(
    repo: &Repo,
    hash: Option<Blake3>,
    reason: &str,
    file: Option<&str>,
    path: Option<String>,
) -> Damage {
    Damage {
        hash: hash.map_or_else(String::new, |hash| hash.to_hex()),
        path,
        repo: Some(repo.full_name().to_owned()),
        file: file.filter(|file| !file.is_empty()).map(str::to_owned),
        reason: reason.to_owned(),
    }
}

fn follows(
    before: &Refs,
    after: &Refs,
    head: &Head,
    changes: &HashMap<RecordId, Change>,
) -> Result<(), String> {
    let mut refs = before.clone();
    for id in &head.changes {
        let change = changes
            .get(id)
            .ok_or_else(|| format!("change {id} is not stored"))?;
        let name = change
            .reference
            .parse()
            .map_err(|_| format!("change {id} names no ref"))?;
        let target = match change.new {
            Some(oid) => {
                let target = after.0.get(&name).filter(|target| target.oid == oid);
                let target = target.ok_or_else(|| format!("change {id} is not in its refs"))?;
                if change.entry != Some(target.entry) {
                    return Err(format!("change {id} names another commit entry"));
                }
                Some(target.clone())
            }
            None => None,
        };
        refs = refs
            .with_change(&name, change.old, target)
            .map_err(|error| error.to_string())?;
    }
    if refs == *after {
        Ok(())
    } else {
        Err("its refs are not what its changes make".to_owned())
    }
}
