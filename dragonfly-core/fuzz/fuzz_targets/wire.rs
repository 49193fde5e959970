#![no_main]

#[path = "../bodies/wire.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::wire(bytes));
