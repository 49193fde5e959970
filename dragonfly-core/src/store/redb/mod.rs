//! The embedded store: one file.
//!
//! A table per kind, keyed by name; one counter for every `resourceVersion`; a bounded log of
//! changes, so that a watch resumes also across a restart. redb takes one writer, so one thread
//! writes: it takes what is queued, commits it as one group (one fsync for many callers), tells the
//! watches in the order of versions and then answers. A write that is answered is on the disk.
//!
//! Reads go to the file on tokio's blocking threads: what must be fast reads the
//! [cache](crate::cache), and a second copy of every object in here would buy nothing for it.

#[cfg(test)]
mod backups;
mod copy;
#[cfg(test)]
mod damage;
mod file;
mod health;
mod labels;
#[cfg(test)]
mod labels_tests;
#[cfg(feature = "testing")]
mod memory_disk;
mod place;
#[cfg(test)]
mod power_cuts;
mod restore;
mod seal;
#[cfg(test)]
mod tests;
mod trial;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use redb::Durability;
use tokio::sync::broadcast::{self, Receiver, WeakSender};
use tokio::sync::{mpsc, oneshot};

use self::file::File;
use self::health::Probe;
use self::writer::{Job, What, Writer};
use super::feed::{self, News, Origin, Present};
use super::{Key, Page, Part, Result, Selector, Store, StoreError, WatchEvent, When};
use crate::clock::{Clock, SystemClock};
use crate::resource::{Kind, Record};

pub use copy::{Verified, verify};
#[cfg(feature = "testing")]
pub use memory_disk::MemoryDisk;
pub use restore::restore;
pub use trial::is_whole;

/// The name in errors.
const NAME: &str = "redb";
/// Writes that may wait for the writer; more wait for a place.
const QUEUE: usize = 1024;

/// How a [`RedbStore`] is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where creation times come from.
    pub clock: Arc<dyn Clock>,
    /// Changes kept for watches that resume.
    pub log: u64,
    /// Changes a live watch may be behind before it reads the log.
    pub channel: usize,
    /// Memory for pages of the file, in bytes.
    pub page_cache: usize,
    /// For tests: waits this long between a commit and its publication, which widens the window
    /// in which readers know more than watches.
    pub pause: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), log: 4096, channel: 1024, page_cache: 64 << 20, pause: None }
    }
}

/// A store in one file. Clones share it. [`close`](Self::close) it, or drop the last clone, which
/// waits for the writes that are queued.
#[derive(Clone)]
pub struct RedbStore(Arc<Inner>);

