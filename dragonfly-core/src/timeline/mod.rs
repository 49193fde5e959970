//! The flight recorder: what happened to each machine, from its firmware's first packet to its installed
//! system's sign of life, on one timeline.
//!
//! In memory, and bounded per machine, so that nothing that one machine or a stranger does can push out
//! what is known of another:
//!
//! | of | at most |
//! |---|---|
//! | one registered machine | 24 KiB of DHCP, TFTP and HTTP, 12 KiB of the engine's and agent's events, 12 KiB of the agent's log |
//! | one card that belongs to no machine | 8 KiB, 2 KiB, 2 KiB |
//! | cards that asked by DHCP and no more | the 1024 heard last |
//! | cards that came further (TFTP or HTTP) | the 1024 heard last |
//!
//! So a fleet of N machines costs N times 48 KiB at most, cards that belong to none 24 MiB, and all machines together
//! 1 GiB: from 21,845 machines on each has half as much, from twice as many a quarter, and so on. A flood of DHCP
//! messages from invented addresses pushes out only others that have done no more than that. What a card did
//! before it was known to belong to a machine moves to the machine as soon as that is known.

mod entry;
mod track;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use crate::boot::Seen;
use crate::clock::Timestamp;
use crate::text::acts;
use crate::{Mac, name};
pub use entry::{Entry, Line, What, boots, lines};
use track::{Room, Track};

const MACHINE: Room = Room { boot: 24 * 1024, engine: 12 * 1024, log: 12 * 1024 };
/// What the timelines of all machines together may cost, in bytes.
const ALL: usize = 1024 * 1024 * 1024;
const CARD: Room = Room { boot: 8 * 1024, engine: 2 * 1024, log: 2 * 1024 };
/// How much of a part of a log is looked at: more lines than there is room for.
const LOOKED_AT: usize = 64 * 1024;
const LINES: usize = 256;
/// How many cards of each kind are remembered.
const CARDS: usize = 1024;

/// Whose timeline an entry goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// A machine, by name.
    Machine(&'a str),
    /// A card that belongs to no machine, or to several.
    Card(Mac),
}

/// A part of an agent's log.
#[derive(Debug, Clone, Copy)]
pub struct LogPart<'a> {
    /// How many bytes of the log are before it.
    pub offset: u64,
    /// It.
    pub bytes: &'a [u8],
}

/// Keeps the timelines. A clone is the same.
#[derive(Debug, Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    news: watch::Sender<u64>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("newest", &*self.news.borrow()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    machines: HashMap<String, Track>,
    /// How often the room of each was halved, for there are so many.
    halved: u32,
    cards: HashMap<Mac, Card>,
    /// Cards that asked by DHCP and no more, by the number of their newest entry.
    asking: BTreeMap<u64, Mac>,
    /// Cards that came further.
    coming: BTreeMap<u64, Mac>,
}

#[derive(Debug, Default)]
struct Card {
    track: Track,
    /// Its place in one of the two orders.
    newest: u64,
    further: bool,
}

impl Default for Recorder {
    fn default() -> Self {
        let (state, news) = (Mutex::new(State { next: 1, ..State::default() }), watch::Sender::new(0));
        Self { inner: Arc::new(Inner { state, news }) }
    }
}

impl Recorder {
    /// Writes one thing down. Gives its number.
    pub fn record(&self, whose: Whose<'_>, mac: Option<Mac>, time: Timestamp, what: What) -> u64 {
        let what = what.bounded();
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        match whose {
            Whose::Machine(name) => {
                if let Some(mac) = mac {
                    state.adopt(name, mac);
                }
                let (track, room) = state.machine(name);
                track.push(id, time, mac, what, room);
            }
            Whose::Card(card) => state.card(card, id, further(&what)).push(id, time, Some(card), what, CARD),
        }
        drop(state);
        self.inner.news.send_replace(id);
        id
    }

    /// Writes down what is new of a part of an agent's log, line by line; of a long part only its end, since no more
    /// would stay. `hide` takes out of it what nobody may read.
    pub fn log(&self, machine: &str, session: Uuid, part: LogPart<'_>, time: Timestamp, hide: impl Fn(&str) -> String) {
        let mut state = self.state();
        let (track, _) = state.machine(machine);
        let have = track.logged.filter(|(of, _)| *of == session).map_or(0, |(_, have)| have);
        let end = part.offset.saturating_add(part.bytes.len() as u64);
        if end <= have {
            return;
        }
        track.logged = Some((session, end));
        let skip = usize::try_from(have.saturating_sub(part.offset)).unwrap_or(usize::MAX).min(part.bytes.len());
        let text = hide(&String::from_utf8_lossy(end_of(part.bytes.get(skip..).unwrap_or_default())));
        let lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(LINES);
        let lines: Vec<&str> = lines.collect();
        let mut id = state.next;
        for line in lines.into_iter().rev() {
            let line = line.chars().map(|c| if acts(c) { ' ' } else { c }).collect();
            let what = What::Logged(line).bounded();
            let (track, room) = state.machine(machine);
            track.push(id, time, None, what, room);
            id += 1;
        }
        state.next = id;
        drop(state);
        self.inner.news.send_replace(id - 1);
    }

