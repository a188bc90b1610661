//! Headers of safetensors files: how many parameters, of which types.
//!
//! A header is foreign bytes: its length is a claim, its shapes may overflow, its members may be
//! anything. It is read within a bound, visited without being kept, and what doesn't add up is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cairn_node::repos::{EntryKind, Repo};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::files::{File, Files, Reach};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::reply::Reply;
use crate::repo;
use crate::url::Segment;

/// Bytes of one header; a file with a larger one is not looked into.
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// Bytes of all headers of one repository; further files are not looked into.
const HEADERS_BYTES_MAX: u64 = 64 << 20;
/// Files of one repository that are looked into.
const SHARDS_MAX: usize = 1_000;
/// Entries of a repository's root among which weights are looked for.
const ROOT_ENTRIES_MAX: usize = 10_000;
/// Different types of one repository's tensors; a file that has more is not understood.
const TYPES_MAX: usize = 64;

/// The one file of an unsharded model.
const SINGLE: &str = "model.safetensors";
/// The list of a sharded model's files.
const INDEX: &str = "model.safetensors.index.json";

/// `{parameters: {type: count}, total}`, as model info has it; `None` without readable weights.
pub(super) fn parameters(files: &mut Files<'_>) -> Result<Option<Value>, ApiError> {
    let mut budget = HEADERS_BYTES_MAX;
    let mut sum = Parameters::default();
    for path in weight_files(files)? {
        let Some(file) = files.open(&path, u64::MAX)? else {
            return Ok(None);
        };
        let counted = header_of(&file, files, &mut budget)
            .and_then(|header| serde_json::from_slice(&header).ok())
            .and_then(|counts| sum.add(&counts));
        if counted.is_none() {
            return Ok(None);
        }
    }
    let total = sum
        .0
        .values()
        .try_fold(0_u64, |total, n| total.checked_add(*n));
    Ok(match total {
        Some(total) if !sum.0.is_empty() => Some(json!({ "parameters": sum.0, "total": total })),
        _ => None,
    })
}

/// The files that make the model: one, the shards of an index, or all at the root.
fn weight_files(files: &mut Files<'_>) -> Result<Vec<String>, ApiError> {
    let commit = files.commit();
    if commit.entry(SINGLE)?.is_some() {
        return Ok(vec![SINGLE.to_owned()]);
    }
    if let Some(index) = files.json(INDEX)? {
        return Ok(shards(&index));
    }
    let root = commit.tree("", false, None, ROOT_ENTRIES_MAX)?;
    Ok(root
        .into_iter()
        .filter(|entry| {
            matches!(entry.kind, EntryKind::File(_)) && entry.path.ends_with(".safetensors")
        })
        .map(|entry| entry.path)
        .take(SHARDS_MAX)
        .collect())
}

/// The files that an index names, each once.
fn shards(index: &Value) -> Vec<String> {
    let files: BTreeSet<&str> = index
        .get("weight_map")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|map| map.values())
        .filter_map(Value::as_str)
        .filter(|path| path.ends_with(".safetensors"))
        .collect();
    files
        .into_iter()
        .filter_map(repo::checked_path)
        .take(SHARDS_MAX)
        .collect()
}

/// A file's header; `None` where it is none, too large, can't be read, or the budget is spent.
fn header_of(file: &File, files: &mut Files<'_>, budget: &mut u64) -> Option<Vec<u8>> {
    let read = |offset, length| files.read(file, offset, length);
    header(file.size(), read, budget)
}

fn header(
    size: u64,
    mut read: impl FnMut(u64, u64) -> Option<Vec<u8>>,
    budget: &mut u64,
) -> Option<Vec<u8>> {
    let rest = size.checked_sub(8)?;
    let start = read(0, 8)?;
    let length = u64::from_le_bytes(start.try_into().expect("invariant: eight bytes"));
    if length > rest.min(HEADER_BYTES_MAX).min(*budget) {
        return None;
    }
    *budget -= length;
    read(8, length)
}

/// Parameters by type.
#[derive(Debug, Default, PartialEq)]
struct Parameters(BTreeMap<String, u64>);

impl Parameters {
    /// Adds up; `None` where that overflows or there are too many types.
    fn add(&mut self, other: &Self) -> Option<()> {
        for (name, count) in &other.0 {
            self.count(name, *count)?;
        }
        Some(())
    }

    fn count(&mut self, name: &str, count: u64) -> Option<()> {
        if !self.0.contains_key(name) {
            if self.0.len() == TYPES_MAX {
                return None;
            }
            self.0.insert(name.to_owned(), 0);
        }
        let sum = self.0.get_mut(name)?;
        *sum = sum.checked_add(count)?;
        Some(())
    }
}

/// Reads a header without keeping its names.
impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Header;

        impl<'de> Visitor<'de> for Header {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                use serde::de::Error as _;
                let mut sum = Parameters::default();
                while let Some(name) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let tensor: Tensor = map.next_value()?;
                    sum.count(&tensor.dtype, tensor.shape.0)
                        .ok_or_else(|| A::Error::custom("more types or parameters than can be"))?;
                }
                Ok(sum)
            }
        }

        deserializer.deserialize_map(Header)
    }
}

#[derive(serde::Deserialize)]
struct Tensor {
    dtype: String,
    shape: Count,
}

/// The product of a shape.
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        impl<'de> Visitor<'de> for Shape {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Count, A::Error> {
                use serde::de::Error as _;
                let mut product = 1_u64;
                while let Some(size) = sizes.next_element::<u64>()? {
                    product = product
                        .checked_mul(size)
                        .ok_or_else(|| A::Error::custom("a shape that overflows"))?;
                }
                Ok(Count(product))
            }
        }

        deserializer.deserialize_seq(Shape)
    }
}

