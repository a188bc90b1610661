//! Reads the members of a JSON object, and names the one that is wrong.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::json::{Object, Value};

use super::RecordError;

/// An object, and where it stands in the payload.
pub(super) struct Members<'a> {
    object: &'a Object,
    within: String,
}

impl<'a> Members<'a> {
    /// The payload itself.
    pub(super) const fn new(object: &'a Object) -> Self {
        Self {
            object,
            within: String::new(),
        }
    }

    pub(super) fn wrong(&self, name: &str, problem: impl Into<String>) -> RecordError {
        RecordError::member(format!("{}{name}", self.within), problem)
    }

    pub(super) fn value(&self, name: &str) -> Result<&'a Value, RecordError> {
        self.object
            .get(name)
            .ok_or_else(|| self.wrong(name, "is missing"))
    }

    pub(super) fn absent(&self, name: &str) -> Result<(), RecordError> {
        match self.object.get(name) {
            None => Ok(()),
            Some(_) => Err(self.wrong(name, "has no place here")),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<u64, RecordError> {
        match self.value(name)? {
            Value::Integer(integer) => Ok(*integer),
            _ => Err(self.wrong(name, "is not an integer")),
        }
    }

    pub(super) fn integer_in(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, RecordError> {
        let integer = self.integer(name)?;
        if range.contains(&integer) {
            return Ok(integer);
        }
        let problem = format!(
            "is {integer}, not from {} to {}",
            range.start(),
            range.end()
        );
        Err(self.wrong(name, problem))
    }

    pub(super) fn integer_or_null(&self, name: &str) -> Result<Option<u64>, RecordError> {
        match self.value(name)? {
            Value::Null => Ok(None),
            _ => self.integer(name).map(Some),
        }
    }

    pub(super) fn boolean(&self, name: &str) -> Result<bool, RecordError> {
        match self.value(name)? {
            Value::Bool(boolean) => Ok(*boolean),
            _ => Err(self.wrong(name, "is neither true nor false")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, RecordError> {
        match self.value(name)? {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong(name, "is not text")),
        }
    }

    pub(super) fn parsed<T>(&self, name: &str) -> Result<T, RecordError>
    where
        T: FromStr<Err: Display>,
    {
        self.parse(name, self.text(name)?)
    }

    pub(super) fn parsed_or_null<T>(&self, name: &str) -> Result<Option<T>, RecordError>
    where
        T: FromStr<Err: Display>,
    {
        match self.value(name)? {
            Value::Null => Ok(None),
            _ => self.parsed(name).map(Some),
        }
    }

    /// A member that must stand where `wanted`, and must not where it is not.
    pub(super) fn parsed_only_if<T>(
        &self,
        name: &str,
        wanted: bool,
    ) -> Result<Option<T>, RecordError>
    where
        T: FromStr<Err: Display>,
    {
        if wanted {
            return self.parsed(name).map(Some);
        }
        self.absent(name).map(|()| None)
    }

    pub(super) fn list(
        &self,
        name: &str,
        count: RangeInclusive<usize>,
    ) -> Result<&'a [Value], RecordError> {
        let Value::List(list) = self.value(name)? else {
            return Err(self.wrong(name, "is not a list"));
        };
        if !count.contains(&list.len()) {
            let (min, max) = (count.start(), count.end());
            let problem = format!("has {} entries, not from {min} to {max}", list.len());
            return Err(self.wrong(name, problem));
        }
        Ok(list)
    }

    /// A list of texts, none twice.
    pub(super) fn parsed_list<T>(
        &self,
        name: &str,
        count: RangeInclusive<usize>,
    ) -> Result<Vec<T>, RecordError>
    where
        T: FromStr<Err: Display> + PartialEq,
    {
        let mut parsed = Vec::new();
        for value in self.list(name, count)? {
            let Value::Text(text) = value else {
                return Err(self.wrong(name, "has an entry that is not text"));
            };
            let entry = self.parse(name, text)?;
            if parsed.contains(&entry) {
                return Err(self.wrong(name, format!("has {text:?} twice")));
            }
            parsed.push(entry);
        }
        Ok(parsed)
    }

    /// As [`Self::parsed_list`], or nothing where it is null.
    pub(super) fn parsed_list_or_null<T>(
        &self,
        name: &str,
        count: RangeInclusive<usize>,
    ) -> Result<Option<Vec<T>>, RecordError>
    where
        T: FromStr<Err: Display> + PartialEq,
    {
        match self.value(name)? {
            Value::Null => Ok(None),
            _ => self.parsed_list(name, count).map(Some),
        }
    }

    /// An object, without reading its members.
    pub(super) fn object(&self, name: &str) -> Result<&'a Object, RecordError> {
        match self.value(name)? {
            Value::Object(object) => Ok(object),
            _ => Err(self.wrong(name, "is not an object")),
        }
    }

    /// The members of an object.
    pub(super) fn members(&self, name: &str) -> Result<Self, RecordError> {
        Ok(Self {
            object: self.object(name)?,
            within: format!("{}{name}.", self.within),
        })
    }

    /// The members of each object of a list.
    pub(super) fn each(
        &self,
        name: &str,
        count: RangeInclusive<usize>,
    ) -> Result<Vec<Self>, RecordError> {
        self.list(name, count)?
            .iter()
            .enumerate()
            .map(|(index, value)| match value {
                Value::Object(object) => Ok(Self {
                    object,
                    within: format!("{}{name}[{index}].", self.within),
                }),
                _ => Err(self.wrong(
                    name,
                    format!("has at {index} something else than an object"),
                )),
            })
            .collect()
    }

    fn parse<T>(&self, name: &str, text: &str) -> Result<T, RecordError>
    where
        T: FromStr<Err: Display>,
    {
        text.parse()
            .map_err(|error: T::Err| self.wrong(name, format!("does not read: {error}")))
    }
}

/// A list of the texts of some values.
pub(super) fn texts<T: ToString>(values: &[T]) -> Value {
    let texts: Vec<Value> = values
        .iter()
        .map(|value| Value::Text(value.to_string()))
        .collect();
    texts.into()
}
