//! Backups: taken while the store is written to, checked to the last byte, restored over nothing.

use futures_util::StreamExt as _;
use serde_json::json;

use super::damage::told;
use super::*;
use crate::resource::{Metadata, Record};
use crate::testing::Dice;

fn record(name: &str) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Record { kind: Kind::HARDWARE, metadata, spec: json!({ "displayName": name }), status: json!(null) }
}

async fn create(store: &RedbStore, name: &str) -> Record {
    store.put(record(name), Part::Spec, When::Absent).await.unwrap()
}

async fn all(store: &RedbStore) -> Vec<Record> {
    store.list(Kind::HARDWARE, &Selector::all(), 0, None).await.unwrap().items
}

#[tokio::test]
async fn a_backup_of_a_running_store_is_one_moment_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path().join("store.redb")).unwrap();
    for n in 0..30 {
        create(&store, &format!("m{n:03}")).await;
    }
    let want = all(&store).await;
    let copies: Vec<_> = (0..4).map(|n| directory.path().join(format!("copy-{n}"))).collect();
    let backups = async {
        for copy in &copies {
            store.backup(copy).await.unwrap();
        }
    };
    tokio::join!(backups, async {
        for n in 30..90 {
            create(&store, &format!("m{n:03}")).await;
        }
    });
    let last = create(&store, "zzz").await;
    assert!(store.backup(&copies[0]).await.unwrap_err().to_string().contains("is there already"));
    let written = all(&store).await;
    for (n, copy) in copies.iter().enumerate() {
        let to = directory.path().join(format!("restored-{n}.redb"));
        let restored = restore(copy, &to).await.unwrap();
        let copy = RedbStore::open(&to).unwrap();
        let got = all(&copy).await;
        assert_eq!(restored.objects["hardware"], got.len() as u64);
        // One after the other were they written: what is there is all up to some moment.
        assert!(got.len() >= want.len());
        assert_eq!(got, written[..got.len()]);
        // Who watched the original and comes to the copy with its version starts over.
        create(&copy, "only here").await;
        let mut watch = copy.watch(Kind::HARDWARE, Some(last.metadata.resource_version.clone()));
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Snapshot(_)))));
    }
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 1 + 2 * copies.len(), "no draft is left behind");
}

#[tokio::test]
async fn a_backup_that_is_damaged_in_one_byte_is_refused_and_nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (copy, to) = (directory.path().join("copy"), directory.path().join("restored.redb"));
    let store = RedbStore::open(directory.path().join("store.redb")).unwrap();
    create(&store, "m").await;
    store.backup(&copy).await.unwrap();
    let whole = std::fs::read(&copy).unwrap();
    let mut dice = Dice::new(3);
    // Its head, its end, and anywhere.
    let places =
        (0..24).chain(whole.len() - 24..whole.len()).chain((0..150).map(|_| dice.below(whole.len() as u64) as usize));
    for at in places.collect::<Vec<_>>() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&copy, &bytes).unwrap();
        let error = told(&restore(&copy, &to).await.unwrap_err());
        assert!(error.contains("copy is damaged") && error.contains("nothing was restored"), "byte {at}: {error}");
        assert!(!to.exists(), "byte {at}");
    }
    for length in [0, 50, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&copy, &whole[..length]).unwrap();
        let error = told(&restore(&copy, &to).await.unwrap_err());
        assert!(error.contains("nothing was restored"), "{length}: {error}");
    }
    let error = told(&restore(store.path(), &to).await.unwrap_err());
    assert!(error.contains("store.redb is no backup"), "{error}");

    // Over a store that is there, even a sound one is refused.
    std::fs::write(&copy, &whole).unwrap();
    store.close().await.unwrap();
    let before = std::fs::read(store.path()).unwrap();
    let error = told(&restore(&copy, store.path()).await.unwrap_err());
    assert!(error.contains("store.redb is there already: stop its server"), "{error}");
    assert!(std::fs::read(store.path()).unwrap() == before);
    restore(&copy, &to).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3, "no draft is left behind");
}

/// Put in its place by hand, a backup is checked as `restore` does.
#[tokio::test]
async fn a_backup_that_is_copied_into_place_is_checked_too() {
    let directory = tempfile::tempdir().unwrap();
    let (copy, by_hand) = (directory.path().join("copy"), directory.path().join("by-hand.redb"));
    let store = RedbStore::open(directory.path().join("store.redb")).unwrap();
    let made = create(&store, "m").await;
    store.backup(&copy).await.unwrap();
    let whole = std::fs::read(&copy).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 4;
    std::fs::write(&by_hand, &bytes).unwrap();
    let error = told(&RedbStore::open(&by_hand).unwrap_err());
    assert!(error.contains("by-hand.redb is damaged"), "{error}");
    assert!(std::fs::read(&by_hand).unwrap() == bytes);
    std::fs::write(&by_hand, &whole).unwrap();
    for _ in 0..2 {
        let store = RedbStore::open(&by_hand).unwrap();
        assert_eq!(all(&store).await, std::slice::from_ref(&made));
        assert!(store.is_restored().await.unwrap());
        store.close().await.unwrap();
    }
}
