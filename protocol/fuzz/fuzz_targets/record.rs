//! See `targets/records.rs`.
#![no_main]

#[allow(dead_code, reason = "one target of the list")]
#[path = "../targets/records.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| records::record(bytes));
