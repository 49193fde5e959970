//! A copy of a running store, and whether a file is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::super::{Result, StoreError, order, rules};
use super::NAME;
use super::file::{
    FLOOR, FORMAT_KEY, File, LOG, LOG_BYTES, META, OBJECTS, Objects, RESTORED, VERSION, careful, object_tables,
};
use super::place::{create, sync_directory};
use super::seal;
use crate::resource::Kind;

/// A copy's counter is this far ahead of the original's: what the original writes after it was
/// copied must not have the versions of what a restored copy writes.
const AHEAD: u64 = 1 << 32;
/// Objects in one commit of a copy.
const CHUNK: usize = 2000;

/// Writes a copy of `file` to `to`, which must not exist. Nothing is left of one that fails.
pub(super) fn backup(file: &File, to: &Path) -> Result<()> {
    let refused =
        |what: String, error: std::io::Error| StoreError::Unavailable { store: NAME, what, source: Some(error.into()) };
    if to.exists() {
        let error = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(refused(format!("{} is there already: name a new file", to.display()), error));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let database = file.database()?;
    let copied = || -> Result<(), redb::Error> {
        let target = create(&partial)?;
        target.set_len(0)?;
        let target = Database::builder().create_file(target)?;
        copy(&database.begin_read()?, &target)?;
        drop(target);
        Ok(seal::seal(&mut create(&partial)?)?)
    };
    let done = careful(copied).map_err(|error| match error {
        redb::Error::Io(error) => refused(format!("{} cannot be written", to.display()), error),
        other => file.failed(other),
    });
    // Unlike a rename, a link never takes the place of what is there.
    let named = || std::fs::hard_link(&partial, to).and_then(|()| sync_directory(to));
    let done = done.and_then(|()| named().map_err(|e| refused(format!("{} cannot be written", to.display()), e)));
    std::fs::remove_file(&partial).ok();
    done
}

/// A copy of `file` on a disk in memory.
#[cfg(feature = "testing")]
pub(super) fn backup_to_memory(file: &File) -> Result<super::MemoryDisk> {
    let (disk, database) = (super::MemoryDisk::default(), file.database()?);
    let copied = || -> Result<(), redb::Error> { copy(&database.begin_read()?, &disk.database(1 << 20)?) };
    copied().map_err(|error| file.failed(error))?;
    Ok(disk)
}

fn copy(from: &ReadTransaction, to: &Database) -> Result<(), redb::Error> {
    for name in object_tables(from)? {
        let source = from.open_table(Objects::new(&name))?;
        let mut rows = source.iter()?.peekable();
        loop {
            let tx = to.begin_write()?;
            {
                let mut table = tx.open_table(Objects::new(&name))?;
                for row in rows.by_ref().take(CHUNK) {
                    let (name, json) = row?;
                    table.insert(name.value(), json.value())?;
                }
            }
            tx.commit()?;
            if rows.peek().is_none() {
                break;
            }
        }
    }
    let numbers = from.open_table(META)?;
    let number = |name| Ok::<u64, redb::Error>(numbers.get(name)?.map_or(0, |row| row.value()));
    let (format, version) = (number(FORMAT_KEY)?, number(VERSION)?.saturating_add(AHEAD));
    // The number of the format last: a copy that was cut off is no store.
    let tx = to.begin_write()?;
    tx.open_table(LOG)?;
    {
        let mut meta = tx.open_table(META)?;
        let numbers = [(VERSION, version), (FLOOR, version), (LOG_BYTES, 0), (RESTORED, 1), (FORMAT_KEY, format)];
        for (name, value) in numbers {
            meta.insert(name, value)?;
        }
    }
    Ok(tx.commit()?)
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many objects there are of each kind, by the kind's plural.
    pub objects: BTreeMap<String, u64>,
    /// The last version given out.
    pub version: u64,
    /// The pages had to be put in order: the process that wrote last was killed.
    pub repaired: bool,
    /// Everything that is wrong. Empty: the file is whole.
    pub problems: Vec<String>,
}

/// Reads a whole file that nobody has open: every page's checksum, every object. Blocks.
pub fn verify(path: impl Into<PathBuf>) -> Result<Verified> {
    let path = path.into();
    if !path.exists() {
        let what = format!("{} does not exist", path.display());
        return Err(StoreError::Unavailable { store: NAME, what, source: None });
    }
    verify_file(&File::open(path, super::Options::default().page_cache)?)
}

pub(super) fn verify_file(file: &File) -> Result<Verified> {
    let repaired = file.check()?;
    let database = file.database()?;
    let looked = || -> Result<Verified, redb::Error> {
        let tx = database.begin_read()?;
        let meta = tx.open_table(META)?;
        let version = meta.get(VERSION)?.map_or(0, |row| row.value());
        let mut verified = Verified { objects: BTreeMap::new(), version, repaired, problems: Vec::new() };
        for name in object_tables(&tx)? {
            let plural = name.strip_prefix(OBJECTS).unwrap_or(&name);
            let kind = Kind::ALL.into_iter().find(|kind| kind.plural == plural);
            let table = tx.open_table(Objects::new(&name))?;
            let mut count = 0;
            for row in table.iter()? {
                let (name, json) = row?;
                count += 1;
                // A kind of a later version or of somebody else's is counted only.
                if let Some(problem) = kind.and_then(|kind| wrong(kind, name.value(), json.value(), version)) {
                    verified.problems.push(problem);
                }
            }
            verified.objects.insert(plural.to_owned(), count);
        }
        Ok(verified)
    };
    careful(looked).map_err(|error| file.failed(error))
}

fn wrong(kind: Kind, name: &str, json: &[u8], last: u64) -> Option<String> {
    let record = match rules::decode(kind, name, json) {
        Ok(record) => record,
        Err(StoreError::Decode(error)) => return Some(format!("{error}: {}", error.source)),
        Err(error) => return Some(error.to_string()),
    };
    if record.metadata.name != name {
        return Some(format!("{kind} `{name}` calls itself `{}`", record.metadata.name));
    }
    let version = &record.metadata.resource_version;
    if order(version).is_none_or(|version| version > last) {
        return Some(format!("{kind} `{name}` has version {version}, which was never given out"));
    }
    None
}
