//! What somebody found of a repository: for whoever trusts the signer, and for nobody else.

use crate::hash::Blake3;
use crate::json::Object;
use crate::path::RepoPath;

use super::members::Members;
use super::{Card, RecordError};

/// An attestation record; it never changes whether anything else is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// Commit entry of the commit that it is about; absent where it is about the whole repository.
    pub entry: Option<Blake3>,
    /// File that it is about.
    pub path: Option<RepoPath>,
    /// What was found, a token: [`Self::DIGESTS_DISAGREE`], or another.
    pub finding: String,
    /// More of it, a token.
    pub detail: Option<String>,
}

impl Attestation {
    /// Bytes were fetched that have the BLAKE3 which a commit claims, and another digest or size.
    pub const DIGESTS_DISAGREE: &str = "digests-disagree";
    /// A head's metadata is not what it says.
    pub const METADATA_WRONG: &str = "metadata-wrong";

    pub(super) const MEMBERS: &[&str] = &["about", "finding", "detail"];

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let about = members.members("about")?;
        let token = |name: &str, text: String| {
            if Card::is_token(&text) {
                Ok(text)
            } else {
                Err(members.wrong(name, format!("has {text:?}, which is no token")))
            }
        };
        let detail = members.parsed_or_null::<String>("detail")?;
        Ok(Self {
            entry: about.parsed_or_null("entry")?,
            path: about.parsed_or_null("path")?,
            finding: token("finding", members.parsed("finding")?)?,
            detail: detail.map(|text| token("detail", text)).transpose()?,
        })
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        let mut about = Object::new();
        about.set("entry", self.entry.map(|hash| hash.to_hex()));
        about.set("path", self.path.as_ref().map(ToString::to_string));
        payload.set("about", about);
        payload.set("finding", self.finding.as_str());
        payload.set("detail", self.detail.clone());
    }
}
