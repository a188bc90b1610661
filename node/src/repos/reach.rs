//! Which contents a repository reaches, for many questions at a time.

use std::collections::HashSet;

use cairn_protocol::hash::Blake3;

use super::{Repo, RepoError};

/// The contents that a repository's refs lead to; looked up with the first question.
#[derive(Debug)]
pub struct Reach<'a> {
    repo: &'a Repo,
    contents: Option<HashSet<Blake3>>,
}

impl<'a> Reach<'a> {
    /// Nothing is looked up yet.
    pub const fn new(repo: &'a Repo) -> Self {
        Self {
            repo,
            contents: None,
        }
    }

    /// The repository.
    pub const fn repo(&self) -> &'a Repo {
        self.repo
    }

    /// Whether a file that a ref leads to has that content.
    pub fn has(&mut self, content: &Blake3) -> Result<bool, RepoError> {
        if self.contents.is_none() {
            let mut contents = HashSet::new();
            self.repo.each_file(&mut |_, _, file| {
                contents.extend(file.blake3);
                true
            })?;
            self.contents = Some(contents);
        }
        Ok(self
            .contents
            .as_ref()
            .is_some_and(|contents| contents.contains(content)))
    }
}
