//! What is in the file, and what its failures mean.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, TableHandle};

use super::super::feed::{Change, Present, Read};
use super::super::{Key, Page, Result, Selector, StoreError, rules};
use super::health::{Health, room_beside};
use super::place::open_path;
use super::{NAME, labels};
use crate::resource::{Kind, Record};

/// The layout below. A file with a higher number is refused.
const FORMAT: u64 = 1;

/// Numbers: see the constants below.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// Every change after `FLOOR` by its version: see [`LogEntry`].
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Tables of objects are called this and the kind's plural; name to JSON.
pub(super) const OBJECTS: &str = "kind/";

/// The layout of this file.
pub(super) const FORMAT_KEY: &str = "format";
/// The last version given out. Never goes back, so a version is never given twice.
pub(super) const VERSION: &str = "version";
/// The log holds every change after this version.
pub(super) const FLOOR: &str = "floor";
/// Not 0: these are the objects of a backup, and what they allowed then is not yet held.
pub(super) const RESTORED: &str = "restored";
/// The size of the log.
pub(super) const LOG_BYTES: &str = "log-bytes";

pub(super) type Objects<'a> = TableDefinition<'a, &'static str, &'static [u8]>;

/// The name of a kind's table.
pub(super) fn table_name(kind: Kind) -> String {
    format!("{OBJECTS}{}", kind.plural)
}

/// One change in the log: whether it is a deletion, the kind's name, the object as JSON.
pub(super) struct LogEntry<'a> {
    pub(super) deleted: bool,
    pub(super) kind: &'a str,
    pub(super) json: &'a [u8],
}

impl<'a> LogEntry<'a> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.kind.len() + self.json.len() + 2);
        bytes.push(u8::from(self.deleted));
        bytes.extend_from_slice(self.kind.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(self.json);
        bytes
    }

    pub(super) fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (deleted, rest) = bytes.split_first()?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let kind = std::str::from_utf8(rest.get(..end)?).ok()?;
        Some(Self { deleted: *deleted != 0, kind, json: rest.get(end + 1..)? })
    }
}

/// Why a file is not opened, or not read on.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{path} was written by a newer version (format {found}; this one knows {FORMAT}): use that version again")]
    Newer { path: String, found: u64 },
    #[error("{path} is a redb file, but not one of ours")]
    Foreign { path: String },
    #[error("{path} is damaged or is no store: move it away and restore a backup")]
    Damaged {
        path: String,
        #[source]
        source: redb::Error,
    },
    #[error("{path} failed")]
    Other {
        path: String,
        #[source]
        source: redb::Error,
    },
}

/// How the file is opened again after it failed.
type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send + Sync>;

/// The open file.
pub(super) struct File {
    path: PathBuf,
    opener: Opener,
    open: RwLock<State>,
    health: Health,
    /// Whether the path is one of this system's.
    on_disk: bool,
}

enum State {
    Open(Database),
    /// It failed, and could not be opened again yet.
    Failed,
    /// For good.
    Closed,
}

impl File {
    pub(super) fn open(path: PathBuf, page_cache: usize) -> Result<Self> {
        let (place, opened) = (path.clone(), AtomicBool::new(false));
        // One that failed while it was open is repaired by redb, which checks what it repairs.
        let opener = move || {
            let database = open_path(&place, page_cache, !opened.load(Ordering::Relaxed))?;
            opened.store(true, Ordering::Relaxed);
            Ok(database)
        };
        let file = Self::open_by(path, Box::new(opener))?;
        Ok(Self { on_disk: true, ..file })
    }

    pub(super) fn open_by(path: PathBuf, opener: Opener) -> Result<Self> {
        let file = Self { path, opener, open: RwLock::new(State::Failed), health: Health::default(), on_disk: false };
        file.reopen()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Whether a write finds room on the disk.
    pub(super) fn find_room(&self) -> Result<()> {
        if !self.on_disk {
            return Ok(());
        }
        room_beside(&self.path).map_err(|error| {
            let error = self.failed(redb::Error::Io(error));
            self.health.failed(&error);
            error
        })
    }

    /// Closes it and opens it once more: redb goes on only so after an input or output error.
    pub(super) fn reopen(&self) -> Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        self.reopen_in(&mut open)
    }

