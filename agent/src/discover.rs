//! An operating system that is on the disks already, found by looking and touching nothing.
//!
//! File systems are mounted read-only and without replaying their journals. Nothing is assembled:
//! no RAID, no LVM, no pool; what is inside those shows by the boot loader in front of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use dragonfly_core::resource::hardware::ExistingOs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::inventory::{Roots, is_disk_name};

/// Where a file system is looked at.
const LOOK: &str = "/run/mage/look";

/// Looks at every disk; the first system found is told. Blocks.
pub fn existing_os(roots: &Roots) -> Option<ExistingOs> {
    let mut disks: Vec<String> = std::fs::read_dir(roots.sys.join("block"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| is_disk_name(name))
        .collect();
    disks.sort();
    // The name inside a file system says more than a boot loader in front of it.
    disks
        .iter()
        .find_map(|disk| in_file_systems(roots, disk))
        .or_else(|| disks.iter().find_map(|disk| by_boot_code(roots, disk)))
}

fn in_file_systems(roots: &Roots, disk: &str) -> Option<ExistingOs> {
    let mut places: Vec<String> = std::fs::read_dir(roots.sys.join("block").join(disk))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.path().join("partition").exists())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    places.sort();
    if places.is_empty() {
        places.push(disk.to_owned());
    }
    let mut loader = None;
    for place in places.iter().take(64) {
        let device = roots.dev.join(place);
        let Some((kind, options)) = file_system(&device) else { continue };
        let found = look_into(&device, kind, options);
        let found = found.map(|f| ExistingOs { name: f.name, disk: disk.to_owned(), evidence: f.evidence.to_owned() });
        match found {
            Some(os) if os.evidence == "os-release" => return Some(os),
            other => loader = loader.or(other),
        }
    }
    loader
}

struct Found {
    name: String,
    evidence: &'static str,
}

fn look_into(device: &Path, kind: &str, options: Option<&str>) -> Option<Found> {
    std::fs::create_dir_all(LOOK).ok()?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(device), LOOK, Some(kind), flags, options).ok()?;
    let found = look_around(Path::new(LOOK), kind);
    let _ = umount2(LOOK, MntFlags::MNT_DETACH);
    found
}

/// What a mounted file system shows.
fn look_around(root: &Path, kind: &str) -> Option<Found> {
    for file in ["etc/os-release", "usr/lib/os-release", "@/etc/os-release", "root/etc/os-release"] {
        // A link may lead out of the file system that is looked at.
        let path = root.join(file);
        let plain = std::fs::canonicalize(&path).is_ok_and(|p| p.starts_with(root));
        if let Some(name) = plain.then(|| read_bounded(&path)).flatten().as_deref().and_then(os_name) {
            return Some(Found { name, evidence: "os-release" });
        }
    }
    if root.join("Windows/System32").is_dir() {
        return Some(Found { name: "Windows".to_owned(), evidence: "os-release" });
    }
    if kind == "vfat" {
        return efi_loader(root).map(|name| Found { name, evidence: "efi-system-partition" });
    }
    None
}

/// Whose boot loader an EFI system partition holds: a folder with a program in it beside the
/// removable default, whose owner nobody knows.
fn efi_loader(root: &Path) -> Option<String> {
    let mut vendors: Vec<String> = std::fs::read_dir(root.join("EFI"))
        .or_else(|_| std::fs::read_dir(root.join("efi")))
        .ok()?
        .flatten()
        .filter(|e| has_program(&e.path(), 2))
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| !name.eq_ignore_ascii_case("boot"))
        .collect();
    vendors.sort();
    let vendor = vendors.first()?;
    Some(if vendor.eq_ignore_ascii_case("microsoft") {
        "Windows".to_owned()
    } else {
        format!("{vendor} (by its boot loader)")
    })
}

fn has_program(dir: &Path, depth: u32) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().take(256).any(|e| {
        let path = e.path();
        path.extension().is_some_and(|x| x.eq_ignore_ascii_case("efi"))
            || (depth > 0 && path.is_dir() && has_program(&path, depth - 1))
    })
}

fn read_bounded(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(16 * 1024).read_to_end(&mut text).ok()?;
    String::from_utf8(text).ok()
}

/// The name in an os-release file (os-release(5)).
pub fn os_name(text: &str) -> Option<String> {
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='))?;
        let line = line.trim().trim_matches(|c| c == '"' || c == '\'');
        crate::inventory::clean(line.as_bytes())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).or_else(|| value("ID"))
}

/// Which file system begins here, and the options that keep the kernel from writing to it.
fn file_system(device: &Path) -> Option<(&'static str, Option<&'static str>)> {
    let mut head = vec![0u8; 68 * 1024];
    let mut file = File::open(device).ok()?;
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    head.truncate(filled);
    kind_of(&head)
}

