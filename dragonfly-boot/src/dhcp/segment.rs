//! A network as it is now: its settings, the mode in effect, and our address on it.

use std::net::Ipv4Addr;

use dragonfly_core::resource::network::NetworkSpec;

use crate::Base;

/// What DHCP does on a segment at the moment. `auto` has become one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Addresses from the pool, reservations, boot information.
    Full,
    /// Addresses and boot information for machines with a reservation.
    Reservation,
    /// Boot information beside another server.
    Proxy,
}

impl Mode {
    /// Whether addresses come from us.
    pub fn gives_addresses(self) -> bool {
        self != Self::Proxy
    }

    /// One word, for people and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Reservation => "reservation",
            Self::Proxy => "proxy",
        }
    }
}

/// One segment, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// The Network's name.
    pub name: String,
    /// Its settings.
    pub spec: NetworkSpec,
    /// The mode in effect.
    pub mode: Mode,
    /// Our address as its clients see it: option 54, and the source of what we send.
    pub server: Ipv4Addr,
    /// Where clients reach our HTTP.
    pub base: Base,
}

impl Segment {
    /// Where clients fetch by TFTP.
    pub fn next_server(&self) -> Ipv4Addr {
        self.spec.next_server.unwrap_or(self.server)
    }

    /// How long a lease is, in seconds. A shorter one than a minute would end while firmware loads.
    pub fn lease_seconds(&self) -> u32 {
        self.spec.lease_seconds.max(60)
    }

    /// Whether the address may be leased to a host here at all.
    pub fn usable(&self, address: Ipv4Addr) -> bool {
        let subnet = self.spec.subnet;
        // In /31 and /32 there are no addresses for network and broadcast (RFC 3021).
        let edge = subnet.prefix_len() < 31 && (address == subnet.network() || address == subnet.broadcast());
        subnet.contains(&address)
            && !edge
            && address != self.server
            && Some(address) != self.spec.router
            && Some(address) != self.spec.next_server
    }

    /// Whether the pool holds the address.
    pub fn pooled(&self, address: Ipv4Addr) -> bool {
        self.spec.pool.is_some_and(|pool| pool.start <= address && address <= pool.end) && self.usable(address)
    }
}
