//! DHCPv4 for machines that boot: full, reservation, proxy and auto.
//!
//! A message goes through [`Packet`] (what it says), [`Client`] (who speaks), [`LeaseBook`] (what
//! stands about it), [`judge`](judge::judge) (what follows) and [`Reply`] (the bytes). All of these
//! are pure; [`Responder`] joins them with whoever decides and with the store of leases.

pub mod auto;
mod book;
mod bootfile;
mod client;
pub mod judge;
mod lease;
pub mod packet;
mod reply;
mod responder;
mod segment;
mod shelves;
#[cfg(test)]
mod tests;
mod turns;
mod witness;

pub use book::{LeaseBook, Query, Standing};
pub use bootfile::boot_file;
pub use client::{Client, Platform};
pub use lease::{ClientKey, Lease, LeaseError, LeaseState, LeaseStore, MemoryLeases};
pub use packet::{DecodeError, Packet};
pub use reply::{Destination, Reply, destination, discover, discover_as};
pub use responder::{ConflictProbe, Received, Responder};
pub use segment::{Mode, Segment};
