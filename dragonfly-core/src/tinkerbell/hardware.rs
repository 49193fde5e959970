//! Tinkerbell's Hardware.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::bmc::Controllers;
use super::fields::Fields;
use super::network::Told;
use super::read::Document;
use super::secret::{Secrets, labels};
use super::{Note, Outcome, known, read};
use crate::Mac;
use crate::power::BootMode;
use crate::resource::hardware::Reservation;
use crate::resource::{Hardware, HardwareSpec, Record};

/// A machine of ours, with what templates and networks need of it.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) object: Hardware,
    pub(super) namespace: String,
    /// The agent's id, by which a worker is named; a MAC unless told.
    pub(super) agent: String,
    /// What its manifest says of its network.
    pub(super) told: Option<Told>,
    /// The manifest.
    pub(super) manifest: Value,
}

impl Machine {
    /// Whether a template's worker is this machine.
    pub(super) fn is(&self, worker: &str) -> bool {
        let mac = worker.parse::<Mac>().ok();
        !worker.is_empty()
            && (worker.eq_ignore_ascii_case(&self.agent) || mac.is_some_and(|mac| self.object.spec.macs.contains(&mac)))
    }
}

pub(super) fn convert(
    document: &Document,
    all: &[Document],
    controllers: &Controllers<'_>,
    secrets: &Secrets<'_>,
    notes: &mut Vec<Note>,
) -> Option<Machine> {
    let first = all.iter().find(|other| other.is("Hardware") && other.name == document.name);
    if first.is_some_and(|first| !std::ptr::eq(first, document)) {
        let said = "a Hardware of this name stands before it; there are no namespaces here";
        notes.push(document.note("metadata.name", Outcome::Refused, said));
        return None;
    }
    let mut fields = Fields::new(document);
    let mut spec = HardwareSpec::default();
    let (mut names, annotations) = labels(&mut fields);
    let mut told = None;
    let mut is_uefi = None;
    for index in 0..fields.length("/spec/interfaces") {
        interface(document, &mut fields, index, &mut spec, &mut told, &mut is_uefi, notes)?;
    }
    if spec.macs.is_empty() {
        let said = "has no interface with a MAC, so the machine could not be known when it comes";
        notes.push(document.note("spec.interfaces", Outcome::Refused, said));
        return None;
    }
    hostname(document, &mut fields, &spec, notes);
    for (pointer, label) in [
        ("/spec/metadata/facility/facility_code", "facility"),
        ("/spec/metadata/manufacturer/slug", "manufacturer"),
        ("/spec/metadata/facility/plan_slug", "plan"),
    ] {
        if let Some(value) = document.text(pointer).filter(|value| is_label(value)) {
            names.entry(label.to_owned()).or_insert_with(|| value.to_owned());
            fields.take(pointer);
        }
    }
    if let Some(reference) = fields.take("/spec/bmcRef") {
        let name = reference.get("name").and_then(Value::as_str).unwrap_or_default();
        spec.bmc = controllers.convert(name, document, secrets, is_uefi, notes);
    }
    let agent = document.text("/spec/agentID").map(str::to_owned);
    if agent.as_deref().is_some_and(|agent| agent.parse().is_ok_and(|mac: Mac| spec.macs.contains(&mac))) {
        fields.take("/spec/agentID");
    }
    fields.tell_rest(&known::hardware(), notes);
    let agent = agent.or(spec.macs.first().map(ToString::to_string)).unwrap_or_default();
    let mut object = Hardware::new(document.name.clone(), spec);
    (object.metadata.labels, object.metadata.annotations) = (names, annotations);
    read::is_taken(document, Record::from(&object).to_json(), notes).then_some(())?;
    let (namespace, manifest) = (document.namespace.clone(), document.value.clone());
    Some(Machine { object, namespace, agent, told, manifest })
}

/// One interface. `None`: the machine cannot be made.
fn interface(
    document: &Document,
    fields: &mut Fields<'_>,
    index: usize,
    spec: &mut HardwareSpec,
    told: &mut Option<Told>,
    is_uefi: &mut Option<bool>,
    notes: &mut Vec<Note>,
) -> Option<()> {
    let at = |field: &str| format!("/spec/interfaces/{index}/{field}");
    let path = |field: &str| format!("spec.interfaces[{index}].{field}");
    let mut note = |field: &str, outcome, said: String| notes.push(document.note(&path(field), outcome, said));
    if let Some(text) = fields.take_text(&at("dhcp/mac")) {
        match text.parse::<Mac>() {
            Ok(mac) if !mac.is_unicast() => {
                note("dhcp.mac", Outcome::Refused, format!("{mac} is not the address of one card"));
                return None;
            }
            Ok(mac) if spec.macs.contains(&mac) => {
                note("dhcp.mac", Outcome::Changed, format!("{mac} stands here twice"))
            }
            Ok(mac) => spec.macs.push(mac),
            Err(error) => {
                note("dhcp.mac", Outcome::Refused, unfilled(&text).unwrap_or_else(|| error.to_string()));
                return None;
            }
        }
    }
    if is_uefi.is_none() {
        *is_uefi = document.value.pointer(&at("dhcp/uefi")).and_then(Value::as_bool);
    }
    if fields.take_bool(&at("disableDhcp")) == Some(true) {
        note(
            "disableDhcp",
            Outcome::Changed,
            "the address is not reserved, so DHCP gives it none of its own".to_owned(),
        );
    } else if told.is_none()
        && let Some(text) = document.text(&at("dhcp/ip/address")).map(str::to_owned)
    {
        match text.parse::<IpAddr>() {
            Ok(address) => {
                fields.take(&at("dhcp/ip/address"));
                fields.take(&at("dhcp/ip/family"));
                let hostname = fields.take_text(&at("dhcp/hostname"));
                spec.dhcp = Some(Reservation { address, hostname });
                *told = Told::take(document, fields, index, address, notes);
            }
            Err(_) => {
                let said = unfilled(&text).unwrap_or_else(|| format!("`{text}` is not an address"));
                note("dhcp.ip.address", Outcome::Refused, said);
                return None;
            }
        }
    }
    netboot(document, fields, index, spec, notes);
    Some(())
}

