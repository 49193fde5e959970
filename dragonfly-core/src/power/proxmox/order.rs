//! What a VM boots from: which settings to write for a wish, decided from its configuration alone.
//!
//! Proxmox knows a boot order that holds at every start (`boot: order=net0;scsi0`) and nothing for the next start
//! only. So an override moves the devices of a kind to the front, and the order that was there before is written
//! into the VM's description, into a line that its Markdown view does not show. Where the order is no longer the one
//! that we wrote, somebody else has decided, and it is left alone.

use super::config::{Kind, VmConfig};
use crate::power::{BootDevice, BootMode, BootOverride, PowerError, Result};

const BEGIN: &str = "<!-- dragonfly-boot ";
const END: &str = " -->";
/// The longest description (API: `description`, maxLength).
const LONGEST: usize = 8192;

/// Parameters of `PUT /nodes/{node}/qemu/{vmid}/config`.
pub(super) type Settings = Vec<(&'static str, String)>;

/// What the description remembers of an override.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Memory {
    /// The order that we wrote.
    set: Vec<String>,
    /// `boot` and `bootdisk` as they were.
    boot: Option<String>,
    bootdisk: Option<String>,
}

impl Memory {
    fn read(config: &VmConfig) -> Option<Self> {
        let line = config.get("description")?.lines().find(|line| line.starts_with(BEGIN))?;
        let fields = line.trim_end().strip_prefix(BEGIN)?.strip_suffix(END)?;
        let field = |name: &str| {
            let value = fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))?;
            // Nothing is written back that could not have stood there.
            let known = value.chars().all(|c| c.is_ascii_alphanumeric() || "=;,".contains(c));
            (known && !value.is_empty()).then(|| value.to_owned())
        };
        Some(Self { set: list(&field("set")?), boot: field("boot"), bootdisk: field("bootdisk") })
    }

    fn line(&self) -> String {
        let before = [("boot", &self.boot), ("bootdisk", &self.bootdisk)];
        let before = before.iter().filter_map(|(name, value)| Some(format!(" {name}={}", value.as_ref()?)));
        format!("{BEGIN}set={}{}{END}", self.set.join(";"), before.collect::<String>())
    }

    /// Whether the order is still the one that we wrote: Proxmox itself takes out devices that are removed and adds
    /// new CD drives at the end, and a person moves them.
    fn holds(&self, now: &[String]) -> bool {
        let common = |of: &[String], other: &[String]| -> Vec<String> {
            of.iter().filter(|device| other.contains(device)).cloned().collect()
        };
        let ours = common(&self.set, now);
        !ours.is_empty() && now.starts_with(&ours)
    }
}

/// `scsi0;net0`, with every separator that Proxmox takes, each device once.
fn list(text: &str) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for part in text.split([';', ',', ' ']).map(str::trim).filter(|part| !part.is_empty()) {
        if !list.iter().any(|there| there == part) {
            list.push(part.to_owned());
        }
    }
    list
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// A `boot` setting in the one way in which it is remembered: `order=scsi0;net0` or `cdn`.
fn plain(boot: &str) -> Option<String> {
    if let Some((_, order)) = boot.split_once("order=") {
        let order = list(order.split(',').next().unwrap_or_default());
        return Some(format!("order={}", order.into_iter().filter(|name| is_name(name)).collect::<Vec<_>>().join(";")));
    }
    let (prefix, given) = boot.strip_prefix("legacy=").map_or(("", boot), |given| ("legacy=", given));
    // In their order, each once.
    let mut letters: Vec<char> = "acdn".chars().filter(|letter| given.contains(*letter)).collect();
    letters.sort_by_key(|letter| given.find(*letter));
    (!letters.is_empty()).then(|| format!("{prefix}{}", letters.iter().collect::<String>()))
}

/// The devices in the order in which they are booted, by a `boot` and a `bootdisk` setting.
fn order(config: &VmConfig, boot: Option<&str>, bootdisk: Option<&str>) -> Vec<String> {
    let boot = boot.unwrap_or_default();
    if let Some((_, order)) = boot.split_once("order=") {
        // Commas separate properties here.
        return list(order.split(',').next().unwrap_or_default());
    }
    let letters = plain(boot).unwrap_or_else(|| "cdn".to_owned());
    let mut all = Vec::new();
    for letter in letters.trim_start_matches("legacy=").chars() {
        match letter {
            'c' => {
                let disks = config.devices(Kind::Disk);
                let named = bootdisk.filter(|disk| disks.iter().any(|there| there == disk));
                all.extend(named.map(ToOwned::to_owned).or_else(|| disks.into_iter().next()));
            }
            'd' => all.extend(config.devices(Kind::Cdrom)),
            'n' => all.extend(config.devices(Kind::Net)),
            // Floppies are gone.
            _ => {}
        }
    }
    all
}

fn order_now(config: &VmConfig) -> Vec<String> {
    order(config, config.get("boot"), config.get("bootdisk"))
}

