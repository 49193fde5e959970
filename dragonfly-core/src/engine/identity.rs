//! Machines whose identity is in doubt: how a conflict is told, how a person settles it, what becomes of cards that moved.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use super::anchors::has_no_board;
use super::boot::CONFLICT;
use super::strangers::Word;
use super::{Engine, EngineError, Result};
use crate::Mac;
use crate::clock::Timestamp;
use crate::resource::hardware::Anchors;
use crate::resource::{Condition, ConditionStatus, Hardware, HardwareSpec, Record, condition, set_condition};
use crate::wire::Hello;

/// How many other machines are named where there may be many.
const NAMED: usize = 3;
/// How long a question to a person stands before another takes its place: what is told is what is answered.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Why a conflict holds: the machine does not say of itself what it said before.
const DISAGREE: &str = "AnchorsDisagree";
/// Or its card is seen on a board that is another machine's.
const ELSEWHERE: &str = "SeenElsewhere";
/// Why one does not hold any more: a person said so, and nobody has asked since.
const SETTLED: &str = "Settled";
/// Its agent has asked since and was believed.
const BELIEVED: &str = "Believed";

/// The conflict that a person settled last, and of whom it was said, until that one has asked.
pub(super) fn settled(machine: &Hardware) -> Option<(&Condition, &Anchors)> {
    condition(&machine.status.conditions, CONFLICT)
        .filter(|c| c.status == ConditionStatus::False && c.reason == SETTLED)
        .zip(machine.status.in_doubt.as_ref())
}

/// Whether a person has said of this agent, by the card that it booted from and its board, that it is right.
pub(super) fn is_believed(machine: &Hardware, said: &Anchors) -> bool {
    settled(machine).is_some_and(|(_, meant)| is_same(meant, said))
}

fn is_same(one: &Anchors, other: &Anchors) -> bool {
    (&one.macs, &one.serial, one.smbios_uuid) == (&other.macs, &other.serial, other.smbios_uuid)
}

/// Of whom a conflict asks, for a person.
pub(super) fn whom(machine: &Hardware) -> String {
    let Some(asks) = &machine.status.in_doubt else { return "the agent that asks".to_owned() };
    let cards = asks.macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
    let board = match (&asks.serial, asks.smbios_uuid) {
        (Some(serial), _) => format!("with serial number {serial}"),
        (None, Some(uuid)) => format!("with SMBIOS UUID {uuid}"),
        (None, None) => "without a number".to_owned(),
    };
    format!("who boots from {cards} on the board {board}")
}

/// Settles a machine's conflict: whoever asked is believed when it asks again.
pub(super) fn settle(machine: &mut Hardware, words: &str, now: Timestamp) {
    set_condition(&mut machine.status.conditions, CONFLICT, ConditionStatus::False, SETTLED, words, now);
}

/// A conflict is over, for this reason.
fn end(machine: &mut Hardware, words: &str, now: Timestamp) {
    machine.status.in_doubt = None;
    set_condition(&mut machine.status.conditions, CONFLICT, ConditionStatus::False, BELIEVED, words, now);
}

/// Asks a person whether whoever says this is the machine. `false` where another question is open, or was answered and
/// whom it was about has not asked again yet.
fn ask(
    machine: &mut Hardware,
    said: &Anchors,
    status: ConditionStatus,
    reason: &str,
    why: &str,
    now: Timestamp,
) -> bool {
    let asked = machine.status.in_doubt.as_ref();
    let is_another = asked.is_some_and(|asked| !is_same(asked, said));
    let open = condition(&machine.status.conditions, CONFLICT)
        .filter(|c| c.status != ConditionStatus::False || settled(machine).is_some());
    if let Some(open) = open.filter(|_| is_another) {
        let is_less = open.status == ConditionStatus::True && status != ConditionStatus::True;
        let is_more = open.status == ConditionStatus::Unknown && status == ConditionStatus::True;
        if is_less || (!is_more && now.since(open.last_transition_time) < PATIENCE) {
            return false;
        }
        machine.status.conditions.retain(|c| c.kind != CONFLICT);
    }
    machine.status.in_doubt = Some(said.clone());
    set_condition(&mut machine.status.conditions, CONFLICT, status, reason, why, now);
    true
}

/// Whether a card is a machine's own: by a person's word, or because it registered with it.
pub(super) fn is_own(machine: &Hardware, card: Mac) -> bool {
    let known = machine.status.proven.iter().flat_map(|known| &known.macs);
    machine.spec.macs.iter().chain(known).any(|own| *own == card)
}

