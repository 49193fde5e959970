//! Power cuts: a disk that forgets, reorders and tears what was not synced loses no write that was
//! answered.
//!
//! A history is one store's life on such a disk: writes, deletions, a full disk, restarts. Afterwards
//! the power is cut at every sync of it and between every two, and what is found is opened and judged.
//! `DRAGONFLY_HISTORIES=1000 cargo test --release -p dragonfly-core --features redb power_cut` lives more of
//! them.

#![allow(clippy::print_stdout, reason = "a thousand histories say what they saw")]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use redb::{Builder, Durability};
use serde_json::{Value, json};

use super::copy::verify_file;
use super::feed::Read;
use super::file::File;
use super::*;
use crate::resource::Metadata;
use crate::testing::{Dice, PowerCutDisk};

const HISTORIES: u64 = 6;
const WRITERS: u64 = 4;
const PAGE_CACHE: usize = 4 << 20;
/// Few, so that changes leave the log too.
const LOG: u64 = 8;

fn on(disk: &PowerCutDisk) -> Result<File> {
    let disk = disk.clone();
    let opener = Box::new(move || Ok(Builder::new().set_cache_size(PAGE_CACHE).create_with_backend(disk.clone())?));
    File::open_by("disk".into(), opener)
}

fn start(disk: &PowerCutDisk, durability: Durability) -> Result<RedbStore> {
    RedbStore::start_with(on(disk)?, Options { log: LOG, ..Options::default() }, durability)
}

fn key(name: &str) -> Key {
    Key::new(Kind::HARDWARE, name)
}

fn record(name: &str, spec: Value) -> Record {
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Record { kind: Kind::HARDWARE, metadata, spec, status: Value::Null }
}

/// What a writer did, and at which moment of the disk.
enum Event {
    /// It asked for this `spec`, or for a deletion.
    Asks(Option<Value>),
    /// It was answered that the object is now this.
    Has(Option<Box<Record>>),
}

struct History {
    disk: PowerCutDisk,
    events: Mutex<Vec<(usize, String, Event)>>,
}

impl History {
    fn note(&self, name: &str, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push((self.disk.moment(), name.to_owned(), event));
    }

    /// Writes one object once, or deletes it.
    async fn write(&self, store: &RedbStore, name: &str, n: u64, bytes: usize, delete: bool) {
        // Its last write may have failed: what there is now is not known otherwise.
        let Ok(current) = store.get(&key(name)).await else { return };
        let answer = match current {
            Some(seen) if delete => {
                self.note(name, Event::Asks(None));
                store.delete(&key(name), &seen.metadata.resource_version).await.map(|()| None)
            }
            seen => {
                let spec = json!({ "n": n, "text": "x".repeat(bytes) });
                self.note(name, Event::Asks(Some(spec.clone())));
                let when = seen.map_or(When::Absent, |seen| When::Unchanged(seen.metadata.resource_version));
                store.put(record(name, spec), Part::Spec, when).await.map(Some)
            }
        };
        if let Ok(has) = answer {
            self.note(name, Event::Has(has.map(Box::new)));
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
            let writes: Vec<_> = (0..many)
                .map(|at| {
                    // Enough, now and then, for the file to grow.
                    let most = if dice.below(10) == 0 { 200_000 } else { 3000 };
                    let (bytes, delete) = (dice.below(most) as usize, dice.below(6) == 0);
                    (format!("m{}", (first + at) % WRITERS), bytes, delete)
                })
                .collect();
            let writes = writes.iter().enumerate().map(|(at, (name, bytes, delete))| {
                history.write(&store, name, n * WRITERS + at as u64, *bytes, *delete)
            });
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
        for moment in &moments {
            self.cut(*moment, &mut dice).await.map_err(|wrong| format!("history {seed}, cut at {moment}: {wrong}"))?;
        }
        Ok(moments.len())
    }

    async fn cut(&self, moment: usize, dice: &mut Dice) -> Result<(), String> {
        // Each object as it was answered last, and what was asked for since.
        let mut told: BTreeMap<String, (Option<Record>, Vec<Option<Value>>)> = BTreeMap::new();
        let mut last = 0;
        for (at, name, event) in self.events.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if *at > moment {
                break;
            }
            let (has, asks) = told.entry(name.clone()).or_default();
            match event {
                Event::Asks(what) => asks.push(what.clone()),
                Event::Has(now) => {
                    (*has, *asks) = (now.as_deref().cloned(), Vec::new());
                    let version = now.as_ref().and_then(|now| crate::store::order(&now.metadata.resource_version));
                    last = last.max(version.unwrap_or(0));
                }
            }
        }
        let found = PowerCutDisk::holding(self.disk.cut(moment, dice));
        let file = on(&found).map_err(|error| format!("does not open: {error:?}"))?;
        let verified = verify_file(&file).map_err(|error| format!("cannot be read: {error:?}"))?;
        if !verified.problems.is_empty() || verified.version < last {
            return Err(format!("version {last} was answered, and there is {verified:?}"));
        }
        for (name, (has, asks)) in &told {
            let got = file.get(&key(name)).map_err(|error| format!("{name}: {error:?}"))?;
            let as_asked = asks.iter().any(|asked| *asked == got.as_ref().map(|record| record.spec.clone()));
            if got != *has && !as_asked {
                let short =
                    |record: &Option<Record>| record.as_ref().map(|r| (r.metadata.clone(), r.spec["n"].clone()));
                return Err(format!("{name} is {:?} and was answered to be {:?}", short(&got), short(has)));
            }
        }
        logged(&file, verified.version)?;
        // Versions go on where they were.
        let store = RedbStore::start(file, Options { log: LOG, ..Options::default() }).map_err(|e| e.to_string())?;
        let after = store.put(record("after", json!({})), Part::Spec, When::Absent).await.map_err(|e| e.to_string())?;
        let version = crate::store::order(&after.metadata.resource_version);
        if version <= Some(last) {
            return Err(format!("after version {last} comes {version:?}"));
        }
        Ok(())
    }
}

