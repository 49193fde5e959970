//! Whether a file is whole, without a byte of it being changed.
//!
//! redb checks pages when it repairs, not when it reads, and it writes to a file as soon as it has it open. So a file
//! is judged before it is opened: what redb writes meanwhile stays in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::file::careful;

/// What is kept in memory of what was written is kept by pages of this size.
const PAGE: u64 = 4096;

/// Repairs and checks a redb file as it would be repaired, every page of it, with `page_cache` bytes of memory. Whether
/// it was in order once it was opened. Blocks. Whoever calls it keeps others from writing to the file meanwhile.
///
/// # Errors
/// [`ErrorKind::InvalidData`]: it is damaged. Else: it cannot be read.
pub fn is_whole(file: &File, page_cache: usize) -> Result<bool> {
    let length = file.metadata()?.len();
    let state = State { file: file.try_clone()?, length, kept: length, pages: BTreeMap::new() };
    let trial = Trial(Mutex::new(state));
    let checked = careful(|| {
        let mut database = redb::Builder::new().set_cache_size(page_cache).create_with_backend(trial)?;
        Ok(database.check_integrity()?)
    });
    checked.map_err(|error| match error {
        redb::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => Error::new(ErrorKind::InvalidData, error),
        redb::Error::Io(error) => error,
        error => Error::new(ErrorKind::InvalidData, error),
    })
}

/// A file, and what would have been done to it.
#[derive(Debug)]
struct Trial(Mutex<State>);

#[derive(Debug)]
struct State {
    file: File,
    length: u64,
    /// How much of the file itself still counts.
    kept: u64,
    /// What would have been written, by number of the page.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl State {
    /// What the file has from here on; zeros beyond what counts of it.
    fn base(&mut self, offset: u64, out: &mut [u8]) -> Result<()> {
        let own = self.kept.saturating_sub(offset).min(out.len() as u64) as usize;
        let (own, new) = out.split_at_mut(own);
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(own)?;
        new.fill(0);
        Ok(())
    }
}

/// Copies what `from`, which lies at `from_at`, has of what `to` shows from `to_at` on.
fn overlay(to: &mut [u8], to_at: u64, from: &[u8], from_at: u64) {
    let begin = to_at.max(from_at);
    let end = (to_at + to.len() as u64).min(from_at + from.len() as u64);
    if begin < end {
        let length = (end - begin) as usize;
        let (to_at, from_at) = ((begin - to_at) as usize, (begin - from_at) as usize);
        to[to_at..to_at + length].copy_from_slice(&from[from_at..from_at + length]);
    }
}

impl Trial {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Trial {
    fn len(&self) -> Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut state = self.state();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= state.length);
        let end = end.ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "it ends before"))?;
        state.base(offset, out)?;
        for (page, bytes) in state.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            overlay(out, offset, bytes, page * PAGE);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let mut state = self.state();
        state.kept = state.kept.min(length);
        // What is beyond the end is zero if it ever comes back.
        state.pages.split_off(&length.div_ceil(PAGE));
        if let Some(bytes) = state.pages.get_mut(&(length / PAGE)) {
            bytes[(length % PAGE) as usize..].fill(0);
        }
        state.length = length;
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.state();
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= state.length);
        let end = end.ok_or_else(|| Error::new(ErrorKind::UnexpectedEof, "it ends before"))?;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let mut bytes = match state.pages.remove(&page) {
                Some(bytes) => bytes,
                None => {
                    let mut bytes = vec![0; PAGE as usize];
                    state.base(page * PAGE, &mut bytes)?;
                    bytes
                }
            };
            overlay(&mut bytes, page * PAGE, data, offset);
            state.pages.insert(page, bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::testing::Dice;

    /// Beside a vector of bytes, whatever is done to it.
    #[test]
    fn it_is_as_a_file_would_be_and_leaves_the_file() {
        let mut dice = Dice::new(1);
        for _ in 0..200 {
            let mut model: Vec<u8> = (0..dice.below(20_000)).map(|_| dice.below(256) as u8).collect();
            let (mut file, before) = (tempfile::tempfile().unwrap(), model.clone());
            file.write_all(&before).unwrap();
            let length = before.len() as u64;
            let state = State { file: file.try_clone().unwrap(), length, kept: length, pages: BTreeMap::new() };
            let trial = Trial(Mutex::new(state));
            for n in 0..40_u8 {
                let at = dice.below(22_000);
                match dice.below(4) {
                    0 => {
                        trial.set_len(at).unwrap();
                        model.resize(at as usize, 0);
                    }
                    1 => {
                        let data = vec![n; dice.below(6000) as usize];
                        let place = model.get_mut(at as usize..at as usize + data.len());
                        assert_eq!(trial.write(at, &data).is_ok(), place.is_some());
                        if let Some(place) = place {
                            place.copy_from_slice(&data);
                        }
                    }
                    _ => {
                        let mut out = vec![0xaa; dice.below(6000) as usize];
                        let want = model.get(at as usize..at as usize + out.len());
                        assert_eq!(trial.read(at, &mut out).is_ok(), want.is_some());
                        assert!(want.is_none_or(|want| want == out));
                    }
                }
                assert_eq!(trial.len().unwrap(), model.len() as u64);
            }
            let mut after = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut after).unwrap();
            assert!(after == before);
        }
    }
}
