//! A store of one's own, in an afternoon: every object in one SQLite file.
//!
//! ```no_run
//! # use dragonfly_core::resource::HardwareSpec;
//! # use dragonfly_core::store::{Selector, StoreExt};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = sqlite_store::SqliteStore::open("/var/lib/dragonfly/dragonfly.sqlite")?;
//! println!("{} machines", store.all::<HardwareSpec>(&Selector::all()).await?.len());
//! # Ok(())
//! # }
//! ```
//!
//! What a write means stands in [`dragonfly_core::store::rules`] and what a watch tells in
//! [`dragonfly_core::store::feed`]; here is only where the bytes are. One thread writes: it takes what is queued,
//! commits it as one transaction, tells the watches and then answers. The file is in WAL mode with
//! `synchronous=FULL`: what is answered has been synced to the disk. Reads are on tokio's blocking threads, each
//! with a connection of its own.
//!
//! The file is one process' at a time, by a lock on the file beside it that ends in `.lock`: what another process
//! writes would reach no watch.

mod error;
mod file;
mod place;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use async_trait::async_trait;
use dragonfly_core::clock::{Clock, SystemClock};
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::feed::{self, News, Origin, Present};
use dragonfly_core::store::{Key, Page, Part, Result, Selector, Store, StoreError, WatchEvent, When};
use futures_core::stream::BoxStream;
use tokio::sync::broadcast::{self, Receiver, WeakSender};
use tokio::sync::{mpsc, oneshot};

use file::File;
use writer::{Job, Writer};

/// The name in errors.
const NAME: &str = "sqlite";
/// Writes that may wait for the writer; more wait for a place.
const QUEUE: usize = 1024;

/// How a [`SqliteStore`] is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where creation times come from.
    pub clock: Arc<dyn Clock>,
    /// Changes kept for watches that resume; at most 32 MiB of them.
    pub log: u64,
    /// Changes a live watch may be behind before it reads the file.
    pub channel: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), log: 4096, channel: 1024 }
    }
}

/// The version of SQLite in here.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// A store in one SQLite file. Clones share it. [`close`](Self::close) it, or drop the last clone, which waits for
/// the writes that are queued.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    file: Arc<File>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    news: WeakSender<News>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.0.file.path()).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file, or creates it readable by its owner only. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when another process has it, or it may not be read and written here;
    /// [`StoreError::Backend`] when it is damaged, is no SQLite file, or is not one of ours.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// As [`open`](Self::open), with other options. Blocks.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let (file, connection) = File::open(path.into())?;
        let file = Arc::new(file);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let news = broadcast::channel(options.channel.max(1)).0;
        let weak = news.downgrade();
        let writer = Writer { file: Arc::clone(&file), news, clock: options.clock, log: options.log };
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        let thread = thread.spawn(move || writer.run(connection, queue)).map_err(|source| StoreError::Unavailable {
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

    /// Finishes the writes that are queued, ends every watch and closes the file. Later calls on any clone fail.
    ///
    /// # Errors
    /// [`StoreError::Backend`] when the runtime is shutting down.
    pub async fn close(&self) -> Result<()> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            inner.finish();
            inner.file.close();
            Ok(())
        })
        .await
    }

    async fn write<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job) -> Result<T> {
        let jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        match jobs {
            Some(jobs) if jobs.send(job(answer)).await.is_ok() => {}
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

/// SQLite blocks; every call that touches the file goes through here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Backend { store: NAME, source: error.into() }),
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let (file, key) = (Arc::clone(&self.0.file), key.clone());
        blocking(move || file.get(&key)).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        let file = Arc::clone(&self.0.file);
        let (selector, from) = (selector.clone(), from.map(str::to_owned));
        blocking(move || file.list(kind, &selector, limit, from.as_deref())).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        self.write(|answer| Job::Put { record: Box::new(record), part, when, answer }).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.write(|answer| Job::Delete { key: key.clone(), version: version.to_owned(), answer }).await
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
