//! What tests the whole house: the lab, the measurements beside peers.

#[cfg(feature = "bench")]
pub mod bench;
pub mod lab;
