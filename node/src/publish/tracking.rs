//! Files that are LFS by their size or their sender's choice, and not by any rule: the commit adds a line for
//! each to the root's `.gitattributes`, as the hub does, so that git treats them so, too.

use bytes::Bytes;
use cairn_protocol::attributes::Attributes;
use cairn_protocol::hash::Blake3;
use cairn_protocol::limits::ATTRIBUTES_BYTES_MAX;
use cairn_protocol::path::RepoPath;

use super::PublishError;
use super::commit::Edit;
use super::tree::Stored;
use crate::node::Inner;
use crate::repos::{self, RepoError};
use crate::store::Batch;

const PATH: &str = ".gitattributes";

/// Where the rules stand.
pub(super) fn path() -> RepoPath {
    PATH.parse().expect("invariant: a valid path")
}

/// The root's `.gitattributes` with the lines that the edits need; nothing where they need none.
pub(super) fn rules(
    node: &Inner,
    batch: &mut Batch,
    base: Option<Blake3>,
    edits: &[(RepoPath, Edit)],
) -> Result<Option<Stored>, PublishError> {
    let is_lfs = |edit: &Edit| matches!(edit, Edit::Put(stored) if stored.git.is_none());
    let paths: Vec<RepoPath> = edits
        .iter()
        .filter(|(_, edit)| is_lfs(edit))
        .map(|(path, _)| path.clone())
        .collect();
    if paths.is_empty() {
        return Ok(None);
    }
    let reader = node.repos.reader();
    let mut attributes: Attributes = repos::attributes(reader, base.as_ref(), &paths)?;
    // What this very commit says of them counts, too.
    let mut root: Option<Bytes> = None;
    let mut root_is_edited = false;
    for (path, edit) in edits {
        let folder = match path.as_str().rsplit_once('/') {
            Some((folder, PATH)) => folder,
            None if path.as_str() == PATH => "",
            _ => continue,
        };
        let bytes = match edit {
            Edit::Put(stored) if stored.size <= ATTRIBUTES_BYTES_MAX as u64 => {
                reader.blob(&stored.blake3)?
            }
            _ => Bytes::new(),
        };
        attributes.add(folder, &bytes);
        if folder.is_empty() {
            (root, root_is_edited) = (Some(bytes), true);
        }
    }
    let lacking: Vec<&RepoPath> = paths
        .iter()
        .filter(|path| !attributes.is_lfs(path))
        .collect();
    if lacking.is_empty() {
        return Ok(None);
    }
    if !root_is_edited && let Some(base) = base {
        let found = reader.find(&base, PATH)?;
        let hash = found
            .filter(|entry| {
                entry
                    .size
                    .is_some_and(|size| size <= ATTRIBUTES_BYTES_MAX as u64)
            })
            .and_then(|entry| entry.blake3);
        root = hash
            .map(|hash| reader.blob(&hash))
            .transpose()
            .map_err(|error: RepoError| PublishError::Repo(error))?;
    }
    let mut text = root.unwrap_or_default().to_vec();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    for path in lacking {
        let line = line(path);
        // The rules are what git reads of them; a file that is too long for that is left as it is.
        if text.len() + line.len() > ATTRIBUTES_BYTES_MAX {
            break;
        }
        text.extend_from_slice(line.as_bytes());
    }
    let digests = batch.put_with(Bytes::from(text), true)?;
    Ok(Some(Stored::of(&digests, false)))
}

/// A line that is about one path and no other.
fn line(path: &RepoPath) -> String {
    let mut pattern = String::new();
    for c in path.as_str().chars() {
        match c {
            ' ' => pattern.push_str("[[:space:]]"),
            '*' | '?' | '[' | ']' | '\\' => {
                pattern.push('\\');
                pattern.push(c);
            }
            c => pattern.push(c),
        }
    }
    // Without the first slash it could be about files of that name in every folder, or a comment.
    format!("/{pattern} filter=lfs diff=lfs merge=lfs -text\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_about_its_path_alone() {
        for path in [
            "model",
            "a/b c.txt",
            "x[1]*.q",
            "#x",
            "!y",
            "\"z",
            "a\\b",
            "ü/é",
        ] {
            let Ok(path) = path.parse::<RepoPath>() else {
                continue;
            };
            let attributes = Attributes::parse(line(&path).as_bytes());
            assert!(attributes.is_lfs(&path), "{path}: {}", line(&path));
            for other in ["other", "sub/model", "a/b", "x1z.q"] {
                assert!(
                    !attributes.is_lfs(&other.parse().unwrap()),
                    "{path}: {other}"
                );
            }
        }
    }
}
