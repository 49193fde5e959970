//! What a value must be beyond its type.

use std::collections::BTreeSet;

use crate::resource::network::DhcpMode;
use crate::resource::{HardwareSpec, NetworkSpec, SecretSpec, TemplateSpec};
use crate::text::shown_url;

type Problems = Vec<(String, String)>;

pub(super) fn hardware(spec: &HardwareSpec) -> Problems {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, mac) in spec.macs.iter().enumerate() {
        if !mac.is_unicast() {
            problems.push((format!("macs[{index}]"), format!("{mac} is not the address of one card")));
        }
        if !seen.insert(mac) {
            problems.push((format!("macs[{index}]"), format!("{mac} stands here twice")));
        }
    }
    if let Some(bmc) = &spec.bmc
        && (bmc.address.password().is_some() || !bmc.address.username().is_empty())
    {
        problems.push((
            "bmc.address".to_owned(),
            "a password does not belong here; put user and password in a Secret and name it in bmc.secretRef"
                .to_owned(),
        ));
    }
    if spec
        .serial
        .as_ref()
        .is_some_and(|serial| serial.trim().is_empty() || serial.trim() != serial || serial.len() > 128)
    {
        problems.push((
            "serial".to_owned(),
            "write 1 to 128 bytes, without blanks around them, or leave this out".to_owned(),
        ));
    }
    if spec.hold.as_ref().is_some_and(|why| why.trim().is_empty()) {
        problems.push(("hold".to_owned(), "say why it is held, or leave this out".to_owned()));
    }
    if let Some(console) = &spec.console
        && !console.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b',' | b'/'))
    {
        problems.push(("console".to_owned(), "write it as in ttyS0,115200".to_owned()));
    }
    if let Some(chain) = &spec.chain
        && !matches!(chain.scheme(), "http" | "https" | "tftp")
    {
        let problem = format!(
            "`{}`: iPXE fetches by http, https or tftp; write http://..., https://... or tftp://...",
            shown_url(chain.as_str())
        );
        problems.push(("chain".to_owned(), problem));
    }
    problems
}

pub(super) fn template(spec: &TemplateSpec) -> Problems {
    let mut problems = Vec::new();
    if spec.actions.is_empty() {
        problems.push(("actions".to_owned(), "a template needs at least one action".to_owned()));
    }
    let mut seen = BTreeSet::new();
    for (index, action) in spec.actions.iter().enumerate() {
        if action.name.trim().is_empty() || action.name.len() > 100 {
            problems.push((format!("actions[{index}].name"), "a name needs 1 to 100 characters".to_owned()));
        }
        if !seen.insert(&action.name) {
            problems.push((format!("actions[{index}].name"), format!("`{}` stands here twice", action.name)));
        }
        if !action.with.is_object() {
            problems.push((format!("actions[{index}].with"), "write the parameters as `name: value`".to_owned()));
        }
        if action.timeout_seconds == Some(0) {
            problems.push((format!("actions[{index}].timeoutSeconds"), "a step needs at least one second".to_owned()));
        }
    }
    problems
}

pub(super) fn network(spec: &NetworkSpec) -> Problems {
    let mut problems = Vec::new();
    let mut say = |path: &str, problem: String| problems.push((path.to_owned(), problem));
    let inside = |address: &std::net::Ipv4Addr| spec.subnet.contains(address);
    if spec.interface.is_empty() || spec.interface.len() > 15 || spec.interface.contains(['/', ' ']) {
        say("interface", "write a network interface's name, as eth0".to_owned());
    }
    if spec.subnet.addr() != spec.subnet.network() {
        say("subnet", format!("this is an address, not a network; write {}", spec.subnet.trunc()));
    }
    if let Some(pool) = spec.pool {
        for (end, address) in [("start", pool.start), ("end", pool.end)] {
            if !inside(&address) {
                say(&format!("pool.{end}"), format!("{address} is outside {}", spec.subnet));
            } else if address == spec.subnet.network() || address == spec.subnet.broadcast() {
                say(&format!("pool.{end}"), format!("{address} is the network's or the broadcast address"));
            }
        }
        if pool.end < pool.start {
            say("pool.end", format!("the pool ends ({}) before it starts ({})", pool.end, pool.start));
        }
    }
    if spec.pool.is_none() && (spec.dhcp == DhcpMode::Full || spec.allow_full) {
        say("pool", "handing out addresses needs a pool: pool: { start: ..., end: ... }".to_owned());
    }
    if let Some(router) = spec.router
        && !inside(&router)
    {
        say("router", format!("{router} is outside {}", spec.subnet));
    }
    if !(60..=31_536_000).contains(&spec.lease_seconds) {
        say("leaseSeconds", "a lease lasts from 60 seconds to a year".to_owned());
    }
    problems
}

pub(super) fn secret(spec: &SecretSpec) -> Problems {
    let mut problems = Vec::new();
    if !spec.sealed.is_empty() {
        problems.push(("sealed".to_owned(), "sealed values cannot be given; write them plain under data".to_owned()));
    }
    for key in spec.data.keys() {
        let fits = !key.is_empty()
            && key.len() <= 100
            && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
        if !fits {
            problems.push(("data".to_owned(), "a key needs 1 to 100 of A-Z a-z 0-9 - _ .".to_owned()));
        }
    }
    problems
}
