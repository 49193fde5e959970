//! What keeps a Network from being answered as it is written, as far as that can be told before a socket is
//! opened: its interface, and other Networks beside it. Pure, but for [`warnings`], which looks at the interfaces.

use std::net::Ipv4Addr;

use dragonfly_core::near::did_you_mean;
use dragonfly_core::resource::network::{DhcpMode, Network, NetworkSpec};

use super::sockets::{self, Interface};

/// What is to be expected of a Network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It is answered as it is written.
    Good,
    /// It is answered in part.
    Partly(String),
    /// It is not answered.
    Not(String),
}

/// A Network by its name and what it says.
type Named<'a> = (&'a str, &'a NetworkSpec);

/// The interface of this name, if boot services can listen there.
pub(super) fn usable<'a>(name: &str, interfaces: &'a [Interface]) -> Result<&'a Interface, String> {
    match interfaces.iter().find(|i| i.name == name) {
        Some(interface) if !interface.addresses.is_empty() => Ok(interface),
        Some(_) => Err(format!("interface {name} has no IPv4 address")),
        None => Err(format!("there is no interface {name} that is up")),
    }
}

/// Which of several Networks on one interface answers a machine that has no address yet: the first with an address of
/// ours in its subnet, else the first.
pub(super) fn leads<T>(here: &[T], spec: impl Fn(&T) -> &NetworkSpec, addresses: &[Ipv4Addr]) -> Option<usize> {
    let ours = |one: &T| addresses.iter().any(|address| spec(one).subnet.contains(address));
    here.iter().position(ours).or((!here.is_empty()).then_some(0))
}

/// What other Networks on its interface leave to one. `all` is in the order in which they are asked.
pub(super) fn beside(one: Named<'_>, all: &[Named<'_>], interfaces: &[Interface]) -> Outlook {
    let (name, spec) = one;
    let Some(interface) = interfaces.iter().find(|i| i.name == spec.interface) else { return Outlook::Good };
    let here: Vec<Named<'_>> = all.iter().filter(|(_, other)| other.interface == spec.interface).copied().collect();
    let lead = leads(&here, |(_, spec)| spec, &interface.addresses).and_then(|at| here.get(at));
    match lead {
        Some((other, wider)) if *other != name && wider.subnet.contains(&spec.subnet) => Outlook::Not(format!(
            "Network `{other}` answers on {} for {} already; keep one of the two",
            spec.interface, wider.subnet
        )),
        Some((other, _)) if *other != name => Outlook::Partly(format!(
            "new machines on {} are answered by Network `{other}`; this one answers those that have an address in {} \
             and those behind a relay",
            spec.interface, spec.subnet
        )),
        _ => Outlook::Good,
    }
}

/// What a person should know of each Network before anything is answered: its name and a warning.
pub fn warnings(networks: &[Network]) -> Vec<(String, String)> {
    // Interfaces that cannot be listed are told by the state of the Networks once they are served.
    sockets::interfaces().map(|interfaces| foresee(networks, &interfaces)).unwrap_or_default()
}

fn foresee(networks: &[Network], interfaces: &[Interface]) -> Vec<(String, String)> {
    let served = networks.iter().filter(|network| network.spec.dhcp != DhcpMode::Off);
    let mut all: Vec<Named<'_>> = served.map(|network| (network.name(), &network.spec)).collect();
    all.sort_by_key(|(name, _)| *name);
    let warning = |one: &Named<'_>| match usable(&one.1.interface, interfaces) {
        Err(why) => {
            let names = || interfaces.iter().map(|i| i.name.as_str());
            let meant = did_you_mean(&one.1.interface, names())
                .unwrap_or_else(|| format!("up here: {}", names().collect::<Vec<_>>().join(", ")));
            Some(format!("{why} ({meant}); it is answered as soon as that changes"))
        }
        Ok(_) => match beside(*one, &all, interfaces) {
            Outlook::Good => None,
            Outlook::Partly(words) | Outlook::Not(words) => Some(words),
        },
    };
    all.iter().filter_map(|one| Some((one.0.to_owned(), warning(one)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, interface: &str, dhcp: &str, subnet: &str) -> Network {
        let spec = serde_json::json!({ "interface": interface, "dhcp": dhcp, "subnet": subnet });
        Network::new(name, serde_json::from_value(spec).unwrap())
    }

    fn interface(name: &str, addresses: &[[u8; 4]]) -> Interface {
        let addresses = addresses.iter().map(|octets| Ipv4Addr::from(*octets)).collect();
        Interface { name: name.to_owned(), index: 1, mac: None, addresses }
    }

    #[test]
    fn warns_of_interfaces_and_of_neighbours() {
        let interfaces =
            [interface("eth0", &[[10, 0, 0, 1]]), interface("eth1", &[]), interface("lo", &[[127, 0, 0, 1]])];
        let a = || network("a", "eth0", "proxy", "10.0.0.0/24");
        let said = |networks: &[Network]| foresee(networks, &interfaces);
        type Warned = [(&'static str, &'static str)];
        let table: &[(&[Network], &Warned)] = &[
            (&[a()], &[]),
            (
                &[network("x", "eth9", "proxy", "10.9.0.0/24")],
                &[("x", "no interface eth9 that is up (did you mean `eth0`")],
            ),
            (&[network("x", "rack", "proxy", "10.9.0.0/24")], &[("x", "(up here: eth0, eth1, lo)")]),
            (&[network("x", "rack", "off", "10.9.0.0/24")], &[]),
            (&[network("x", "eth1", "proxy", "10.9.0.0/24")], &[("x", "eth1 has no IPv4 address")]),
            (
                &[a(), network("b", "eth0", "full", "10.0.0.0/24")],
                &[("b", "`a` answers on eth0 for 10.0.0.0/24 already")],
            ),
            (&[a(), network("b", "eth0", "full", "10.0.0.128/25")], &[("b", "keep one of the two")]),
            (
                &[a(), network("b", "eth0", "full", "10.7.0.0/24")],
                &[("b", "new machines on eth0 are answered by Network `a`")],
            ),
            // Our own address decides before the name does.
            (&[network("0", "eth0", "full", "10.7.0.0/24"), a()], &[("0", "are answered by Network `a`")]),
            (&[a(), network("b", "eth0", "off", "10.0.0.0/24")], &[]),
        ];
        for (networks, want) in table {
            let got = said(networks);
            assert_eq!(got.len(), want.len(), "{got:?}");
            for ((name, words), (of, part)) in got.iter().zip(*want) {
                assert!(name == of && words.contains(part), "{name}: {words}");
            }
        }
    }
}
