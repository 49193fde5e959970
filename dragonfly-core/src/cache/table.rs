//! One kind in memory, which never goes back in time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::resource::{Record, Resource, Spec};
use crate::store::order;

/// One kind.
#[derive(Debug)]
pub struct Table<S: Spec> {
    entries: BTreeMap<String, Entry<S>>,
    /// Deleted by us and not yet by the watch: the version each had.
    buried: HashMap<String, u64>,
    /// Objects that this version cannot read, with the reason.
    unreadable: BTreeMap<String, String>,
    /// Whether the watch has said everything once.
    started: bool,
    /// The watch has told everything up to this version.
    position: u64,
}

#[derive(Debug)]
struct Entry<S: Spec> {
    object: Arc<Resource<S>>,
    /// Whether the watch has told it, or we only wrote it.
    told: bool,
}

impl<S: Spec> Entry<S> {
    fn version(&self) -> &str {
        &self.object.metadata.resource_version
    }
}

/// An object that changed: its name and what it was.
pub(super) type Changed<S> = (String, Option<Arc<Resource<S>>>);

impl<S: Spec> Default for Table<S> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            buried: HashMap::new(),
            unreadable: BTreeMap::new(),
            started: false,
            position: 0,
        }
    }
}

impl<S: Spec> Table<S> {
    pub(super) fn get(&self, name: &str) -> Option<Arc<Resource<S>>> {
        self.entries.get(name).map(|entry| Arc::clone(&entry.object))
    }

    pub(super) fn all(&self) -> Vec<Arc<Resource<S>>> {
        self.entries.values().map(|entry| Arc::clone(&entry.object)).collect()
    }

    pub(super) fn started(&self) -> bool {
        self.started
    }

    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&String, &String)> {
        self.unreadable.iter()
    }

    /// Whether that version of that object, or a later one, is here or gone again.
    pub(super) fn has_seen(&self, name: &str, version: &str) -> bool {
        let held = self.entries.get(name).map(Entry::version);
        let Some(wanted) = order(version) else { return held == Some(version) };
        self.position >= wanted
            || held.and_then(order).is_some_and(|held| held >= wanted)
            || self.buried.get(name).is_some_and(|buried| *buried >= wanted)
    }

    /// Everything of this kind, from the watch. Also returns the name and version of what we wrote
    /// and the snapshot does not have: it may be older than that write, or the object may be gone.
    pub(super) fn snapshot(&mut self, records: Vec<Record>) -> (Vec<Changed<S>>, Vec<(String, String)>) {
        self.started = true;
        self.unreadable.clear();
        let mut changed = Vec::new();
        let mut doubtful = Vec::new();
        let named: std::collections::HashSet<&str> = records.iter().map(|r| r.metadata.name.as_str()).collect();
        let missing: Vec<String> = self.entries.keys().filter(|name| !named.contains(name.as_str())).cloned().collect();
        for name in missing {
            match self.entries.get(&name) {
                Some(entry) if !entry.told => doubtful.push((name, entry.version().to_owned())),
                _ => changed.extend(self.take_out(name)),
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
        self.take_out(name.clone()).into_iter().collect()
    }

    /// We wrote it.
    pub(super) fn applied(&mut self, object: Resource<S>) -> Option<Changed<S>> {
        let name = object.metadata.name.clone();
        let version = order(&object.metadata.resource_version);
        let held = self.entries.get(&name);
        match (held, version) {
            // The watch alone can say which of two is later.
            (Some(_), None) => return None,
            (Some(held), Some(version)) if order(held.version()).is_none_or(|held| held >= version) => return None,
            // The watch has been past it, and it is not there: deleted since.
            (None, Some(version)) if version <= self.position => return None,
            _ => {}
        }
        if self.is_buried(&name, version) {
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
        if let Some(version) = order(version).filter(|version| *version >= self.position) {
            self.buried.insert(name.to_owned(), version);
        }
        self.take_out(name.to_owned())
    }

    /// The store was asked about a doubtful object that had this version here.
    pub(super) fn settle(&mut self, name: &str, version: &str, found: Option<&Record>) -> Vec<Changed<S>> {
        match found {
            Some(record) => self.set(record).into_iter().collect(),
            None if self.entries.get(name).is_some_and(|entry| entry.version() == version) => {
                self.take_out(name.to_owned()).into_iter().collect()
            }
            None => Vec::new(),
        }
    }

    fn order_of(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(Entry::version).and_then(order)
    }

    fn is_buried(&self, name: &str, version: Option<u64>) -> bool {
        matches!((self.buried.get(name), version), (Some(buried), Some(version)) if version <= *buried)
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
        let version = order(&record.metadata.resource_version);
        if self.is_buried(name, version) {
            return None;
        }
        if let Some(entry) = self.entries.get_mut(name) {
            match (order(entry.version()), version) {
                (Some(held), Some(version)) if held > version => return None,
                (Some(held), Some(version)) if held == version => {
                    entry.told = true;
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
                self.take_out(name.clone())
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "its callers answer with what may have changed")]
    fn insert(&mut self, name: String, object: Resource<S>, told: bool) -> Option<Changed<S>> {
        let before = self.entries.insert(name.clone(), Entry { object: Arc::new(object), told });
        Some((name, before.map(|entry| entry.object)))
    }

    fn take_out(&mut self, name: String) -> Option<Changed<S>> {
        let before = self.entries.remove(&name)?;
        Some((name, Some(before.object)))
    }
}
