//! The members of a repository's JSON: which there are, and what each is.

use std::cell::OnceCell;
use std::sync::Arc;

use cairn_node::Downloads;
use cairn_node::repos::{Commit, Entry, EntryKind, FileEntry, Repo, RepoError};
use cairn_protocol::name::RepoKind;
use serde_json::{Map, Value, json};

use super::facts::ModelFacts;
use super::files::{Files, Reach};
use crate::dates;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::url::Pairs;

/// Entries read from a commit at a time.
const TREE_PAGE: usize = 10_000;
/// Files that one answer lists as `siblings`; a larger repository's list is cut, and
/// [`View::is_cut`] says so. The tree has pages, and the clients of today use it.
const SIBLINGS_MAX: usize = 100_000;

/// What `expand` may ask of a kind.
pub(super) const fn known(kind: RepoKind) -> &'static [&'static str] {
    match kind {
        RepoKind::Model => &[
            "author",
            "baseModels",
            "cardData",
            "childrenModelCount",
            "config",
            "createdAt",
            "disabled",
            "downloads",
            "downloadsAllTime",
            "evalResults",
            "gated",
            "gguf",
            "gitalyUid",
            "inference",
            "inferenceProviderMapping",
            "lastModified",
            "library_name",
            "likes",
            "mask_token",
            "model-index",
            "pipeline_tag",
            "private",
            "resourceGroup",
            "safetensors",
            "sha",
            "siblings",
            "spaces",
            "tags",
            "transformersInfo",
            "trendingScore",
            "usedStorage",
            "widgetData",
            "xetEnabled",
        ],
        RepoKind::Dataset => &[
            "author",
            "cardData",
            "citation",
            "createdAt",
            "description",
            "disabled",
            "downloads",
            "downloadsAllTime",
            "gated",
            "gitalyUid",
            "lastModified",
            "likes",
            "mainSize",
            "paperswithcode_id",
            "private",
            "resourceGroup",
            "sha",
            "siblings",
            "tags",
            "trendingScore",
            "usedStorage",
            "xetEnabled",
        ],
        RepoKind::Space => &[
            "author",
            "cardData",
            "createdAt",
            "datasets",
            "disabled",
            "gitalyUid",
            "lastModified",
            "likes",
            "models",
            "private",
            "region",
            "resourceGroup",
            "runtime",
            "sdk",
            "sha",
            "siblings",
            "subdomain",
            "tags",
            "trendingScore",
            "usedStorage",
            "xetEnabled",
        ],
    }
}

/// What an answer about one repository has without `expand`.
pub(super) const fn whole(kind: RepoKind) -> &'static [&'static str] {
    match kind {
        RepoKind::Model => &[
            "author",
            "cardData",
            "config",
            "createdAt",
            "disabled",
            "downloads",
            "gated",
            "lastModified",
            "library_name",
            "likes",
            "mask_token",
            "model-index",
            "modelId",
            "pipeline_tag",
            "private",
            "safetensors",
            "sha",
            "siblings",
            "spaces",
            "tags",
            "transformersInfo",
            "usedStorage",
            "widgetData",
        ],
        RepoKind::Dataset => &[
            "author",
            "cardData",
            "createdAt",
            "description",
            "disabled",
            "downloads",
            "gated",
            "lastModified",
            "likes",
            "private",
            "sha",
            "siblings",
            "tags",
            "usedStorage",
        ],
        RepoKind::Space => &[
            "author",
            "cardData",
            "createdAt",
            "datasets",
            "disabled",
            "lastModified",
            "likes",
            "models",
            "private",
            "sdk",
            "sha",
            "siblings",
            "tags",
            "usedStorage",
        ],
    }
}

/// What an item of a listing has without `expand`.
pub(super) const fn listed(kind: RepoKind) -> &'static [&'static str] {
    match kind {
        RepoKind::Model => &[
            "author",
            "createdAt",
            "downloads",
            "gated",
            "lastModified",
            "library_name",
            "likes",
            "modelId",
            "pipeline_tag",
            "private",
            "tags",
        ],
        RepoKind::Dataset => &[
            "author",
            "createdAt",
            "description",
            "disabled",
            "downloads",
            "gated",
            "lastModified",
            "likes",
            "private",
            "sha",
            "tags",
        ],
        RepoKind::Space => &[
            "author",
            "createdAt",
            "lastModified",
            "likes",
            "private",
            "sdk",
            "tags",
        ],
    }
}

