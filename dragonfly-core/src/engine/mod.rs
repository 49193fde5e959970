//! The engine: what joins resources, store, boot decision and agents. The only writer of `status`.

pub mod anchors;
pub mod error;
pub mod render;
pub mod sessions;
pub mod settle;
#[allow(dead_code)]
mod token;
