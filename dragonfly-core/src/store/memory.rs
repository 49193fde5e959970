//! The reference store: everything in memory, gone with the process.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::feed::{self, Change, News, Origin, Present, Read};
use super::{Key, Page, Part, Result, Selector, Store, WatchEvent, When, rules};
use crate::clock::{Clock, SystemClock};
use crate::resource::{Kind, Record};

/// Changes kept for watches that resume.
const LOG: usize = 4096;
/// Changes a live watch may be behind before it reads the log.
const CHANNEL: usize = 1024;

/// A store in memory. Clones share what is stored; it closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct MemoryStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    news: Sender<News>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Record>>,
    log: VecDeque<Change>,
    /// Every change after this version is in the log.
    floor: u64,
    bound: usize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl MemoryStore {
    /// An empty store that takes creation times from this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_bounds(clock, LOG, CHANNEL)
    }

    /// An empty store that keeps this many changes for watches that resume, and lets a live watch
    /// be `channel` changes behind before it has to read them there. Small numbers force watches
    /// to start over.
    pub fn with_bounds(clock: Arc<dyn Clock>, log: usize, channel: usize) -> Self {
        let state = State { version: 0, objects: BTreeMap::new(), log: VecDeque::new(), floor: 0, bound: log };
        Self(Arc::new(Inner { state: Mutex::new(state), news: broadcast::channel(channel.max(1)).0, clock }))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a write visible and tells it, in the order of versions: the caller holds the lock.
    fn publish(&self, state: &mut State, change: Change) {
        state.version = change.version;
        state.log.push_back(change.clone());
        while state.log.len() > state.bound {
            if let Some(old) = state.log.pop_front() {
                state.floor = old.version;
            }
        }
        // Nobody listening is no error.
        self.news.send(News::Change(change)).ok();
    }
}

impl State {
    fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Record>> {
        let first = Key::new(kind, "");
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind).map(|(_, record)| record)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        Ok(self.0.state().objects.get(key).map(|record| Record::clone(record)))
    }

    async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        let state = self.0.state();
        let after = Key::new(kind, from.unwrap_or_default());
        // An empty name is no name: nothing is left out at the beginning.
        let mut rest = state
            .objects
            .range((Bound::Excluded(after), Bound::Unbounded))
            .take_while(|(key, _)| key.kind == kind)
            .map(|(_, record)| record)
            .filter(|record| selector.matches(record));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let items: Vec<Record> = rest.by_ref().take(limit).map(|record| Record::clone(record)).collect();
        let more = rest.next().and(items.last()).map(|last| last.metadata.name.clone());
        Ok(Page { items, more, version: state.version.to_string() })
    }

    async fn put(&self, record: Record, part: Part, when: When) -> Result<Record> {
        let mut state = self.0.state();
        let key = Key::new(record.kind, record.metadata.name.clone());
        let current = state.objects.get(&key).map(|record| Record::clone(record));
        let version = state.version + 1;
        let written = Arc::new(rules::put(current, record, part, &when, version, self.0.clock.now())?);
        rules::encode(&written)?;
        state.objects.insert(key, Arc::clone(&written));
        self.0.publish(&mut state, Change { version, record: Arc::clone(&written), deleted: false });
        Ok(Record::clone(&written))
    }

    async fn delete(&self, key: &Key, version: &str) -> Result<()> {
        let mut state = self.0.state();
        let current = state.objects.get(key).map(|record| Record::clone(record));
        let next = state.version + 1;
        let gone = rules::delete(current, key, version, next)?;
        state.objects.remove(key);
        self.0.publish(&mut state, Change { version: next, record: Arc::new(gone), deleted: true });
        Ok(())
    }

    fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        feed::watch(Weakly(Arc::downgrade(&self.0)), kind, from)
    }
}

/// A watch does not keep the store open.
struct Weakly(Weak<Inner>);

#[async_trait]
impl Origin for Weakly {
    fn listen(&self) -> Option<Receiver<News>> {
        self.0.upgrade().map(|inner| inner.news.subscribe())
    }

    async fn read(&self, kind: Kind, since: Option<u64>) -> Result<Option<Present>> {
        let Some(inner) = self.0.upgrade() else { return Ok(None) };
        let state = inner.state();
        let what = match since {
            Some(since) if since >= state.floor && since <= state.version => {
                Read::Since(state.log.iter().filter(|c| c.version > since && c.record.kind == kind).cloned().collect())
            }
            _ => Read::Everything(state.of(kind).map(|record| Record::clone(record)).collect()),
        };
        Ok(Some(Present { version: state.version, what }))
    }
}
