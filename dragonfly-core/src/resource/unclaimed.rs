//! Machines that wrote themselves down, and that nobody has had anything to do with since.

use super::hardware::Trust;
use super::{Hardware, HardwareSpec, REGION_LABEL};
use crate::lifecycle::Phase;
use crate::name;

impl Hardware {
    /// Whether its record is as the machine's own first word made it: named after its card, never edited, labelled or
    /// assigned to. Whoever can boot from the network can make such records; deleted, such a machine registers anew.
    pub fn is_unclaimed(&self) -> bool {
        let status = &self.status;
        let is_new = matches!(status.phase, None | Some(Phase::Registered))
            && status.workflow.is_none()
            && status.installed.is_none()
            && status.authorisation_generation == 0;
        let metadata = &self.metadata;
        let is_untouched = metadata.generation <= 1
            && metadata.annotations.is_empty()
            // A server gives its region to what registers at it.
            && metadata.labels.keys().all(|label| label == REGION_LABEL);
        is_new && is_untouched && is_as_found(&self.spec)
    }
}

/// Whether there is nothing in a spec but what a machine says of itself.
fn is_as_found(spec: &HardwareSpec) -> bool {
    let HardwareSpec {
        display_name,
        macs,
        serial: None,
        dhcp: None,
        bmc: None,
        console: None,
        trust: Trust::Network,
        protected: false,
        hold: None,
        chain: None,
    } = spec
    else {
        return false;
    };
    let Some(card) = macs.first() else { return false };
    let rest = display_name.strip_prefix(&name::memorable(*card));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;

    #[test]
    fn whoever_was_touched_is_claimed() {
        let card = Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 1]);
        let found = |display_name: &str| {
            let spec = HardwareSpec { display_name: display_name.into(), macs: vec![card], ..HardwareSpec::default() };
            let mut machine = Hardware::new("a", spec);
            machine.metadata.generation = 1;
            machine.status.phase = Some(Phase::Registered);
            machine
        };
        let own = "CensusAbleQualityParent";
        type Touch = fn(&mut Hardware);
        let table: [(&str, Touch, bool); 16] = [
            (own, |_| (), true),
            ("CensusAbleQualityParent-2", |_| (), true),
            (own, |m| m.status.phase = None, true),
            (own, |m| drop(m.metadata.labels.insert(REGION_LABEL.into(), "north".into())), true),
            ("rack-7", |_| (), false),
            ("", |_| (), false),
            (own, |m| m.spec.macs.clear(), false),
            (own, |m| drop(m.metadata.labels.insert("rack".into(), "a1".into())), false),
            (own, |m| drop(m.metadata.annotations.insert("note".into(), String::new())), false),
            (own, |m| m.metadata.generation = 2, false),
            (own, |m| m.spec.protected = true, false),
            (own, |m| m.spec.serial = Some("S1".into()), false),
            (own, |m| m.status.phase = Some(Phase::Assigned), false),
            (own, |m| m.status.workflow = Some("w".into()), false),
            (own, |m| m.status.installed = Some("debian".into()), false),
            (own, |m| m.status.authorisation_generation = 9, false),
        ];
        for (n, (name, touch, is_unclaimed)) in table.into_iter().enumerate() {
            let mut machine = found(name);
            touch(&mut machine);
            assert_eq!(machine.is_unclaimed(), is_unclaimed, "{n}");
        }
    }
}
