//! `rootio`: partitions and file systems as the machine's metadata describe them.

use serde_json::{Map, Value, json};

use super::super::device::Device;
use super::{Made, Outcome, Settings, Step};

/// Sizes there are in sectors of so many bytes.
const SECTOR: u64 = 512;

const SETTINGS: Settings = &[
    ("MIRROR_HOST", Outcome::NotNeeded, "the machine's metadata were read when the template was filled"),
    ("METADATA_SERVICE_PORT", Outcome::NotNeeded, "the machine's metadata were read when the template was filled"),
];

pub(super) fn rootio(step: &mut Step<'_>) -> Vec<Made> {
    let command = std::mem::take(&mut step.command);
    let is_mbr = step.is_true("MBR");
    for name in ["JSON_FILE", "TEST"] {
        if step.take(name).is_some() {
            step.refuse(name, "the machine's metadata say what is to be made, and nothing else does");
        }
    }
    step.tell_rest(SETTINGS);
    let Some(storage) = step.storage.cloned() else {
        step.refuse("command", "the machine has no spec.metadata.instance.storage, so there is nothing to make");
        return Vec::new();
    };
    match command.first().map(String::as_str) {
        Some("partition") => list(&storage, "disks").iter().filter_map(|disk| partition(step, disk, is_mbr)).collect(),
        Some("format") => {
            let all = list(&storage, "filesystems");
            all.iter().filter_map(|entry| format(step, entry.get("mount")?)).collect()
        }
        Some("mount") => {
            step.say("command", Outcome::NotNeeded, "every action mounts what it needs, and unmounts it");
            Vec::new()
        }
        Some(other) => {
            step.refuse("command", format!("rootio `{other}` is not native; there are partition, format and mount"));
            Vec::new()
        }
        None => {
            step.refuse("command", "is empty; rootio takes partition, format or mount");
            Vec::new()
        }
    }
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn disk_name(step: &mut Step<'_>, device: &str) -> Option<String> {
    match Device::parse(device) {
        Ok(Device::Disk(name)) => Some(name),
        Ok(_) => {
            step.refuse("command", format!("`{device}` in the machine's storage is not a whole disk"));
            None
        }
        Err(said) => {
            step.refuse("command", format!("the machine's storage: {said}"));
            None
        }
    }
}

fn partition(step: &mut Step<'_>, disk: &Value, is_mbr: bool) -> Option<Made> {
    let name = disk_name(step, text(disk, "device"))?;
    let given = list(disk, "partitions");
    if given.is_empty() {
        return None;
    }
    let mut partitions = Vec::new();
    for (index, one) in given.iter().enumerate() {
        if one.get("number").and_then(Value::as_u64) != Some(index as u64 + 1) {
            step.refuse(
                "command",
                format!("partitions of {name} in the machine's storage do not count from 1, one by one"),
            );
            return None;
        }
        let label = text(one, "label");
        let size = match one.get("size").and_then(Value::as_u64) {
            Some(0) | None => "rest".to_owned(),
            Some(sectors) => match sectors.checked_mul(SECTOR) {
                Some(bytes) => bytes.to_string(),
                None => {
                    step.refuse("command", format!("a partition of {name} is larger than any disk"));
                    return None;
                }
            },
        };
        let kind = match (label, is_mbr) {
            ("SWAP", _) => "swap",
            ("BIOS", false) => "bios-boot",
            ("EFI", false) => "esp",
            ("FAT32" | "FAT32_ACTIVE", true) => "fat32",
            _ => "linux",
        };
        let mut spec = Map::from_iter([("size".to_owned(), json!(size)), ("type".to_owned(), json!(kind))]);
        if !label.is_empty() {
            spec.insert("label".to_owned(), json!(label));
        }
        if is_mbr && label.ends_with("_ACTIVE") {
            spec.insert("active".to_owned(), json!(true));
        }
        partitions.push(Value::Object(spec));
    }
    step.say("command", Outcome::Changed, format!("partitions of {name} begin at whole MiB"));
    let table = if is_mbr { "mbr" } else { "gpt" };
    let with = json!({ "disk": { "name": name }, "table": table, "partitions": partitions });
    Some(Made { action: "partition", with })
}

fn format(step: &mut Step<'_>, mount: &Value) -> Option<Made> {
    let device = text(mount, "device");
    let target = match Device::parse(device).map(|device| device.target()) {
        Ok(Some(target)) => target,
        Ok(None) => {
            step.refuse(
                "command",
                format!("`{device}` in the machine's storage is a whole disk, and a partition is formatted"),
            );
            return None;
        }
        Err(said) => {
            step.refuse("command", format!("the machine's storage: {said}"));
            return None;
        }
    };
    let filesystem = text(mount, "format");
    if !matches!(filesystem, "ext4" | "vfat" | "xfs" | "swap") {
        step.refuse("command", format!("`{filesystem}` on {device} is not made; there are ext4, vfat, xfs and swap"));
        return None;
    }
    let mut with = Map::from_iter([("target".to_owned(), target), ("filesystem".to_owned(), json!(filesystem))]);
    let mut options = Vec::new();
    let mut given = list(mount.get("create").unwrap_or(&Value::Null), "options").iter().filter_map(Value::as_str);
    while let Some(option) = given.next() {
        let is_label = option == if filesystem == "vfat" { "-n" } else { "-L" };
        match (is_label, given.clone().next()) {
            (true, Some(label)) => {
                with.insert("label".to_owned(), json!(label));
                given.next();
            }
            _ => options.push(option),
        }
    }
    if !options.is_empty() {
        with.insert("options".to_owned(), json!(options));
    }
    Some(Made { action: "format", with: Value::Object(with) })
}