/// The log and the objects are of one moment: what is in the log last is what there is.
fn logged(file: &File, version: u64) -> Result<(), String> {
    let present = file.present(Kind::HARDWARE, Some(version.saturating_sub(LOG - 1))).map_err(|e| e.to_string())?;
    let Read::Since(changes) = present.what else {
        return if version == 0 { Ok(()) } else { Err(format!("version {version}, and no log reaches there")) };
    };
    if let Some(pair) = changes.windows(2).find(|pair| pair[0].version + 1 != pair[1].version) {
        return Err(format!("the log goes from {} to {}", pair[0].version, pair[1].version));
    }
    let newest: BTreeMap<_, _> = changes.iter().map(|change| (change.record.metadata.name.clone(), change)).collect();
    for (name, change) in newest {
        let got = file.get(&key(&name)).map_err(|e| e.to_string())?;
        let want = (!change.deleted).then(|| Record::clone(&change.record));
        if got != want {
            return Err(format!("{name} is not as in the log"));
        }
    }
    if changes.last().map_or(0, |change| change.version) != version {
        return Err(format!("the log does not end at version {version}"));
    }
    Ok(())
}

fn histories() -> u64 {
    std::env::var("DRAGONFLY_HISTORIES").map_or(HISTORIES, |number| number.parse().unwrap())
}

#[tokio::test]
async fn no_answered_write_is_lost_in_a_power_cut() {
    let (mut cuts, mut answered) = (0, 0);
    for seed in 0..histories() {
        let history = History::live(seed, Durability::Immediate, false).await;
        cuts += history.judge(seed).await.unwrap_or_else(|wrong| panic!("{wrong}"));
        let events = history.events.into_inner().unwrap();
        answered += events.iter().filter(|(_, _, event)| matches!(event, Event::Has(_))).count();
    }
    assert!(answered as u64 > histories() * 5, "only {answered} writes were answered");
    assert!(cuts as u64 > histories() * 20, "only {cuts} cuts");
    println!("{cuts} cuts in {} histories, {answered} answered writes, none lost", histories());
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
    let made = store.put(record("a", json!({})), Part::Spec, When::Absent).await.unwrap();
    disk.set_full(true);
    assert!(store.put(record("b", json!({})), Part::Spec, When::Absent).await.is_err());
    let error = store.get(&key("a")).await.unwrap_err().to_string();
    assert!(error.contains("make room on its disk"), "{error}");
    disk.set_full(false);
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(made));
}
