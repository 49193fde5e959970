//! Reads along with a machine's serial line.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::events::{Fact, Timeline};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// iPXE began.
    Ipxe,
    /// The agent's first line.
    Mage,
    /// The small image's first line.
    SmallUp,
    /// The agent asks for help, or the kernel fell over.
    Trouble,
}

const MARKS: [(&[u8], Mark); 5] = [
    (b"iPXE initialising", Mark::Ipxe),
    (b"Mage ", Mark::Mage),
    (b"lab: Debian", Mark::SmallUp),
    (b"Kernel panic", Mark::Trouble),
    (b"rescue shell", Mark::Trouble),
];
const LONGEST: usize = 20;

/// Finds marks in what arrives in pieces.
#[derive(Debug, Default)]
struct Finder {
    kept: Vec<u8>,
}

impl Finder {
    fn feed(&mut self, piece: &[u8]) -> Vec<Mark> {
        let already = self.kept.len();
        self.kept.extend_from_slice(piece);
        let mut found = Vec::new();
        for at in 0..self.kept.len() {
            for (text, mark) in MARKS {
                // What ended inside the part that was kept was reported before.
                if at + text.len() > already && self.kept[at..].starts_with(text) {
                    found.push(mark);
                }
            }
        }
        let keep = self.kept.len().saturating_sub(LONGEST);
        self.kept.drain(..keep);
        found
    }
}

/// Reads a serial log while it grows, until `stop`.
pub(crate) fn follow(machine: usize, path: PathBuf, timeline: Timeline, stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut file = loop {
            match File::open(&path) {
                Ok(file) => break file,
                Err(_) if stop.load(Ordering::SeqCst) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut finder = Finder::default();
        let mut piece = vec![0; 64 * 1024];
        loop {
            match file.read(&mut piece) {
                Ok(0) if stop.load(Ordering::SeqCst) => return,
                Ok(0) => std::thread::sleep(Duration::from_millis(50)),
                Ok(got) => {
                    for mark in finder.feed(&piece[..got]) {
                        timeline.add(Fact::Serial(machine, mark));
                    }
                }
                Err(_) => return,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_once_wherever_the_pieces_end() {
        let text = b"SeaBIOS\r\niPXE initialising devices...\r\nMage 0.1.0\r\nKernel panic - not syncing";
        for size in 1..text.len() {
            let mut finder = Finder::default();
            let found: Vec<_> = text.chunks(size).flat_map(|piece| finder.feed(piece)).collect();
            assert_eq!(found, [Mark::Ipxe, Mark::Mage, Mark::Trouble], "pieces of {size}");
        }
    }
}