/// `{"index": …, "headers": {"<file>": …}}` of an index or of one file, on the default branch.
pub(super) fn metadata(
    gateway: &Gateway,
    repo: &Repo,
    file: &[Segment<'_>],
    reach: &Reach,
) -> Result<Reply, ApiError> {
    let commit = repo.commit("HEAD")?;
    let oid = commit.info().oid;
    let missing = || ApiError::entry_not_found(&oid);
    let path = repo::path(file).ok_or_else(missing)?;
    let (node, waits) = (gateway.node(), gateway.facts().waits());
    let mut files = Files::new(node, waits, repo, &commit, Some(reach));
    let absent = |files: &Files<'_>, path: &str| {
        if files.is_whole {
            missing()
        } else {
            ApiError::content_unknown(path)
        }
    };
    let (index, paths) = if path.ends_with("index.json") {
        let index = files.json(&path)?.ok_or_else(|| absent(&files, &path))?;
        let paths = shards(&index);
        (without_map(index), paths)
    } else {
        (json!({}), vec![path])
    };
    let mut budget = HEADERS_BYTES_MAX;
    let mut body = format!("{{\"index\":{index},\"headers\":{{").into_bytes();
    for (number, path) in paths.iter().enumerate() {
        let file = files
            .open(path, u64::MAX)?
            .ok_or_else(|| absent(&files, path))?;
        // A header goes out as it stands: so it must be JSON, and one that clients understand.
        let header = header_of(&file, &mut files, &mut budget)
            .filter(|header| {
                std::str::from_utf8(header).is_ok()
                    && serde_json::from_slice::<Parameters>(header).is_ok()
            })
            .ok_or_else(|| {
                if files.is_whole {
                    let message = format!("{path} has no safetensors header within bounds");
                    ApiError::bad_request(message)
                } else {
                    ApiError::content_unknown(path)
                }
            })?;
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(Value::from(path.as_str()).to_string().as_bytes());
        body.push(b':');
        body.extend_from_slice(&header);
    }
    body.extend_from_slice(b"}}");
    Ok(Reply::raw_json(body))
}

/// An index without the map that repeats the headers' names.
fn without_map(mut index: Value) -> Value {
    if let Some(index) = index.as_object_mut() {
        index.remove("weight_map");
    }
    index
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    fn file(header: &str) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 64]);
        bytes
    }

    fn header_in(bytes: &[u8], budget: u64) -> Option<Vec<u8>> {
        let read = |offset, length| {
            let (start, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
            Some(bytes.get(start..start.checked_add(length)?)?.to_vec())
        };
        header(bytes.len() as u64, read, &mut budget.clone())
    }

    fn count(bytes: &[u8]) -> Option<BTreeMap<String, u64>> {
        let header = header_in(bytes, HEADERS_BYTES_MAX)?;
        let counts: Parameters = serde_json::from_slice(&header).ok()?;
        Some(counts.0)
    }

    #[test]
    fn parameters_are_counted_by_type() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
            "b":{"dtype":"F32","shape":[],"data_offsets":[24,28]},
            "c":{"dtype":"I64","shape":[4],"data_offsets":[28,60]}}"#;
        let expected = BTreeMap::from([("F32".to_owned(), 7), ("I64".to_owned(), 4)]);
        assert_eq!(count(&file(header)), Some(expected));
    }

    #[test]
    fn what_does_not_add_up_is_left_out() {
        let overflow = format!(r#"{{"a":{{"dtype":"F32","shape":[{0},{0}]}}}}"#, u64::MAX);
        let many: Map<String, Value> = (0..=TYPES_MAX)
            .map(|n| {
                (
                    format!("t{n}"),
                    json!({ "dtype": format!("T{n}"), "shape": [1] }),
                )
            })
            .collect();
        let many = Value::Object(many).to_string();
        for bad in [
            "",
            "[]",
            "null",
            r#"{"a":1}"#,
            r#"{"a":{"dtype":"F32"}}"#,
            r#"{"a":{"dtype":"F32","shape":[-1]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1.5]}}"#,
            &overflow,
            &many,
            &"[".repeat(100_000),
        ] {
            assert_eq!(count(&file(bad)), None, "{bad:.60}");
        }
    }

    #[test]
    fn lengths_are_claims() {
        for length in [9, 1 << 24, (1 << 24) + 1, 100_000_001, 1 << 63, u64::MAX] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(b"{}      ");
            assert_eq!(count(&bytes), None, "{length}");
        }
        for short in [&b""[..], b"1234567"] {
            assert_eq!(count(short), None);
        }
        assert_eq!(header_in(&file("{ }"), 2), None);
        assert_eq!(header_in(&file("{ }"), 3).as_deref(), Some(&b"{ }"[..]));
    }

    #[test]
    fn an_index_names_each_shard_once_and_nothing_outside() {
        let index = json!({ "metadata": { "total_size": 1 }, "weight_map": {
            "a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors",
            "d": "../x.safetensors", "e": 1, "f": "weights.bin",
        }});
        assert_eq!(shards(&index), ["m-1.safetensors", "m-2.safetensors"]);
        assert_eq!(
            without_map(index),
            json!({ "metadata": { "total_size": 1 } })
        );
        assert!(shards(&json!([])).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted_or_left_out(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(count(&bytes));
        }
    }
}
