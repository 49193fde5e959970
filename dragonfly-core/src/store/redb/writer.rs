//! The one thread that writes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use redb::{Durability, ReadableTable, Table, WriteTransaction};
use tokio::sync::broadcast::Sender;
use tokio::sync::{mpsc, oneshot};

use super::super::feed::{Change, News};
use super::super::{Key, Part, Result, StoreError, When, rules};
use super::NAME;
use super::file::{FLOOR, File, LOG, LOG_BYTES, LogEntry, META, Objects, VERSION, careful, table_name};
use super::labels::{self, Index};
use crate::clock::{Clock, Timestamp};
use crate::resource::{Kind, Record};

/// Writes in one commit, at most.
const GROUP: usize = 512;
/// Bytes of objects in one commit, roughly at most.
const GROUP_BYTES: usize = 8 << 20;
/// The log's size in bytes, at most: objects are of very different sizes.
const MAX_LOG_BYTES: u64 = 32 << 20;

/// A write that somebody waits for.
pub(super) struct Job(pub(super) What);

pub(super) enum What {
    Put { record: Box<Record>, part: Part, when: When, answer: oneshot::Sender<Result<Record>> },
    Delete { key: Key, version: String, answer: oneshot::Sender<Result<()>> },
}

/// Who waits, with what is to be said once the group is durable.
enum Waiting {
    Put(oneshot::Sender<Result<Record>>, Result<Arc<Record>>),
    Delete(oneshot::Sender<Result<()>>, Result<()>),
}

impl Waiting {
    /// A caller that has gone away is told nothing; its write stands.
    fn tell(self) {
        match self {
            Self::Put(answer, result) => drop(answer.send(result.map(|record| Record::clone(&record)))),
            Self::Delete(answer, result) => drop(answer.send(result)),
        }
    }

    fn fail(self, error: StoreError) {
        match self {
            Self::Put(answer, _) => drop(answer.send(Err(error))),
            Self::Delete(answer, _) => drop(answer.send(Err(error))),
        }
    }
}

pub(super) struct Writer {
    pub(super) file: Arc<File>,
    pub(super) news: Sender<News>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) log: u64,
    pub(super) pause: Option<Duration>,
    /// Anything but `Immediate` breaks the promise: tests show that they would notice.
    pub(super) durability: Durability,
}

impl Writer {
    pub(super) fn run(self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut waiting = Vec::new();
            // Opened again, after a failure, if that can be.
            if let Err(error) = self.file.database().map(drop) {
                first.0.refused().fail(error);
                continue;
            }
            match self.group(first, &mut queue, &mut waiting) {
                Ok(changes) => {
                    if let Some(pause) = self.pause {
                        std::thread::sleep(pause);
                    }
                    for change in changes {
                        // Nobody listening is no error.
                        self.news.send(News::Change(change)).ok();
                    }
                    waiting.into_iter().for_each(Waiting::tell);
                }
                Err(error) => self.recover(error, waiting),
            }
        }
    }

    /// Writes what is queued and commits it. Each write sees those before it; one that must not be
    /// done leaves the others alone.
    fn group(
        &self,
        first: Job,
        queue: &mut mpsc::Receiver<Job>,
        waiting: &mut Vec<Waiting>,
    ) -> Result<Vec<Change>, redb::Error> {
        let mut job = Some(first);
        let written = careful(|| {
            let database = self.file.database().map_err(|_| redb::Error::PreviousIo)?;
            let mut tx = database.begin_write()?;
            tx.set_durability(self.durability)?;
            let mut group = Group::begin(&tx, self.clock.now())?;
            while let Some(Job(what)) = job.take() {
                group.write(what, waiting)?;
                if waiting.len() < GROUP && group.bytes < GROUP_BYTES {
                    job = queue.try_recv().ok();
                }
            }
            let changes = group.finish(self.log)?;
            if changes.is_empty() {
                tx.abort()?;
            } else {
                tx.commit()?;
            }
            Ok(changes)
        });
        // Not reached when the group could not begin.
        waiting.extend(job.map(|Job(what)| what.refused()));
        written
    }

    /// After the file failed: nobody is told that a write was done, and the file is opened again.
    /// The group may be durable all the same, so watches read again.
    fn recover(&self, error: redb::Error, waiting: Vec<Waiting>) {
        let path = self.file.path().display();
        tracing::error!(%path, error = &error as &dyn std::error::Error, "the store failed and is opened again");
        let mut cause = Some(self.file.failed(error));
        if let Err(error) = self.file.reopen() {
            tracing::error!(%path, error = &error as &dyn std::error::Error, "the store cannot be opened again");
        }
        self.news.send(News::Again).ok();
        for waiting in waiting {
            // The first gets the cause, which is in the log too; it cannot be given twice.
            waiting.fail(cause.take().unwrap_or_else(|| self.file.failed(redb::Error::PreviousIo)));
        }
    }
}

impl What {
    /// Waits for an answer that can only be a failure.
    fn refused(self) -> Waiting {
        let closed = || StoreError::Unavailable { store: NAME, what: "not written".to_owned(), source: None };
        match self {
            Self::Put { answer, .. } => Waiting::Put(answer, Err(closed())),
            Self::Delete { answer, .. } => Waiting::Delete(answer, Err(closed())),
        }
    }
}

