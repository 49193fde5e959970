//! How each fault is made, and how it is mended.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use dragonfly_core::event::Event;
use serde_json::Value;

use super::case::{Case, Strike};
use super::stranger;
use crate::lab::machine::Machine;
use crate::lab::namespace::{Door, PEER, SERVER};
use crate::lab::peer::Peer;
use crate::lab::process::output;
use crate::lab::world::World;

/// What is around the machines.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) world: &'a World,
    /// The other DHCP server.
    pub(super) other: &'a Peer,
}

/// What the other DHCP server is told: it answers these two machines alone, the one with a boot server of
/// its own.
pub(super) fn other_dhcp(with_boot: Option<&Machine>, without: Option<&Machine>) -> Vec<String> {
    let mut list = vec!["--dhcp-ignore=tag:!known".to_owned()];
    for (machine, tag) in [(with_boot, "boots"), (without, "plain")] {
        list.extend(machine.map(|machine| format!("--dhcp-host={},set:{tag}", machine.mac)));
    }
    list.push(format!("--dhcp-boot=tag:boots,theirs.pxe,theirs,{PEER}"));
    list
}

fn filter(door: &Door, verb: &str, rule: &[String]) -> Result<()> {
    output(door.command("iptables").args(["-w", "10", verb]).args(rule)).map(drop)
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Rules in the server's packet filter, the last first, taken out when the fault is mended.
#[derive(Debug, Clone)]
pub(super) struct Rules(Vec<Vec<String>>);

/// Does it; what was put into the server's packet filter comes back.
pub(super) fn strike(case: &Case, machine: &Machine, event: Option<&Event>, site: &Site<'_>) -> Result<Option<Rules>> {
    let mac = &machine.mac;
    let rules = match case.strike {
        Strike::Port(protocol, port) => {
            vec![words(&format!("INPUT -p {protocol} --dport {port} -m mac --mac-source {mac} -j DROP"))]
        }
        Strike::Longer(bytes, before) => {
            let address = address_of(mac, event, site)?;
            lost_after(&format!("OUTPUT -d {address} -m length --length {}:65535", bytes + 1), before)
        }
        Strike::After(bytes) => {
            let address = address_of(mac, event, site)?;
            lost_after(&format!("OUTPUT -d {address} -p tcp --sport 3000"), bytes)
        }
        Strike::Alien => {
            stranger::discover(site.other.door(), machine.mac.parse()?)?;
            return Ok(None);
        }
        Strike::Template(name) => {
            site.world.server.cli(&["assign", &machine.name, "--template", name, "--yes"])?;
            return Ok(None);
        }
        Strike::Pause => {
            machine.pause(true)?;
            return Ok(None);
        }
        Strike::Cable => {
            machine.cable(false)?;
            return Ok(None);
        }
        Strike::Hello => {
            let server: SocketAddr = format!("{SERVER}:3000").parse()?;
            stranger::hello(site.world.namespace.door(), server, mac, &site.world.directory)?;
            return Ok(None);
        }
        Strike::OtherDhcp => {
            let hex = mac.replace(':', "");
            vec![words(&format!("OUTPUT -p udp --sport 67 -m string --algo bm --hex-string |{hex}| -j DROP"))]
        }
        // These were there before the machine was switched on.
        Strike::Card(_) | Strike::SecureBoot | Strike::Clock(_) => return Ok(None),
    };
    for rule in &rules {
        filter(site.world.namespace.door(), "-I", rule)?;
    }
    Ok(Some(Rules(rules)))
}

/// These packets are lost when so many bytes of them have come through.
fn lost_after(packets: &str, bytes: u32) -> Vec<Vec<String>> {
    let lost = words(&format!("{packets} -j DROP"));
    match bytes {
        0 => vec![lost],
        bytes => vec![lost, words(&format!("{packets} -m quota --quota {bytes} -j ACCEPT"))],
    }
}

/// The address that the machine was given last.
fn address_of(mac: &str, event: Option<&Event>, site: &Site<'_>) -> Result<Ipv4Addr> {
    let first = |text: &str| text.split([',', ' ']).next().and_then(|word| word.parse().ok());
    if let Some(address) = event.and_then(|event| first(&event.message)) {
        return Ok(address);
    }
    let shown: Value = serde_json::from_str(&site.world.server.cli(&["timeline", mac, "-o", "json"])?)?;
    let items = shown["items"].as_array().context("a timeline without items")?;
    let given = items.iter().rev().find(|item| item["type"] == "dhcp.ack");
    given.and_then(|item| first(item["message"].as_str()?)).context("the machine was given no address")
}

/// Mends it.
pub(super) fn mend(case: &Case, machine: &Machine, rules: Option<&Rules>, site: &Site<'_>) -> Result<()> {
    for rule in rules.iter().flat_map(|Rules(rules)| rules) {
        filter(site.world.namespace.door(), "-D", rule)?;
    }
    match case.strike {
        Strike::OtherDhcp => {
            let rule = words(&format!("INPUT -p udp --dport 67 -m mac --mac-source {} -j DROP", machine.mac));
            filter(site.other.door(), "-I", &rule)
        }
        Strike::Pause => machine.pause(false),
        Strike::Cable => machine.cable(true),
        _ => Ok(()),
    }
}