    fn reopen_in(&self, open: &mut State) -> Result<()> {
        if matches!(open, State::Closed) {
            return Err(self.closed());
        }
        shut(std::mem::replace(open, State::Failed));
        let database = careful(&self.opener).map_err(|error| self.failed(error))?;
        careful(|| Ok(self.prepare(&database))).map_err(|error| self.failed(error))??;
        *open = State::Open(database);
        Ok(())
    }

    /// Checks every page; whether any had to be put in order.
    pub(super) fn check(&self) -> Result<bool> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let State::Open(database) = &mut *open else { return Err(self.closed()) };
        let whole = careful(|| Ok(database.check_integrity()?)).map_err(|error| self.failed(error))?;
        Ok(!whole)
    }

    pub(super) fn is_restored(&self) -> Result<bool> {
        self.read(|tx| Ok(Ok(tx.open_table(META)?.get(RESTORED)?.is_some_and(|row| row.value() != 0))))
    }

    /// Waits for the writer's group to end: redb takes one writer.
    pub(super) fn settle_restored(&self) -> Result<()> {
        let database = self.database()?;
        let written = || -> Result<(), redb::Error> {
            let tx = database.begin_write()?;
            tx.open_table(META)?.remove(RESTORED)?;
            Ok(tx.commit()?)
        };
        careful(written).map_err(|error| self.failed(error))
    }

    pub(super) fn close(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        shut(std::mem::replace(&mut open, State::Closed));
    }

    /// Refuses a file of another kind or of the future; makes a new one ours.
    fn prepare(&self, database: &Database) -> Result<()> {
        let fail = |error| self.failed(error);
        let path = || self.path.display().to_string();
        let backend = |error: FileError| StoreError::Backend { store: NAME, source: error.into() };
        let tx = database.begin_read().map_err(|e| fail(e.into()))?;
        match tx.open_table(META) {
            Ok(meta) => match meta.get(FORMAT_KEY).map_err(|e| fail(e.into()))?.map(|row| row.value()) {
                Some(found) if found > FORMAT => return Err(backend(FileError::Newer { path: path(), found })),
                Some(_) => return Ok(()),
                None => return Err(backend(FileError::Foreign { path: path() })),
            },
            Err(TableError::TableDoesNotExist(_)) => {
                if tx.list_tables().map_err(|e| fail(e.into()))?.next().is_some() {
                    return Err(backend(FileError::Foreign { path: path() }));
                }
            }
            Err(TableError::Storage(error)) => return Err(fail(error.into())),
            Err(_) => return Err(backend(FileError::Foreign { path: path() })),
        }
        let made = || -> Result<(), redb::Error> {
            let tx = database.begin_write()?;
            tx.open_table(LOG)?;
            for kind in Kind::ALL {
                tx.open_table(Objects::new(&table_name(kind)))?;
            }
            {
                let mut meta = tx.open_table(META)?;
                for (name, value) in [(FORMAT_KEY, FORMAT), (VERSION, 0), (FLOOR, 0), (LOG_BYTES, 0)] {
                    meta.insert(name, value)?;
                }
            }
            Ok(tx.commit()?)
        };
        made().map_err(fail)
    }

    /// The file while it is open; held for as long as it is used. One that failed is opened again by
    /// whoever needs it first, who may be a reader.
    pub(super) fn database(&self) -> Result<OpenFile<'_>> {
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(*guard, State::Open(_)) {
            return Ok(OpenFile(guard));
        }
        drop(guard);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Another may have been here first.
        if !matches!(*open, State::Open(_)) {
            self.reopen_in(&mut open)?;
        }
        drop(open);
        let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(*guard, State::Open(_)) { Ok(OpenFile(guard)) } else { Err(self.closed()) }
    }

    pub(super) fn closed(&self) -> StoreError {
        let what = format!("{} is closed", self.path.display());
        StoreError::Unavailable { store: NAME, what, source: None }
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.read(|tx| {
            let Some(table) = objects(tx, key.kind)? else { return Ok(Ok(None)) };
            let row = table.get(key.name.as_str())?;
            Ok(row.map(|row| rules::decode(key.kind, &key.name, row.value())).transpose())
        })
    }

    pub(super) fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.read(|tx| {
            let version = tx.open_table(META)?.get(VERSION)?.map_or(0, |row| row.value());
            let page = Page { items: Vec::new(), more: None, version: version.to_string() };
            let Some(table) = objects(tx, kind)? else { return Ok(Ok(page)) };
            let mut listing = Listing { kind, selector, limit, page };
            // The index and the objects are of one moment.
            let indexed = labels::look_up(tx, kind, selector, from, |name| {
                Ok(table.get(name)?.map_or(Ok(true), |json| listing.take(name, json.value())))
            })?;
            if let Some(done) = indexed {
                return Ok(done.map(|()| listing.page));
            }
            let first = from.map_or(Bound::Unbounded, Bound::Excluded);
            for row in table.range::<&str>((first, Bound::Unbounded))? {
                let (name, json) = row?;
                match listing.take(name.value(), json.value()) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => return Ok(Err(error)),
                }
            }
            Ok(Ok(listing.page))
        })
    }

    /// What a watch begins with.
    pub(super) fn present(&self, kind: Kind, since: Option<u64>) -> Result<Present> {
        // Both from one transaction: the version is exactly what the rest includes.
        let (version, changes) = self.read(|tx| {
            let meta = tx.open_table(META)?;
            let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |row| row.value()));
            let (version, floor) = (number(VERSION)?, number(FLOOR)?);
            let what = match since {
                Some(since) if since >= floor && since <= version => changes(tx, kind, since)?.map(Read::Since),
                _ => everything(tx, kind)?.map(Read::Everything),
            };
            Ok(what.map(|what| (version, what)))
        })?;
        Ok(Present { version, what: changes })
    }

    #[cfg(test)]
    pub(super) fn with_read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T> {
        self.read(|tx| work(tx).map(Ok))
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<Result<T>, redb::Error>) -> Result<T> {
        let database = self.database()?;
        let read = || work(&database.begin_read()?);
        careful(read).map_err(|error| self.failed(error))?
    }

    /// What an error of redb's means for those who use the store.
    pub(super) fn failed(&self, error: redb::Error) -> StoreError {
        let path = self.path.display().to_string();
        let mut what = path.clone();
        let told = match &error {
            redb::Error::DatabaseAlreadyOpen => {
                what.write_str(" is in use by another process: stop that one, or use another data directory")
            }
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                what.write_str(" failed and is being opened again: try later")
            }
            redb::Error::Io(io) => match io.kind() {
                ErrorKind::StorageFull => {
                    let directory = self.path.parent().unwrap_or(&self.path).display();
                    what = format!("the disk of {directory} is full: make room on its disk; {path} goes on by itself");
                    Ok(())
                }
                ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    what.write_str(" cannot grow: raise the quota or limit of this user; the store goes on by itself")
                }
                ErrorKind::ReadOnlyFilesystem => {
                    what.write_str(" is on a file system that is read-only: mount it for writing (the kernel may have made it so after an error: dmesg)")
                }
                ErrorKind::PermissionDenied => what.write_str(" may not be written by this user"),
                ErrorKind::NotFound => what.write_str(": its directory does not exist"),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                    let source = FileError::Damaged { path, source: error }.into();
                    return StoreError::Backend { store: NAME, source };
                }
                _ => what.write_str(" cannot be read or written"),
            },
            redb::Error::Corrupted(_) => {
                let source = FileError::Damaged { path, source: error }.into();
                return StoreError::Backend { store: NAME, source };
            }
            _ => {
                return StoreError::Backend { store: NAME, source: FileError::Other { path, source: error }.into() };
            }
        };
        // Writing to a String cannot fail.
        told.ok();
        StoreError::Unavailable { store: NAME, what, source: Some(error.into()) }
    }
}

