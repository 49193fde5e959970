//! The contract of [`Store`] as tests: one function, one promise.
//!
//! ```
//! # use dragonfly_core::store::MemoryStore;
//! dragonfly_core::store_conformance!(async { MemoryStore::default() });
//! ```
//!
//! gives one `#[tokio::test]` for each, every one with its own fresh, empty store. New promises may
//! appear in a minor release. The suite is itself tested: a store that breaks a promise on purpose
//! fails it.

#![allow(clippy::unwrap_used, reason = "these are tests: a store that fails is what they are to say")]

#[cfg(test)]
mod broken;
mod reads;
#[cfg(test)]
mod runs;
mod watches;
mod writes;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::resource::{Kind, Metadata, Record};
use crate::store::{Key, Part, Result, Selector, Store, WatchEvent, When};

pub use reads::*;
pub use watches::*;
pub use writes::*;

/// One promise, held against a store that is empty.
pub type Promise = for<'a> fn(&'a dyn Store) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Every promise by name.
pub const PROMISES: &[(&str, Promise)] = &crate::store_conformance!(@all [@table]);

/// Holds every promise of [`Store`](crate::store::Store) against `$fresh`: an async expression that
/// gives a new, empty store each time it is evaluated. Needs tokio's `macros` and `rt` in the
/// crate that uses it.
#[macro_export]
macro_rules! store_conformance {
    (@all [$($head:tt)*]) => {
        $crate::store_conformance! { $($head)*
            reads_what_was_written,
            absence_is_an_answer,
            list_is_one_kind,
            list_pages_are_complete_and_ordered,
            list_selects_by_labels,
            create_is_exclusive,
            create_leaves_the_status_out,
            create_sets_what_is_the_stores_to_set,
            stale_update_conflicts,
            stale_delete_conflicts,
            what_is_absent_is_not_changed,
            versions_are_never_reused,
            uids_are_stable_and_unique,
            a_spec_write_keeps_the_status,
            a_status_write_keeps_the_spec,
            generation_counts_changes_of_the_spec,
            unknown_fields_survive,
            too_large_is_refused,
            no_lost_updates,
            watch_is_snapshot_then_changes,
            watch_is_silent_about_writes_that_failed,
            watch_resumes_without_loss,
            watch_goes_on_from_a_list,
            watch_from_a_strange_version_starts_over,
            slow_watcher_converges,
            watch_never_goes_back,
        }
    };
    (@table $($promise:ident),+ $(,)?) => {
        [$((stringify!($promise), |store| Box::pin($promise(store)))),+]
    };
    (@tests $fresh:expr; $($promise:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $promise() {
            let store = $fresh.await;
            $crate::testing::store::$promise(&store).await;
        })+
    };
    ($fresh:expr) => {
        $crate::store_conformance!(@all [@tests $fresh;]);
    };
}

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
const KIND: Kind = Kind::HARDWARE;
const OTHER: Kind = Kind::TEMPLATE;

type Watch = BoxStream<'static, Result<WatchEvent>>;

fn key(name: &str) -> Key {
    Key::new(KIND, name)
}

fn record(name: &str, spec: Value) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Record { kind: KIND, metadata, spec, status: Value::Null }
}

async fn create(store: &dyn Store, name: &str) -> Record {
    store.put(record(name, json!({"n": 0})), Part::Spec, When::Absent).await.expect("a new object is created")
}

/// Writes a spec over what was read.
async fn change(store: &dyn Store, seen: &Record, spec: Value) -> Result<Record> {
    let when = When::Unchanged(seen.metadata.resource_version.clone());
    store.put(Record { spec, ..seen.clone() }, Part::Spec, when).await
}

/// Writes a status over what was read.
async fn report(store: &dyn Store, seen: &Record, status: Value) -> Result<Record> {
    let when = When::Unchanged(seen.metadata.resource_version.clone());
    store.put(Record { status, ..seen.clone() }, Part::Status, when).await
}

async fn read(store: &dyn Store, name: &str) -> Record {
    store.get(&key(name)).await.expect("it can be read").expect("it is there")
}

async fn next(watch: &mut Watch) -> WatchEvent {
    let event = tokio::time::timeout(PATIENCE, watch.next()).await;
    event.expect("the watch says something in time").expect("the watch goes on").expect("the watch can read")
}

/// A status that says nothing.
fn is_empty(status: &Value) -> bool {
    status.is_null() || status.as_object().is_some_and(serde_json::Map::is_empty)
}

/// What somebody knows who has heard nothing but a watch.
type Known = BTreeMap<String, Record>;

fn hear(known: &mut Known, event: WatchEvent) {
    match event {
        WatchEvent::Snapshot(all) => {
            *known = all.into_iter().map(|record| (record.metadata.name.clone(), record)).collect();
        }
        WatchEvent::Applied(record) => {
            known.insert(record.metadata.name.clone(), Arc::unwrap_or_clone(record));
        }
        WatchEvent::Deleted(record) => {
            known.remove(&record.metadata.name);
        }
    }
}

async fn everything(store: &dyn Store) -> Known {
    let page = store.list(KIND, &Selector::all(), 0, None).await.expect("a kind can be listed");
    page.items.into_iter().map(|record| (record.metadata.name.clone(), record)).collect()
}
