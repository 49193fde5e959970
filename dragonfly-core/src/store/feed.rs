//! How a store tells its watches: a bounded channel in front of a bounded log.
//!
//! A watch subscribes first and reads the present second, then drops what the channel brings that
//! it has read already: so it needs no lock that writers need too, and misses nothing.
//!
//! A store of one's own is an [`Origin`]; [`watch`] makes the rest. It sends [`News`] after a write is durable
//! and before its caller is answered, in the order of the versions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::stream::{self, StreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{Result, WatchEvent};
use crate::resource::{Kind, Record};

/// How long a watch rests after it failed to read.
const REST: Duration = Duration::from_secs(1);

/// One write that is durable.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its version.
    pub version: u64,
    /// The object afterwards, or as it was before its deletion.
    pub record: Arc<Record>,
    /// Whether it is gone.
    pub deleted: bool,
}

impl Change {
    fn event(&self) -> WatchEvent {
        let record = Arc::clone(&self.record);
        if self.deleted { WatchEvent::Deleted(record) } else { WatchEvent::Applied(record) }
    }
}

/// What the channel carries.
#[derive(Debug, Clone)]
pub enum News {
    /// A write.
    Change(Change),
    /// Something may have been written that was never told: read again.
    Again,
}

/// What a watch reads before it listens.
#[derive(Debug)]
pub struct Present {
    /// The last version that this includes.
    pub version: u64,
    /// What it is.
    pub what: Read,
}

/// A whole kind, or what changed in it.
#[derive(Debug)]
pub enum Read {
    /// Everything.
    Everything(Vec<Record>),
    /// The changes after the version asked for: the log reaches that far.
    Since(Vec<Change>),
}

/// A store as its watches see it. It should not keep the store open: a watch ends when the store does.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// News from now on; `None` when the store is closed. Any buffer is enough: a watch that falls behind reads.
    fn listen(&self) -> Option<Receiver<News>>;

    /// The changes since that version if the log still has them all, else everything, and the version
    /// that this includes, from one moment; `None` when the store is closed. Called after
    /// [`listen`](Self::listen). A version from the future gets everything.
    async fn read(&self, kind: Kind, since: Option<u64>) -> Result<Option<Present>>;
}

/// A watch over one kind, as [`Store::watch`](super::Store::watch) promises it. After an error of
/// [`Origin::read`] it rests a second and reads again.
pub fn watch<O: Origin>(origin: O, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
    // A version that is not one of ours cannot be resumed from.
    let since = from.and_then(|version| version.parse().ok());
    let watch = Watch { origin, kind, seen: since, queue: Vec::new(), news: None, failed: false };
    stream::unfold(watch, |mut watch| async move { watch.next().await.map(|event| (event, watch)) }).boxed()
}

struct Watch<O> {
    origin: O,
    kind: Kind,
    /// The last version this watch has told or passed over; `None` before the first snapshot.
    seen: Option<u64>,
    /// What was read and is still to be told, the last first.
    queue: Vec<WatchEvent>,
    news: Option<Receiver<News>>,
    failed: bool,
}

impl<O: Origin> Watch<O> {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        loop {
            if let Some(event) = self.queue.pop() {
                return Some(Ok(event));
            }
            let Some(news) = &mut self.news else {
                if std::mem::take(&mut self.failed) {
                    tokio::time::sleep(REST).await;
                }
                match self.start().await {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => {
                        self.failed = true;
                        return Some(Err(error));
                    }
                }
            };
            match news.recv().await {
                Ok(News::Change(change)) if self.seen.is_some_and(|seen| change.version <= seen) => {}
                Ok(News::Change(change)) => {
                    self.seen = Some(change.version);
                    if change.record.kind == self.kind {
                        return Some(Ok(change.event()));
                    }
                }
                // Fell behind: read what was missed, never skip it.
                Ok(News::Again) | Err(RecvError::Lagged(_)) => self.news = None,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn start(&mut self) -> Result<bool> {
        let Some(news) = self.origin.listen() else { return Ok(false) };
        let Some(present) = self.origin.read(self.kind, self.seen).await? else { return Ok(false) };
        self.queue = match present.what {
            Read::Everything(records) => vec![WatchEvent::Snapshot(records)],
            Read::Since(changes) => changes.iter().rev().map(Change::event).collect(),
        };
        self.seen = Some(present.version);
        self.news = Some(news);
        Ok(true)
    }
}
