//! What lies where the file should be: each has an error that says what it is, and is left as it was.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use dragonfly_core::resource::{Hardware, HardwareSpec, Kind};
use dragonfly_core::store::{Selector, Store as _, StoreError, StoreExt as _, WatchEvent};
use futures_util::StreamExt as _;
use rusqlite::Connection;
use sqlite_store::SqliteStore;

/// An error with its causes.
fn whole(error: &StoreError) -> String {
    let (mut text, mut cause) = (error.to_string(), std::error::Error::source(error));
    while let Some(next) = cause {
        text.push_str(&format!(": {next}"));
        cause = next.source();
    }
    text
}

/// A store with machines in it, closed.
async fn store(directory: &Path) -> PathBuf {
    let path = directory.join("store.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    for n in 0..20 {
        let spec = HardwareSpec { display_name: "x".repeat(2000), ..HardwareSpec::default() };
        store.create(&Hardware::new(format!("m{n:02}"), spec)).await.unwrap();
    }
    store.close().await.unwrap();
    path
}

#[tokio::test]
async fn what_is_no_store_is_named_and_left_alone() {
    let foreign = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("CREATE TABLE letters (text TEXT); INSERT INTO letters VALUES ('mine')").unwrap();
    };
    let pragma = |path: &Path, name: &str, value: i64| {
        Connection::open(path).unwrap().pragma_update(None, name, value).unwrap();
    };
    type Spoil<'a> = &'a dyn Fn(&Path);
    // (how it is spoilt, what is said)
    let table: &[(Spoil, &str)] = &[
        (&|path| std::fs::write(path, "").unwrap(), "is damaged or is no store (it is empty)"),
        (&|path| std::fs::write(path, "{}").unwrap(), "no store (it does not begin as an SQLite file does)"),
        (&|path| std::fs::write(path, b"SQLite format 3\0").unwrap(), "is damaged or is no store"),
        (
            &|path| {
                let mut bytes = std::fs::read(path).unwrap();
                bytes[4096..].fill(0xa5);
                std::fs::write(path, bytes).unwrap();
            },
            "is damaged or is no store: move it away and restore a backup",
        ),
        (
            &|path| {
                std::fs::remove_file(path).unwrap();
                foreign(path);
            },
            "is an SQLite file, but not one of ours",
        ),
        (&|path| pragma(path, "user_version", 0), "not one of ours"),
        (&|path| pragma(path, "application_id", 0), "not one of ours"),
        (&|path| pragma(path, "user_version", 2), "newer version (format 2; this one knows 1)"),
    ];
    for (spoil, want) in table {
        let directory = tempfile::tempdir().unwrap();
        let path = store(directory.path()).await;
        spoil(&path);
        let before = std::fs::read(&path).unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        let told = whole(&error);
        assert!(matches!(error, StoreError::Backend { .. }), "{told}");
        assert!(told.contains(want) && told.contains("store.sqlite"), "{told}, not: {want}");
        assert!(std::fs::read(&path).unwrap() == before, "{want}: it may be the only copy");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let error = SqliteStore::open(directory.path().join("none/store.sqlite")).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("its directory does not exist"), "{error}");

    let path = store(directory.path()).await;
    let open = SqliteStore::open(&path).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("in use by another process"), "{error}");

    // A person with `sqlite3`, in the middle of a transaction.
    let person = Connection::open(&path).unwrap();
    person.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = open.create(&Hardware::new("new", HardwareSpec::default())).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("is locked by another process"), "{error}");
    assert_eq!(open.all::<HardwareSpec>(&Selector::all()).await.unwrap().len(), 20, "it can be read meanwhile");
    person.execute_batch("ROLLBACK").unwrap();
    open.create(&Hardware::new("new", HardwareSpec::default())).await.unwrap();

    open.close().await.unwrap();
    let told = open.find::<HardwareSpec>("new").await.unwrap_err().to_string();
    assert!(told.contains("store.sqlite is closed"), "{told}");
}

/// SQLite would play the old file's WAL into a new one.
#[tokio::test]
async fn a_file_that_was_moved_away_without_its_wal_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    std::fs::write(directory.path().join("store.sqlite-wal"), "the last writes").unwrap();
    let told = whole(&SqliteStore::open(&path).unwrap_err());
    assert!(told.contains("store.sqlite is gone") && told.contains("put it back"), "{told}");
    assert!(!path.exists());
}

#[tokio::test]
async fn versions_and_watches_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = store(directory.path()).await;
    let first = SqliteStore::open(&path).unwrap();
    let all = first.all::<HardwareSpec>(&Selector::all()).await.unwrap();
    first.remove(&all[3]).await.unwrap();
    drop(first);
    let again = SqliteStore::open(&path).unwrap();
    let new = again.create(&Hardware::new("m03", HardwareSpec::default())).await.unwrap();
    assert_eq!(new.metadata.resource_version, "22", "20 objects and a deletion were before it");
    let mut watch = again.watch(Kind::HARDWARE, Some(all[18].metadata.resource_version.clone()));
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(match watch.next().await.unwrap().unwrap() {
            WatchEvent::Applied(record) => format!("{} is there", record.metadata.name),
            WatchEvent::Deleted(record) => format!("{} is gone", record.metadata.name),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(told, ["m19 is there", "m03 is gone", "m03 is there"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        for end in ["", "-wal", ".lock"] {
            let name = format!("{}{end}", path.display());
            let mode = std::fs::metadata(&name).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
