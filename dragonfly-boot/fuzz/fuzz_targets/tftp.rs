#![no_main]

#[path = "../bodies/tftp.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::tftp(bytes));
