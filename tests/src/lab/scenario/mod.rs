//! What a lab tries besides installing blank machines.

mod account;
mod adopt;
mod bad_image;
mod expected;
mod faults;
mod identity;
mod inventory;
mod manifests;
mod rollback;
mod secrets;
mod smbios;
mod tinkerbell;
mod traces;
mod why;

pub(super) use account::account;
pub(super) use adopt::adopt;
pub(super) use bad_image::bad_image;
pub(super) use expected::expected;
pub(super) use faults::faults;
pub(super) use identity::identity;
pub(super) use inventory::inventory;
pub(super) use manifests::manifests;
pub(super) use rollback::rollback;
pub(super) use secrets::secrets;
pub(super) use tinkerbell::tinkerbell;
pub(super) use why::why;
