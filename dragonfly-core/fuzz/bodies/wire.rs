//! Whatever an agent sends is a message or an error; a message survives its own writing.
use dragonfly_core::wire::{Hello, Report};

/// One input.
pub(crate) fn wire(bytes: &[u8]) {
    if let Ok(hello) = serde_json::from_slice::<Hello>(bytes) {
        let text = serde_json::to_vec(&hello).unwrap();
        assert_eq!(serde_json::from_slice::<Hello>(&text).unwrap(), hello);
        let clean = dragonfly_core::engine::anchors::clean(&hello.anchors);
        assert_eq!(dragonfly_core::engine::anchors::clean(&clean), clean);
    }
    if let Ok(report) = serde_json::from_slice::<Report>(bytes) {
        let text = serde_json::to_vec(&report).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&text).unwrap(), report);
    }
}
