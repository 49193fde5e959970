//! Whatever a controller sends is understood or refused.

/// One input.
pub(crate) fn ipmi(bytes: &[u8]) {
    dragonfly_core::testing::power::ipmi::read_anything(bytes);
}
