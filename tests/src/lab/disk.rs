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

/// What an installation gives a disk, and no boot of it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Of both partition tables, GUIDs and all.
    tables: String,
    /// Of each file system that has one.
    uuids: Vec<String>,
    /// Of our mark of the run that wrote it.
    mark: String,
}

/// Where our mark is, and how long.
const MARK: (u64, u64) = (MIB - 4096, 4096);
/// A GPT's header and entries, of the usual number.
const TABLE: u64 = 33 * SECTOR;

/// The identity of an installed disk, also of one that is in use.
pub(crate) fn identity(disk: &Path) -> Result<Identity> {
    let file = File::open(disk)?;
    let length = file.metadata()?.len();
    let tables = [digest(disk, SECTOR, TABLE)?, digest(disk, length - TABLE, TABLE)?].concat();
    let partitions = partitions(&file)?;
    let uuids = partitions.iter().filter_map(|partition| uuid(&file, partition.start).transpose());
    let uuids = uuids.collect::<Result<Vec<_>>>()?;
    ensure!(!uuids.is_empty(), "no file system on the disk has a UUID");
    let mut mark = [0; MARK.1 as usize];
    file.read_exact_at(&mut mark, MARK.0)?;
    ensure!(mark.iter().any(|byte| *byte != 0), "the disk bears no mark of the run that wrote it");
    Ok(Identity { tables, uuids, mark: digest(disk, MARK.0, MARK.1)? })
}

impl Identity {
    /// What of it is not as it was.
    pub(crate) fn differs(&self, before: &Self) -> Option<&'static str> {
        let Self { tables, uuids, mark } = self;
        [
            (*tables != before.tables, "its partition table or a GUID in it"),
            (*uuids != before.uuids, "the UUID of a file system"),
            (*mark != before.mark, "the mark of the run that wrote it"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

/// The UUID of an ext4 or FAT file system at an offset, if there is one.
fn uuid(disk: &File, at: u64) -> Result<Option<String>> {
    let mut start = [0; 2048];
    disk.read_exact_at(&mut start, at)?;
    // Superblock at 1024, `s_magic` and `s_uuid` in it; a FAT's serial number before its name.
    Ok(if start[1024 + 0x38..1024 + 0x3a] == [0x53, 0xef] {
        Some(hex::encode(&start[1024 + 0x68..1024 + 0x78]))
    } else if start[82..].starts_with(b"FAT32") {
        Some(hex::encode(&start[67..71]))
    } else if start[54..].starts_with(b"FAT") {
        Some(hex::encode(&start[39..43]))
    } else {
        None
    })
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
    fn an_identity_is_all_that_an_installation_gives() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let disk = file.as_file();
        disk.set_len(64 * MIB).unwrap();
        let put = |at: u64, bytes: &[u8]| disk.write_all_at(bytes, at).unwrap();
        let (root, esp) = (8 * MIB, 2 * MIB);
        // A header of 128 entries at sector 2, and two entries.
        put(SECTOR, b"EFI PART");
        put(SECTOR + 72, &[&2_u64.to_le_bytes()[..], &128_u32.to_le_bytes(), &128_u32.to_le_bytes()].concat());
        for (index, start) in [esp, root].into_iter().enumerate() {
            let places = [start / SECTOR, start / SECTOR + 2047].map(u64::to_le_bytes).concat();
            put(2 * SECTOR + index as u64 * 128, &[&[7; 32][..], &places].concat());
        }
        let identity = || identity(file.path());
        assert!(identity().unwrap_err().to_string().contains("UUID"));
        put(root + 1024 + 0x38, &[0x53, 0xef]);
        put(root + 1024 + 0x68, &[1; 16]);
        put(esp + 82, b"FAT32   ");
        assert!(identity().unwrap_err().to_string().contains("mark"));
        put(MIB - 4096, b"a mark");
        let before = identity().unwrap();
        assert_eq!(before.differs(&identity().unwrap()), None);
        let changes = [
            (2 * SECTOR + 16, "GUID"),
            (64 * MIB - SECTOR, "GUID"),
            (root + 1024 + 0x68, "UUID"),
            (esp + 67, "UUID"),
            (MIB - 1, "mark"),
        ];
        for (at, what) in changes {
            let mut old = [0];
            disk.read_exact_at(&mut old, at).unwrap();
            put(at, &[old[0] ^ 1]);
            let differs = identity().unwrap().differs(&before).unwrap_or_default();
            assert!(differs.contains(what), "{at}: {differs}");
            put(at, &old);
        }
        put(root, b"what a boot writes");
        assert_eq!(identity().unwrap(), before);
    }

    #[test]
    fn a_disk_without_a_table_is_named_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MIB).unwrap();
        assert!(partitions(file.as_file()).unwrap_err().to_string().contains("no GPT"));
    }
}
