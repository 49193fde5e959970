//! What the tests of several files use.

use std::net::Ipv4Addr;

use dragonfly_core::resource::network::{DhcpMode, NetworkSpec, Pool};

use super::segment::{Mode, Segment};
use crate::Base;

/// 10.0.0.0/24 with a pool of 100 addresses from .100 on; we are .1, the router is .254.
pub(crate) fn segment(mode: Mode) -> Segment {
    let server = Ipv4Addr::new(10, 0, 0, 1);
    let pool = Pool { start: Ipv4Addr::new(10, 0, 0, 100), end: Ipv4Addr::new(10, 0, 0, 199) };
    let spec = NetworkSpec {
        interface: "eth0".into(),
        dhcp: DhcpMode::Full,
        subnet: "10.0.0.0/24".parse().unwrap(),
        pool: Some(pool),
        router: Some(Ipv4Addr::new(10, 0, 0, 254)),
        dns: vec![],
        domain: None,
        ntp: vec![],
        lease_seconds: 3600,
        next_server: None,
        allow_full: false,
        provisioning: true,
        router_advertisements: true,
        unified_kernel: true,
    };
    Segment { name: "lab".into(), spec, mode, server, base: Base::new(server.into(), 3000) }
}
