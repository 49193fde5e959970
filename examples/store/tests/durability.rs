//! Processes that are killed, that share a file, that have no room: no write that was answered is lost.
//!
//! This test starts itself as those processes. `DRAGONFLY_KILLS=1000` kills more of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(clippy::print_stdout, reason = "without the harness, its result is its own to tell")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::resource::{Kind, Metadata, Record};
use dragonfly_core::store::{Key, Part, Selector, Store, StoreError, WatchEvent, When};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlite_store::SqliteStore;

const ROUNDS: u64 = 40;
const WRITERS: usize = 8;
/// Answers before a process is killed.
const ANSWERS: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match &arguments[1..] {
            [word, path] if word == "write-until-killed" => write_until_killed(Path::new(path)).await,
            [word, directory] if word == "on-a-small-disk" => on_a_small_disk(Path::new(directory)).await,
            // cargo's own arguments, like a filter, are not for these.
            _ => {
                killed().await;
                shared().await;
                no_room();
            }
        }
    });
}

fn key(name: &str) -> Key {
    Key::new(Kind::HARDWARE, name)
}

/// What an object is at its `count`: nothing of it is like anything else's.
fn spec(count: u64) -> Value {
    json!({ "n": count, "text": format!("{count:08x}").repeat(usize::try_from(count * 61 % 900).unwrap()) })
}

fn count(record: &Record) -> u64 {
    record.spec["n"].as_u64().unwrap()
}

async fn put(store: &SqliteStore, name: &str, spec: Value, seen: Option<&Record>) -> Result<Record, StoreError> {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    let record = Record { kind: Kind::HARDWARE, metadata, spec, status: Value::Null };
    let when = seen.map_or(When::Absent, |seen| When::Unchanged(seen.metadata.resource_version.clone()));
    store.put(record, Part::Spec, when).await
}

/// Writes each of its objects over and over and says what was answered.
async fn write_until_killed(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    println!("open");
    let writers = (0..WRITERS).map(async |n| {
        let name = format!("m{n}");
        let mut seen = store.get(&key(&name)).await.unwrap();
        loop {
            let next = seen.as_ref().map_or(0, count) + 1;
            let written = put(&store, &name, spec(next), seen.as_ref()).await.unwrap();
            let line = format!("{name} {next} {}\n", written.metadata.resource_version);
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            seen = Some(written);
        }
    });
    futures_util::future::join_all(writers).await;
}

fn start(path: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = command.arg("write-until-killed").arg(path).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

async fn killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let rounds = std::env::var("DRAGONFLY_KILLS").map_or(ROUNDS, |number| number.parse().unwrap());
    // What each object must be at least, and the last version that was answered.
    let mut answered: BTreeMap<String, u64> = BTreeMap::new();
    let (mut answers, mut last) = (0, 0);
    // Differs from run to run: its process' number is as random as is needed.
    let mut random = u64::from(std::process::id());
    for round in 0..rounds {
        let (mut child, mut lines) = start(&path);
        // One in eight is killed while it opens, and mends what the one before it left.
        let early = round % 8 == 7;
        let mut text = String::new();
        while !early && text.lines().count() <= ANSWERS {
            assert!(lines.read_line(&mut text).unwrap() > 0, "the process ended by itself");
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % if early { 20_000 } else { 100_000 }));
        child.kill().unwrap();
        lines.read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        // The last line may be cut.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines().filter(|line| *line != "open") {
            let mut words = line.split(' ');
            let (name, n, version) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            answered.insert(name.to_owned(), n.parse().unwrap());
            last = last.max(version.parse::<u64>().unwrap());
            answers += 1;
        }
        let store = SqliteStore::open(&path).unwrap();
        for (name, n) in &mut answered {
            let record = store.get(&key(name)).await.unwrap().unwrap();
            let found = count(&record);
            // The one after it was asked for, and may have been written.
            assert!(found == *n || found == *n + 1, "round {round}: {name} is {found}, and {n} was answered");
            assert_eq!(record.spec, spec(found), "round {round}: {name} is of one write");
            *n = found;
        }
        let page = store.list(Kind::HARDWARE, &Selector::all(), 0, None).await.unwrap();
        assert!(page.version.parse::<u64>().unwrap() >= last, "round {round}: {last} was answered");
        resumes(&store, page.items).await;
        store.close().await.unwrap();
    }
    assert!(answers >= usize::try_from(rounds * 7 / 8).unwrap() * ANSWERS, "only {answers} writes were answered");
    println!("durability: {answers} answered writes, {rounds} kills, none lost");
}

