//! Machines of which it is in doubt which they are.

use sha2::{Digest as _, Sha256};

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

    /// Which question about its identity is open, or was answered last: 16 hexadecimal digits, the same for as long as it
    /// is about the same agent and asks the same of it. Who answers can give it back, so that an answer is never taken
    /// for one to a question that has come since.
    pub fn question(&self) -> Option<String> {
        let asks = self.status.in_doubt.as_ref()?;
        // Of this machine, and not of one that is made anew under its name. Debug forms quote what strangers say: no two
        // that differ read the same.
        let text = format!("{:?} {asks:?}", self.metadata.uid);
        Some(hex::encode(&Sha256::digest(text)[..8]))
    }

    /// Whether what is, or was, asked is if a card of it was moved to the machine on whose board it is seen.
    pub fn is_seen_elsewhere(&self) -> bool {
        self.status.in_doubt.as_ref().is_some_and(|asked| !asked.elsewhere.is_empty())
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
    use crate::Mac;
    use crate::clock::Timestamp;
    use crate::resource::hardware::{Anchors, Asked};
    use crate::resource::{HardwareSpec, set_condition};
    use uuid::Uuid;

    #[test]
    fn a_question_is_another_one_when_it_is_about_another_or_asks_something_else() {
        let asked = |card: u8, serial: Option<&str>, uuid: Option<u128>| {
            let mut machine = Hardware::new("m", HardwareSpec::default());
            let said = Anchors {
                macs: vec![Mac::new([2, 0, 0, 0, 0, card])],
                serial: serial.map(str::to_owned),
                smbios_uuid: uuid.map(Uuid::from_u128),
                ..Anchors::default()
            };
            machine.status.in_doubt = Some(Asked { said, ..Asked::default() });
            machine
        };
        let with = |change: fn(&mut Hardware, &mut Asked)| {
            let mut machine = asked(1, Some("X"), Some(1));
            let mut doubt = machine.status.in_doubt.take().unwrap_or_default();
            change(&mut machine, &mut doubt);
            machine.status.in_doubt = Some(doubt);
            machine
        };
        assert_eq!(Hardware::new("m", HardwareSpec::default()).question(), None);
        let all = [
            asked(1, Some("X"), Some(1)),
            asked(2, Some("X"), Some(1)),
            asked(1, Some("Y"), Some(1)),
            asked(1, Some("X\"), smbios_uuid: Some(1"), Some(1)),
            asked(1, None, Some(1)),
            asked(1, Some("None"), Some(1)),
            asked(1, Some("X"), Some(2)),
            asked(1, Some("X"), None),
            with(|_, asked| asked.said.product = Some("P".to_owned())),
            with(|_, asked| asked.others = asked.said.macs.clone()),
            with(|_, asked| asked.elsewhere = vec![Uuid::from_u128(1)]),
            with(|_, asked| asked.elsewhere = vec![Uuid::from_u128(2)]),
            // Made anew under its name.
            with(|machine, _| machine.metadata.uid = Some(Uuid::from_u128(9))),
        ];
        let questions: std::collections::BTreeSet<_> = all.iter().filter_map(Hardware::question).collect();
        assert_eq!(questions.len(), all.len());
        assert!(questions.iter().all(|question| question.len() == 16), "{questions:?}");
        // What a person answered is the same question: an answer can be taken back.
        let mut answered = all[0].clone();
        let at = Timestamp::UNIX_EPOCH;
        set_condition(&mut answered.status.conditions, CONFLICT, ConditionStatus::False, "Denied", "no", at);
        assert_eq!(answered.question(), all[0].question());
    }

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
