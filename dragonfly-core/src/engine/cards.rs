//! Which network cards machines have: each stands on one, also while several are being written down at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Engine, EngineError, Result};
use crate::Mac;
use crate::action::Problem;
use crate::cache::Owner;
use crate::resource::Hardware;

/// Cards that are being written down: as whose, and by how many.
#[derive(Debug, Default)]
pub(super) struct Cards(Mutex<HashMap<Mac, (String, usize)>>);

/// Cards that nobody else writes down until this is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    cards: &'a Cards,
    claimed: Vec<Mac>,
}

impl Cards {
    /// Claims these cards for a machine, or names the first that is being written down as another's, and whose.
    fn claim(&self, machine: &str, cards: &[Mac]) -> std::result::Result<Claim<'_>, (Mac, String)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for card in cards {
            if let Some((owner, _)) = all.get(card).filter(|(owner, _)| owner != machine) {
                return Err((*card, owner.clone()));
            }
        }
        for card in cards {
            all.entry(*card).or_insert_with(|| (machine.to_owned(), 0)).1 += 1;
        }
        Ok(Claim { cards: self, claimed: cards.to_vec() })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut all = self.cards.0.lock().unwrap_or_else(PoisonError::into_inner);
        for card in &self.claimed {
            if let Some((_, by)) = all.get_mut(card) {
                *by -= 1;
                if *by == 0 {
                    all.remove(card);
                }
            }
        }
    }
}

impl Engine {
    /// Which cards of a machine that is to be written are others' already.
    pub(super) fn cards_taken(&self, machine: &Hardware) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, mac) in machine.spec.macs.iter().enumerate() {
            let other = match self.inner.cache.by_mac(*mac) {
                Owner::One(other) if other.name() != machine.name() => other.name().to_owned(),
                Owner::Several(names) => names.join(" and "),
                Owner::One(_) | Owner::Nobody => continue,
            };
            problems.push(taken(index, *mac, &other));
        }
        problems
    }

    /// Claims the cards of a machine that is to be written, and looks once more whose they are: what was looked at before
    /// may have changed since, and several objects of one text are written at once.
    pub(super) fn claim_cards(&self, machine: &Hardware) -> Result<Claim<'_>> {
        let cards = &machine.spec.macs;
        let claim = self.inner.cards.claim(machine.name(), cards).map_err(|(card, owner)| {
            let index = cards.iter().position(|one| *one == card).unwrap_or_default();
            EngineError::Invalid(vec![taken(index, card, &owner)])
        })?;
        let problems = self.cards_taken(machine);
        if problems.is_empty() { Ok(claim) } else { Err(EngineError::Invalid(problems)) }
    }
}

fn taken(index: usize, card: Mac, owner: &str) -> Problem {
    Problem { path: format!("spec.macs[{index}]"), problem: format!("{card} belongs to {owner} already") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_claimed_for_one_machine_at_a_time() {
        let cards = Cards::default();
        let [one, two, three] = [1, 2, 3].map(|n| Mac::new([2, 0, 0, 0, 0, n]));
        let first = cards.claim("a", &[one, two]).unwrap();
        let again = cards.claim("a", &[one]).unwrap();
        assert_eq!(cards.claim("b", &[three, two]).unwrap_err(), (two, "a".to_owned()));
        let other = cards.claim("b", &[three]).unwrap();
        drop(first);
        assert_eq!(cards.claim("b", &[one]).unwrap_err(), (one, "a".to_owned()), "still claimed once");
        drop(cards.claim("b", &[two]).unwrap());
        drop((again, other));
        assert!(cards.0.lock().unwrap().is_empty());
    }
}
