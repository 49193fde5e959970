//! Network cards and default routes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use dragonfly_core::inventory::{MegabitsPerSecond, Nic, Route};

use super::{link_name, number};
use crate::net::card;

/// Every Ethernet card with what its link says.
pub(crate) fn read(sys: &Path) -> Vec<Nic> {
    let addresses = if sys == Path::new("/sys") { addresses() } else { Vec::new() };
    card::list(sys)
        .into_iter()
        .take(256)
        .map(|card| {
            let path = sys.join("class/net").join(&card.name);
            Nic {
                driver: link_name(&path.join("device/driver")),
                link: card::carrier(sys, &card.name),
                // -1 and all ones mean that nobody knows.
                speed: number::<i64>(&path.join("speed"))
                    .and_then(|s| u64::try_from(s).ok())
                    .filter(|s| *s > 0 && *s < u64::from(u32::MAX))
                    .map(MegabitsPerSecond),
                addresses: addresses.iter().filter(|(n, _)| *n == card.name).map(|(_, a)| a.clone()).collect(),
                lldp: None,
                mac: card.mac,
                name: card.name,
            }
        })
        .collect()
}

/// Interface names and their addresses with prefix length.
fn addresses() -> Vec<(String, String)> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    all.filter_map(|interface| {
        let (address, mask) = (interface.address?, interface.netmask?);
        let (ip, prefix): (IpAddr, u32) = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => (v4.ip().into(), mask.as_sockaddr_in()?.ip().to_bits().count_ones()),
            (_, Some(v6)) => (v6.ip().into(), mask.as_sockaddr_in6()?.ip().to_bits().count_ones()),
            _ => return None,
        };
        Some((interface.interface_name, format!("{ip}/{prefix}")))
    })
    .take(1024)
    .collect()
}

/// Default routes of the main table: `/proc/net/route`.
pub(crate) fn routes(proc: &Path) -> Vec<Route> {
    let text = std::fs::read_to_string(proc.join("net/route")).unwrap_or_default();
    text.lines().skip(1).filter_map(route).take(16).collect()
}

/// `eth0 00000000 014DA8C0 0003 0 0 0 00000000 ...`: destination, gateway and mask as the machine
/// stores them, in hex.
fn route(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let hex = |n: usize| u32::from_str_radix(words.get(n)?, 16).ok();
    if hex(1)? != 0 || hex(7)? != 0 {
        return None;
    }
    let gateway = Ipv4Addr::from(hex(2)?.to_ne_bytes());
    if gateway.is_unspecified() {
        return None;
    }
    Some(Route { via: gateway.into(), interface: (*words.first()?).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_only() {
        let want = Route { via: "192.168.77.1".parse().unwrap(), interface: "eth0".into() };
        assert_eq!(route("eth0\t00000000\t014DA8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"), Some(want));
        assert_eq!(route("eth0\t004DA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"), None);
        assert_eq!(route("eth0"), None);
    }
}
