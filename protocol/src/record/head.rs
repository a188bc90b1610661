//! A repository's state, as its home orders it.

use crate::hash::{Blake3, RecordId};
use crate::json::Object;

use super::RecordError;
use super::members::{Members, texts};

/// Changes of one head; the payload's limit allows hardly more.
const CHANGES_MAX: usize = 64;
/// Tags of a card; more are refused.
const TAGS_MAX: usize = 64;
/// Bytes of a card's token; longer ones are refused.
const TOKEN_BYTES_MAX: usize = 96;

/// A head record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// BLAKE3 of the refs blob.
    pub refs: Blake3,
    /// Change records that this head takes in, none twice.
    pub changes: Vec<RecordId>,
    /// What listings and filters read.
    pub card: Card,
    /// Settings that peers honour; members that this version doesn't know are kept.
    pub settings: Object,
}

/// What listings and filters read of a model card: tokens, no free text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Card {
    /// BLAKE3 of the card's text, a blob that can be dropped.
    pub text: Option<Blake3>,
    /// As the card says it, where it is a token.
    pub license: Option<String>,
    /// As the card says it, where it is a token.
    pub library_name: Option<String>,
    /// As the card says it, where it is a token.
    pub pipeline_tag: Option<String>,
    /// At most 64, none twice.
    pub tags: Vec<String>,
}

impl Card {
    /// Whether a text may stand as a token: `[A-Za-z0-9][A-Za-z0-9._:/+@-]{0,95}`.
    pub fn is_token(text: &str) -> bool {
        let mut bytes = text.bytes();
        text.len() <= TOKEN_BYTES_MAX
            && bytes
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._:/+@-".contains(&byte))
    }

    fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        let checked = |name: &str, text: &str| {
            Self::is_token(text)
                .then_some(())
                .ok_or_else(|| members.wrong(name, format!("has {text:?}, which is no token")))
        };
        let token = |name: &str| -> Result<Option<String>, RecordError> {
            let text = members.parsed_or_null::<String>(name)?;
            if let Some(text) = &text {
                checked(name, text)?;
            }
            Ok(text)
        };
        let tags: Vec<String> = members.parsed_list("tags", 0..=TAGS_MAX)?;
        tags.iter().try_for_each(|tag| checked("tags", tag))?;
        Ok(Self {
            text: members.parsed_or_null("text")?,
            license: token("license")?,
            library_name: token("library_name")?,
            pipeline_tag: token("pipeline_tag")?,
            tags,
        })
    }

    fn encode(&self) -> Object {
        let mut object = Object::new();
        object.set("text", self.text.map(|hash| hash.to_hex()));
        object.set("license", self.license.clone());
        object.set("library_name", self.library_name.clone());
        object.set("pipeline_tag", self.pipeline_tag.clone());
        object.set("tags", texts(&self.tags));
        object
    }
}

impl Head {
    pub(super) const MEMBERS: &[&str] = &["refs", "changes", "card", "settings"];

    pub(super) fn decode(members: &Members<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            refs: members.parsed("refs")?,
            changes: members.parsed_list("changes", 0..=CHANGES_MAX)?,
            card: Card::decode(&members.members("card")?)?,
            settings: members.object("settings")?.clone(),
        })
    }

    pub(super) fn encode(&self, payload: &mut Object) {
        payload.set("refs", self.refs.to_hex());
        payload.set("changes", texts(&self.changes));
        payload.set("card", self.card.encode());
        payload.set("settings", self.settings.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_of_the_hub() {
        for good in [
            "mit",
            "apache-2.0",
            "text-generation",
            "dataset:org/name",
            "c++",
            &"a".repeat(96),
        ] {
            assert!(Card::is_token(good), "{good}");
        }
        for bad in ["", "-a", "a b", "ä", "a\n", "a,b", "a\"", &"a".repeat(97)] {
            assert!(!Card::is_token(bad), "{bad:?}");
        }
    }
}
