//! Two namespaces and a cable: servers on one end, what asks them on the other.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::lab::namespace::{Door, Namespace, sweep};

/// The servers' interface.
pub(crate) const INTERFACE: &str = "v0";
/// The servers' address.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address of whatever asks; a relay's, for DHCP.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// What both are in.
pub(crate) const SUBNET: &str = "10.77.0.0/16";
/// The addresses that are given out.
pub(crate) const POOL: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 77, 16, 1), Ipv4Addr::new(10, 77, 255, 254));

/// Both ends. They go with it.
#[derive(Debug)]
pub(crate) struct World {
    server: Namespace,
    _client: Namespace,
}

impl World {
    /// Makes both, and enters the client's with the calling thread and those it makes.
    pub(crate) fn create() -> Result<Self> {
        sweep()?;
        let (server, client) = (Namespace::create("-server")?, Namespace::create("-client")?);
        server.join(&client, (INTERFACE, SERVER), ("v1", CLIENT), 16)?;
        client.door().go_in()?;
        Ok(Self { server, _client: client })
    }

    /// The way to the servers' end.
    pub(crate) fn servers(&self) -> &Door {
        self.server.door()
    }
}
