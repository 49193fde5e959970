//! What went over the bridge, for whoever looks into it later.

use std::path::Path;

use anyhow::Result;

use super::namespace::{BRIDGE, Namespace};
use super::process::Process;

/// Captures every byte.
pub(crate) fn whole(namespace: &Namespace, directory: &Path) -> Result<Process> {
    let mut command = namespace.door().command("tcpdump");
    command.args(["-i", BRIDGE, "-U", "-s", "0", "-B", "65536", "-Z", "root", "-w"]).arg(directory.join("whole.pcap"));
    Process::start("tcpdump", command, &directory.join("tcpdump.log"))
}

/// Captures everything but the images themselves.
pub(crate) fn start(namespace: &Namespace, directory: &Path) -> Result<Process> {
    let mut command = namespace.door().command("tcpdump");
    command
        .args(["-i", BRIDGE, "-U", "-s", "256", "-Z", "root", "-w"])
        .arg(directory.join("bridge.pcap"))
        .arg("udp or arp or icmp6 or (tcp and (port 8099 or tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0))");
    Process::start("tcpdump", command, &directory.join("tcpdump.log"))
}
