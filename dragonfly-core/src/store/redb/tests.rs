use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use redb::Database;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::resource::Metadata;
use crate::store::StoreExt;

/// A store in a directory that goes with it.
#[derive(Debug)]
struct Temporary(RedbStore, TempDir);

#[async_trait]
impl Store for Temporary {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.0.get(key).await
    }
    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        self.0.list(kind, selector, limit, from).await
    }
    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        self.0.put(record, part, when).await
    }
    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        self.0.delete(key, version).await
    }
    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        self.0.watch(kind, from)
    }
}

fn temporary(options: Options) -> Temporary {
    let directory = tempfile::tempdir().unwrap();
    Temporary(RedbStore::open_with(directory.path().join("store.redb"), options).unwrap(), directory)
}

mod plain {
    use super::*;
    crate::store_conformance!(async { temporary(Options::default()) });
}

mod with_a_pause_before_publication {
    use super::*;
    crate::store_conformance!(async {
        temporary(Options { pause: Some(Duration::from_millis(3)), ..Options::default() })
    });
}

mod with_a_log_of_three_and_a_channel_of_two {
    use super::*;
    crate::store_conformance!(async { temporary(Options { log: 3, channel: 2, ..Options::default() }) });
}

mod opened_again {
    use super::*;
    crate::store_conformance!(async {
        let Temporary(store, directory) = temporary(Options::default());
        let made = store.put(record("a", json!({})), Part::Spec, When::Absent).await.unwrap();
        store.delete(&key("a"), &made.metadata.resource_version).await.unwrap();
        let path = store.path().to_owned();
        store.close().await.unwrap();
        Temporary(RedbStore::open(path).unwrap(), directory)
    });
}

fn key(name: &str) -> Key {
    Key::new(Kind::HARDWARE, name)
}

fn record(name: &str, spec: Value) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Record { kind: Kind::HARDWARE, metadata, spec, status: Value::Null }
}

async fn create(store: &RedbStore, name: &str) -> Result<Record> {
    store.put(record(name, json!({"n": 0})), Part::Spec, When::Absent).await
}

async fn next(watch: &mut BoxStream<'static, Result<WatchEvent>>) -> WatchEvent {
    tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_a_watch_resumes_across_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = RedbStore::open(&path).unwrap();
    let a = create(&store, "a").await.unwrap();
    let b = create(&store, "b").await.unwrap();
    let mut watch = store.watch(Kind::HARDWARE, None);
    next(&mut watch).await;
    store.close().await.unwrap();
    assert!(watch.next().await.is_none(), "a watch ends when the store closes");
    assert!(create(&store, "c").await.unwrap_err().to_string().contains("is closed"));
    assert!(store.get(&key("a")).await.unwrap_err().to_string().contains("is closed"));

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(a.clone()));
    let c = create(&store, "c").await.unwrap();
    let mut watch = store.watch(Kind::HARDWARE, Some(a.metadata.resource_version.clone()));
    assert_eq!(next(&mut watch).await, WatchEvent::Applied(Arc::new(b)), "a change from before the restart");
    assert_eq!(next(&mut watch).await, WatchEvent::Applied(Arc::new(c)), "and one from after it");
}

#[tokio::test]
async fn a_watch_starts_over_when_the_log_no_longer_reaches() {
    let Temporary(store, _directory) = temporary(Options { log: 3, ..Options::default() });
    let first = create(&store, "m0").await.unwrap();
    for n in 1..4 {
        create(&store, &format!("m{n}")).await.unwrap();
    }
    let from = |record: &Record| Some(record.metadata.resource_version.clone());
    let mut reaches = store.watch(Kind::HARDWARE, from(&first));
    assert!(matches!(next(&mut reaches).await, WatchEvent::Applied(record) if record.metadata.name == "m1"));
    create(&store, "m4").await.unwrap();
    let mut too_old = store.watch(Kind::HARDWARE, from(&first));
    assert!(matches!(next(&mut too_old).await, WatchEvent::Snapshot(all) if all.len() == 5));
}

#[tokio::test]
async fn the_log_is_bounded_in_bytes_too() {
    let Temporary(store, _directory) = temporary(Options::default());
    let big = json!({"text": "x".repeat(400 << 10)});
    let mut seen = create(&store, "m").await.unwrap();
    let first = seen.clone();
    for _ in 0..90 {
        let when = When::Unchanged(seen.metadata.resource_version.clone());
        seen = store.put(Record { status: big.clone(), ..seen }, Part::Status, when).await.unwrap();
    }
    let mut watch = store.watch(Kind::HARDWARE, Some(first.metadata.resource_version));
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(_)));
    let size = std::fs::metadata(store.path()).unwrap().len();
    assert!(size < 128 << 20, "{size} bytes for one object and a log of 32 MiB");
}

