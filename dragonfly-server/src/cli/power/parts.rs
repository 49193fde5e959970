//! What machines boot from, and what their controllers know of their parts.

use anyhow::bail;
use dragonfly_core::inventory::{Difference, Inventory};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::args::{Device, Machines, MediaCommand, Mode};
use super::{each, judge, list, meant, path, some_failed, written};
use crate::cli::args::Format;
use crate::cli::client::{Call, Client};
use crate::cli::objects::text;
use crate::cli::output::Out;
use crate::cli::verbs::about;
use crate::view;

/// What machines are to boot from.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) set: Option<Device>,
    pub(super) uri: Option<Url>,
    pub(super) persistent: bool,
    pub(super) mode: Option<Mode>,
}

/// Refused here, so that what should not have been typed goes nowhere.
fn without_login(image: &Url) -> anyhow::Result<&Url> {
    if !image.username().is_empty() || image.password().is_some() {
        bail!("user and password do not belong into an address; serve the image where none are needed");
    }
    Ok(image)
}

impl Boot {
    /// What is asked of the server for each machine: how, which of its routes, and the body.
    fn call(&self) -> anyhow::Result<(Call, &'static str, Option<Value>)> {
        let device = match (self.set, &self.uri) {
            (Some(Device::Http), Some(uri)) => {
                if self.persistent || self.mode == Some(Mode::Legacy) {
                    bail!("--set http is for the next boot and by UEFI; leave --persistent and --mode out");
                }
                return Ok((Call::Put, "http-boot", Some(json!({ "uri": without_login(uri)? }))));
            }
            (Some(Device::Http), None) => bail!("--set http needs --uri: where the boot program or image is"),
            (_, Some(_)) => bail!("--uri belongs to --set http"),
            (None, None) => return Ok((Call::Get, "boot-device", None)),
            (Some(device), None) => device.word(),
        };
        let Some(device) = device else { return Ok((Call::Delete, "boot-device", None)) };
        let mut body = json!({ "device": device, "persistent": self.persistent });
        if let (Some(mode), Some(body)) = (self.mode, body.as_object_mut()) {
            body.insert("mode".to_owned(), mode.word().into());
        }
        Ok((Call::Put, "boot-device", Some(body)))
    }
}

pub(super) async fn boot_device(
    client: &Client,
    out: &Out,
    which: Machines,
    wish: Boot,
    format: Format,
) -> anyhow::Result<()> {
    let (call, route, body) = wish.call()?;
    let machines = meant(client, which).await?;
    let done = judge(each(client, &machines, call, &[route], body.as_ref()).await)?;
    written(out, format, &["MACHINE", "BOOTS", "HOW LONG", "MODE"], &done, boots)?;
    some_failed(machines.len(), done.len())
}

/// What a machine boots from, how long, and in which mode.
fn boots(value: &Value) -> Vec<String> {
    let cells = |all: [&str; 3]| all.map(ToOwned::to_owned).to_vec();
    let uri = text(value, "/uri");
    if !uri.is_empty() {
        return cells([uri, "next boot", "uefi"]);
    }
    let Some(boot) = value.get("boot").filter(|boot| !boot.is_null()) else {
        return cells(["as its firmware likes", "", ""]);
    };
    let persistent = boot.get("persistent").and_then(Value::as_bool).unwrap_or(false);
    cells([text(boot, "/device"), if persistent { "every boot" } else { "next boot" }, text(boot, "/mode")])
}

pub(super) async fn media(
    client: &Client,
    out: &Out,
    machine: &str,
    command: Option<MediaCommand>,
    format: Format,
) -> anyhow::Result<()> {
    let (call, body) = match &command {
        None => (Call::Get, None),
        Some(MediaCommand::Insert { image }) => (Call::Put, Some(json!({ "image": without_login(image)? }))),
        Some(MediaCommand::Eject) => (Call::Delete, None),
    };
    let machines = [machine.to_owned()];
    let done = judge(each(client, &machines, call, &["bmc", "media"], body.as_ref()).await)?;
    written(out, format, &["MACHINE", "IMAGE"], &done, |value| {
        let image = text(value, "/image");
        vec![if image.is_empty() { "none, its drive is empty".to_owned() } else { image.to_owned() }]
    })
}

#[derive(Debug, Deserialize)]
struct Hardware {
    inventory: Inventory,
    #[serde(default)]
    differences: Vec<Difference>,
}

pub(super) async fn inventory(client: &Client, out: &Out, machine: &str, format: Format) -> anyhow::Result<()> {
    let found = client.slow(Call::Get, &path(machine, &["bmc", "inventory"]), None).await;
    let found = found.map_err(|error| about(machine, error))?;
    match format {
        Format::Json => out.json(&found)?,
        Format::Yaml => out.yaml(&found)?,
        Format::Name => out.line(machine)?,
        Format::Table | Format::Wide => {
            let hardware: Hardware = serde_json::from_value(found)?;
            out.table(&["PART", "NAME", "WHAT", "SERIAL"], &rows(&hardware.inventory))?;
            for difference in &hardware.differences {
                out.line(&told(difference))?;
            }
        }
    }
    Ok(())
}

