//! Machines whose identity is in doubt: how a conflict is told, how a person settles it, what becomes of cards that moved.

use std::net::IpAddr;
use std::sync::PoisonError;

use super::anchors::has_no_board;
use super::boot::CONFLICT;
use super::strangers::Word;
use super::{Engine, EngineError, Result};
use crate::Mac;
use crate::resource::hardware::Anchors;
use crate::resource::{Condition, ConditionStatus, Hardware, HardwareSpec, Record, condition, set_condition};
use crate::wire::Hello;

/// How many other machines are named where there may be many.
const NAMED: usize = 3;
/// How many of the cards that a machine booted from are kept.
const BOOTED_FROM: usize = 16;

/// Why a conflict holds: the machine does not say of itself what it said before.
const DISAGREE: &str = "AnchorsDisagree";
/// Or its card is seen on a board that is another machine's.
const ELSEWHERE: &str = "SeenElsewhere";
/// Why one does not hold any more: a person said so, and nobody has asked since.
pub(super) const SETTLED: &str = "Settled";
/// Its agent has asked since and was believed.
pub(super) const BELIEVED: &str = "Believed";

/// The conflict that a person settled last, until somebody was believed for it.
pub(super) fn settled(conditions: &[Condition]) -> Option<&Condition> {
    condition(conditions, CONFLICT).filter(|c| c.status == ConditionStatus::False && c.reason == SETTLED)
}

/// Settles a machine's conflict: the next agent that asks is believed.
pub(super) fn settle(machine: &mut Hardware, words: &str, now: crate::clock::Timestamp) {
    let conditions = &mut machine.status.conditions;
    let disagrees = condition(conditions, CONFLICT).is_some_and(|c| c.reason == DISAGREE);
    set_condition(conditions, CONFLICT, ConditionStatus::False, SETTLED, words, now);
    // What it said of itself is in doubt then. Where its card was seen elsewhere its board is not.
    if let Some(anchors) = machine.status.anchors.as_mut().filter(|_| disagrees) {
        anchors.serial = None;
        anchors.smbios_uuid = None;
    }
}

/// Whether the board and the card that an agent speaks of are this machine's: by a person's word, or by what the machine
/// was known by before. `said` has the one card that it booted from.
pub(super) fn is_its(machine: &Hardware, said: &Anchors) -> bool {
    let known = machine.status.proven.as_ref();
    let by_card = said.macs.iter().any(|card| is_own(machine, *card));
    let same = |number: &Option<String>| number.is_some() && *number == said.serial;
    by_card
        || same(&machine.spec.serial)
        || known.is_some_and(|known| same(&known.serial))
        || known.is_some_and(|known| known.smbios_uuid.is_some() && known.smbios_uuid == said.smbios_uuid)
}

/// Whether a card is a machine's by a person's word, or because the machine was known by it.
pub(super) fn is_own(machine: &Hardware, card: Mac) -> bool {
    let known = machine.status.proven.iter().flat_map(|known| &known.macs);
    machine.spec.macs.iter().chain(known).any(|own| *own == card)
}

/// Keeps what a machine is known by. `said` has the one card that it booted from; `believed`: a person has said that
/// whoever asks now is this machine; `moved`: that the card is its own.
pub(super) fn prove(machine: &mut Hardware, said: &Anchors, believed: bool, moved: bool) {
    if !(believed || moved || is_its(machine, said)) {
        return;
    }
    let status = &mut machine.status;
    let known = status.proven.take().filter(|_| !believed);
    let mut proven = known.unwrap_or_else(|| said.clone());
    for card in &said.macs {
        if moved && !proven.macs.contains(card) {
            proven.macs.push(*card);
        }
        status.booted_from.retain(|known| known != card);
        status.booted_from.push(*card);
    }
    status.proven = Some(proven);
    let over = status.booted_from.len().saturating_sub(BOOTED_FROM);
    status.booted_from.drain(..over);
}

