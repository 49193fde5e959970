//! A disk in memory, for tests that want the real store, often, and its crashes.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, StorageBackend};

use super::file::File;
use super::{Options, RedbStore, Result, blocking, copy};

/// A disk in memory. Clones are the same disk; one store at a time may stand on it.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<RwLock<Vec<u8>>>);

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// Another disk with what is on this one now: what a server that is killed leaves behind.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self(Arc::new(RwLock::new(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())))
    }

    pub(super) fn database(&self, page_cache: usize) -> Result<Database, redb::Error> {
        Ok(Database::builder().set_cache_size(page_cache).create_with_backend(self.clone())?)
    }
}

impl StorageBackend for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = usize::try_from(offset).ok().and_then(|at| bytes.get(at..at.checked_add(out.len())?));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(offset).ok().and_then(|at| bytes.get_mut(at..at.checked_add(data.len())?));
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

impl RedbStore {
    /// Opens the store on this disk, or makes one.
    pub fn open_in_memory(disk: &MemoryDisk, options: Options) -> Result<Self> {
        let (disk, page_cache) = (disk.clone(), options.page_cache);
        let file = File::open_by("a disk in memory".into(), Box::new(move || disk.database(page_cache)))?;
        Self::start(file, options)
    }

    /// As [`backup`](Self::backup), to another disk in memory.
    pub async fn backup_to_memory(&self) -> Result<MemoryDisk> {
        let inner = Arc::clone(&self.0);
        blocking(move || copy::backup_to_memory(&inner.file)).await
    }
}