/// Where the agent saw something else, as a line.
fn told(difference: &Difference) -> String {
    let Difference { what, controller, agent } = difference;
    match (controller, agent) {
        (Some(controller), Some(agent)) => {
            format!("differs: {what}: the controller says {controller}, the agent saw {agent}")
        }
        (Some(controller), None) => format!("differs: {what}: the agent did not see {controller}"),
        (None, agent) => {
            let agent = agent.as_deref().unwrap_or_default();
            format!("differs: {what}: the agent saw {agent}, which the controller does not know")
        }
    }
}

/// Words of those that there are.
fn words(parts: &[Option<String>]) -> String {
    parts.iter().flatten().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", ")
}

fn counted(count: Option<u32>, word: &str) -> Option<String> {
    count.map(|count| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
}

fn rows(hardware: &Inventory) -> Vec<Vec<String>> {
    let Inventory { system, cpu, memory, disks, nics, .. } = hardware;
    let mut rows = Vec::new();
    let mut row = |part: &str, name: &str, what: String, serial: &Option<String>| {
        // A controller that tells nothing of a part has no line for it.
        if !what.is_empty() || serial.is_some() {
            rows.push(vec![part.to_owned(), name.to_owned(), what, serial.clone().unwrap_or_default()]);
        }
    };
    let bios = system.bios.as_ref().map(|bios| format!("firmware {bios}"));
    row("system", "", words(&[system.vendor.clone(), system.product.clone(), bios]), &system.serial);
    let counts = [counted(cpu.sockets, "socket"), counted(cpu.cores, "core"), counted(cpu.threads, "thread")];
    row("cpu", "", words(&[vec![cpu.model.clone()], counts.to_vec()].concat()), &None);
    row("memory", "", memory.total.map(|total| view::bytes(total.0)).unwrap_or_default(), &None);
    for module in &memory.modules {
        let speed = module.speed_mts.map(|speed| format!("{speed} MT/s"));
        let what = [Some(view::bytes(module.size.0)), speed, module.manufacturer.clone(), module.part_number.clone()];
        row("module", &module.locator, words(&what), &module.serial);
    }
    for disk in disks {
        let kind = disk.rotational.map(|turns| if turns { "HDD" } else { "SSD" }.to_owned());
        let wear = disk.wear_percent.map(|wear| format!("{wear}% worn"));
        let what = [Some(view::disk_size(disk.size.0)), disk.bus.clone(), kind, disk.model.clone(), wear];
        row("disk", &disk.name, words(&what), &disk.serial);
    }
    for nic in nics {
        let link = nic.link.map(|up| if up { "up" } else { "down" }.to_owned());
        let speed = nic.speed.map(|speed| format!("{} Mb/s", speed.0));
        row("card", &nic.name, words(&[Some(nic.mac.to_string()), link, speed]), &None);
    }
    rows
}

pub(super) async fn firmware(client: &Client, out: &Out, machine: &str, format: Format) -> anyhow::Result<()> {
    let found = client.slow(Call::Get, &path(machine, &["bmc", "firmware"]), None).await;
    let found = found.map_err(|error| about(machine, error))?;
    list(out, format, &found, &["PART", "VERSION", "UPDATEABLE"], |part| {
        let updateable = match part.get("updateable").and_then(Value::as_bool) {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        vec![text(part, "/name").to_owned(), text(part, "/version").to_owned(), updateable.to_owned()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(set: Option<Device>, uri: Option<&str>) -> Boot {
        Boot { set, uri: uri.map(|uri| uri.parse().unwrap()), persistent: false, mode: None }
    }

    #[test]
    fn what_is_asked_for_a_boot() {
        let asked = |boot: Boot| match boot.call() {
            Ok((call, route, body)) => format!("{call:?} {route} {}", body.unwrap_or_default()),
            Err(error) => error.to_string(),
        };
        let image = "http://h/boot.efi";
        assert_eq!(asked(boot(None, None)), "Get boot-device null");
        assert_eq!(asked(boot(Some(Device::None), None)), "Delete boot-device null");
        assert_eq!(asked(boot(Some(Device::Pxe), None)), r#"Put boot-device {"device":"pxe","persistent":false}"#);
        assert_eq!(asked(boot(Some(Device::Http), Some(image))), r#"Put http-boot {"uri":"http://h/boot.efi"}"#);
        assert!(asked(boot(Some(Device::Http), None)).contains("needs --uri"));
        assert!(asked(boot(Some(Device::Disk), Some(image))).contains("belongs to --set http"));
        let always = Boot { persistent: true, ..boot(Some(Device::Http), Some(image)) };
        assert!(asked(always).contains("leave --persistent and --mode out"));
        let error = asked(boot(Some(Device::Http), Some("http://root:hunter2@h/boot.efi")));
        assert!(error.contains("do not belong into an address") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_difference_is_a_sentence() {
        let of = |controller: Option<&str>, agent: Option<&str>| {
            let word = |word: Option<&str>| word.map(ToOwned::to_owned);
            told(&Difference { what: "disk".to_owned(), controller: word(controller), agent: word(agent) })
        };
        assert_eq!(of(Some("D1"), None), "differs: disk: the agent did not see D1");
        assert_eq!(of(None, Some("D2")), "differs: disk: the agent saw D2, which the controller does not know");
        assert_eq!(of(Some("1"), Some("2")), "differs: disk: the controller says 1, the agent saw 2");
    }
}
