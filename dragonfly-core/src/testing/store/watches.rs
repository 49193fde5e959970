//! Promises about watching.

use futures_util::stream::FuturesUnordered;
use serde_json::json;

use super::*;
use crate::store::StoreError;

/// A watch begins with the present and goes on with every change in order, of its kind alone.
pub async fn watch_is_snapshot_then_changes(store: &dyn Store) {
    let a = create(store, "a").await;
    let mut watch = store.watch(KIND, None);
    assert_eq!(next(&mut watch).await, WatchEvent::Snapshot(vec![a.clone()]));
    let other = Record { kind: OTHER, ..record("a", json!({"actions": []})) };
    store.put(other, Part::Spec, When::Absent).await.unwrap();
    let changed = change(store, &a, json!({"n": 2})).await.unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Applied(Arc::new(changed.clone())));
    let told = report(store, &changed, json!({"phase": "Ready"})).await.unwrap();
    assert_eq!(next(&mut watch).await, WatchEvent::Applied(Arc::new(told.clone())));
    store.delete(&key("a"), &told.metadata.resource_version).await.unwrap();
    let WatchEvent::Deleted(gone) = next(&mut watch).await else { panic!("it was deleted") };
    assert_ne!(gone.metadata.resource_version, told.metadata.resource_version, "a deletion is a write");
    let as_it_was = Record {
        metadata: Metadata { resource_version: gone.metadata.resource_version.clone(), ..told.metadata },
        ..told
    };
    assert_eq!(*gone, as_it_was);
    let b = create(store, "b").await;
    assert_eq!(next(&mut watch).await, WatchEvent::Applied(Arc::new(b)));
}

/// A write that failed is told to nobody.
pub async fn watch_is_silent_about_writes_that_failed(store: &dyn Store) {
    let old = create(store, "a").await;
    let now = change(store, &old, json!({"n": 1})).await.unwrap();
    let mut watch = store.watch(KIND, None);
    assert_eq!(next(&mut watch).await, WatchEvent::Snapshot(vec![now]));
    store.put(record("a", json!({})), Part::Spec, When::Absent).await.unwrap_err();
    change(store, &old, json!({"n": 2})).await.unwrap_err();
    store.delete(&key("a"), &old.metadata.resource_version).await.unwrap_err();
    store.delete(&key("b"), &old.metadata.resource_version).await.unwrap_err();
    for name in ["b", "c"] {
        let made = create(store, name).await;
        assert_eq!(next(&mut watch).await, WatchEvent::Applied(Arc::new(made)));
    }
}

/// Who comes back with a version seen earlier misses nothing: neither deletions nor objects made
/// anew. Whether that takes changes or a new snapshot is the store's affair.
pub async fn watch_resumes_without_loss(store: &dyn Store) {
    let mut watch = store.watch(KIND, None);
    let mut known = Known::new();
    hear(&mut known, next(&mut watch).await);
    let mut places = Vec::new();
    for name in ["kept", "changed", "deleted", "again"] {
        create(store, name).await;
        while !known.contains_key(name) {
            hear(&mut known, next(&mut watch).await);
        }
        places.push((known[name].metadata.resource_version.clone(), known.clone()));
    }
    drop(watch);
    change(store, &known["changed"], json!({"n": 1})).await.unwrap();
    for name in ["deleted", "again"] {
        store.delete(&key(name), &known[name].metadata.resource_version).await.unwrap();
    }
    create(store, "again").await;
    for n in 0..10 {
        create(store, &format!("new{n}")).await;
    }
    let last = create(store, "last").await;
    let want = everything(store).await;
    let mut resumed = Vec::new();
    for (version, mut known) in places {
        let mut watch = store.watch(KIND, Some(version.clone()));
        while known.get("last") != Some(&last) {
            hear(&mut known, next(&mut watch).await);
        }
        assert_eq!(known, want, "from version {version}");
        resumed.push((version, watch, known));
    }
    let touched = report(store, &last, json!({"phase": "Ready"})).await.unwrap();
    let want = everything(store).await;
    for (version, mut watch, mut known) in resumed {
        while known.get("last") != Some(&touched) {
            hear(&mut known, next(&mut watch).await);
        }
        assert_eq!(known, want, "from version {version}, live");
    }
}

