//! What follows from a model's files: its configuration, its weights, how transformers loads it.
//!
//! Derived from a commit once, and kept under its id, which fixes all of it.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use cairn_node::Node;
use cairn_node::repos::{Commit, EntryKind};
use cairn_node::store::{Content, StoreError};
use cairn_protocol::hash::GitOid;
use quick_cache::{Weighter, sync::Cache};
use serde_json::{Map, Value, json};

use super::weights;
use crate::error::ApiError;

/// Bytes of a JSON file that is looked into; a larger one says nothing to us.
const JSON_BYTES_MAX: u64 = 4 << 20;
/// Bytes of memory for derived facts; the least used are derived again.
const CACHE_BYTES: u64 = 8 << 20;

/// What a model's files say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ModelFacts {
    /// The hub's extract of `config.json` and `tokenizer_config.json`.
    pub(super) config: Option<Value>,
    /// Parameters by type, and in all.
    pub(super) safetensors: Option<Value>,
    /// Which classes of transformers load it.
    pub(super) transformers: Option<Value>,
    pub(super) mask_token: Option<String>,
    bytes: u64,
}

/// Derived facts by commit.
#[derive(Debug)]
pub(crate) struct Facts {
    cache: Cache<GitOid, Arc<ModelFacts>, Weigh>,
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<GitOid, Arc<ModelFacts>> for Weigh {
    fn weight(&self, _: &GitOid, facts: &Arc<ModelFacts>) -> u64 {
        512 + facts.bytes
    }
}

impl Default for Facts {
    fn default() -> Self {
        let typical_bytes = 2 << 10;
        let count = usize::try_from(CACHE_BYTES / typical_bytes).unwrap_or(usize::MAX);
        Self {
            cache: Cache::with_weighter(count, CACHE_BYTES, Weigh),
        }
    }
}

impl Facts {
    /// The facts of a commit, kept or derived now.
    pub(super) fn of(&self, node: &Node, commit: &Commit) -> Result<Arc<ModelFacts>, ApiError> {
        let oid = commit.info().oid;
        if let Some(facts) = self.cache.get(&oid) {
            return Ok(facts);
        }
        let mut is_whole = true;
        let mut files = |path: &str| json_file(node, commit, path, &mut is_whole);
        let config = files("config.json")?;
        let tokenizer = files("tokenizer_config.json")?;
        let safetensors = weights::parameters(node, commit, &mut is_whole)?;
        let facts = Arc::new(ModelFacts::derive(
            config.as_ref(),
            tokenizer.as_ref(),
            safetensors,
        ));
        // What a node has not received yet may come: then the same commit says more.
        if is_whole {
            self.cache.insert(oid, Arc::clone(&facts));
        }
        Ok(facts)
    }
}

impl ModelFacts {
    fn derive(
        config: Option<&Value>,
        tokenizer: Option<&Value>,
        safetensors: Option<Value>,
    ) -> Self {
        let tokenizer = tokenizer.and_then(Value::as_object);
        let mask_token = tokenizer
            .and_then(|tokenizer| token_text(tokenizer.get("mask_token")?))
            .map(str::to_owned);
        let config = config.and_then(Value::as_object);
        let transformers = config.and_then(|config| transformers_info(config, tokenizer.is_some()));
        let extract = extract(config, tokenizer);
        let mut facts = Self {
            config: (!extract.is_empty()).then_some(Value::Object(extract)),
            safetensors,
            transformers,
            mask_token,
            bytes: 0,
        };
        facts.bytes = [&facts.config, &facts.safetensors, &facts.transformers]
            .into_iter()
            .flatten()
            .map(|value| value.to_string().len() as u64)
            .sum();
        facts
    }
}

/// The members of both files that the hub shows.
fn extract(
    config: Option<&Map<String, Value>>,
    tokenizer: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    const SHOWN: [&str; 4] = [
        "architectures",
        "auto_map",
        "model_type",
        "quantization_config",
    ];
    const TOKENS: [&str; 7] = [
        "bos_token",
        "cls_token",
        "eos_token",
        "mask_token",
        "pad_token",
        "sep_token",
        "unk_token",
    ];
    let mut shown = Map::new();
    for name in SHOWN {
        if let Some(value) = config.and_then(|config| config.get(name)) {
            shown.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(tokenizer) = tokenizer {
        let mut tokens = Map::new();
        for name in TOKENS {
            if let Some(token) = tokenizer.get(name).and_then(token_text) {
                tokens.insert(name.to_owned(), token.into());
            }
        }
        if let Some(template) = tokenizer.get("chat_template") {
            tokens.insert("chat_template".to_owned(), template.clone());
        }
        shown.insert("tokenizer_config".to_owned(), Value::Object(tokens));
    }
    shown
}

/// A special token is a text, or an object that has one.
fn token_text(token: &Value) -> Option<&str> {
    match token {
        Value::String(text) => Some(text),
        Value::Object(object) => object.get("content")?.as_str(),
        _ => None,
    }
}

/// Which auto class loads an architecture, by the end of its name, and for which task.
const HEADS: [(&str, &str, Option<&str>); 12] = [
    (
        "ForCausalLM",
        "AutoModelForCausalLM",
        Some("text-generation"),
    ),
    (
        "LMHeadModel",
        "AutoModelForCausalLM",
        Some("text-generation"),
    ),
    ("ForMaskedLM", "AutoModelForMaskedLM", Some("fill-mask")),
    (
        "ForSequenceClassification",
        "AutoModelForSequenceClassification",
        Some("text-classification"),
    ),
    (
        "ForTokenClassification",
        "AutoModelForTokenClassification",
        Some("token-classification"),
    ),
    (
        "ForQuestionAnswering",
        "AutoModelForQuestionAnswering",
        Some("question-answering"),
    ),
    ("ForConditionalGeneration", "AutoModelForSeq2SeqLM", None),
    (
        "ForImageClassification",
        "AutoModelForImageClassification",
        Some("image-classification"),
    ),
    (
        "ForObjectDetection",
        "AutoModelForObjectDetection",
        Some("object-detection"),
    ),
    (
        "ForCTC",
        "AutoModelForCTC",
        Some("automatic-speech-recognition"),
    ),
    (
        "ForSpeechSeq2Seq",
        "AutoModelForSpeechSeq2Seq",
        Some("automatic-speech-recognition"),
    ),
    ("Model", "AutoModel", Some("feature-extraction")),
];

fn transformers_info(config: &Map<String, Value>, has_tokenizer: bool) -> Option<Value> {
    config.get("model_type")?.as_str()?;
    let architecture = config.get("architectures")?.get(0)?.as_str()?;
    let (_, auto_model, task) = HEADS
        .iter()
        .find(|(suffix, ..)| architecture.ends_with(suffix))?;
    let mut info = Map::from_iter([("auto_model".to_owned(), json!(auto_model))]);
    if let Some(task) = task {
        info.insert("pipeline_tag".to_owned(), json!(task));
    }
    if has_tokenizer {
        info.insert("processor".to_owned(), json!("AutoTokenizer"));
    }
    Some(Value::Object(info))
}

/// A JSON file of a commit; `None` where there is none, or none that we can read.
pub(super) fn json_file(
    node: &Node,
    commit: &Commit,
    path: &str,
    is_whole: &mut bool,
) -> Result<Option<Value>, ApiError> {
    let Some(content) = content(node, commit, path, is_whole)? else {
        return Ok(None);
    };
    if content.size() > JSON_BYTES_MAX {
        return Ok(None);
    }
    Ok(read_or_note(&content, 0, content.size(), is_whole)
        .and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// A file's content; `None` where there is no such file, or it is not here (then `is_whole` falls).
pub(super) fn content(
    node: &Node,
    commit: &Commit,
    path: &str,
    is_whole: &mut bool,
) -> Result<Option<Content>, ApiError> {
    let Some(entry) = commit.entry(path)? else {
        return Ok(None);
    };
    let EntryKind::File(file) = entry.kind else {
        return Ok(None);
    };
    let Some(hash) = file.blake3 else {
        *is_whole = false;
        return Ok(None);
    };
    match node.content(&hash) {
        Ok(content) => Ok(Some(content)),
        Err(StoreError::Absent { .. } | StoreError::Damaged { .. }) => {
            *is_whole = false;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A part of content, in memory; a file that can't be read says nothing, and `is_whole` falls.
pub(super) fn read_or_note(
    content: &Content,
    offset: u64,
    length: u64,
    is_whole: &mut bool,
) -> Option<Vec<u8>> {
    match read(content, offset, length) {
        Ok(part) => Some(part),
        Err(error) => {
            tracing::warn!(%error, "stored content can't be read");
            *is_whole = false;
            None
        }
    }
}

fn read(content: &Content, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let index = |at: u64| usize::try_from(at).map_err(io::Error::other);
    let (start, length) = (index(offset)?, index(length)?);
    match content {
        Content::Small(bytes) => match bytes.get(start..start.saturating_add(length)) {
            Some(part) => Ok(part.to_vec()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        },
        Content::Flat(flat) => {
            let mut part = vec![0; length];
            flat.file.read_exact_at(&mut part, offset)?;
            Ok(part)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bert_is_loaded_by_automodel_and_shows_its_tokens() {
        let config = json!({
            "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 384,
        });
        let tokenizer = json!({
            "mask_token": { "content": "[MASK]", "lstrip": false }, "pad_token": "[PAD]",
            "name_or_path": "/home/somebody",
        });
        let facts = ModelFacts::derive(Some(&config), Some(&tokenizer), None);
        assert_eq!(facts.mask_token.as_deref(), Some("[MASK]"));
        assert_eq!(
            facts.config,
            Some(json!({
                "architectures": ["BertModel"],
                "model_type": "bert",
                "tokenizer_config": { "mask_token": "[MASK]", "pad_token": "[PAD]" },
            }))
        );
        assert_eq!(
            facts.transformers,
            Some(json!({
                "auto_model": "AutoModel",
                "pipeline_tag": "feature-extraction",
                "processor": "AutoTokenizer",
            }))
        );
    }

    #[test]
    fn odd_files_say_nothing() {
        for odd in [
            json!(null),
            json!([]),
            json!("x"),
            json!({ "architectures": 1, "model_type": [] }),
            json!({ "architectures": [], "model_type": "x" }),
        ] {
            let facts = ModelFacts::derive(Some(&odd), Some(&odd), None);
            assert_eq!(facts.transformers, None);
            assert_eq!(facts.mask_token, None);
        }
        assert_eq!(ModelFacts::derive(None, None, None), ModelFacts::default());
    }

    #[test]
    fn parts_past_the_end_are_errors() {
        let content = Content::Small(b"0123".as_slice().into());
        assert_eq!(read(&content, 1, 2).unwrap(), b"12");
        assert!(read(&content, 3, 2).is_err());
        assert!(read(&content, u64::MAX, u64::MAX).is_err());
    }
}