/// Whether who speaks for a machine booted from a card that is not its own, and says that it is this machine by its
/// board alone: an agent that boots from one of the machine's own cards takes the word from it.
pub(super) fn is_foreign(machine: &Hardware) -> bool {
    let said = machine.status.session.as_ref().map(|session| &session.said.macs);
    said.is_some_and(|cards| !cards.is_empty() && !cards.iter().any(|card| is_own(machine, *card)))
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

/// Ends what was asked of a machine, once its own agent says hello. `said` is what it says.
pub(super) fn answered(machine: &mut Hardware, said: &Anchors, now: Timestamp) -> bool {
    let words = settled(machine).filter(|(_, meant)| is_same(meant, said)).map(|(settled, _)| settled.message.clone());
    let believed = words.is_some();
    if let Some(words) = words {
        end(machine, &words, now);
    }
    believed
}

/// A machine's own agent speaks, from its own card and on its board: what was asked or said of that card is past, and of
/// whoever asked from a card that is not its own.
pub(super) fn own_asks(machine: &mut Hardware, now: Timestamp) {
    let status = &machine.status;
    let (Some(asked), Some(session)) = (&status.in_doubt, &status.session) else { return };
    let is_past = is_asked_about(machine) && asked.macs.iter().all(|card| !is_own(machine, *card))
        || (is_asked_about(machine) || settled(machine).is_some()) && asked.macs == session.said.macs;
    if is_past && !is_foreign(machine) && unproven(machine).is_none() {
        end(machine, "its own agent has asked since", now);
    }
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
    let is_own_card = said.macs.iter().any(|card| is_own(machine, *card));
    // By a person's word; without a word on its cards any of them may say it.
    let by_serial = machine.spec.serial.is_some() && machine.spec.serial == said.serial;
    let any_card = by_serial && machine.spec.macs.is_empty();
    // By its board, and one of the cards that it has: which of them it boots from is firmware's choice.
    let names_own = machine.status.anchors.iter().flat_map(|anchors| &anchors.macs).any(|card| is_own(machine, *card));
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
    if !(is_own_card || any_card || (same_board && names_own)) {
        return Some(format!("its board is this machine's, and its network cards ({cards}) are not"));
    }
    None
}

fn is_in_conflict(machine: &Hardware) -> bool {
    machine.conflict().is_some()
}

/// Whether somebody asks to be this machine who does not hold it up: from a card that is not its own, or from its card on
/// another's board while its own agent lives without it. A person can say that it is right.
pub(super) fn is_asked_about(machine: &Hardware) -> bool {
    condition(&machine.status.conditions, CONFLICT).is_some_and(|c| c.status == ConditionStatus::Unknown)
}

/// Whether the agent that speaks for a machine booted from another card than this, and does not have this one.
fn is_without(machine: &Hardware, card: Mac) -> bool {
    let said = machine.status.session.as_ref().map(|session| &session.said).into_iter().chain(&machine.status.anchors);
    let mut cards = said.map(|anchors| &anchors.macs);
    cards.all(|cards| !cards.is_empty() && !cards.contains(&card))
}

impl Engine {
    /// Whether the card that an agent booted from is a machine's own.
    pub(super) fn is_own_card(&self, machine: &str, card: Mac) -> bool {
        self.inner.cache.get::<HardwareSpec>(machine).is_some_and(|m| is_own(&m, card))
    }

    /// Holds the machine whose card asks, and tells what settles it. Who asks is not told: it may be anybody.
    pub(super) async fn conflict(
        &self,
        hello: &Hello,
        said: &Anchors,
        machines: &[String],
        why: &str,
        from: IpAddr,
    ) -> EngineError {
        let (now, card) = (self.now(), hello.mac);
        let reason = if machines.len() > 1 { ELSEWHERE } else { DISAGREE };
        let mut asked = Vec::new();
        for name in machines {
            // Only the machine whose card asks is held and told: the others have done nothing.
            let Some(machine) = self.inner.cache.get::<HardwareSpec>(name).filter(|m| is_own(m, card)) else {
                continue;
            };
            // One whose agent lives goes on: it is who asks that is doubtful.
            let lives = match self.may_speak(name, hello.boot_id, card, now).await {
                Ok((is_free, _)) => !is_free,
                Err(error) => return error,
            };
            if lives && !(machines.len() > 1 && is_without(&machine, card)) {
                return self.second_agent(name, from);
            }
            let status = if lives { ConditionStatus::Unknown } else { ConditionStatus::True };
            let written = self
                .change_status::<HardwareSpec, _>(name, |m| {
                    Ok(is_own(m, card).then(|| ask(m, said, status, reason, why, now)))
                })
                .await;
            match written {
                Ok((_, is_open)) => asked.extend(is_open.map(|is_open| (name.as_str(), lives, is_open))),
                Err(error) => tracing::warn!(machine = %name, %error, "an identity conflict could not be written down"),
            }
        }
        let others = machines.iter().map(String::as_str).filter(|name| asked.iter().all(|(held, ..)| held != name));
        let others: Vec<&str> = others.take(NAMED).collect();
        let out_of = |name: &str| format!("take {card} out of the spec.macs of {name} by dragonfly apply");
        let settles = match (&asked[..], &others[..]) {
            ([(one, _, false)], _) => format!("what was asked about {one} before; then boot this one again"),
            ([(one, ..)], []) => {
                format!("dragonfly release {one} if {one} has this board now; if its card was moved, {}", out_of(one))
            }
            ([(one, true, _)], others) => {
                format!("dragonfly release {one} if its card was moved to {}", others.join(" and "))
            }
            ([(one, ..)], others) => {
                let others = others.join(" and ");
                format!(
                    "dragonfly release {one} if its card was moved to {others}; \
                     if this is {one} with another board, delete {others}"
                )
            }
            ([], others) => format!(
                "if it is {}, add {card} to its spec.macs by dragonfly apply, and take its other cards from all others",
                others.join(" or "),
            ),
            _ => {
                let all: Vec<&str> = asked.iter().map(|(name, ..)| *name).collect();
                format!("take the addresses from all but one of {} (spec.macs, by dragonfly apply)", all.join(", "))
            }
        };
        // Where nobody is held they have done nothing, and are told no more than is told of strangers.
        let is_told = !asked.is_empty()
            || !matches!(
                self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner).one_more(None, now),
                Word::LeaveOut
            );
        let words = format!("{card} says it is this machine, but {why}; what settles it: {settles}");
        for (name, _, is_open) in &asked {
            match is_open {
                true => self.tell("identity.conflict", name, None, words.clone()),
                false => self.tell_refused(name, words.clone()),
            }
        }
        for name in others.iter().filter(|_| is_told) {
            match &asked[..] {
                [] => self.tell("identity.conflict", name, None, words.clone()),
                // Whoever looks for the machine that it says it runs on looks there.
                [(whose, ..), ..] => {
                    let words = format!("{card} says it is on its board, and is a card of {whose}; {settles}");
                    self.tell_refused(name, words);
                }
            }
        }
        let why =
            "identity in conflict; an operator must settle it: `dragonfly why` with this machine's address tells how";
        EngineError::Busy { why: why.to_owned() }
    }

    /// An agent speaks for a machine that is to be installed, and it is not certain enough that it runs on it: nothing is
    /// written before a person has said so. The machine is held where it asks from the machine's own card.
    pub(super) async fn doubt(&self, machine: &str, why: &str) -> Result<()> {
        let _guard = self.lock(machine).await;
        let now = self.now();
        let (_, is_news) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                let Some(said) = m.status.session.as_ref().map(|session| session.said.clone()) else {
                    return Ok(false);
                };
                let was = (m.status.in_doubt.clone(), condition(&m.status.conditions, CONFLICT).map(|c| c.status));
                let status = if is_foreign(m) { ConditionStatus::Unknown } else { ConditionStatus::True };
                let is_asked = unproven(m).is_some() && ask(m, &said, status, DISAGREE, why, now);
                let is = (m.status.in_doubt.clone(), condition(&m.status.conditions, CONFLICT).map(|c| c.status));
                Ok(is_asked && is != was)
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

    /// Takes a card from machines that gave way: it is in another now.
    pub(super) async fn move_card(&self, card: Mac, from: &[String], to: &str) -> Result<()> {
        for name in from {
            let _guard = self.lock(name).await;
            let words = format!("its card {card} is in {to} now");
            self.change_spec::<HardwareSpec>(name, |m| {
                m.spec.macs.retain(|mac| *mac != card);
                Ok(())
            })
            .await?;
            let now = self.now();
            self.change_status::<HardwareSpec, _>(name, |m| {
                for anchors in [&mut m.status.anchors, &mut m.status.proven].into_iter().flatten() {
                    anchors.macs.retain(|mac| *mac != card);
                }
                end(m, &words, now);
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
        let is_doubted = |m: &Hardware| is_in_conflict(m) || is_asked_about(m);
        let said = [&new.status.anchors, &new.status.proven];
        let is_taken = said.into_iter().flatten().any(|anchors| anchors.macs.iter().any(|mac| taken.contains(&mac)));
        if is_same || !(is_doubted(&new) || is_taken) {
            return Ok(());
        }
        let now = self.now();
        self.change_status::<HardwareSpec, _>(new.name(), |m| {
            for anchors in [&mut m.status.anchors, &mut m.status.proven].into_iter().flatten() {
                anchors.macs.retain(|mac| !taken.contains(&mac));
            }
            if is_doubted(m) {
                let asked = m.status.in_doubt.as_ref();
                // What was written down is what asks: that one is meant.
                let is_added = |card: &Mac| m.spec.macs.contains(card) && !old.spec.macs.contains(card);
                let is_meant = asked.is_some_and(|asked| {
                    asked.macs.iter().any(is_added) || (asked.serial.is_some() && asked.serial == m.spec.serial)
                });
                if is_meant {
                    settle(m, &format!("{by} changed its cards or its serial number: whoever asked is believed"), now);
                } else {
                    end(m, &format!("{by} changed its cards or its serial number"), now);
                }
            }
            Ok(())
        })
        .await?;
        Ok(())
    }
}