/// A watch that resumes in the middle of what the killed process wrote hears the rest.
async fn resumes(store: &SqliteStore, mut all: Vec<Record>) {
    all.sort_by_key(|record| record.metadata.resource_version.parse::<u64>().unwrap());
    let mut all = all.into_iter();
    let Some(oldest) = all.next() else { return };
    let mut rest: Vec<Record> = all.collect();
    let mut watch = store.watch(Kind::HARDWARE, Some(oldest.metadata.resource_version));
    while !rest.is_empty() {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Applied(record) => rest.retain(|one| *one != *record),
            WatchEvent::Snapshot(all) => rest.retain(|one| !all.contains(one)),
            _ => {}
        }
    }
}

/// A second process is told who is in its way, and the first one's writes are there when it has gone.
async fn shared() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let (mut child, mut lines) = start(&path);
    let mut line = String::new();
    for _ in 0..ANSWERS {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the process ended by itself");
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        let told = format!("{} is in use by another process: stop that one", path.display());
        assert!(error.to_string().contains(&told), "{error}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut words = line.trim().split(' ');
    let (name, n): (_, u64) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
    let store = SqliteStore::open(&path).unwrap();
    assert!(count(&store.get(&key(name)).await.unwrap().unwrap()) >= n);
    println!("durability: a second process is refused while the first writes");
}

/// In a mount namespace of its own, where its directory is a small file system in memory.
fn no_room() {
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command
    };
    let directory = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=6m none \"$1\"";
    let able = inside(mount).arg("sh").arg(directory.path()).stderr(Stdio::null()).status();
    if !able.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "this test needs unshare and mount");
        println!("durability: a full disk is left out: no namespace of one's own here");
        return;
    }
    let mut command = inside(&format!("{mount} && exec \"$0\" on-a-small-disk \"$1\""));
    let status = command.arg(std::env::current_exe().unwrap()).arg(directory.path()).status().unwrap();
    assert!(status.success(), "on a small disk: {status}");
    println!("durability: a full disk is told, nothing is lost, and the store goes on when there is room");
}

async fn on_a_small_disk(directory: &Path) {
    let path = directory.join("store.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    let large = |n: usize| json!({ "text": format!("{n:04}").repeat(25_000) });
    let mut kept = vec![put(&store, "before", large(0), None).await.unwrap()];
    let mut watch = store.watch(Kind::HARDWARE, None);
    let mut known = BTreeMap::from([("before".to_owned(), kept[0].clone())]);
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::Snapshot(kept.clone()));
    let mut filler = std::fs::File::create(directory.join("filler")).unwrap();
    while filler.write_all(&[7; 4096]).is_ok() {}
    let mut refusal = None;
    for n in 1..100 {
        // What the WAL has already can be written over.
        match put(&store, &format!("while{n}"), large(n), None).await {
            Ok(record) => kept.push(record),
            Err(error) => {
                refusal = Some(error);
                break;
            }
        }
    }
    let refusal = refusal.unwrap();
    assert!(matches!(refusal, StoreError::Unavailable { .. }), "{refusal:?}");
    let told = refusal.to_string();
    assert!(told.contains("make room on its disk") && told.contains("store.sqlite"), "{told}");
    let all = async |store: &SqliteStore| store.list(Kind::HARDWARE, &Selector::all(), 0, None).await.unwrap().items;
    kept.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    assert_eq!(all(&store).await, kept);

    std::fs::remove_file(directory.join("filler")).unwrap();
    drop(filler);
    kept.push(put(&store, "then", large(7), None).await.unwrap());
    kept.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    assert_eq!(all(&store).await, kept);
    // Whoever watched hears of all that was written, and of nothing else.
    while known.len() < kept.len() {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Snapshot(all) => known = all.into_iter().map(|one| (one.metadata.name.clone(), one)).collect(),
            WatchEvent::Applied(one) => drop(known.insert(one.metadata.name.clone(), Arc::unwrap_or_clone(one))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(known.into_values().collect::<Vec<_>>(), kept);
    store.close().await.unwrap();
    let again = SqliteStore::open(&path).unwrap();
    assert_eq!(all(&again).await, kept);
}
