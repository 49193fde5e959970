//! Power cuts: a disk that forgets, reorders and tears what was not synced loses no write that was
//! answered.
//!
//! A history is one store's life on such a disk: objects of two kinds, whose `spec` and `status` are written, deletions, a
//! full disk, restarts. Afterwards the power is cut at every sync of it and between every two, and what is found is opened
//! and judged; some of it as a file too, as a server opens it, and some after another cut while it was being opened.
//! `DRAGONFLY_HISTORIES=1000 cargo test --release -p dragonfly-core --features redb power_cut` lives more of
//! them.

#![allow(clippy::print_stdout, reason = "a thousand histories say what they saw")]

mod judge;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::{Builder, Durability};
use serde_json::{Value, json};

use self::judge::Told;
use super::file::File;
use super::*;
use crate::resource::Metadata;
use crate::testing::{Dice, PowerCutDisk};

const HISTORIES: u64 = 6;
/// Each has an object of its own: two names in each of two kinds.
const WRITERS: u64 = 4;
const KINDS: [Kind; 2] = [Kind::HARDWARE, Kind::WORKFLOW];
const PAGE_CACHE: usize = 4 << 20;
/// Of one cut that is cut again.
const MORE_CUTS: usize = 3;
/// Few, so that changes leave the log too.
const LOG: u64 = 8;

fn on(disk: &PowerCutDisk) -> Result<File> {
    let disk = disk.clone();
    let opener = Box::new(move || Ok(Builder::new().set_cache_size(PAGE_CACHE).create_with_backend(disk.clone())?));
    File::open_by("disk".into(), opener)
}

fn options() -> Options {
    Options { log: LOG, page_cache: PAGE_CACHE, ..Options::default() }
}

fn start(disk: &PowerCutDisk, durability: Durability) -> Result<RedbStore> {
    RedbStore::start_with(on(disk)?, options(), durability)
}

fn key(writer: u64) -> Key {
    Key::new(KINDS[(writer % 2) as usize], format!("m{}", writer / 2))
}

fn record(key: &Key, spec: Value, status: Value) -> Record {
    let metadata = Metadata { name: key.name.clone(), ..Metadata::default() };
    Record { kind: key.kind, metadata, spec, status }
}

/// What a writer did, and at which moment of the disk.
enum Event {
    /// It asked for this `spec` and `status`, or for a deletion.
    Asks(Option<[Value; 2]>),
    /// It was answered that the object is now this.
    Has(Option<Box<Record>>),
}

/// What is thrown for one write.
struct Throw {
    writer: u64,
    bytes: usize,
    delete: bool,
    part: Part,
}

impl Throw {
    fn new(writer: u64, dice: &mut Dice) -> Self {
        // Enough, now and then, for the file to grow.
        let most = if dice.below(10) == 0 { 200_000 } else { 3000 };
        let (bytes, delete) = (dice.below(most) as usize, dice.below(6) == 0);
        Self { writer, bytes, delete, part: if dice.below(2) == 0 { Part::Spec } else { Part::Status } }
    }
}

struct History {
    disk: PowerCutDisk,
    events: Mutex<Vec<(usize, Key, Event)>>,
}

impl History {
    fn note(&self, key: &Key, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push((self.disk.moment(), key.clone(), event));
    }

    /// Writes a part of one object once, or deletes it.
    async fn write(&self, store: &RedbStore, n: u64, throw: &Throw) {
        let key = &key(throw.writer);
        // Its last write may have failed: what there is now is not known otherwise.
        let Ok(current) = store.get(key).await else { return };
        let answer = match current {
            Some(seen) if throw.delete => {
                self.note(key, Event::Asks(None));
                store.delete(key, &seen.metadata.resource_version).await.map(|()| None)
            }
            seen => {
                let new = json!({ "n": n, "text": "x".repeat(throw.bytes) });
                // There is no status of what is not there.
                let (part, parts, when) = match seen {
                    None => (Part::Spec, [new, Value::Null], When::Absent),
                    Some(seen) => {
                        let when = When::Unchanged(seen.metadata.resource_version);
                        match throw.part {
                            Part::Spec => (Part::Spec, [new, seen.status], when),
                            Part::Status => (Part::Status, [seen.spec, new], when),
                        }
                    }
                };
                self.note(key, Event::Asks(Some(parts.clone())));
                let [spec, status] = parts;
                store.put(record(key, spec, status), part, when).await.map(Some)
            }
        };
        if let Ok(has) = answer {
            self.note(key, Event::Has(has.map(Box::new)));
        }
    }

    async fn live(seed: u64, durability: Durability, lies: bool) -> Self {
        let mut dice = Dice::new(seed);
        let made = PowerCutDisk::default();
        drop(start(&made, Durability::Immediate).unwrap());
        let disk = PowerCutDisk::holding(made.bytes());
        if lies {
            disk.lie();
        }
        let history = Self { disk: disk.clone(), events: Mutex::default() };
        let mut store = start(&disk, durability).unwrap();
        for n in 0..6 + dice.below(10) {
            let full = dice.below(8) == 0;
            disk.set_full(full);
            // Each object by one writer at a time, who knows what it has been told.
            let (many, first) = (1 + dice.below(WRITERS), dice.below(WRITERS));
            let throws: Vec<_> = (0..many).map(|at| Throw::new((first + at) % WRITERS, &mut dice)).collect();
            let writes = throws.iter().map(|throw| history.write(&store, n * WRITERS + throw.writer, throw));
            futures_util::future::join_all(writes).await;
            disk.set_full(false);
            if dice.below(6) == 0 {
                store.close().await.unwrap();
                store = start(&disk, durability).unwrap();
            }
        }
        store.close().await.unwrap();
        history
    }

