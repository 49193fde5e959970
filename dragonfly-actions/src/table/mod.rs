//! Partition tables: bytes in, values out, and back.
//!
//! GUID partition tables (UEFI 2.10, chapter 5) with 512 and 4096 byte sectors and master boot
//! records with four primary partitions. Reading trusts nothing: a table that contradicts itself or
//! its checksum is an error, and every count is bounded.

mod crc;
pub mod gpt;
pub mod mbr;

use std::io::{self, Read, Seek, SeekFrom};

use uuid::Uuid;

/// One partition of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// As in `sda3`, from 1.
    pub number: u32,
    /// First sector.
    pub first_lba: u64,
    /// How many sectors.
    pub sectors: u64,
    /// Its name; empty in an MBR.
    pub name: String,
    /// GPT type; nil in an MBR.
    pub type_guid: Uuid,
    /// GPT unique GUID; nil in an MBR.
    pub uuid: Uuid,
    /// GPT attributes.
    pub attributes: u64,
    /// MBR type; 0 in a GPT.
    pub mbr_type: u8,
    /// MBR: marked active.
    pub active: bool,
}

/// A partition table as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Table {
    /// GUID partition table.
    Gpt(gpt::Gpt),
    /// Master boot record.
    Mbr(mbr::Mbr),
}

impl Table {
    /// Its partitions, by number.
    pub fn partitions(&self) -> &[Partition] {
        match self {
            Self::Gpt(gpt) => &gpt.partitions,
            Self::Mbr(mbr) => &mbr.partitions,
        }
    }

    /// `gpt` or `mbr`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gpt(_) => "gpt",
            Self::Mbr(_) => "mbr",
        }
    }
}

/// Why a partition table cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The disk could not be read.
    #[error("the partition table could not be read")]
    Io(#[from] io::Error),
    /// Its bytes make no sense.
    #[error("the partition table is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be written like this.
    #[error("the partition table cannot be made: {what}")]
    Unfit {
        /// What does not fit.
        what: String,
    },
}

impl TableError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    pub(crate) fn unfit(what: impl Into<String>) -> Self {
        Self::Unfit { what: what.into() }
    }
}

/// The table on a disk of `size` bytes and `sector` bytes a sector, if it has one. A GPT whose first
/// copy is damaged is read from its second.
pub fn read<D: Read + Seek>(disk: &mut D, size: u64, sector: u32) -> Result<Option<Table>, TableError> {
    let first = read_at(disk, 0, 512)?;
    if first.len() < 512 {
        return Ok(None);
    }
    if let Some(gpt) = gpt::read(disk, size, sector)? {
        return Ok(Some(Table::Gpt(gpt)));
    }
    match mbr::parse(&first) {
        Some(mbr) if mbr.is_protective() => {
            Err(TableError::damaged("there is a protective MBR, but neither copy of the GPT can be read"))
        }
        Some(mbr) => Ok(Some(Table::Mbr(mbr))),
        None => Ok(None),
    }
}

/// Up to `length` bytes from `offset`; fewer at the end.
pub(crate) fn read_at<D: Read + Seek>(disk: &mut D, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    disk.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(length);
    disk.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A little-endian number at a place in bytes; 0 beyond their end.
pub(crate) fn le<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0u8; 8];
    if let (Some(to), Some(from)) = (number.get_mut(..N), at.checked_add(N).and_then(|end| bytes.get(at..end))) {
        to.copy_from_slice(from);
    }
    u64::from_le_bytes(number)
}
