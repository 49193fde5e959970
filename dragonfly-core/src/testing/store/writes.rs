//! Promises about writing.

use std::collections::BTreeSet;

use futures_util::stream::FuturesUnordered;
use serde_json::json;

use super::*;
use crate::resource::{Hardware, HardwareSpec, MAX_OBJECT_BYTES};
use crate::store::{StoreError, StoreExt};

/// Creating twice fails and leaves the first object.
pub async fn create_is_exclusive(store: &dyn Store) {
    let first = create(store, "a").await;
    let error = store.put(record("a", json!({"n": "second"})), Part::Spec, When::Absent).await.unwrap_err();
    assert!(matches!(error, StoreError::AlreadyExists { .. }), "{error:?}");
    assert_eq!(read(store, "a").await, first);
}

/// A status that comes with a creation is left out.
pub async fn create_leaves_the_status_out(store: &dyn Store) {
    let given = Record { status: json!({"phase": "Ready"}), ..record("a", json!({})) };
    let created = store.put(given, Part::Spec, When::Absent).await.unwrap();
    assert!(is_empty(&created.status), "{}", created.status);
    assert!(is_empty(&read(store, "a").await.status));
}

/// Uid, generation, version and time of creation are the store's, whatever the caller says.
pub async fn create_sets_what_is_the_stores_to_set(store: &dyn Store) {
    let mut given = record("a", json!({}));
    let claimed = uuid::Uuid::from_u128(7);
    given.metadata.uid = Some(claimed);
    given.metadata.generation = 99;
    given.metadata.resource_version = "x99".to_owned();
    given.metadata.creation_timestamp = Some(crate::clock::Timestamp::UNIX_EPOCH);
    let metadata = store.put(given, Part::Spec, When::Absent).await.unwrap().metadata;
    assert!(metadata.uid.is_some_and(|uid| uid != claimed), "{:?}", metadata.uid);
    assert_eq!(metadata.generation, 1);
    assert!(!metadata.resource_version.is_empty() && metadata.resource_version != "x99");
    assert!(metadata.creation_timestamp.is_some_and(|time| time > crate::clock::Timestamp::UNIX_EPOCH));
}

/// A write of either part that names an old version fails with `Conflict` and changes nothing.
pub async fn stale_update_conflicts(store: &dyn Store) {
    let old = create(store, "a").await;
    let new = change(store, &old, json!({"n": 2})).await.unwrap();
    assert_ne!(old.metadata.resource_version, new.metadata.resource_version);
    let error = change(store, &old, json!({"n": 3})).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
    let error = report(store, &old, json!({"phase": "Ready"})).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
    assert_eq!(read(store, "a").await, new);
}

/// A delete that names an old version fails and deletes nothing.
pub async fn stale_delete_conflicts(store: &dyn Store) {
    let old = create(store, "a").await;
    let new = report(store, &old, json!({"phase": "Ready"})).await.unwrap();
    let error = store.delete(&key("a"), &old.metadata.resource_version).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
    assert_eq!(read(store, "a").await, new);
    store.delete(&key("a"), &new.metadata.resource_version).await.unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
}

/// What is not there is neither changed nor deleted, and a status alone creates nothing.
pub async fn what_is_absent_is_not_changed(store: &dyn Store) {
    let mut given = create(store, "gone").await;
    store.delete(&key("gone"), &given.metadata.resource_version).await.unwrap();
    for name in ["gone", "never"] {
        given.metadata.name = name.to_owned();
        for error in [
            change(store, &given, json!({})).await.unwrap_err(),
            report(store, &given, json!({})).await.unwrap_err(),
            store.put(given.clone(), Part::Status, When::Absent).await.unwrap_err(),
            store.delete(&key(name), &given.metadata.resource_version).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::NotFound { .. }), "{name}: {error:?}");
        }
        assert_eq!(store.get(&key(name)).await.unwrap(), None);
    }
}

/// A version is never given twice, not even to a new object under a deleted name.
pub async fn versions_are_never_reused(store: &dyn Store) {
    let mut seen = BTreeSet::new();
    let mut old = None;
    for round in 0..4 {
        let mut record = create(store, "a").await;
        for n in 0..3 {
            assert!(seen.insert(record.metadata.resource_version.clone()), "round {round}: {seen:?}, {record:?}");
            record = change(store, &record, json!({"round": round, "n": n})).await.unwrap();
        }
        if let Some(old) = old.replace(record.clone()) {
            let error = change(store, &old, json!({"n": 9})).await.unwrap_err();
            assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
        }
        store.delete(&key("a"), &record.metadata.resource_version).await.unwrap();
    }
}

/// A uid stays through every write, and no other object ever has it: not the next of that name either.
pub async fn uids_are_stable_and_unique(store: &dyn Store) {
    let a = create(store, "a").await;
    let uid = a.metadata.uid.expect("an object has a uid");
    let changed = change(store, &a, json!({"n": 1})).await.unwrap();
    let mut claimed = changed.clone();
    claimed.metadata.uid = Some(uuid::Uuid::from_u128(7));
    claimed.metadata.creation_timestamp = None;
    let reported = report(store, &claimed, json!({"phase": "Ready"})).await.unwrap();
    assert_eq!((changed.metadata.uid, reported.metadata.uid), (Some(uid), Some(uid)));
    assert_eq!(reported.metadata.creation_timestamp, a.metadata.creation_timestamp);
    store.delete(&key("a"), &reported.metadata.resource_version).await.unwrap();
    let mut uids = BTreeSet::from([uid]);
    for name in ["a", "b", "c"] {
        let uid = create(store, name).await.metadata.uid.expect("an object has a uid");
        assert!(uids.insert(uid), "{name} has {uid} again");
    }
}

