//! A process that is killed loses no write that it was told is done.
//!
//! This test starts itself as a child that writes to a store and says what was answered, kills it
//! at some moment, and reads the store. `DRAGONFLY_KILLS=1000` kills more of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![allow(clippy::print_stdout, reason = "without the harness, its result is its own to tell")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dragonfly_core::resource::{Kind, Metadata, Record};
use dragonfly_core::store::redb::{RedbStore, verify};
use dragonfly_core::store::{Key, Part, Selector, Store, WatchEvent, When};
use futures_util::StreamExt;
use serde_json::{Value, json};

const ROUNDS: u64 = 40;
const WRITERS: usize = 8;
/// Answers before a child is killed.
const ANSWERS: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match &arguments[1..] {
        [word, path] if word == "write-until-killed" => runtime.block_on(child(Path::new(path))),
        // cargo's own arguments, like a filter, are not for this one test.
        _ => runtime.block_on(parent()),
    }
}

/// Of every two writers of a name, one writes a machine and one a workflow.
fn key(writer: &str) -> Key {
    let (kind, name) = writer.split_once('/').unwrap();
    Key::new(if kind == "w" { Kind::WORKFLOW } else { Kind::HARDWARE }, name)
}

/// Writes a part of each of its objects over and over, deletes it now and then, and says what it asks for
/// and what is answered.
async fn child(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    let writers = (0..WRITERS).map(|n| {
        let store = store.clone();
        async move {
            let name = format!("{}/m{}", ["h", "w"][n % 2], n / 2);
            let mut seen = store.get(&key(&name)).await.unwrap();
            let mut count = counts(seen.as_ref())[0].max(counts(seen.as_ref())[1]) + 1;
            loop {
                let new = match &seen {
                    Some(_) if count % 6 == 5 => None,
                    Some(_) if count.is_multiple_of(2) => Some([counts(seen.as_ref())[0], count]),
                    // There is no status of what is not there.
                    _ => Some([count, counts(seen.as_ref())[1]]),
                };
                say(&name, "asks", json!(new));
                match (new, seen) {
                    (None, Some(record)) => {
                        store.delete(&key(&name), &record.metadata.resource_version).await.unwrap();
                        seen = None;
                    }
                    (_, old) => seen = Some(put(&store, &name, count, old).await),
                }
                say(&name, "has", json!([new, seen.as_ref().map(|record| &record.metadata.resource_version)]));
                count += 1;
            }
        }
    });
    futures_util::future::join_all(writers).await;
}

/// Which of its writes an object's `spec` and `status` are of.
fn counts(record: Option<&Record>) -> [u64; 2] {
    record.map_or([0; 2], |record| [&record.spec, &record.status].map(|part| part["n"].as_u64().unwrap_or(0)))
}

/// A part of an object as it is at its `count`: nothing of it is like anything else's.
fn part(count: u64) -> Value {
    let text = format!("{count:016x}").repeat((count * 97 % 5000 / 16) as usize);
    json!({ "n": count, "text": text })
}

/// Its status where the count is even and there is one to write, else its spec.
async fn put(store: &RedbStore, writer: &str, count: u64, seen: Option<Record>) -> Record {
    let Key { kind, name } = key(writer);
    let metadata = Metadata { name, ..Metadata::default() };
    let which = if seen.is_some() && count.is_multiple_of(2) { Part::Status } else { Part::Spec };
    let record = Record { kind, metadata, spec: part(count), status: part(count) };
    let when = seen.map_or(When::Absent, |seen| When::Unchanged(seen.metadata.resource_version));
    store.put(record, which, when).await.unwrap()
}

