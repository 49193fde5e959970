#![no_main]

#[path = "../bodies/ipmi.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::ipmi(bytes));
