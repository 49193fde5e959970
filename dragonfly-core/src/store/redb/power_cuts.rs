//! Power cuts: a disk that forgets, reorders and tears what was not synced loses no write that was
//! answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, StorageBackend};
use serde_json::json;

use super::file::File;
use super::*;
use crate::resource::Metadata;

const HISTORIES: u64 = 40;
const IMAGES: u64 = 4;
const WRITERS: usize = 4;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Numbers that look random and are the same for the same seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % most.max(1)
    }
}

#[derive(Debug, Clone)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct Medium {
    /// As it is read now.
    now: Vec<u8>,
    /// As of the last sync.
    durable: Vec<u8>,
    /// What was done since then.
    unsynced: Vec<Unsynced>,
    /// Operations until the power goes.
    left: u64,
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Medium>>);

impl Disk {
    fn with(bytes: Vec<u8>, left: u64) -> Self {
        Self(Arc::new(Mutex::new(Medium { now: bytes.clone(), durable: bytes, unsynced: Vec::new(), left })))
    }

    fn medium(&self) -> std::sync::MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is found when the power is back: each write that was not synced is there, is not, or is
    /// there in part, in any order.
    fn found(&self, dice: &mut Dice) -> Vec<u8> {
        let medium = self.medium();
        let mut bytes = medium.durable.clone();
        let mut unsynced = medium.unsynced.clone();
        for n in (1..unsynced.len()).rev() {
            if dice.below(3) == 0 {
                unsynced.swap(n, dice.below(n as u64 + 1) as usize);
            }
        }
        for done in unsynced {
            match (done, dice.below(3)) {
                (_, 0) => {}
                (Unsynced::Length(length), _) => bytes.resize(length as usize, 0),
                (Unsynced::Write(at, data), how) => {
                    for (n, sector) in data.chunks(SECTOR).enumerate() {
                        if how == 1 && dice.below(2) == 0 {
                            continue;
                        }
                        let at = at as usize + n * SECTOR;
                        if bytes.len() < at + sector.len() {
                            bytes.resize(at + sector.len(), 0);
                        }
                        bytes[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
        bytes
    }
}

impl Medium {
    fn step(&mut self) -> std::io::Result<()> {
        let Some(left) = self.left.checked_sub(1) else { return Err(std::io::Error::other("the power is gone")) };
        self.left = left;
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.medium().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let medium = self.medium();
        let at = offset as usize;
        let Some(bytes) = medium.now.get(at..at + out.len()) else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        let mut medium = self.medium();
        medium.step()?;
        medium.now.resize(len as usize, 0);
        medium.unsynced.push(Unsynced::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let mut medium = self.medium();
        medium.step()?;
        medium.durable = medium.now.clone();
        medium.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut medium = self.medium();
        medium.step()?;
        let at = offset as usize;
        medium.now[at..at + data.len()].copy_from_slice(data);
        medium.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }
}

fn on(disk: &Disk) -> Result<File> {
    let disk = disk.clone();
    let opener = Box::new(move || Ok(Database::builder().create_with_backend(disk.clone())?));
    File::open_by("disk".into(), opener)
}

/// Where one object's writer is: what was answered, and what it asked for after that.
#[derive(Debug, Clone, Default)]
struct Progress {
    answered: Option<Record>,
    asked: Option<serde_json::Value>,
}

/// Writes one object, deletes it now and then, until the store fails.
async fn write(store: &RedbStore, name: &str, progress: &Mutex<BTreeMap<String, Progress>>) {
    let note = |change: &dyn Fn(&mut Progress)| {
        let mut all = progress.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(name.to_owned()).or_default());
    };
    // More than any history has room for, so that a store that never writes ends the test.
    for n in 0_u64..2000 {
        let spec = json!({ "n": n, "text": "x".repeat(((n * 37) % 3000) as usize) });
        let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
        let record = Record { kind: Kind::HARDWARE, metadata, spec: spec.clone(), status: json!(null) };
        let current = progress.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default();
        let answered = match current.answered {
            Some(seen) if n % 9 == 8 => {
                note(&|p| p.asked = Some(json!(null)));
                let key = Key::new(Kind::HARDWARE, name);
                store.delete(&key, &seen.metadata.resource_version).await.map(|()| None)
            }
            seen => {
                note(&|p| p.asked = Some(spec.clone()));
                let when = seen.map_or(When::Absent, |seen| When::Unchanged(seen.metadata.resource_version));
                store.put(record, Part::Spec, when).await.map(Some)
            }
        };
        let Ok(answered) = answered else { return };
        note(&|p| *p = Progress { answered: answered.clone(), asked: None });
    }
}

#[tokio::test]
async fn no_answered_write_is_lost_in_a_power_cut() {
    let written = AtomicU64::new(0);
    for seed in 0..HISTORIES {
        let mut dice = Dice::new(seed + 1);
        // The store exists; the power goes somewhere in its life.
        let made = Disk::with(Vec::new(), u64::MAX);
        drop(RedbStore::start(on(&made).unwrap(), Options::default()).unwrap());
        let disk = Disk::with(made.medium().now.clone(), 30 + dice.below(900));
        let progress = Mutex::new(BTreeMap::new());
        if let Ok(file) = on(&disk) {
            let store = RedbStore::start(file, Options { log: 8, ..Options::default() }).unwrap();
            let names: Vec<String> = (0..WRITERS).map(|n| format!("m{n}")).collect();
            futures_util::future::join_all(names.iter().map(|name| write(&store, name, &progress))).await;
        }
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut last = 0;
        for image in 0..IMAGES {
            let found = Disk::with(disk.found(&mut dice), u64::MAX);
            let told = format!("history {seed}, image {image}");
            let file = on(&found).unwrap_or_else(|error| panic!("{told}: {error:?}"));
            file.check().unwrap_or_else(|error| panic!("{told}: {error:?}"));
            let store = RedbStore::start(file, Options { log: 8, ..Options::default() }).unwrap();
            for (name, progress) in &progress {
                let got = store.get(&Key::new(Kind::HARDWARE, name)).await.unwrap();
                let asked = progress.asked.as_ref();
                let as_asked = match &got {
                    None => asked.is_some_and(serde_json::Value::is_null),
                    Some(record) => asked == Some(&record.spec),
                };
                assert!(got == progress.answered || as_asked, "{told}: {name} is {got:?}, not as in {progress:?}");
                let version =
                    progress.answered.as_ref().and_then(|r| crate::store::order(&r.metadata.resource_version));
                last = last.max(version.unwrap_or(0));
            }
            // Versions go on where they were.
            let metadata = Metadata { name: "after".to_owned(), ..Metadata::default() };
            let after = Record { kind: Kind::HARDWARE, metadata, spec: json!({}), status: json!(null) };
            let after = store.put(after, Part::Spec, When::Absent).await.unwrap();
            assert!(crate::store::order(&after.metadata.resource_version) > Some(last), "{told}");
        }
        written.fetch_add(last, Ordering::Relaxed);
    }
    let written = written.into_inner();
    assert!(written > HISTORIES * 5, "only {written} writes were answered before the power went");
}
