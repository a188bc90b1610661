//! See `targets/xet.rs`.
#![no_main]

#[allow(dead_code, reason = "one target of the list")]
#[path = "../targets/xet.rs"]
mod xet;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xet::shard(bytes));
