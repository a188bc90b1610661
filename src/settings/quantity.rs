//! Numbers of bytes as people write them: `200GB`, `50 GiB`, `1048576`.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

/// Units and their bytes; the case of letters is of no account.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Reads a whole number of bytes, or one with decimals and a unit.
fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if factor > 1 && !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    let bytes = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return Some(bytes);
    }
    // More digits than these say less than a byte.
    let digits = fraction.get(..fraction.len().min(12))?;
    let part = u128::from(digits.parse::<u64>().ok()?) * u128::from(factor);
    let part = part / 10_u128.pow(u32::try_from(digits.len()).ok()?);
    bytes.checked_add(u64::try_from(part).ok()?)
}

/// Reads a number, or a text with a unit.
pub(super) fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    from.deserialize_any(Quantity)
}

struct Quantity;

impl<'de> Visitor<'de> for Quantity {
    type Value = Option<u64>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a number of bytes, or a text such as \"200GB\" or \"50GiB\"")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        let bytes = u64::try_from(number);
        bytes
            .map(Some)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        parse(text)
            .map(Some)
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("200GB", 200_000_000_000),
            ("50 GiB", 50 << 30),
            ("1.5 kB", 1_500),
            ("1.5M", 3 << 19),
            ("2t", 2 << 40),
            ("12B", 12),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "GB",
            "-1",
            "1e9",
            "1.5",
            "1.",
            "1.GB",
            ".5GB",
            "1.2.3GB",
            "5 parsecs",
            "99999999999TB",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
