//! The question to a person whether whoever asks is a machine, and what was answered.

use std::time::Duration;

use super::boot::CONFLICT;
use uuid::Uuid;

use super::proof::{is_foreign, is_own, unproven};
use crate::Mac;
use crate::clock::Timestamp;
use crate::resource::hardware::{Anchors, Asked};
use crate::resource::{Condition, ConditionStatus, Hardware, NOT_MOVED, condition, set_condition};
/// How long nobody else is asked about once a person has answered.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long an answer waits for whom it is about to ask again: nobody remembers it for longer.
const ANSWER_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Why a conflict holds: the machine does not say of itself what it said before.
pub(super) const DISAGREE: &str = "AnchorsDisagree";
/// Why one does not hold any more: a person said so, and nobody has asked since.
const SETTLED: &str = "Settled";
/// Or a person said that who asked is not this machine.
const DENIED: &str = "Denied";
/// Its agent has asked since and was believed.
const BELIEVED: &str = "Believed";

/// The conflict that a person settled last, and of whom it was said, until that one has asked.
pub(super) fn settled(machine: &Hardware) -> Option<(&Condition, &Asked)> {
    condition(&machine.status.conditions, CONFLICT)
        .filter(|c| c.status == ConditionStatus::False && c.reason == SETTLED)
        .zip(machine.status.in_doubt.as_ref())
}

/// Whether a person has said of this agent, by the card that it booted from and its board, that it is the machine.
pub(super) fn is_believed(machine: &Hardware, said: &Anchors) -> bool {
    settled(machine).is_some_and(|(_, meant)| meant.said == *said && meant.elsewhere.is_empty())
}

/// To which machines (by uid), one of them, a person has said that the card was moved which this agent boots from.
pub(super) fn moved_to<'a>(machine: &'a Hardware, said: &Anchors) -> &'a [Uuid] {
    settled(machine)
        .filter(|(_, meant)| meant.said == *said)
        .map(|(_, meant)| meant.elsewhere.as_slice())
        .unwrap_or_default()
}

/// Whether an answer was not used for so long that it is none any more.
pub(super) fn is_forgotten(machine: &Hardware, now: Timestamp) -> bool {
    settled(machine).is_some_and(|(answer, _)| now.since(answer.last_transition_time) >= ANSWER_LIFE)
}

/// Of whom a conflict asks, for a person. What strangers say of themselves is quoted: it may read like words of ours.
pub(super) fn whom(machine: &Hardware) -> String {
    let Some(Asked { said, others, .. }) = &machine.status.in_doubt else { return "the agent that asks".to_owned() };
    let listed = |cards: &[Mac]| cards.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
    let product = said.product.as_ref().map(|product| format!(" {product:?}")).unwrap_or_default();
    let serial =
        said.serial.as_ref().map_or("without a serial number".to_owned(), |s| format!("with serial number {s:?}"));
    let uuid = said.smbios_uuid.map_or("without an SMBIOS UUID".to_owned(), |uuid| format!("SMBIOS UUID {uuid}"));
    let others = if others.is_empty() { String::new() } else { format!(", and has {} too", listed(others)) };
    format!("who boots from {} on the board{product} {serial}, {uuid}{others}", listed(&said.macs))
}

/// The command that answers what is asked about a machine, and nothing that is asked later.
pub(super) fn answer(verb: &str, machine: &Hardware) -> String {
    let question = machine.question().map(|question| format!(" --question {question}")).unwrap_or_default();
    format!("dragonfly {verb} {}{question}", machine.name())
}

/// Settles a machine's conflict: whoever asked is believed when it asks again.
pub(super) fn settle(machine: &mut Hardware, words: &str, now: Timestamp) {
    // The answer counts from now on, also where it takes one back that was given long ago.
    machine.status.conditions.retain(|c| c.kind != CONFLICT);
    set_condition(&mut machine.status.conditions, CONFLICT, ConditionStatus::False, SETTLED, words, now);
}

/// Denies it: whoever asked is not this machine, and asks about it no more.
pub(super) fn deny(machine: &mut Hardware, words: &str, now: Timestamp) {
    let reason = if machine.is_seen_elsewhere() { NOT_MOVED } else { DENIED };
    // Whoever asks next does so 15 minutes from now on.
    machine.status.conditions.retain(|c| c.kind != CONFLICT);
    set_condition(&mut machine.status.conditions, CONFLICT, ConditionStatus::False, reason, words, now);
}

