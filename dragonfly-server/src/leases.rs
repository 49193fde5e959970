//! DHCP leases in a file of their own: durable before a client is told.
//!
//! redb takes one writer. One thread takes rows from a queue and commits what is there together: many
//! clients that boot at once share one sync of the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use async_trait::async_trait;
use dragonfly_boot::dhcp::{Lease, LeaseError, LeaseStore};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, oneshot};

/// Address as a number -> lease as JSON.
const LEASES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("leases");
/// `format` -> number of the format.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// The format that this code reads and writes.
const FORMAT: u64 = 1;
/// Rows that wait for the writer.
const QUEUE: usize = 1024;

/// Leases in one file.
#[derive(Debug)]
pub(crate) struct RedbLeases {
    jobs: mpsc::Sender<Job>,
    /// Joined when this is dropped, so that nothing that was taken is lost.
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Job {
    Load(oneshot::Sender<Result<Vec<Lease>, dragonfly_core::Source>>),
    Put(Box<Lease>, oneshot::Sender<Result<(), dragonfly_core::Source>>),
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It cannot be opened.
    #[error(
        "the lease file {path} cannot be opened; is another server using it? If it is damaged, move it away: leases are then given anew"
    )]
    Open {
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
}

impl RedbLeases {
    /// Opens the file, or creates it readable by its owner only. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let fail = |source: dragonfly_core::Source| OpenError::Open { path: path.to_owned(), source };
        let database = create(path).map_err(fail)?;
        let found = prepare(&database).map_err(fail)?;
        if found != FORMAT {
            return Err(OpenError::Format { path: path.to_owned(), found });
        }
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("lease-writer".to_owned());
        let writer = thread.spawn(move || write(&database, queue)).map_err(|e| fail(e.into()))?;
        Ok(Self { jobs, writer: Some(writer) })
    }

    async fn ask<T>(
        &self,
        doing: &'static str,
        job: impl FnOnce(oneshot::Sender<Result<T, dragonfly_core::Source>>) -> Job,
    ) -> Result<T, LeaseError> {
        let gone = || LeaseError { doing, source: "the lease file's writer has ended".into() };
        let (answer, answered) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(|source| LeaseError { doing, source })
    }
}

impl Drop for RedbLeases {
    fn drop(&mut self) {
        // The writer ends when the last sender is gone.
        drop(std::mem::replace(&mut self.jobs, mpsc::channel(1).0));
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told so already.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl LeaseStore for RedbLeases {
    async fn load(&self) -> Result<Vec<Lease>, LeaseError> {
        self.ask("read", Job::Load).await
    }

    async fn put(&self, lease: &Lease) -> Result<(), LeaseError> {
        let lease = Box::new(lease.clone());
        self.ask("written", |answer| Job::Put(lease, answer)).await
    }
}

fn create(path: &Path) -> Result<Database, dragonfly_core::Source> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Made beforehand, so that it is never open to others, not even for a moment.
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    // A small file that is read once: little memory is enough.
    Ok(redb::Builder::new().set_cache_size(4 << 20).create(path)?)
}

/// Makes the tables of a new file and gives the format of an old one.
fn prepare(database: &Database) -> Result<u64, dragonfly_core::Source> {
    let write = database.begin_write()?;
    let found = {
        write.open_table(LEASES)?;
        let mut about = write.open_table(ABOUT)?;
        let found = about.get("format")?.map(|value| value.value());
        match found {
            Some(found) => found,
            None => {
                about.insert("format", FORMAT)?;
                FORMAT
            }
        }
    };
    write.commit()?;
    Ok(found)
}

fn write(database: &Database, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut rows = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Load(answer) => drop(answer.send(load(database))),
                Job::Put(lease, answer) => rows.push((lease, answer)),
            }
            next = if rows.len() < QUEUE { queue.try_recv().ok() } else { None };
        }
        if rows.is_empty() {
            continue;
        }
        let done = commit(database, rows.iter().map(|(lease, _)| &**lease)).map_err(|error| error.to_string());
        for (_, answer) in rows {
            // Whoever asked may have gone.
            let _ = answer.send(done.clone().map_err(Into::into));
        }
    }
}

fn load(database: &Database) -> Result<Vec<Lease>, dragonfly_core::Source> {
    let read = database.begin_read()?;
    let table = read.open_table(LEASES)?;
    let rows = table.iter()?.map(|row| Ok(serde_json::from_slice(row?.1.value())?));
    rows.collect()
}

fn commit<'a>(database: &Database, leases: impl Iterator<Item = &'a Lease>) -> Result<(), dragonfly_core::Source> {
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(LEASES)?;
        for lease in leases {
            table.insert(u32::from(lease.address), serde_json::to_vec(lease)?.as_slice())?;
        }
    }
    // redb syncs the disk before this returns.
    write.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragonfly_boot::dhcp::{ClientKey, LeaseState};
    use dragonfly_core::Mac;
    use dragonfly_core::clock::Timestamp;
    use std::sync::Arc;

    fn lease(last: u8, seconds: i64) -> Lease {
        Lease {
            address: [10, 0, 0, last].into(),
            expires: Timestamp::from_unix_seconds(seconds),
            state: LeaseState::Bound { client: ClientKey::of_mac(Mac::new([2, 0, 0, 0, 0, last])) },
        }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases.redb");
        let leases = Arc::new(RedbLeases::open(&path).unwrap());
        assert_eq!(leases.load().await.unwrap(), []);
        let mut writers = tokio::task::JoinSet::new();
        for last in 1..=100 {
            let leases = Arc::clone(&leases);
            writers.spawn(async move { leases.put(&lease(last, 1)).await.unwrap() });
        }
        while writers.join_next().await.is_some() {}
        leases.put(&lease(7, 2)).await.unwrap();
        drop(leases);
        let rows = RedbLeases::open(&path).unwrap().load().await.unwrap();
        assert_eq!(rows.len(), 100);
        assert_eq!(rows[6], lease(7, 2), "the newest row of an address stands");
    }

    #[tokio::test]
    async fn a_second_server_and_a_strange_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases.redb");
        let first = RedbLeases::open(&path).unwrap();
        assert!(matches!(RedbLeases::open(&path), Err(OpenError::Open { .. })));
        drop(first);
        let strange = dir.path().join("strange");
        std::fs::write(&strange, vec![7; 8192]).unwrap();
        assert!(RedbLeases::open(&strange).is_err());
    }
}
