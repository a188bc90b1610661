//! See `targets/formats.rs`.
#![no_main]

#[allow(dead_code, reason = "one target of the list")]
#[path = "../targets/formats.rs"]
mod formats;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| formats::refs(bytes));