/// What is set: our override, if it is still there.
pub(super) fn in_force(config: &VmConfig) -> Option<BootOverride> {
    let now = order_now(config);
    Memory::read(config).filter(|memory| memory.holds(&now))?;
    let device = match config.kind(now.first()?)? {
        Kind::Net => BootDevice::Pxe,
        Kind::Disk => BootDevice::Disk,
        Kind::Cdrom => BootDevice::Cdrom,
    };
    Some(BootOverride { device, persistent: true, mode: Some(mode(config)) })
}

fn mode(config: &VmConfig) -> BootMode {
    if config.is_uefi() { BootMode::Uefi } else { BootMode::Legacy }
}

/// What to write for a wish; `None` when all of it is there already.
pub(super) fn plan(config: &VmConfig, wish: Option<BootOverride>) -> Result<Option<Settings>> {
    match wish {
        Some(wish) => set(config, wish),
        None => Ok(take_back(config)),
    }
}

fn set(config: &VmConfig, wish: BootOverride) -> Result<Option<Settings>> {
    let refused = |reason: String| PowerError::Refused { what: format!("boot from {}", wish.device), reason };
    let (kind, name) = match wish.device {
        BootDevice::Pxe => (Kind::Net, "network card"),
        BootDevice::Disk => (Kind::Disk, "disk"),
        BootDevice::Cdrom => (Kind::Cdrom, "CD drive"),
        BootDevice::Bios => {
            return Err(refused("Proxmox cannot be asked for the firmware's setup pages".to_owned()));
        }
    };
    if let Some(wanted) = wish.mode.filter(|wanted| *wanted != mode(config)) {
        let (is, setting) = match wanted {
            BootMode::Uefi => ("SeaBIOS, which boots legacy", "ovmf"),
            BootMode::Legacy => ("OVMF, which boots UEFI", "seabios"),
        };
        return Err(refused(format!("the VM's firmware is {is}; set its `bios` to {setting}")));
    }
    let now = order_now(config);
    let memory = Memory::read(config).filter(|memory| memory.holds(&now));
    let (boot, bootdisk) = match &memory {
        Some(memory) => (memory.boot.clone(), memory.bootdisk.clone()),
        None => {
            (config.get("boot").and_then(plain), config.get("bootdisk").filter(|disk| is_name(disk)).map(Into::into))
        }
    };
    let before: Vec<String> = order(config, boot.as_deref(), bootdisk.as_deref());
    let (mut first, rest): (Vec<_>, Vec<_>) =
        before.into_iter().filter(|device| config.get(device).is_some()).partition(|d| config.kind(d) == Some(kind));
    if first.is_empty() {
        first = config.devices(kind);
    }
    if first.is_empty() {
        return Err(refused(format!("the VM has no {name}")));
    }
    let set: Vec<String> = first.into_iter().chain(rest).collect();
    if memory.is_some_and(|memory| memory.set == set) && now == set {
        return Ok(None);
    }
    let order = format!("order={}", set.join(";"));
    let description = described(config, Some(&Memory { set, boot, bootdisk }));
    if description.chars().count() > LONGEST {
        return Err(refused("the VM's description has no room for the boot order that there was".to_owned()));
    }
    let mut settings = vec![("boot", order), ("description", description)];
    settings.extend(config.get("digest").map(|digest| ("digest", digest.to_owned())));
    Ok(Some(settings))
}

/// Puts back what was there before us, without what has gone since and with what has come.
fn take_back(config: &VmConfig) -> Option<Settings> {
    let memory = Memory::read(config)?;
    let now = order_now(config);
    let (mut settings, mut delete) = (Settings::new(), Vec::new());
    if memory.holds(&now) {
        match &memory.boot {
            Some(boot) if boot.contains("order=") => {
                let mut before = order(config, Some(boot), None);
                before.retain(|device| config.get(device).is_some());
                let new = now.into_iter().filter(|device| !before.contains(device) && !memory.set.contains(device));
                let all: Vec<_> = before.iter().cloned().chain(new).collect();
                settings.push(("boot", format!("order={}", all.join(";"))));
            }
            Some(boot) => settings.push(("boot", boot.clone())),
            None => delete.push("boot"),
        }
        settings.extend(memory.bootdisk.clone().map(|disk| ("bootdisk", disk)));
    }
    match described(config, None) {
        text if text.trim().is_empty() => delete.push("description"),
        text => settings.push(("description", text)),
    }
    if !delete.is_empty() {
        settings.push(("delete", delete.join(",")));
    }
    settings.extend(config.get("digest").map(|digest| ("digest", digest.to_owned())));
    Some(settings)
}

/// The description with this memory in place of one that is there.
fn described(config: &VmConfig, memory: Option<&Memory>) -> String {
    let old = config.get("description").unwrap_or_default();
    let mut text: String = old.split_inclusive('\n').filter(|line| !line.starts_with(BEGIN)).collect();
    if let Some(memory) = memory {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&memory.line());
    }
    text
}

#[cfg(test)]
mod tests;
