//! What is on a disk or a partition, by the magic numbers that its bytes begin or end with.
//!
//! Reads only a few places, trusts nothing, and needs no privilege beyond reading. What it knows is
//! what a guard has to know before it lets a disk be overwritten: every partition table, file system,
//! volume manager and encryption header in common use.

mod signatures;

use std::io::{self, Read, Seek};

use crate::table::{self, read_at};

pub use signatures::{Signature, find};

/// What a look at a disk found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Everything that was recognised, partition table first.
    pub signatures: Vec<Signature>,
    /// The partition table, when it could be read.
    pub table: Option<table::Table>,
    /// Whether the first and last MiB hold nothing but zeros.
    pub zero: bool,
}

impl Look {
    /// Whether nothing is on it: no table, no file system, no member of an array.
    pub fn is_blank(&self) -> bool {
        self.signatures.is_empty()
    }

    /// The signatures' names, as an inventory lists them.
    pub fn names(&self) -> Vec<String> {
        self.signatures.iter().map(|s| s.kind.to_owned()).collect()
    }
}

/// How much of the start and of the end is read: all magic numbers that we know lie there.
pub const WINDOW: u64 = 1 << 20;

/// Looks at a disk or partition of `size` bytes and `sector` bytes a sector.
pub fn look<D: Read + Seek>(disk: &mut D, size: u64, sector: u32) -> io::Result<Look> {
    let head = read_at(disk, 0, size.min(WINDOW) as usize)?;
    let tail_at = size.saturating_sub(WINDOW) / 512 * 512;
    let tail = read_at(disk, tail_at, (size - tail_at) as usize)?;
    let mut signatures = Vec::new();
    let found = table::read(disk, size, sector);
    match &found {
        Ok(Some(table)) => signatures.push(Signature::bare(table.name())),
        // Damaged is not blank.
        Err(table::TableError::Damaged { .. }) => signatures.push(Signature::bare("gpt")),
        Err(table::TableError::Io(error)) => return Err(io::Error::new(error.kind(), error.to_string())),
        Ok(None) | Err(_) => {}
    }
    signatures.extend(find(&head, &tail, size));
    let zero = head.iter().chain(&tail).all(|b| *b == 0);
    Ok(Look { signatures, table: found.ok().flatten(), zero })
}

/// The file system at an offset: what a partition holds.
pub fn file_system<D: Read + Seek>(disk: &mut D, offset: u64, length: u64) -> io::Result<Option<Signature>> {
    let head = read_at(disk, offset, length.min(WINDOW) as usize)?;
    let tail_length = length.min(WINDOW);
    let tail = read_at(disk, offset + (length - tail_length), tail_length as usize)?;
    Ok(find(&head, &tail, length).into_iter().next())
}
