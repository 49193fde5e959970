//! Network: one segment on which boot services answer.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Kind, Resource, Spec};

/// One network segment on which boot services answer. Without one, DHCP is off.
pub type Network = Resource<NetworkSpec>;

/// How boot services answer on one segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSpec {
    /// The interface it is on: `eth0`. Relayed requests for `subnet` are answered on any interface.
    pub interface: String,
    /// What DHCP does there.
    pub dhcp: DhcpMode,
    /// The subnet: `192.168.77.0/24`.
    #[schemars(with = "String")]
    pub subnet: Ipv4Net,
    /// Addresses to lease, for `full` and for `auto` once it is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// DHCP option 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv4Addr>,
    /// DHCP option 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// DHCP option 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// DHCP option 42.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<Ipv4Addr>,
    /// DHCP option 51, in seconds.
    #[serde(default = "hour")]
    pub lease_seconds: u32,
    /// What clients are told to fetch from; the receiving interface's address unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_server: Option<Ipv4Addr>,
    /// Lets `auto` hand out addresses when nobody else answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_full: bool,
    /// Machines here may get a boot token.
    #[serde(default = "yes")]
    pub provisioning: bool,
    /// Send IPv6 router advertisements without a prefix where we own the network, and elsewhere to
    /// machines that boot through us, so that iPXE does not wait 13 s for one.
    #[serde(default = "yes")]
    pub router_advertisements: bool,
    /// UEFI HTTP Boot straight into the agent's unified kernel image, without iPXE.
    #[serde(default = "yes")]
    pub unified_kernel: bool,
}

/// The condition that the boot services answer on a Network.
pub const SERVED: &str = "Served";

/// How a Network fares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkStatus {
    /// [`SERVED`]: whether boot services answer there, and why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What DHCP does on a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DhcpMode {
    /// Nothing.
    Off,
    /// Addresses from a pool, reservations, boot information.
    Full,
    /// Addresses and boot information for known machines with a reservation only.
    Reservation,
    /// Boot information beside another DHCP server.
    Proxy,
    /// `Proxy` where another server answers, else `Full`.
    Auto,
}

/// A range of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pool {
    /// The first.
    pub start: Ipv4Addr,
    /// The last.
    pub end: Ipv4Addr,
}

const fn hour() -> u32 {
    3600
}

const fn yes() -> bool {
    true
}

impl Spec for NetworkSpec {
    const KIND: Kind = Kind::NETWORK;
    type Status = NetworkStatus;
}
