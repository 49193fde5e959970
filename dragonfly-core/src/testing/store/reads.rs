//! Promises about reading.

use serde_json::json;

use super::*;
use crate::store::Page;

/// What was put is what is got, labels and annotations too, under a version that a later read repeats.
pub async fn reads_what_was_written(store: &dyn Store) {
    let mut given = record("a", json!({"n": 1, "nested": {"x": [1, 2, null]}, "empty": {}}));
    given.metadata.labels.insert("rack".to_owned(), "r1".to_owned());
    given.metadata.annotations.insert("note".to_owned(), "left of the door".to_owned());
    given.metadata.finalizers.push("dragonfly.computer/power".to_owned());
    let put = store.put(given.clone(), Part::Spec, When::Absent).await.unwrap();
    assert_eq!(put.spec, given.spec);
    assert_eq!(put.metadata.labels, given.metadata.labels);
    assert_eq!(put.metadata.annotations, given.metadata.annotations);
    assert_eq!(put.metadata.finalizers, given.metadata.finalizers);
    assert_eq!(read(store, "a").await, put);
    let listed = store.list(KIND, &Selector::all(), 0, None).await.unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&put));
    let mut relabelled = put.clone();
    relabelled.metadata.labels.insert("rack".to_owned(), "r2".to_owned());
    let again = change(store, &relabelled, put.spec.clone()).await.unwrap();
    assert_eq!(read(store, "a").await, again);
    assert_eq!(again.metadata.labels.get("rack").map(String::as_str), Some("r2"));
}

/// An object that is not there is `None`, and an empty kind is an empty list.
pub async fn absence_is_an_answer(store: &dyn Store) {
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    let page = store.list(KIND, &Selector::all(), 10, None).await.unwrap();
    assert_eq!((page.items, page.more), (Vec::new(), None));
}

/// Listing one kind shows all of it and nothing else; names are per kind.
pub async fn list_is_one_kind(store: &dyn Store) {
    create(store, "a").await;
    create(store, "b").await;
    for name in ["a", "c"] {
        let other = Record { kind: OTHER, ..record(name, json!({"actions": []})) };
        store.put(other, Part::Spec, When::Absent).await.unwrap();
    }
    assert_eq!(names(&store.list(KIND, &Selector::all(), 0, None).await.unwrap()), ["a", "b"]);
    assert_eq!(names(&store.list(OTHER, &Selector::all(), 0, None).await.unwrap()), ["a", "c"]);
}

/// Pages of any size give every object once, by name; the last one says that it is the last.
pub async fn list_pages_are_complete_and_ordered(store: &dyn Store) {
    let want: Vec<String> = (0..11).map(|n| format!("m{n:02}")).collect();
    for name in want.iter().rev() {
        create(store, name).await;
    }
    for limit in [1, 3, 10, 11, 12, 0] {
        let (mut got, mut from, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.list(KIND, &Selector::all(), limit, from.as_deref()).await.unwrap();
            assert!(
                limit == 0 || page.items.len() <= limit,
                "{} objects where {limit} were asked for",
                page.items.len()
            );
            got.extend(names(&page));
            pages += 1;
            assert!(pages <= want.len() + 1, "the pages of {limit} do not end");
            match page.more {
                Some(more) => from = Some(more),
                None => break,
            }
        }
        assert_eq!(got, want, "pages of {limit}");
    }
    // An object that goes between two pages takes none with it.
    let first = store.list(KIND, &Selector::all(), 3, None).await.unwrap();
    let last = &first.items[2];
    store.delete(&key(&last.metadata.name), &last.metadata.resource_version).await.unwrap();
    let rest = store.list(KIND, &Selector::all(), 0, first.more.as_deref()).await.unwrap();
    assert_eq!(names(&rest), &want[3..]);
}

/// A selector gives the objects whose labels have its values, all of them, page by page too.
pub async fn list_selects_by_labels(store: &dyn Store) {
    for n in 0..8 {
        let mut given = record(&format!("m{n}"), json!({}));
        given.metadata.labels.insert("rack".to_owned(), format!("r{}", n % 2));
        if n < 5 {
            given.metadata.labels.insert("row".to_owned(), "1".to_owned());
        }
        store.put(given, Part::Spec, When::Absent).await.unwrap();
    }
    let select = |pairs: &[(&str, &str)]| Selector {
        labels: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    for (pairs, want) in [
        (&[("rack", "r0")][..], &["m0", "m2", "m4", "m6"][..]),
        (&[("rack", "r1"), ("row", "1")], &["m1", "m3"]),
        (&[("rack", "r2")], &[]),
        (&[("rack", "")], &[]),
    ] {
        let selector = select(pairs);
        assert_eq!(names(&store.list(KIND, &selector, 0, None).await.unwrap()), want, "{pairs:?}");
        let (mut got, mut from) = (Vec::new(), None);
        for _ in 0..20 {
            let page = store.list(KIND, &selector, 2, from.as_deref()).await.unwrap();
            got.extend(names(&page));
            from = page.more;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(got, want, "{pairs:?} in pages");
    }
}

fn names(page: &Page) -> Vec<String> {
    page.items.iter().map(|record| record.metadata.name.clone()).collect()
}