#[tokio::test]
async fn many_callers_share_a_commit_and_one_that_fails_fails_alone() {
    let Temporary(store, _directory) =
        temporary(Options { pause: Some(Duration::from_millis(100)), ..Options::default() });
    let started = std::time::Instant::now();
    let writes = (0..200).map(|n| {
        let store = &store;
        // Every name twice: one of the two is refused.
        async move { create(store, &format!("m{}", n / 2)).await }
    });
    let done: Vec<_> = futures_util::future::join_all(writes).await;
    assert_eq!(done.iter().filter(|result| result.is_ok()).count(), 100);
    assert!(done.iter().flat_map(|r| r.as_ref().err()).all(|e| matches!(e, StoreError::AlreadyExists { .. })));
    // One commit each would have rested 200 times.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(store.list(Kind::HARDWARE, &Selector::all(), 0, None).await.unwrap().items.len(), 100);
}

#[tokio::test]
async fn a_file_in_use_is_named() {
    let Temporary(store, _directory) = temporary(Options::default());
    let error = RedbStore::open(store.path()).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("is in use by another process"), "{error}");
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_file() {
    let Temporary(store, directory) = temporary(Options::default());
    let path = store.path().to_owned();
    let clone = store.clone();
    let mut watch = store.watch(Kind::HARDWARE, None);
    next(&mut watch).await;
    drop(store);
    create(&clone, "a").await.unwrap();
    next(&mut watch).await;
    drop(clone);
    assert!(watch.next().await.is_none(), "a watch does not keep the store open");
    RedbStore::open(path).unwrap();
    drop(directory);
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let Temporary(store, directory) = temporary(Options::default());
    let copy = directory.path().join("copy.redb");
    store.backup(&copy).await.unwrap();
    for path in [store.path(), &copy] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let told = |path: &Path| {
        let error = RedbStore::open(path).unwrap_err();
        let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
        causes.fold(error.to_string(), |all, cause| format!("{all}: {cause}"))
    };
    let text = directory.path().join("text.redb");
    std::fs::write(&text, "not a store, but longer than a header\n".repeat(500)).unwrap();
    assert!(told(&text).contains("is damaged or is no store"), "{}", told(&text));

    let nowhere = directory.path().join("no").join("store.redb");
    assert!(told(&nowhere).contains("its directory does not exist"), "{}", told(&nowhere));

    let newer = directory.path().join("newer.redb");
    RedbStore::open(&newer).unwrap();
    let foreign = directory.path().join("foreign.redb");
    for (path, name, value) in [(&newer, file::FORMAT_KEY, 2), (&foreign, "theirs", 1)] {
        let database = Database::create(path).unwrap();
        let tx = database.begin_write().unwrap();
        tx.open_table(file::META).unwrap().insert(name, value).unwrap();
        tx.commit().unwrap();
    }
    assert!(told(&newer).contains("was written by a newer version (format 2"), "{}", told(&newer));
    assert!(told(&foreign).contains("not one of ours"), "{}", told(&foreign));

    let torn = directory.path().join("torn.redb");
    let store = RedbStore::open(&torn).unwrap();
    for n in 0..50 {
        create(&store, &format!("m{n}")).await.unwrap();
    }
    store.close().await.unwrap();
    let half = std::fs::metadata(&torn).unwrap().len() / 2;
    std::fs::OpenOptions::new().write(true).open(&torn).unwrap().set_len(half).unwrap();
    let said = verify(&torn).map(|found| found.problems).map_err(|error| format!("{error:?}"));
    assert!(
        matches!(&said, Err(text) if text.contains("torn.redb")) || matches!(&said, Ok(p) if !p.is_empty()),
        "{said:?}"
    );
}

#[tokio::test]
async fn verify_names_what_is_wrong_in_a_file() {
    let Temporary(store, directory) = temporary(Options::default());
    create(&store, "good").await.unwrap();
    let path = store.path().to_owned();
    store.close().await.unwrap();
    {
        let database = Database::create(&path).unwrap();
        let tx = database.begin_write().unwrap();
        {
            let name = file::table_name(Kind::HARDWARE);
            let mut table = tx.open_table(file::Objects::new(&name)).unwrap();
            table.insert("bad", b"{\"metadata\":".as_slice()).unwrap();
            table.insert("other", b"{\"metadata\":{\"name\":\"x\"}}".as_slice()).unwrap();
            table
                .insert("future", b"{\"metadata\":{\"name\":\"future\",\"resourceVersion\":\"9\"}}".as_slice())
                .unwrap();
        }
        tx.commit().unwrap();
    }
    let found = verify(&path).unwrap();
    assert_eq!((found.objects["hardware"], found.problems.len()), (4, 3), "{found:?}");
    for (problem, words) in found.problems.iter().zip(["Hardware `bad`", "never given out", "calls itself `x`"]) {
        assert!(problem.contains(words), "{problem}");
    }
    // One bad object is in nobody's way but its own.
    let store = RedbStore::open(&path).unwrap();
    assert!(matches!(store.get(&key("bad")).await.unwrap_err(), StoreError::Decode(_)));
    assert!(store.find::<crate::resource::HardwareSpec>("good").await.unwrap().is_some());
    assert!(verify(directory.path().join("none.redb")).unwrap_err().to_string().contains("does not exist"));
}