struct Inner {
    file: Arc<File>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    news: WeakSender<News>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.0.file.path()).finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens the file, or creates it readable by its owner only. Blocks.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// Opens the file with other options. Blocks.
    pub fn open_with(path: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let file = File::open(path.into(), options.page_cache)?;
        Self::start(file, options)
    }

    fn start(file: File, options: Options) -> Result<Self> {
        Self::start_with(file, options, Durability::Immediate)
    }

    fn start_with(file: File, options: Options, durability: Durability) -> Result<Self> {
        let file = Arc::new(file);
        if let Err(error) = labels::ensure(&file) {
            // Lists by label are slow then, and right.
            let path = file.path().display();
            tracing::warn!(%path, error = &error as &dyn std::error::Error, "objects cannot be indexed by label");
        }
        let (jobs, queue) = mpsc::channel(QUEUE);
        let news = broadcast::channel(options.channel.max(1)).0;
        let weak = news.downgrade();
        let (clock, log, pause) = (options.clock, options.log, options.pause);
        let writer = Writer { file: Arc::clone(&file), news, clock, log, pause, durability };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run(queue));
        let thread = thread.map_err(|source| StoreError::Unavailable {
            store: NAME,
            what: "the system gives no thread for its writer".to_owned(),
            source: Some(source.into()),
        })?;
        let (jobs, thread) = (Mutex::new(Some(jobs)), Mutex::new(Some(thread)));
        Ok(Self(Arc::new(Inner { file, jobs, news: weak, thread })))
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.0.file.path()
    }

    /// Finishes the writes that are queued, ends every watch and closes the file. Later calls on
    /// any clone fail.
    pub async fn close(&self) -> Result<()> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            inner.finish();
            inner.file.close();
            Ok(())
        })
        .await
    }

    /// Writes everything, as it is at this moment, to a new file, while the store goes on. The
    /// copy's counter of versions starts well ahead of ours: a watch never resumes from a version
    /// that the copy gave to another write. [`restore`] makes a store of it.
    pub async fn backup(&self, to: impl Into<PathBuf>) -> Result<()> {
        let (inner, to) = (Arc::clone(&self.0), to.into());
        blocking(move || copy::backup(&inner.file, &to)).await
    }

    /// Whether this file is a backup that was put in place, and what it allowed when it was made is not
    /// yet held. Tell the engine: [`EngineBuilder::restored`](crate::engine::EngineBuilder::restored).
    pub async fn is_restored(&self) -> Result<bool> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.file.is_restored()).await
    }

    /// What this backup allowed is held, so that the next start need not do it again.
    pub async fn settle_restored(&self) -> Result<()> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.file.settle_restored()).await
    }

    /// Whether writes reach the disk. While they do, nothing is done for this. After one failed because the file did, a
    /// small one is tried, every 3 s at most, until it goes well; there must be room on the disk too.
    ///
    /// # Errors
    /// Why a write failed, and what a person can do: the disk is full, is read-only, does not work.
    pub async fn check_writes(&self) -> Result<()> {
        match self.0.file.health().probe(Instant::now()) {
            Probe::Needless => return Ok(()),
            Probe::Later(what) => return Err(health::still(what)),
            Probe::Now => {}
        }
        let inner = Arc::clone(&self.0);
        // The writer notes by itself what becomes of the write.
        blocking(move || inner.file.find_room()).await?;
        self.write(|answer| What::Probe { answer }).await?;
        self.0.file.health().well();
        Ok(())
    }

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T>>) -> What) -> Result<T> {
        let jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        match jobs {
            Some(jobs) if jobs.send(Job(job(answer))).await.is_ok() => {}
            _ => return Err(self.0.file.closed()),
        }
        answered.await.unwrap_or_else(|_| Err(self.0.file.closed()))
    }
}

impl Inner {
    /// Lets the writer finish and waits for it.
    fn finish(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A writer that panicked has said so; what it had not answered was not written.
            thread.join().ok();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.finish();
    }
}

/// redb blocks; every call that touches the file goes through here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Backend { store: NAME, source: error.into() }),
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let (inner, key) = (Arc::clone(&self.0), key.clone());
        blocking(move || inner.file.get(&key)).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        let (inner, selector, from) = (Arc::clone(&self.0), selector.clone(), from.map(str::to_owned));
        blocking(move || inner.file.list(kind, &selector, limit, from.as_deref())).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        self.write(|answer| What::Put { record: Box::new(record), part, when, answer }).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.write(|answer| What::Delete { key: key.clone(), version: version.to_owned(), answer }).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        feed::watch(Weakly(Arc::downgrade(&self.0)), kind, from)
    }
}

/// A watch does not keep the store open.
struct Weakly(Weak<Inner>);

#[async_trait]
impl Origin for Weakly {
    fn listen(&self) -> Option<Receiver<News>> {
        let news = self.0.upgrade()?.news.upgrade()?;
        Some(news.subscribe())
    }

    async fn read(&self, kind: Kind, since: Option<u64>) -> Result<Option<Present>> {
        let Some(file) = self.0.upgrade().map(|inner| Arc::clone(&inner.file)) else { return Ok(None) };
        blocking(move || file.present(kind, since)).await.map(Some)
    }
}
