//! The magic numbers.

use crate::table::le;

/// Something that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// As `blkid` calls it: `ext4`, `vfat`, `linux_raid_member`, `LVM2_member`, `gpt`.
    pub kind: &'static str,
    /// Its label, if it has one.
    pub label: Option<String>,
    /// Its UUID as text, if it has one.
    pub uuid: Option<String>,
}

impl Signature {
    pub(crate) fn bare(kind: &'static str) -> Self {
        Self { kind, label: None, uuid: None }
    }

    /// Whether it is a file system that can be mounted.
    pub fn is_file_system(&self) -> bool {
        matches!(
            self.kind,
            "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "vfat" | "exfat" | "ntfs" | "f2fs" | "iso9660" | "squashfs"
        )
    }
}

/// Everything recognised in the first bytes (1 MiB, or all) and last bytes (1 MiB, or all) of
/// something `size` bytes long.
pub fn find(head: &[u8], tail: &[u8], size: u64) -> Vec<Signature> {
    let mut found = Vec::new();
    let mut add = |signature: Option<Signature>| found.extend(signature);
    add(luks(head));
    add(lvm(head));
    add(raid(head, tail, size));
    add(zfs(head, tail));
    add(bcache(head));
    add(ext(head));
    add(xfs(head));
    add(btrfs(head));
    add(f2fs(head));
    add(swap(head));
    add(fat(head));
    add(at(head, 3, b"NTFS    ", "ntfs"));
    add(at(head, 3, b"EXFAT   ", "exfat"));
    add(at(head, 0x8001, b"CD001", "iso9660"));
    add(at(head, 0, b"hsqs", "squashfs"));
    add(at(head, 3, b"-FVE-FS-", "BitLocker"));
    add(ddf(tail));
    add(imsm(tail));
    found
}

fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
}

fn at(bytes: &[u8], offset: usize, magic: &[u8], kind: &'static str) -> Option<Signature> {
    has(bytes, offset, magic).then(|| Signature::bare(kind))
}

/// Text up to the first null byte, control characters replaced: labels are written by strangers.
fn text(bytes: &[u8], offset: usize, length: usize) -> Option<String> {
    let field = bytes.get(offset..offset.checked_add(length)?)?;
    let field = field.split(|b| *b == 0).next()?;
    let text: String = String::from_utf8_lossy(field)
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect();
    (!text.is_empty()).then_some(text)
}

fn uuid(bytes: &[u8], offset: usize) -> Option<String> {
    let raw: [u8; 16] = bytes.get(offset..offset.checked_add(16)?)?.try_into().ok()?;
    (raw != [0; 16]).then(|| uuid::Uuid::from_bytes(raw).to_string())
}

fn ext(head: &[u8]) -> Option<Signature> {
    let block = head.get(1024..2048)?;
    if le::<2>(block, 0x38) != 0xEF53 {
        return None;
    }
    let (compat, incompat) = (le::<4>(block, 0x5C), le::<4>(block, 0x60));
    if incompat & 0x8 != 0 {
        return Some(Signature::bare("jbd"));
    }
    // Extents, 64 bit, flex_bg, metadata_csum and their like: ext4.
    let ro_compat = le::<4>(block, 0x64);
    let kind = match (incompat & !0x16 != 0 || ro_compat & !0x7 != 0, compat & 0x4 != 0) {
        (true, _) => "ext4",
        (false, true) => "ext3",
        (false, false) => "ext2",
    };
    Some(Signature { kind, label: text(block, 0x78, 16), uuid: uuid(block, 0x68) })
}

fn xfs(head: &[u8]) -> Option<Signature> {
    has(head, 0, b"XFSB").then(|| Signature { kind: "xfs", label: text(head, 108, 12), uuid: uuid(head, 32) })
}

fn btrfs(head: &[u8]) -> Option<Signature> {
    has(head, 0x10040, b"_BHRfS_M").then(|| Signature {
        kind: "btrfs",
        label: text(head, 0x1012B, 256),
        uuid: uuid(head, 0x10020),
    })
}

fn f2fs(head: &[u8]) -> Option<Signature> {
    has(head, 1024, &0xF2F5_2010u32.to_le_bytes()).then(|| Signature::bare("f2fs"))
}

/// The magic number ends the first page, whose size depends on the machine that made it.
fn swap(head: &[u8]) -> Option<Signature> {
    [4096usize, 8192, 16384, 65536].into_iter().find_map(|page| {
        let magic = has(head, page - 10, b"SWAPSPACE2") || has(head, page - 10, b"SWAP-SPACE");
        magic.then(|| Signature { kind: "swap", label: text(head, 1052, 16), uuid: uuid(head, 1036) })
    })
}

fn fat(head: &[u8]) -> Option<Signature> {
    if !has(head, 510, &[0x55, 0xAA]) {
        return None;
    }
    let (label_at, id_at) = if has(head, 82, b"FAT32   ") {
        (71, 67)
    } else if has(head, 54, b"FAT16   ") || has(head, 54, b"FAT12   ") || has(head, 54, b"FAT     ") {
        (43, 39)
    } else {
        return None;
    };
    let id = le::<4>(head, id_at);
    let label = text(head, label_at, 11).filter(|l| l != "NO NAME");
    Some(Signature { kind: "vfat", label, uuid: Some(format!("{:04X}-{:04X}", id >> 16, id & 0xFFFF)) })
}

