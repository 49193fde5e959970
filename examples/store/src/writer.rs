//! The one thread that writes.

use std::sync::Arc;

use dragonfly_core::clock::{Clock, Timestamp};
use dragonfly_core::resource::Record;
use dragonfly_core::store::feed::{Change, News};
use dragonfly_core::store::{Key, Part, Result, StoreError, When, rules};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::broadcast::Sender;
use tokio::sync::{mpsc, oneshot};

use crate::error::Trouble;
use crate::file::{File, Meta, current, number, stored};

/// Writes in one commit, at most.
const GROUP: usize = 512;
/// Bytes of objects in one commit, roughly at most.
const GROUP_BYTES: usize = 8 << 20;
/// The size of `change` in bytes of objects, at most.
const MAX_LOG_BYTES: u64 = 32 << 20;

/// A write that somebody waits for.
pub(crate) enum Job {
    Put { record: Box<Record>, part: Part, when: When, answer: oneshot::Sender<Result<Record>> },
    Delete { key: Key, version: String, answer: oneshot::Sender<Result<()>> },
}

/// Who waits: told once the group is durable, or that it is not. One that has gone away is told nothing; its write
/// stands.
type Waiting = Box<dyn FnOnce(Result<()>) + Send>;

fn waiting<T: Send + 'static>(answer: oneshot::Sender<Result<T>>, result: Result<T>) -> Waiting {
    Box::new(move |durable| drop(answer.send(durable.and(result))))
}

pub(crate) struct Writer {
    pub(crate) file: Arc<File>,
    pub(crate) news: Sender<News>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Changes that are kept.
    pub(crate) log: u64,
}

impl Writer {
    pub(crate) fn run(self, mut connection: Connection, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut waiting = Vec::new();
            match self.group(&mut connection, first, &mut queue, &mut waiting) {
                Ok(changes) => {
                    for change in changes {
                        // Nobody listening is no error.
                        self.news.send(News::Change(change)).ok();
                    }
                    waiting.into_iter().for_each(|waiting| waiting(Ok(())));
                }
                Err(error) => {
                    let path = self.file.path().display();
                    tracing::error!(%path, error = &error as &dyn std::error::Error, "the store failed");
                    // The group may be on the disk all the same: watches read again.
                    self.news.send(News::Again).ok();
                    let error = Arc::new(error);
                    waiting.into_iter().for_each(|waiting| waiting(Err(self.file.failed(Arc::clone(&error)))));
                }
            }
        }
    }

    /// Writes what is queued and commits it. Each write sees those before it; one that must not be done leaves the
    /// others alone. What fails is rolled back when the transaction is dropped.
    fn group(
        &self,
        connection: &mut Connection,
        first: Job,
        queue: &mut mpsc::Receiver<Job>,
        all: &mut Vec<Waiting>,
    ) -> rusqlite::Result<Vec<Change>> {
        let begun = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|tx| Meta::read(&tx).map(|meta| (tx, meta)));
        let (tx, meta) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                all.push(refused(first));
                return Err(error);
            }
        };
        let mut group = Group { tx: &tx, meta, now: self.clock.now(), bytes: 0, changes: Vec::new() };
        let mut job = Some(first);
        while let Some(next) = job.take() {
            let (waiting, failed) = group.write(next);
            all.push(waiting);
            if let Some(error) = failed {
                return Err(error);
            }
            if all.len() < GROUP && group.bytes < GROUP_BYTES {
                job = queue.try_recv().ok();
            }
        }
        let changes = group.finish(self.log)?;
        if !changes.is_empty() {
            tx.commit()?;
        }
        Ok(changes)
    }
}

/// Waits for an answer that can only be a failure.
fn refused(job: Job) -> Waiting {
    match job {
        Job::Put { answer, .. } => waiting(answer, Err(not_written())),
        Job::Delete { answer, .. } => waiting(answer, Err(not_written())),
    }
}

fn not_written() -> StoreError {
    StoreError::Unavailable { store: crate::NAME, what: "not written".to_owned(), source: None }
}

