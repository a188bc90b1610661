//! What the lines of a commit say.

use std::borrow::Cow;

use bytes::Bytes;
use cairn_node::Node;
use cairn_node::permission::Who;
use cairn_node::publish::{Contents, Edit, PublishError, Stored};
use cairn_node::repos::{EntryKind, Reach, Repo};
use cairn_protocol::hash::Sha256;
use cairn_protocol::path::RepoPath;
use serde::Deserialize;

use crate::error::ApiError;
use crate::publish::{content_of, parse};

/// Operations of one commit; more are answered 413.
const OPERATIONS_MAX: usize = 100_000;

/// The first line's value.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    pub(super) summary: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) parent_commit: Option<String>,
}

/// One line.
#[derive(Debug, Deserialize)]
#[serde(tag = "key", content = "value", rename_all = "camelCase")]
enum Line<'a> {
    Header(Header),
    #[serde(borrow)]
    File(File<'a>),
    LfsFile(LfsFile),
    DeletedFile(Path),
    DeletedFolder(Path),
    CopyFile(Copy),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    path: String,
    #[serde(default, borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    old_path: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LfsFile {
    path: String,
    #[serde(default)]
    algo: Option<String>,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    old_path: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Path {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Copy {
    path: String,
    src_path: String,
    #[serde(default)]
    src_revision: Option<String>,
}

/// A commit that is put together.
pub(super) struct Assembly<'a> {
    node: &'a Node,
    who: &'a Who,
    reach: Reach<'a>,
    /// Full name of the ref.
    reference: &'a str,
    header: Option<Header>,
    contents: Contents,
    edits: Vec<(RepoPath, Edit)>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(node: &'a Node, who: &'a Who, repo: &'a Repo, reference: &'a str) -> Self {
        Self {
            node,
            who,
            reach: Reach::new(repo),
            reference,
            header: None,
            contents: node.contents(),
            edits: Vec::new(),
        }
    }

    /// Takes one line.
    ///
    /// # Errors
    /// It is no operation, or one that can't be done.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<(), ApiError> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let line = parse::<Line<'_>>(line)?;
        if self.header.is_none() != matches!(line, Line::Header(_)) {
            return Err(ApiError::bad_request(
                "A commit begins with one line whose key is `header`, and has no other",
            ));
        }
        if self.edits.len() >= OPERATIONS_MAX {
            return Err(ApiError::too_large(format!(
                "A commit has at most {OPERATIONS_MAX} operations: make several"
            )));
        }
        match line {
            Line::Header(header) => {
                if header.summary.trim().is_empty() {
                    return Err(ApiError::bad_request("The commit's summary is empty"));
                }
                self.header = Some(header);
            }
            Line::File(file) => self.file(file)?,
            Line::LfsFile(file) => self.lfs_file(&file)?,
            Line::DeletedFile(Path { path }) => self.edit(&path, Edit::Delete)?,
            Line::DeletedFolder(Path { path }) => {
                self.edit(path.trim_end_matches('/'), Edit::DeleteFolder)?;
            }
            Line::CopyFile(copy) => {
                let revision = copy.src_revision.as_deref();
                let stored = self.at(&copy.src_path, revision)?;
                self.edit(&copy.path, Edit::Put(stored))?;
            }
        }
        Ok(())
    }

    /// The header and all edits; every content is stored.
    ///
    /// # Errors
    /// There was no header, or no operation.
    pub(super) fn finish(self) -> Result<(Header, Vec<(RepoPath, Edit)>), ApiError> {
        self.contents.finish()?;
        let header = self
            .header
            .ok_or_else(|| ApiError::bad_request("The commit has no `header` line"))?;
        if self.edits.is_empty() {
            return Err(ApiError::bad_request("The commit has no operations"));
        }
        Ok((header, self.edits))
    }

    fn edit(&mut self, path: &str, edit: Edit) -> Result<(), ApiError> {
        self.edits.push((checked(path)?, edit));
        Ok(())
    }

    fn file(&mut self, file: File<'_>) -> Result<(), ApiError> {
        let Some(content) = file.content else {
            return self.moved(&file.path, file.old_path.as_deref());
        };
        let path = checked(&file.path)?;
        let bytes = content_of(&file.path, &content, file.encoding.as_deref())?;
        let stored = self.contents.put(Bytes::from(bytes))?;
        self.edits.push((path, Edit::Put(stored)));
        Ok(())
    }

    fn lfs_file(&mut self, file: &LfsFile) -> Result<(), ApiError> {
        let Some(oid) = &file.oid else {
            return self.moved(&file.path, file.old_path.as_deref());
        };
        if file.algo.as_deref().is_some_and(|algo| algo != "sha256") {
            return Err(ApiError::bad_request(
                "LFS files are named by their `sha256`",
            ));
        }
        let sha256: Sha256 = oid
            .parse()
            .map_err(|_| ApiError::bad_request(format!("{oid:?} is not 64 hex digits")))?;
        let found = self.node.uploaded(self.who, &mut self.reach, &sha256)?;
        let fits = found.filter(|stored| file.size.is_none_or(|size| size == stored.size));
        let stored = fits.ok_or_else(|| PublishError::NotUploaded {
            path: file.path.clone(),
            sha256,
        })?;
        self.edit(&file.path, Edit::Put(stored))
    }

    /// A file goes from one path to another.
    fn moved(&mut self, path: &str, old: Option<&str>) -> Result<(), ApiError> {
        let old = old.ok_or_else(|| {
            ApiError::bad_request(format!("{path:?} has neither content nor `oldPath`"))
        })?;
        let stored = self.at(old, None)?;
        self.edit(old, Edit::Delete)?;
        self.edit(path, Edit::Put(stored))
    }

    /// What stands at a path of this repository.
    fn at(&self, path: &str, revision: Option<&str>) -> Result<Stored, ApiError> {
        let commit = self
            .reach
            .repo()
            .commit(revision.unwrap_or(self.reference))?;
        let missing = || PublishError::Missing {
            path: path.chars().take(200).collect(),
        };
        let entry = commit.entry(checked(path)?.as_str())?.ok_or_else(missing)?;
        let EntryKind::File(file) = entry.kind else {
            return Err(missing().into());
        };
        let blake3 = file.blake3.ok_or_else(missing)?;
        Ok(Stored {
            size: file.size,
            blake3,
            sha256: file.sha256,
            git: file.pointer_size.is_none().then_some(entry.oid),
            xet: file.xet,
            executable: file.executable,
        })
    }
}

fn checked(path: &str) -> Result<RepoPath, ApiError> {
    path.parse()
        .map_err(|error| ApiError::unprocessable(format!("{error}")))
}
