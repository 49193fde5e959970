//! One kind in memory, which never goes back in time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use crate::resource::{Metadata, Record, Resource, Spec};
use crate::store::order;

/// One kind.
#[derive(Debug)]
pub struct Table<S: Spec> {
    entries: BTreeMap<String, Arc<Resource<S>>>,
    /// The names of what we wrote and the watch has not told.
    untold: BTreeSet<String>,
    /// What was seen to be gone: a uid never comes back.
    gone: Gone,
    /// The version that each name had when it went, while the watch is behind it and may still tell
    /// of objects that had the name before.
    buried: HashMap<String, u64>,
    /// Objects that this version cannot read, with the reason.
    unreadable: BTreeMap<String, String>,
    /// Whether the watch has said everything once.
    started: bool,
    /// The watch has told everything up to this version.
    position: u64,
    /// Where the watch is to begin, once everything before it has been read.
    resume: Option<String>,
}

fn version_of<S: Spec>(object: &Arc<Resource<S>>) -> &str {
    &object.metadata.resource_version
}

/// An object that changed: its name and what it was.
pub(super) type Changed<S> = (String, Option<Arc<Resource<S>>>);

impl<S: Spec> Default for Table<S> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            untold: BTreeSet::new(),
            gone: Gone::default(),
            buried: HashMap::new(),
            unreadable: BTreeMap::new(),
            started: false,
            position: 0,
            resume: None,
        }
    }
}

impl<S: Spec> Table<S> {
    pub(super) fn get(&self, name: &str) -> Option<Arc<Resource<S>>> {
        self.entries.get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Resource<S>>> {
        self.entries.values().cloned().collect()
    }

    /// Some objects in the order of their names, those after a name.
    pub(super) fn after(&self, name: Option<&str>, most: usize) -> Vec<Arc<Resource<S>>> {
        let first = name.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.entries.range::<str, _>((first, Bound::Unbounded));
        range.take(most).map(|(_, object)| Arc::clone(object)).collect()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().chain(self.unreadable.keys()).map(String::as_str)
    }

    pub(super) fn started(&self) -> bool {
        self.started
    }

    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&String, &String)> {
        self.unreadable.iter()
    }

    /// What we wrote and the watch has not told yet, with its version.
    pub(super) fn untold(&self) -> impl Iterator<Item = (&String, &str)> {
        self.untold.iter().filter_map(|name| Some((name, version_of(self.entries.get(name)?))))
    }

    /// Whether that version of that object, or a later one, is here or gone again.
    pub(super) fn has_seen(&self, name: &str, version: &str) -> bool {
        let held = self.entries.get(name).map(version_of);
        let Some(wanted) = order(version) else { return held == Some(version) };
        self.position >= wanted || held.and_then(order).is_some_and(|held| held >= wanted)
    }

    /// Everything of this kind, from the watch. Also returns the name and version of what we wrote
    /// and the snapshot does not have: it may be older than that write, or the object may be gone.
    pub(super) fn snapshot(&mut self, records: Vec<Record>) -> (Vec<Changed<S>>, Vec<(String, String)>) {
        self.started = true;
        self.unreadable.clear();
        let mut changed = Vec::new();
        let mut doubtful = Vec::new();
        let named: HashSet<&str> = records.iter().map(|r| r.metadata.name.as_str()).collect();
        let missing: Vec<String> = self.entries.keys().filter(|name| !named.contains(name.as_str())).cloned().collect();
        for name in missing {
            match self.entries.get(&name) {
                Some(own) if self.untold.contains(&name) => {
                    let version = version_of(own).to_owned();
                    doubtful.push((name, version));
                }
                _ => changed.extend(self.bury(&name)),
            }
        }
        let mut position = self.position;
        for record in &records {
            position = position.max(order(&record.metadata.resource_version).unwrap_or(0));
            changed.extend(self.set(record));
        }
        self.passed(position);
        (changed, doubtful)
    }

    /// Some of what is stored, from a list.
    pub(super) fn listed(&mut self, records: &[Record]) -> Vec<Changed<S>> {
        records.iter().filter_map(|record| self.set(record)).collect()
    }

    /// Everything is here as it was at this version or later.
    pub(super) fn loaded(&mut self, version: String) {
        self.started = true;
        self.passed(order(&version).unwrap_or(0));
        self.resume = Some(version);
    }

    /// Where the watch is to begin: told once, since later it would bring back what is past.
    pub(super) fn take_resume(&mut self) -> Option<String> {
        self.resume.take()
    }

    /// It was created or changed, says the watch.
    pub(super) fn told(&mut self, record: &Record) -> Vec<Changed<S>> {
        let changed = self.set(record);
        self.passed(order(&record.metadata.resource_version).unwrap_or(0));
        changed.into_iter().collect()
    }

