//! The inventory of captured machines (`trees/capture.sh` makes the captures) against golden files.
//!
//! If a test here fails after a deliberate change, look at the difference, then write the new file:
//! `UPDATE_GOLDEN=1 cargo test -p mage --test inventory`.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mage::inventory::{Roots, anchors, gather};

/// Reads base64 with its padding.
fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        bits = bits << 6 | alphabet.iter().position(|a| *a == c).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

fn plant(tree: &str, root: &Path) {
    let made = |path: &str| {
        let path = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for line in tree.lines() {
        let mut words = line.splitn(3, ' ');
        let (kind, path, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        match kind {
            // sysfs refuses to read some of its files; base64 leaves nothing of those.
            "F" if rest.is_empty() => {}
            "F" => std::fs::write(made(path), base64(rest)).unwrap(),
            // A device with two children is told of twice.
            "L" => match symlink(rest, made(path)) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => panic!("{path}: {error}"),
                _ => {}
            },
            "D" => std::fs::create_dir_all(made(path)).unwrap(),
            other => panic!("{other}"),
        }
    }
}

fn check(name: &str) -> dragonfly_core::inventory::Inventory {
    let trees = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/trees");
    let dir = tempfile::tempdir().unwrap();
    plant(&std::fs::read_to_string(trees.join(format!("{name}.tree"))).unwrap(), dir.path());
    let roots = Roots { sys: dir.path().join("sys"), proc: dir.path().join("proc"), dev: dir.path().join("dev") };
    let inventory = gather(&roots, |_| None);
    let golden = trees.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(&inventory).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&golden).unwrap(), "{name}");
    inventory
}

#[test]
fn a_bios_machine_with_sata_nvme_virtio_and_a_bmc() {
    let inventory = check("q35-bios");
    // What the machine was given, said once more here: a golden file can be made from a mistake.
    let serials: Vec<_> = inventory.disks.iter().map(|d| (d.bus.as_deref(), d.serial.as_deref())).collect();
    for want in [("sata", "SATA-0001"), ("nvme", "NVME-0002"), ("virtio", "VIRT-0003")] {
        assert!(serials.contains(&(Some(want.0), Some(want.1))), "{want:?} in {serials:?}");
    }
    assert_eq!(inventory.system.product.as_deref(), Some("Rack 1"));
    assert_eq!(inventory.system.uuid.unwrap().to_string(), "11223344-5566-7788-99aa-bbccddeeff00");
    assert_eq!(inventory.system.board_serial.as_deref(), Some("BOARD-7"));
    assert_eq!(inventory.memory.modules[0].serial.as_deref(), Some("MEM-1"));
    assert_eq!(inventory.bmc.as_ref().unwrap().interface.as_deref(), Some("KCS"));
    assert_eq!((inventory.cpu.sockets, inventory.cpu.cores), (Some(1), Some(2)));
    let anchors = anchors(&inventory);
    assert_eq!(anchors.macs.len(), 2);
    assert_eq!(anchors.serial.as_deref(), Some("SN-42"));
}

#[test]
fn a_uefi_machine_with_raid_usb_and_two_sockets() {
    let inventory = check("q35-uefi");
    let serials: Vec<_> = inventory.disks.iter().map(|d| (d.bus.as_deref(), d.serial.as_deref())).collect();
    // The kernel does not ask USB disks for the page that holds the serial number: absent.
    for want in [(None, Some("SAS-0001")), (Some("usb"), None), (Some("virtio"), Some("VSCSI-0003"))] {
        assert!(serials.contains(&want), "{want:?} in {serials:?}");
    }
    assert_eq!(inventory.firmware, Some(dragonfly_core::inventory::FirmwareMode::Uefi));
    assert_eq!((inventory.cpu.sockets, inventory.cpu.cores, inventory.cpu.threads), (Some(2), Some(4), Some(4)));
    assert!(inventory.pci.iter().any(|p| p.class == "0300"), "the graphics card");
    assert!(inventory.bmc.is_none() && inventory.tpm.is_none() && inventory.hypervisor.is_none());
}

#[test]
fn a_machine_that_shows_nothing_has_an_empty_inventory() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots { sys: dir.path().join("sys"), proc: dir.path().join("proc"), dev: dir.path().join("dev") };
    let mut inventory = gather(&roots, |_| None);
    inventory.cpu.arch = None;
    assert_eq!(inventory, Default::default());
}