/// What a person denied last, and of whom.
pub(super) fn denied(machine: &Hardware) -> Option<&Asked> {
    condition(&machine.status.conditions, CONFLICT)
        .filter(|c| c.status == ConditionStatus::False && (c.reason == DENIED || c.reason == NOT_MOVED))
        .and(machine.status.in_doubt.as_ref())
}

/// A conflict is over, for this reason.
pub(super) fn end(machine: &mut Hardware, words: &str, now: Timestamp) {
    machine.status.in_doubt = None;
    set_condition(&mut machine.status.conditions, CONFLICT, ConditionStatus::False, BELIEVED, words, now);
}

/// Asks a person whether whoever says this is the machine. `false` where it was denied, where another question is open, or
/// where it was answered and whom it was about has not asked again yet.
pub(super) fn ask(
    machine: &mut Hardware,
    asks: &Asked,
    status: ConditionStatus,
    reason: &str,
    why: &str,
    now: Timestamp,
) -> bool {
    let is_another = machine.status.in_doubt.as_ref().is_some_and(|asked| asked != asks);
    if denied(machine).is_some() && !is_another {
        return false;
    }
    let open = condition(&machine.status.conditions, CONFLICT)
        .filter(|c| c.status != ConditionStatus::False || settled(machine).is_some() || denied(machine).is_some());
    if let Some(open) = open.filter(|_| is_another) {
        // What is told is what is answered, whenever that is.
        if open.status != ConditionStatus::False || now.since(open.last_transition_time) < PATIENCE {
            return false;
        }
        machine.status.conditions.retain(|c| c.kind != CONFLICT);
    }
    machine.status.in_doubt = Some(asks.clone());
    set_condition(&mut machine.status.conditions, CONFLICT, status, reason, why, now);
    true
}

/// Ends what was asked of a machine, once the agent says hello that a person has said is the machine's. `said` is what it
/// says; the other machines' cards that it was said of are returned.
pub(super) fn answered(machine: &mut Hardware, said: &Anchors, now: Timestamp) -> Option<Vec<Mac>> {
    if !is_believed(machine, said) {
        return None;
    }
    let (words, others) = settled(machine).map(|(answer, meant)| (answer.message.clone(), meant.others.clone()))?;
    end(machine, &words, now);
    Some(others)
}

/// A machine's own agent speaks, from its own card and on its board: what was asked or said of that card is past, and of
/// whoever asked from a card that is not its own, also where a person has said that he is right.
pub(super) fn own_asks(machine: &mut Hardware, now: Timestamp) {
    let status = &machine.status;
    let (Some(asked), Some(session)) = (&status.in_doubt, &status.session) else { return };
    if denied(machine).is_some_and(|denied| denied.said == session.said) && unproven(machine).is_none() {
        end(machine, "its own agent has asked since", now);
        return;
    }
    let of_foreign = asked.said.macs.iter().all(|card| !is_own(machine, *card));
    let is_open = is_asked_about(machine) || settled(machine).is_some();
    let is_past = is_open && (of_foreign || asked.said.macs == session.said.macs);
    if is_past && !is_foreign(machine) && unproven(machine).is_none() {
        end(machine, "its own agent has asked since", now);
    }
}

pub(super) fn is_in_conflict(machine: &Hardware) -> bool {
    machine.conflict().is_some()
}