/// What a file of format 1 holds, to the byte. If this test fails, do not change it: keep reading
/// format 1, and write another number.
#[tokio::test]
async fn a_file_of_format_1_is_read() {
    const A: &str = r#"{"metadata":{"name":"a","uid":"01930000-0000-7000-8000-000000000001","labels":{"rack":"r1"},"generation":2,"resourceVersion":"3","creationTimestamp":"2026-11-20T21:00:00Z"},"spec":{"displayName":"A","later":1},"status":{"message":"seen"}}"#;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    {
        let database = Database::create(&path).unwrap();
        let tx = database.begin_write().unwrap();
        {
            let mut meta = tx.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap();
            for (name, value) in [("format", 1), ("version", 4), ("floor", 2), ("log-bytes", 500)] {
                meta.insert(name, value).unwrap();
            }
            let mut objects = tx.open_table(redb::TableDefinition::<&str, &[u8]>::new("kind/hardware")).unwrap();
            objects.insert("a", A.as_bytes()).unwrap();
            let mut log = tx.open_table(redb::TableDefinition::<u64, &[u8]>::new("log")).unwrap();
            log.insert(3, [b"\0Hardware\0", A.as_bytes()].concat().as_slice()).unwrap();
            let gone = A.replace("\"a\"", "\"b\"").replace("\"3\"", "\"4\"");
            log.insert(4, [b"\x01Hardware\0", gone.as_bytes()].concat().as_slice()).unwrap();
        }
        tx.commit().unwrap();
    }
    let store = RedbStore::open(&path).unwrap();
    let a = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(a.metadata.labels["rack"], "r1");
    assert_eq!((a.metadata.generation, a.metadata.resource_version.as_str()), (2, "3"));
    assert_eq!((&a.spec, &a.status), (&json!({"displayName": "A", "later": 1}), &json!({"message": "seen"})));
    assert_eq!(super::super::rules::encode(&a).unwrap(), A.as_bytes(), "it is written in another way now");
    let mut watch = store.watch(Kind::HARDWARE, Some("2".to_owned()));
    assert_eq!(next(&mut watch).await, WatchEvent::Applied(Arc::new(a)));
    assert!(matches!(next(&mut watch).await, WatchEvent::Deleted(b) if b.metadata.name == "b"));
    assert_eq!(create(&store, "c").await.unwrap().metadata.resource_version, "5");
}

/// A disk that can be full.
#[derive(Debug)]
struct Disk {
    file: redb::backends::FileBackend,
    full: Arc<AtomicBool>,
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) && len > self.file.len()? {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.file.write(offset, data)
    }
    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_store_goes_on_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let full = Arc::new(AtomicBool::new(false));
    let (place, switch) = (path.clone(), Arc::clone(&full));
    let opener = Box::new(move || {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&place)?;
        let file = redb::backends::FileBackend::new(file)?;
        Ok(Database::builder().create_with_backend(Disk { file, full: Arc::clone(&switch) })?)
    });
    let store = RedbStore::start(File::open_by(path, opener).unwrap(), Options::default()).unwrap();
    let a = create(&store, "a").await.unwrap();
    store.check_writes().await.unwrap();
    let mut watch = store.watch(Kind::HARDWARE, None);
    next(&mut watch).await;
    full.store(true, Ordering::SeqCst);
    let error = create(&store, "b").await.unwrap_err();
    assert!(error.to_string().contains("make room on its disk"), "{error}");
    assert!(error.is_retryable());
    for _ in 0..3 {
        let told = store.check_writes().await.unwrap_err().to_string();
        assert!(told.contains(&format!("the disk of {} is full: make room", directory.path().display())), "{told}");
    }
    full.store(false, Ordering::SeqCst);
    // It is tried again after a while.
    let begin = Instant::now();
    while let Err(error) = store.check_writes().await {
        assert!(begin.elapsed() < Duration::from_secs(120), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let b = match create(&store, "b").await {
        Ok(b) => b,
        // It may be on the disk although the caller was told that nobody knows.
        Err(StoreError::AlreadyExists { .. }) => store.get(&key("b")).await.unwrap().unwrap(),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(a));
    // The watch hears of it, whichever way it came about.
    loop {
        match next(&mut watch).await {
            WatchEvent::Applied(record) if *record == b => break,
            WatchEvent::Snapshot(all) if all.contains(&b) => break,
            _ => {}
        }
    }
}
