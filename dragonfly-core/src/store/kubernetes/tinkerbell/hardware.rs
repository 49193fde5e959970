//! A machine: its cards, its address, whether workflows may run on it, and its controller.
//!
//! Of several interfaces, the first that has a card says what ours says of the whole machine.

use serde_json::{Map, Value, json};

use super::{Unwritable, text};
use crate::Mac;
use crate::tinkerbell;

/// What both say: absent here is what theirs cannot say, and `None` is that it says nothing.
type Said = Vec<(&'static str, Option<Value>)>;

/// Our spec: what was kept of it, and what theirs says.
pub(super) fn show(theirs: &Value, kept: Option<Value>, controller: Option<&Value>) -> Value {
    let mut spec = kept.unwrap_or_else(|| json!({}));
    let Some(fields) = spec.as_object_mut() else { return spec };
    let said = said(theirs, controller);
    for (field, value) in said {
        if value == normal(field, fields) {
            continue;
        }
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
    }
    spec
}

/// Their spec with what ours says.
pub(super) fn put(ours: &Value, theirs: &Value, controller: Option<&Value>) -> Result<Value, Unwritable> {
    let none = Map::new();
    let fields = ours.as_object().unwrap_or(&none);
    let mut spec = theirs.as_object().cloned().unwrap_or_default();
    let macs = macs_of(fields);
    if macs != cards(theirs) {
        // Whatever booted before keeps its network: a card that is replaced stands in the same rack.
        let network = boot_interface(theirs).and_then(|index| theirs.pointer(&format!("/interfaces/{index}/dhcp/ip")));
        let agent = text(theirs, "/agentID").and_then(|agent| agent.parse::<Mac>().ok());
        if let Some(first) = macs.first().filter(|_| agent.is_none_or(|agent| !macs.contains(&agent))) {
            // One that is no address was chosen by somebody.
            if agent.is_some() || text(theirs, "/agentID").is_none() {
                spec.insert("agentID".to_owned(), json!(first));
            }
        }
        spec.insert("interfaces".to_owned(), interfaces(theirs, &macs, network));
    }
    let mut spec = Value::Object(spec);
    if let Some(index) = boot_interface(&spec)
        && let Some(interface) = spec.pointer_mut(&format!("/interfaces/{index}"))
    {
        one(interface, fields)?;
    }
    for (field, value) in said(&spec, controller) {
        if value == normal(field, fields) {
            continue;
        }
        let problem = match field {
            "bmc" => "is what the Machine of bmc.tinkerbell.org says that the Hardware refers to; change it there",
            _ => "cannot be written into Tinkerbell's Hardware; change it there",
        };
        return Err(Unwritable::new(format!("spec.{field}"), problem));
    }
    Ok(spec)
}

/// What theirs says of what ours has a field for.
fn said(theirs: &Value, controller: Option<&Value>) -> Said {
    let cards = cards(theirs);
    let mut said: Said = vec![("macs", (!cards.is_empty()).then(|| json!(cards)))];
    if let Some(index) = boot_interface(theirs) {
        let none = Value::Null;
        let interface = theirs.pointer(&format!("/interfaces/{index}")).unwrap_or(&none);
        let is = |pointer: &str| interface.pointer(pointer).and_then(Value::as_bool);
        said.push(("protected", (is("/netboot/allowWorkflow") == Some(false)).then_some(Value::Bool(true))));
        let address = text(interface, "/dhcp/ip/address").filter(|_| is("/disableDhcp") != Some(true));
        let reserved = address.and_then(|address| address.parse::<std::net::IpAddr>().ok());
        said.push(("dhcp", reserved.map(|address| reservation(address, text(interface, "/dhcp/hostname")))));
        match text(interface, "/netboot/ipxe/url") {
            None => said.push(("chain", None)),
            Some(url) => {
                if let Some(url) = chain(url) {
                    said.push(("chain", Some(url)));
                }
            }
        }
    }
    if let Some(controller) = controller {
        let is_uefi = theirs.pointer("/interfaces/0/dhcp/uefi").and_then(Value::as_bool);
        if let Some(bmc) = tinkerbell::controller(controller, is_uefi) {
            said.push(("bmc", serde_json::to_value(bmc).ok()));
        }
    }
    said
}

/// What ours says of the same, written alike.
fn normal(field: &str, ours: &Map<String, Value>) -> Option<Value> {
    let value = ours.get(field)?;
    match field {
        "macs" => Some(macs_of(ours)).filter(|macs| !macs.is_empty()).map(|macs| json!(macs)),
        "protected" => value.as_bool().filter(|is| *is).map(|is| json!(is)),
        "dhcp" => {
            let address = text(value, "/address").and_then(|address| address.parse().ok())?;
            Some(reservation(address, text(value, "/hostname")))
        }
        "chain" => value.as_str().and_then(chain),
        _ => Some(value.clone()),
    }
}

fn reservation(address: std::net::IpAddr, hostname: Option<&str>) -> Value {
    match hostname {
        Some(hostname) => json!({ "address": address, "hostname": hostname }),
        None => json!({ "address": address }),
    }
}

fn chain(text: &str) -> Option<Value> {
    let url = url::Url::parse(text).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https" | "tftp") && is_plain).then(|| json!(url))
}

fn macs_of(ours: &Map<String, Value>) -> Vec<Mac> {
    let macs = ours.get("macs").and_then(Value::as_array);
    distinct(macs.into_iter().flatten().filter_map(Value::as_str))
}

fn cards(theirs: &Value) -> Vec<Mac> {
    let interfaces = theirs.get("interfaces").and_then(Value::as_array);
    distinct(interfaces.into_iter().flatten().filter_map(|interface| text(interface, "/dhcp/mac")))
}

fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Mac> {
    let mut macs = Vec::new();
    for mac in texts.filter_map(|text| text.parse::<Mac>().ok()).filter(|mac| mac.is_unicast()) {
        if !macs.contains(&mac) {
            macs.push(mac);
        }
    }
    macs
}

fn card(interface: &Value) -> Option<Mac> {
    text(interface, "/dhcp/mac")?.parse().ok().filter(|mac: &Mac| mac.is_unicast())
}

/// The interface that says what ours says of the machine.
fn boot_interface(theirs: &Value) -> Option<usize> {
    theirs.get("interfaces")?.as_array()?.iter().position(|interface| card(interface).is_some())
}

/// Interfaces for these cards, in this order; those without a card stay, last.
fn interfaces(theirs: &Value, macs: &[Mac], network: Option<&Value>) -> Value {
    let before = theirs.get("interfaces").and_then(Value::as_array).cloned().unwrap_or_default();
    let of = |mac: &Mac| before.iter().find(|interface| card(interface) == Some(*mac)).cloned();
    let mut has_network = macs.iter().any(|mac| of(mac).is_some());
    let mut all = Vec::with_capacity(macs.len());
    for mac in macs {
        all.push(of(mac).unwrap_or_else(|| {
            let mut dhcp = json!({ "mac": mac });
            if let (Some(network), false) = (network, has_network) {
                dhcp["ip"] = network.clone();
                has_network = true;
            }
            json!({ "dhcp": dhcp, "netboot": { "allowPXE": true, "allowWorkflow": true } })
        }));
    }
    all.extend(before.into_iter().filter(|interface| card(interface).is_none()));
    all.into()
}

/// Writes what ours says of the machine into the interface that says it there.
fn one(interface: &mut Value, ours: &Map<String, Value>) -> Result<(), Unwritable> {
    let protected = normal("protected", ours).is_some();
    let was = interface.pointer("/netboot/allowWorkflow").and_then(Value::as_bool) == Some(false);
    if protected != was {
        within(interface, "netboot", |netboot| {
            netboot.insert("allowWorkflow".to_owned(), json!(!protected));
        });
    }
    let url = normal("chain", ours);
    let had = text(interface, "/netboot/ipxe/url").map(chain);
    match (url, had) {
        (Some(url), had) if had != Some(Some(url.clone())) => within(interface, "netboot", |netboot| {
            let mut ipxe = netboot.remove("ipxe").and_then(|ipxe| ipxe.as_object().cloned()).unwrap_or_default();
            ipxe.insert("url".to_owned(), url);
            netboot.insert("ipxe".to_owned(), ipxe.into());
        }),
        (None, Some(Some(_))) => {
            if let Some(ipxe) = interface.pointer_mut("/netboot/ipxe").and_then(Value::as_object_mut) {
                ipxe.remove("url");
            }
        }
        _ => {}
    }
    address(interface, normal("dhcp", ours))
}

fn address(interface: &mut Value, wanted: Option<Value>) -> Result<(), Unwritable> {
    let stored = text(interface, "/dhcp/ip/address").and_then(|text| text.parse::<std::net::IpAddr>().ok());
    let Some(wanted) = wanted else {
        // Its hostname stays: it is given without an address too.
        if let Some(dhcp) = interface.pointer_mut("/dhcp").and_then(Value::as_object_mut).filter(|_| stored.is_some()) {
            dhcp.remove("ip");
        }
        return Ok(());
    };
    let address = text(&wanted, "/address").and_then(|text| text.parse().ok());
    if address != stored && text(interface, "/dhcp/ip/netmask").is_none() {
        let problem = "Tinkerbell gives an address with its netmask and gateway, which a machine here does not have: write \
                       all three into the Hardware with kubectl; the address can then be changed here";
        return Err(Unwritable::new("spec.dhcp", problem));
    }
    if let Some(disabled) = interface.get_mut("disableDhcp").filter(|disabled| disabled.as_bool() == Some(true)) {
        *disabled = json!(false);
    }
    within(interface, "dhcp", |dhcp| {
        match text(&wanted, "/hostname") {
            Some(hostname) => dhcp.insert("hostname".to_owned(), json!(hostname)),
            None => dhcp.remove("hostname"),
        };
        // Written otherwise, it is the same.
        if let Some(ip) = dhcp.get_mut("ip").and_then(Value::as_object_mut).filter(|_| address != stored) {
            ip.insert("address".to_owned(), json!(address));
        }
    });
    Ok(())
}

/// Changes a map within an interface.
fn within(interface: &mut Value, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let Some(fields) = interface.as_object_mut() else { return };
    let mut part = fields.remove(name).and_then(|part| part.as_object().cloned()).unwrap_or_default();
    change(&mut part);
    fields.insert(name.to_owned(), part.into());
}
