//! Whatever is on a disk, looking at it ends and never panics; a table that was read can be written
//! and read again.
use std::io::Cursor;

use dragonfly_actions::{probe, table};

/// One input: the sector's size, and how the disk begins.
pub(crate) fn disk(bytes: &[u8]) {
    let [kind, content @ ..] = bytes else { return };
    let sector = if kind % 2 == 1 { 4096 } else { 512 };
    let mut disk = vec![0u8; 1 << 20];
    let length = content.len().min(disk.len());
    disk[..length].copy_from_slice(&content[..length]);
    let size = disk.len() as u64;
    let _ = probe::look(&mut Cursor::new(&disk), size, sector);
    if let Ok(Some(table::Table::Gpt(mut gpt))) = table::read(&mut Cursor::new(&disk), size, sector)
        && gpt.fit(size, sector).is_ok()
    {
        let _ = gpt.encode(size, sector);
    }
}
