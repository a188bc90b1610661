//! The model that `cairn demo` publishes: a BERT of two small layers, made on the spot.
//!
//! Its weights are random, from a fixed seed, so that every demo publishes the same bytes; its files are
//! what a real model of this kind has, so that every client loads it unmodified.

use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Name of the repository.
pub(crate) const NAME: &str = "tiny-bert";

const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 64;
const LAYERS: usize = 2;
const POSITIONS: usize = 128;
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const WORDS: &str = "the of and to in a is that for it as was with be by on not he his are this at from \
    have an they which one you were all we can there been if more when will would who so no out up into \
    them then some could time these two may first any my now such like our over man me even most made \
    after also did many off before must well back through years where much your way down should because \
    long each just those people how too little stone pile mark path trail model weights peer node hello world";

const CARD: &str = "---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: feature-extraction
tags:
- bert
- demo
---

# tiny-bert

A BERT with two layers of 32, random weights and a vocabulary of some hundred words. It says nothing
useful; `cairn demo` makes and publishes it to show that unmodified clients load what Cairn serves.

```python
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(\"local/tiny-bert\")
model = AutoModel.from_pretrained(\"local/tiny-bert\")
```
";

/// Writes the model's files into a folder that exists.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let vocabulary = vocabulary();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
    put("README.md", CARD.as_bytes())?;
    put("config.json", &pretty(&config(vocabulary.len())))?;
    put("tokenizer.json", &pretty(&tokenizer(&vocabulary)))?;
    put("tokenizer_config.json", &pretty(&tokenizer_config()))?;
    put("special_tokens_map.json", &pretty(&special_tokens()))?;
    put("vocab.txt", (vocabulary.join("\n") + "\n").as_bytes())?;
    put("model.safetensors", &weights(vocabulary.len()))
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Special tokens, every letter alone and as a continuation (so that no English word is unknown), words.
fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = SPECIAL.map(str::to_owned).into();
    tokens.extend([".", ",", "!", "?", "-", "'"].map(str::to_owned));
    tokens.extend(('a'..='z').map(String::from));
    tokens.extend(('a'..='z').map(|letter| format!("##{letter}")));
    tokens.extend(
        WORDS
            .split_whitespace()
            .filter(|word| word.len() > 1)
            .map(str::to_owned),
    );
    tokens
}

fn config(vocabulary: usize) -> Value {
    json!({
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": null,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": "bert",
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "use_cache": true,
        "vocab_size": vocabulary,
    })
}

fn tokenizer(vocabulary: &[String]) -> Value {
    let ids: Map<String, Value> = vocabulary
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let special = |token: &str, kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let sequence = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    let named = |token: &str, id: u8| json!({"id": token, "ids": [id], "tokens": [token]});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)],
            "pair": [
                special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0),
                sequence("B", 1), special("[SEP]", 1),
            ],
            "special_tokens": {"[CLS]": named("[CLS]", 2), "[SEP]": named("[SEP]", 3)},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids,
        },
    })
}

fn special_tokens() -> Value {
    json!({
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",
        "sep_token": "[SEP]", "mask_token": "[MASK]",
    })
}

fn tokenizer_config() -> Value {
    let mut config = special_tokens();
    config["tokenizer_class"] = json!("BertTokenizer");
    config["do_lower_case"] = json!(true);
    config["model_max_length"] = json!(POSITIONS);
    config
}

/// How a tensor is filled.
#[derive(Clone, Copy)]
enum Fill {
    Random,
    Zeros,
    Ones,
}

/// Every tensor of `BertModel`: name, shape, filling.
fn tensors(vocabulary: usize) -> Vec<(String, Vec<usize>, Fill)> {
    let mut tensors = Vec::new();
    let mut linear = |name: &str, out: usize, into: usize| {
        tensors.push((format!("{name}.weight"), vec![out, into], Fill::Random));
        tensors.push((format!("{name}.bias"), vec![out], Fill::Zeros));
    };
    for layer in 0..LAYERS {
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["query", "key", "value"] {
            linear(&at(&format!("attention.self.{part}")), HIDDEN, HIDDEN);
        }
        linear(&at("attention.output.dense"), HIDDEN, HIDDEN);
        linear(&at("intermediate.dense"), INTERMEDIATE, HIDDEN);
        linear(&at("output.dense"), HIDDEN, INTERMEDIATE);
    }
    linear("pooler.dense", HIDDEN, HIDDEN);
    for (name, rows) in [
        ("word", vocabulary),
        ("position", POSITIONS),
        ("token_type", 2),
    ] {
        let name = format!("embeddings.{name}_embeddings.weight");
        tensors.push((name, vec![rows, HIDDEN], Fill::Random));
    }
    let norms = (0..LAYERS).flat_map(|layer| {
        ["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}"))
    });
    for name in std::iter::once("embeddings".to_owned()).chain(norms) {
        tensors.push((format!("{name}.LayerNorm.weight"), vec![HIDDEN], Fill::Ones));
        tensors.push((format!("{name}.LayerNorm.bias"), vec![HIDDEN], Fill::Zeros));
    }
    tensors
}

/// The safetensors file: length of the header, header (padded to 8 bytes), numbers.
fn weights(vocabulary: usize) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut data: Vec<u8> = Vec::new();
    let mut random = Xorshift(0x00ca_1127_5eed);
    for (name, shape, fill) in tensors(vocabulary) {
        let begin = data.len();
        for _ in 0..shape.iter().product() {
            let number: f32 = match fill {
                Fill::Random => random.weight(),
                Fill::Zeros => 0.0,
                Fill::Ones => 1.0,
            };
            data.extend(number.to_le_bytes());
        }
        header.insert(
            name,
            json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}),
        );
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

/// Marsaglia's xorshift64: no cryptography, the same numbers everywhere.
struct Xorshift(u64);

impl Xorshift {
    /// Evenly spread between -0.04 and 0.04.
    fn weight(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bytes = self.0.to_be_bytes();
        let high = f32::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        (high / f32::from(u16::MAX) - 0.5) * 0.08
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_token_stands_once() {
        let vocabulary = vocabulary();
        let distinct: HashSet<_> = vocabulary.iter().collect();
        assert_eq!(distinct.len(), vocabulary.len());
        assert!(vocabulary.len() > 100);
    }

    #[test]
    fn the_weights_are_a_safetensors_file_and_always_the_same() {
        let file = weights(vocabulary().len());
        assert_eq!(file, weights(vocabulary().len()));
        let length = usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
        let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + length]).unwrap();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (name, tensor) in &header {
            if name == "__metadata__" {
                continue;
            }
            let count: u64 = tensor["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap())
                .product();
            let range = (
                tensor["data_offsets"][0].as_u64().unwrap(),
                tensor["data_offsets"][1].as_u64().unwrap(),
            );
            assert_eq!(range.1 - range.0, count * 4, "{name}");
            ranges.push(range);
        }
        ranges.sort_unstable();
        let mut end = 0;
        for range in ranges {
            assert_eq!(range.0, end);
            end = range.1;
        }
        assert_eq!(end, (file.len() - 8 - length) as u64);
    }

    #[test]
    fn a_folder_gets_all_files() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        for name in [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ] {
            let bytes = std::fs::read(folder.path().join(name)).unwrap();
            assert!(
                serde_json::from_slice::<Value>(&bytes).is_ok_and(|value| value.is_object()),
                "{name}"
            );
        }
        // Large enough to be stored as a file of its own.
        let weights = std::fs::metadata(folder.path().join("model.safetensors")).unwrap();
        assert!(weights.len() > 64 << 10);
    }
}
