//! The shared store as one instance has it: every call takes a while, and its watch tells late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::{Key, Page, Part, Result, Selector, Store, WatchEvent, When};
use futures_core::stream::BoxStream;
use futures_util::StreamExt as _;

/// Numbers that look random and are the same for the same seed (splitmix64). Clones go on together.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<AtomicU64>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    pub(crate) fn below(&self, most: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most.max(1)
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Mostly short, now and then long.
    pub(crate) async fn pause(&self, short: u64, long: u64) {
        let most = if self.one_in(12) { long } else { short };
        tokio::time::sleep(Duration::from_millis(self.below(most + 1))).await;
    }
}

#[derive(Debug)]
pub(crate) struct LaggingStore {
    store: Arc<dyn Store>,
    dice: Dice,
    /// Everything takes long here, and not now and then alone: much comes between a look and what is written after it.
    slow: bool,
}

impl LaggingStore {
    pub(crate) fn new(store: Arc<dyn Store>, dice: Dice) -> Self {
        let slow = dice.one_in(3);
        Self { store, dice, slow }
    }

    /// Something passes before a call and after it, so that others come in between.
    async fn slowly<T>(&self, call: impl Future<Output = T> + Send) -> T {
        let short = if self.slow { 1500 } else { 20 };
        self.dice.pause(short, 1500).await;
        let answer = call.await;
        self.dice.pause(short, 1500).await;
        answer
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for LaggingStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.slowly(self.store.get(key)).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.slowly(self.store.list(kind, selector, limit, from)).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        self.slowly(self.store.put(record, part, when)).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.slowly(self.store.delete(key, version)).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        let dice = self.dice.clone();
        let late = move |event| {
            let dice = dice.clone();
            async move {
                dice.pause(300, 8_000).await;
                event
            }
        };
        // Each is so late by itself, and none overtakes another.
        self.store.watch(kind, from).map(late).buffered(4096).boxed()
    }
}
