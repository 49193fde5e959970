//! Whatever the order in which a watch, own writes and own deletions tell a cache: it never goes
//! back, and it ends with the truth.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::resource::Metadata;
use crate::store::order;

#[derive(Debug, Clone)]
enum Step {
    /// Somebody writes an object: we, or another.
    Write { name: usize, own: bool },
    /// Somebody deletes it.
    Delete { name: usize, own: bool },
    /// The watch tells so many of the changes that it has not told.
    Tell(usize),
    /// We hear of one of our own writes.
    Hear(usize),
    /// The watch fell behind and starts over.
    StartOver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2usize, any::<bool>()).prop_map(|(name, own)| Step::Write { name, own }),
        2 => (0..2usize, any::<bool>()).prop_map(|(name, own)| Step::Delete { name, own }),
        3 => (1..4usize).prop_map(Step::Tell),
        3 => (0..8usize).prop_map(Step::Hear),
        1 => Just(Step::StartOver),
    ]
}

#[derive(Debug, Clone)]
enum Own {
    Wrote(Box<Record>),
    Deleted(Key, String),
}

#[derive(Debug, Default)]
struct Truth {
    version: u64,
    objects: BTreeMap<String, Record>,
    /// What each object was, in order: its version, or `None` while it was not there.
    histories: BTreeMap<String, Vec<Option<u64>>>,
    untold: Vec<WatchEvent>,
    unheard: Vec<Own>,
}

impl Truth {
    fn history(&mut self, name: &str) -> &mut Vec<Option<u64>> {
        self.histories.entry(name.to_owned()).or_insert_with(|| vec![None])
    }

    fn write(&mut self, name: &str, own: bool) {
        self.version += 1;
        // A new one when it is made anew.
        let made = u128::from(self.version);
        let uid = self.objects.get(name).and_then(|o| o.metadata.uid).unwrap_or(uuid::Uuid::from_u128(made));
        let metadata = Metadata {
            name: name.to_owned(),
            uid: Some(uid),
            resource_version: self.version.to_string(),
            ..Metadata::default()
        };
        let spec = serde_json::json!({ "displayName": format!("v{}", self.version) });
        let record = Record { kind: Kind::HARDWARE, metadata, spec, status: serde_json::Value::Null };
        self.objects.insert(name.to_owned(), record.clone());
        let version = self.version;
        self.history(name).push(Some(version));
        self.untold.push(WatchEvent::Applied(Arc::new(record.clone())));
        if own {
            self.unheard.push(Own::Wrote(Box::new(record)));
        }
    }

    fn delete(&mut self, name: &str, own: bool) {
        let Some(mut record) = self.objects.remove(name) else { return };
        if own {
            let key = Key::new(Kind::HARDWARE, name);
            self.unheard.push(Own::Deleted(key, record.metadata.resource_version.clone()));
        }
        self.version += 1;
        record.metadata.resource_version = self.version.to_string();
        self.history(name).push(None);
        self.untold.push(WatchEvent::Deleted(Arc::new(record)));
    }
}

struct Run {
    cache: Cache,
    truth: Truth,
    /// How far in its history each object was seen.
    seen: BTreeMap<String, usize>,
}

impl Run {
    fn tell(&mut self, event: WatchEvent) {
        let doubtful = self.cache.change(|state| state.take(Kind::HARDWARE, event));
        self.look();
        for (key, version) in doubtful {
            let found = self.truth.objects.get(&key.name);
            self.cache.change(|state| state.settle(&key, &version, found));
            self.look();
        }
    }

    fn hear(&mut self, own: Own) {
        match own {
            Own::Wrote(record) => self.cache.applied_record(&record).unwrap(),
            Own::Deleted(key, version) => self.cache.removed(&key, &version),
        }
        self.look();
    }

    fn step(&mut self, step: Step) {
        const NAMES: [&str; 2] = ["a", "b"];
        match step {
            Step::Write { name, own } => self.truth.write(NAMES[name], own),
            Step::Delete { name, own } => self.truth.delete(NAMES[name], own),
            Step::Tell(most) => {
                let most = most.min(self.truth.untold.len());
                let events: Vec<_> = self.truth.untold.drain(..most).collect();
                events.into_iter().for_each(|event| self.tell(event));
            }
            // Not always in order: two callers of ours may be answered in one order and go on in another.
            Step::Hear(which) if !self.truth.unheard.is_empty() => {
                let own = self.truth.unheard.remove(which % self.truth.unheard.len());
                self.hear(own);
            }
            Step::Hear(_) => {}
            Step::StartOver => {
                self.truth.untold.clear();
                let all = self.truth.objects.values().cloned().collect();
                self.tell(WatchEvent::Snapshot(all));
            }
        }
    }

    /// No object is at an earlier place in its history than it was before.
    fn look(&mut self) {
        for (name, history) in &self.truth.histories {
            let held = self.cache.get::<HardwareSpec>(name).and_then(|m| order(&m.metadata.resource_version));
            let from = self.seen.get(name).copied().unwrap_or(0);
            let Some(ahead) = history[from..].iter().position(|state| *state == held) else {
                panic!("{name} went back to {held:?} from place {from} in {history:?}");
            };
            self.seen.insert(name.clone(), from + ahead);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn a_cache_never_goes_back_and_ends_with_the_truth(steps in prop::collection::vec(step(), 1..40)) {
        let mut run = Run { cache: Cache::new(), truth: Truth::default(), seen: BTreeMap::new() };
        run.tell(WatchEvent::Snapshot(Vec::new()));
        for step in steps {
            run.step(step);
        }
        run.step(Step::Tell(usize::MAX));
        while let Some(own) = run.truth.unheard.pop() {
            run.hear(own);
        }
        // As whoever follows a store does after a while.
        let untold = run.cache.read().untold();
        for (key, version) in untold {
            let found = run.truth.objects.get(&key.name);
            run.cache.change(|state| state.settle(&key, &version, found));
        }
        let held: Vec<Record> = run.cache.all::<HardwareSpec>().iter().map(|m| Record::from(&**m)).collect();
        let versions = |records: &[Record]| -> Vec<(String, String)> {
            records.iter().map(|r| (r.metadata.name.clone(), r.metadata.resource_version.clone())).collect()
        };
        let truth: Vec<Record> = run.truth.objects.values().cloned().collect();
        prop_assert_eq!(versions(&held), versions(&truth));
    }
}