/// One line, whole, at once.
fn say(name: &str, word: &str, what: Value) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{name} {word} {what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[derive(Debug, Default, Clone)]
struct Object {
    /// `null` when it was deleted or never was.
    has: Value,
    asks: Option<Value>,
}

async fn parent() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("store.redb");
    let mut objects: BTreeMap<String, Object> = BTreeMap::new();
    let rounds = std::env::var("DRAGONFLY_KILLS").map_or(ROUNDS, |number| number.parse().unwrap());
    let (mut answered, mut last, mut slowest) = (0, 0, Duration::ZERO);
    // Differs from run to run: its process' number is as random as is needed.
    let mut random = u64::from(std::process::id());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("write-until-killed")
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // From here on there is something to lose, however busy this machine is. One in eight is killed
        // before: while it opens, and mends what the one before it left.
        let early = round % 8 == 7;
        let mut text = String::new();
        while !early && text.matches(" has ").count() < ANSWERS {
            assert!(lines.read_line(&mut text).unwrap() > 0, "the child ended by itself");
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % if early { 20_000 } else { 120_000 }));
        child.kill().unwrap();
        lines.read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        // The last line may be cut.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let mut words = line.splitn(3, ' ');
            let (name, word) = (words.next().unwrap(), words.next().unwrap());
            let what: Value = serde_json::from_str(words.next().unwrap()).unwrap();
            let object = objects.entry(name.to_owned()).or_default();
            if word == "has" {
                answered += 1;
                let version = what[1].as_str().map_or(0, |version| version.parse::<u64>().unwrap());
                last = last.max(version);
                *object = Object { has: what[0].clone(), asks: None };
            } else {
                object.asks = Some(what);
            }
        }

        let began = Instant::now();
        let store = RedbStore::open(&path).unwrap();
        slowest = slowest.max(began.elapsed());
        for (name, object) in &mut objects {
            let record = store.get(&key(name)).await.unwrap();
            let found = record.as_ref().map_or(Value::Null, |record| json!(counts(Some(record))));
            // All of each part is of one write.
            let parts = record.as_ref().map(|record| ([&record.spec, &record.status], counts(Some(record))));
            let torn = parts.is_some_and(|(parts, counts)| {
                parts
                    .into_iter()
                    .zip(counts)
                    .any(|(found, count)| *found != if count == 0 { Value::Null } else { part(count) })
            });
            assert!(!torn, "{name}");
            let expected = found == object.has || Some(&found) == object.asks.as_ref();
            assert!(expected, "round {round}: {name} is {found}, and its writer was at {object:?}");
            *object = Object { has: found, asks: None };
        }
        resumes(&store, Kind::HARDWARE).await;
        resumes(&store, Kind::WORKFLOW).await;
        store.close().await.unwrap();
        let found = verify(&path).unwrap();
        assert!(found.problems.is_empty(), "round {round}: {found:?}");
        assert!(found.version >= last, "round {round}: version {last} was answered, and the file is at {found:?}");
        last = found.version;
    }
    for round in 0..rounds / 4 {
        began(&directory.path().join(format!("new-{round}.redb")), Duration::from_micros(round * 613 % 12_000)).await;
    }
    let least = rounds * 7 / 8 * ANSWERS as u64;
    assert!(answered >= least, "only {answered} writes were answered in {rounds} rounds");
    println!("durability: {answered} answered writes, {rounds} kills, none lost; opened again within {slowest:?}");
}

/// A process that is killed while it makes the file leaves none, or one that is whole.
async fn began(path: &Path, wait: Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let mut child = child.arg("write-until-killed").arg(path).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(wait);
    child.kill().unwrap();
    child.wait().unwrap();
    RedbStore::open(path).unwrap().close().await.unwrap();
    assert!(verify(path).unwrap().problems.is_empty());
}

/// A watch that resumes in the middle of what the killed process wrote hears the rest.
async fn resumes(store: &RedbStore, kind: Kind) {
    let all = store.list(kind, &Selector::all(), 0, None).await.unwrap().items;
    let Some(oldest) = all.iter().min_by_key(|r| r.metadata.resource_version.parse::<u64>().unwrap()) else { return };
    let mut rest: Vec<&Record> = all.iter().filter(|record| *record != oldest).collect();
    let mut watch = store.watch(kind, Some(oldest.metadata.resource_version.clone()));
    while !rest.is_empty() {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Applied(record) => rest.retain(|r| **r != *record),
            WatchEvent::Snapshot(all) => rest.retain(|r| !all.contains(r)),
            _ => {}
        }
    }
}