/// The members that a query asks for; `None` where it doesn't say.
///
/// # Errors
/// One that there is not: the message names all that there are.
pub(super) fn expanded(kind: RepoKind, query: &Pairs) -> Result<Option<Vec<&str>>, ApiError> {
    let known = known(kind);
    let mut asked = Vec::new();
    for name in query.all("expand") {
        if !known.contains(&name) {
            let (name, known) = (name.escape_debug(), known.join("|"));
            return Err(ApiError::bad_request(format!(
                "Invalid option for \"expand\": \"{name}\". Expected one of: {known}"
            )));
        }
        if !asked.contains(&name) {
            asked.push(name);
        }
    }
    Ok((!asked.is_empty()).then_some(asked))
}

/// A repository at a commit, whose members are made as they are asked for.
pub(super) struct View<'a> {
    gateway: &'a Gateway,
    repo: &'a Repo,
    commit: OnceCell<Option<Commit>>,
    facts: OnceCell<Arc<ModelFacts>>,
    /// How far it goes for files; as far as listings go where absent.
    reach: Option<&'a Reach>,
    /// Siblings with sizes and ids.
    with_blobs: bool,
    is_cut: bool,
    siblings: usize,
}

impl<'a> View<'a> {
    /// At the default branch.
    pub(super) fn new(gateway: &'a Gateway, repo: &'a Repo) -> Self {
        Self {
            gateway,
            repo,
            commit: OnceCell::new(),
            facts: OnceCell::new(),
            reach: None,
            with_blobs: false,
            is_cut: false,
            siblings: 0,
        }
    }

    pub(super) fn at(mut self, commit: Commit) -> Self {
        self.commit = OnceCell::from(Some(commit));
        self
    }

    pub(super) fn reaching(mut self, reach: &'a Reach) -> Self {
        self.reach = Some(reach);
        self
    }

    pub(super) fn with_blobs(mut self, with_blobs: bool) -> Self {
        self.with_blobs = with_blobs;
        self
    }

    /// Whether not all files are in `siblings`.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many files were listed.
    pub(super) fn siblings(&self) -> usize {
        self.siblings
    }

    /// The members that name the repository, and those asked for.
    pub(super) fn members(&mut self, names: &[&str]) -> Result<Map<String, Value>, ApiError> {
        let id = self.repo.shown_name();
        let mut members = Map::from_iter([
            ("_id".to_owned(), short_id(self.repo).into()),
            ("id".to_owned(), id.into()),
        ]);
        for name in names {
            if let Some(value) = self.member(name)? {
                members.insert((*name).to_owned(), value);
            }
        }
        Ok(members)
    }

    /// One member; `None` where the repository has nothing to say.
    fn member(&mut self, name: &str) -> Result<Option<Value>, ApiError> {
        let card = self.repo.card();
        let from_card = |name: &str| {
            card.data
                .get(name)
                .filter(|value| !value.is_null())
                .cloned()
        };
        Ok(match name {
            "author" => Some(self.repo.shown_namespace().into()),
            "cardData" => Some(card.data.clone()).filter(|data| !data.is_null()),
            "createdAt" => Some(dates::iso(self.repo.created_at()).into()),
            "lastModified" => Some(dates::iso(self.repo.last_modified()).into()),
            "private" => Some(self.repo.is_private().into()),
            "gated" | "disabled" => Some(false.into()),
            // huggingface_hub 0.30 to 0.36 asks before it uploads.
            "xetEnabled" => Some(true.into()),
            "downloads" => Some(self.downloads().recent.into()),
            "downloadsAllTime" => Some(self.downloads().all_time.into()),
            "likes" | "trendingScore" | "childrenModelCount" => Some(0.into()),
            "modelId" => Some(self.repo.shown_name().into()),
            "tags" => Some(card.tags.clone().into()),
            "library_name" => card.library_name.clone().map(Value::from),
            "pipeline_tag" => card.pipeline_tag.clone().map(Value::from),
            "model-index" => from_card("model-index"),
            "widgetData" => from_card("widget"),
            "description" => from_card("description"),
            "citation" => from_card("citation"),
            "sdk" => from_card("sdk"),
            "paperswithcode_id" => from_card("paperswithcode_id"),
            "models" | "datasets" => Some(from_card(name).unwrap_or_else(|| json!([]))),
            "spaces" => Some(json!([])),
            "gitalyUid" => Some(self.repo.id().to_hex().into()),
            "sha" => self
                .commit()?
                .map(|commit| commit.info().oid.to_hex().into()),
            "siblings" => Some(self.list_siblings()?),
            "usedStorage" => match self.commit()? {
                Some(commit) => Some(commit.size("")?.into()),
                None => Some(0.into()),
            },
            "config" => self.facts()?.config.clone(),
            "safetensors" => self.facts()?.safetensors.clone(),
            "transformersInfo" => self.facts()?.transformers.clone(),
            "mask_token" => self.facts()?.mask_token.clone().map(Value::from),
            _ => None,
        })
    }

