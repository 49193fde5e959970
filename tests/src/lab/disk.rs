//! Reads a machine's disk from outside, after the machine has stopped.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use sha2::{Digest as _, Sha256};

use super::process::output;

const SECTOR: u64 = 512;
const MIB: u64 = 1024 * 1024;

/// A partition of a GPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) start: u64,
    pub(crate) length: u64,
}

/// An installed disk is as the template wants it: a sound GPT with its backup at the end, the last
/// partition grown to there and its file system to the partition, and the nonce in it.
pub(crate) fn check_installed(disk: &Path, nonce: &str) -> Result<()> {
    let file = File::open(disk)?;
    let length = file.metadata()?.len();
    let partitions = partitions(&file)?;
    let mut header = [0; 8];
    file.read_exact_at(&mut header, length - SECTOR)?;
    ensure!(&header == b"EFI PART", "the backup partition table is not at the disk's end");
    let verdict = output(Command::new("sgdisk").arg("-v").arg(disk))?;
    ensure!(verdict.contains("No problems found"), "sgdisk finds problems:\n{verdict}");
    let root = *partitions.iter().max_by_key(|p| p.start).context("the partition table is empty")?;
    ensure!(
        length - (root.start + root.length) <= 2 * MIB,
        "the last partition ends {} bytes before the disk's end: it was not grown",
        length - (root.start + root.length)
    );
    let filesystem = ext4_bytes(&file, root.start)?;
    ensure!(
        root.length - filesystem.min(root.length) <= 16 * MIB,
        "the file system has {filesystem} of the partition's {} bytes: it was not grown",
        root.length
    );
    check_nonce(disk, root, nonce)
}

/// A disk whose image was written as it is, and not grown: what was placed on it in this run is there.
pub(crate) fn check_written(disk: &Path, nonce: &str) -> Result<()> {
    let partitions = partitions(&File::open(disk)?)?;
    let root = *partitions.iter().max_by_key(|p| p.start).context("the partition table is empty")?;
    check_nonce(disk, root, nonce)
}

fn check_nonce(disk: &Path, root: Partition, nonce: &str) -> Result<()> {
    let found = read_file(disk, root, "/etc/dragonfly-nonce")?;
    ensure!(found.trim() == nonce, "/etc/dragonfly-nonce holds `{}`, not this run's `{nonce}`", found.trim());
    Ok(())
}

/// An image on its way leaves no boot code, and no table unless the template wrote one itself before.
pub(crate) fn must_not_boot(disk: &Path) -> Result<()> {
    let mut start = [0; 1024];
    File::open(disk)?.read_exact_at(&mut start, 0)?;
    ensure!(start[..440].iter().all(|byte| *byte == 0), "there is boot code in its first sector");
    Ok(())
}

/// The partitions of a GPT disk.
pub(crate) fn partitions(disk: &File) -> Result<Vec<Partition>> {
    let mut header = [0; 512];
    disk.read_exact_at(&mut header, SECTOR)?;
    ensure!(header.starts_with(b"EFI PART"), "there is no GPT on the disk");
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    let (table, count, size) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84));
    ensure!(count <= 1024 && (128..=4096).contains(&size), "the GPT's header makes no sense");
    let mut found = Vec::new();
    for index in 0..u64::from(count) {
        let mut entry = [0; 128];
        disk.read_exact_at(&mut entry, table * SECTOR + index * u64::from(size))?;
        if entry[..16].iter().any(|b| *b != 0) {
            let (first, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
            ensure!(last >= first, "partition {} ends before it begins", index + 1);
            found.push(Partition { start: first * SECTOR, length: (last - first + 1) * SECTOR });
        }
    }
    Ok(found)
}

/// Size of the ext4 file system at an offset: blocks times block size, from its superblock.
fn ext4_bytes(disk: &File, at: u64) -> Result<u64> {
    let mut block = [0; 1024];
    disk.read_exact_at(&mut block, at + 1024)?;
    ensure!(block[0x38..0x3a] == [0x53, 0xef], "there is no ext4 file system in the last partition");
    let u32_at = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap_or_default());
    let blocks = u64::from(u32_at(4)) | u64::from(u32_at(0x150)) << 32;
    Ok(blocks * (1024_u64 << u32_at(0x18).min(6)))
}

/// A file of the system that is installed on a disk: its last partition is the root.
pub(crate) fn read_installed(disk: &Path, path: &str) -> Result<String> {
    let root = partitions(&File::open(disk)?)?.into_iter().max_by_key(|p| p.start).context("no partition")?;
    read_file(disk, root, path)
}

fn read_file(disk: &Path, partition: Partition, path: &str) -> Result<String> {
    let device = format!("{}?offset={}", disk.display(), partition.start);
    output(Command::new("debugfs").args(["-R", &format!("cat {path}"), &device]))
}

/// SHA-256 of a stretch of the disk, in hexadecimal.
pub(crate) fn digest(disk: &Path, start: u64, length: u64) -> Result<String> {
    let file = File::open(disk)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; MIB as usize];
    let mut at = start;
    while at < start + length {
        let want = usize::try_from((start + length - at).min(MIB))?;
        let got = file.read_at(&mut piece[..want], at)?;
        ensure!(got > 0, "the disk ends at {at}");
        digest.update(&piece[..got]);
        at += got as u64;
    }
    Ok(hex::encode(digest.finalize()))
}

/// Where the first byte lies that is not zero, if there is one. What was never written is not read: the
/// file system knows where that is.
pub(crate) fn first_written(disk: &Path) -> Result<Option<u64>> {
    let file = File::open(disk).with_context(|| disk.display().to_string())?;
    let mut piece = vec![0; MIB as usize];
    let mut at = 0;
    loop {
        at = match lseek(&file, at, Whence::SeekData) {
            Ok(at) => at,
            // Nothing but a hole from here to the end.
            Err(Errno::ENXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let hole = lseek(&file, at, Whence::SeekHole)?;
        while at < hole {
            let want = usize::try_from((hole - at).min(MIB as i64))?;
            let got = file.read_at(&mut piece[..want], u64::try_from(at)?)?;
            ensure!(got > 0, "the disk ends at {at}");
            if let Some(index) = piece[..got].iter().position(|byte| *byte != 0) {
                return Ok(Some(u64::try_from(at)? + index as u64));
            }
            at += i64::try_from(got)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = || first_written(file.path()).unwrap();
        assert_eq!(first(), None, "a file without a byte");
        file.as_file().set_len(64 * MIB).unwrap();
        assert_eq!(first(), None);
        file.as_file().write_all_at(&[0; 4096], 8 * MIB).unwrap();
        assert_eq!(first(), None, "zeros that were written");
        for at in [64 * MIB - 1, 8 * MIB + 4095, 3 * MIB + 7, 0] {
            file.as_file().write_all_at(&[1], at).unwrap();
            assert_eq!(first(), Some(at));
        }
    }

    #[test]
    fn a_disk_without_a_table_is_named_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MIB).unwrap();
        assert!(partitions(file.as_file()).unwrap_err().to_string().contains("no GPT"));
    }
}
