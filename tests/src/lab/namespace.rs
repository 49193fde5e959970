//! A network of the lab's own: one namespace with a bridge and a tap for each machine.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::output;

const PREFIX: &str = "df-lab-";
/// The bridge inside the namespace.
pub(crate) const BRIDGE: &str = "br0";
/// The server's address on it.
pub(crate) const SERVER: &str = "192.168.77.1";
/// The foreign DHCP server's address on it.
pub(crate) const PEER: &str = "192.168.77.2";

/// A network namespace that goes with its owner.
#[derive(Debug)]
pub(crate) struct Namespace {
    door: Door,
}

/// The way into a namespace, for threads that outlive nothing by holding it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    name: String,
}

fn ip(arguments: &[&str]) -> Result<String> {
    output(Command::new("ip").args(arguments))
}

impl Namespace {
    /// Makes one. Its name carries this process' id, so that a later lab knows when it is abandoned.
    pub(crate) fn create(suffix: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}{suffix}", std::process::id());
        ip(&["netns", "add", &name]).context("cannot make a network namespace (the lab needs root)")?;
        let made = Self { door: Door { name } };
        ip(&["-n", made.name(), "link", "set", "lo", "up"])?;
        Ok(made)
    }

    fn name(&self) -> &str {
        &self.door.name
    }

    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// The bridge with the server's address, and a tap for each machine.
    pub(crate) fn lay_bridge(&self, taps: usize) -> Result<()> {
        let n = self.name();
        // Without a forward delay, as on a port with spanning tree's edge setting.
        ip(&["-n", n, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"])?;
        ip(&["-n", n, "addr", "add", &format!("{SERVER}/24"), "dev", BRIDGE])?;
        ip(&["-n", n, "link", "set", BRIDGE, "up"])?;
        for tap in 0..taps {
            let tap = format!("tap{tap}");
            ip(&["-n", n, "tuntap", "add", &tap, "mode", "tap"])?;
            ip(&["-n", n, "link", "set", &tap, "master", BRIDGE, "up"])?;
        }
        Ok(())
    }

    /// One more address of this side of the bridge.
    pub(crate) fn add_address(&self, address: &str) -> Result<()> {
        ip(&["-n", self.name(), "addr", "add", &format!("{address}/32"), "dev", BRIDGE]).map(drop)
    }

    /// Takes it away again.
    pub(crate) fn drop_address(&self, address: &str) -> Result<()> {
        ip(&["-n", self.name(), "addr", "del", &format!("{address}/32"), "dev", BRIDGE]).map(drop)
    }

    /// Another host on the bridge: its card is `eth0` in `other`.
    pub(crate) fn plug(&self, other: &Self, address: &str) -> Result<()> {
        self.plug_as(other, address, "eth0")
    }

    /// Another host on the bridge, and the name of its card in `other`.
    pub(crate) fn plug_as(&self, other: &Self, address: &str, card: &str) -> Result<()> {
        let (n, o) = (self.name(), other.name());
        // As long as addresses are: fifteen characters.
        let port = format!("to-{}", address.rsplit('.').next().unwrap_or_default());
        ip(&["-n", n, "link", "add", &port, "type", "veth", "peer", "name", card, "netns", o])?;
        ip(&["-n", n, "link", "set", &port, "master", BRIDGE, "up"])?;
        ip(&["-n", o, "addr", "add", &format!("{address}/24"), "dev", card])?;
        ip(&["-n", o, "link", "set", card, "up"])?;
        Ok(())
    }

    /// Plugs a machine's cable in, or pulls it.
    pub(crate) fn link(&self, tap: &str, up: bool) -> Result<()> {
        ip(&["-n", self.name(), "link", "set", tap, if up { "up" } else { "down" }]).map(drop)
    }

    /// A cable from this one to another; each end has a card and an address.
    #[cfg(feature = "bench")]
    pub(crate) fn join(
        &self,
        other: &Self,
        (card, address): (&str, std::net::Ipv4Addr),
        (other_card, other_address): (&str, std::net::Ipv4Addr),
        prefix: u8,
    ) -> Result<()> {
        let (n, o) = (self.name(), other.name());
        ip(&["-n", n, "link", "add", card, "type", "veth", "peer", "name", other_card, "netns", o])?;
        for (name, card, address) in [(n, card, address), (o, other_card, other_address)] {
            ip(&["-n", name, "addr", "add", &format!("{address}/{prefix}"), "dev", card])?;
            ip(&["-n", name, "link", "set", card, "up"])?;
        }
        Ok(())
    }

    /// Bytes that went out over its bridge so far.
    pub(crate) fn bytes_sent(&self) -> Result<u64> {
        let text = ip(&["-n", self.name(), "-j", "-s", "link", "show", BRIDGE])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        links[0]["stats64"]["tx"]["bytes"].as_u64().context("ip shows no counters of the bridge")
    }
}

impl Door {
    /// A command that will run in it.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref());
        command
    }

    /// A connection from inside it.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        self.enter(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)))?
            .with_context(|| format!("cannot connect to {to} in {}", self.name))
    }

    /// A listener inside it.
    pub(crate) fn listen(&self, at: &str) -> Result<TcpListener> {
        let address = at.to_owned();
        self.enter(move || TcpListener::bind(address))?
            .with_context(|| format!("cannot listen on {at} in {}", self.name))
    }

    /// A UDP socket inside it.
    pub(crate) fn udp(&self, at: &str) -> Result<UdpSocket> {
        let address = at.to_owned();
        self.enter(move || UdpSocket::bind(address))?.with_context(|| format!("cannot use {at} in {}", self.name))
    }

    /// Enters it with the calling thread, and with every thread and process that it starts from here on.
    pub(crate) fn go_in(&self) -> Result<()> {
        let namespace = File::open(format!("/run/netns/{}", self.name))?;
        Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` on a thread that has entered it. A socket stays in the namespace it was made in.
    fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let namespace = File::open(format!("/run/netns/{}", self.name))?;
        std::thread::spawn(move || -> Result<T> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .join()
        .map_err(|_| anyhow!("a thread in the namespace died"))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", self.name()]);
    }
}

/// The process whose namespace this is, if it is a lab's.
fn owner(namespace: &str) -> Option<i32> {
    namespace.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Removes what labs left that were killed: their namespaces and whatever still runs in them.
pub(crate) fn sweep() -> Result<()> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = owner(&name) else { continue };
        if Path::new(&format!("/proc/{owner}")).exists() {
            continue;
        }
        for id in ip(&["netns", "pids", &name]).unwrap_or_default().split_whitespace() {
            if let Ok(id) = id.parse() {
                let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
        ip(&["netns", "del", &name])?;
        super::console::say(format_args!("removed {name}, left by a lab that was killed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_labs_namespace_has_an_owner() {
        for (name, want) in [
            ("df-lab-41", Some(41)),
            ("df-lab-41-peer", Some(41)),
            ("df-boot-41", None),
            ("df-lab-", None),
            ("px", None),
        ] {
            assert_eq!(owner(name), want, "{name}");
        }
    }
}
