//! YAML to JSON, within bounds: a few lines of aliases can stand for gigabytes.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::options::{AliasLimits, NonFiniteFloatPolicy};
use serde_saphyr::{MessageFormatter, Options, UserMessageFormatter};

use crate::card::{CardWarning, front_matter};
use crate::limits::{CARD_BYTES_MAX, CARD_DEPTH_MAX, CARD_NODES_MAX};

/// Reads a YAML document that begins on line 2 of `README.md`.
///
/// Scalars are those of YAML 1.2, as the hub reads them: `no` and `2024-01-01` are strings.
pub(super) fn parse(yaml: &str) -> Result<Value, CardWarning> {
    if yaml
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Value::Null);
    }
    let bytes_left = Cell::new(CARD_BYTES_MAX);
    let node = Node {
        bytes_left: &bytes_left,
        depth: 0,
    };
    serde_saphyr::with_deserializer_from_str_with_options(yaml, options(), |deserializer| {
        node.deserialize(deserializer)
    })
    .map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map_or(1, |location| location.line());
        let message = UserMessageFormatter.format_message(error);
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        CardWarning {
            line: front_matter::line_of_parser(yaml, line),
            message: message.chars().take(200).collect(),
        }
    })
}

fn options() -> Options {
    let mut alias_limits = AliasLimits::default();
    alias_limits.max_total_replayed_events = CARD_NODES_MAX;
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * CARD_NODES_MAX,
            max_nodes: CARD_NODES_MAX,
            max_depth: CARD_DEPTH_MAX,
            flow_nesting_limit: CARD_DEPTH_MAX,
            max_recorded_anchor_events: CARD_NODES_MAX,
            max_recorded_anchor_bytes: 4 * CARD_BYTES_MAX,
        },
        alias_limits: alias_limits,
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        ignore_binary_tag_for_string: true,
        // Cards of evaluations have `value: .nan`, which JSON can't hold.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}

/// One node of the document, counted against what the whole may hold with its aliases expanded.
#[derive(Clone, Copy)]
struct Node<'a> {
    bytes_left: &'a Cell<usize>,
    depth: usize,
}

impl Node<'_> {
    fn charge<E: Error>(&self, bytes: usize) -> Result<(), E> {
        // What each node needs beside its text.
        let cost = bytes.saturating_add(8);
        match self.bytes_left.get().checked_sub(cost) {
            Some(left) => {
                self.bytes_left.set(left);
                Ok(())
            }
            None => Err(E::custom(format!(
                "the front matter holds more than {CARD_BYTES_MAX} bytes, aliases expanded"
            ))),
        }
    }

    fn child<E: Error>(&self) -> Result<Self, E> {
        if self.depth == CARD_DEPTH_MAX {
            return Err(E::custom(format!(
                "the front matter is nested deeper than {CARD_DEPTH_MAX} levels"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..*self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.charge(0)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(value.to_string().into())
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Ok(value.to_string().into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.charge(value.len())?;
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let child = self.child()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(child)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let child = self.child()?;
        let mut map = serde_json::Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.charge(name.len())?;
            map.insert(name, members.next_value_seed(child)?);
        }
        Ok(Value::Object(map))
    }
}
