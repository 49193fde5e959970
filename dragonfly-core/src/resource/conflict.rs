//! Machines of which it is in doubt which they are.

use super::{Condition, ConditionStatus, Hardware, condition};

/// The condition that two machines claim to be this one, or that it is not the one that it is to be.
pub const CONFLICT: &str = "IdentityConflict";

/// Why a conflict holds: a card of the machine is seen on a board that is another machine's.
pub(crate) const ELSEWHERE: &str = "SeenElsewhere";

/// Why it does not: a person said that its card is not there.
pub(crate) const NOT_MOVED: &str = "NotMoved";

/// What is said of a machine that nothing was assigned to.
pub(crate) const WAITING: &str = "waiting for an assignment";

impl Hardware {
    /// The conflict about its identity that nobody has settled yet. Nothing is assigned to it until then.
    pub fn conflict(&self) -> Option<&Condition> {
        condition(&self.status.conditions, CONFLICT).filter(|conflict| conflict.status == ConditionStatus::True)
    }

    /// Whether a person is asked if somebody is this machine, be it held for that or not.
    pub fn is_asked_about(&self) -> bool {
        let asks = |c: &Condition| matches!(c.status, ConditionStatus::True | ConditionStatus::Unknown);
        self.status.in_doubt.is_some() && condition(&self.status.conditions, CONFLICT).is_some_and(asks)
    }

    /// Whether what is, or was, asked is if a card of it was moved to the machine on whose board it is seen.
    pub fn is_seen_elsewhere(&self) -> bool {
        condition(&self.status.conditions, CONFLICT).is_some_and(|c| c.reason == ELSEWHERE || c.reason == NOT_MOVED)
    }

    /// What it does or waits for, in words for a person: with its identity in conflict it waits for that to be settled,
    /// since what is assigned before is refused.
    pub fn message(&self) -> &str {
        let said = self.status.message.as_str();
        let waits = said.is_empty() || said.ends_with(WAITING);
        if waits && self.conflict().is_some() { "its identity is in conflict" } else { said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::resource::{HardwareSpec, set_condition};

    #[test]
    fn who_is_in_conflict_waits_for_nothing_else() {
        let released = format!("released by admin; {WAITING}");
        let conflict = "its identity is in conflict";
        let table = [
            ("", ConditionStatus::False, ""),
            ("", ConditionStatus::True, conflict),
            (WAITING, ConditionStatus::False, WAITING),
            (WAITING, ConditionStatus::True, conflict),
            (released.as_str(), ConditionStatus::True, conflict),
            ("image: 12 %", ConditionStatus::True, "image: 12 %"),
        ];
        for (said, status, want) in table {
            let mut machine = Hardware::new("m", HardwareSpec::default());
            machine.status.message = said.to_owned();
            let at = Timestamp::UNIX_EPOCH;
            set_condition(&mut machine.status.conditions, CONFLICT, status, "AnchorsDisagree", "why", at);
            assert_eq!(machine.message(), want, "{said} {status:?}");
        }
    }
}