/// By the magic numbers at their places.
fn kind_of(head: &[u8]) -> Option<(&'static str, Option<&'static str>)> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if at(1080, &[0x53, 0xef]) {
        // The ext4 driver reads ext2 and ext3 too.
        Some(("ext4", Some("noload")))
    } else if at(0, b"XFSB") {
        Some(("xfs", Some("norecovery")))
    } else if at(65600, b"_BHRfS_M") {
        Some(("btrfs", Some("rescue=nologreplay")))
    } else if at(54, b"FAT1") || at(82, b"FAT32") {
        Some(("vfat", None))
    } else {
        None
    }
}

fn by_boot_code(roots: &Roots, disk: &str) -> Option<ExistingOs> {
    let mut file = File::open(roots.dev.join(disk)).ok()?;
    let mut head = vec![0u8; 512];
    file.read_exact(&mut head).ok()?;
    let sector: u64 =
        crate::inventory::number(&roots.sys.join("block").join(disk).join("queue/logical_block_size")).unwrap_or(512);
    let mut table = vec![0u8; 128 * 128];
    let gpt = file.seek(SeekFrom::Start(sector * 2)).and_then(|_| file.read_exact(&mut table)).is_ok();
    boots_by_bios(&head, gpt.then_some(table.as_slice())).then(|| ExistingOs {
        name: "unknown (a boot loader in the first sector)".to_owned(),
        disk: disk.to_owned(),
        evidence: "boot-loader".to_owned(),
    })
}

/// Whether a BIOS would start something from this disk: code in the first sector, its signature, and a
/// partition to go on to: an active one, or in a GPT a BIOS boot partition.
pub fn boots_by_bios(first_sector: &[u8], gpt_entries: Option<&[u8]>) -> bool {
    /// 21686148-6449-6E6F-744E-656564454649 as it is stored.
    const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";
    let Some(code) = first_sector.get(..440) else { return false };
    if first_sector.get(510..512) != Some(&[0x55, 0xaa]) || code.iter().all(|b| *b == 0) {
        return false;
    }
    let entries = first_sector.get(446..510).unwrap_or_default();
    let protective = entries.chunks_exact(16).any(|e| e[4] == 0xee);
    if protective {
        gpt_entries.is_some_and(|table| table.chunks_exact(128).any(|e| e.starts_with(&BIOS_BOOT)))
    } else {
        entries.chunks_exact(16).any(|e| e[0] == 0x80 && e[4] != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_os_release() {
        let table = [
            ("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", Some("Debian GNU/Linux 12 (bookworm)")),
            ("ID=alpine\n", Some("alpine")),
            ("PRETTY_NAME=\"\"\nNAME='Arch Linux'", Some("Arch Linux")),
            ("", None),
            ("PRETTY_NAME_OLD=x", None),
        ];
        for (text, want) in table {
            assert_eq!(os_name(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn what_a_bios_would_start() {
        let sector = |code: u8, active: u8, kind: u8| {
            let mut s = vec![0u8; 512];
            s[0] = code;
            (s[446], s[450]) = (active, kind);
            (s[510], s[511]) = (0x55, 0xaa);
            s
        };
        let mut table = vec![0u8; 1024];
        table[128..144].copy_from_slice(b"Hah!IdontNeedEFI");
        let rows = [
            (sector(0xeb, 0x80, 0x83), None, true),
            (sector(0xeb, 0, 0x83), None, false),
            (sector(0, 0x80, 0x83), None, false),
            (sector(0xeb, 0, 0xee), Some(&table[..]), true),
            (sector(0xeb, 0, 0xee), Some(&table[..128]), false),
            (sector(0xeb, 0x80, 0xee), None, false),
            (vec![0xeb; 100], None, false),
        ];
        for (n, (head, gpt, want)) in rows.into_iter().enumerate() {
            assert_eq!(boots_by_bios(&head, gpt), want, "row {n}");
        }
    }

    #[test]
    fn file_systems_by_their_magic() {
        let with = |at: usize, magic: &[u8]| {
            let mut head = vec![0u8; 68 * 1024];
            head[at..at + magic.len()].copy_from_slice(magic);
            head
        };
        let table = [
            (with(1080, &[0x53, 0xef]), Some("ext4")),
            (with(0, b"XFSB"), Some("xfs")),
            (with(82, b"FAT32   "), Some("vfat")),
            (with(65600, b"_BHRfS_M"), Some("btrfs")),
            (with(0, b"LUKS"), None),
            (vec![0; 10], None),
        ];
        for (head, want) in table {
            assert_eq!(kind_of(&head).map(|(k, _)| k), want);
        }
    }

    #[test]
    fn a_loader_beside_the_removable_default() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join("EFI/BOOT");
        std::fs::create_dir_all(&boot).unwrap();
        std::fs::write(boot.join("BOOTX64.EFI"), b"MZ").unwrap();
        assert_eq!(efi_loader(dir.path()), None);
        let vendor = dir.path().join("EFI/debian");
        std::fs::create_dir_all(&vendor).unwrap();
        assert_eq!(efi_loader(dir.path()), None, "a folder without a program");
        std::fs::write(vendor.join("grubx64.efi"), b"MZ").unwrap();
        assert_eq!(efi_loader(dir.path()).as_deref(), Some("debian (by its boot loader)"));
    }
}
