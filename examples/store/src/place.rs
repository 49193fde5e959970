//! How the file comes into being, and is found.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::store::{Result, StoreError};
use rusqlite::{Connection, OpenFlags};

use crate::NAME;
use crate::error::{FileError, failed, unreachable};

/// The layout below, as `user_version`. A file with a higher number is refused.
pub(crate) const FORMAT: i64 = 1;
/// `DfSt`, as `application_id`: whose file it is.
const APPLICATION: i64 = 0x4466_5374;

/// `meta` has one row: the last version given out, the version after which `change` holds every change, and how
/// many bytes of objects it holds.
const SCHEMA: &str = "
    CREATE TABLE meta (version INTEGER NOT NULL, floor INTEGER NOT NULL, log_bytes INTEGER NOT NULL);
    INSERT INTO meta VALUES (0, 0, 0);
    CREATE TABLE object (kind TEXT NOT NULL, name TEXT NOT NULL, json BLOB NOT NULL, UNIQUE (kind, name));
    CREATE TABLE change (version INTEGER PRIMARY KEY, kind TEXT NOT NULL, deleted INTEGER NOT NULL, json BLOB NOT NULL);
";

/// How long another process, such as `sqlite3`, may hold its lock before we give up.
const BUSY: Duration = Duration::from_secs(5);
/// Memory for pages of the file, in KiB: of the writer, of each reader.
const WRITER_CACHE: u32 = 64 << 10;
const READER_CACHE: u32 = 16 << 10;
/// The WAL is cut back to this many bytes when it was longer.
const WAL_LIMIT: u32 = 64 << 20;

/// Takes the file for this process and opens it, or makes it when there is none. The file with the lock is to be
/// kept as long as the store is open.
pub(crate) fn open(path: &Path) -> Result<(Connection, std::fs::File)> {
    // Before SQLite opens it: closing a file takes all locks off it that this process has (fcntl(2)).
    let lock = lock(path)?;
    if !path.exists() {
        make(path)?;
    }
    look(path)?;
    let fail = |error| failed(path, Arc::new(error));
    let connection = Connection::open_with_flags(path, flags()).map_err(fail)?;
    // Nothing is written before it is known to be ours.
    judge(path, &connection)?;
    let settle = || -> rusqlite::Result<()> {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE))?;
        connection.pragma_update(None, "journal_size_limit", WAL_LIMIT)
    };
    settle().map_err(fail)?;
    Ok((connection, lock))
}

/// One more connection, to read.
pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -i64::from(READER_CACHE))?;
    Ok(connection)
}

/// Never creates; each connection is one thread's at a time.
fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn lock(path: &Path) -> Result<std::fs::File> {
    let file = private(&beside(path, ".lock")).map_err(|error| unreachable(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let path = path.display();
            let what = format!("{path} is in use by another process: stop that one, or use another data directory");
            Err(StoreError::Unavailable { store: NAME, what, source: None })
        }
        Err(std::fs::TryLockError::Error(error)) => Err(unreachable(path, error)),
    }
}

/// A file for its owner's eyes, with what is in it already. SQLite gives the WAL the same rights.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

/// Makes a file that is found whole or not at all.
fn make(path: &Path) -> Result<()> {
    // SQLite would play it into the new file.
    if beside(path, "-wal").exists() {
        return Err(FileError::Orphan { path: path.display().to_string() }.into());
    }
    let draft = beside(path, ".new");
    // What an earlier start left of it; we have the lock.
    for end in ["", "-journal"] {
        std::fs::remove_file(beside(&draft, end)).ok();
    }
    drop(private(&draft).map_err(|error| unreachable(path, error))?);
    let made = || -> rusqlite::Result<()> {
        let mut connection = Connection::open_with_flags(&draft, flags())?;
        let tx = connection.transaction()?;
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", FORMAT)?;
        tx.execute_batch(SCHEMA)?;
        tx.commit()?;
        connection.close().map_err(|(_, error)| error)
    };
    made().map_err(|error| failed(path, Arc::new(error)))?;
    let placed = || {
        std::fs::rename(&draft, path)?;
        // The new name is durable with its directory.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    placed().map_err(|error| unreachable(path, error))
}

/// SQLite takes an empty file for a new one: what was ours has lost all it held.
fn look(path: &Path) -> Result<()> {
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.map_err(|error| unreachable(path, error))?;
    let what = match &head[..] {
        b"SQLite format 3\0" => return Ok(()),
        [] => "it is empty",
        _ => "it does not begin as an SQLite file does",
    };
    Err(FileError::NoStore { path: path.display().to_string(), what }.into())
}

/// Refuses a file of another program or of the future.
fn judge(path: &Path, connection: &Connection) -> Result<()> {
    let ask = || -> rusqlite::Result<(i64, i64)> {
        connection.busy_timeout(BUSY)?;
        let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        Ok((number("application_id")?, number("user_version")?))
    };
    let (application, format) = ask().map_err(|error| failed(path, Arc::new(error)))?;
    let path = path.display().to_string();
    match (application, format) {
        (APPLICATION, 1..=FORMAT) => Ok(()),
        (APPLICATION, found) if found > FORMAT => Err(FileError::Newer { path, found }.into()),
        _ => Err(FileError::Foreign { path }.into()),
    }
}
