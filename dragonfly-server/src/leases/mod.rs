//! DHCP leases in a file of their own: durable before a client is told.
//!
//! redb takes one writer. One thread takes rows from a queue and commits what is there together: many
//! clients that boot at once share one sync of the disk.

#[cfg(test)]
mod damage;
mod file;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod power_cuts;
#[cfg(test)]
mod talk;

use std::io;
use std::path::Path;
use std::thread::JoinHandle;

use async_trait::async_trait;
use dragonfly_boot::dhcp::{Lease, LeaseError, LeaseStore};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::file::FileError;
use self::file::LeaseFile;

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

impl RedbLeases {
    /// Opens the file, or creates it readable by its owner only. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let file = LeaseFile::open(path)?;
        Self::start(file).map_err(|error| FileError::Failed { path: path.to_owned(), source: error.into() })
    }

    fn start(file: LeaseFile) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("lease-writer".to_owned());
        let writer = thread.spawn(move || write(file, queue))?;
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

fn write(mut file: LeaseFile, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let (mut rows, mut answers) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Load(answer) => drop(answer.send(file.load())),
                Job::Put(lease, answer) => match serde_json::to_vec(&lease) {
                    Ok(json) => {
                        rows.push((u32::from(lease.address), json));
                        answers.push(answer);
                    }
                    Err(error) => drop(answer.send(Err(error.into()))),
                },
            }
            next = if rows.len() < QUEUE { queue.try_recv().ok() } else { None };
        }
        if rows.is_empty() {
            continue;
        }
        let done = file.put(&rows).map_err(|error| told(&error));
        for answer in answers {
            // Whoever asked may have gone.
            let _ = answer.send(done.clone().map_err(Into::into));
        }
    }
}

/// An error and its causes, for all who wait at once.
fn told(error: &dyn std::error::Error) -> String {
    let (mut all, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        all.push_str(&format!(": {error}"));
        cause = error.source();
    }
    all
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
        assert!(matches!(RedbLeases::open(&path), Err(FileError::InUse { .. })));
        drop(first);
        let strange = dir.path().join("strange");
        std::fs::write(&strange, vec![7; 8192]).unwrap();
        assert!(RedbLeases::open(&strange).is_err());
    }
}
