//! An address by DHCP, kept for as long as the agent runs.
//!
//! Busybox' udhcpc speaks the protocol; for each event it calls a program, and that program is this
//! binary under the name [`EVENT_NAME`]. What a DHCP server says is a stranger's word: it is parsed
//! into types before anything is done with it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::ip;

/// The name under which udhcpc calls this binary.
pub const EVENT_NAME: &str = "udhcpc-event";
/// Where the lease is kept for the agent to read.
pub const LEASE_FILE: &str = "/run/mage/lease.json";

/// An address and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The interface it is for.
    pub interface: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The network's prefix length.
    pub prefix: u8,
    /// Default routers, the best first.
    pub routers: Vec<Ipv4Addr>,
    /// Classless routes (RFC 3442): destination, prefix length, router.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The server that gave it.
    pub server: Option<Ipv4Addr>,
    /// For how many seconds.
    pub seconds: Option<u32>,
}

impl Lease {
    /// Reads what udhcpc gives in the environment.
    pub fn from_environment(variables: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| variables.get(name).map(|v| v.trim()).filter(|v| !v.is_empty());
        let addresses = |name: &str| -> Vec<Ipv4Addr> {
            text(name)
                .into_iter()
                .flat_map(str::split_ascii_whitespace)
                .filter_map(|a| a.parse().ok())
                .take(8)
                .collect()
        };
        let interface = text("interface").ok_or("udhcpc named no interface")?;
        if !interface.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) || interface.len() > 15 {
            return Err("udhcpc named an interface that cannot be one".to_owned());
        }
        let address: Ipv4Addr = text("ip").and_then(|a| a.parse().ok()).ok_or("the DHCP server gave no address")?;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || address.is_broadcast() {
            return Err(format!("the DHCP server gave {address}, which no machine can have"));
        }
        let prefix = text("mask").and_then(|m| m.parse().ok()).filter(|p| *p <= 32).unwrap_or(24);
        Ok(Self {
            interface: interface.to_owned(),
            address,
            prefix,
            routers: addresses("router"),
            routes: text("staticroutes").map(classless_routes).unwrap_or_default(),
            dns: addresses("dns"),
            server: text("serverid").and_then(|a| a.parse().ok()),
            seconds: text("lease").and_then(|s| s.parse().ok()),
        })
    }

    /// The `ip` commands that put it in force, in order. Those for routes may fail: a router that
    /// is not on the network is the DHCP server's mistake, and the address still serves.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let name = &self.interface;
        let mut commands = vec![words(format!("addr replace {}/{} dev {name}", self.address, self.prefix))];
        // RFC 3442: a client that reads classless routes ignores the router option.
        if self.routes.is_empty() {
            for (metric, router) in self.routers.iter().enumerate() {
                commands.push(words(format!("route replace default via {router} dev {name} metric {metric}")));
            }
        }
        for (to, prefix, router) in &self.routes {
            let via = if router.is_unspecified() { String::new() } else { format!("via {router} ") };
            commands.push(words(format!("route replace {to}/{prefix} {via}dev {name}")));
        }
        commands
    }
}

fn classless_routes(text: &str) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    let words: Vec<&str> = text.split_ascii_whitespace().take(64).collect();
    words
        .chunks_exact(2)
        .filter_map(|pair| {
            let (to, prefix) = pair.first()?.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|p| *p <= 32)?;
            Some((to.parse().ok()?, prefix, pair.get(1)?.parse().ok()?))
        })
        .collect()
}

/// What udhcpc's call means, done.
pub fn on_event(event: &str) -> ExitCode {
    let variables: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    match event {
        "deconfig" => {
            if let Some(name) = variables.get("interface") {
                let _ = ip(&["addr", "flush", "dev", name]);
                let _ = ip(&["link", "set", "dev", name, "up"]);
            }
            ExitCode::SUCCESS
        }
        "bound" | "renew" => match Lease::from_environment(&variables).and_then(|lease| apply(&lease)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                crate::console::Console::stderr().line(&format!("dhcp: {why}"));
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::SUCCESS,
    }
}

fn apply(lease: &Lease) -> Result<(), String> {
    for (n, command) in lease.commands().iter().enumerate() {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        match ip(&args) {
            Err(error) if n == 0 => return Err(error.to_string()),
            Err(error) => crate::console::Console::stderr().line(&format!("dhcp: {error}")),
            Ok(()) => {}
        }
    }
    let resolv: String = lease.dns.iter().map(|d| format!("nameserver {d}\n")).collect();
    let file = Path::new(LEASE_FILE);
    let new = file.with_extension("new");
    let text = serde_json::to_vec(lease).map_err(|e| e.to_string())?;
    std::fs::write("/etc/resolv.conf", resolv)
        .and_then(|()| std::fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))))
        .and_then(|()| std::fs::write(&new, text))
        .and_then(|()| std::fs::rename(&new, file))
        .map_err(|e| format!("the lease cannot be kept: {e}"))
}

/// Starts the client; it renews the lease for as long as it lives.
pub fn start(interface: &str) -> std::io::Result<Child> {
    let _ = std::fs::remove_file(LEASE_FILE);
    Command::new("/bin/busybox")
        .args(["udhcpc", "-f", "-i", interface, "-s", "/bin/udhcpc-event"])
        // Short waits between tries: a switch port that has just begun to forward loses the first.
        .args(["-t", "6", "-T", "1", "-A", "1", "-V", "dragonfly-mage", "-O", "staticroutes"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// The lease in force.
pub fn lease() -> Option<Lease> {
    serde_json::from_slice(&std::fs::read(LEASE_FILE).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_lease_becomes_commands() {
        let lease = Lease::from_environment(&environment(&[
            ("interface", "eth0"),
            ("ip", "192.168.77.10"),
            ("mask", "24"),
            ("router", "192.168.77.1 192.168.77.2 nonsense"),
            ("dns", "192.168.77.1"),
            ("serverid", "192.168.77.1"),
            ("lease", "3600"),
        ]))
        .unwrap();
        let commands: Vec<String> = lease.commands().iter().map(|c| c.join(" ")).collect();
        assert_eq!(
            commands,
            [
                "addr replace 192.168.77.10/24 dev eth0",
                "route replace default via 192.168.77.1 dev eth0 metric 0",
                "route replace default via 192.168.77.2 dev eth0 metric 1",
            ]
        );
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let lease = Lease::from_environment(&environment(&[
            ("interface", "eth0"),
            ("ip", "10.0.0.9"),
            ("mask", "99"),
            ("router", "10.0.0.1"),
            ("staticroutes", "0.0.0.0/0 10.0.0.254 10.9.0.0/16 0.0.0.0 broken 1.2.3.4 1.2.3.0/40 1.1.1.1"),
        ]))
        .unwrap();
        let commands: Vec<String> = lease.commands().iter().map(|c| c.join(" ")).collect();
        assert_eq!(
            commands,
            [
                "addr replace 10.0.0.9/24 dev eth0",
                "route replace 0.0.0.0/0 via 10.0.0.254 dev eth0",
                "route replace 10.9.0.0/16 dev eth0",
            ]
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (ip, interface) in
            [("", "eth0"), ("0.0.0.0", "eth0"), ("255.255.255.255", "eth0"), ("10.0.0.1", "e;reboot")]
        {
            assert!(Lease::from_environment(&environment(&[("interface", interface), ("ip", ip)])).is_err(), "{ip}");
        }
    }
}
