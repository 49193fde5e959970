#![no_main]

#[path = "../bodies/disk.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::disk(bytes));
