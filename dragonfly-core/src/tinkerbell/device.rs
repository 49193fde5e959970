//! `/dev/nvme0n1p1`: which disk and which partition a device is.

use serde_json::{Value, json};

/// What a device names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Device {
    /// A whole disk, by kernel name.
    Disk(String),
    /// A partition of it, by number.
    Partition(String, u32),
    /// A partition, by its label.
    Label(String),
}

impl Device {
    /// From a path. The error says why it is not one that can be meant here.
    pub(super) fn parse(path: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{path}` {why}"));
        let Some(name) = path.strip_prefix("/dev/") else { return wrong("is not a device below /dev") };
        if let Some(label) = name.strip_prefix("disk/by-label/").or(name.strip_prefix("disk/by-partlabel/")) {
            return match label.replace("\\x20", " ") {
                label if label.is_empty() || label.contains(['/', '\\']) => wrong("is not a label that is understood"),
                label => Ok(Self::Label(label)),
            };
        }
        if name.starts_with("disk/") {
            return wrong(
                "names a disk by a link; name it by what it is, `disk: {serial: ...}`, in a Template of your own",
            );
        }
        if name.is_empty() || !name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
            return wrong("is not the kernel's name of a disk");
        }
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (stem, number) = name.split_at(name.len() - digits);
        let numbered = |disk: &str| match number.parse::<u32>() {
            Ok(number @ 1..) => Ok(Self::Partition(disk.to_owned(), number)),
            _ => Err(format!("`{path}` names no partition: they count from 1")),
        };
        let is_lettered = |text: &str| {
            ["sd", "vd", "xvd", "hd"].iter().any(|kind| {
                text.strip_prefix(kind)
                    .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_lowercase()))
            })
        };
        if is_lettered(stem) {
            return if number.is_empty() { Ok(Self::Disk(name.to_owned())) } else { numbered(stem) };
        }
        if is_numbered(name) {
            return Ok(Self::Disk(name.to_owned()));
        }
        match stem.strip_suffix('p') {
            Some(disk) if is_numbered(disk) && !number.is_empty() => numbered(disk),
            _ => wrong("is not a disk that is known here by its name; there are sda, vda, xvda, nvme0n1, mmcblk0"),
        }
    }

    /// As the `target` of an action; `None` for a whole disk.
    pub(super) fn target(&self) -> Option<Value> {
        match self {
            Self::Disk(_) => None,
            Self::Partition(disk, number) => Some(json!({ "disk": { "name": disk }, "partition": number })),
            Self::Label(label) => Some(json!({ "label": label })),
        }
    }
}

/// `nvme0n1`, `mmcblk0`.
fn is_numbered(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    name.strip_prefix("mmcblk").is_some_and(number)
        || name
            .strip_prefix("nvme")
            .and_then(|rest| rest.split_once('n'))
            .is_some_and(|(controller, space)| number(controller) && number(space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_disks_partitions_or_labels() {
        let part = |disk: &str, number| Ok(Device::Partition(disk.to_owned(), number));
        let disk = |name: &str| Ok(Device::Disk(name.to_owned()));
        let table = [
            ("/dev/sda", disk("sda")),
            ("/dev/sdaa12", part("sdaa", 12)),
            ("/dev/vdb1", part("vdb", 1)),
            ("/dev/xvda2", part("xvda", 2)),
            ("/dev/nvme0n1", disk("nvme0n1")),
            ("/dev/nvme10n2p3", part("nvme10n2", 3)),
            ("/dev/mmcblk0", disk("mmcblk0")),
            ("/dev/mmcblk0p2", part("mmcblk0", 2)),
            ("/dev/disk/by-label/ROOT", Ok(Device::Label("ROOT".to_owned()))),
            ("/dev/disk/by-partlabel/my\\x20root", Ok(Device::Label("my root".to_owned()))),
            ("sda", Err("not a device below /dev")),
            ("/dev/", Err("not the kernel's name")),
            ("/dev/sda0", Err("count from 1")),
            ("/dev/sd", Err("not a disk that is known")),
            ("/dev/nvme0n1p", Err("not a disk that is known")),
            ("/dev/nvme0", Err("not a disk that is known")),
            ("/dev/disk/by-id/wwn-0x5000", Err("by what it is")),
            ("/dev/../etc", Err("not the kernel's name")),
            ("/dev/md0", Err("not a disk that is known")),
            ("/dev/sda99999999999", Err("count from 1")),
            ("$DISK", Err("not a device below /dev")),
        ];
        for (path, wanted) in table {
            match (Device::parse(path), wanted) {
                (Ok(device), Ok(wanted)) => assert_eq!(device, wanted, "{path}"),
                (Err(said), Err(wanted)) => assert!(said.contains(wanted), "{path}: {said}"),
                (got, wanted) => panic!("{path}: {got:?}, wanted {wanted:?}"),
            }
        }
    }
}
