//! The machines' management controllers, which speak real protocols and are wired to QEMU.
//!
//! A machine with a controller is off until somebody switches it on there, and boots from its disk alone unless its
//! controller says otherwise: whatever gets it onto the network was asked for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use dragonfly_core::power::{BootDevice, BootOverride};
use dragonfly_core::testing::power::{ipmi, redfish};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use super::args::Bmc;
use super::console::say;
use super::machine::Machine;
use super::world::World;

/// The first controller's port, on the lab's loopback.
const PORT: u16 = 6230;
/// Who logs in to them.
const USERNAME: &str = "lab";

/// What a controller had done to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    On,
    Off,
    Cycle,
    Reset,
    Soft,
}

/// One machine's order, and what it boots from.
type Ordered = (usize, Order, Option<BootOverride>);

/// Every machine's controller. They go with this.
#[derive(Debug)]
pub(crate) struct Controllers {
    orders: Receiver<Ordered>,
    peers: Vec<Peer>,
    addresses: Vec<String>,
    password: String,
    // Last, so that those that run on it go first.
    _runtime: Runtime,
}

#[derive(Debug)]
enum Peer {
    Ipmi(ipmi::Peer),
    Redfish(redfish::Peer),
}

impl Controllers {
    /// Starts one for each machine. The machines are off.
    pub(crate) fn start(kind: Bmc, world: &World, machines: &mut [Machine]) -> Result<Option<Self>> {
        if kind == Bmc::None {
            return Ok(None);
        }
        // Whoever works for it does so inside the lab's network.
        let door = world.namespace.door().clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .on_thread_start(move || {
                if let Err(error) = door.go_in() {
                    say(format_args!("the controllers are outside of the lab's network: {error:#}"));
                }
            })
            .build()?;
        let (tell, orders) = channel();
        let mut password = [0; 8];
        getrandom::fill(&mut password)?;
        // IPMI has room for 20 bytes.
        let password = hex::encode(password);
        let (mut peers, mut addresses) = (Vec::new(), Vec::new());
        for machine in machines {
            let (port, tell) = (PORT + u16::try_from(machine.index)?, tell.clone());
            let at = (std::net::Ipv4Addr::LOCALHOST, port).into();
            let (address, peer) = match kind {
                Bmc::Ipmi => {
                    let is = ipmi::Personality {
                        username: USERNAME.to_owned(),
                        password: password.clone(),
                        ..ipmi::Personality::default()
                    };
                    let started = runtime.spawn(ipmi::Peer::start(at, is));
                    let peer = runtime.block_on(started)?.context("a controller cannot listen")?;
                    let hook = Arc::new(hook_ipmi(machine.index, tell));
                    peer.change(|_, chassis| chassis.hook = Some(hook));
                    (format!("ipmi://{at}"), Peer::Ipmi(peer))
                }
                Bmc::Redfish => {
                    let is = redfish::Personality {
                        username: USERNAME.to_owned(),
                        password: password.clone(),
                        // As in racks: what it says is done is done a moment later.
                        takes: Duration::from_secs(1),
                        ..redfish::Personality::default()
                    };
                    // Nobody vouches for a controller's certificate: it is trusted by its fingerprint.
                    let made = rcgen::generate_simple_self_signed(["bmc.lab".to_owned()])?;
                    let (certificate, key) = (made.cert.der().to_vec(), made.signing_key.serialize_der());
                    let pin = hex::encode(Sha256::digest(&certificate));
                    let started = runtime.spawn(redfish::Peer::start_tls(at, is, certificate, key));
                    let peer = runtime.block_on(started)?.context("a controller cannot listen")?;
                    let hook = Arc::new(hook_redfish(machine.index, tell));
                    peer.change(|_, machines| machines.iter_mut().for_each(|m| m.hook = Some(hook.clone())));
                    (format!("redfish://{at}?tls=sha256:{pin}"), Peer::Redfish(peer))
                }
                Bmc::Qmp => {
                    machine.start_switched_off(world)?;
                    addresses.push(format!("qmp://{}", machine.hardware.monitor.display()));
                    continue;
                }
                Bmc::None => continue,
            };
            machine.wait_for_power();
            peers.push(peer);
            addresses.push(address);
        }
        Ok(Some(Self { orders, peers, addresses, password, _runtime: runtime }))
    }

