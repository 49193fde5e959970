//! The DHCP server that was there first: dnsmasq in a namespace of its own, on the same bridge.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::namespace::{Door, Namespace, PEER};
use super::process::Process;

/// A dnsmasq that owns the addresses and knows nothing of booting.
#[derive(Debug)]
pub(crate) struct Peer {
    _process: Process,
    namespace: Namespace,
}

impl Peer {
    /// `more`: arguments beside those that make it hand out addresses.
    pub(crate) fn start(beside: &Namespace, directory: &Path, more: &[String]) -> Result<Self> {
        let namespace = Namespace::create("-peer")?;
        beside.plug(&namespace, PEER)?;
        let process = Process::start("dnsmasq", command(&namespace, directory, more), &directory.join("dnsmasq.log"))?;
        Ok(Self { _process: process, namespace })
    }

    pub(crate) fn door(&self) -> &Door {
        self.namespace.door()
    }
}

fn command(namespace: &Namespace, directory: &Path, more: &[String]) -> Command {
    let mut command = namespace.door().command("dnsmasq");
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces"])
        .args(["--user=root", "--log-dhcp", "--log-facility=-", "--no-ping", "--pid-file"])
        .arg("--dhcp-range=192.168.77.200,192.168.77.250,255.255.255.0,1h")
        .arg(format!("--dhcp-leasefile={}", directory.join("dnsmasq.leases").display()))
        .args(more);
    command
}
