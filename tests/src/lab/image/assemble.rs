//! Puts a system's files into a file system image, and that into a disk image that BIOS and UEFI boot.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::lab::process::output;

const MIB: u64 = 1024 * 1024;
const SECTOR: u64 = 512;
/// First sector of the partition that GRUB's core image lies in.
const BIOS_BOOT: u64 = 2048;
const ESP: u64 = 2 * MIB;
const ESP_LENGTH: u64 = 33 * MIB;
const ROOT: u64 = ESP + ESP_LENGTH;
/// The label by which the boot loader and the kernel find the root file system.
pub(crate) const LABEL: &str = "dflyroot";

/// The root file system alone.
pub(super) fn root(parts: &Path, into: &Path) -> Result<()> {
    let tree = parts.join("root");
    let used = output(Command::new("du").args(["-sm", "--apparent-size"]).arg(&tree))?;
    let used: u64 = used.split_whitespace().next().and_then(|n| n.parse().ok()).context("du says no size")?;
    // Room for inodes, the journal and what is written before the file system is grown.
    let length = (used * 6 / 5 + 40) * MIB;
    File::create(into)?.set_len(length)?;
    output(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-L", LABEL, "-d"]).arg(&tree).arg(into))?;
    Ok(())
}

/// A whole disk: GPT, BIOS-boot and EFI system partition, root file system.
pub(super) fn disk(parts: &Path, into: &Path) -> Result<()> {
    let filesystem = parts.join("root.ext4");
    root(parts, &filesystem)?;
    let root_length = std::fs::metadata(&filesystem)?.len();
    let disk = File::create(into)?;
    // One more MiB for the backup table.
    disk.set_len(ROOT + root_length + MIB)?;
    let esp = parts.join("esp");
    make_esp(&esp, &parts.join("bootx64.efi"))?;
    copy(&esp, &disk, ESP)?;
    copy(&filesystem, &disk, ROOT)?;
    let sector = |bytes: u64| bytes / SECTOR;
    output(
        Command::new("sgdisk")
            .arg("-o")
            .args([format!("-n1:{BIOS_BOOT}:{}", sector(ESP) - 1), "-t1:EF02".into(), "-c1:bios-boot".into()])
            .args([format!("-n2:{}:{}", sector(ESP), sector(ROOT) - 1), "-t2:EF00".into(), "-c2:esp".into()])
            .args([format!("-n3:{}:{}", sector(ROOT), sector(ROOT + root_length) - 1), "-t3:8304".into()])
            .arg("-c3:dflyroot")
            .arg(into),
    )?;
    let boot = std::fs::read(parts.join("boot.img"))?;
    let core = std::fs::read(parts.join("bios.img"))?;
    let (boot, core) = place_grub(&boot, core, BIOS_BOOT)?;
    ensure!(core.len() as u64 <= ESP - BIOS_BOOT * SECTOR, "GRUB's core image does not fit its partition");
    // The partition table in the first sector stays as it is.
    disk.write_all_at(&boot, 0)?;
    disk.write_all_at(&core, BIOS_BOOT * SECTOR)?;
    disk.sync_all()?;
    std::fs::remove_file(&filesystem)?;
    std::fs::remove_file(&esp)?;
    Ok(())
}

fn make_esp(esp: &Path, loader: &Path) -> Result<()> {
    File::create(esp)?.set_len(ESP_LENGTH)?;
    output(Command::new("mkfs.vfat").args(["-F16", "-n", "ESP"]).arg(esp))?;
    output(Command::new("mmd").arg("-i").arg(esp).args(["::/EFI", "::/EFI/BOOT"]))?;
    output(Command::new("mcopy").arg("-i").arg(esp).arg(loader).arg("::/EFI/BOOT/BOOTX64.EFI"))?;
    Ok(())
}

/// Copies a file to an offset; what is zero stays a hole.
fn copy(from: &Path, to: &File, at: u64) -> Result<()> {
    let from = File::open(from)?;
    let mut piece = vec![0; MIB as usize];
    let mut offset = 0;
    loop {
        let got = from.read_at(&mut piece, offset)?;
        if got == 0 {
            return Ok(());
        }
        if piece[..got].iter().any(|b| *b != 0) {
            to.write_all_at(&piece[..got], at + offset)?;
        }
        offset += got as u64;
    }
}

/// GRUB's `boot.img` and `core.img` as they must lie on a disk: what grub-install would do if the
/// disk were one of this machine's. Offsets are those of GRUB 2's `boot/i386/pc/boot.h`.
///
/// Gives the first 440 bytes of the disk and the core image, which begins at sector `at`.
fn place_grub(boot: &[u8], mut core: Vec<u8>, at: u64) -> Result<(Vec<u8>, Vec<u8>)> {
    const CODE: usize = 440;
    const KERNEL_SECTOR: usize = 0x5c;
    const DRIVE_CHECK: usize = 0x66;
    const BLOCKLIST: usize = 0x1f4;
    ensure!(boot.len() >= SECTOR as usize && core.len() > SECTOR as usize, "GRUB's images are too short");
    core.resize(core.len().next_multiple_of(SECTOR as usize), 0);
    let mut boot = boot[..CODE].to_vec();
    boot[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&at.to_le_bytes());
    // Two no-ops in place of a jump: take the drive that the BIOS names, whatever its number.
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    // The first sector of the core image loads the rest of it: where it begins, how many sectors,
    // to which segment.
    let sectors = u16::try_from(core.len() / SECTOR as usize - 1)?;
    core[BLOCKLIST..BLOCKLIST + 8].copy_from_slice(&(at + 1).to_le_bytes());
    core[BLOCKLIST + 8..BLOCKLIST + 10].copy_from_slice(&sectors.to_le_bytes());
    core[BLOCKLIST + 10..BLOCKLIST + 12].copy_from_slice(&0x820_u16.to_le_bytes());
    Ok((boot, core))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_finds_its_core_image() {
        let (boot, core) = place_grub(&[7; 512], vec![9; 1000], 2048).unwrap();
        assert_eq!(boot.len(), 440, "the partition table that follows stays");
        assert_eq!(boot[0x5c..0x64], 2048_u64.to_le_bytes());
        assert_eq!(boot[0x66..0x68], [0x90, 0x90]);
        assert_eq!(core.len(), 1024);
        assert_eq!(core[0x1f4..0x1fc], 2049_u64.to_le_bytes());
        assert_eq!(core[0x1fc..0x200], [1, 0, 0x20, 8]);
        assert!(place_grub(&[0; 100], vec![0; 1000], 2048).is_err());
    }
}