/// A group of writes before its commit.
struct Group<'a> {
    tx: &'a Transaction<'a>,
    meta: Meta,
    now: Timestamp,
    bytes: usize,
    changes: Vec<Change>,
}

impl Group<'_> {
    /// Does one write: who waits for it, and why the file failed if it did.
    fn write(&mut self, job: Job) -> (Waiting, Option<rusqlite::Error>) {
        match job {
            Job::Put { record, part, when, answer } => {
                let (result, failed) = split(self.put(*record, part, &when));
                (waiting(answer, result), failed)
            }
            Job::Delete { key, version, answer } => {
                let (result, failed) = split(self.delete(&key, &version));
                (waiting(answer, result), failed)
            }
        }
    }

    fn put(&mut self, given: Record, part: Part, when: &When) -> Result<Record, Trouble> {
        let key = Key::new(given.kind, given.metadata.name.clone());
        let before = current(self.tx, &key)?;
        let record = rules::put(before, given, part, when, self.meta.version + 1, self.now)?;
        let json = rules::encode(&record)?;
        let mut statement = self.tx.prepare_cached(
            "INSERT INTO object (kind, name, json) VALUES (?1, ?2, ?3) \
             ON CONFLICT (kind, name) DO UPDATE SET json = excluded.json",
        )?;
        statement.execute(params![key.kind.name, key.name, json])?;
        self.changed(record.clone(), &json, false)?;
        Ok(record)
    }

    fn delete(&mut self, key: &Key, seen: &str) -> Result<(), Trouble> {
        let record = rules::delete(current(self.tx, key)?, key, seen, self.meta.version + 1)?;
        let json = rules::encode(&record)?;
        let mut statement = self.tx.prepare_cached("DELETE FROM object WHERE kind = ?1 AND name = ?2")?;
        statement.execute([key.kind.name, &key.name])?;
        self.changed(record, &json, true)?;
        Ok(())
    }

    fn changed(&mut self, record: Record, json: &[u8], deleted: bool) -> rusqlite::Result<()> {
        self.meta.version += 1;
        self.meta.log_bytes += json.len() as u64;
        self.bytes += json.len();
        let version = self.meta.version;
        let mut statement = self.tx.prepare_cached("INSERT INTO change VALUES (?1, ?2, ?3, ?4)")?;
        statement.execute(params![stored(version), record.kind.name, deleted, json])?;
        self.changes.push(Change { version, record: Arc::new(record), deleted });
        Ok(())
    }

    /// Writes the numbers and keeps the changes in their bounds.
    fn finish(mut self, most: u64) -> rusqlite::Result<Vec<Change>> {
        if self.changes.is_empty() {
            return Ok(self.changes);
        }
        while let Some((version, size)) = self.oldest()? {
            if self.meta.version - version < most && self.meta.log_bytes <= MAX_LOG_BYTES {
                break;
            }
            self.tx.prepare_cached("DELETE FROM change WHERE version = ?1")?.execute([stored(version)])?;
            self.meta.log_bytes = self.meta.log_bytes.saturating_sub(size);
            self.meta.floor = version;
        }
        let Meta { version, floor, log_bytes } = self.meta;
        let mut statement = self.tx.prepare_cached("UPDATE meta SET version = ?1, floor = ?2, log_bytes = ?3")?;
        statement.execute([stored(version), stored(floor), stored(log_bytes)])?;
        Ok(self.changes)
    }

    /// The oldest change that is kept, and its size.
    fn oldest(&self) -> rusqlite::Result<Option<(u64, u64)>> {
        let mut statement =
            self.tx.prepare_cached("SELECT version, length(json) FROM change ORDER BY version LIMIT 1")?;
        statement.query_row([], |row| Ok((number(row.get(0)?), number(row.get(1)?)))).optional()
    }
}

fn split<T>(result: Result<T, Trouble>) -> (Result<T>, Option<rusqlite::Error>) {
    match result {
        Ok(done) => (Ok(done), None),
        Err(Trouble::Its(error)) => (Err(error), None),
        Err(Trouble::File(error)) => (Err(not_written()), Some(error)),
    }
}