    /// Tells the server of each: the machine is known, and never was seen.
    pub(crate) fn make_known(&self, world: &World, machines: &[Machine]) -> Result<()> {
        let file = world.directory.join("bmc-password");
        std::fs::write(&file, &self.password)?;
        let file = file.display().to_string();
        for (machine, address) in machines.iter().zip(&self.addresses) {
            world.server.apply(&known(machine))?;
            let mut words = vec!["bmc", "set", &machine.name, address];
            // Who is at QEMU's monitor needs no password.
            if !self.peers.is_empty() {
                words.extend(["--username", USERNAME, "--password-file", &file]);
            }
            say(format_args!("{}", world.server.cli(&words)?.trim_end().replace('\n', "; ")));
        }
        Ok(())
    }

    /// Where each of them answers.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// A Secret with their account.
    pub(crate) fn secret(&self, name: &str) -> String {
        format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Secret, metadata: {{name: {name}}}, \
             spec: {{data: {{username: {USERNAME}, password: '{}'}}}}}}\n",
            self.password
        )
    }

    /// Does to the machines what their controllers had done since.
    pub(crate) fn step(&self, world: &World, machines: &mut [Machine]) -> Result<()> {
        for (index, order, boot) in self.orders.try_iter() {
            let machine = machines.get_mut(index).context("an order for a machine that is not there")?;
            let from = boot.map_or_else(|| "its disk".to_owned(), |boot| boot.to_string());
            say(format_args!("           {}: its controller says {order:?}; it boots from {from}", machine.name));
            machine.hardware.network_boot = boot.is_some_and(|boot| boot.device == BootDevice::Pxe);
            let runs = machine.is_running();
            match order {
                Order::On if runs => {}
                Order::Off => machine.cut_power(),
                Order::Soft => machine.shut_down()?,
                // A reset is a new start here: firmware is to see the new boot order.
                Order::On | Order::Cycle | Order::Reset => {
                    machine.cut_power();
                    if machine.started.is_none() {
                        machine.start(&world.namespace, world.accel, &world.timeline)?;
                    } else {
                        machine.power_on(&world.namespace, world.accel, &world.timeline)?;
                    }
                    if !boot.is_some_and(|boot| boot.persistent) {
                        machine.boot_from_disk_again()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// How many operations each controller carried out, for the record.
    pub(crate) fn done(&self) -> Vec<usize> {
        let done = self.peers.iter().map(|peer| match peer {
            Peer::Ipmi(peer) => peer.chassis().done.len(),
            Peer::Redfish(peer) => peer.machine().done.len(),
        });
        done.collect()
    }
}

fn hook_ipmi(index: usize, tell: Sender<Ordered>) -> impl Fn(ipmi::Command, Option<BootOverride>) + Send + Sync {
    move |command, boot| {
        let order = match command {
            ipmi::Command::On => Order::On,
            ipmi::Command::Off => Order::Off,
            ipmi::Command::Cycle => Order::Cycle,
            ipmi::Command::Reset => Order::Reset,
            ipmi::Command::Soft => Order::Soft,
        };
        // The lab is over when nobody listens.
        let _ = tell.send((index, order, boot));
    }
}

fn hook_redfish(index: usize, tell: Sender<Ordered>) -> impl Fn(redfish::Command, &redfish::BootSet) + Send + Sync {
    move |command, boot| {
        let order = match command {
            redfish::Command::On => Order::On,
            redfish::Command::Off => Order::Off,
            redfish::Command::Cycle => Order::Cycle,
            redfish::Command::Reset => Order::Reset,
            redfish::Command::Soft => Order::Soft,
        };
        let device = match boot.target.as_str() {
            "Pxe" => Some(BootDevice::Pxe),
            "Hdd" => Some(BootDevice::Disk),
            _ => None,
        };
        let device = device.filter(|_| boot.enabled != "Disabled");
        let persistent = boot.enabled == "Continuous";
        let boot = device.map(|device| BootOverride { device, persistent, mode: None });
        // The lab is over when nobody listens.
        let _ = tell.send((index, order, boot));
    }
}

/// A machine that somebody has racked and written down.
fn known(machine: &Machine) -> String {
    format!(
        "apiVersion: dragonfly.computer/v1
kind: Hardware
metadata:
  name: {}
spec:
  displayName: {}
  macs: [\"{}\"]
",
        machine.name.to_lowercase(),
        machine.name,
        machine.mac
    )
}
