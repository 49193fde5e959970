//! The present, in memory: fed by watches, read on the hot path without a store.
//!
//! Two streams feed it: the store's watches, and the engine's own writes through
//! [`Cache::applied`], which are seen at once. They may cross, so an object never goes back: of two
//! states the one with the higher `resourceVersion` stays, and a uid that is gone stays gone. Versions are numbers in our stores and
//! in Kubernetes (which lets clients compare them since 1.35); where one is not a number, the watch
//! is right and an own write waits for it.

#[cfg(test)]
mod histories;
mod index;
mod search;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use self::index::Machines;
use self::table::{Changed, Table};
use crate::Mac;
use crate::resource::hardware::{Anchors, HardwareSpec};
use crate::resource::{
    DecodeError, Hardware, Kind, NetworkSpec, Record, Resource, SecretSpec, Spec, TemplateSpec, WorkflowSpec,
};
use crate::store::{Key, Selector, Store, WatchEvent};

pub use self::search::{Find, Found};

/// How long an own write may be ahead of the watch before the store is asked about it.
const DOUBT: Duration = Duration::from_secs(5);

/// How many objects are read at a time.
const PAGE: usize = 500;

/// Every object of every kind, as of a moment ago. Clones show the same.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: RwLock<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
#[doc(hidden)]
pub struct State {
    hardware: Table<HardwareSpec>,
    templates: Table<TemplateSpec>,
    workflows: Table<WorkflowSpec>,
    networks: Table<NetworkSpec>,
    secrets: Table<SecretSpec>,
    machines: Machines,
}

/// Whose something is that should belong to one machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Owner {
    /// Nobody's.
    Nobody,
    /// This machine's.
    One(Arc<Hardware>),
    /// Claimed by several machines, by name: nothing may be done to any of them for it.
    Several(Vec<String>),
}

