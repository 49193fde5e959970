#![no_main]

#[path = "../bodies/bootentry.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::bootentry(bytes));
