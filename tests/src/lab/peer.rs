//! The DHCP server that was there first: dnsmasq in a namespace of its own, on the same bridge.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::namespace::{Namespace, PEER};
use super::process::Process;

/// A dnsmasq that owns the addresses and knows nothing of booting.
#[derive(Debug)]
pub(crate) struct Peer {
    _process: Process,
    _namespace: Namespace,
}

impl Peer {
    pub(crate) fn start(beside: &Namespace, directory: &Path) -> Result<Self> {
        let namespace = Namespace::create("-peer")?;
        beside.plug(&namespace, PEER)?;
        let process = Process::start("dnsmasq", command(&namespace, directory), &directory.join("dnsmasq.log"))?;
        Ok(Self { _process: process, _namespace: namespace })
    }
}

fn command(namespace: &Namespace, directory: &Path) -> Command {
    let mut command = namespace.door().command("dnsmasq");
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces"])
        .args(["--user=root", "--log-dhcp", "--log-facility=-", "--no-ping", "--pid-file"])
        .arg("--dhcp-range=192.168.77.200,192.168.77.250,255.255.255.0,1h")
        .arg(format!("--dhcp-leasefile={}", directory.join("dnsmasq.leases").display()));
    command
}
