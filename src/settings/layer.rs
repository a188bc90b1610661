//! One source of settings, which knows what to call itself.

use std::io::Read;
use std::path::Path;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::Values;
use crate::failure::Failure;

/// What the defaults are called.
pub(super) const DEFAULT: &str = "default";
/// Bytes of a settings file; a longer one is refused.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Some settings and their common origin.
#[derive(Debug)]
pub(super) struct Layer {
    origin: String,
    values: Dict,
}

impl Layer {
    pub(super) fn defaults(values: &Values) -> Self {
        let mut values = Serialized::defaults(values)
            .data()
            .expect("invariant: the defaults have only texts, numbers and a table");
        Self {
            origin: DEFAULT.to_owned(),
            values: values.remove(&Profile::Default).unwrap_or_default(),
        }
    }

    pub(super) fn file(path: &Path) -> Result<Self, Failure> {
        let text = read(path).map_err(|error| {
            Failure::usage(format!("cannot read settings file {}", path.display()))
                .cause(error.to_string())
        })?;
        let mut values = Toml::string(&text).data().map_err(|error| {
            Failure::usage(format!(
                "settings file {} is not valid TOML",
                path.display()
            ))
            .cause(error.kind.to_string())
        })?;
        Ok(Self {
            origin: path.display().to_string(),
            values: values.remove(&Profile::Default).unwrap_or_default(),
        })
    }

    /// A variable's text, read by what its setting holds.
    pub(super) fn variable(name: &str, variable: &str, text: &str) -> Result<Self, Failure> {
        let refuse = |reason: &str| {
            Failure::usage(format!(
                "environment variable {variable} is not valid: {reason}"
            ))
        };
        let value = match name {
            "view_cache_bytes" => {
                let number: u64 = text
                    .parse()
                    .map_err(|_| refuse("it is a number of bytes"))?;
                Value::from(number)
            }
            "aliases" => {
                let mut aliases = Dict::new();
                for item in text.split(',') {
                    let (alias, target) = item
                        .split_once('=')
                        .ok_or_else(|| refuse("it is NAME=NAMESPACE/NAME, more after commas"))?;
                    aliases.insert(alias.trim().to_owned(), Value::from(target.trim()));
                }
                Value::from(aliases)
            }
            "listen" | "peers" => list(text.split(',')),
            "mdns" => match text {
                "true" | "1" | "yes" => Value::from(true),
                "false" | "0" | "no" => Value::from(false),
                _ => return Err(refuse("it is true or false")),
            },
            _ => Value::from(text),
        };
        Ok(Self::one(format!("environment {variable}"), name, value))
    }

    pub(super) fn flag(name: &str, text: &str) -> Self {
        let origin = format!("--{}", name.replace('_', "-"));
        Self::one(origin, name, Value::from(text))
    }

    /// A flag that may be given several times; `None` where it was not.
    pub(super) fn flags(flag: &str, name: &str, texts: &[String]) -> Option<Self> {
        let texts = texts.iter().flat_map(|text| text.split(','));
        let value = list(texts);
        let given = value.as_array().is_some_and(|items| !items.is_empty());
        given.then(|| Self::one(flag.to_owned(), name, value))
    }

    /// A flag that says yes or no by being there.
    pub(super) fn switch(flag: &str, name: &str, value: bool) -> Self {
        Self::one(flag.to_owned(), name, Value::from(value))
    }

    fn one(origin: String, name: &str, value: Value) -> Self {
        Self {
            origin,
            values: Dict::from([(name.to_owned(), value)]),
        }
    }
}

/// A list of texts; empty ones are left out.
fn list<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    let texts = texts.map(str::trim).filter(|text| !text.is_empty());
    Value::from(texts.map(Value::from).collect::<Vec<_>>())
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    anyhow::ensure!(
        text.len() as u64 <= FILE_BYTES_MAX,
        "it is larger than 1 MiB"
    );
    Ok(text)
}
