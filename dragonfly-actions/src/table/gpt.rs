//! GUID partition table (UEFI 2.10, 5.3).
//!
//! ```text
//! LBA 0        protective MBR
//! LBA 1        header
//! LBA 2 ..     entries (128 x 128 bytes)
//!              partitions
//! ... LBA -2   entries again
//! LBA -1       header again
//! ```

use std::io::{self, Read, Seek};

use uuid::Uuid;

use super::crc::crc32;
use super::{Partition, TableError, le, read_at};

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER: usize = 92;
const ENTRY: usize = 128;
/// How many entries we write, and the least that the specification allows.
const ENTRIES: usize = 128;
/// The most entries that we read: enough for any table that has been seen, small enough to hold.
const MOST_ENTRIES: u64 = 1024;

/// A GUID partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    /// The disk's GUID.
    pub disk_guid: Uuid,
    /// First sector that a partition may use.
    pub first_usable: u64,
    /// Last sector that a partition may use.
    pub last_usable: u64,
    /// Where the second header lies.
    pub backup_lba: u64,
    /// How many entries its arrays have.
    pub entries: u32,
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
    /// Whether it was read from its second copy because the first is damaged.
    pub from_backup: bool,
}

/// Bytes and where they belong on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Offset in bytes from the disk's start.
    pub offset: u64,
    /// What is to stand there.
    pub bytes: Vec<u8>,
}

impl Gpt {
    /// An empty table for a disk of `size` bytes.
    pub fn new(disk_guid: Uuid, size: u64, sector: u32) -> Result<Self, TableError> {
        let mut gpt = Self {
            disk_guid,
            first_usable: 0,
            last_usable: 0,
            backup_lba: 0,
            entries: ENTRIES as u32,
            partitions: Vec::new(),
            from_backup: false,
        };
        gpt.fit(size, sector)?;
        Ok(gpt)
    }

    /// Sets its limits for a disk of `size` bytes: what moves the second copy when a disk has grown.
    pub fn fit(&mut self, size: u64, sector: u32) -> Result<(), TableError> {
        let sector = u64::from(check_sector(sector)?);
        let sectors = size / sector;
        let array = self.array_sectors(sector);
        // MBR, two headers, two arrays, and something to partition.
        if sectors < 2 * array + 4 {
            return Err(TableError::unfit(format!("a disk of {size} bytes has no room for it")));
        }
        self.backup_lba = sectors - 1;
        self.last_usable = sectors - 2 - array;
        // A table that was read keeps its first usable sector.
        if self.first_usable == 0 {
            self.first_usable = 2 + array;
        }
        Ok(())
    }

    fn array_sectors(&self, sector: u64) -> u64 {
        (u64::from(self.entries) * ENTRY as u64).div_ceil(sector)
    }

