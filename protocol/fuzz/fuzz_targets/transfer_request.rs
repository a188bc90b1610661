//! See `targets/transfer.rs`.
#![no_main]

#[allow(dead_code, reason = "one target of the list")]
#[path = "../targets/transfer.rs"]
mod transfer;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| transfer::transfer_request(bytes));
