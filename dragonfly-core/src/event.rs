//! What just happened, for whoever listens: numbered, kept for replay with a bound.

mod bell;
mod lost;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;

use self::bell::Bells;
use self::lost::Lost;
use crate::clock::Timestamp;

pub use self::bell::Bell;

/// Of so many machines it is known by name that events about them are no longer kept: some MiB at most.
const LOST: usize = 65_536;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Counts up from 1 within one run of the server.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// What, as `machine.registered`, `step.progress`, `identity.conflict`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The machine it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The workflow it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// For a person. Never holds a secret.
    pub message: String,
    /// Figures for a program.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

/// The stream of events: bounded memory, any number of listeners, none of which can slow it.
#[derive(Debug, Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<Event>>,
    bells: Arc<Bells>,
}

#[derive(Debug)]
struct Ring {
    next: u64,
    kept: VecDeque<Arc<Event>>,
    lost: Lost,
    bound: usize,
}

/// What is asked of [`Events::publish`].
#[derive(Debug, Clone, Default)]
pub struct NewEvent {
    /// As [`Event::kind`].
    pub kind: &'static str,
    /// As [`Event::machine`].
    pub machine: Option<String>,
    /// As [`Event::workflow`].
    pub workflow: Option<String>,
    /// As [`Event::message`].
    pub message: String,
    /// As [`Event::data`].
    pub data: Value,
}

/// What a listener missed and what comes next.
#[derive(Debug)]
pub struct Subscription {
    /// Kept events after the one asked for, in order.
    pub replay: Vec<Arc<Event>>,
    /// Some events after the one asked for are no longer kept: read the state anew.
    pub gap: bool,
    /// The number of the newest event so far: `live` begins after it.
    pub newest: u64,
    /// Everything after that.
    pub live: broadcast::Receiver<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new(4096)
    }
}

impl Events {
    /// A stream that keeps this many events for replay.
    pub fn new(bound: usize) -> Self {
        let ring = Mutex::new(Ring { next: 1, kept: VecDeque::new(), lost: Lost::new(LOST), bound: bound.max(1) });
        Self { inner: Arc::new(Inner { ring, live: broadcast::channel(1024).0, bells: Arc::default() }) }
    }

    /// Tells everybody. Returns its number.
    pub fn publish(&self, now: Timestamp, event: NewEvent) -> u64 {
        let mut ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let id = ring.next;
        ring.next += 1;
        let NewEvent { kind, machine, workflow, message, data } = event;
        let event = Arc::new(Event { id, time: now, kind: kind.to_owned(), machine, workflow, message, data });
        if ring.kept.len() == ring.bound
            && let Some(Event { id, machine: Some(machine), .. }) = ring.kept.pop_front().as_deref()
        {
            ring.lost.note(machine, *id);
        }
        ring.kept.push_back(Arc::clone(&event));
        // Sent under the lock, so that listeners see them in the order of their numbers.
        self.inner.live.send(Arc::clone(&event)).ok();
        drop(ring);
        if let Some(machine) = &event.machine {
            self.inner.bells.ring(machine);
        }
        id
    }

    /// Rings for those who wait for news of a machine, without an event.
    pub fn ring(&self, machine: &str) {
        self.inner.bells.ring(machine);
    }

    /// Rings at every event about this machine from now on, and wakes nobody for those about others.
    pub fn bell(&self, machine: &str) -> Bell {
        self.inner.bells.hang(machine)
    }

    /// Everything after event `after`, then everything to come. `None` starts with what comes.
    pub fn subscribe(&self, after: Option<u64>) -> Subscription {
        let ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (live, newest) = (self.inner.live.subscribe(), ring.next - 1);
        let Some(after) = after else {
            return Subscription { replay: Vec::new(), gap: false, newest, live };
        };
        let oldest = ring.kept.front().map_or(ring.next, |e| e.id);
        // A number from the future is from before a restart: the listener's state is not ours.
        let gap = after.saturating_add(1) < oldest || after >= ring.next;
        let replay = ring.kept.iter().filter(|e| gap || e.id > after).cloned().collect();
        Subscription { replay, gap, newest, live }
    }

    /// As [`subscribe`](Self::subscribe), for who follows one machine: only events about it are replayed, and
    /// only one of those that is no longer kept is a gap. `live` tells of every machine.
    pub fn subscribe_to(&self, machine: &str, after: Option<u64>) -> Subscription {
        let ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (live, newest) = (self.inner.live.subscribe(), ring.next - 1);
        let Some(after) = after else {
            return Subscription { replay: Vec::new(), gap: false, newest, live };
        };
        let gap = after >= ring.next || ring.lost.has(machine, after);
        let wanted = |e: &&Arc<Event>| e.machine.as_deref() == Some(machine) && (gap || e.id > after);
        Subscription { replay: ring.kept.iter().filter(wanted).cloned().collect(), gap, newest, live }
    }

    /// The newest events about one machine, oldest first.
    pub fn about(&self, machine: &str, most: usize) -> Vec<Arc<Event>> {
        let ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> =
            ring.kept.iter().rev().filter(|e| e.machine.as_deref() == Some(machine)).take(most).cloned().collect();
        found.reverse();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(events: &Events, message: &str) -> u64 {
        events.publish(Timestamp::UNIX_EPOCH, NewEvent { kind: "test", message: message.into(), ..NewEvent::default() })
    }

    #[test]
    fn replays_what_was_missed_and_says_when_it_cannot() {
        let events = Events::new(3);
        for n in 0..5 {
            say(&events, &n.to_string());
        }
        let some = events.subscribe(Some(3));
        assert!(!some.gap);
        assert_eq!(some.replay.iter().map(|e| e.id).collect::<Vec<_>>(), [4, 5]);
        assert!(events.subscribe(Some(1)).gap, "event 2 is no longer kept");
        assert!(events.subscribe(Some(900)).gap, "a number from before a restart");
        assert!(events.subscribe(Some(u64::MAX)).gap, "a number that nobody gave");
        assert!(!events.subscribe(Some(5)).gap);
        assert!(events.subscribe(None).replay.is_empty());
    }

    #[test]
    fn others_chatter_is_no_gap_to_who_follows_one_machine() {
        let events = Events::new(3);
        let about = |machine: &str| {
            let machine = Some(machine.to_owned());
            events.publish(Timestamp::UNIX_EPOCH, NewEvent { kind: "test", machine, ..NewEvent::default() })
        };
        let ours = [about("ours"), about("ours")];
        let other: Vec<u64> = (0..50).map(|_| about("other")).collect();
        let last = about("ours");
        let ids = |s: &Subscription| s.replay.iter().map(|e| e.id).collect::<Vec<_>>();
        let some = events.subscribe_to("ours", Some(ours[1]));
        assert_eq!((some.gap, ids(&some)), (false, vec![last]), "only others' events are gone");
        let some = events.subscribe_to("ours", Some(ours[0]));
        assert_eq!((some.gap, ids(&some)), (true, vec![last]), "one of its own is gone");
        assert!(events.subscribe_to("other", Some(other[46])).gap);
        assert!(!events.subscribe_to("other", Some(other[47])).gap);
        let some = events.subscribe_to("quiet", Some(1));
        assert_eq!((some.gap, ids(&some)), (false, vec![]));
        assert!(events.subscribe_to("quiet", Some(900)).gap, "a number from before a restart");
        assert!(events.subscribe_to("quiet", Some(u64::MAX)).gap);
        assert!(events.subscribe_to("ours", None).replay.is_empty());
    }
}
