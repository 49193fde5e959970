//! The lease file: what is in it, how it comes into being, and what its failures mean.

use std::fs::TryLockError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use dragonfly_boot::dhcp::Lease;
use dragonfly_core::store::redb::is_whole;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::files;

/// Address as a number -> lease as JSON.
const LEASES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("leases");
/// `format` -> number of the format.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// The format that this code reads and writes.
const FORMAT: u64 = 1;
/// A small file that is read once: little memory is enough.
pub(super) const PAGE_CACHE: usize = 4 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// Another has it.
    #[error("the lease file {path} is in use by another server: stop that one, or use another data directory")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It holds nonsense.
    #[error(
        "the lease file {path} is damaged or is no lease file: put a copy of it back, or move it away: leases are then given anew"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: dragonfly_core::Source,
    },
    /// It was written by another version.
    #[error("the lease file {path} has format {found}, this version reads {FORMAT}; move it away to begin anew")]
    Format {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// There is no room.
    #[error("the lease file {path} cannot grow: make room on its disk; leases go on by themselves")]
    Full {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: dragonfly_core::Source,
    },
    /// Anything else.
    #[error("the lease file {path} cannot be opened, read or written")]
    Failed {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: dragonfly_core::Source,
    },
}

/// How the file is opened again after it failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// The file, used by one thread.
pub(super) struct LeaseFile {
    path: PathBuf,
    opener: Opener,
    /// `None` when it failed and could not be opened again yet.
    open: Option<Database>,
    /// Anything but `Immediate` breaks the promise: tests show that they would notice.
    durability: Durability,
}

impl LeaseFile {
    /// Opens the file, or creates it readable by its owner only. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let place = path.to_owned();
        Self::open_by(path, Box::new(move || open_path(&place)), Durability::Immediate)
    }

    pub(super) fn open_by(path: &Path, opener: Opener, durability: Durability) -> Result<Self, FileError> {
        let mut file = Self { path: path.to_owned(), opener, open: None, durability };
        file.database()?;
        Ok(file)
    }

    /// Every row.
    pub(super) fn load(&mut self) -> Result<Vec<Lease>, dragonfly_core::Source> {
        let rows = self.with(|database, _| {
            let read = database.begin_read()?;
            let table = read.open_table(LEASES)?;
            table.iter()?.map(|row| row.map(|(_, json)| json.value().to_vec()).map_err(redb::Error::from)).collect()
        });
        let rows: Vec<Vec<u8>> = rows?;
        let read = |json: &Vec<u8>| {
            let damaged =
                |error: serde_json::Error| FileError::Damaged { path: self.path.clone(), source: error.into() };
            Ok(serde_json::from_slice(json).map_err(damaged)?)
        };
        rows.iter().map(read).collect()
    }

    /// Writes rows. They are on the disk when this returns.
    pub(super) fn put(&mut self, rows: &[(u32, Vec<u8>)]) -> Result<(), FileError> {
        self.with(|database, durability| {
            let mut write = database.begin_write()?;
            write.set_durability(durability)?;
            {
                let mut table = write.open_table(LEASES)?;
                for (address, json) in rows {
                    table.insert(address, json.as_slice())?;
                }
            }
            // redb syncs the disk before this returns.
            Ok(write.commit()?)
        })
    }

    /// Uses the file. After a failure it is opened anew: redb goes on only so.
    fn with<T>(&mut self, work: impl FnOnce(&Database, Durability) -> Result<T, redb::Error>) -> Result<T, FileError> {
        let durability = self.durability;
        let database = self.database()?;
        let done = careful(|| work(database, durability));
        done.map_err(|error| {
            self.shut();
            self.failed(error)
        })
    }

    fn database(&mut self) -> Result<&Database, FileError> {
        let database = match self.open.take() {
            Some(database) => database,
            None => {
                let database = careful(&self.opener).map_err(|error| self.failed(error))?;
                let found = careful(|| prepare(&database)).map_err(|error| self.failed(error))?;
                if found != FORMAT {
                    return Err(FileError::Format { path: self.path.clone(), found });
                }
                database
            }
        };
        Ok(self.open.insert(database))
    }

    fn shut(&mut self) {
        let database = self.open.take();
        let done = careful(|| {
            drop(database);
            Ok(())
        });
        // It is opened anew, or never again.
        done.ok();
    }

    fn failed(&self, error: redb::Error) -> FileError {
        let path = self.path.clone();
        match &error {
            redb::Error::DatabaseAlreadyOpen => FileError::InUse { path },
            redb::Error::Io(io) => match io.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    FileError::Full { path, source: error.into() }
                }
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof => FileError::Damaged { path, source: error.into() },
                _ => FileError::Failed { path, source: error.into() },
            },
            // Of an older redb there was never a lease file.
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => FileError::Damaged { path, source: error.into() },
            _ => FileError::Failed { path, source: error.into() },
        }
    }
}

impl Drop for LeaseFile {
    fn drop(&mut self) {
        self.shut();
    }
}

impl std::fmt::Debug for LeaseFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a damaged page holds can make redb panic. To us that is a damaged file.
fn careful<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    // What was half done when it panicked is not used again.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(redb::Error::Corrupted("what a page holds makes no sense".to_owned())))
}

fn open_path(path: &Path) -> Result<Database, redb::Error> {
    if !path.exists() {
        // redb cannot open a file that it had only begun when the power went.
        files::place(path, |file| {
            let made = redb::Builder::new().create_file(file).map(drop).map_err(redb::Error::from);
            made.map_err(|error| match error {
                redb::Error::Io(error) => error,
                error => std::io::Error::other(error),
            })
        })?;
    }
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    // redb takes an empty file for a new one: what was ours has lost all it held.
    if file.metadata()?.len() == 0 {
        return Err(redb::Error::Corrupted("it is empty".to_owned()));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(redb::Error::DatabaseAlreadyOpen),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    // redb writes to what it has open, and reads pages unchecked.
    let whole = is_whole(&file, PAGE_CACHE)?;
    let mut database = redb::Builder::new().set_cache_size(PAGE_CACHE).create_file(file)?;
    if !whole {
        database.check_integrity()?;
    }
    Ok(database)
}

/// Makes the tables of a new file and gives the format of an old one.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    match database.begin_read()?.open_table(ABOUT) {
        Ok(about) => {
            if let Some(found) = about.get("format")? {
                return Ok(found.value());
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let write = database.begin_write()?;
    write.open_table(LEASES)?;
    write.open_table(ABOUT)?.insert("format", FORMAT)?;
    write.commit()?;
    Ok(FORMAT)
}
