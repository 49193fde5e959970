//! A store whose caller is cut off at a write: what the engine was about to do then, it never does.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::{Key, Page, Part, Result, Selector, Store, WatchEvent, When};
use tokio::sync::Notify;

/// Passes everything on, until a write at which it falls silent for ever. Whoever waits for that write is
/// to be dropped when [`silent`](Self::silent) returns.
#[derive(Debug, Clone)]
pub(crate) struct CutStore {
    store: Arc<dyn Store>,
    armed: Arc<Mutex<Option<(u32, bool)>>>,
    silent: Arc<Notify>,
}

impl CutStore {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, armed: Arc::default(), silent: Arc::default() }
    }

    /// Falls silent at the write after this many, before or after it is done; never with `None`.
    pub(crate) fn arm(&self, at: Option<(u32, bool)>) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Returns when it has fallen silent.
    pub(crate) async fn silent(&self) {
        self.silent.notified().await;
    }

    async fn pass<T>(&self, write: impl Future<Output = T> + Send) -> T {
        let after = {
            let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
            match armed.as_mut() {
                Some((0, after)) => Some(*after),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        let Some(after) = after else { return write.await };
        if after {
            write.await;
        }
        self.silent.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for CutStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.store.get(key).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.store.list(kind, selector, limit, from).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        self.pass(self.store.put(record, part, when)).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.pass(self.store.delete(key, version)).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> futures_core::stream::BoxStream<'static, Result<WatchEvent>> {
        self.store.watch(kind, from)
    }
}
