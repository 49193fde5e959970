//! The machine that the program runs on, as paths: tests give others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dragonfly_core::inventory::{Bytes, Disk, FirmwareMode};
use uuid::Uuid;

/// Where this machine's kernel shows itself and where its programs are. A plain value; clones share
/// what a run has done to disks so far.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where sysfs is mounted.
    pub sys: PathBuf,
    /// Where device nodes are.
    pub dev: PathBuf,
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// Where efivarfs is mounted; it is mounted there when it is needed and is not.
    pub efivars: PathBuf,
    /// Where programs are looked for, first match wins.
    pub path: Vec<PathBuf>,
    /// A directory of ours for mount points.
    pub scratch: PathBuf,
    /// Where `ipxe.lkrn` may be, first match wins.
    pub ipxe: Vec<PathBuf>,
    done: Arc<Mutex<BTreeMap<(Uuid, String), Done>>>,
}

/// What a run has done to a disk, as far as its later steps must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// Has written a partition table.
    Partitioned,
    /// Has written something else.
    Written,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
            proc: "/proc".into(),
            efivars: "/sys/firmware/efi/efivars".into(),
            path: ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .map(PathBuf::from)
                .into(),
            scratch: "/run/dragonfly".into(),
            ipxe: ["/usr/lib/dragonfly/ipxe.lkrn", "/usr/lib/ipxe/ipxe.lkrn", "/boot/ipxe.lkrn"]
                .map(PathBuf::from)
                .into(),
            done: Arc::default(),
        }
    }
}

impl Host {
    /// The disks of this machine: no partitions, no loop or RAM devices, no optical drives, nothing
    /// that is assembled from others. What could not be read is absent.
    pub fn disks(&self) -> Vec<Disk> {
        let mut disks: Vec<Disk> = fs::read_dir(self.sys.join("block"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_disk(name))
            // A path of a multipath NVMe namespace: not to be opened.
            .filter(|name| read(&self.sys.join("block").join(name).join("hidden")).as_deref() != Some("1"))
            .filter_map(|name| self.disk(&name))
            .filter(|disk| disk.size.0 > 0)
            .collect();
        disks.sort_by_key(|disk| (disk.name.len(), disk.name.clone()));
        disks
    }

    /// One disk by kernel name, of whatever kind. What is on it is not looked at: `blank` is absent.
    pub fn disk(&self, name: &str) -> Option<Disk> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return None;
        }
        let at = self.sys.join("block").join(name);
        // In units of 512 bytes, whatever the sector size.
        let size = read(&at.join("size"))?.parse::<u64>().ok()?.checked_mul(512)?;
        let flag = |file: &str| read(&at.join(file)).map(|text| text == "1");
        Some(Disk {
            name: name.to_owned(),
            size: Bytes(size),
            sector: read(&at.join("queue/logical_block_size")).and_then(|text| text.parse().ok()),
            model: read(&at.join("device/model")),
            serial: self.serial(&at),
            wwn: read(&at.join("wwid")).or_else(|| read(&at.join("device/wwid"))),
            bus: bus(name, &at),
            rotational: flag("queue/rotational"),
            removable: flag("removable"),
            wear_percent: None,
            blank: None,
            signatures: Vec::new(),
        })
    }

    fn serial(&self, at: &Path) -> Option<String> {
        if let Some(serial) = read(&at.join("device/serial")).or_else(|| read(&at.join("serial"))) {
            return Some(serial);
        }
        // SCSI and SATA: vital product data page 0x80, four bytes of header (SPC-5, 7.7.17).
        let page = fs::read(at.join("device/vpd_pg80")).ok()?;
        let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
        let text = String::from_utf8_lossy(page.get(4..(4 + length).min(page.len()))?)
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// How the firmware boots this machine.
    pub fn firmware(&self) -> FirmwareMode {
        if self.sys.join("firmware/efi").is_dir() { FirmwareMode::Uefi } else { FirmwareMode::Bios }
    }

    /// A program by name.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|directory| directory.join(name)).find(|path| path.is_file())
    }

    /// Remembers that a run has written to a disk.
    pub(crate) fn note(&self, run: Uuid, disk: &str, done: Done) {
        let mut all = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry((run, disk.to_owned())).or_insert(done);
        if done == Done::Partitioned {
            *entry = done;
        }
    }

    /// The disks that a run has written in this boot.
    pub(crate) fn noted_disks(&self, run: Uuid) -> Vec<String> {
        let all = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        all.keys().filter(|(of, _)| *of == run).map(|(_, disk)| disk.clone()).collect()
    }

    /// What a run has done to a disk.
    pub(crate) fn noted(&self, run: Uuid, disk: &str) -> Option<Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&(run, disk.to_owned())).copied()
    }
}

