//! Disks, not partitions.
//!
//! They are read by the same code that a template's disk selector uses, so that what an inventory
//! shows is what a selector matches.

use std::path::Path;
use std::time::Duration;

use dragonfly_actions::run::{Host, nvme};
use dragonfly_core::inventory::Disk;

use super::limit::Asked;
use super::{Probe, Roots, clean, text};

/// How long disks may take to say how they are. Most take a few milliseconds.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

/// Whether a block device's name is that of a disk: not a loop, RAM disk, optical drive, floppy, or
/// something that software puts together.
pub fn is_disk_name(name: &str) -> bool {
    let made = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "zd", "drbd", "rbd", "bcache"];
    // `mmcblk0boot0`, `mmcblk0rpmb`: an eMMC's own areas.
    let part = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    !made.iter().any(|m| name.starts_with(m)) && !part
}

/// Every disk that has a medium.
pub(crate) fn read(roots: &Roots, probe: Probe) -> Vec<Disk> {
    let mut host = Host::default();
    host.sys.clone_from(&roots.sys);
    host.dev.clone_from(&roots.dev);
    let disks: Vec<Disk> = host
        .disks()
        .into_iter()
        .filter(|disk| is_disk_name(&disk.name) && is_real(&roots.sys.join("block").join(&disk.name)))
        .take(1024)
        .collect();
    // They answer while their content is looked at.
    let health = ask_for_wear(&disks, roots);
    let mut disks: Vec<Disk> = disks.into_iter().map(|disk| with_content(disk, roots, probe)).collect();
    for (name, wear) in health.answers() {
        if let Some(disk) = disks.iter_mut().find(|disk| disk.name == name) {
            disk.wear_percent = wear;
        }
    }
    disks
}

/// How much of its life each NVMe disk has behind it; absent for one that does not say.
fn ask_for_wear(disks: &[Disk], roots: &Roots) -> Asked<(String, Option<u8>)> {
    let questions = disks.iter().filter(|disk| disk.bus.as_deref() == Some("nvme")).map(|disk| {
        let (name, device) = (disk.name.clone(), roots.dev.join(&disk.name));
        move || (name, nvme::wear(&device).ok().flatten())
    });
    Asked::all(questions, HEALTH_PATIENCE)
}

/// One path of a multipath NVMe device is hidden; the device itself is not.
fn is_real(path: &Path) -> bool {
    path.join("device").exists() && text(&path.join("hidden")).as_deref() != Some("1")
}

fn with_content(mut disk: Disk, roots: &Roots, probe: Probe) -> Disk {
    // What a disk says of itself is a stranger's word.
    for said in [&mut disk.model, &mut disk.serial, &mut disk.wwn] {
        *said = said.take().and_then(|text| clean(text.as_bytes()));
    }
    let signatures = probe(&roots.dev.join(&disk.name));
    disk.blank = signatures.as_ref().map(Vec::is_empty);
    disk.signatures = signatures.unwrap_or_default();
    disk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_disk() {
        for name in ["sda", "vdb", "nvme0n1", "xvda", "mmcblk0", "sdaa"] {
            assert!(is_disk_name(name), "{name}");
        }
        for name in ["loop0", "sr0", "dm-1", "md127", "ram0", "zram0", "mmcblk0boot0", "fd0"] {
            assert!(!is_disk_name(name), "{name}");
        }
    }
}
