//! A VM's configuration, as `GET /nodes/{node}/qemu/{vmid}/config` gives it: keys and values as in its file
//! (Proxmox VE Administration Guide, appendix "qm.conf").

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::Mac;

/// The tag of a VM that Dragonfly may do everything with.
pub const ADOPTED: &str = "dragonfly";

/// The configuration of one VM. What is pending counts: it is what the VM starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VmConfig(BTreeMap<String, String>);

/// What a device is to firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Disk,
    Cdrom,
    Net,
}

impl VmConfig {
    /// From the answer's `data`; numbers and flags become text, what is neither is left out.
    pub(super) fn read(data: &Value) -> Option<Self> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(u8::from(*flag).to_string()),
            _ => None,
        };
        let entries = data.as_object()?.iter();
        Some(Self(entries.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()))
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The MACs of `net0`, `net1` and so on, in this order, and what is wrong with those that have none.
    pub(super) fn macs(&self) -> (Vec<Mac>, Option<String>) {
        let (mut macs, mut wrong) = (Vec::new(), None);
        for net in self.numbered("net") {
            match self.get(&net).and_then(mac_of) {
                Some(mac) if !macs.contains(&mac) => macs.push(mac),
                Some(_) => {}
                None => wrong = Some(format!("{net} has no MAC")),
            }
        }
        (macs, wrong)
    }

    /// What the VM's firmware says that it is (SMBIOS type 1, UUID); it stays when the VM moves.
    pub(super) fn uuid(&self) -> Option<Uuid> {
        let smbios = self.get("smbios1")?;
        smbios.split(',').find_map(|part| part.trim().strip_prefix("uuid="))?.parse().ok()
    }

    /// Whether firmware is UEFI; SeaBIOS unless something is said.
    pub(super) fn is_uefi(&self) -> bool {
        self.get("bios") == Some("ovmf")
    }

    /// What a key stands for, if there is such a device.
    pub(super) fn kind(&self, device: &str) -> Option<Kind> {
        let value = self.get(device)?;
        let bus = device.trim_end_matches(|c: char| c.is_ascii_digit());
        if bus.len() == device.len() {
            return None;
        }
        match bus {
            "net" => Some(Kind::Net),
            // A cloud-init drive is a CD that holds no system.
            "ide" | "sata" | "scsi" | "virtio" if value.contains("cloudinit") => None,
            "ide" | "sata" | "scsi" | "virtio" if value.split(',').any(|part| part == "media=cdrom") => {
                Some(Kind::Cdrom)
            }
            "ide" | "sata" | "scsi" | "virtio" => Some(Kind::Disk),
            _ => None,
        }
    }

    /// Every device of a kind, buses in the order in which Proxmox looks for a disk to boot from.
    pub(super) fn devices(&self, kind: Kind) -> Vec<String> {
        let buses = ["ide", "scsi", "virtio", "sata", "net"];
        let all = buses.iter().flat_map(|bus| self.numbered(bus));
        all.filter(|device| self.kind(device) == Some(kind)).collect()
    }

    /// `net0`, `net1`, `net10`: by number.
    fn numbered(&self, name: &str) -> Vec<String> {
        let number = |key: &str| key.strip_prefix(name).and_then(|number| number.parse::<u16>().ok());
        let mut numbers: Vec<u16> = self.0.keys().filter_map(|key| number(key)).collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|number| format!("{name}{number}")).collect()
    }
}

/// `virtio=BC:24:11:2E:C5:4A,bridge=vmbr0`, or with `macaddr=`.
fn mac_of(net: &str) -> Option<Mac> {
    let macs = net.split(',').filter_map(|part| part.split_once('=')?.1.trim().parse::<Mac>().ok());
    macs.into_iter().find(|mac| mac.is_unicast())
}

/// The tags in `dragonfly;rack-3`; Proxmox takes other separators too.
pub(super) fn tags(text: &str) -> Vec<String> {
    let parts = text.split([';', ',', ' ']).map(str::trim).filter(|tag| !tag.is_empty());
    parts.map(str::to_lowercase).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::power::proxmox) fn config(lines: &[(&str, &str)]) -> VmConfig {
        VmConfig(lines.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn macs_in_their_order() {
        let all = config(&[
            ("net10", "virtio=BC:24:11:00:00:0A,bridge=vmbr0"),
            ("net2", "model=e1000,macaddr=BC:24:11:00:00:02,bridge=vmbr0"),
            ("net0", "e1000-82545em=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=12"),
            ("netx", "virtio=BC:24:11:00:00:0F"),
        ]);
        let wanted = ["bc:24:11:00:00:01", "bc:24:11:00:00:02", "bc:24:11:00:00:0a"];
        assert_eq!(all.macs(), (wanted.map(|mac| mac.parse().unwrap()).to_vec(), None));
        let some = config(&[("net0", "virtio,bridge=vmbr0"), ("net1", "virtio=01:00:5E:00:00:01,bridge=vmbr0")]);
        assert_eq!(some.macs(), (vec![], Some("net1 has no MAC".to_owned())));
    }

    #[test]
    fn devices_by_kind() {
        let all = config(&[
            ("scsi0", "local-lvm:vm-101-disk-0,size=32G"),
            ("virtio1", "local-lvm:vm-101-disk-1,size=32G"),
            ("ide2", "local:iso/debian.iso,media=cdrom,size=600M"),
            ("ide0", "local-lvm:vm-101-cloudinit,media=cdrom"),
            ("unused0", "local-lvm:vm-101-disk-9"),
            ("efidisk0", "local-lvm:vm-101-disk-3,efitype=4m"),
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
            ("scsihw", "virtio-scsi-single"),
            ("bios", "ovmf"),
        ]);
        assert_eq!(all.devices(Kind::Disk), ["scsi0", "virtio1"]);
        assert_eq!(all.devices(Kind::Cdrom), ["ide2"]);
        assert_eq!(all.devices(Kind::Net), ["net0"]);
        assert_eq!((all.kind("scsi3"), all.kind("scsihw"), all.is_uefi()), (None, None, true));
    }

    #[test]
    fn what_else_is_read() {
        let data = json!({ "cores": 4, "template": true, "name": "a", "ha": {}, "smbios1":
            "base64=1,uuid=5f4dcc3b-5aa7-65d6-1d83-27deb882cf99,serial=eA==" });
        let read = VmConfig::read(&data).unwrap();
        assert_eq!((read.get("cores"), read.get("template"), read.get("ha")), (Some("4"), Some("1"), None));
        assert_eq!(read.uuid().unwrap().to_string(), "5f4dcc3b-5aa7-65d6-1d83-27deb882cf99");
        assert_eq!(VmConfig::read(&json!(["cores"])), None);
        assert_eq!(tags("Dragonfly;rack-3, x"), ["dragonfly", "rack-3", "x"]);
    }
}
