//! Model, dataset and space cards: the YAML at the beginning of `README.md`.
//!
//! A card never stops a publication. Where it does not parse, or a member that listings read has another
//! type than the hub gives it, the rest stands and a [`CardWarning`] names the line.

use crate::name::RepoKind;

/// What a card says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// The whole YAML as JSON, `null` where there is none. Dates stay strings.
    pub data: serde_json::Value,
    /// Tags as the hub shows them: the card's own, then library, task, languages, `license:x`, …; none
    /// twice.
    pub tags: Vec<String>,
    /// `pipeline_tag`.
    pub pipeline_tag: Option<String>,
    /// `library_name`.
    pub library_name: Option<String>,
    /// `license`.
    pub license: Option<String>,
}

/// What is wrong with a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("README.md line {line}: {message}")]
pub struct CardWarning {
    /// Line of `README.md`, from 1.
    pub line: u64,
    /// What is wrong there.
    pub message: String,
}

/// The part of a card that fits into a head: short tokens only, no free text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadTokens {
    /// `license`.
    pub license: Option<String>,
    /// `library_name`.
    pub library_name: Option<String>,
    /// `pipeline_tag`.
    pub pipeline_tag: Option<String>,
    /// Those of the tags that are tokens and fit, in the card's order.
    pub tags: Vec<String>,
}

impl Card {
    /// What of this card goes into the head.
    pub fn head_tokens(&self) -> HeadTokens {
        todo!()
    }
}

/// Reads the card of a `README.md`.
pub fn parse(_readme: &[u8], _kind: RepoKind) -> (Card, Option<CardWarning>) {
    todo!()
}