/// A group of writes before its commit.
struct Group<'a> {
    tx: &'a WriteTransaction,
    meta: Table<'a, &'static str, u64>,
    log: Table<'a, u64, &'static [u8]>,
    objects: HashMap<Kind, Table<'a, &'static str, &'static [u8]>>,
    /// Absent while the file has none that is complete.
    index: Option<Index<'a>>,
    now: Timestamp,
    version: u64,
    log_bytes: u64,
    bytes: usize,
    changes: Vec<Change>,
}

impl<'a> Group<'a> {
    fn begin(tx: &'a WriteTransaction, now: Timestamp) -> Result<Self, redb::Error> {
        let (meta, log) = (tx.open_table(META)?, tx.open_table(LOG)?);
        let number = |name| Ok::<u64, redb::Error>(meta.get(name)?.map_or(0, |row| row.value()));
        let (version, log_bytes) = (number(VERSION)?, number(LOG_BYTES)?);
        let index = Index::open(tx, &meta, version)?;
        let (objects, changes) = (HashMap::new(), Vec::new());
        Ok(Self { tx, meta, log, objects, index, now, version, log_bytes, bytes: 0, changes })
    }

    /// Does one write and notes who waits for it. Fails only when the file does.
    fn write(&mut self, what: What, waiting: &mut Vec<Waiting>) -> Result<(), redb::Error> {
        let (wait, failed) = match what {
            What::Put { record, part, when, answer } => {
                let (result, failed) = split(self.put(*record, part, &when));
                (Waiting::Put(answer, result), failed)
            }
            What::Delete { key, version, answer } => {
                let (result, failed) = split(self.delete(&key, &version));
                (Waiting::Delete(answer, result), failed)
            }
        };
        waiting.push(wait);
        failed.map_or(Ok(()), Err)
    }

    fn put(&mut self, given: Record, part: Part, when: &When) -> Result<Arc<Record>, Trouble> {
        let key = Key::new(given.kind, given.metadata.name.clone());
        let current = self.current(&key)?;
        let labelled = current.as_ref().map(|current| current.metadata.labels.clone()).unwrap_or_default();
        let record = rules::put(current, given, part, when, self.version + 1, self.now)?;
        let json = rules::encode(&record)?;
        self.table(key.kind)?.insert(key.name.as_str(), json.as_slice())?;
        if let Some(index) = &mut self.index {
            index.changed(key.kind, &key.name, &labelled, &record.metadata.labels)?;
        }
        Ok(self.changed(record, &json, false)?)
    }

    fn delete(&mut self, key: &Key, seen: &str) -> Result<(), Trouble> {
        let current = self.current(key)?;
        let record = rules::delete(current, key, seen, self.version + 1)?;
        let json = rules::encode(&record)?;
        self.table(key.kind)?.remove(key.name.as_str())?;
        if let Some(index) = &mut self.index {
            index.changed(key.kind, &key.name, &record.metadata.labels, &BTreeMap::new())?;
        }
        self.changed(record, &json, true)?;
        Ok(())
    }

    fn current(&mut self, key: &Key) -> Result<Option<Record>, Trouble> {
        let row = self.table(key.kind)?.get(key.name.as_str())?;
        Ok(row.map(|row| rules::decode(key.kind, &key.name, row.value())).transpose()?)
    }

    fn table(&mut self, kind: Kind) -> Result<&mut Table<'a, &'static str, &'static [u8]>, redb::Error> {
        match self.objects.entry(kind) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(self.tx.open_table(Objects::new(&table_name(kind)))?)),
        }
    }

    fn changed(&mut self, record: Record, json: &[u8], deleted: bool) -> Result<Arc<Record>, redb::Error> {
        self.version += 1;
        let entry = LogEntry { deleted, kind: record.kind.name, json }.to_bytes();
        self.log_bytes += entry.len() as u64;
        self.bytes += entry.len();
        self.log.insert(self.version, entry.as_slice())?;
        let record = Arc::new(record);
        self.changes.push(Change { version: self.version, record: Arc::clone(&record), deleted });
        Ok(record)
    }

    /// Writes the numbers and keeps the log in its bounds.
    fn finish(mut self, most: u64) -> Result<Vec<Change>, redb::Error> {
        let mut floor = None;
        while let Some((version, size)) = first(&self.log)? {
            if self.version - version < most && self.log_bytes <= MAX_LOG_BYTES {
                break;
            }
            self.log.remove(version)?;
            self.log_bytes = self.log_bytes.saturating_sub(size);
            floor = Some(version);
        }
        if let Some(floor) = floor {
            self.meta.insert(FLOOR, floor)?;
        }
        self.meta.insert(VERSION, self.version)?;
        self.meta.insert(LOG_BYTES, self.log_bytes)?;
        if self.index.is_some() {
            labels::complete(&mut self.meta, self.version)?;
        }
        Ok(self.changes)
    }
}

/// The oldest change in the log and its size.
fn first(log: &Table<'_, u64, &'static [u8]>) -> Result<Option<(u64, u64)>, redb::Error> {
    Ok(log.first()?.map(|(version, entry)| (version.value(), entry.value().len() as u64)))
}

/// Why one write is not done: its own fault, or the file's.
enum Trouble {
    Its(StoreError),
    File(redb::Error),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Its(error)
    }
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::File(error.into())
    }
}

fn split<T>(result: Result<T, Trouble>) -> (Result<T>, Option<redb::Error>) {
    match result {
        Ok(done) => (Ok(done), None),
        Err(Trouble::Its(error)) => (Err(error), None),
        Err(Trouble::File(error)) => {
            let what = "not written".to_owned();
            (Err(StoreError::Unavailable { store: NAME, what, source: None }), Some(error))
        }
    }
}
