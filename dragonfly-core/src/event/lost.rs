//! What the ring of events has dropped, machine by machine: whoever follows one machine has lost nothing
//! when only others' events were dropped.

use std::collections::HashMap;

/// The newest event about each machine that is no longer kept.
#[derive(Debug)]
pub(super) struct Lost {
    newest: HashMap<String, u64>,
    /// Everything up to here counts as lost for everybody.
    floor: u64,
    bound: usize,
}

impl Lost {
    /// Remembers so many machines. Beyond that it forgets which were meant, and all of them count.
    pub(super) fn new(bound: usize) -> Self {
        Self { newest: HashMap::new(), floor: 0, bound: bound.max(1) }
    }

    /// An event about a machine is dropped. Events are dropped in the order of their numbers.
    pub(super) fn note(&mut self, machine: &str, id: u64) {
        if let Some(newest) = self.newest.get_mut(machine) {
            *newest = id;
            return;
        }
        if self.newest.len() == self.bound {
            self.newest.clear();
            self.floor = id;
        }
        self.newest.insert(machine.to_owned(), id);
    }

    /// Whether an event about this machine with a number above `after` was dropped, as far as is known.
    pub(super) fn has(&self, machine: &str, after: u64) -> bool {
        after < self.floor.max(self.newest.get(machine).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_whose_events_are_gone_and_forgets_on_the_safe_side() {
        let mut lost = Lost::new(2);
        assert!(!lost.has("a", 0));
        for (machine, id) in [("a", 1), ("b", 2), ("a", 3)] {
            lost.note(machine, id);
        }
        let table = [("a", 2, true), ("a", 3, false), ("b", 1, true), ("b", 2, false), ("c", 0, false)];
        for (machine, after, want) in table {
            assert_eq!(lost.has(machine, after), want, "{machine} after {after}");
        }
        lost.note("c", 4);
        assert_eq!(lost.newest.len(), 1);
        for (machine, after, want) in [("a", 3, true), ("b", 3, true), ("z", 3, true), ("a", 4, false), ("c", 4, false)]
        {
            assert_eq!(lost.has(machine, after), want, "{machine} after {after}, when names were forgotten");
        }
    }
}