    fn downloads(&self) -> Downloads {
        self.gateway.node().downloads(&self.repo.id())
    }

    fn commit(&self) -> Result<Option<&Commit>, ApiError> {
        if let Some(commit) = self.commit.get() {
            return Ok(commit.as_ref());
        }
        let commit = match self.repo.commit("HEAD") {
            Ok(commit) => Some(commit),
            // Nothing was pushed to the default branch yet.
            Err(RepoError::Revision(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(self.commit.get_or_init(|| commit).as_ref())
    }

    fn facts(&self) -> Result<Arc<ModelFacts>, ApiError> {
        if let Some(facts) = self.facts.get() {
            return Ok(Arc::clone(facts));
        }
        let facts = match self.commit()? {
            Some(commit) => {
                let (node, facts) = (self.gateway.node(), self.gateway.facts());
                let mut files = Files::new(node, facts.waits(), self.repo, commit, self.reach);
                facts.of(&mut files)?
            }
            None => Arc::default(),
        };
        Ok(Arc::clone(self.facts.get_or_init(|| facts)))
    }

    fn list_siblings(&mut self) -> Result<Value, ApiError> {
        let mut siblings = Vec::new();
        let mut after: Option<String> = None;
        let mut is_cut = false;
        if let Some(commit) = self.commit()? {
            loop {
                let page = commit.tree("", true, after.as_deref(), TREE_PAGE)?;
                let is_last = page.len() < TREE_PAGE;
                after = page.last().map(|entry| entry.path.clone());
                siblings.extend(page.iter().filter_map(|entry| self.sibling(entry)));
                is_cut = siblings.len() > SIBLINGS_MAX;
                if is_last || is_cut {
                    break;
                }
            }
        }
        siblings.truncate(SIBLINGS_MAX);
        self.is_cut |= is_cut;
        self.siblings = siblings.len();
        Ok(siblings.into())
    }

    fn sibling(&self, entry: &Entry) -> Option<Value> {
        let EntryKind::File(file) = &entry.kind else {
            return None;
        };
        let mut sibling = json!({ "rfilename": entry.path });
        if self.with_blobs {
            sibling["size"] = file.size.into();
            sibling["blobId"] = entry.oid.to_hex().into();
            if let Some(lfs) = lfs("sha256", file) {
                sibling["lfs"] = lfs;
            }
        }
        Some(sibling)
    }
}

/// What a listing says of an LFS file, with the name that it gives the hash.
pub(super) fn lfs(hash_name: &str, file: &FileEntry) -> Option<Value> {
    let pointer_size = file.pointer_size?;
    Some(json!({
        hash_name: file.sha256.to_hex(),
        "size": file.size,
        "pointerSize": pointer_size,
    }))
}

/// 24 hex digits, as the hub's own ids are.
fn short_id(repo: &Repo) -> String {
    let mut id = repo.id().to_hex();
    id.truncate(24);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_expand_are_taken_and_unknown_ones_named() {
        let query = Pairs::parse(b"expand=sha&expand[]=likes&expand%5B%5D=sha").unwrap();
        let asked = expanded(RepoKind::Model, &query).unwrap();
        assert_eq!(asked, Some(vec!["sha", "likes"]));
        assert_eq!(expanded(RepoKind::Model, &Pairs::default()).unwrap(), None);
        let query = Pairs::parse(b"expand=sdk").unwrap();
        let error = expanded(RepoKind::Model, &query).unwrap_err().to_string();
        assert!(error.contains("\"sdk\"") && error.contains("author|baseModels|"));
        assert!(expanded(RepoKind::Space, &query).is_ok());
    }

    #[test]
    fn every_default_member_may_be_asked_for() {
        for kind in RepoKind::ALL {
            for name in whole(kind).iter().chain(listed(kind)) {
                // The id's older name is not asked for by itself.
                let is_known = known(kind).contains(name) || *name == "modelId";
                assert!(is_known, "{kind} {name}");
            }
        }
    }

    #[test]
    fn lfs_hashes_have_the_name_that_each_listing_gives_them() {
        let mut file = FileEntry {
            size: 5,
            sha256: cairn_protocol::hash::Sha256::from_bytes([0xab; 32]),
            blake3: None,
            pointer_size: Some(126),
            xet: None,
            executable: false,
        };
        let lfs_value = lfs("oid", &file).unwrap();
        assert_eq!(lfs_value["oid"], "ab".repeat(32));
        assert_eq!(lfs_value["pointerSize"], 126);
        file.pointer_size = None;
        assert_eq!(lfs("sha256", &file), None);
    }
}
