//! Damaged files: told, named, and left as they are.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::resource::Metadata;
use crate::testing::Dice;

/// A file that was closed in order, and one whose process was killed.
async fn filled(path: &Path) -> [Vec<u8>; 2] {
    let store = RedbStore::open(path).unwrap();
    for n in 0..40 {
        let metadata = Metadata { name: format!("m{n}"), ..Metadata::default() };
        let spec = json!({ "text": "x".repeat(n * 50) });
        let record = Record { kind: Kind::HARDWARE, metadata, spec, status: Value::Null };
        store.put(record, Part::Spec, When::Absent).await.unwrap();
    }
    let killed = std::fs::read(path).unwrap();
    store.close().await.unwrap();
    [std::fs::read(path).unwrap(), killed]
}

pub(super) fn told(error: &StoreError) -> String {
    let (mut all, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        all.push_str(&format!(": {error}"));
        cause = error.source();
    }
    all
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let whole = filled(&directory.path().join("whole.redb")).await;
    let path = directory.path().join("store.redb");
    let mut dice = Dice::new(1);
    let mut refused = [0, 0];
    for n in 0..300 {
        let mut bytes = whole[n % 2].clone();
        let (at, what) = match n / 2 % 5 {
            0 => (dice.below(320), "a byte of its head"),
            1 => (dice.below(bytes.len() as u64), "a byte"),
            2 => (dice.below(bytes.len() as u64) & !511, "a sector"),
            3 => (dice.below(bytes.len() as u64) & !4095, "a page"),
            _ => (dice.below(bytes.len() as u64), "its end"),
        };
        let at = at as usize;
        match n / 2 % 5 {
            0 | 1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes[at..at + 512].fill(0),
            3 => bytes[at..at + 4096].iter_mut().for_each(|byte| *byte = dice.below(256) as u8),
            _ => bytes.truncate(at),
        }
        std::fs::write(&path, &bytes).unwrap();
        match RedbStore::open(&path) {
            Ok(store) => drop(store.close().await),
            Err(error) => {
                refused[n % 2] += 1;
                let text = told(&error);
                assert!(text.contains("store.redb is damaged or is no store: "), "{what} at {at}: {text}");
                // It may be the only copy that there is.
                assert!(std::fs::read(&path).unwrap() == bytes, "{what} at {at} of {}: it was written to", n % 2);
            }
        }
    }
    assert!(refused.iter().all(|times| *times > 20), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_has_lost_all_is_not_taken_for_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    for bytes in [Vec::new(), vec![0; 1 << 20]] {
        std::fs::write(&path, &bytes).unwrap();
        let text = told(&RedbStore::open(&path).unwrap_err());
        assert!(text.contains("store.redb is damaged or is no store: "), "{text}");
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}

#[tokio::test]
async fn a_file_is_made_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    // What a start leaves that was killed in the midst of it.
    let draft = directory.path().join(format!("store.redb.new-{}", std::process::id()));
    std::fs::write(&draft, vec![0; 1 << 20]).unwrap();
    RedbStore::open(&path).unwrap().close().await.unwrap();
    assert!(!draft.exists(), "no draft is left behind");
    assert_eq!(verify(&path).unwrap().problems, [""; 0]);
}
