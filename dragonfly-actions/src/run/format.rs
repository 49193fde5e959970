//! `format`.

use std::path::Path;

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};

use super::fail::blocking;
use super::host::{Done, Host};
use super::program::Program;
use crate::plan::{self, Check, FileSystem, FormatParams, Given, Stage};
use crate::probe::WINDOW;

/// Makes a file system.
#[derive(Debug, Clone)]
pub(crate) struct FormatAction(pub(crate) Host);

impl Action for FormatAction {
    const NAME: &'static str = plan::FORMAT;
    const RESUME: Resume = Resume::Verify;
    type Params = FormatParams;

    fn check(&self, params: &FormatParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: FormatParams, cx: &ActionContext) -> Result<(), ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || make(&host, &params, &cx)).await
    }

    async fn verify(&self, params: FormatParams, cx: &ActionContext) -> Result<bool, ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || holds(&host, &params, &cx)).await
    }
}

/// FAT32 needs 65525 clusters (UEFI 2.10, 13.3.1.1, after Microsoft's specification); a cluster has at
/// least one sector. With some room for the tables.
fn fits_fat32(length: u64, sector: u32) -> bool {
    length / u64::from(sector.max(512)) > 67_000
}

/// The program and its arguments, without the device.
fn command(params: &FormatParams, length: u64, sector: u32) -> (&'static str, Vec<String>) {
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|w| (*w).to_owned()));
    let label = params.label.as_deref();
    let uuid = params.uuid.as_ref().and_then(Given::known).map(ToString::to_string);
    let (program, label_flag, uuid_flag) = match params.filesystem {
        FileSystem::Ext4 => {
            // Lazy initialisation would go on writing after the hand-over; discarding an emulated
            // or remote disk can take minutes.
            add(&["-q", "-F", "-t", "ext4", "-E", "nodiscard"]);
            ("mke2fs", "-L", "-U")
        }
        FileSystem::Vfat => {
            // Left alone, mkfs.fat takes FAT16 below 512 MiB, and some firmware boots from FAT32 only.
            if fits_fat32(length, sector) && !params.options.iter().any(|option| option.starts_with("-F")) {
                add(&["-F", "32"]);
            }
            ("mkfs.fat", "-n", "-i")
        }
        FileSystem::Xfs => {
            add(&["-q", "-f", "-K"]);
            ("mkfs.xfs", "-L", "-m")
        }
        FileSystem::Btrfs => {
            add(&["-q", "-f", "-K"]);
            ("mkfs.btrfs", "-L", "-U")
        }
        FileSystem::Swap => ("mkswap", "-L", "-U"),
    };
    if let Some(label) = label {
        add(&[label_flag, label]);
    }
    if let Some(uuid) = uuid {
        let uuid = if params.filesystem == FileSystem::Xfs { format!("uuid={uuid}") } else { uuid };
        add(&[uuid_flag, &uuid]);
    }
    args.extend(params.options.iter().cloned());
    (program, args)
}

fn make(host: &Host, params: &FormatParams, cx: &ActionContext) -> Result<(), ActionError> {
    cx.check_cancelled()?;
    let place = host.find(&params.target, cx.permit())?;
    let disk = host.claim(&place.disk, cx.permit())?;
    let (name, args) = command(params, place.length, disk.sector);
    // Before anything is destroyed: is there such a program?
    let program = Program::new(host, name, &format!("a {} file system", params.filesystem.name()))?;
    disk.note(cx.permit(), Done::Written);
    let part = place.length.min(WINDOW);
    disk.zero(place.start, part)?;
    disk.zero(place.start + place.length - part, part)?;
    disk.sync()?;
    // The program claims the partition for itself.
    drop(disk);
    let node = host.open_place(&place)?;
    cx.log(format!("{}: making a {} file system", place.name(), params.filesystem.name()));
    program.args(args).arg(Path::new(&node)).succeed(cx)?;
    let made = host.find_on(&place)?;
    match made {
        Some(made) if made.kind == params.filesystem.name() => Ok(()),
        other => Err(ActionError::because(format!(
            "{name} ended well, but {} holds {}; the disk may not keep what is written",
            place.name(),
            other.map_or("nothing that is known", |s| s.kind)
        ))),
    }
}

fn holds(host: &Host, params: &FormatParams, cx: &ActionContext) -> Result<bool, ActionError> {
    let Ok(place) = host.find(&params.target, cx.permit()) else { return Ok(false) };
    let mut disk = host.open_disk(&place.disk, false)?;
    if !host.is_ours(&mut disk, cx.permit()) {
        return Ok(false);
    }
    let Some(there) = &place.holds else { return Ok(false) };
    let uuid = params.uuid.as_ref().and_then(Given::known).map(ToString::to_string);
    Ok(there.kind == params.filesystem.name()
        && params.label.as_ref().is_none_or(|label| there.label.as_ref() == Some(label))
        && uuid.is_none_or(|uuid| there.uuid.as_deref() == Some(&uuid)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_follow_each_program() {
        let table = [
            (json!({"filesystem": "ext4", "label": "root"}), "mke2fs -q -F -t ext4 -E nodiscard -L root"),
            (json!({"filesystem": "vfat", "label": "ESP"}), "mkfs.fat -F 32 -n ESP"),
            (json!({"filesystem": "vfat", "options": ["-F", "16"]}), "mkfs.fat -F 16"),
            (
                json!({"fs": "xfs", "uuid": "0fc63daf-8483-4772-8e79-3d69d8477de4"}),
                "mkfs.xfs -q -f -K -m uuid=0fc63daf-8483-4772-8e79-3d69d8477de4",
            ),
            (json!({"filesystem": "swap"}), "mkswap"),
        ];
        for (mut with, want) in table {
            with["target"] = json!("x");
            let (program, args) = command(&serde_json::from_value(with).unwrap(), 64 << 20, 512);
            assert!(fits_fat32(64 << 20, 512) && !fits_fat32(32 << 20, 512) && !fits_fat32(64 << 20, 4096));
            assert_eq!([vec![program.to_owned()], args].concat().join(" "), want);
        }
    }
}