    /// It is gone, says the watch.
    pub(super) fn gone(&mut self, record: &Record) -> Vec<Changed<S>> {
        let name = &record.metadata.name;
        let (held, gone) = (self.order_of(name), order(&record.metadata.resource_version));
        self.passed(gone.unwrap_or(0));
        // Made again since, by us.
        if matches!((held, gone), (Some(held), Some(gone)) if held > gone) {
            return Vec::new();
        }
        self.unreadable.remove(name);
        self.gone.add(record.metadata.uid);
        self.bury(name).into_iter().collect()
    }

    /// We wrote it.
    pub(super) fn applied(&mut self, object: Resource<S>) -> Option<Changed<S>> {
        let name = object.metadata.name.clone();
        let held = self.entries.get(&name).map(version_of);
        match (held, order(&object.metadata.resource_version)) {
            // The watch alone can say which of two is later.
            (Some(_), None) => return None,
            (Some(held), Some(version)) if order(held).is_none_or(|held| held >= version) => return None,
            // The watch has been past it, and it is not there: deleted since.
            (None, Some(version)) if version <= self.position => return None,
            _ => {}
        }
        if self.is_gone(&object.metadata) {
            return None;
        }
        self.unreadable.remove(&name);
        self.insert(name, object, false)
    }

    /// We deleted it when it had this version.
    pub(super) fn removed(&mut self, name: &str, version: &str) -> Option<Changed<S>> {
        if let (Some(held), Some(version)) = (self.order_of(name), order(version))
            && held > version
        {
            return None;
        }
        self.bury(name)
    }

    /// The store was asked about a doubtful object that had this version here.
    pub(super) fn settle(&mut self, name: &str, version: &str, found: Option<&Record>) -> Vec<Changed<S>> {
        match found {
            Some(record) => self.set(record).into_iter().collect(),
            None if self.entries.get(name).is_some_and(|held| held.metadata.resource_version == version) => {
                self.bury(name).into_iter().collect()
            }
            None => Vec::new(),
        }
    }

    fn order_of(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(version_of).and_then(order)
    }

    fn is_gone(&self, metadata: &Metadata) -> bool {
        let (buried, version) = (self.buried.get(&metadata.name), order(&metadata.resource_version));
        self.gone.has(metadata.uid) || matches!((buried, version), (Some(buried), Some(version)) if version <= *buried)
    }

    /// The watch will not speak of this version or an earlier one again.
    fn passed(&mut self, position: u64) {
        self.position = self.position.max(position);
        let position = self.position;
        self.buried.retain(|_, version| *version >= position);
    }

    /// Takes what the store says, unless something later is here.
    fn set(&mut self, record: &Record) -> Option<Changed<S>> {
        let name = &record.metadata.name;
        if self.is_gone(&record.metadata) {
            return None;
        }
        if let Some(held) = self.entries.get(name) {
            match (order(version_of(held)), order(&record.metadata.resource_version)) {
                (Some(held), Some(version)) if held > version => return None,
                (Some(held), Some(version)) if held == version => {
                    self.untold.remove(name);
                    return None;
                }
                _ => {}
            }
        }
        match record.decode::<S>() {
            Ok(object) => {
                self.unreadable.remove(name);
                self.insert(name.clone(), object, true)
            }
            Err(error) => {
                tracing::warn!(kind = %S::KIND, name = %name, error = %error, "a stored object is left out");
                self.unreadable.insert(name.clone(), format!("{error}: {}", error.source));
                self.take_out(name)
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "its callers answer with what may have changed")]
    fn insert(&mut self, name: String, object: Resource<S>, told: bool) -> Option<Changed<S>> {
        if told {
            self.untold.remove(&name);
        } else {
            self.untold.insert(name.clone());
        }
        let before = self.entries.insert(name.clone(), Arc::new(object));
        Some((name, before))
    }

    fn take_out(&mut self, name: &str) -> Option<Changed<S>> {
        self.untold.remove(name);
        let before = self.entries.remove(name)?;
        Some((name.to_owned(), Some(before)))
    }

    /// Takes out what does not exist any more.
    fn bury(&mut self, name: &str) -> Option<Changed<S>> {
        self.untold.remove(name);
        let before = self.entries.remove(name)?;
        self.gone.add(before.metadata.uid);
        if let Some(version) = order(&before.metadata.resource_version).filter(|version| *version >= self.position) {
            self.buried.insert(name.to_owned(), version);
        }
        Some((name.to_owned(), Some(before)))
    }
}

/// Uids of objects that are gone: what is told of them late is ignored. The last ones are enough, since
/// no more than a moment's writes are told late.
#[derive(Debug, Default)]
struct Gone {
    uids: HashSet<Uuid>,
    oldest: VecDeque<Uuid>,
}

impl Gone {
    const MOST: usize = 4096;

    fn has(&self, uid: Option<Uuid>) -> bool {
        uid.is_some_and(|uid| self.uids.contains(&uid))
    }

    fn add(&mut self, uid: Option<Uuid>) {
        let Some(uid) = uid.filter(|uid| self.uids.insert(*uid)) else { return };
        self.oldest.push_back(uid);
        if self.oldest.len() > Self::MOST
            && let Some(old) = self.oldest.pop_front()
        {
            self.uids.remove(&old);
        }
    }
}
