//! Who is whom: what an agent says of its machine, and which of it an operator or the first hello has made a
//! record's own. Cards and boards are told by the number of the machine that they belong to.

use std::collections::BTreeSet;

use dragonfly_core::resource::hardware::Anchors;

use crate::common;
use crate::events::{CLAIMS, MACHINES};

/// Whoever is none of the machines. He has no disk here.
pub(crate) const STRANGER: usize = MACHINES;
/// A card that nobody has.
pub(crate) const NOBODYS: usize = 9;

/// What an agent says of the machine that it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words {
    /// The card that it booted from: it has a token for that one only.
    pub(crate) card: usize,
    /// Another one that it says it has.
    also: Option<usize>,
    serial: Option<usize>,
    uuid: Option<usize>,
}

impl Words {
    /// What the agent of a machine says.
    pub(crate) fn honest(machine: usize, card: usize, numbers: bool) -> Self {
        let own = numbers.then_some(machine);
        Self { card, also: None, serial: own, uuid: own }
    }

    /// What a stranger says who answers to this card: some of it is another machine's.
    pub(crate) fn claimed(card: usize, what: usize) -> Self {
        let victim = if card < MACHINES { 1 - card } else { 0 };
        let (own, other) = (Some(STRANGER), Some(victim));
        let (also, serial, uuid) = match what % CLAIMS {
            0 => (None, own, own),
            1 => (None, other, None),
            2 => (None, other, other),
            3 => (other, other, None),
            4 => (other, other, other),
            5 => (other, Some(card), Some(card)),
            6 => (other, own, own),
            _ => (None, None, None),
        };
        Self { card, also, serial, uuid }
    }

    pub(crate) fn anchors(self) -> Anchors {
        let number = |of: usize| of as u8 + 1;
        let macs = [Some(self.card), self.also].into_iter().flatten().map(|of| common::card(number(of)));
        Anchors {
            macs: macs.collect(),
            serial: self.serial.map(|of| common::serial(number(of))),
            smbios_uuid: self.uuid.map(|of| common::board(number(of))),
            product: None,
        }
    }

    /// Whom an operator reads of.
    pub(crate) fn read(anchors: &Anchors) -> Option<Self> {
        let numbers = || 0..=NOBODYS;
        let card = *anchors.macs.first()?;
        Some(Self {
            card: numbers().find(|n| common::card(*n as u8 + 1) == card)?,
            also: None,
            serial: numbers().find(|n| anchors.serial.as_deref() == Some(&common::serial(*n as u8 + 1))),
            uuid: numbers().find(|n| anchors.smbios_uuid == Some(common::board(*n as u8 + 1))),
        })
    }

    /// The same without the cards that it names.
    pub(crate) fn unnamed(self) -> Self {
        Self { also: None, ..self }
    }

    /// Whether its board and the other's say a number that is the same, and none that is not.
    fn shares_a_number(self, other: Self) -> bool {
        let mut same = false;
        for (is, was) in [(self.serial, other.serial), (self.uuid, other.uuid)] {
            match (is, was) {
                (Some(is), Some(was)) if is != was => return false,
                (Some(_), Some(_)) => same = true,
                _ => {}
            }
        }
        same
    }

    fn has_no_number(self) -> bool {
        self.serial.is_none() && self.uuid.is_none()
    }
}

/// Which machine a record was proven to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// None so far: the first agent that is welcomed is it.
    Nobody,
    /// A machine that said this.
    Is { machine: usize, said: Words },
    /// A hello was cut off: nobody knows.
    Unknown,
}

/// What is known of a record's identity, from outside.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    proof: Proof,
    /// Cards that are its own: operators have said so, or that it is the other's now was said by the release of that one.
    pub(crate) cards: BTreeSet<usize>,
    /// Its record has the card that it is named after, as far as anybody knows.
    pub(crate) at_home: bool,
    /// An operator has settled a conflict of its, having read who asks: that one is believed when it is welcomed.
    pub(crate) settled: Option<Words>,
}

impl Place {
    /// A record that is made when somebody boots from this card.
    pub(crate) fn new(card: usize) -> Self {
        Self { proof: Proof::Nobody, cards: BTreeSet::from([card]), at_home: true, settled: None }
    }

    /// An agent was welcomed as this machine. `lent`: a conflict of another was settled by saying of just this agent that
    /// it is right, so that the card is this one's by now.
    pub(crate) fn welcomed(&mut self, machine: usize, said: Words, lent: bool) {
        let is_meant = self.settled == Some(said.unnamed());
        // A number alone proves nothing: the first agent that asks from a card of the record's own is it.
        let is_first = self.proof == Proof::Nobody && self.cards.contains(&said.card);
        if is_meant || is_first {
            self.proof = Proof::Is { machine, said };
        }
        if lent || is_meant {
            self.cards.insert(said.card);
        }
        if is_meant {
            self.settled = None;
        }
    }

    /// A hello or a deletion was cut off, and perhaps it was of this machine.
    pub(crate) fn perhaps_welcomed(&mut self) {
        if self.settled.is_some() || self.proof == Proof::Nobody {
            self.proof = Proof::Unknown;
        }
    }

    pub(crate) fn perhaps_gone(&mut self) {
        self.proof = Proof::Unknown;
    }

    /// May what is meant for it be done to the machine on which an agent says this? It is the one that was proven, or
    /// nobody can tell it from that. What it says of cards that it did not boot from counts only beside a number of its
    /// board: a machine boots from any of its cards.
    pub(crate) fn is(&self, machine: usize, said: Words) -> bool {
        match self.proof {
            // Its card was written down after it was welcomed: an operator has said so.
            Proof::Nobody => self.cards.contains(&said.card),
            Proof::Unknown => true,
            Proof::Is { machine: proven, said: was } => {
                let is_own = |card: usize| card == was.card || self.cards.contains(&card);
                let is_its = if said.shares_a_number(was) {
                    is_own(said.card) || said.also.is_some_and(is_own)
                } else {
                    said.has_no_number() && was.has_no_number() && is_own(said.card)
                };
                proven == machine || is_its
            }
        }
    }
}