fn netboot(document: &Document, fields: &mut Fields<'_>, index: usize, spec: &mut HardwareSpec, notes: &mut Vec<Note>) {
    let at = |field: &str| format!("/spec/interfaces/{index}/netboot/{field}");
    let path = |field: &str| format!("spec.interfaces[{index}].netboot.{field}");
    let mut note = |field: &str, outcome, said: &str| notes.push(document.note(&path(field), outcome, said));
    match fields.take_bool(&at("allowPXE")) {
        Some(false) if index == 0 => {
            let said = "a machine that carries a system boots from its disk here, and one that has an assignment from the \
                        network; `dragonfly hold` keeps it from both";
            note("allowPXE", Outcome::Changed, said);
        }
        Some(false) => note("allowPXE", Outcome::Lost, "machines are let boot, not single cards"),
        _ => {}
    }
    match fields.take_bool(&at("allowWorkflow")) {
        Some(false) if index == 0 => {
            spec.protected = true;
            note("allowWorkflow", Outcome::Changed, "the machine is protected: assign and reimage are refused");
        }
        Some(false) => note("allowWorkflow", Outcome::Lost, "machines are protected, not single cards"),
        _ => {}
    }
    let Some(text) = document.text(&at("ipxe/url")).map(str::to_owned) else { return };
    fields.take(&at("ipxe/url"));
    match url::Url::parse(&text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https" | "tftp") => {
            note("ipxe.url", Outcome::Lost, "iPXE fetches by http, https or tftp");
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            note("ipxe.url", Outcome::Lost, "a password does not belong in an URL");
        }
        Ok(url) if spec.chain.is_none() => {
            spec.chain = Some(url);
            note(
                "ipxe.url",
                Outcome::Changed,
                "becomes `spec.chain`: as long as it is set, the machine boots this script and nothing else",
            );
        }
        Ok(_) => note("ipxe.url", Outcome::Lost, "a machine boots one script"),
        Err(_) => note("ipxe.url", Outcome::Lost, "is not an URL"),
    }
}

/// The name in the metadata: the same as that of DHCP, or told of.
fn hostname(document: &Document, fields: &mut Fields<'_>, spec: &HardwareSpec, notes: &mut Vec<Note>) {
    let Some(name) = fields.take_text("/spec/metadata/instance/hostname") else { return };
    let reserved = spec.dhcp.as_ref().and_then(|dhcp| dhcp.hostname.as_deref());
    if reserved != Some(name.as_str()) && name != document.name {
        let said = format!("the machine's name is that of its interface, `{}`", reserved.unwrap_or(&document.name));
        notes.push(document.note("spec.metadata.instance.hostname", Outcome::Lost, said));
    }
}

/// A shell's variable that somebody meant to fill in.
pub(super) fn unfilled(text: &str) -> Option<String> {
    text.contains('$')
        .then(|| format!("`{text}` is a variable that was not filled in; run the file through envsubst first"))
}

/// A label's value, as Kubernetes wants it.
fn is_label(value: &str) -> bool {
    value.len() <= 63
        && value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value.ends_with(|c: char| c.is_ascii_alphanumeric())
        && value.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// What a template sees as `.Hardware`.
pub(super) fn seen_by_templates(manifest: &Value) -> Value {
    let spec = manifest.get("spec").cloned().unwrap_or_default();
    let part = |name: &str| spec.get(name).cloned();
    let disks = spec.get("disks").and_then(Value::as_array).into_iter().flatten();
    let disks: Vec<&Value> = disks.filter_map(|disk| disk.get("device")).collect();
    json!({
        "disks": disks,
        "interfaces": part("interfaces").unwrap_or_else(|| json!([])),
        "metadata": part("metadata").unwrap_or_else(|| json!({})),
        "userdata": part("userData").unwrap_or_else(|| json!("")),
        "vendordata": part("vendorData").unwrap_or_else(|| json!("")),
    })
}

/// How a controller is told to have its machine boot.
pub(super) fn boot_mode(is_uefi: Option<bool>) -> Option<BootMode> {
    is_uefi.map(|is_uefi| if is_uefi { BootMode::Uefi } else { BootMode::Legacy })
}
