//! Our mark on a disk: which run has written it, and whether it was finished.
//!
//! 4 KiB at byte 0xFF000, the last of the first MiB: before the first partition of every aligned
//! table, behind what boot loaders put after an MBR. Where an image has something there, or a
//! partition covers it, no mark is made.

use std::io::{self, Read, Seek};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::table::{Partition, read_at};

/// Where it lies.
pub(crate) const OFFSET: u64 = 0xFF000;
/// How long it is.
pub(crate) const LENGTH: u64 = 0x1000;

const MAGIC: &[u8; 16] = b"dragonfly-mark1\n";

/// Which run has written a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// The workflow's uid.
    pub workflow_uid: Uuid,
    /// The number of its authorisation on this machine.
    pub generation: u64,
    /// The action that wrote the disk: `partition` or `image2disk`.
    pub step: String,
    /// Whether it was finished.
    pub complete: bool,
    /// What it wrote: an image's digest, a table's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// The server has it in writing that the machine runs what was installed: under this authorisation nothing is
    /// written here again, whatever a server says that was put back to an earlier time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
}

impl Marker {
    /// The mark in 4 KiB of a disk, if there is one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = bytes.strip_prefix(MAGIC)?;
        let text = text.split(|b| *b == 0).next()?;
        serde_json::from_slice(text).ok()
    }

    /// The mark of a disk, if it has one.
    pub fn read<D: Read + Seek>(disk: &mut D) -> io::Result<Option<Self>> {
        Ok(Self::parse(&read_at(disk, OFFSET, LENGTH as usize)?))
    }

    /// As it stands on the disk: [`LENGTH`] bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        // A struct of text and numbers always has a JSON form.
        bytes.extend(serde_json::to_vec(self).unwrap_or_default());
        bytes.resize(LENGTH as usize, 0);
        bytes
    }
}

/// Whether the mark's place is free: no partition lies there.
pub(crate) fn is_free(partitions: &[Partition], sector: u32) -> bool {
    partitions.iter().all(|p| {
        let start = p.first_lba.saturating_mul(sector.into());
        let end = start.saturating_add(p.sectors.saturating_mul(sector.into()));
        end <= OFFSET || start >= OFFSET + LENGTH
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let marker = Marker {
            workflow_uid: Uuid::from_u128(5),
            generation: 3,
            step: "image2disk".into(),
            complete: true,
            content: "sha256:aa".into(),
            handed_over: true,
        };
        let bytes = marker.encode();
        assert_eq!(bytes.len() as u64, LENGTH);
        assert_eq!(Marker::parse(&bytes), Some(marker));
        // As earlier versions wrote it, and a reader that knows no more than they.
        let marker = Marker { handed_over: false, ..Marker::parse(&bytes).unwrap() };
        assert!(!String::from_utf8_lossy(&marker.encode()).contains("handedOver"));
        assert_eq!(Marker::parse(&marker.encode()), Some(marker));
        assert_eq!(Marker::parse(&[0; 4096]), None);
        assert_eq!(Marker::parse(b"dragonfly-mark1\nxx"), None);
    }
}
