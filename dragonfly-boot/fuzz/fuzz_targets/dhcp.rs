#![no_main]

#[path = "../bodies/dhcp.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::dhcp(bytes));
