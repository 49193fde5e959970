//! `writefile` and `grub2disk`.

use serde_json::{Map, Value, json};

use super::super::device::Device;
use super::{Made, Outcome, Settings, Step};

const SETTINGS: Settings = &[("FS_TYPE", Outcome::NotNeeded, "the file system is known by what is on the partition")];

pub(super) fn writefile(step: &mut Step<'_>) -> Vec<Made> {
    step.no_command();
    let target = step.partition("DEST_DISK");
    let path = step.need("DEST_PATH");
    let content = step.take("CONTENTS").unwrap_or_default();
    let mut with = Map::new();
    with.insert("content".to_owned(), json!(content));
    for (name, field, is_mode) in
        [("MODE", "mode", true), ("DIRMODE", "dirMode", true), ("UID", "uid", false), ("GID", "gid", false)]
    {
        let Some(text) = step.need(name) else { continue };
        let late = text.contains(super::super::go::LATE_BEGINS);
        let value = match (is_mode, u32::from_str_radix(&text, 8), text.parse::<u32>()) {
            _ if late => Some(json!(text)),
            (true, Ok(mode), _) if mode <= 0o7777 => Some(json!(format!("{mode:04o}"))),
            (false, _, Ok(number)) => Some(json!(number)),
            _ => None,
        };
        match value {
            Some(value) => {
                with.insert(field.to_owned(), value);
            }
            None if is_mode => step.refuse(name, format!("`{text}` is not a file mode in octal, such as 0644")),
            None => step.refuse(name, format!("`{text}` is not a number")),
        }
    }
    step.tell_rest(SETTINGS);
    let (Some(target), Some(path)) = (target, path) else { return Vec::new() };
    if !path.starts_with('/') || path.ends_with('/') || path.split('/').any(|part| matches!(part, "." | "..")) {
        step.refuse("DEST_PATH", format!("`{path}` is not the absolute path of a file"));
        return Vec::new();
    }
    with.insert("target".to_owned(), target);
    with.insert("path".to_owned(), json!(path));
    vec![Made { action: "writefile", with: Value::Object(with) }]
}

pub(super) fn grub2disk(step: &mut Step<'_>) -> Vec<Made> {
    step.no_command();
    let mut with = Map::new();
    with.insert("kind".to_owned(), json!("grub"));
    let root = step.partition("GRUB_INSTALL_PATH");
    let disk = step.device("GRUB_DISK");
    let on = |target: &Value| target.pointer("/disk/name").and_then(Value::as_str).map(str::to_owned);
    if let (Some(root), Some(Device::Disk(disk) | Device::Partition(disk, _))) = (&root, &disk)
        && on(root).is_some_and(|of_root| of_root != *disk)
    {
        step.say("GRUB_DISK", Outcome::Lost, "GRUB is installed on the disk that carries the root partition");
    }
    match step.take("MODE").as_deref() {
        None | Some("bios") => {
            with.insert("firmware".to_owned(), json!("bios"));
        }
        Some("efi") => {
            with.insert("firmware".to_owned(), json!("uefi"));
            if let Some(esp) = step.partition("EFI_PARTITION") {
                with.insert("esp".to_owned(), esp);
            }
            if let Some(label) = step.take("BOOTLOADER_ID") {
                with.insert("label".to_owned(), json!(label));
            }
        }
        Some(other) => step.refuse("MODE", format!("`{other}` is not known; there are bios and efi")),
    }
    let said = "the installed system's own grub-install is run, and its configuration made";
    step.say("image", Outcome::Changed, said);
    step.tell_rest(SETTINGS);
    let (Some(root), Some(_)) = (root, disk) else { return Vec::new() };
    with.insert("root".to_owned(), root);
    vec![Made { action: "bootloader", with: Value::Object(with) }]
}
