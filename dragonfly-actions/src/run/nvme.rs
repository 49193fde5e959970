//! What an NVMe disk says of its own health.

use std::fs::File;
use std::io;
use std::path::Path;

use super::sys;

/// Get Log Page, an administrative command (NVM Express base specification 2.0, 5.16).
const GET_LOG_PAGE: u8 = 0x02;
/// SMART / Health Information (5.16.1.3), 512 bytes.
const HEALTH: u8 = 0x02;
const HEALTH_LENGTH: usize = 512;
/// The controller as a whole, not one of its namespaces.
const ALL_NAMESPACES: u32 = u32::MAX;

/// Words 10 to 15 of Get Log Page: the page, and how many words of four bytes of it, counted from 0.
fn log_page(page: u8, length: usize) -> [u32; 6] {
    let words = u32::try_from(length / 4).unwrap_or(u32::MAX).saturating_sub(1);
    // The lower half of the count stands in word 10, the upper half in word 11.
    [words << 16 | u32::from(page), words >> 16, 0, 0, 0, 0]
}

/// Percentage Used: how much of its life a disk has behind it, as its maker reckons. It may go beyond 100,
/// and stays at 255.
fn percentage_used(health: &[u8]) -> Option<u8> {
    // Some controllers fill in nothing at all. No disk that lives is of 0 kelvin and without spare blocks.
    health.get(5).copied().filter(|_| health.iter().any(|byte| *byte != 0))
}

/// How much of its life the NVMe disk behind a device node has behind it, in percent; absent if it does
/// not say. Blocks as long as the disk does not answer.
///
/// # Errors
/// It is no NVMe disk, or the disk refuses.
pub fn wear(device: &Path) -> io::Result<Option<u8>> {
    let mut health = [0; HEALTH_LENGTH];
    let words = log_page(HEALTH, health.len());
    sys::nvme_admin_read(&File::open(device)?, GET_LOG_PAGE, ALL_NAMESPACES, words, &mut health)?;
    Ok(percentage_used(&health))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_as_the_specification_writes_it() {
        let table = [
            (HEALTH, 512, [0x007f_0002, 0]),
            (0x01, 64, [0x000f_0001, 0]),
            // 256 KiB and 4 bytes: 65537 words, so 65536 counted from 0.
            (0x05, 262_148, [0x0000_0005, 1]),
        ];
        for (page, length, want) in table {
            assert_eq!(log_page(page, length)[..2], want, "{page} {length}");
            assert_eq!(log_page(page, length)[2..], [0; 4]);
        }
    }

    #[test]
    fn wear_stands_at_its_place() {
        let page = |kelvin: u16, used: u8| {
            let mut page = vec![0; HEALTH_LENGTH];
            page[1..3].copy_from_slice(&kelvin.to_le_bytes());
            // Available spare and its threshold stand before it.
            page[3..5].copy_from_slice(&[100, 10]);
            page[5] = used;
            page
        };
        let table = [
            (page(310, 0), Some(0)),
            (page(310, 7), Some(7)),
            (page(0x0100, 104), Some(104)),
            (page(323, 255), Some(255)),
            (vec![0; HEALTH_LENGTH], None),
            (vec![1; 5], None),
            (vec![], None),
        ];
        for (n, (page, want)) in table.into_iter().enumerate() {
            assert_eq!(percentage_used(&page), want, "row {n}");
        }
    }

    #[test]
    fn what_is_no_nvme_disk_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(wear(file.path()).is_err());
        assert!(wear(Path::new("/dev/nothing")).is_err());
    }
}
