//! What a lab tries besides installing blank machines.

mod adopt;
mod bad_image;
mod faults;
mod inventory;
mod smbios;

pub(super) use adopt::adopt;
pub(super) use bad_image::bad_image;
pub(super) use faults::faults;
pub(super) use inventory::inventory;
