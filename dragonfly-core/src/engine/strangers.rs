//! How much may be said of machines that nobody has registered.
//!
//! Inventing network addresses costs nothing. Each stays on its own bounded timeline; but were every
//! one of its packets an event and a line of the log, a flood would push the events of real machines
//! out of the replay and fill the log's disk.

use crate::clock::Timestamp;

/// How much may be said at once, and how much more each second. Once it is all said, nothing is until half of
/// it is there again: a line now and then would tell nothing of anybody.
const AT_ONCE: u32 = 1000;
const PER_SECOND: u32 = 50;

/// How much is left to be said.
#[derive(Debug, Default)]
pub(super) struct Strangers {
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
    pub(super) fn one_more(&mut self, now: Timestamp) -> Word {
        let passed = self.since.map_or(0, |since| now.since(since).as_millis());
        let back = u32::try_from(passed * u128::from(PER_SECOND) / 1000).unwrap_or(u32::MAX);
        if back > 0 || self.since.is_none() {
            self.said = self.said.saturating_sub(back);
            self.since = Some(now);
        }
        self.is_silent = self.said >= AT_ONCE || (self.is_silent && self.said > AT_ONCE / 2);
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
                .filter(|now| matches!(strangers.one_more(at(*now)), Word::Tell(_)))
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
        let words: Vec<_> = (0..AT_ONCE + 7).map(|_| strangers.one_more(now)).collect();
        assert_eq!(words.iter().filter(|word| **word == Word::LeaveOut).count(), 7);
        let later = |seconds| now.plus(std::time::Duration::from_secs(seconds));
        assert_eq!(strangers.one_more(later(1)), Word::LeaveOut);
        assert_eq!(strangers.one_more(later(11)), Word::Tell(8));
        assert_eq!(strangers.one_more(later(11)), Word::Tell(0));
    }
}
