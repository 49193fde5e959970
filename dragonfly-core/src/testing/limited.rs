//! A store that stops after so many writes: what a process that is killed leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use crate::resource::{Kind, Record};
use crate::store::{Key, Page, Part, Result, Selector, Store, StoreError, WatchEvent, When};

/// Passes everything on to another store until a number of writes are done, and refuses every write
/// after that. Drop what stands on it, put a new one on the other store, and see whether it finds
/// its way. Clones share the count.
#[derive(Debug, Clone)]
pub struct LimitedStore {
    store: Arc<dyn Store>,
    limit: u64,
    asked: Arc<AtomicU64>,
}

impl LimitedStore {
    /// Lets this many writes through.
    pub fn new(store: Arc<dyn Store>, limit: u64) -> Self {
        Self { store, limit, asked: Arc::default() }
    }

    /// How many writes were asked for, those that were refused too.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn pass(&self) -> Result<()> {
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.limit {
            return Ok(());
        }
        let what = format!("it stopped after {} writes, as this test wants", self.limit);
        Err(StoreError::Unavailable { store: "limited", what, source: None })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for LimitedStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.store.get(key).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.store.list(kind, selector, limit, from).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        self.pass()?;
        self.store.put(record, part, when).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.pass()?;
        self.store.delete(key, version).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        self.store.watch(kind, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Hardware, HardwareSpec};
    use crate::store::{MemoryStore, StoreExt};

    mod without_reaching_the_limit {
        use super::*;
        crate::store_conformance!(async { LimitedStore::new(Arc::new(MemoryStore::default()), u64::MAX) });
    }

    #[tokio::test]
    async fn writes_until_the_limit_and_reads_beyond_it() {
        let below = Arc::new(MemoryStore::default());
        let store = LimitedStore::new(below.clone(), 1);
        let a = store.create(&Hardware::new("a", HardwareSpec::default())).await.unwrap();
        for error in [
            store.create(&Hardware::new("b", HardwareSpec::default())).await.unwrap_err(),
            store.remove(&a).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        }
        assert_eq!(store.asked(), 3);
        assert_eq!(below.fetch::<HardwareSpec>("a").await.unwrap(), a);
        assert_eq!(below.all::<HardwareSpec>(&Selector::all()).await.unwrap(), [a]);
    }
}
