//! Firmware that drivers load into their cards, as further RAM disks of which each machine fetches the
//! one for the card it boots from: together they would be larger than everything else.
//!
//! iPXE names the card by its bus ID: `01` for PCI, vendor, device, as hex digits. That is what the
//! archives are called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::modules::{self, Selection, Tree};
use super::ramdisk;

/// The directory of the archives, below that of the boot files.
pub(super) const DIRECTORY: &str = "firmware";
/// Suffixes under which distributions keep firmware.
const SUFFIXES: [&str; 3] = ["", ".xz", ".zst"];

/// A PCI vendor and device.
type Id = (u16, u16);

/// What the selected network drivers want.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By card: names of firmware files.
    cards: BTreeMap<Id, BTreeSet<String>>,
    /// By driver: the same.
    pub(super) drivers: BTreeMap<String, BTreeSet<String>>,
}

/// What was found of it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By file name: one archive, and the other names it has.
    pub(super) archives: Vec<(String, Vec<u8>, Vec<String>)>,
    /// Names of the firmware files in them.
    pub(super) files: BTreeSet<String>,
}

/// Asks the modules themselves.
pub(super) fn wanted(tree: &Tree, selection: &Selection) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    for driver in selection.files.iter().filter(|name| tree.is_network_driver(name)) {
        let cards = pci_ids(tree.aliases(), driver);
        if cards.is_empty() {
            continue;
        }
        // The firmware of qede is wanted by qed, which it stands on.
        let with_needs = tree.select(std::iter::once(driver.as_str()));
        let mut names = BTreeSet::new();
        for (_, module) in tree.contents(&with_needs)? {
            names.extend(modinfo(&module).unwrap_or_default());
        }
        if !names.is_empty() {
            for card in cards {
                wanted.cards.entry(card).or_default().extend(names.iter().cloned());
            }
            wanted.drivers.insert(driver.clone(), names);
        }
    }
    Ok(wanted)
}

/// Packs what a directory laid out as `/lib/firmware` has of it. Cards that want the same share an archive.
pub(super) fn find(wanted: &Wanted, dir: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut alike: BTreeMap<&BTreeSet<String>, Vec<Id>> = BTreeMap::new();
    for (card, names) in &wanted.cards {
        alike.entry(names).or_default().push(*card);
    }
    for (names, cards) in alike {
        let mut archive = Archive::default();
        let mut some = false;
        for name in names {
            if let Some(bytes) = read(dir, name)? {
                archive.file(&format!("lib/firmware/{name}"), 0o644, &bytes);
                found.files.insert(name.clone());
                some = true;
            }
        }
        let mut files = cards.into_iter().map(|(vendor, device)| format!("01{vendor:04x}{device:04x}.img"));
        if let (true, Some(first)) = (some, files.next()) {
            found.archives.push((first, ramdisk::compress(&archive.finish())?, files.collect()));
        }
    }
    Ok(found)
}

