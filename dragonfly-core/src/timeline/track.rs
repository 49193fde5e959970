//! The entries of one machine or card, within its bound.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::entry::{Entry, Part, What};
use crate::Mac;
use crate::clock::Timestamp;

/// What one track may cost, in bytes, part by part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) boot: usize,
    pub(super) engine: usize,
    pub(super) log: usize,
}

impl Room {
    /// All parts together.
    pub(super) const fn all(self) -> usize {
        self.boot + self.engine + self.log
    }

    /// So often half as much.
    pub(super) fn halved(self, times: u32) -> Self {
        Self { boot: self.boot >> times, engine: self.engine >> times, log: self.log >> times }
    }
}

/// Entries of one part, the oldest first.
#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Entry>>,
    cost: usize,
}

impl Ring {
    fn push(&mut self, entry: Entry, room: usize) {
        self.cost += entry.cost();
        self.kept.push_back(Arc::new(entry));
        self.cut(room);
    }

    fn cut(&mut self, room: usize) {
        // The newest stays, whatever it costs: its size is bounded.
        while self.cost > room && self.kept.len() > 1 {
            if let Some(old) = self.kept.pop_front() {
                self.cost -= old.cost();
            }
        }
    }

    fn pop_last(&mut self) -> Option<Arc<Entry>> {
        let last = self.kept.pop_back()?;
        self.cost -= last.cost();
        Some(last)
    }
}

/// What is kept of one machine or card.
#[derive(Debug, Default)]
pub(super) struct Track {
    boot: Ring,
    engine: Ring,
    log: Ring,
    /// The agent's session whose log was read last, and how far.
    pub(super) logged: Option<(Uuid, u64)>,
}

impl Track {
    fn ring(&mut self, part: Part) -> &mut Ring {
        match part {
            Part::Boot => &mut self.boot,
            Part::Engine => &mut self.engine,
            Part::Log => &mut self.log,
        }
    }

    /// Adds. What repeats the entry before it is counted there instead.
    pub(super) fn push(&mut self, id: u64, time: Timestamp, mac: Option<Mac>, what: What, room: Room) {
        let part = what.part();
        let space = match part {
            Part::Boot => room.boot,
            Part::Engine => room.engine,
            Part::Log => room.log,
        };
        let ring = self.ring(part);
        let again = ring.kept.back().is_some_and(|last| repeats(last, mac, &what));
        let times = if again { ring.pop_last().map_or(1, |last| last.times.saturating_add(1)) } else { 1 };
        ring.push(Entry { id, time, mac, times, what }, space);
    }

    /// Lets go of what is too much now.
    pub(super) fn cut(&mut self, room: Room) {
        let Room { boot, engine, log } = room;
        for (ring, space) in [(&mut self.boot, boot), (&mut self.engine, engine), (&mut self.log, log)] {
            ring.cut(space);
            ring.kept.shrink_to_fit();
        }
    }

    /// Takes over what another track holds. Both are in the order of their numbers.
    pub(super) fn absorb(&mut self, other: Self, room: Room) {
        for part in [Part::Boot, Part::Engine, Part::Log] {
            let space = match part {
                Part::Boot => room.boot,
                Part::Engine => room.engine,
                Part::Log => room.log,
            };
            let theirs = match part {
                Part::Boot => &other.boot,
                Part::Engine => &other.engine,
                Part::Log => &other.log,
            };
            if theirs.kept.is_empty() {
                continue;
            }
            let ours = std::mem::take(self.ring(part));
            let mut all: Vec<_> = ours.kept.iter().chain(&theirs.kept).cloned().collect();
            all.sort_by_key(|entry| entry.id);
            for entry in all {
                self.ring(part).push(Arc::unwrap_or_clone(entry), space);
            }
        }
    }

    pub(super) fn read(&self, after: u64, out: &mut Vec<Arc<Entry>>) {
        for ring in [&self.boot, &self.engine, &self.log] {
            let newer = ring.kept.iter().rev().take_while(|entry| entry.id > after);
            out.extend(newer.cloned());
        }
    }

    /// The newest entry that the boot services made.
    pub(super) fn newest_sighting(&self) -> Option<&Arc<Entry>> {
        self.boot.kept.back()
    }

    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.boot.cost + self.engine.cost + self.log.cost
    }
}

/// Whether an entry says the same as the one before it. Progress of a step is overtaken by later
/// progress, whatever its words.
fn repeats(last: &Entry, mac: Option<Mac>, what: &What) -> bool {
    let progress = |what: &What| matches!(what, What::Told { kind, .. } if kind == "step.progress");
    (last.mac == mac && last.what == *what) || (progress(&last.what) && progress(what))
}
