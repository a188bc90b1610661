//! See `targets/spread.rs`.
#![no_main]

#[allow(dead_code, reason = "one target of the list")]
#[path = "../targets/spread.rs"]
mod spread;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spread::spread(bytes));