    /// Cuts the power at every sync and between every two. Gives how many cuts there were, or what was found to be wrong.
    async fn judge(&self, seed: u64) -> Result<usize, String> {
        let mut dice = Dice::new(seed ^ 0xfeed);
        let moments = self.disk.moments(&mut dice);
        let mut cuts = moments.len();
        for moment in &moments {
            cuts += self
                .cut(*moment, &mut dice)
                .await
                .map_err(|wrong| format!("history {seed}, cut at {moment}: {wrong}"))?;
        }
        Ok(cuts)
    }

    /// Cuts the power once, and maybe again. Gives how many more times.
    async fn cut(&self, moment: usize, dice: &mut Dice) -> Result<usize, String> {
        let told = Told::until(moment, &self.events.lock().unwrap_or_else(PoisonError::into_inner));
        let bytes = self.disk.cut(moment, dice);
        let held = open(&bytes, &told).await?;
        // A file's syncs are those of a real disk: fewer of them.
        match dice.below(24) {
            0..6 => again(&bytes, &told, &held, dice).await,
            6 => as_a_file(&bytes, &told, &held).await.map(|()| 0).map_err(|wrong| format!("as a file: {wrong}")),
            _ => Ok(0),
        }
    }
}

/// Opens what a cut left, and judges it. Gives what is in it.
async fn open(bytes: &[u8], told: &Told) -> Result<Vec<Record>, String> {
    let file = on(&PowerCutDisk::holding(bytes.to_vec())).map_err(|error| format!("does not open: {error:?}"))?;
    told.judge(&RedbStore::start(file, options()).map_err(|error| error.to_string())?).await
}

/// Cuts the power again while what a cut left is opened, put in order and closed. Gives how many times.
async fn again(bytes: &[u8], told: &Told, held: &[Record], dice: &mut Dice) -> Result<usize, String> {
    let disk = PowerCutDisk::holding(bytes.to_vec());
    let file = on(&disk).map_err(|error| format!("does not open a second time: {error:?}"))?;
    file.check().map_err(|error| format!("is not put in order: {error:?}"))?;
    file.close();
    let moments = disk.some_moments(MORE_CUTS, dice);
    // It writes nothing of its own: what is there is what was.
    for moment in &moments {
        match open(&disk.cut(*moment, dice), told).await {
            Ok(after) if after == held => {}
            Ok(_) => return Err(format!("a second cut, at {moment}: another write is there than before")),
            Err(wrong) => return Err(format!("a second cut, at {moment}: {wrong}")),
        }
    }
    Ok(moments.len())
}

/// Opens what a cut left as a server does.
async fn as_a_file(bytes: &[u8], told: &Told, held: &[Record]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let path: &Path = &directory.path().join("store.redb");
    std::fs::write(path, bytes).unwrap();
    let store = RedbStore::open_with(path, options()).map_err(|error| format!("does not open: {error:?}"))?;
    if told.judge(&store).await? != held {
        return Err("it holds something else".to_owned());
    }
    store.close().await.map_err(|error| error.to_string())
}

fn histories() -> u64 {
    std::env::var("DRAGONFLY_HISTORIES").map_or(HISTORIES, |number| number.parse().unwrap())
}

#[tokio::test]
async fn no_answered_write_is_lost_in_a_power_cut() {
    let (mut cuts, mut answered) = (0, [0; 2]);
    for seed in 0..histories() {
        let history = History::live(seed, Durability::Immediate, false).await;
        cuts += history.judge(seed).await.unwrap_or_else(|wrong| panic!("{wrong}"));
        for (_, _, event) in history.events.into_inner().unwrap() {
            if let Event::Has(now) = event {
                answered[usize::from(now.is_some_and(|now| !now.status.is_null()))] += 1;
            }
        }
    }
    let enough = answered.iter().all(|answered| *answered > histories() * 3);
    assert!(enough, "only {answered:?} writes were answered, without and with a status");
    assert!(cuts as u64 > histories() * 20, "only {cuts} cuts");
    println!("{cuts} cuts in {} histories, {} answered writes, none lost", histories(), answered[0] + answered[1]);
}

/// How many of some histories are caught that keep the promise only by luck.
async fn caught(durability: Durability, lies: bool) -> Vec<String> {
    let mut caught = Vec::new();
    for seed in 0..4 {
        caught.extend(History::live(seed, durability, lies).await.judge(seed).await.err());
    }
    caught
}

#[tokio::test]
async fn a_disk_that_lies_about_its_syncs_is_caught() {
    let caught = caught(Durability::Immediate, true).await;
    assert_eq!(caught.len(), 4, "{caught:?}");
}

#[tokio::test]
async fn a_store_that_does_not_sync_is_caught() {
    let caught = caught(Durability::None, false).await;
    assert_eq!(caught.len(), 4, "{caught:?}");
    assert!(caught.iter().all(|wrong| wrong.contains("was answered")), "{caught:?}");
}

#[tokio::test]
async fn readers_go_on_too_when_there_is_room() {
    let disk = PowerCutDisk::default();
    let store = start(&disk, Durability::Immediate).unwrap();
    let [a, b] = [key(0), key(2)];
    let made = store.put(record(&a, json!({}), Value::Null), Part::Spec, When::Absent).await.unwrap();
    disk.set_full(true);
    assert!(store.put(record(&b, json!({}), Value::Null), Part::Spec, When::Absent).await.is_err());
    let error = store.get(&a).await.unwrap_err().to_string();
    assert!(error.contains("make room on its disk"), "{error}");
    disk.set_full(false);
    assert_eq!(store.get(&a).await.unwrap(), Some(made));
}
