//! Whether a lease file is whole, without a byte of it being changed.
//!
//! redb checks pages when it repairs, not when it reads, and it writes to a file as soon as it has it open. So the
//! file is judged before it is opened: what redb writes meanwhile stays in memory.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::file::PAGE_CACHE;

/// Repairs and checks the file as it would be repaired. Whether it was in order once it was.
pub(super) fn is_whole(file: &File) -> std::result::Result<bool, redb::Error> {
    let length = file.metadata()?.len();
    let state = State { length, kept: length, written: Vec::new() };
    let trial = Trial { file: file.try_clone()?, state: Mutex::new(state) };
    let mut database = redb::Builder::new().set_cache_size(PAGE_CACHE).create_with_backend(trial)?;
    Ok(database.check_integrity()?)
}

/// A file, and what would have been done to it.
#[derive(Debug)]
struct Trial {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// How much of the file itself still counts.
    kept: u64,
    /// In order; the later ones hold.
    written: Vec<(u64, Vec<u8>)>,
}

impl Trial {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

impl StorageBackend for Trial {
    fn len(&self) -> Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let state = self.state();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.length) {
            return Err(Error::new(ErrorKind::UnexpectedEof, "it ends before"));
        }
        let own = state.kept.saturating_sub(offset).min(out.len() as u64) as usize;
        let (own, new) = out.split_at_mut(own);
        self.file.read_exact_at(own, offset)?;
        new.fill(0);
        for (at, bytes) in &state.written {
            overlay(out, offset, bytes, *at);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let mut state = self.state();
        state.kept = state.kept.min(length);
        // What is beyond the end is zero if it ever comes back.
        state.written.retain_mut(|(at, bytes)| {
            bytes.truncate(length.saturating_sub(*at).min(bytes.len() as u64) as usize);
            !bytes.is_empty()
        });
        state.length = length;
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.state().written.push((offset, data.to_vec()));
        Ok(())
    }
}
