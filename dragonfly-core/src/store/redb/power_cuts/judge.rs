//! Whether a store holds what its writers were told.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::copy::verify_file;
use super::super::feed::Read;
use super::super::file::File;
use super::super::*;
use super::{Event, KINDS, LOG, record};
use crate::store::order;

/// An object as it was answered last, and what was asked for since.
#[derive(Default)]
struct Object {
    has: Option<Record>,
    asks: Vec<Option<[Value; 2]>>,
}

impl Object {
    fn may_be(&self, got: Option<&Record>) -> bool {
        let as_asked = |asked: &Option<[Value; 2]>| match (asked, got) {
            (Some([spec, status]), Some(got)) => (spec, status) == (&got.spec, &got.status),
            (None, None) => true,
            _ => false,
        };
        got == self.has.as_ref() || self.asks.iter().any(as_asked)
    }
}

/// What the writers had been told at some moment.
pub(super) struct Told {
    objects: BTreeMap<(&'static str, String), (Key, Object)>,
    /// The last version that was answered.
    last: u64,
}

impl Told {
    pub(super) fn until(moment: usize, events: &[(usize, Key, Event)]) -> Self {
        let mut told = Self { objects: BTreeMap::new(), last: 0 };
        for (_, key, event) in events.iter().take_while(|(at, _, _)| *at <= moment) {
            let place = (key.kind.name, key.name.clone());
            let (_, object) = told.objects.entry(place).or_insert_with(|| (key.clone(), Object::default()));
            match event {
                Event::Asks(what) => object.asks.push(what.clone()),
                Event::Has(now) => {
                    *object = Object { has: now.as_deref().cloned(), asks: Vec::new() };
                    let version = now.as_ref().and_then(|now| order(&now.metadata.resource_version));
                    told.last = told.last.max(version.unwrap_or(0));
                }
            }
        }
        told
    }

    /// Judges a store, and that it goes on. Gives what was in it, or what is wrong.
    pub(super) async fn judge(&self, store: &RedbStore) -> Result<Vec<Record>, String> {
        let (file, last) = (&store.0.file, self.last);
        let verified = verify_file(file).map_err(|error| format!("cannot be read: {error:?}"))?;
        if !verified.problems.is_empty() || verified.version < last {
            return Err(format!("version {last} was answered, and there is {verified:?}"));
        }
        for (key, object) in self.objects.values() {
            let got = file.get(key).map_err(|error| format!("{key}: {error:?}"))?;
            if !object.may_be(got.as_ref()) {
                let (got, has) = (short(got.as_ref()), short(object.has.as_ref()));
                return Err(format!("{key} is {got} and was answered to be {has}"));
            }
        }
        logged(file, verified.version)?;
        let mut held = Vec::new();
        for kind in KINDS {
            held.extend(store.list(kind, &Selector::all(), 0, None).await.map_err(|error| error.to_string())?.items);
        }
        // Versions go on where they were.
        let new = record(&Key::new(Kind::HARDWARE, "after"), json!({}), Value::Null);
        let after = store.put(new, Part::Spec, When::Absent).await.map_err(|error| error.to_string())?;
        let version = order(&after.metadata.resource_version);
        if version <= Some(last) {
            return Err(format!("after version {last} comes {version:?}"));
        }
        Ok(held)
    }
}

fn short(record: Option<&Record>) -> String {
    let numbers = |r: &Record| format!("{:?}, spec {}, status {}", r.metadata, r.spec["n"], r.status["n"]);
    record.map_or_else(|| "not there".to_owned(), numbers)
}

/// The log and the objects are of one moment: what is in the log last is what there is.
fn logged(file: &File, version: u64) -> Result<(), String> {
    let mut changes = Vec::new();
    for kind in KINDS {
        let present = file.present(kind, Some(version.saturating_sub(LOG - 1))).map_err(|e| e.to_string())?;
        match present.what {
            Read::Since(of_kind) => changes.extend(of_kind),
            Read::Everything(_) if version == 0 => return Ok(()),
            Read::Everything(_) => return Err(format!("version {version}, and no log reaches there")),
        }
    }
    changes.sort_by_key(|change| change.version);
    if let Some(pair) = changes.windows(2).find(|pair| pair[0].version + 1 != pair[1].version) {
        return Err(format!("the log goes from {} to {}", pair[0].version, pair[1].version));
    }
    let place = |record: &Record| (record.kind.name, record.metadata.name.clone());
    let newest: BTreeMap<_, _> = changes.iter().map(|change| (place(&change.record), change)).collect();
    for change in newest.values() {
        let key = Key::new(change.record.kind, change.record.metadata.name.clone());
        let got = file.get(&key).map_err(|e| e.to_string())?;
        let want = (!change.deleted).then(|| Record::clone(&change.record));
        if got != want {
            return Err(format!("{key} is not as in the log"));
        }
    }
    if changes.last().map_or(0, |change| change.version) != version {
        return Err(format!("the log does not end at version {version}"));
    }
    Ok(())
}