/// redb checks a page when it repairs, not when it reads: what a damaged one holds can make it panic.
/// To us that is a damaged file.
pub(super) fn careful<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    // What was half done when it panicked is not used again: the file is opened anew.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(redb::Error::Corrupted("what a page holds makes no sense".to_owned())))
}

/// Nothing that was answered waits for this: redb notes in the file that it was closed in order.
fn shut(state: State) {
    let done = careful(|| {
        drop(state);
        Ok(())
    });
    // It is opened anew, or never again.
    done.ok();
}

/// A file that stays open while this lives.
pub(super) struct OpenFile<'a>(RwLockReadGuard<'a, State>);

impl std::ops::Deref for OpenFile<'_> {
    type Target = Database;

    fn deref(&self) -> &Database {
        match &*self.0 {
            State::Open(database) => database,
            State::Failed | State::Closed => {
                unreachable!("looked at before this was made, and the guard is still held")
            }
        }
    }
}

/// A page that is being filled.
struct Listing<'a> {
    kind: Kind,
    selector: &'a Selector,
    limit: usize,
    page: Page,
}

impl Listing<'_> {
    /// Takes the object if it is meant; whether there is room for more.
    fn take(&mut self, name: &str, json: &[u8]) -> Result<bool> {
        if !rules::may_match(json, self.selector) {
            return Ok(true);
        }
        let record = rules::decode(self.kind, name, json)?;
        if !self.selector.matches(&record) {
            return Ok(true);
        }
        if self.limit > 0 && self.page.items.len() == self.limit {
            self.page.more = self.page.items.last().map(|last| last.metadata.name.clone());
            return Ok(false);
        }
        self.page.items.push(record);
        Ok(true)
    }
}

