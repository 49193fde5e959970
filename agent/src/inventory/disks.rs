//! Disks, not partitions.

use std::path::Path;

use dragonfly_core::inventory::{Bytes, Disk};

use super::{Probe, Roots, clean, entries, link_name, number, text};

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
    let found: Vec<_> = entries(&roots.sys.join("block"))
        .into_iter()
        .filter(|(name, path)| {
            // One path of a multipath NVMe device is hidden; the device itself is not.
            is_disk_name(name) && path.join("device").exists() && text(&path.join("hidden")).as_deref() != Some("1")
        })
        .take(1024)
        .collect();
    found.into_iter().filter_map(|(name, path)| disk(roots, probe, name, &path)).collect()
}

fn disk(roots: &Roots, probe: Probe, name: String, path: &Path) -> Option<Disk> {
    // sysfs counts in units of 512 bytes, whatever the sector size.
    let size = number::<u64>(&path.join("size")).filter(|s| *s > 0)?.checked_mul(512)?;
    let device = path.join("device");
    let flag = |file: &str| text(&path.join(file)).map(|t| t == "1");
    let signatures = probe(&roots.dev.join(&name));
    Some(Disk {
        size: Bytes(size),
        sector: number(&path.join("queue/logical_block_size")),
        model: text(&device.join("model")).or_else(|| text(&device.join("name"))),
        serial: text(&path.join("serial"))
            .or_else(|| text(&device.join("serial")))
            .or_else(|| vpd_serial(&std::fs::read(device.join("vpd_pg80")).ok()?)),
        wwn: text(&path.join("wwid")).or_else(|| text(&device.join("wwid"))),
        bus: bus(&name, path),
        rotational: flag("queue/rotational"),
        removable: flag("removable"),
        wear_percent: None,
        blank: signatures.as_ref().map(Vec::is_empty),
        signatures: signatures.unwrap_or_default(),
        name,
    })
}

/// SCSI vital product data page 80h (SPC-4 7.8.18): a header of four bytes, the length in the last two.
fn vpd_serial(page: &[u8]) -> Option<String> {
    let (header, body) = page.split_first_chunk::<4>()?;
    if header[1] != 0x80 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    clean(body.get(..length.min(body.len()))?)
}

/// How it is attached, by where sysfs puts it.
fn bus(name: &str, path: &Path) -> Option<String> {
    if name.starts_with("nvme") {
        return Some("nvme".to_owned());
    }
    if name.starts_with("mmcblk") {
        return Some("mmc".to_owned());
    }
    let place = std::fs::canonicalize(path).ok()?;
    bus_of_place(place.to_str()?, link_name(&path.join("device/driver")).as_deref())
}

fn bus_of_place(place: &str, driver: Option<&str>) -> Option<String> {
    let parts: Vec<&str> = place.split('/').collect();
    let has = |prefix: &str| {
        parts.iter().any(|p| p.strip_prefix(prefix).is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit())))
    };
    let bus = if has("usb") {
        "usb"
    } else if has("ata") {
        "sata"
    } else if has("end_device-") || has("sas_") {
        "sas"
    } else if driver == Some("virtio_blk") || has("virtio") {
        "virtio"
    } else if has("xvd") || place.contains("/vbd-") {
        "xen"
    } else if has("target") {
        "scsi"
    } else {
        return None;
    };
    Some(bus.to_owned())
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

    #[test]
    fn where_it_hangs() {
        let table = [
            ("/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", None, Some("sata")),
            ("/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda", None, Some("virtio")),
            (
                "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb",
                None,
                Some("usb"),
            ),
            (
                "/sys/devices/pci0000:17/0000:18:00.0/host0/port-0:0/end_device-0:0/target0:0:0/block/sda",
                None,
                Some("sas"),
            ),
            ("/sys/devices/pci0000:17/0000:18:00.0/host0/target0:2:0/0:2:0:0/block/sda", None, Some("scsi")),
            ("/sys/devices/virtual/block/x", None, None),
        ];
        for (place, driver, want) in table {
            assert_eq!(bus_of_place(place, driver).as_deref(), want, "{place}");
        }
    }

    #[test]
    fn a_serial_in_vital_product_data() {
        assert_eq!(vpd_serial(b"\0\x80\0\x06 AB12 ").as_deref(), Some("AB12"));
        assert_eq!(vpd_serial(b"\0\x80\0\xffAB").as_deref(), Some("AB"));
        for bad in [&b""[..], b"\0\x80", b"\0\x83\0\x02AB", b"\0\x80\0\0"] {
            assert_eq!(vpd_serial(bad), None, "{bad:?}");
        }
    }
}