/// Whether somebody asks to be this machine who does not hold it up: from a card that is not its own, or from its card on
/// another's board while its own agent lives without it. A person can say that it is right.
pub(super) fn is_asked_about(machine: &Hardware) -> bool {
    condition(&machine.status.conditions, CONFLICT).is_some_and(|c| c.status == ConditionStatus::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::HardwareSpec;
    use crate::resource::hardware::SessionInfo;
    use crate::resource::tokens::UsedTokens;
    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000).plus(Duration::from_secs(60 * minutes))
    }

    fn card(n: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, n])
    }

    fn said(n: u8, serial: &str) -> Anchors {
        Anchors { macs: vec![card(n)], serial: Some(serial.to_owned()), ..Anchors::default() }
    }

    fn asks(n: u8, serial: &str) -> Asked {
        Asked { said: said(n, serial), ..Asked::default() }
    }

    fn machine() -> Hardware {
        Hardware::new("a", HardwareSpec { macs: vec![card(1)], ..HardwareSpec::default() })
    }

    /// What is told is what is answered: whoever asks next does not take its place at once.
    #[test]
    fn a_question_stands_until_it_was_answered() {
        use ConditionStatus::{True, Unknown};
        let (first, next) = (asks(1, "X"), asks(1, "Y"));
        // (what holds, what is asked next, minutes later) -> whether the next question is open.
        let table = [
            (True, True, 14, false),
            (True, True, 99, false),
            (Unknown, Unknown, 14, false),
            (Unknown, Unknown, 99, false),
            (Unknown, True, 99, false),
            (True, Unknown, 99, false),
        ];
        for (holds, asks, minutes, is_open) in table {
            let mut machine = machine();
            assert!(ask(&mut machine, &first, holds, DISAGREE, "first", at(0)));
            assert!(ask(&mut machine, &first, holds, DISAGREE, "first", at(1)), "the same asks again");
            assert_eq!(ask(&mut machine, &next, asks, DISAGREE, "next", at(minutes)), is_open, "{holds:?} {asks:?}");
            let meant = if is_open { &next } else { &first };
            assert_eq!(machine.status.in_doubt.as_ref(), Some(meant));
            settle(&mut machine, "settled", at(minutes));
            let another = if is_open { &first } else { &next };
            assert!(is_believed(&machine, &meant.said) && !is_believed(&machine, &another.said));
        }
    }

    #[test]
    fn an_answer_is_for_one_and_is_used_up_by_that_one() {
        let (meant, other) = (asks(1, "X"), asks(2, "X"));
        let mut machine = machine();
        ask(&mut machine, &meant, ConditionStatus::True, DISAGREE, "why", at(0));
        assert!(!is_believed(&machine, &meant.said), "nobody has answered");
        settle(&mut machine, "settled", at(1));
        assert_eq!(answered(&mut machine, &other.said, at(2)), None);
        // Nor does another's question take its place before that one has had the time to ask.
        assert!(!ask(&mut machine, &other, ConditionStatus::True, DISAGREE, "why", at(2)));
        assert_eq!(answered(&mut machine, &meant.said, at(3)), Some(vec![]));
        assert_eq!(answered(&mut machine, &meant.said, at(4)), None);
        assert!(ask(&mut machine, &other, ConditionStatus::True, DISAGREE, "why", at(5)));
    }

    #[test]
    fn who_was_denied_asks_no_more_and_nobody_does_for_a_while() {
        let (liar, other) = (asks(1, "X"), asks(1, "Y"));
        let mut machine = machine();
        ask(&mut machine, &liar, ConditionStatus::True, DISAGREE, "why", at(0));
        deny(&mut machine, "denied", at(60));
        assert!(!is_in_conflict(&machine) && !is_believed(&machine, &liar.said));
        // (who asks, minutes after) -> whether it is a question.
        for (asks, minutes, is_open) in
            [(&liar, 0, false), (&other, 14, false), (&liar, 999, false), (&other, 999, true)]
        {
            let asked = ask(&mut machine, asks, ConditionStatus::True, DISAGREE, "why", at(60 + minutes));
            assert_eq!(asked, is_open, "{asks:?} {minutes}");
        }
        assert!(is_in_conflict(&machine));
    }

    #[test]
    fn its_own_agent_ends_what_was_asked_of_its_card_or_of_a_foreign_one() {
        use ConditionStatus::{True, Unknown};
        // (who asked, what it made of the machine, from which card its agent speaks) -> whether it is past.
        let table = [
            (asks(9, "A"), Unknown, 1, true),
            (asks(9, "A"), Unknown, 9, false),
            (asks(1, "B"), Unknown, 1, true),
            (asks(1, "B"), Unknown, 2, false),
            (asks(1, "B"), True, 1, false),
        ];
        for (asks, holds, from, is_past) in table {
            let mut machine = machine();
            machine.status.proven = Some(Anchors { macs: vec![card(1), card(2)], ..said(1, "A") });
            ask(&mut machine, &asks, holds, DISAGREE, "why", at(0));
            machine.status.session = Some(SessionInfo {
                id: Uuid::nil(),
                boot_id: Uuid::nil(),
                used_tokens: UsedTokens::default(),
                opened_at: at(0),
                said: said(from, "A"),
                named: Vec::new(),
                others: Vec::new(),
                accepted: Vec::new(),
                doubt: None,
                ended: false,
            });
            own_asks(&mut machine, at(1));
            assert_eq!(machine.status.in_doubt.is_none(), is_past, "{asks:?} {holds:?} {from}");
        }
    }
}
