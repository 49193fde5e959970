//! Machines whose identity is in doubt: how a conflict is told, how a person settles it, what becomes of cards that moved.

use super::boot::CONFLICT;
use super::{Engine, EngineError, Result};
use crate::resource::hardware::Anchors;
use crate::resource::{Condition, ConditionStatus, Hardware, HardwareSpec, Record, condition, set_condition};
use crate::wire::Hello;

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

fn is_in_conflict(machine: &Hardware) -> bool {
    condition(&machine.status.conditions, CONFLICT).is_some_and(|c| c.status == ConditionStatus::True)
}

impl Engine {
    /// Holds the machine whose card asks; says what settles it.
    pub(super) async fn conflict(&self, hello: &Hello, machines: &[String], why: &str) -> EngineError {
        let now = self.now();
        let reason = if machines.len() > 1 { ELSEWHERE } else { DISAGREE };
        let mut held = Vec::new();
        for name in machines {
            // Only the machine whose card asks is held: the others have done nothing.
            let marked = self
                .change_status::<HardwareSpec, _>(name, |m| {
                    let its_card = m.spec.macs.contains(&hello.mac)
                        || m.status.anchors.as_ref().is_some_and(|a| a.macs.contains(&hello.mac));
                    if its_card {
                        set_condition(&mut m.status.conditions, CONFLICT, ConditionStatus::True, reason, why, now);
                    }
                    Ok(its_card)
                })
                .await;
            match marked {
                Ok((_, its_card)) => held.extend(its_card.then_some(name.as_str())),
                Err(error) => tracing::warn!(machine = %name, %error, "an identity conflict could not be written down"),
            }
            self.tell("identity.conflict", name, None, format!("{} says it is this machine, but {why}", hello.mac));
        }
        let others: Vec<&str> = machines.iter().map(String::as_str).filter(|name| !held.contains(name)).collect();
        let settles = match (&held[..], &others[..]) {
            ([one], []) => format!("dragonfly release {one}"),
            ([one], others) => {
                let others = others.join(" and ");
                format!(
                    "dragonfly release {one} if its card was moved to {others}; \
                     if this is {one} with another board, delete {others}"
                )
            }
            _ => {
                format!(
                    "take the addresses from all but one of {} (spec.macs, by dragonfly apply)",
                    machines.join(", ")
                )
            }
        };
        EngineError::Busy { why: format!("identity in conflict: {why}; an operator must settle it: {settles}") }
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
                if let Some(anchors) = &mut m.status.anchors {
                    anchors.macs.retain(|mac| !seen.macs.contains(mac));
                }
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
        let seen = new.status.anchors.as_ref().map(|anchors| anchors.macs.as_slice()).unwrap_or_default();
        if is_same || !(is_in_conflict(&new) || seen.iter().any(|mac| taken.contains(&mac))) {
            return Ok(());
        }
        let now = self.now();
        self.change_status::<HardwareSpec, _>(new.name(), |m| {
            if let Some(anchors) = &mut m.status.anchors {
                anchors.macs.retain(|mac| !taken.contains(&mac));
            }
            if is_in_conflict(m) {
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
