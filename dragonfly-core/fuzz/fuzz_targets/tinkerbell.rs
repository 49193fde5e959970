#![no_main]

#[path = "../bodies/tinkerbell.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::tinkerbell(bytes));