impl Owner {
    /// The machine, when it is exactly one.
    pub fn one(self) -> Option<Arc<Hardware>> {
        match self {
            Self::One(machine) => Some(machine),
            Self::Nobody | Self::Several(_) => None,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl Cache {
    /// An empty one, which is not [`ready`](Self::ready) until it has [followed](Self::follow) a
    /// store.
    pub fn new() -> Self {
        Self(Arc::new(Inner { state: RwLock::default(), changes: watch::Sender::new(0) }))
    }

    /// Reads everything that is stored, a page at a time. It is [`ready`](Self::ready) then, and
    /// [`follow`](Self::follow) goes on from there.
    ///
    /// # Errors
    /// Those of the store; what was read is here.
    pub async fn load(&self, store: &dyn Store) -> crate::store::Result<()> {
        let all = Selector::all();
        for kind in Kind::ALL {
            let mut page = store.list(kind, &all, PAGE, None).await?;
            let version = std::mem::take(&mut page.version);
            while let Some(from) = page.more.take() {
                // The next page is read while this one is taken in.
                let taken = async { self.change(|state| state.listed(kind, &page.items)) };
                let (next, ()) = futures_util::future::join(store.list(kind, &all, PAGE, Some(&from)), taken).await;
                page = next?;
            }
            self.change(|state| {
                state.listed(kind, &page.items);
                state.loaded(kind, version);
            });
        }
        Ok(())
    }

    /// Follows a store until it closes. Run it beside everything else; drop it to stop.
    pub async fn follow(&self, store: Arc<dyn Store>) {
        self.follow_with(store, |_, _| Vec::<()>::new(), |()| {}).await;
    }

    /// As [`follow`](Self::follow). `look` sees what the watch tells, before it is here; what it answers is
    /// given to `tell` once it is.
    pub async fn follow_with<N>(
        &self,
        store: Arc<dyn Store>,
        look: impl Fn(Kind, &WatchEvent) -> Vec<N>,
        tell: impl Fn(N),
    ) {
        let mut news = stream::select_all(Kind::ALL.map(|kind| {
            let resume = self.change(|state| state.take_resume(kind));
            store.watch(kind, resume).map(move |event| (kind, event))
        }));
        let mut doubts = tokio::time::interval(DOUBT);
        doubts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut untold = HashSet::new();
        loop {
            let doubtful = tokio::select! {
                told = news.next() => match told {
                    Some((kind, Ok(event))) => {
                        let news = look(kind, &event);
                        let doubtful = self.change(|state| state.take(kind, event));
                        news.into_iter().for_each(&tell);
                        doubtful
                    }
                    // The watch begins anew by itself.
                    Some((kind, Err(error))) => {
                        tracing::warn!(%kind, error = &error as &dyn std::error::Error, "a watch failed");
                        continue;
                    }
                    None => return,
                },
                // An own write that the watch does not tell may have been undone in a part of the past
                // that the watch left out.
                _ = doubts.tick() => {
                    let before = std::mem::replace(&mut untold, self.read().untold().into_iter().collect());
                    before.intersection(&untold).cloned().collect()
                }
            };
            for (key, version) in doubtful {
                self.ask(&*store, &key, &version).await;
            }
        }
    }

    async fn ask(&self, store: &dyn Store, key: &Key, version: &str) {
        match store.get(key).await {
            Ok(found) => self.change(|state| state.settle(key, version, found.as_ref())),
            // It is still there as we wrote it; the next snapshot asks again.
            Err(error) => tracing::warn!(%key, error = &error as &dyn std::error::Error, "a read failed"),
        }
    }

    /// Whether it has seen everything of every kind once.
    pub fn ready(&self) -> bool {
        self.read().ready()
    }

    /// Resolves when it is [`ready`](Self::ready).
    pub async fn wait_ready(&self) {
        self.wait_until(State::ready).await;
    }

    /// The object of this name.
    pub fn get<S: Cached>(&self, name: &str) -> Option<Arc<Resource<S>>> {
        S::table(&self.read()).get(name)
    }

    /// Every object of a kind, ordered by name.
    pub fn all<S: Cached>(&self) -> Vec<Arc<Resource<S>>> {
        S::table(&self.read()).all()
    }

    /// Every object of a kind, ordered by name, some at a time: whoever looks at all of a large fleet neither
    /// holds it in memory nor keeps writers waiting. What changes meanwhile may be seen before or after.
    pub fn pieces<S: Cached>(&self) -> impl Iterator<Item = Vec<Arc<Resource<S>>>> + Send {
        let cache = self.clone();
        let mut after = None::<String>;
        std::iter::from_fn(move || {
            let piece = S::table(&cache.read()).after(after.as_deref(), PAGE);
            after = Some(piece.last()?.name().to_owned());
            Some(piece)
        })
    }

    /// Says the name of every object of a kind, also of one that cannot be read. Nothing can change meanwhile: be brief.
    pub fn each_name(&self, kind: Kind, say: impl FnMut(&str)) {
        self.read().each_name(kind, say);
    }

    /// The machine that a person means: by name, or by display name whatever its capitals.
    pub fn machine(&self, word: &str) -> Owner {
        let state = self.read();
        match state.hardware.get(word) {
            Some(machine) => Owner::One(machine),
            None => state.owner(state.machines.display_names.get(&word.to_lowercase())),
        }
    }

    /// The machine that has this address by a person's word or because it booted from it. What an agent says of other
    /// cards counts for nothing: it may be anybody's.
    pub fn by_mac(&self, mac: Mac) -> Owner {
        let state = self.read();
        state.owner(state.machines.macs.get(&mac))
    }

    /// The machine for which an address is reserved: of several the first by name.
    pub fn reserved_for(&self, address: IpAddr) -> Option<Arc<Hardware>> {
        let state = self.read();
        let names = state.machines.reservations.get(&address)?;
        names.first().and_then(|name| state.hardware.get(name))
    }

    /// Every machine that has one of these anchors: a card, an SMBIOS UUID, a serial number of a product.
    pub fn alike(&self, anchors: &Anchors) -> Vec<Arc<Hardware>> {
        let state = self.read();
        state.machines.alike(anchors).into_iter().filter_map(|name| state.hardware.get(name)).collect()
    }

    /// How many machines there are that nobody has claimed ([`Hardware::is_unclaimed`]).
    pub fn unclaimed(&self) -> usize {
        self.read().machines.unclaimed.len()
    }

    /// Addresses that several machines claim, with those machines.
    pub fn contested_macs(&self) -> Vec<(Mac, Vec<String>)> {
        let state = self.read();
        let contested = state.machines.macs.iter().filter(|(_, names)| names.len() > 1);
        let mut all: Vec<_> = contested.map(|(mac, names)| (*mac, names.iter().cloned().collect())).collect();
        all.sort_unstable();
        all
    }

    /// Objects that are stored and that this version cannot read, with the reason. They are in no
    /// other answer.
    pub fn unreadable(&self) -> Vec<(Key, String)> {
        self.read().unreadable()
    }

    /// Takes an own write at once: give what the store returned.
    pub fn applied<S: Cached>(&self, object: &Resource<S>) {
        self.change(|state| {
            let changed = S::table_mut(state).applied(object.clone());
            S::reindex(state, changed.as_slice());
        });
    }

    /// Takes an own write at once: give what the store returned.
    pub fn applied_record(&self, record: &Record) -> Result<(), DecodeError> {
        self.change(|state| state.applied_record(record))
    }

    /// Takes an own deletion at once: give the version that was deleted.
    pub fn removed(&self, key: &Key, version: &str) {
        self.change(|state| state.removed(key, version));
    }

    /// Waits until this object is here as it was at `version` or later, or is gone since. `false`
    /// when that takes longer than `most`.
    pub async fn wait_for(&self, key: &Key, version: &str, most: Duration) -> bool {
        tokio::time::timeout(most, self.wait_until(|state| state.has_seen(key, version))).await.is_ok()
    }

    /// Counts up with every change: wait on it to look again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    async fn wait_until(&self, holds: impl Fn(&State) -> bool) {
        let mut changes = self.changes();
        while !holds(&self.read()) {
            // The sender lives as long as `self`.
            changes.changed().await.ok();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let answer = change(&mut self.0.state.write().unwrap_or_else(PoisonError::into_inner));
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
        answer
    }
}

/// A kind that the cache holds.
pub trait Cached: Spec {
    #[doc(hidden)]
    fn table(state: &State) -> &Table<Self>;
    #[doc(hidden)]
    fn table_mut(state: &mut State) -> &mut Table<Self>;
    /// Keeps look-ups in step with what changed.
    #[doc(hidden)]
    fn reindex(state: &mut State, changed: &[Changed<Self>]);
}

macro_rules! cached {
    ($($spec:ty => $field:ident, $reindex:expr;)+) => {
        $(impl Cached for $spec {
            fn table(state: &State) -> &Table<Self> {
                &state.$field
            }
            fn table_mut(state: &mut State) -> &mut Table<Self> {
                &mut state.$field
            }
            fn reindex(state: &mut State, changed: &[Changed<Self>]) {
                let reindex: fn(&mut State, &[Changed<Self>]) = $reindex;
                reindex(state, changed);
            }
        })+

        impl State {
            /// Takes one event; returns what the store must be asked about, with its version here.
            fn take(&mut self, kind: Kind, event: WatchEvent) -> Vec<(Key, String)> {
                $(if kind == <$spec>::KIND {
                    let (changed, doubtful) = match event {
                        WatchEvent::Snapshot(records) => self.$field.snapshot(records),
                        WatchEvent::Applied(record) => (self.$field.told(&record), Vec::new()),
                        WatchEvent::Deleted(record) => (self.$field.gone(&record), Vec::new()),
                    };
                    <$spec>::reindex(self, &changed);
                    return doubtful.into_iter().map(|(name, version)| (Key::new(kind, name), version)).collect();
                })+
                Vec::new()
            }

            fn listed(&mut self, kind: Kind, records: &[Record]) {
                $(if kind == <$spec>::KIND {
                    let changed = self.$field.listed(records);
                    <$spec>::reindex(self, &changed);
                })+
            }

            fn loaded(&mut self, kind: Kind, version: String) {
                $(if kind == <$spec>::KIND {
                    self.$field.loaded(version.clone());
                })+
            }

            fn each_name(&self, kind: Kind, say: impl FnMut(&str)) {
                $(if kind == <$spec>::KIND {
                    return self.$field.names().for_each(say);
                })+
            }

            fn take_resume(&mut self, kind: Kind) -> Option<String> {
                $(if kind == <$spec>::KIND {
                    return self.$field.take_resume();
                })+
                None
            }

            fn settle(&mut self, key: &Key, version: &str, found: Option<&Record>) {
                $(if key.kind == <$spec>::KIND {
                    let changed = self.$field.settle(&key.name, version, found);
                    <$spec>::reindex(self, &changed);
                })+
            }

            fn applied_record(&mut self, record: &Record) -> Result<(), DecodeError> {
                $(if record.kind == <$spec>::KIND {
                    let changed = self.$field.applied(record.decode()?);
                    <$spec>::reindex(self, changed.as_slice());
                })+
                Ok(())
            }

            fn removed(&mut self, key: &Key, version: &str) {
                $(if key.kind == <$spec>::KIND {
                    let changed = self.$field.removed(&key.name, version);
                    <$spec>::reindex(self, changed.as_slice());
                })+
            }

            fn ready(&self) -> bool {
                $(self.$field.started())&&+
            }

            fn unreadable(&self) -> Vec<(Key, String)> {
                let mut all = Vec::new();
                $(all.extend(self.$field.unreadable().map(|(name, why)| (Key::new(<$spec>::KIND, name), why.clone())));)+
                all
            }

            fn untold(&self) -> Vec<(Key, String)> {
                let mut all = Vec::new();
                $({
                    let untold = self.$field.untold();
                    all.extend(untold.map(|(name, version)| (Key::new(<$spec>::KIND, name), version.to_owned())));
                })+
                all
            }

            fn has_seen(&self, key: &Key, version: &str) -> bool {
                $(if key.kind == <$spec>::KIND {
                    return self.$field.has_seen(&key.name, version);
                })+
                // A kind that is not held is never waited for.
                true
            }
        }
    };
}

cached! {
    HardwareSpec => hardware, State::reindex_hardware;
    TemplateSpec => templates, |_, _| {};
    WorkflowSpec => workflows, |_, _| {};
    NetworkSpec => networks, |_, _| {};
    SecretSpec => secrets, |_, _| {};
}

impl State {
    fn reindex_hardware(&mut self, changed: &[Changed<HardwareSpec>]) {
        for (name, before) in changed {
            if let Some(before) = before {
                self.machines.forget(name, before);
            }
            if let Some(now) = self.hardware.get(name) {
                self.machines.learn(name, &now);
            }
        }
    }

    fn owner(&self, names: Option<&BTreeSet<String>>) -> Owner {
        let mut names = names.into_iter().flatten();
        match (names.next(), names.next()) {
            (None, _) => Owner::Nobody,
            (Some(one), None) => self.hardware.get(one).map_or(Owner::Nobody, Owner::One),
            (Some(one), Some(two)) => Owner::Several([one, two].into_iter().chain(names).cloned().collect()),
        }
    }
}
