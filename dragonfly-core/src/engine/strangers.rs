//! How much is said of machines beside their timelines.
//!
//! Inventing network addresses costs nothing, and nor does it to register them. Each machine has a bounded timeline; but
//! were every one of its packets an event and a line of the log, a flood would push the events of real machines out of the
//! replay and fill the log's disk. So those that nobody has registered or claimed share one measure, and each of the others
//! has one of its own.

use std::collections::HashMap;

use crate::clock::Timestamp;

/// How much may be said at once, and how much more each second. Once it is all said, nothing is until half of
/// it is there again: a line now and then would tell nothing of anybody.
#[derive(Debug, Clone, Copy)]
struct Measure {
    at_once: u32,
    per_second: u32,
}

/// Of all that nobody has registered or claimed.
const STRANGERS: Measure = Measure { at_once: 1000, per_second: 50 };
/// Of each of the others.
const OF_ONE: Measure = Measure { at_once: 200, per_second: 20 };
/// From how many of the others on it is looked which need not be remembered any more.
const FEW: usize = 1024;

/// How much is left to be said.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    all: Said,
    each: HashMap<String, Said>,
    /// How many there may be before it is looked again.
    most: usize,
}

#[derive(Debug, Default)]
struct Said {
    /// How much has been said, less what time has given back.
    said: u32,
    /// Until when time has given back.
    since: Option<Timestamp>,
    is_silent: bool,
    left_out: u64,
}

/// What to do about one thing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Tell it; before it, so many were not told.
    Tell(u64),
    /// Do not.
    LeaveOut,
}

impl Strangers {
    /// Whether something may be told beside what was told last: it counts as one more, and is not counted where it is not.
    pub(super) fn has_room(&mut self, claimed: Option<&str>, now: Timestamp) -> bool {
        let (said, measure) = match claimed {
            None => (&mut self.all, STRANGERS),
            Some(machine) => (self.each.entry(machine.to_owned()).or_default(), OF_ONE),
        };
        said.give_back(measure, now);
        let room = !said.is_silent && said.said < measure.at_once;
        said.said += u32::from(room);
        room
    }

    /// One thing more, of a stranger or of a machine that somebody has claimed.
    pub(super) fn one_more(&mut self, claimed: Option<&str>, now: Timestamp) -> Word {
        let Some(machine) = claimed else { return self.all.one_more(STRANGERS, now) };
        if let Some(said) = self.each.get_mut(machine) {
            return said.one_more(OF_ONE, now);
        }
        if self.each.len() >= self.most.max(FEW) {
            self.each.retain(|_, said| {
                said.give_back(OF_ONE, now);
                said.said > 0
            });
            self.most = self.each.len() * 2;
        }
        self.each.entry(machine.to_owned()).or_default().one_more(OF_ONE, now)
    }
}

impl Said {
    fn give_back(&mut self, measure: Measure, now: Timestamp) {
        let passed = self.since.map_or(0, |since| now.since(since).as_millis());
        let back = u32::try_from(passed * u128::from(measure.per_second) / 1000).unwrap_or(u32::MAX);
        if back > 0 || self.since.is_none() {
            self.said = self.said.saturating_sub(back);
            self.since = Some(now);
        }
    }

    fn one_more(&mut self, measure: Measure, now: Timestamp) -> Word {
        self.give_back(measure, now);
        self.is_silent = self.said >= measure.at_once || (self.is_silent && self.said > measure.at_once / 2);
        if self.is_silent {
            self.left_out += 1;
            return Word::LeaveOut;
        }
        self.said += 1;
        Word::Tell(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_is_told_whole_and_a_flood_in_part() {
        let mut strangers = Strangers::default();
        let at = |milliseconds| Timestamp::from_unix_millis(1_800_000_000_000 + milliseconds);
        let mut told = |from: i64, to: i64, each: usize| {
            (from..to)
                .flat_map(|now| std::iter::repeat_n(now, each))
                .filter(|now| matches!(strangers.one_more(None, at(*now)), Word::Tell(_)))
                .count()
        };
        assert_eq!(told(0, 1, 1000), 1000, "forty machines that are switched on together");
        // Ten seconds of ten thousand a second.
        assert_eq!(told(1, 9_900, 10), 0);
        let flood = told(9_900, 19_900, 10);
        assert!((490..=510).contains(&flood), "{flood}");
        assert_eq!(told(60_000, 60_001, 2000), 1000, "and when it is over");
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let mut strangers = Strangers::default();
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let words: Vec<_> = (0..1007).map(|_| strangers.one_more(None, now)).collect();
        assert_eq!(words.iter().filter(|word| **word == Word::LeaveOut).count(), 7);
        let later = |seconds| now.plus(std::time::Duration::from_secs(seconds));
        assert_eq!(strangers.one_more(None, later(1)), Word::LeaveOut);
        assert_eq!(strangers.one_more(None, later(11)), Word::Tell(8));
        assert_eq!(strangers.one_more(None, later(11)), Word::Tell(0));
    }

    #[test]
    fn whoever_is_claimed_has_a_measure_of_its_own() {
        let mut strangers = Strangers::default();
        let at = |seconds| Timestamp::from_unix_seconds(1_800_000_000).plus(std::time::Duration::from_secs(seconds));
        let mut told = |whose, seconds, times: usize| {
            (0..times).filter(|_| strangers.one_more(whose, at(seconds)) != Word::LeaveOut).count()
        };
        assert_eq!(told(Some("a"), 0, 6000), 200);
        assert_eq!(told(Some("b"), 0, 150), 150);
        assert_eq!(told(None, 0, 900), 900);
        assert_eq!(told(Some("a"), 3, 100), 0, "nothing until half of it is there again");
        assert_eq!(told(Some("a"), 5, 300), 100);
        assert_eq!(told(Some("a"), 60, 199), 199);
    }

    #[test]
    fn what_is_told_beside_another_word_counts_too() {
        let mut strangers = Strangers::default();
        let at = |seconds| Timestamp::from_unix_seconds(1_800_000_000).plus(std::time::Duration::from_secs(seconds));
        for whose in [Some("a"), None] {
            let most = whose.map_or(1000, |_| 200);
            assert_eq!((0..6000).filter(|_| strangers.has_room(whose, at(0))).count(), most);
            assert_eq!(strangers.one_more(whose, at(0)), Word::LeaveOut);
            assert!(!strangers.has_room(whose, at(3)), "nothing until half of it is there again");
            assert_eq!(strangers.one_more(whose, at(60)), Word::Tell(1));
            assert!(strangers.has_room(whose, at(60)));
        }
    }

    #[test]
    fn what_is_left_out_of_one_is_counted_and_machines_are_not_remembered_for_ever() {
        let mut strangers = Strangers::default();
        let at = |seconds| Timestamp::from_unix_seconds(1_800_000_000).plus(std::time::Duration::from_secs(seconds));
        let words: Vec<_> = (0..207).map(|_| strangers.one_more(Some("a"), at(0))).collect();
        assert_eq!(words.iter().filter(|word| **word == Word::LeaveOut).count(), 7);
        assert_eq!(strangers.one_more(Some("a"), at(5)), Word::Tell(7));
        assert_eq!(strangers.one_more(Some("a"), at(5)), Word::Tell(0));
        for n in 0..50_000_u64 {
            strangers.one_more(Some(&n.to_string()), at(n / 500));
            assert!(strangers.each.len() <= 2 * FEW, "{}", strangers.each.len());
        }
    }
}