    /// Everything that has to be written: protective MBR, both headers, both arrays. The second
    /// copy comes first: a stop in between leaves one that is whole.
    pub fn encode(&self, size: u64, sector: u32) -> Result<Vec<Piece>, TableError> {
        let sector = u64::from(check_sector(sector)?);
        let array_sectors = self.array_sectors(sector);
        let mut array = vec![0u8; (array_sectors * sector) as usize];
        let mut spans: Vec<(u64, u64, u32)> = Vec::new();
        for p in &self.partitions {
            let at = (p.number as usize).checked_sub(1).filter(|at| *at < self.entries as usize);
            let Some(at) = at else {
                return Err(TableError::unfit(format!("there is no room for number {}", p.number)));
            };
            let last = p.first_lba.checked_add(p.sectors).and_then(|end| end.checked_sub(1));
            let last =
                last.filter(|last| p.sectors > 0 && p.first_lba >= self.first_usable && *last <= self.last_usable);
            let Some(last) = last else {
                return Err(TableError::unfit(format!("partition {} lies outside the disk", p.number)));
            };
            if let Some((_, _, other)) = spans.iter().find(|(first, end, _)| p.first_lba <= *end && last >= *first) {
                return Err(TableError::unfit(format!("partitions {other} and {} overlap", p.number)));
            }
            spans.push((p.first_lba, last, p.number));
            let entry = &mut array[at * ENTRY..(at + 1) * ENTRY];
            if entry.iter().any(|b| *b != 0) {
                return Err(TableError::unfit(format!("number {} is there twice", p.number)));
            }
            entry[0..16].copy_from_slice(&p.type_guid.to_bytes_le());
            entry[16..32].copy_from_slice(&p.uuid.to_bytes_le());
            entry[32..40].copy_from_slice(&p.first_lba.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            entry[48..56].copy_from_slice(&p.attributes.to_le_bytes());
            for (slot, unit) in entry[56..128].chunks_exact_mut(2).zip(p.name.encode_utf16()) {
                slot.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let sum = crc32(&array[..self.entries as usize * ENTRY]);
        let backup_array = self.backup_lba.saturating_sub(array_sectors);
        let first = self.header(1, self.backup_lba, 2, sum, sector);
        let second = self.header(self.backup_lba, 1, backup_array, sum, sector);
        Ok(vec![
            Piece { offset: backup_array * sector, bytes: array.clone() },
            Piece { offset: self.backup_lba * sector, bytes: second },
            Piece { offset: 2 * sector, bytes: array },
            Piece { offset: sector, bytes: first },
            Piece { offset: 440, bytes: protective_mbr(size / sector) },
        ])
    }

    fn header(&self, mine: u64, other: u64, array: u64, array_sum: u32, sector: u64) -> Vec<u8> {
        let mut header = vec![0u8; sector as usize];
        header[0..8].copy_from_slice(SIGNATURE);
        header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&(HEADER as u32).to_le_bytes());
        header[24..32].copy_from_slice(&mine.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&self.first_usable.to_le_bytes());
        header[48..56].copy_from_slice(&self.last_usable.to_le_bytes());
        header[56..72].copy_from_slice(&self.disk_guid.to_bytes_le());
        header[72..80].copy_from_slice(&array.to_le_bytes());
        header[80..84].copy_from_slice(&self.entries.to_le_bytes());
        header[84..88].copy_from_slice(&(ENTRY as u32).to_le_bytes());
        header[88..92].copy_from_slice(&array_sum.to_le_bytes());
        let sum = crc32(&header[..HEADER]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    }
}

fn check_sector(sector: u32) -> Result<u32, TableError> {
    match sector {
        512 | 1024 | 2048 | 4096 => Ok(sector),
        other => Err(TableError::unfit(format!("sectors of {other} bytes are not known"))),
    }
}

/// Bytes 440 to 511 of a protective MBR (UEFI 2.10, 5.2.3): the boot code before them is left alone,
/// so that a table can be rewritten under a boot loader.
fn protective_mbr(sectors: u64) -> Vec<u8> {
    let mut tail = vec![0u8; 72];
    let entry = &mut tail[6..22];
    entry[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    entry[4] = 0xEE;
    entry[5..8].copy_from_slice(&[0xFF, 0xFF, 0xFF]);
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    let length = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    entry[12..16].copy_from_slice(&length.to_le_bytes());
    tail[70] = 0x55;
    tail[71] = 0xAA;
    tail
}

/// The table of a disk, from its first copy or, where that is damaged, its second. `None`: there is none.
pub fn read<D: Read + Seek>(disk: &mut D, size: u64, sector: u32) -> Result<Option<Gpt>, TableError> {
    let sector = u64::from(check_sector(sector)?);
    let sectors = size / sector;
    if sectors < 4 {
        return Ok(None);
    }
    let first = match read_copy(disk, 1, sectors, sector) {
        Ok(gpt) => return Ok(Some(gpt)),
        Err(Copy::Io(error)) => return Err(error.into()),
        Err(Copy::Absent) => None,
        Err(Copy::Damaged(what)) => Some(what),
    };
    match (read_copy(disk, sectors - 1, sectors, sector), first) {
        (Ok(gpt), _) => Ok(Some(Gpt { from_backup: true, ..gpt })),
        (Err(Copy::Io(error)), _) => Err(error.into()),
        (Err(_), None) => Ok(None),
        (Err(_), Some(what)) => Err(TableError::damaged(what)),
    }
}

enum Copy {
    Absent,
    Damaged(String),
    Io(io::Error),
}

impl From<io::Error> for Copy {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn read_copy<D: Read + Seek>(disk: &mut D, lba: u64, sectors: u64, sector: u64) -> Result<Gpt, Copy> {
    let damaged = |what: &str| Err(Copy::Damaged(what.to_owned()));
    let mut header = read_at(disk, lba * sector, sector as usize)?;
    if header.len() < HEADER || !header.starts_with(SIGNATURE) {
        return Err(Copy::Absent);
    }
    let length = le::<4>(&header, 12) as usize;
    let sum = le::<4>(&header, 16) as u32;
    header[16..20].fill(0);
    match header.get(..length) {
        Some(bytes) if length >= HEADER && crc32(bytes) == sum => {}
        Some(_) if length >= HEADER => return damaged("its header has a wrong checksum"),
        _ => return damaged("its header has no sensible length"),
    }
    if le::<8>(&header, 24) != lba {
        return damaged("its header says that it lies elsewhere");
    }
    let entries = le::<4>(&header, 80);
    let entry_size = le::<4>(&header, 84);
    if entries == 0 || entries > MOST_ENTRIES || entry_size != ENTRY as u64 {
        return damaged("its entries have no sensible size");
    }
    let array_lba = le::<8>(&header, 72);
    let array_bytes = entries * entry_size;
    if array_lba >= sectors {
        return damaged("its entries lie beyond the disk");
    }
    let array = read_at(disk, array_lba * sector, array_bytes as usize)?;
    if array.len() as u64 != array_bytes || crc32(&array) != le::<4>(&header, 88) as u32 {
        return damaged("its entries have a wrong checksum");
    }
    let (first_usable, last_usable) = (le::<8>(&header, 40), le::<8>(&header, 48));
    let other = le::<8>(&header, 32);
    if first_usable > last_usable {
        return damaged("it leaves no sector to use");
    }
    let mut partitions = Vec::new();
    for (index, entry) in array.chunks_exact(ENTRY).enumerate() {
        let type_guid = guid(entry, 0);
        if type_guid.is_nil() {
            continue;
        }
        let (first, last) = (le::<8>(entry, 32), le::<8>(entry, 40));
        let inside = first <= last && first >= 1 && last < sectors.max(last_usable.saturating_add(1));
        let Some(length) = last.checked_sub(first).and_then(|n| n.checked_add(1)).filter(|_| inside) else {
            return damaged(&format!("partition {} has no sensible place", index + 1));
        };
        let units: Vec<u16> =
            entry[56..128].chunks_exact(2).map(|two| le::<2>(two, 0) as u16).take_while(|u| *u != 0).collect();
        partitions.push(Partition {
            number: index as u32 + 1,
            first_lba: first,
            sectors: length,
            name: String::from_utf16_lossy(&units),
            type_guid,
            uuid: guid(entry, 16),
            attributes: le::<8>(entry, 48),
            mbr_type: 0,
            active: false,
        });
    }
    Ok(Gpt {
        disk_guid: guid(&header, 56),
        first_usable,
        last_usable,
        backup_lba: if lba == 1 { other } else { lba },
        entries: entries as u32,
        partitions,
        from_backup: false,
    })
}

fn guid(bytes: &[u8], at: usize) -> Uuid {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(Uuid::nil(), Uuid::from_bytes_le)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn write(disk: &mut [u8], pieces: &[Piece]) {
        for piece in pieces {
            let at = piece.offset as usize;
            disk[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
    }

    fn sample(size: u64, sector: u32) -> Gpt {
        let mut gpt = Gpt::new(Uuid::from_u128(7), size, sector).unwrap();
        let mib = (1 << 20) / u64::from(sector);
        for (number, (first, length, name)) in
            [(mib, mib, "EFI"), (2 * mib, 3 * mib, "root-ünïcode")].into_iter().enumerate()
        {
            gpt.partitions.push(Partition {
                number: number as u32 + 1,
                first_lba: first,
                sectors: length,
                name: name.into(),
                type_guid: Uuid::from_u128(0x0fc63daf_8483_4772_8e79_3d69d8477de4),
                uuid: Uuid::from_u128(number as u128 + 1),
                attributes: 1 << 2,
                mbr_type: 0,
                active: false,
            });
        }
        gpt
    }

    #[test]
    fn what_is_written_is_read_from_either_copy() {
        for sector in [512u32, 4096] {
            let size = 8u64 << 20;
            let gpt = sample(size, sector);
            let mut disk = vec![0u8; size as usize];
            write(&mut disk, &gpt.encode(size, sector).unwrap());
            assert_eq!(read(&mut Cursor::new(&disk), size, sector).unwrap(), Some(gpt.clone()));
            disk[sector as usize + 60] ^= 1;
            let second = read(&mut Cursor::new(&disk), size, sector).unwrap().unwrap();
            assert!(second.from_backup);
            assert_eq!(second.partitions, gpt.partitions);
            let end = disk.len() - sector as usize;
            disk[end + 60] ^= 1;
            let said = read(&mut Cursor::new(&disk), size, sector).unwrap_err().to_string();
            assert!(said.contains("wrong checksum"), "{said}");
        }
    }

    #[test]
    fn moves_its_second_copy_when_the_disk_has_grown() {
        let (old, new) = (8u64 << 20, 16u64 << 20);
        let mut gpt = sample(old, 512);
        let mut disk = vec![0u8; new as usize];
        write(&mut disk, &gpt.encode(old, 512).unwrap());
        let mut seen = read(&mut Cursor::new(&disk), new, 512).unwrap().unwrap();
        assert_eq!(seen.backup_lba, old / 512 - 1, "still where the disk ended");
        seen.fit(new, 512).unwrap();
        gpt.fit(new, 512).unwrap();
        assert_eq!(seen, gpt);
        assert_eq!(seen.backup_lba, new / 512 - 1);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let size = 8u64 << 20;
        let mut gpt = sample(size, 512);
        gpt.partitions[1].first_lba = 2050;
        assert!(gpt.encode(size, 512).unwrap_err().to_string().contains("partitions 1 and 2 overlap"));
        gpt.partitions[1].first_lba = u64::MAX;
        assert!(gpt.encode(size, 512).unwrap_err().to_string().contains("outside the disk"));
        assert!(Gpt::new(Uuid::nil(), 4096, 512).is_err());
        assert!(Gpt::new(Uuid::nil(), 1 << 30, 520).is_err());
    }

    proptest! {
        #[test]
        fn never_panics_on_a_strangers_disk(seed in proptest::collection::vec(any::<u8>(), 0..2048), fix in any::<bool>()) {
            let mut disk = vec![0u8; 64 << 10];
            disk[512..512 + seed.len()].copy_from_slice(&seed);
            if fix {
                disk[512..520].copy_from_slice(SIGNATURE);
                disk[524..528].copy_from_slice(&92u32.to_le_bytes());
                disk[528..532].fill(0);
                let sum = crc32(&disk[512..604]);
                disk[528..532].copy_from_slice(&sum.to_le_bytes());
            }
            let size = disk.len() as u64;
            let _ = super::super::read(&mut Cursor::new(&disk), size, 512);
        }
    }
}
