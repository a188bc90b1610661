//! Strict JSON: what a record's payload may be written in.
//!
//! Refused: a member that stands twice, a number that is not an integer from 0 to 2^53 - 1 (so no
//! fraction, exponent or sign), nesting beyond [`JSON_DEPTH_MAX`], more than [`PAYLOAD_BYTES_MAX`]
//! bytes, text that is not UTF-8, an unpaired surrogate, bytes after the value. Nothing is
//! normalised: white space and the order of members are the signer's own, and stand as signed.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserializer, Serialize, Serializer};

use crate::limits::{JSON_DEPTH_MAX, PAYLOAD_BYTES_MAX};

/// The largest integer that every JSON reader holds exactly.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Why bytes are not strict JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Over the limit; not parsed.
    #[error("{bytes} bytes of JSON, at most {PAYLOAD_BYTES_MAX} are read")]
    TooLarge {
        /// How many there were.
        bytes: usize,
    },
    /// Something that strict JSON does not have.
    #[error("{reason} at byte {offset}")]
    Refused {
        /// Where reading stopped, from 0.
        offset: usize,
        /// What stood there.
        reason: String,
    },
}

/// A value of strict JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// From 0 to [`INTEGER_MAX`].
    Integer(u64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Members by name.
    Object(Object),
}

/// Members in the order in which they were written, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object(Vec<(String, Value)>);

impl Object {
    /// No members.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Sets a member: in its place where it stands already, else at the end.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((name, value)),
        }
    }

    /// All members, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compact JSON, members in order.
    #[allow(
        clippy::missing_panics_doc,
        reason = "text keys and plain values always serialize"
    )]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: strict values always serialize")
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Self::Bool(boolean)
    }
}

impl From<u64> for Value {
    fn from(integer: u64) -> Self {
        Self::Integer(integer)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Self {
        Self::List(list)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_u64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values
                    .iter()
                    .try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.iter()
            .try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// Parses one strict value; nothing may follow it but white space.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(JsonError::TooLarge { bytes: bytes.len() });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| refused(bytes, &error))
}

/// Turns the parser's line and column into a byte offset.
fn refused(bytes: &[u8], error: &serde_json::Error) -> JsonError {
    let line_start = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let mut reason = error.to_string();
    if let Some(position) = reason.rfind(" at line ") {
        reason.truncate(position);
    }
    JsonError::Refused {
        offset: line_start + error.column(),
        reason,
    }
}

/// Reads one value that stands under `depth` lists and objects.
struct Strict {
    depth: usize,
}

impl Strict {
    fn inner<E: serde::de::Error>(&self) -> Result<Self, E> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(E::custom(format_args!(
                "nesting deeper than {JSON_DEPTH_MAX}"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "null, a boolean, an integer from 0 to {INTEGER_MAX}, text, a list or an object"
        )
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > INTEGER_MAX {
            return Err(E::custom(format_args!("integer {value} above 2^53 - 1")));
        }
        Ok(Value::Integer(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut names = BTreeSet::new();
        let mut members = Vec::new();
        let inner = self.inner()?;
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                let shown: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format_args!(
                    "member {shown:?} stands twice"
                )));
            }
            members.push((name, map.next_value_seed(Strict { depth: inner.depth })?));
        }
        Ok(Value::Object(Object(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strict_json_has_is_read_and_written_back() {
        let text = r#"{"b":[0,9007199254740991,"é\n",null],"a":{"x":true,"":{}}}"#;
        let Value::Object(object) = parse(text.as_bytes()).unwrap() else {
            panic!("not an object")
        };
        assert_eq!(String::from_utf8(object.to_bytes()).unwrap(), text);
        assert_eq!(
            parse(b" [ 1 , 2 ]\n"),
            Ok(vec![1.into(), 2.into()].into()),
            "white space between tokens is the signer's own"
        );
        assert_eq!(
            parse(br#""\ud83d\ude00""#),
            Ok("\u{1f600}".into()),
            "a pair of surrogates is one character"
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"a":{"b":1,"c":2,"b":3}}"#,
            br#"{"a":1,"\u0061":1}"#,
            b"1.0",
            b"1e2",
            b"1E2",
            b"-0",
            b"-1",
            b"9007199254740992",
            b"18446744073709551616",
            b"01",
            b"+1",
            b"NaN",
            br#""\ud800""#,
            br#""\udc00\ud800""#,
            br#""\ud800x""#,
            b"\"\xff\"",
            b"\"\xed\xa0\x80\"",
            b"\"\x01\"",
            b"\xef\xbb\xbf{}",
            b"{} {}",
            b"{,}",
            br#"{"a":1,}"#,
            b"[1,]",
            b"[1",
            b"'a'",
            b"// x\n1",
            b"",
            b" ",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn depth_and_size_stop_at_their_limits() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(nested(JSON_DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(parse("[".repeat(PAYLOAD_BYTES_MAX).as_bytes()).is_err());
        let text = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
        assert!(parse(text(PAYLOAD_BYTES_MAX).as_bytes()).is_ok());
        assert_eq!(
            parse(text(PAYLOAD_BYTES_MAX + 1).as_bytes()),
            Err(JsonError::TooLarge {
                bytes: PAYLOAD_BYTES_MAX + 1
            })
        );
    }

    #[test]
    fn an_error_names_the_byte() {
        let error = parse(b"{\n\"a\": 1,\n\"a\": 2}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "member \"a\" stands twice at byte 13",
            "the third line begins at byte 10, and its first three are read"
        );
    }
}
