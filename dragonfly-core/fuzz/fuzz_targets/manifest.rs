#![no_main]
//! Whatever somebody writes is objects or problems with their lines, never a panic.
use dragonfly_core::resource::manifest;

libfuzzer_sys::fuzz_target!(|text: &str| match manifest::parse(text) {
    Ok(all) => {
        for one in all {
            let again = manifest::from_json(one.record.to_json());
            assert_eq!(again.map(|r| r.to_json()), Ok(one.record.to_json()));
        }
    }
    Err(error) => assert!(!error.problems.is_empty()),
});