type ReadObjects = redb::ReadOnlyTable<&'static str, &'static [u8]>;

fn objects(tx: &ReadTransaction, kind: Kind) -> Result<Option<ReadObjects>, redb::Error> {
    match tx.open_table(Objects::new(&table_name(kind))) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn everything(tx: &ReadTransaction, kind: Kind) -> Result<Result<Vec<Record>>, redb::Error> {
    let Some(table) = objects(tx, kind)? else { return Ok(Ok(Vec::new())) };
    let mut records = Vec::new();
    for row in table.iter()? {
        let (name, json) = row?;
        match rules::decode(kind, name.value(), json.value()) {
            Ok(record) => records.push(record),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(records))
}

fn changes(tx: &ReadTransaction, kind: Kind, since: u64) -> Result<Result<Vec<Change>>, redb::Error> {
    let mut changes = Vec::new();
    for row in tx.open_table(LOG)?.range((Bound::Excluded(since), Bound::Unbounded))? {
        let (version, bytes) = row?;
        let Some(entry) = LogEntry::from_bytes(bytes.value()) else {
            return Err(redb::Error::Corrupted(format!("change {} cannot be read", version.value())));
        };
        if entry.kind != kind.name {
            continue;
        }
        match rules::decode(kind, "(in the log)", entry.json) {
            Ok(record) => {
                changes.push(Change { version: version.value(), record: Arc::new(record), deleted: entry.deleted });
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(changes))
}

/// Tables of objects in a file, by name.
pub(super) fn object_tables(tx: &ReadTransaction) -> Result<Vec<String>, redb::Error> {
    let tables = tx.list_tables()?.map(|table| table.name().to_owned());
    Ok(tables.filter(|name| name.starts_with(OBJECTS)).collect())
}
