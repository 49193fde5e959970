//! Which boot tokens have opened a session of a machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Mac;
use crate::clock::Timestamp;

/// How many cards' tokens are told apart: more than a machine boots from within a token's ten minutes.
const CARDS: usize = 16;

/// The newest token of each card that has opened a session: no token of that card as old as it opens another. Tokens of
/// two cards say nothing of each other: one may have waited for a person while the other was used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UsedTokens {
    /// Of each card.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub newest: Vec<UsedToken>,
    /// Of all cards that are not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<Timestamp>,
}

/// A token that has opened a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsedToken {
    /// The card that it was made for.
    pub card: Mac,
    /// When it was made, or a moment after the last one's where the clock was set back.
    pub time: Timestamp,
}

impl UsedTokens {
    /// The newest used one of a card, as far as it is known: there may be none of it at all.
    pub fn of(&self, card: Mac) -> Option<Timestamp> {
        self.newest.iter().find(|used| used.card == card).map(|used| used.time).max(self.others)
    }

    /// Whether a token of this card and time opens nothing any more.
    pub fn is_used(&self, card: Mac, time: Timestamp) -> bool {
        self.of(card).is_some_and(|used| used >= time)
    }

    /// A token has opened a session.
    pub fn add(&mut self, card: Mac, time: Timestamp) {
        let time = self.of(card).map_or(time, |used| used.max(time));
        self.newest.retain(|used| used.card != card);
        if self.newest.len() >= CARDS {
            // The oldest stands for all that are not listed: none of its card becomes good again.
            self.newest.sort_by_key(|used| std::cmp::Reverse(used.time));
            self.others = self.newest.pop().map(|oldest| oldest.time).max(self.others);
        }
        self.newest.push(UsedToken { card, time });
    }

    /// No token that is as old as this opens a session any more.
    pub fn void(&mut self, until: Timestamp) {
        self.others = self.others.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000).plus(Duration::from_secs(second))
    }

    fn card(n: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn tokens_of_two_cards_say_nothing_of_each_other() {
        let mut used = UsedTokens::default();
        assert!(!used.is_used(card(1), at(0)));
        used.add(card(1), at(9));
        for (n, second, is_used) in [(1, 8, true), (1, 9, true), (1, 10, false), (2, 8, false)] {
            assert_eq!(used.is_used(card(n), at(second)), is_used, "{n} {second}");
        }
        used.add(card(2), at(5));
        assert!(used.is_used(card(1), at(9)) && used.is_used(card(2), at(5)) && !used.is_used(card(2), at(6)));
        used.void(at(20));
        for n in 1..4 {
            assert!(used.is_used(card(n), at(20)) && !used.is_used(card(n), at(21)), "{n}");
        }
    }

    proptest! {
        /// Whatever the order and however many the cards: what was used stays used, and the list has a bound.
        #[test]
        fn what_was_used_stays_used(tokens in prop::collection::vec((0u8..40, 0u64..1000), 1..200)) {
            let mut used = UsedTokens::default();
            for (n, (of, second)) in tokens.iter().enumerate() {
                used.add(card(*of), at(*second));
                prop_assert!(used.newest.len() <= CARDS);
                for (of, second) in &tokens[..=n] {
                    prop_assert!(used.is_used(card(*of), at(*second)), "{of} {second}");
                }
            }
        }
    }
}
