//! Master boot record: four primary partitions in the first sector.

use super::{Partition, TableError, le};

/// A master boot record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mbr {
    /// The disk's signature at byte 440, which Linux and Windows tell disks by.
    pub signature: u32,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

impl Mbr {
    /// Whether it only says that there is a GPT.
    pub fn is_protective(&self) -> bool {
        self.partitions.iter().any(|p| p.mbr_type == 0xEE)
    }

    /// Bytes 440 to 511 of the disk. The boot code before them is left alone.
    pub fn encode(&self) -> Result<Vec<u8>, TableError> {
        let mut tail = vec![0u8; 72];
        tail[0..4].copy_from_slice(&self.signature.to_le_bytes());
        for p in &self.partitions {
            let at = (p.number as usize).checked_sub(1).filter(|at| *at < 4);
            let Some(at) = at else {
                return Err(TableError::unfit(format!("an MBR has no partition {}", p.number)));
            };
            let place = u32::try_from(p.first_lba).ok().zip(u32::try_from(p.sectors).ok());
            let place =
                place.filter(|(first, sectors)| *first > 0 && *sectors > 0 && first.checked_add(*sectors).is_some());
            let Some((first, sectors)) = place else {
                return Err(TableError::unfit(format!(
                    "partition {} reaches beyond the 2^32 sectors that an MBR can count; use `table: gpt`",
                    p.number
                )));
            };
            let entry = &mut tail[6 + at * 16..22 + at * 16];
            entry[0] = if p.active { 0x80 } else { 0 };
            // Cylinders, heads and sectors mean nothing any more; this is how "beyond them" is written.
            entry[1..4].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
            entry[4] = p.mbr_type;
            entry[5..8].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        tail[70] = 0x55;
        tail[71] = 0xAA;
        Ok(tail)
    }
}

/// The record in a disk's first 512 bytes. `None`: there is none, or they are the boot sector of a
/// file system, which ends with the same two bytes.
pub fn parse(sector: &[u8]) -> Option<Mbr> {
    if sector.len() < 512 || sector[510..512] != [0x55, 0xAA] {
        return None;
    }
    let mut mbr = Mbr { signature: le::<4>(sector, 440) as u32, partitions: Vec::new() };
    for number in 0..4u32 {
        let entry = sector.get(446 + number as usize * 16..)?.get(..16)?;
        if !matches!(entry[0], 0x00 | 0x80) {
            return None;
        }
        let (first, sectors) = (le::<4>(entry, 8), le::<4>(entry, 12));
        if entry[4] == 0 || sectors == 0 {
            continue;
        }
        if first == 0 {
            return None;
        }
        mbr.partitions.push(Partition {
            number: number + 1,
            first_lba: first,
            sectors,
            name: String::new(),
            type_guid: uuid::Uuid::nil(),
            uuid: uuid::Uuid::nil(),
            attributes: 0,
            mbr_type: entry[4],
            active: entry[0] == 0x80,
        });
    }
    // A FAT or NTFS boot sector without a table has zeros or text where the entries would be.
    let jump = matches!(sector[0], 0xEB | 0xE9);
    if mbr.partitions.is_empty() && jump {
        return None;
    }
    Some(mbr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(number: u32, first_lba: u64, sectors: u64) -> Partition {
        Partition {
            number,
            first_lba,
            sectors,
            name: String::new(),
            type_guid: uuid::Uuid::nil(),
            uuid: uuid::Uuid::nil(),
            attributes: 0,
            mbr_type: 0x83,
            active: number == 1,
        }
    }

    #[test]
    fn says_what_an_mbr_cannot_hold() {
        for p in [partition(5, 2048, 10), partition(1, 2048, 1 << 32), partition(1, 1 << 32, 1), partition(1, 0, 1)] {
            assert!(Mbr { signature: 1, partitions: vec![p.clone()] }.encode().is_err(), "{p:?}");
        }
        assert_eq!(parse(&[0; 512]), None);
        assert_eq!(parse(&[0; 3]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(signature in any::<u32>(), first in 1u32..1 << 30, sectors in 1u32..1 << 30, number in 1u32..=4) {
            let mbr = Mbr { signature, partitions: vec![partition(number, first.into(), sectors.into())] };
            let mut sector = vec![0u8; 512];
            sector[440..].copy_from_slice(&mbr.encode().unwrap());
            prop_assert_eq!(parse(&sector), Some(mbr));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }
    }
}
