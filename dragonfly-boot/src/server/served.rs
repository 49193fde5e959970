//! A Network while it is served.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dragonfly_core::resource::network::{DhcpMode, Network, NetworkSpec};
use tokio::time::Instant;

use super::outlook::Outlook;
use crate::dhcp::Mode;
use crate::dhcp::auto::Auto;

/// How one Network is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// Its name.
    pub network: String,
    /// What DHCP does there at the moment; `None` when nothing.
    pub mode: Option<Mode>,
    /// Why, for a person: the state of `auto`, or what is wrong with the interface.
    pub reason: String,
}

/// A Network that is served, and the state of its `auto`.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) name: String,
    pub(super) spec: NetworkSpec,
    pub(super) auto: Option<Mutex<Auto>>,
    pub(super) since: Instant,
}

impl Served {
    pub(super) fn new(network: &Network) -> Option<Self> {
        let spec = network.spec.clone();
        let auto = match spec.dhcp {
            DhcpMode::Off => return None,
            DhcpMode::Auto => Some(Mutex::new(Auto::new(spec.allow_full))),
            DhcpMode::Full | DhcpMode::Reservation | DhcpMode::Proxy => None,
        };
        Some(Self { name: network.metadata.name.clone(), spec, auto, since: Instant::now() })
    }

    pub(super) fn with_auto<T>(&self, what: impl FnOnce(&mut Auto, Duration) -> T) -> Option<T> {
        let auto = self.auto.as_ref()?;
        Some(what(&mut auto.lock().unwrap_or_else(PoisonError::into_inner), self.since.elapsed()))
    }

    pub(super) fn mode(&self) -> Mode {
        match self.spec.dhcp {
            DhcpMode::Full => Mode::Full,
            DhcpMode::Reservation => Mode::Reservation,
            DhcpMode::Proxy | DhcpMode::Off => Mode::Proxy,
            DhcpMode::Auto => self.with_auto(|auto, _| auto.mode()).unwrap_or(Mode::Proxy),
        }
    }

    /// What is wrong with the pool, where there should be one.
    fn pool_problem(&self) -> Option<&'static str> {
        let subnet = self.spec.subnet;
        match self.spec.pool {
            _ if self.mode() != Mode::Full => None,
            None => Some("without a pool only machines with a reservation get an address"),
            Some(pool) if pool.start > pool.end => Some("the pool ends before it begins: no address can be leased"),
            Some(pool) if !subnet.contains(&pool.start) || !subnet.contains(&pool.end) => {
                Some("the pool reaches out of the subnet: addresses outside are not leased")
            }
            Some(_) => None,
        }
    }

    pub(super) fn status(&self, outlook: &Outlook) -> NetworkStatus {
        let network = self.name.clone();
        let partly = match outlook {
            Outlook::Not(reason) => return NetworkStatus { network, mode: None, reason: reason.clone() },
            Outlook::Partly(words) => Some(words.clone()),
            Outlook::Good => None,
        };
        let reason = self.with_auto(|auto, _| auto.reason()).unwrap_or_else(|| "as set".to_owned());
        let words: Vec<String> =
            [Some(reason), self.pool_problem().map(str::to_owned), partly].into_iter().flatten().collect();
        NetworkStatus { network, mode: Some(self.mode()), reason: words.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::dhcp::auto::Sign;

    fn network(name: &str, spec: &serde_json::Value) -> Network {
        Network::new(name, serde_json::from_value(spec.clone()).unwrap())
    }

    #[test]
    fn the_status_says_what_is_wrong() {
        let auto = serde_json::json!({"interface": "eth0", "dhcp": "auto", "subnet": "10.0.0.0/24", "allowFull": true});
        let served = Served::new(&network("a", &auto)).unwrap();
        assert_eq!(served.mode(), Mode::Proxy);
        served.with_auto(|auto, now| auto.note(Sign::Serves(Ipv4Addr::new(10, 0, 0, 9)), now));
        assert!(served.status(&Outlook::Good).reason.contains("10.0.0.9"));
        let pool = |start: &str, end: &str| {
            let pool = serde_json::json!({"start": start, "end": end});
            let spec = serde_json::json!({"interface": "eth0", "dhcp": "full", "subnet": "10.0.0.0/24", "pool": pool});
            Served::new(&network("a", &spec)).unwrap().status(&Outlook::Good).reason
        };
        assert_eq!(pool("10.0.0.5", "10.0.0.9"), "as set");
        assert!(pool("10.0.0.9", "10.0.0.5").contains("ends before"));
        assert!(pool("10.0.0.9", "10.0.1.5").contains("out of the subnet"));
    }
}
