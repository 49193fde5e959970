//! Whatever comes from the network unpacks or is an error, within bounds.

/// One input.
pub(crate) fn unpack(bytes: &[u8]) {
    let _ = dragonfly_actions::run::fuzzing::unpack(bytes, 1 << 20);
}
