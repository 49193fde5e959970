#![no_main]
//! Whatever comes from the network unpacks or is an error, within bounds.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = dragonfly_actions::run::fuzzing::unpack(bytes, 1 << 20);
});