/// Whether a block device of this name is a disk, and not something made of others.
fn is_disk(name: &str) -> bool {
    let numbered = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"];
    let made = numbered
        .iter()
        .any(|kind| name.strip_prefix(kind).is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit())));
    // An eMMC shows its boot and replay-protected areas as disks of their own.
    let area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    !made && !area
}

/// A sysfs file's text, if there is any.
pub(crate) fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim().trim_matches('\0').trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// How a disk is attached, by its name and the path of its device.
fn bus(name: &str, at: &Path) -> Option<String> {
    let device = fs::canonicalize(at).ok()?;
    let path = device.to_string_lossy();
    let bus = if name.starts_with("nvme") {
        "nvme"
    } else if path.contains("/usb") {
        "usb"
    } else if path.contains("/virtio") {
        "virtio"
    } else if path.contains("/mmc") {
        "mmc"
    } else if path.contains("/ata") {
        "sata"
    } else if path.contains("/end_device-") {
        "sas"
    } else {
        return None;
    };
    Some(bus.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree like `/sys/block` of a machine with an NVMe disk, a SATA disk, a stick and much else.
    #[test]
    fn disks_are_told_from_everything_else() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &[u8]| {
            let path = sys.path().join("block").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in [
            "loop0",
            "ram3",
            "zram0",
            "dm-1",
            "md127",
            "sr0",
            "mmcblk0",
            "mmcblk0boot0",
            "nvme0n1",
            "nvme0c1n1",
            "sda",
            "sdb",
        ] {
            write(&format!("{name}/size"), b"2097152\n");
        }
        write("sr0/removable", b"1\n");
        write("nvme0c1n1/hidden", b"1\n");
        write("nvme0n1/device/serial", b"S1          \n");
        write("nvme0n1/device/model", b"Fast One    \n");
        write("nvme0n1/queue/logical_block_size", b"4096\n");
        write("nvme0n1/queue/rotational", b"0\n");
        // VPD page 0x80: two bytes, a length, a serial number.
        write("sda/device/vpd_pg80", b"\x00\x80\x00\x08  WD-1 \x00");
        write("sda/queue/rotational", b"1\n");
        write("sdb/removable", b"1\n");
        write("sdc/size", b"0\n");
        let host = Host { sys: sys.path().into(), ..Host::default() };
        let disks = host.disks();
        let names: Vec<_> = disks.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["sda", "sdb", "mmcblk0", "nvme0n1"]);
        let nvme = &disks[3];
        assert_eq!((nvme.serial.as_deref(), nvme.model.as_deref()), (Some("S1"), Some("Fast One")));
        assert_eq!((nvme.size.0, nvme.sector, nvme.bus.as_deref()), (1 << 30, Some(4096), Some("nvme")));
        assert_eq!((disks[0].serial.as_deref(), disks[0].rotational), (Some("WD-1"), Some(true)));
        assert_eq!((disks[0].model.as_deref(), disks[0].bus.as_deref()), (None, None), "absent, not invented");
        assert_eq!(disks[1].removable, Some(true));
        assert!(host.disk("../../etc").is_none());
    }
}