/// A write of the spec leaves the status as it is, whatever status comes with it.
pub async fn a_spec_write_keeps_the_status(store: &dyn Store) {
    let a = create(store, "a").await;
    let told = report(store, &a, json!({"phase": "Ready"})).await.unwrap();
    let given = Record { status: json!({"phase": "Error"}), ..told };
    let written = change(store, &given, json!({"n": 1})).await.unwrap();
    assert_eq!(written.status, json!({"phase": "Ready"}));
    assert_eq!(written.spec, json!({"n": 1}));
    assert_eq!(read(store, "a").await, written);
}

/// A write of the status leaves everything else as it is, whatever comes with it.
pub async fn a_status_write_keeps_the_spec(store: &dyn Store) {
    let a = create(store, "a").await;
    let mut given = Record { spec: json!({"n": 7}), ..a.clone() };
    given.metadata.labels.insert("rack".to_owned(), "r1".to_owned());
    given.metadata.annotations.insert("note".to_owned(), "x".to_owned());
    given.metadata.finalizers.push("x".to_owned());
    let written = report(store, &given, json!({"phase": "Ready"})).await.unwrap();
    let version = written.metadata.resource_version.clone();
    let mut want = Record { status: json!({"phase": "Ready"}), ..a.clone() };
    want.metadata.resource_version = version;
    assert_ne!(want.metadata.resource_version, a.metadata.resource_version);
    assert_eq!(written, want);
    assert_eq!(read(store, "a").await, want);
}

/// `generation` is 1 at first and counts up when the spec changes, and only then.
pub async fn generation_counts_changes_of_the_spec(store: &dyn Store) {
    let mut now = create(store, "a").await;
    assert_eq!(now.metadata.generation, 1);
    now = report(store, &now, json!({"phase": "Ready"})).await.unwrap();
    assert_eq!(now.metadata.generation, 1, "a status was written");
    now.metadata.labels.insert("rack".to_owned(), "r1".to_owned());
    let spec = now.spec.clone();
    now = change(store, &now, spec).await.unwrap();
    assert_eq!(now.metadata.generation, 1, "a label was written");
    now.metadata.generation = 70;
    now = change(store, &now, json!({"n": 5})).await.unwrap();
    assert_eq!(now.metadata.generation, 2, "the spec changed");
    assert_eq!(read(store, "a").await.metadata.generation, 2);
}

/// Fields that this version does not know stay, through raw and typed writes of either part.
pub async fn unknown_fields_survive(store: &dyn Store) {
    let spec = json!({"displayName": "A", "futureField": {"deep": [1, {"x": null}]}});
    let a = store.put(record("a", spec.clone()), Part::Spec, When::Absent).await.unwrap();
    assert_eq!(a.spec, spec);
    report(store, &a, json!({"message": "old", "futureStatus": [1, 2]})).await.unwrap();
    store
        .update_status("a", |machine: &mut Hardware| {
            machine.status.message = "new".to_owned();
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    store
        .update_spec::<HardwareSpec, StoreError, _>("a", |machine| {
            machine.spec.protected = true;
            Ok(())
        })
        .await
        .unwrap();
    let now = read(store, "a").await;
    assert_eq!(now.status, json!({"message": "new", "futureStatus": [1, 2]}));
    assert_eq!(now.spec["futureField"], spec["futureField"]);
    assert_eq!(now.spec["displayName"], "A");
    assert_eq!(now.spec["protected"], true);
}

/// An object above the limit is refused, at creation and later, and the store goes on.
pub async fn too_large_is_refused(store: &dyn Store) {
    let large = json!({"text": "x".repeat(MAX_OBJECT_BYTES)});
    let error = store.put(record("a", large.clone()), Part::Spec, When::Absent).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    let a = create(store, "a").await;
    for error in [change(store, &a, large.clone()).await.unwrap_err(), report(store, &a, large).await.unwrap_err()] {
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error:?}");
    }
    let roomy = json!({"text": "x".repeat(MAX_OBJECT_BYTES / 2)});
    let now = change(store, &a, roomy).await.expect("half of the limit is not too large");
    assert_eq!(read(store, "a").await, now);
}

/// Concurrent increments by compare-and-swap lose none.
pub async fn no_lost_updates(store: &dyn Store) {
    const WORKERS: u64 = 5;
    const EACH: u64 = 10;
    create(store, "n").await;
    let mut all: FuturesUnordered<_> = (0..WORKERS)
        .map(|_| async {
            let mut done = 0;
            while done < EACH {
                let now = read(store, "n").await;
                let n = now.spec["n"].as_u64().expect("a number was written");
                tokio::task::yield_now().await;
                match change(store, &now, json!({"n": n + 1})).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
        .collect();
    while all.next().await.is_some() {}
    assert_eq!(read(store, "n").await.spec["n"], json!(WORKERS * EACH));
}