/// One firmware file, unpacked if need be: a kernel does not know how to.
fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    // A module names it, and a module is somebody's file.
    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(None);
    }
    for suffix in SUFFIXES {
        let path = dir.join(format!("{name}{suffix}"));
        match std::fs::read(&path) {
            Ok(bytes) => {
                let unpacked = modules::unpack(suffix, bytes);
                return unpacked.with_context(|| format!("cannot unpack {}", path.display())).map(Some);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    Ok(None)
}

/// The cards that `modules.alias` names for a driver: `alias pci:v00001077d00008070sv*... qede`.
fn pci_ids(aliases: &str, driver: &str) -> BTreeSet<Id> {
    let id = |line: &str| {
        let mut words = line.strip_prefix("alias pci:v0000")?.split_ascii_whitespace();
        let (pattern, module) = (words.next()?, words.next()?);
        let (vendor, rest) = pattern.split_once("d0000")?;
        let hex = |text: &str| u16::from_str_radix(text, 16).ok();
        let card = (hex(vendor)?, hex(rest.get(..4)?)?);
        (module.replace('-', "_") == driver && rest.get(4..)?.starts_with("sv")).then_some(card)
    };
    aliases.lines().filter_map(id).collect()
}

/// The firmware that a module names in its section `.modinfo`; `None` when it is no 64-bit
/// little-endian ELF file.
fn modinfo(elf: &[u8]) -> Option<Vec<String>> {
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        let value = bytes.iter().rev().try_fold(0u64, |sum, byte| Some(sum << 8 | u64::from(*byte)))?;
        usize::try_from(value).ok()
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count, names) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?, number(0x3e, 2)?);
    // A section's header: its name's place among the names at 0, its content's place and size at 0x18.
    let header = |index: usize| table.checked_add(index.checked_mul(size)?);
    let content = |index: usize| {
        let at = header(index)?;
        let (offset, length) = (number(at.checked_add(0x18)?, 8)?, number(at.checked_add(0x20)?, 8)?);
        elf.get(offset..offset.checked_add(length)?)
    };
    let names = content(names)?;
    let is_modinfo = |index: &usize| {
        let name = header(*index).and_then(|at| number(at, 4)).and_then(|at| names.get(at..));
        name.is_some_and(|name| name.starts_with(b".modinfo\0"))
    };
    let Some(section) = (0..count).find(is_modinfo) else { return Some(Vec::new()) };
    let entries = content(section)?.split(|byte| *byte == 0);
    let firmware = entries.filter_map(|entry| std::str::from_utf8(entry.strip_prefix(b"firmware=")?).ok());
    Some(firmware.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// An ELF file with the sections nothing, `.modinfo` and names.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (info_at, names_at) = (64, 64 + modinfo.len());
        let table = names_at + names.len();
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        for (at, value) in [(0x3a, 64u16), (0x3c, 3), (0x3e, 2)] {
            elf[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        elf.extend(modinfo);
        elf.extend(names);
        for (name, at, length) in [(0u32, 0, 0), (1, info_at, modinfo.len()), (10, names_at, names.len())] {
            let mut header = vec![0u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            elf.extend(header);
        }
        elf
    }

    #[test]
    fn modules_name_their_firmware() {
        let elf = module(b"license=GPL\0firmware=qed/init-8.bin\0firmware=b.bin\0alias=pci:x\0");
        assert_eq!(modinfo(&elf).unwrap(), ["qed/init-8.bin", "b.bin"]);
        assert_eq!(modinfo(&module(b"license=GPL\0")).unwrap(), [""; 0]);
        assert_eq!(modinfo(b"\x7fELF\x01\x01"), None, "32 bits");
        // Whatever is cut off is no answer, and no panic.
        for end in 0..elf.len() {
            let _ = modinfo(&elf[..end]);
        }
        for at in 0..elf.len() {
            let mut broken = elf.clone();
            broken[at] ^= 0xff;
            let _ = modinfo(&broken);
        }
    }

    #[test]
    fn cards_of_a_driver() {
        let aliases = "# x\nalias pci:v00001077d00008070sv*sd*bc*sc*i* qede\n\
                       alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169\nalias pci:v00001077d*sv*sd*bc02sc*i* qede\n\
                       alias pci:v00001077d00008090sv*sd*bc*sc*i* qede\nalias usb:v0BDAp8152 r8152\n";
        assert_eq!(pci_ids(aliases, "qede"), BTreeSet::from([(0x1077, 0x8070), (0x1077, 0x8090)]));
        assert_eq!(pci_ids(aliases, "r8169"), BTreeSet::from([(0x10ec, 0x8168)]));
        assert!(pci_ids(aliases, "r8152").is_empty());
    }

    #[test]
    fn each_card_finds_what_its_driver_wants() {
        let kernel = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = kernel.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let net = "kernel/drivers/net/ethernet";
        write(
            "modules.dep",
            format!("{net}/qede.ko: {net}/qed.ko\n{net}/qed.ko:\n{net}/plain.ko:\nkernel/drivers/scsi/hba.ko:\n")
                .as_bytes(),
        );
        write(
            "modules.alias",
            b"alias pci:v00001077d00008070sv*sd*bc*sc*i* qede\nalias pci:v00001077d00008090sv*sd*bc*sc*i* qede\n\
              alias pci:v00008086d00001533sv*sd*bc*sc*i* plain\nalias pci:v00001000d00000001sv*sd*bc*sc*i* hba\n",
        );
        write(&format!("{net}/qede.ko"), &module(b"license=GPL\0"));
        write(
            &format!("{net}/qed.ko"),
            &module(b"firmware=qed/init.bin\0firmware=qed/more.bin\0firmware=../../evil\0"),
        );
        write(&format!("{net}/plain.ko"), &module(b"license=GPL\0"));
        write("kernel/drivers/scsi/hba.ko", &module(b"firmware=hba.bin\0"));
        let tree = Tree::open(kernel.path(), "6.1").unwrap();
        let wanted = wanted(&tree, &tree.select(["qede", "plain", "hba"].into_iter())).unwrap();
        assert_eq!(wanted.drivers.keys().collect::<Vec<_>>(), ["qede"]);

        let dir = tempfile::tempdir().unwrap();
        assert!(find(&wanted, dir.path()).unwrap().archives.is_empty());
        std::fs::create_dir(dir.path().join("qed")).unwrap();
        std::fs::write(dir.path().join("qed/init.bin.zst"), zstd::bulk::compress(b"blob", 1).unwrap()).unwrap();
        let found = find(&wanted, dir.path()).unwrap();
        assert_eq!(found.files, BTreeSet::from(["qed/init.bin".to_owned()]));
        let [(name, packed, others)] = found.archives.as_slice() else { panic!("{:?}", found.archives) };
        assert_eq!((name.as_str(), others.as_slice()), ("0110778070.img", &["0110778090.img".to_owned()][..]));
        let mut archive = Vec::new();
        let mut stream = zstd::stream::read::Decoder::new(packed.as_slice()).unwrap().single_frame();
        stream.read_to_end(&mut archive).unwrap();
        let holds = |text: &[u8]| archive.windows(text.len()).any(|window| window == text);
        assert!(holds(b"lib/firmware/qed/init.bin\0") && holds(b"blob") && !holds(b"evil"));
    }
}
