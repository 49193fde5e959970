//! Kernel modules: which ones a device needs, and loading them.

mod index;
mod load;

pub use index::{Index, NIC_CLASSES, Pattern, Phase, phase_of};
pub use load::{LoadError, Loader};
