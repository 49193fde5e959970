#![no_main]

#[path = "../bodies/render.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::render_text(bytes));
