//! What follows from a model's files: its configuration, its weights, how transformers loads it.
//!
//! Derived from a commit once, and kept under its id, which fixes all of it.

use std::sync::Arc;

use cairn_protocol::hash::GitOid;
use quick_cache::{Weighter, sync::Cache};
use serde_json::{Map, Value, json};

use super::files::{Files, Waits};
use super::weights;
use crate::error::ApiError;

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
    waits: Waits,
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
            waits: Waits::default(),
        }
    }
}

impl Facts {
    /// The facts of a commit, kept or derived now.
    pub(super) fn of(&self, files: &mut Files<'_>) -> Result<Arc<ModelFacts>, ApiError> {
        let oid = files.commit().info().oid;
        if let Some(facts) = self.cache.get(&oid) {
            return Ok(facts);
        }
        let config = files.json("config.json")?;
        let tokenizer = files.json("tokenizer_config.json")?;
        let safetensors = weights::parameters(files)?;
        let facts = Arc::new(ModelFacts::derive(
            config.as_ref(),
            tokenizer.as_ref(),
            safetensors,
        ));
        // What a node has not received yet may come: then the same commit says more.
        if files.is_whole {
            self.cache.insert(oid, Arc::clone(&facts));
        }
        Ok(facts)
    }

    /// Who may wait for files.
    pub(super) fn waits(&self) -> &Waits {
        &self.waits
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
}