fn luks(head: &[u8]) -> Option<Signature> {
    has(head, 0, b"LUKS\xBA\xBE").then(|| Signature { kind: "crypto_LUKS", label: None, uuid: text(head, 168, 40) })
}

/// The label lies in one of the first four sectors.
fn lvm(head: &[u8]) -> Option<Signature> {
    (0..4).find_map(|n| {
        let at = n * 512;
        (has(head, at, b"LABELONE") && has(head, at + 24, b"LVM2 001")).then(|| Signature::bare("LVM2_member"))
    })
}

/// Version 1.1 and 1.2 at the start, 0.90 and 1.0 at the end.
fn raid(head: &[u8], tail: &[u8], size: u64) -> Option<Signature> {
    const MAGIC: [u8; 4] = 0xA92B_4EFCu32.to_le_bytes();
    let in_tail = |offset: u64| -> Option<usize> {
        let begins = size.checked_sub(tail.len() as u64)?;
        usize::try_from(offset.checked_sub(begins)?).ok()
    };
    let at_start = has(head, 0, &MAGIC) || has(head, 4096, &MAGIC);
    let old = (size / 65536).checked_sub(1).map(|n| n * 65536);
    let one = size.checked_sub(8192).map(|n| n / 4096 * 4096);
    let at_end = [old, one].into_iter().flatten().filter_map(in_tail).any(|at| has(tail, at, &MAGIC));
    (at_start || at_end).then(|| Signature::bare("linux_raid_member"))
}

/// Four labels of 256 KiB, two at either end; the uberblocks in their second half carry the magic.
fn zfs(head: &[u8], tail: &[u8]) -> Option<Signature> {
    let magic = 0x00BA_B10Cu64;
    let label = |bytes: &[u8]| {
        bytes.get(128 * 1024..256 * 1024).is_some_and(|ring| {
            ring.chunks(1024).any(|u| has(u, 0, &magic.to_le_bytes()) || has(u, 0, &magic.to_be_bytes()))
        })
    };
    let ends = tail.len().checked_sub(512 * 1024).and_then(|at| tail.get(at..));
    (label(head) || ends.is_some_and(label)).then(|| Signature::bare("zfs_member"))
}

fn bcache(head: &[u8]) -> Option<Signature> {
    const MAGIC: [u8; 16] =
        [0xC6, 0x85, 0x73, 0xF6, 0x4E, 0x1A, 0x45, 0xCA, 0x82, 0x65, 0xF5, 0x7F, 0x48, 0xBA, 0x6D, 0x81];
    at(head, 4096 + 24, &MAGIC, "bcache")
}

/// SNIA DDF: its anchor header is the last sector.
fn ddf(tail: &[u8]) -> Option<Signature> {
    at(tail, tail.len().checked_sub(512)?, &[0xDE, 0x11, 0xDE, 0x11], "ddf_raid_member")
}

/// Intel Matrix Storage: the second to last sector.
fn imsm(tail: &[u8]) -> Option<Signature> {
    at(tail, tail.len().checked_sub(1024)?, b"Intel Raid ISM Cfg Sig. ", "isw_raid_member")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recognises_magic_numbers_where_they_belong() {
        let table: [(usize, &[u8], &str); 16] = [
            (0, b"XFSB", "xfs"),
            (0, b"LUKS\xBA\xBE", "crypto_LUKS"),
            (0x10040, b"_BHRfS_M", "btrfs"),
            (4086, b"SWAPSPACE2", "swap"),
            (65526, b"SWAPSPACE2", "swap"),
            (3, b"NTFS    ", "ntfs"),
            (3, b"EXFAT   ", "exfat"),
            (0x8001, b"CD001", "iso9660"),
            (0, b"hsqs", "squashfs"),
            (4096, &[0xFC, 0x4E, 0x2B, 0xA9], "linux_raid_member"),
            (0, &[0xFC, 0x4E, 0x2B, 0xA9], "linux_raid_member"),
            ((4 << 20) - 65536, &[0xFC, 0x4E, 0x2B, 0xA9], "linux_raid_member"),
            ((4 << 20) - 8192, &[0xFC, 0x4E, 0x2B, 0xA9], "linux_raid_member"),
            (128 * 1024 + 3 * 1024, &[0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0], "zfs_member"),
            ((4 << 20) - 512, &[0xDE, 0x11, 0xDE, 0x11], "ddf_raid_member"),
            ((4 << 20) - 1024, b"Intel Raid ISM Cfg Sig. ", "isw_raid_member"),
        ];
        for (offset, magic, kind) in table {
            let mut disk = vec![0u8; 4 << 20];
            disk[offset..offset + magic.len()].copy_from_slice(magic);
            let found = find(&disk[..1 << 20], &disk[3 << 20..], 4 << 20);
            assert_eq!(found.iter().map(|s| s.kind).collect::<Vec<_>>(), [kind], "at {offset}");
        }
        assert!(find(&[0; 4096], &[0; 4096], 4096).is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(head in proptest::collection::vec(any::<u8>(), 0..5000), tail in proptest::collection::vec(any::<u8>(), 0..5000), size in any::<u64>()) {
            let _ = find(&head, &tail, size);
        }
    }
}
