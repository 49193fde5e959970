//! Device nodes of partitions: the kernel is told, and its node is waited for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dragonfly_core::action::ActionError;

use super::disk::OpenDisk;
use super::fail::{OrFailed, because};
use super::host::{Host, read};
use super::sys::{self, Blkpg};
use crate::table::Partition;

/// How long a node may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);

/// A partition's kernel name: `sda3`, `nvme0n1p3`.
pub(crate) fn partition_name(disk: &str, number: u32) -> String {
    let p = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{p}{number}")
}

/// What the kernel is to be told so that it knows these partitions and no others. Places in bytes.
fn changes(known: &BTreeMap<u32, (u64, u64)>, wanted: &BTreeMap<u32, (u64, u64)>) -> Vec<(Blkpg, u32, u64, u64)> {
    let mut changes = Vec::new();
    for (number, place) in known {
        match wanted.get(number) {
            Some(want) if want == place => {}
            Some((start, length)) if *start == place.0 => changes.push((Blkpg::Resize, *number, *start, *length)),
            _ => changes.push((Blkpg::Remove, *number, 0, 0)),
        }
    }
    for (number, (start, length)) in wanted {
        if known.get(number).is_none_or(|place| place.0 != *start) {
            changes.push((Blkpg::Add, *number, *start, *length));
        }
    }
    // Before one can grow, the one that lies there has to go.
    changes.sort_by_key(|(what, ..)| match what {
        Blkpg::Remove => 0,
        Blkpg::Resize => 1,
        Blkpg::Add => 2,
    });
    changes
}

impl Host {
    /// The partitions of a disk as the kernel knows them: number, start and length in bytes.
    fn known(&self, disk: &str) -> BTreeMap<u32, (u64, u64)> {
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(self.sys.join("block").join(disk)).into_iter().flatten().flatten() {
            let number = |file: &str| read(&entry.path().join(file)).and_then(|text| text.parse::<u64>().ok());
            if let (Some(n), Some(start), Some(size)) = (number("partition"), number("start"), number("size")) {
                known.insert(n as u32, (start.saturating_mul(512), size.saturating_mul(512)));
            }
        }
        known
    }

    /// Makes the kernel know exactly these partitions of a disk. A kernel without a parser for the
    /// table knows none by itself and is told each.
    pub(crate) fn announce(&self, disk: &OpenDisk, partitions: &[Partition]) -> Result<(), ActionError> {
        let sector = u64::from(disk.sector);
        let wanted: BTreeMap<u32, (u64, u64)> = partitions
            .iter()
            // An extended partition is a container, not something to open.
            .filter(|p| !matches!(p.mbr_type, 0x05 | 0x0F | 0x85))
            .map(|p| (p.number, (p.first_lba.saturating_mul(sector), p.sectors.saturating_mul(sector))))
            .collect();
        if changes(&self.known(&disk.name), &wanted).is_empty() {
            return Ok(());
        }
        // Refused while a partition is open somewhere, and by loop devices without partition
        // scanning; then the kernel is told one by one.
        let _ = sys::reread(&disk.file);
        for (what, number, start, length) in changes(&self.known(&disk.name), &wanted) {
            sys::tell(&disk.file, what, number, start, length).or_failed(|| {
                format!(
                    "the kernel does not take the new place of {}; something may still use it",
                    partition_name(&disk.name, number)
                )
            })?;
        }
        Ok(())
    }

    /// The node of a partition that the kernel knows. Waits for it; where nobody makes nodes it is
    /// made. Blocks.
    pub(crate) fn partition_node(&self, disk: &str, number: u32) -> Result<PathBuf, ActionError> {
        let name = partition_name(disk, number);
        let node = self.dev.join(&name);
        let at = self.sys.join("block").join(disk).join(&name).join("dev");
        let begin = Instant::now();
        loop {
            let known = read(&at).and_then(|text| {
                let (major, minor) = text.split_once(':')?;
                Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
            });
            match known {
                Some(device) if is_node(&node, device) => return Ok(node),
                // Nobody made it in half of the time: nobody will.
                Some(device) if begin.elapsed() > PATIENCE / 2 && !node.exists() => {
                    use nix::sys::stat::{Mode, SFlag, mknod};
                    mknod(&node, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), device)
                        .or_failed(|| format!("{} could not be made", node.display()))?;
                }
                _ if begin.elapsed() > PATIENCE => {
                    return because(format!(
                        "{} does not appear; the kernel does not know this partition",
                        node.display()
                    ));
                }
                // Fine here: this runs on a thread that may block.
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

fn is_node(node: &Path, device: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(node).is_ok_and(|meta| meta.rdev() == device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kernel() {
        assert_eq!(partition_name("sda", 3), "sda3");
        assert_eq!(partition_name("nvme0n1", 1), "nvme0n1p1");
        assert_eq!(partition_name("mmcblk0", 2), "mmcblk0p2");
        assert_eq!(partition_name("loop7", 2), "loop7p2");
    }

    #[test]
    fn the_kernel_is_told_only_what_changed() {
        let map = |list: &[(u32, u64, u64)]| list.iter().map(|(n, s, l)| (*n, (*s, *l))).collect::<BTreeMap<_, _>>();
        let old = map(&[(1, 1, 10), (2, 11, 10), (3, 30, 5)]);
        assert!(changes(&old, &old).is_empty());
        assert_eq!(changes(&old, &map(&[])).len(), 3);
        assert_eq!(
            changes(&old, &map(&[(1, 1, 10), (2, 11, 19), (4, 40, 5)])),
            [(Blkpg::Remove, 3, 0, 0), (Blkpg::Resize, 2, 11, 19), (Blkpg::Add, 4, 40, 5)]
        );
        assert_eq!(changes(&old, &map(&[(1, 2, 9)])).last(), Some(&(Blkpg::Add, 1, 2, 9)));
    }
}
