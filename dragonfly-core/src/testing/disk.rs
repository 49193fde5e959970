//! A disk whose power can be cut at any moment of its past.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Numbers that look random and are the same for the same seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall as those of the same seed do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `most`; 0 when there is none.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most.max(1)
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Write(usize, Vec<u8>),
    Length(usize),
    /// Whether it was done, and not only said to be.
    Sync(bool),
}

#[derive(Debug, Default)]
struct Medium {
    /// What it held at first.
    before: Vec<u8>,
    /// As it is read now.
    now: Vec<u8>,
    /// All that was done to it.
    done: Vec<Operation>,
    full: bool,
    lies: bool,
}

/// A disk in memory, for a [`redb::Database`]. It remembers everything that was done to it, so that one
/// history shows what a power cut at any of its moments leaves behind. Clones are the same disk.
///
/// Sectors of 512 bytes are written whole; beyond that, what was not synced before the cut is there,
/// or is not, or is there in part, in any order.
#[derive(Debug, Clone, Default)]
pub struct PowerCutDisk(Arc<Mutex<Medium>>);

impl PowerCutDisk {
    /// A disk that holds these bytes, and will not lose them.
    pub fn holding(bytes: Vec<u8>) -> Self {
        let medium = Medium { before: bytes.clone(), now: bytes, ..Medium::default() };
        Self(Arc::new(Mutex::new(medium)))
    }

    /// From now on a sync says that it was done, and does nothing.
    pub fn lie(&self) {
        self.medium().lies = true;
    }

    /// A full disk does not grow and does not sync: file systems find room for a page only then.
    pub fn set_full(&self, full: bool) {
        self.medium().full = full;
    }

    /// What it holds for those who read it now.
    pub fn bytes(&self) -> Vec<u8> {
        self.medium().now.clone()
    }

    /// How much was done to it: the moment that it is now.
    pub fn moment(&self) -> usize {
        self.medium().done.len()
    }

    /// The moments at which it was synced, or said so, each just before the sync ended.
    pub fn syncs(&self) -> Vec<usize> {
        let medium = self.medium();
        let syncs = medium.done.iter().enumerate().filter(|(_, done)| matches!(done, Operation::Sync(_)));
        syncs.map(|(moment, _)| moment).collect()
    }

    /// Moments to cut at: every sync, twice just before it ends and once just after, and somewhere
    /// between it and the one before.
    pub fn moments(&self, dice: &mut Dice) -> Vec<usize> {
        let (mut moments, mut begin) = (Vec::new(), 0);
        for sync in self.syncs().into_iter().chain([self.moment()]) {
            let between = usize::try_from(dice.below(sync.saturating_sub(begin) as u64)).unwrap_or(0);
            moments.extend([begin + between, sync, sync, sync + 1]);
            begin = sync + 1;
        }
        moments
    }

    /// Some of these, one of them when all was done.
    pub fn some_moments(&self, most: usize, dice: &mut Dice) -> Vec<usize> {
        let mut moments = self.moments(dice);
        let last = moments.pop();
        while moments.len() >= most.max(1) {
            let one = usize::try_from(dice.below(moments.len() as u64)).unwrap_or(0);
            moments.swap_remove(one);
        }
        moments.extend(last);
        moments
    }