    /// These cards belong to this machine from now on: what is known of them is its own.
    pub fn adopt(&self, machine: &str, cards: &[Mac]) {
        let mut state = self.state();
        for card in cards {
            state.adopt(machine, *card);
        }
    }

    /// The machine is no more.
    pub fn forget(&self, machine: &str) {
        let mut state = self.state();
        state.machines.remove(machine);
        state.halved = halved(state.machines.len());
    }

    /// What happened to a machine, and to cards of it that have not been taken over yet, after this
    /// number; in order.
    pub fn read(&self, machine: Option<&str>, cards: &[Mac], after: u64) -> Vec<Arc<Entry>> {
        let state = self.state();
        let mut out = Vec::new();
        if let Some(track) = machine.and_then(|name| state.machines.get(name)) {
            track.read(after, &mut out);
        }
        for card in cards.iter().filter_map(|mac| state.cards.get(mac)) {
            card.track.read(after, &mut out);
        }
        out.sort_by_key(|entry| entry.id);
        out.dedup_by_key(|entry| entry.id);
        out
    }

    /// Cards that belong to no machine, the one heard last first, with the newest of what they did.
    pub fn cards(&self, most: usize) -> Vec<(Mac, Arc<Entry>)> {
        let state = self.state();
        let of = |mac: &Mac| Some((*mac, state.cards.get(mac)?.track.newest_sighting()?.clone()));
        let (asking, coming) = (state.asking.values().rev(), state.coming.values().rev());
        let mut all: Vec<_> = asking.take(most).chain(coming.take(most)).filter_map(of).collect();
        all.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.id));
        all.truncate(most);
        all
    }

    /// The card whose machine would get this memorable name.
    pub fn card_named(&self, word: &str) -> Option<Mac> {
        self.state().cards.keys().find(|mac| name::memorable(**mac).eq_ignore_ascii_case(word)).copied()
    }

    /// Whether anything is known of a card that belongs to no machine.
    pub fn knows(&self, card: Mac) -> bool {
        self.state().cards.contains_key(&card)
    }

    /// The number of the newest entry of all timelines, now and later.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.inner.news.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last whole lines of a log's part. A line is never cut: a secret in it could not be recognised any more.
fn end_of(part: &[u8]) -> &[u8] {
    let Some(from) = part.len().checked_sub(LOOKED_AT) else { return part };
    let end = part.get(from..).unwrap_or_default();
    let begin = end.iter().position(|byte| *byte == b'\n').map_or(end.len(), |at| at + 1);
    end.get(begin..).unwrap_or_default()
}

/// Whether a card that did this has come further than asking by DHCP.
fn further(what: &What) -> bool {
    match what {
        What::Seen(
            Seen::DhcpAsked { .. }
            | Seen::DhcpOffered { .. }
            | Seen::DhcpConfirmed { .. }
            | Seen::DhcpRefused { .. }
            | Seen::DhcpSilence { .. }
            | Seen::DhcpForeign { .. }
            | Seen::DhcpOther { .. }
            | Seen::NoLoader { .. },
        ) => false,
        What::Seen(_) | What::Told { .. } | What::Logged(_) => true,
    }
}

/// How often each machine's room is halved where there are so many.
fn halved(machines: usize) -> u32 {
    let whole = machines.saturating_mul(MACHINE.all());
    (0..usize::BITS - 1).find(|times| whole >> times <= ALL).unwrap_or_default()
}

impl State {
    /// A machine's track, made if there is none, and what it may cost.
    fn machine(&mut self, name: &str) -> (&mut Track, Room) {
        if !self.machines.contains_key(name) {
            self.machines.insert(name.to_owned(), Track::default());
            let now = halved(self.machines.len());
            // Once for each time that they have doubled.
            if now > self.halved {
                let room = MACHINE.halved(now);
                self.machines.values_mut().for_each(|track| track.cut(room));
            }
            self.halved = now;
        }
        let room = MACHINE.halved(self.halved);
        (self.machines.entry(name.to_owned()).or_default(), room)
    }

    fn adopt(&mut self, machine: &str, card: Mac) {
        let Some(known) = self.cards.remove(&card) else { return };
        self.asking.remove(&known.newest);
        self.coming.remove(&known.newest);
        let (track, room) = self.machine(machine);
        track.absorb(known.track, room);
    }

    /// A card's track, made the newest of its kind; the one heard longest ago makes room.
    fn card(&mut self, mac: Mac, id: u64, further: bool) -> &mut Track {
        let card = self.cards.entry(mac).or_default();
        self.asking.remove(&card.newest);
        self.coming.remove(&card.newest);
        card.newest = id;
        card.further |= further;
        let order = if card.further { &mut self.coming } else { &mut self.asking };
        order.insert(id, mac);
        let oldest = if order.len() > CARDS { order.pop_first() } else { None };
        if let Some((_, oldest)) = oldest {
            self.cards.remove(&oldest);
        }
        &mut self.cards.entry(mac).or_default().track
    }
}

#[cfg(test)]
mod tests;
