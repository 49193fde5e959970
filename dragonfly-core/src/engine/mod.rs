//! The engine: what joins resources, store, boot decision and agents.

pub mod anchors;
pub mod render;
#[allow(dead_code)]
mod token;