    /// What is found when the power went at a moment and is back. Another throw of the dice, another
    /// find.
    pub fn cut(&self, moment: usize, dice: &mut Dice) -> Vec<u8> {
        let medium = self.medium();
        let past = medium.done.get(..moment).unwrap_or(&medium.done);
        let synced = past.iter().rposition(|done| matches!(done, Operation::Sync(true))).map_or(0, |at| at + 1);
        let mut bytes = medium.before.clone();
        for done in &past[..synced] {
            match done {
                Operation::Write(at, data) => write(&mut bytes, *at, data),
                Operation::Length(length) => bytes.resize(*length, 0),
                Operation::Sync(_) => {}
            }
        }
        let mut rest: Vec<&Operation> = past[synced..].iter().collect();
        for n in (1..rest.len()).rev() {
            if dice.below(3) == 0 {
                let other = usize::try_from(dice.below(n as u64 + 1)).unwrap_or(n);
                rest.swap(n, other);
            }
        }
        // In one cut of four nothing of it is there, in one everything, whatever the order.
        let of_all = dice.below(4);
        for done in rest {
            let how = match of_all {
                0 => 0,
                1 => 2,
                _ => dice.below(3),
            };
            match (done, how) {
                (_, 0) | (Operation::Sync(_), _) => {}
                (Operation::Length(length), _) => bytes.resize(*length, 0),
                (Operation::Write(at, data), how) => {
                    for (n, sector) in data.chunks(SECTOR).enumerate() {
                        if how == 2 || dice.below(2) == 0 {
                            write(&mut bytes, at + n * SECTOR, sector);
                        }
                    }
                }
            }
        }
        bytes
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beyond the end too: the length that was set may be what got lost.
fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn place(offset: u64) -> Result<usize> {
    usize::try_from(offset).map_err(Error::other)
}

impl redb::StorageBackend for PowerCutDisk {
    fn len(&self) -> Result<u64> {
        Ok(self.medium().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let at = place(offset)?;
        let medium = self.medium();
        let bytes = medium.now.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = place(len)?;
        let mut medium = self.medium();
        if medium.full && len > medium.now.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        medium.now.resize(len, 0);
        medium.done.push(Operation::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut medium = self.medium();
        if medium.full {
            return Err(ErrorKind::StorageFull.into());
        }
        let done = !medium.lies;
        medium.done.push(Operation::Sync(done));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let at = place(offset)?;
        let mut medium = self.medium();
        let there = medium.now.get_mut(at..at + data.len()).ok_or(ErrorKind::UnexpectedEof)?;
        there.copy_from_slice(data);
        medium.done.push(Operation::Write(at, data.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::StorageBackend as _;

    fn finds(disk: &PowerCutDisk, moment: usize) -> std::collections::BTreeSet<Vec<u8>> {
        let mut dice = Dice::new(7);
        (0..400).map(|_| disk.cut(moment, &mut dice)).collect()
    }

    #[test]
    fn what_is_synced_stays_and_what_is_not_is_forgotten_reordered_and_torn() {
        let disk = PowerCutDisk::holding(vec![0; 2 * SECTOR]);
        disk.write(0, &[1; 2 * SECTOR]).unwrap();
        disk.sync_data().unwrap();
        assert_eq!((disk.moment(), disk.syncs()), (2, vec![1]));
        assert_eq!(finds(&disk, 2).len(), 1, "a sync that ended holds");
        // Both sectors in each of two states: in a sync that has not ended too.
        assert_eq!(finds(&disk, 1).len(), 4);
        disk.write(0, &[2; 1]).unwrap();
        disk.write(0, &[3; 1]).unwrap();
        let first: std::collections::BTreeSet<u8> = finds(&disk, disk.moment()).iter().map(|found| found[0]).collect();
        assert_eq!(first, [1, 2, 3].into(), "the first of two writes may be the last that arrives");
        assert_eq!(disk.bytes()[..2], [3, 1], "who reads without a cut sees none of it");
    }

    #[test]
    fn a_disk_that_lies_forgets_what_it_said_it_had() {
        let disk = PowerCutDisk::holding(vec![0; SECTOR]);
        disk.lie();
        disk.write(0, &[1; SECTOR]).unwrap();
        disk.sync_data().unwrap();
        assert_eq!((disk.syncs().len(), finds(&disk, disk.moment()).len()), (1, 2));
    }

    #[test]
    fn a_full_disk_says_so_until_there_is_room() {
        let disk = PowerCutDisk::default();
        disk.set_full(true);
        assert_eq!(disk.set_len(1).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(disk.sync_data().unwrap_err().kind(), ErrorKind::StorageFull);
        disk.set_full(false);
        disk.set_len(1).unwrap();
        disk.sync_data().unwrap();
    }
}
