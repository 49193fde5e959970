//! Which cards are a machine's own, and for whom that asks it is certain enough that he runs on it.

use super::anchors::has_no_board;
use crate::Mac;
use crate::resource::Hardware;
use crate::resource::hardware::Anchors;

/// Whether a card is a machine's own: by a person's word, or because it registered with it.
pub(super) fn is_own(machine: &Hardware, card: Mac) -> bool {
    let known = machine.status.proven.iter().flat_map(|known| &known.macs);
    machine.spec.macs.iter().chain(known).any(|own| *own == card)
}

/// Whether who speaks for a machine booted from a card that is not its own.
pub(super) fn is_foreign(machine: &Hardware) -> bool {
    let said = machine.status.session.as_ref().map(|session| &session.said.macs);
    said.is_some_and(|cards| !cards.is_empty() && !cards.iter().any(|card| is_own(machine, *card)))
}

/// Whether who speaks for a machine says only that it is this machine: an agent that boots from one of the machine's own
/// cards takes the word from it.
pub(super) fn is_claimed(machine: &Hardware) -> bool {
    is_foreign(machine) && unproven(machine).is_some()
}

/// Whether the agent that speaks for a machine booted from another card than this, and does not have this one.
pub(super) fn is_without(machine: &Hardware, card: Mac) -> bool {
    let said = machine.status.session.as_ref().map(|session| &session.said).into_iter().chain(&machine.status.anchors);
    let mut cards = said.map(|anchors| &anchors.macs);
    cards.all(|cards| !cards.is_empty() && !cards.contains(&card))
}

/// Keeps what a machine is known by. `said` has the one card that it booted from; `believed`: a person has said of just
/// this that it is right; `moved`: that the card is its own.
pub(super) fn prove(machine: &mut Hardware, said: &Anchors, believed: bool, moved: bool) {
    let own = said.macs.iter().any(|card| is_own(machine, *card));
    let proven = &mut machine.status.proven;
    if !(believed || moved || (own && proven.is_none())) {
        return;
    }
    let known = proven.take();
    let mut macs = known.as_ref().map(|known| known.macs.clone()).unwrap_or_default();
    macs.extend(said.macs.iter().filter(|card| !macs.contains(card)).copied().collect::<Vec<_>>());
    let numbers = known.filter(|_| !believed).unwrap_or_else(|| said.clone());
    *proven = Some(Anchors { macs, ..numbers });
}

/// Why it is not certain enough that the agent that speaks for a machine runs on it: enough to look at it, and not to
/// write to its disks.
pub(super) fn unproven(machine: &Hardware) -> Option<String> {
    // Of a session that an earlier version opened this is not known.
    let session = machine.status.session.as_ref().filter(|session| !session.said.macs.is_empty())?;
    doubts(machine, &session.said, &session.named, &session.others)
}

/// Whether nothing would be in doubt of an agent that says this: the card that it booted from and its board, which of the
/// machine's own cards it names, and which of other machines'.
pub(super) fn is_proven_by(machine: &Hardware, said: &Anchors, named: &[Mac], others: &[Mac]) -> bool {
    machine.status.proven.is_some() && doubts(machine, said, named, others).is_none()
}

fn doubts(machine: &Hardware, said: &Anchors, named: &[Mac], others: &[Mac]) -> Option<String> {
    // What a person wrote down is to be said, and not only not contradicted: a card may be in any board.
    if let Some(written) = machine.spec.serial.as_ref().filter(|written| said.serial.as_ref() != Some(written)) {
        return Some(match &said.serial {
            Some(is) => format!("its serial number is {is}, and spec.serial says {written}"),
            None => format!(
                "its board says no serial number, and spec.serial says {written}; where its firmware has none, \
                 leave spec.serial out"
            ),
        });
    }
    let cards = said.macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
    let is_own_card = said.macs.iter().any(|card| is_own(machine, *card));
    // By a person's word; without a word on its cards any of them may say it.
    let by_serial = machine.spec.serial.is_some() && machine.spec.serial == said.serial;
    let any_card = by_serial && machine.spec.macs.is_empty();
    // By its board, and one of the cards that it has: which of them it boots from is firmware's choice.
    let names_own = named.iter().any(|card| is_own(machine, *card));
    let Some(proven) = &machine.status.proven else {
        if is_own_card || any_card {
            return None;
        }
        return Some(format!("it booted from {cards}, which is not in spec.macs; if it is its card, add it there"));
    };
    if let (Some(was), Some(is)) = (&proven.serial, &said.serial)
        && was != is
    {
        return Some(format!("its serial number is {is}, and was {was}"));
    }
    if let (Some(was), Some(is)) = (&proven.smbios_uuid, &said.smbios_uuid)
        && was != is
    {
        return Some(format!("its SMBIOS UUID is {is}, and was {was}"));
    }
    // The same number on a board of another make is another board's, but where the UUID is the same: firmware is updated.
    let same_serial = proven.serial.is_some() && proven.serial == said.serial;
    let same_uuid = same_serial && proven.smbios_uuid.is_some() && proven.smbios_uuid == said.smbios_uuid;
    if let (Some(was), Some(is)) = (&proven.product, &said.product)
        && was != is
        && !same_uuid
    {
        return Some(format!("its board is a {is}, and was a {was}"));
    }
    // What is left is the same, or one of them does not say it: a card may be in a board that has no numbers of its own,
    // or have been known in one. Each number that was said is to be said again.
    let is_said = (proven.serial.is_none() || said.serial.is_some())
        && (proven.smbios_uuid.is_none() || said.smbios_uuid.is_some());
    let same_board = is_said && !has_no_board(proven);
    let neither_has = has_no_board(proven) && has_no_board(said);
    if !same_board && !neither_has {
        let number = |board: &Anchors| match (&board.serial, &board.smbios_uuid) {
            (Some(serial), Some(uuid)) => format!("serial number {serial} and SMBIOS UUID {uuid}"),
            (Some(serial), None) => format!("serial number {serial}"),
            (None, Some(uuid)) => format!("SMBIOS UUID {uuid}"),
            (None, None) => "no number at all".to_owned(),
        };
        return Some(format!("its board says {}, and said {}", number(said), number(proven)));
    }
    // Where boards say nothing, what is told of a machine are its cards: a card of it may be in another now.
    if neither_has && !others.is_empty() {
        let others = others.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
        return Some(format!(
            "its board has no numbers, and it has {others}, which another machine has: was a card moved? If \
             that is this machine, registered by another of its cards, delete that one"
        ));
    }
    if !(is_own_card || any_card || (same_board && names_own && proven.serial.is_some())) {
        return Some(format!("its board is this machine's, and its network cards ({cards}) are not"));
    }
    None
}
