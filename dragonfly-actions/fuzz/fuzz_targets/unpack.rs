#![no_main]

#[path = "../bodies/unpack.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::unpack(bytes));
