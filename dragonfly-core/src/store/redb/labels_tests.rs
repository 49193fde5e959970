use redb::TableDefinition;
use serde_json::json;

use super::file::{META, VERSION};
use super::*;
use crate::resource::Metadata;

fn memory() -> (RedbStore, MemoryDisk) {
    let disk = MemoryDisk::default();
    (RedbStore::open_in_memory(&disk, Options::default()).unwrap(), disk)
}

fn template(name: &str, labels: &[(&str, &str)]) -> Record {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let metadata = Metadata { name: name.to_owned(), labels, ..Metadata::default() };
    Record { kind: Kind::TEMPLATE, metadata, spec: json!({}), status: serde_json::Value::Null }
}

fn selector(labels: &[(&str, &str)]) -> Selector {
    Selector { labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect() }
}

/// Whether lists by label are answered by the index.
fn indexed(store: &RedbStore) -> bool {
    let wanted = selector(&[("a", "x")]);
    let looked = store.0.file.with_read(|tx| labels::look_up(tx, Kind::TEMPLATE, &wanted, None, |_| Ok(Ok(true))));
    looked.unwrap().is_some()
}

async fn names(store: &RedbStore, wanted: &[(&str, &str)], limit: usize) -> Vec<String> {
    let (mut names, mut from) = (Vec::new(), None);
    loop {
        let page = store.list(Kind::TEMPLATE, &selector(wanted), limit, from.as_deref()).await.unwrap();
        names.extend(page.items.into_iter().map(|record| record.metadata.name));
        match page.more {
            Some(more) => from = Some(more),
            None => return names,
        }
    }
}

#[tokio::test]
async fn lists_by_label_say_what_a_look_at_every_object_says() {
    let (store, _disk) = memory();
    let values = ["x", "y", "xy", ""];
    // A small generator with a fixed seed: the same writes at every run.
    let mut state = 7u64;
    let mut any = |most: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % most).unwrap()
    };
    for step in 0..600 {
        let name = format!("t{}", any(12));
        let key = Key::new(Kind::TEMPLATE, name.clone());
        let current = store.get(&key).await.unwrap();
        let labels: Vec<_> =
            [("a", any(5)), ("b", any(5)), ("ab", any(5))].map(|(key, n)| values.get(n).map(|v| (key, *v))).into();
        let labels: Vec<_> = labels.into_iter().flatten().collect();
        let given = template(&name, &labels);
        match (current, any(4)) {
            (None, _) => drop(store.put(given, Part::Spec, When::Absent).await.unwrap()),
            (Some(now), 0) => store.delete(&key, &now.metadata.resource_version).await.unwrap(),
            (Some(now), n) => {
                let part = if n == 1 { Part::Status } else { Part::Spec };
                let version = now.metadata.resource_version.clone();
                store.put(given, part, When::Unchanged(version)).await.unwrap();
            }
        }
        if step % 5 > 0 {
            continue;
        }
        let all = store.list(Kind::TEMPLATE, &Selector::all(), 0, None).await.unwrap().items;
        for wanted in [&[("a", "x")][..], &[("a", "")], &[("b", "xy")], &[("a", "x"), ("b", "y")], &[("c", "x")]] {
            let meant = all.iter().filter(|record| selector(wanted).matches(record));
            let meant: Vec<_> = meant.map(|record| record.metadata.name.clone()).collect();
            for limit in [0, 1, 2] {
                assert_eq!(names(&store, wanted, limit).await, meant, "step {step}, {wanted:?}");
            }
        }
    }
    assert!(indexed(&store));
}

#[tokio::test]
async fn a_file_that_was_written_without_the_index_gets_it_when_it_is_opened() {
    const OBJECTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("kind/templates");
    let (store, disk) = memory();
    store.put(template("old", &[("a", "x")]), Part::Spec, When::Absent).await.unwrap();
    store.close().await.unwrap();
    // As a version that knows nothing of an index does it.
    {
        let database = disk.database(1 << 20).unwrap();
        let tx = database.begin_write().unwrap();
        {
            let json = json!({"metadata": {"name": "new", "labels": {"a": "x"}, "resourceVersion": "2"}, "spec": {}});
            let mut objects = tx.open_table(OBJECTS).unwrap();
            objects.insert("new", json.to_string().as_bytes()).unwrap();
            objects.remove("old").unwrap();
            objects.insert("unreadable", &b"{"[..]).unwrap();
            tx.open_table(META).unwrap().insert(VERSION, 3).unwrap();
        }
        tx.commit().unwrap();
    }
    let store = RedbStore::open_in_memory(&disk, Options::default()).unwrap();
    assert!(indexed(&store));
    assert_eq!(names(&store, &[("a", "x")], 0).await, ["new"]);
}

#[tokio::test]
async fn a_restored_backup_gets_its_index() {
    let (store, _disk) = memory();
    store.put(template("one", &[("a", "x")]), Part::Spec, When::Absent).await.unwrap();
    let copy = store.backup_to_memory().await.unwrap();
    let copy = RedbStore::open_in_memory(&copy, Options::default()).unwrap();
    assert!(indexed(&copy));
    assert_eq!(names(&copy, &[("a", "x")], 0).await, ["one"]);
}
