//! Whatever somebody writes is objects or problems with their lines, never a panic.
use dragonfly_core::resource::manifest;

/// One input.
pub(crate) fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match manifest::parse(text) {
        Ok(all) => {
            for one in all {
                let again = manifest::from_json(one.record.to_json());
                assert_eq!(again.map(|r| r.to_json()), Ok(one.record.to_json()));
            }
        }
        Err(error) => assert!(!error.problems.is_empty()),
    }
}
