#![no_main]

#[path = "../bodies/http_path.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::http_path(bytes));
