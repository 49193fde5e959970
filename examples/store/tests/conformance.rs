//! The store keeps the promises of stores, with room for watches and without.

use async_trait::async_trait;
use dragonfly_core::resource::{Kind, Record};
use dragonfly_core::store::{Key, Page, Part, Result, Selector, Store, WatchEvent, When};
use futures_core::stream::BoxStream;
use sqlite_store::{Options, SqliteStore};
use tempfile::TempDir;

/// A store whose directory goes with it.
#[derive(Debug)]
struct Fresh {
    store: SqliteStore,
    _directory: TempDir,
}

fn fresh(options: Options) -> Fresh {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open_with(directory.path().join("store.sqlite"), options).expect("it opens");
    Fresh { store, _directory: directory }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Fresh {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.store.get(key).await
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.store.list(kind, selector, limit, from).await
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        self.store.put(record, part, when).await
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.store.delete(key, version).await
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        self.store.watch(kind, from)
    }
}

mod plain {
    use super::*;
    dragonfly_core::store_conformance!(async { fresh(Options::default()) });
}

mod with_a_channel_of_two {
    use super::*;
    dragonfly_core::store_conformance!(async { fresh(Options { channel: 2, ..Options::default() }) });
}

mod with_a_log_of_three_and_a_channel_of_two {
    use super::*;
    dragonfly_core::store_conformance!(async { fresh(Options { log: 3, channel: 2, ..Options::default() }) });
}

mod without_a_log {
    use super::*;
    dragonfly_core::store_conformance!(async { fresh(Options { log: 0, channel: 16, ..Options::default() }) });
}