/// Who reads pages and then watches from the first one's version knows everything in the end, whatever
/// was written between the pages.
pub async fn watch_goes_on_from_a_list(store: &dyn Store) {
    for name in ["a", "b", "c", "d"] {
        create(store, name).await;
    }
    let first = store.list(KIND, &Selector::all(), 2, None).await.unwrap();
    let a = read(store, "a").await;
    change(store, &a, json!({"n": 1})).await.unwrap();
    store.delete(&key("b"), &read(store, "b").await.metadata.resource_version).await.unwrap();
    let d = read(store, "d").await;
    change(store, &d, json!({"n": 1})).await.unwrap();
    let rest = store.list(KIND, &Selector::all(), 0, first.more.as_deref()).await.unwrap();
    let last = create(store, "last").await;
    let mut known = Known::new();
    for record in first.items.into_iter().chain(rest.items) {
        known.insert(record.metadata.name.clone(), record);
    }
    let mut watch = store.watch(KIND, Some(first.version));
    while known.get("last") != Some(&last) {
        hear(&mut known, next(&mut watch).await);
    }
    assert_eq!(known, everything(store).await);
}

/// A version that this store never gave is no place to resume from: the watch begins with the present.
pub async fn watch_from_a_strange_version_starts_over(store: &dyn Store) {
    let a = create(store, "a").await;
    for version in ["", "no-such-version", "18446744073709551615", "-1"] {
        let mut watch = store.watch(KIND, Some(version.to_owned()));
        assert_eq!(next(&mut watch).await, WatchEvent::Snapshot(vec![a.clone()]), "from version {version:?}");
    }
}

/// A watcher that falls behind ends with the truth: it may be started over, never misled.
pub async fn slow_watcher_converges(store: &dyn Store) {
    let mut watch = store.watch(KIND, None);
    let mut known = Known::new();
    hear(&mut known, next(&mut watch).await);
    let mut writes: FuturesUnordered<_> =
        (0..200).map(|n| async move { create(store, &format!("m{n:03}")).await }).collect();
    while let Some(made) = writes.next().await {
        if made.metadata.name.ends_with('7') {
            store.delete(&key(&made.metadata.name), &made.metadata.resource_version).await.unwrap();
        }
    }
    drop(writes);
    let last = create(store, "last").await;
    while known.get("last") != Some(&last) {
        hear(&mut known, next(&mut watch).await);
    }
    assert_eq!(known.len(), 181);
    assert_eq!(known, everything(store).await);
}

/// Seen through a watch, an object never goes back to what it was earlier, not even from one
/// watch to the next.
pub async fn watch_never_goes_back(store: &dyn Store) {
    const WRITES: u64 = 200;
    create(store, "n").await;
    let write = async {
        // Several writers, so that commits and what is told of them have every chance to cross.
        let mut all: FuturesUnordered<_> = (0..4)
            .map(|_| async {
                loop {
                    let now = read(store, "n").await;
                    let n = now.spec["n"].as_u64().expect("a number was written");
                    if n == WRITES {
                        break;
                    }
                    match change(store, &now, json!({"n": n + 1})).await {
                        Ok(_) | Err(StoreError::Conflict { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                    // Without this a store that never waits would be done before the watch opens.
                    tokio::task::yield_now().await;
                }
            })
            .collect();
        while all.next().await.is_some() {}
    };
    let watch = async {
        let (mut highest, mut version) = (0, None);
        while highest < WRITES {
            // Opened anew now and then, so that snapshots are taken while writes are under way.
            let mut watch = store.watch(KIND, version.take().filter(|_| highest % 2 == 0));
            for _ in 0..25 {
                let record = match next(&mut watch).await {
                    WatchEvent::Snapshot(mut all) => all.pop().expect("it is there"),
                    WatchEvent::Applied(record) => Arc::unwrap_or_clone(record),
                    WatchEvent::Deleted(record) => panic!("{} was never deleted", record.metadata.name),
                };
                let n = record.spec["n"].as_u64().expect("a number was written");
                assert!(n >= highest, "went back from {highest} to {n}");
                highest = n;
                version = Some(record.metadata.resource_version);
                if highest == WRITES {
                    break;
                }
            }
        }
    };
    futures_util::future::join(watch, write).await;
}
