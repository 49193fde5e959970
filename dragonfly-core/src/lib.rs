//! The bare-metal engine: what a machine is, what should happen to it, and who says so.
//!
//! Read in this order: [`resource`] (the objects people write), [`lifecycle`] and [`workflow`]
//! (what may follow what), [`boot`] (what a machine that asks is told, and why), [`action`] (one
//! step on a machine), [`wire`] (what the agent says to the server), [`store`] (where it is kept)
//! and [`engine`] (what joins them).
//!
//! The crate starts no runtime, keeps no global state, prints nothing and never panics on input.

pub mod action;
pub mod boot;
pub mod cache;
pub mod clock;
pub mod coordinate;
pub mod deadline;
pub mod diagnose;
pub mod engine;
pub mod event;
mod few;
mod fields;
pub mod inventory;
pub mod lifecycle;
pub mod mac;
pub mod name;
pub mod near;
pub mod power;
pub mod resource;
pub mod secret;
mod sighting;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod timeline;
#[cfg(feature = "tinkerbell")]
pub mod tinkerbell;
pub mod wire;
pub mod workflow;

pub use mac::Mac;

/// Any error, boxed; used only as the source behind an error of ours.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;
