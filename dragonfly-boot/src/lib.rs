//! What a machine meets between power-on and its kernel: DHCP, TFTP, iPXE scripts, boot files over
//! HTTP, and one IPv6 router advertisement.
//!
//! Everything but [`server`] is bytes in, bytes out: [`dhcp`] decides what a packet is answered,
//! [`tftp`] is a state machine, [`ipxe`] renders a script, [`identity`] writes an archive, [`http`]
//! is a service that any HTTP server can mount. [`server`] holds the sockets.
//!
//! Who a machine is and what it boots is decided elsewhere, by a
//! [`BootProvider`](dragonfly_core::boot::BootProvider).

pub mod dhcp;
pub mod files;
pub mod http;
pub mod identity;
pub mod ipxe;
pub mod radvertise;
pub mod server;
#[cfg(test)]
mod testing;
pub mod tftp;
mod urls;

pub use files::{BootFiles, Loaders};
pub use server::{BootConfig, BootServer};
pub use urls::Base;