/// Why it is not certain enough that the agent that speaks for a machine runs on it: enough to look at it, and not to
/// write to its disks.
pub(super) fn unproven(machine: &Hardware) -> Option<String> {
    // Of a session that an earlier version opened this is not known.
    let said = machine.status.session.as_ref().map(|session| &session.said).filter(|said| !said.macs.is_empty())?;
    if let (Some(written), Some(is)) = (&machine.spec.serial, &said.serial)
        && written != is
    {
        return Some(format!("its serial number is {is}, and spec.serial says {written}"));
    }
    let cards = said.macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
    let Some(proven) = &machine.status.proven else {
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
    // What is left is the same, or one of them does not say it: a card may be in a board that has no numbers of its own,
    // or have been known in one.
    let same_board = (proven.serial.is_some() && proven.serial == said.serial)
        || (proven.smbios_uuid.is_some() && proven.smbios_uuid == said.smbios_uuid);
    let neither_has = has_no_board(proven) && has_no_board(said);
    if !same_board && !neither_has {
        let number = |board: &Anchors| match (&board.serial, &board.smbios_uuid) {
            (Some(serial), _) => format!("serial number {serial}"),
            (None, Some(uuid)) => format!("SMBIOS UUID {uuid}"),
            (None, None) => "no number at all".to_owned(),
        };
        return Some(format!("its board says {}, and said {}", number(said), number(proven)));
    }
    // By its board, and one of the cards that it has: which of them it boots from is firmware's choice.
    let seen = machine.status.anchors.iter().filter(|_| same_board).flat_map(|anchors| &anchors.macs);
    if !said.macs.iter().chain(seen).any(|card| is_own(machine, *card)) {
        return Some(format!("its board is this machine's, and its network cards ({cards}) are not"));
    }
    None
}

fn is_in_conflict(machine: &Hardware) -> bool {
    machine.conflict().is_some()
}

/// Whether a machine's card asks on another's board while its own agent lives without it: nothing holds it for that, and
/// a person can say that the card was moved.
pub(super) fn is_card_elsewhere(machine: &Hardware) -> bool {
    condition(&machine.status.conditions, CONFLICT).is_some_and(|c| c.status == ConditionStatus::Unknown)
}

/// Whether the agent that speaks for a machine booted from another card than this, and does not have this one.
fn is_without(machine: &Hardware, card: Mac) -> bool {
    let said = machine.status.session.as_ref().map(|session| &session.said).into_iter().chain(&machine.status.anchors);
    let mut cards = said.map(|anchors| &anchors.macs);
    cards.all(|cards| !cards.is_empty() && !cards.contains(&card))
}

impl Engine {
    /// Whether the card that an agent booted from is known as this machine's.
    pub(super) fn has_booted_card(&self, machine: &str, card: Mac) -> bool {
        self.inner.cache.get::<HardwareSpec>(machine).is_some_and(|m| has_card(&m, card))
    }

    /// Holds the machine whose card asks, and tells what settles it. Who asks is not told: it may be anybody.
    pub(super) async fn conflict(&self, hello: &Hello, machines: &[String], why: &str, from: IpAddr) -> EngineError {
        let now = self.now();
        let reason = if machines.len() > 1 { ELSEWHERE } else { DISAGREE };
        let its_card = |m: &Hardware| has_card(m, hello.mac);
        let mut held = Vec::new();
        for name in machines {
            // Only the machine whose card asks is held and told: the others have done nothing.
            if !self.has_booted_card(name, hello.mac) {
                continue;
            }
            // One whose agent lives goes on: it is who asks that is doubtful.
            let lives = match self.may_speak(name, hello.boot_id, hello.mac, now).await {
                Ok((is_free, _)) => !is_free,
                Err(error) => return error,
            };
            let is_elsewhere = |m: &Hardware| machines.len() > 1 && is_without(m, hello.mac);
            if lives && !self.inner.cache.get::<HardwareSpec>(name).is_some_and(|m| is_elsewhere(&m)) {
                return self.second_agent(name, from);
            }
            let marked = self
                .change_status::<HardwareSpec, _>(name, |m| {
                    let its_card = its_card(m);
                    // What holds already, or was settled since, is more.
                    if its_card && (!lives || !(is_in_conflict(m) || settled(&m.status.conditions).is_some())) {
                        let status = if lives { ConditionStatus::Unknown } else { ConditionStatus::True };
                        set_condition(&mut m.status.conditions, CONFLICT, status, reason, why, now);
                    }
                    Ok(its_card)
                })
                .await;
            match marked {
                Ok((_, its_card)) => held.extend(its_card.then_some((name.as_str(), lives))),
                Err(error) => tracing::warn!(machine = %name, %error, "an identity conflict could not be written down"),
            }
        }
        let any_lives = held.iter().any(|(_, lives)| *lives);
        let held: Vec<&str> = held.into_iter().map(|(name, _)| name).collect();
        let others = machines.iter().map(String::as_str).filter(|name| !held.contains(name));
        let others: Vec<&str> = others.take(NAMED).collect();
        let settles = match (&held[..], &others[..]) {
            ([one], []) => format!("dragonfly release {one}"),
            ([one], others) if any_lives => {
                format!("dragonfly release {one} if its card was moved to {}", others.join(" and "))
            }
            ([one], others) => {
                let others = others.join(" and ");
                format!(
                    "dragonfly release {one} if its card was moved to {others}; \
                     if this is {one} with another board, delete {others}"
                )
            }
            ([], others) => format!(
                "if it is {}, add {} to its spec.macs by dragonfly apply, and take its other cards from all others",
                others.join(" or "),
                hello.mac
            ),
            _ => format!("take the addresses from all but one of {} (spec.macs, by dragonfly apply)", held.join(", ")),
        };
        // Where nobody is held they have done nothing, and are told no more than is told of strangers.
        let is_told = !held.is_empty()
            || !matches!(
                self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner).one_more(None, now),
                Word::LeaveOut
            );
        let named = if held.is_empty() { &others } else { &held };
        for name in named.iter().filter(|_| is_told) {
            let words = format!("{} says it is this machine, but {why}; what settles it: {settles}", hello.mac);
            self.tell("identity.conflict", name, None, words);
        }
        // Whoever looks for the machine that it says it runs on looks there.
        for name in others.iter().filter(|_| !held.is_empty()) {
            let whose = held.join(" and ");
            self.tell_refused(
                name,
                format!("{} says it is on its board, and is a card of {whose}; {settles}", hello.mac),
            );
        }
        let why =
            "identity in conflict; an operator must settle it: `dragonfly why` with this machine's address tells how";
        EngineError::Busy { why: why.to_owned() }
    }

    /// An agent speaks for a machine that is to be installed, and it is not certain enough that it runs on it: nothing is
    /// written before a person has said so.
    pub(super) async fn doubt(&self, machine: &str, why: &str) -> Result<()> {
        let _guard = self.lock(machine).await;
        let now = self.now();
        let (_, is_news) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                let is_news = !is_in_conflict(m) && unproven(m).is_some();
                if is_news {
                    set_condition(&mut m.status.conditions, CONFLICT, ConditionStatus::True, DISAGREE, why, now);
                }
                Ok(is_news)
            })
            .await?;
        if is_news {
            let words = format!(
                "its agent may run on another machine: {why}; if it is right, dragonfly release {machine}, and boot it again"
            );
            self.tell("identity.conflict", machine, None, words);
        }
        Ok(())
    }

    /// Takes cards from machines that gave way: they are in another now.
    pub(super) async fn move_cards(&self, seen: &Anchors, from: &[String], to: &str) -> Result<()> {
        for name in from {
            let _guard = self.lock(name).await;
            let words = format!("its cards are in {to} now");
            self.change_spec::<HardwareSpec>(name, |m| {
                m.spec.macs.retain(|mac| !seen.macs.contains(mac));
                Ok(())
            })
            .await?;
            let now = self.now();
            self.change_status::<HardwareSpec, _>(name, |m| {
                for anchors in [&mut m.status.anchors, &mut m.status.proven].into_iter().flatten() {
                    anchors.macs.retain(|mac| !seen.macs.contains(mac));
                }
                m.status.booted_from.retain(|mac| !seen.macs.contains(mac));
                set_condition(&mut m.status.conditions, CONFLICT, ConditionStatus::False, BELIEVED, &words, now);
                Ok(())
            })
            .await?;
            self.tell("machine.cards-moved", name, None, words);
        }
        Ok(())
    }

    /// A person has changed a machine's cards or serial number: a card that was taken from it is not its own for having
    /// been seen in it, and what was in conflict is to be judged anew.
    pub(super) async fn identity_edited(&self, old: &Record, new: &Record, by: &str) -> Result<()> {
        let (Ok(old), Ok(new)) = (old.decode::<HardwareSpec>(), new.decode::<HardwareSpec>()) else { return Ok(()) };
        let is_same = old.spec.macs == new.spec.macs && old.spec.serial == new.spec.serial;
        let taken: Vec<_> = old.spec.macs.iter().filter(|mac| !new.spec.macs.contains(mac)).collect();
        let is_doubted = |m: &Hardware| is_in_conflict(m) || is_card_elsewhere(m);
        if is_same || !(is_doubted(&new) || taken.iter().any(|mac| has_card(&new, **mac))) {
            return Ok(());
        }
        let now = self.now();
        self.change_status::<HardwareSpec, _>(new.name(), |m| {
            for anchors in [&mut m.status.anchors, &mut m.status.proven].into_iter().flatten() {
                anchors.macs.retain(|mac| !taken.contains(&mac));
            }
            m.status.booted_from.retain(|mac| !taken.contains(&mac));
            if is_doubted(m) {
                let words =
                    format!("{by} changed its cards or its serial number: the next agent that asks is believed");
                settle(m, &words, now);
            }
            Ok(())
        })
        .await?;
        Ok(())
    }
}

/// Whether a card is a machine's by a person's word or by its own.
fn has_card(machine: &Hardware, card: Mac) -> bool {
    let said = [&machine.status.anchors, &machine.status.proven].into_iter().flatten();
    machine.spec.macs.contains(&card)
        || machine.status.booted_from.contains(&card)
        || said.into_iter().any(|anchors| anchors.macs.contains(&card))
}
