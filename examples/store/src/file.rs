//! What is in the file, and how it is read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::feed::{Change, Present, Read};
use dragonfly_core::store::{Key, Page, Result, Selector, StoreError, rules};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::NAME;
use crate::error::{Trouble, failed};
use crate::place;

/// Connections that wait for the next reader; more readers at once open more.
const READERS: usize = 8;

/// The open file, as its readers see it.
pub(crate) struct File {
    path: PathBuf,
    /// `None` once it is closed.
    open: Mutex<Option<Open>>,
}

/// Dropped in this order.
struct Open {
    readers: Vec<Connection>,
    /// Keeps other processes out.
    _lock: std::fs::File,
}

/// The one row of `meta`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) version: u64,
    pub(crate) floor: u64,
    pub(crate) log_bytes: u64,
}

impl Meta {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("SELECT version, floor, log_bytes FROM meta")?;
        statement.query_row([], |row| {
            let number = |column: usize| Ok::<u64, rusqlite::Error>(number(row.get(column)?));
            Ok(Self { version: number(0)?, floor: number(1)?, log_bytes: number(2)? })
        })
    }
}

/// SQLite's integers have a sign; ours begin at 0 and never come near the end.
pub(crate) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// As [`number`], to be stored.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl File {
    /// Opens or makes it, with the connection that writes.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Connection)> {
        let (connection, lock) = place::open(&path)?;
        let file = Self { path, open: Mutex::new(Some(Open { readers: Vec::new(), _lock: lock })) };
        // What is wrong with it is to be known now and not at the first write.
        Meta::read(&connection).map_err(|error| file.failed(error))?;
        file.get(&Key::new(Kind::HARDWARE, ""))?;
        Ok((file, connection))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn closed(&self) -> StoreError {
        let what = format!("{} is closed", self.path.display());
        StoreError::Unavailable { store: NAME, what, source: None }
    }

    /// What an error of SQLite's means for those who use the store.
    pub(crate) fn failed(&self, error: impl Into<Arc<rusqlite::Error>>) -> StoreError {
        failed(&self.path, error.into())
    }

    /// Reads from one moment of the file.
    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Trouble>) -> Result<T> {
        let idle = match &mut *self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(open) => open.readers.pop(),
            None => return Err(self.closed()),
        };
        let done = || -> Result<(T, Connection), Trouble> {
            let mut connection = idle.map_or_else(|| place::reader(&self.path), Ok)?;
            let tx = connection.transaction()?;
            let found = work(&tx)?;
            drop(tx);
            Ok((found, connection))
        };
        let (found, connection) = done().map_err(|trouble| match trouble {
            Trouble::Its(error) => error,
            Trouble::File(error) => self.failed(error),
        })?;
        // One that failed is not used again.
        if let Some(open) = &mut *self.open.lock().unwrap_or_else(PoisonError::into_inner)
            && open.readers.len() < READERS
        {
            open.readers.push(connection);
        }
        Ok(found)
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.read(|tx| current(tx, key))
    }

    pub(crate) fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.read(|tx| {
            let version = Meta::read(tx)?.version;
            let mut page = Page { items: Vec::new(), more: None, version: version.to_string() };
            let mut statement =
                tx.prepare_cached("SELECT name, json FROM object WHERE kind = ?1 AND name > ?2 ORDER BY name")?;
            // An empty name is no name: nothing is left out at the beginning.
            let mut rows = statement.query(params![kind.name, from.unwrap_or_default()])?;
            while let Some(row) = rows.next()? {
                let json = row.get_ref(1)?.as_blob()?;
                if !rules::may_match(json, selector) {
                    continue;
                }
                let record = rules::decode(kind, row.get_ref(0)?.as_str()?, json)?;
                if !selector.matches(&record) {
                    continue;
                }
                if limit > 0 && page.items.len() == limit {
                    page.more = page.items.last().map(|last| last.metadata.name.clone());
                    break;
                }
                page.items.push(record);
            }
            Ok(page)
        })
    }

    /// What a watch begins with.
    pub(crate) fn present(&self, kind: Kind, since: Option<u64>) -> Result<Present> {
        // Both from one moment: the version is exactly what the rest includes.
        self.read(|tx| {
            let Meta { version, floor, .. } = Meta::read(tx)?;
            let what = match since {
                Some(since) if since >= floor && since <= version => Read::Since(changes(tx, kind, since)?),
                _ => Read::Everything(everything(tx, kind)?),
            };
            Ok(Present { version, what })
        })
    }
}

/// The object as it is.
pub(crate) fn current(connection: &Connection, key: &Key) -> Result<Option<Record>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT json FROM object WHERE kind = ?1 AND name = ?2")?;
    let json = statement.query_row([key.kind.name, &key.name], |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(json.map(|json| rules::decode(key.kind, &key.name, &json)).transpose()?)
}

fn everything(tx: &Transaction<'_>, kind: Kind) -> Result<Vec<Record>, Trouble> {
    let mut statement = tx.prepare_cached("SELECT name, json FROM object WHERE kind = ?1 ORDER BY name")?;
    let (mut rows, mut records) = (statement.query([kind.name])?, Vec::new());
    while let Some(row) = rows.next()? {
        records.push(rules::decode(kind, row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_blob()?)?);
    }
    Ok(records)
}

fn changes(tx: &Transaction<'_>, kind: Kind, since: u64) -> Result<Vec<Change>, Trouble> {
    let mut statement = tx.prepare_cached(
        "SELECT version, deleted, json FROM change WHERE version > ?1 AND kind = ?2 ORDER BY version",
    )?;
    let (mut rows, mut changes) = (statement.query(params![stored(since), kind.name])?, Vec::new());
    while let Some(row) = rows.next()? {
        let record = rules::decode(kind, "(in the log)", row.get_ref(2)?.as_blob()?)?;
        changes.push(Change { version: number(row.get(0)?), record: Arc::new(record), deleted: row.get(1)? });
    }
    Ok(changes)
}
