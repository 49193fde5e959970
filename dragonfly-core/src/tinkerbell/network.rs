//! What manifests of machines say of their network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::fields::Fields;
use super::go;
use super::hardware::Machine;
use super::read::Document;
use super::{Note, Outcome};
use crate::resource::network::DhcpMode;
use crate::resource::{Network, NetworkSpec};

/// A network that machines were told about. What is missing to a [`Network`] is the interface that it is on, and
/// whether this server is to give addresses there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkHint {
    /// The subnet.
    pub subnet: Ipv4Net,
    /// DHCP option 3.
    pub router: Option<Ipv4Addr>,
    /// DHCP option 6.
    pub dns: Vec<Ipv4Addr>,
    /// DHCP option 15.
    pub domain: Option<String>,
    /// DHCP option 42.
    pub ntp: Vec<Ipv4Addr>,
    /// DHCP option 51, in seconds.
    pub lease_seconds: Option<u32>,
    /// The machines on it.
    pub machines: Vec<String>,
}

impl NetworkHint {
    /// A Network on an interface of this server that answers the machines that have an address reserved, and no others.
    pub fn network(&self, interface: &str) -> Network {
        let name = format!("net-{}-{}", self.subnet.network(), self.subnet.prefix_len()).replace('.', "-");
        let spec = NetworkSpec {
            interface: interface.to_owned(),
            dhcp: DhcpMode::Reservation,
            subnet: self.subnet,
            pool: None,
            router: self.router,
            dns: self.dns.clone(),
            domain: self.domain.clone(),
            ntp: self.ntp.clone(),
            lease_seconds: self.lease_seconds.unwrap_or(3600),
            next_server: None,
            allow_full: false,
            provisioning: true,
            router_advertisements: true,
            unified_kernel: true,
        };
        Network::new(name, spec)
    }
}

/// What one manifest says.
#[derive(Debug)]
pub(super) struct Told {
    hint: NetworkHint,
    /// The note for a field that contradicts another machine's.
    fields: Vec<(&'static str, Note)>,
}

impl Told {
    /// Takes it from an interface; `None` where the subnet is not told.
    pub(super) fn take(
        document: &Document,
        fields: &mut Fields<'_>,
        index: usize,
        address: IpAddr,
        notes: &mut Vec<Note>,
    ) -> Option<Self> {
        let at = |field: &str| format!("/spec/interfaces/{index}/dhcp/{field}");
        let path = |field: &str| format!("spec.interfaces[{index}].dhcp.{}", field.replace('/', "."));
        let mut lost = |field: &str, said: &str| notes.push(document.note(&path(field), Outcome::Lost, said));
        let mask = fields.take_text(&at("ip/netmask"));
        let IpAddr::V4(address) = address else {
            if mask.is_some() {
                lost("ip/netmask", "networks are IPv4 here");
            }
            return None;
        };
        let Some(mask) = mask else {
            lost("ip", "no netmask is told, so it is not known which network the address is in");
            return None;
        };
        let Some(subnet) = go::prefix_length(&mask).and_then(|length| Ipv4Net::new(address, length).ok()) else {
            lost("ip/netmask", "is not a netmask");
            return None;
        };
        let mut addresses = |field: &str| -> Vec<Ipv4Addr> {
            let all = fields.take_texts(&at(field));
            let read: Vec<Ipv4Addr> = all.iter().filter_map(|text| text.parse().ok()).collect();
            if read.len() < all.len() {
                lost(field, "some are not IPv4 addresses");
            }
            read
        };
        let (dns, ntp) = (addresses("name_servers"), addresses("time_servers"));
        let gateway = fields.take_text(&at("ip/gateway"));
        let router: Option<Ipv4Addr> = gateway.as_deref().and_then(|text| text.parse().ok());
        let router = router.filter(|router| subnet.contains(router));
        if gateway.is_some() && router.is_none() {
            lost("ip/gateway", "is not an address in the machine's own network");
        }
        let lease = fields.take_text(&at("lease_time"));
        let lease_seconds =
            lease.as_deref().and_then(|text| text.parse().ok()).filter(|s| (60..=31_536_000).contains(s));
        if lease.is_some() && lease_seconds.is_none() {
            lost("lease_time", "a lease lasts from 60 seconds to a year");
        }
        let domain = fields.take_text(&at("domain_name"));
        let differs = "other machines of the network are told something else, and a network has one of these";
        let note = |name: &'static str, field: &str| (name, document.note(&path(field), Outcome::Lost, differs));
        let notes = vec![
            note("router", "ip/gateway"),
            note("dns", "name_servers"),
            note("ntp", "time_servers"),
            note("domain", "domain_name"),
            note("lease", "lease_time"),
        ];
        let machines = vec![document.name.clone()];
        let hint = NetworkHint { subnet: subnet.trunc(), router, dns, domain, ntp, lease_seconds, machines };
        Some(Self { hint, fields: notes })
    }
}

/// One hint for each network; where machines contradict each other, the first counts.
pub(super) fn hints(machines: &[Machine], notes: &mut Vec<Note>) -> Vec<NetworkHint> {
    let mut networks: BTreeMap<Ipv4Net, NetworkHint> = BTreeMap::new();
    for told in machines.iter().filter_map(|machine| machine.told.as_ref()) {
        let Some(first) = networks.get_mut(&told.hint.subnet) else {
            networks.insert(told.hint.subnet, told.hint.clone());
            continue;
        };
        first.machines.extend(told.hint.machines.iter().cloned());
        let other = &told.hint;
        for (name, note) in &told.fields {
            let differs = match *name {
                "router" => merge(&mut first.router, other.router.as_ref()),
                "domain" => merge(&mut first.domain, other.domain.as_ref()),
                "lease" => merge(&mut first.lease_seconds, other.lease_seconds.as_ref()),
                "dns" => merge_list(&mut first.dns, &other.dns),
                _ => merge_list(&mut first.ntp, &other.ntp),
            };
            if differs {
                notes.push(note.clone());
            }
        }
    }
    networks.into_values().collect()
}

/// Fills what is empty; whether the two contradict each other.
fn merge<T: Clone + PartialEq>(first: &mut Option<T>, other: Option<&T>) -> bool {
    match (first.as_ref(), other) {
        (_, None) => false,
        (None, Some(other)) => {
            *first = Some(other.clone());
            false
        }
        (Some(first), Some(other)) => first != other,
    }
}

fn merge_list<T: Clone + PartialEq>(first: &mut Vec<T>, other: &[T]) -> bool {
    if first.is_empty() {
        first.extend_from_slice(other);
    }
    !other.is_empty() && first != other
}
