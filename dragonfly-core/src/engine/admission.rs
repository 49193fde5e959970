//! What a person may write anew, beyond what an object may be.
//!
//! These rules came later than objects that break them, so only what is new or different is refused: what has been
//! taken once stays as it is while something else is changed.

use super::anchors::is_placeholder;
use super::{Engine, written};
use crate::action::Problem;
use crate::cache::Cached;
use crate::resource::{
    Hardware, HardwareSpec, Kind, NetworkSpec, Record, Resource, SecretSpec, TemplateSpec, WorkflowSpec, words,
};

impl Engine {
    /// Everything that is refused of an object as it is to be.
    pub(super) fn not_admitted(&self, record: &Record) -> Vec<Problem> {
        let mut problems = self.words_refused(record);
        match record.kind {
            // Where Tinkerbell carries them out, texts are in its language.
            Kind::TEMPLATE if !self.is_tinkerbells() => {
                let mut new = unfillable(record);
                if !new.is_empty()
                    && let Some(old) = self.known_as::<TemplateSpec>(record)
                {
                    let old = unfillable(&old);
                    new.retain(|problem| !old.contains(problem));
                }
                problems.extend(new);
            }
            Kind::HARDWARE => {
                let old = self.inner.cache.get::<HardwareSpec>(&record.metadata.name);
                let version = &record.metadata.resource_version;
                // What was made of an older version is refused for that, when it is written.
                let is_current =
                    version.is_empty() || old.as_ref().is_none_or(|o| o.metadata.resource_version == *version);
                let new = record.decode::<HardwareSpec>().ok().filter(|_| is_current);
                let old = old.as_deref().map(|old| &old.spec);
                problems.extend(new.as_ref().and_then(|new| nameless(old, new)));
                problems.extend(new.as_ref().and_then(|new| no_serial(old, &new.spec)));
            }
            _ => {}
        }
        problems
    }

    /// Labels, annotations and finalizers that Kubernetes would refuse.
    pub(super) fn words_refused(&self, record: &Record) -> Vec<Problem> {
        let mut new = words::problems(&record.metadata);
        if new.is_empty() {
            return Vec::new();
        }
        let old = match record.kind {
            Kind::HARDWARE => self.known_as::<HardwareSpec>(record),
            Kind::TEMPLATE => self.known_as::<TemplateSpec>(record),
            Kind::WORKFLOW => self.known_as::<WorkflowSpec>(record),
            Kind::NETWORK => self.known_as::<NetworkSpec>(record),
            Kind::SECRET => self.known_as::<SecretSpec>(record),
            _ => None,
        };
        if let Some(old) = old {
            let old = words::problems(&old.metadata);
            new.retain(|problem| !old.contains(problem));
        }
        new.into_iter().map(|(path, problem)| Problem { path, problem }).collect()
    }

    /// The object of this name as it is known, without its status.
    fn known_as<S: Cached>(&self, record: &Record) -> Option<Record> {
        let known = self.inner.cache.get::<S>(&record.metadata.name)?;
        let Resource { metadata, spec, .. } = &*known;
        Some(Record::from(&Resource { metadata: metadata.clone(), spec: spec.clone(), status: S::Status::default() }))
    }
}

fn unfillable(template: &Record) -> Vec<Problem> {
    let Ok(template) = template.decode::<TemplateSpec>() else { return Vec::new() };
    let found = written::problems(&template.spec).into_iter();
    found.map(|Problem { path, problem }| Problem { path: format!("spec.{path}"), problem }).collect()
}

/// A machine that could not be told from others when it comes: a card or a serial number does that. One with a
/// controller is known by that, as VMs without a card are.
fn nameless(old: Option<&HardwareSpec>, new: &Hardware) -> Option<Problem> {
    if !new.spec.macs.is_empty() || new.spec.serial.is_some() {
        return None;
    }
    let problem = match old {
        Some(old) if !old.macs.is_empty() => {
            let macs: Vec<String> = old.macs.iter().map(ToString::to_string).collect();
            format!(
                "this takes away the cards that {} is known by: write macs: ['{}'], or spec.serial; a machine that is no \
                 more is deleted",
                new.name(),
                macs.join("', '")
            )
        }
        _ if new.spec.bmc.is_some() => return None,
        // It was so before.
        Some(old) if old.serial.is_none() && old.bmc.is_none() => return None,
        _ => "nothing tells this machine from others when it boots: write the addresses of its cards, \
              macs: ['52:54:00:ab:cd:01'], or the serial number of its board in spec.serial"
            .to_owned(),
    };
    Some(Problem { path: "spec.macs".to_owned(), problem })
}

/// A serial number that no board is known by: it would never be found.
fn no_serial(old: Option<&HardwareSpec>, new: &HardwareSpec) -> Option<Problem> {
    let serial = new.serial.as_deref()?;
    if !is_placeholder(serial.trim()) || old.is_some_and(|old| old.serial.as_deref() == Some(serial)) {
        return None;
    }
    let problem =
        format!("`{serial}` is what boards without a serial number say; write the addresses of its cards instead");
    Some(Problem { path: "spec.serial".to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_serial_number_tells_one_machine_from_others() {
        let spec = |serial: &str| HardwareSpec { serial: Some(serial.to_owned()), ..HardwareSpec::default() };
        for (old, new, is_refused) in [
            (None, "Default string", true),
            (None, "0000", true),
            (None, "", true),
            (None, "SN-1", false),
            (Some("SN-1"), "To Be Filled By O.E.M.", true),
            (Some("0000"), "0000", false),
        ] {
            assert_eq!(no_serial(old.map(spec).as_ref(), &spec(new)).is_some(), is_refused, "{old:?} {new}");
        }
    }

    #[test]
    fn a_machine_is_known_by_something() {
        let spec = |json: Value| serde_json::from_value::<HardwareSpec>(json).unwrap();
        let card = json!({ "macs": ["52:54:00:ab:cd:01", "52:54:00:ab:cd:02"] });
        let controller = json!({ "bmc": { "address": "proxmox://site/100" } });
        let taken_away = "write macs: ['52:54:00:ab:cd:01', '52:54:00:ab:cd:02'], or spec.serial";
        for (old, new, want) in [
            (None, json!({}), Some("nothing tells this machine from others")),
            (None, json!({ "macs": [] }), Some("nothing tells this machine from others")),
            (None, card.clone(), None),
            (None, json!({ "serial": "SN-1" }), None),
            (None, controller.clone(), None),
            (Some(card.clone()), json!({ "macs": [] }), Some(taken_away)),
            (Some(card.clone()), json!({ "hold": "a fan" }), Some(taken_away)),
            (Some(card.clone()), controller.clone(), Some(taken_away)),
            (Some(card), json!({ "serial": "SN-1" }), None),
            (Some(json!({ "serial": "SN-1" })), json!({}), Some("nothing tells this machine from others")),
            (Some(controller.clone()), json!({}), Some("nothing tells this machine from others")),
            (Some(controller.clone()), controller, None),
            (Some(json!({})), json!({ "hold": "a fan" }), None),
        ] {
            let made = Hardware::new("m", spec(new.clone()));
            let found = nameless(old.clone().map(spec).as_ref(), &made);
            let said = found.as_ref().map(|found| found.problem.as_str());
            match want {
                Some(want) => assert!(said.is_some_and(|said| said.contains(want)), "{old:?} {new}: {said:?}"),
                None => assert_eq!(said, None, "{old:?} {new}"),
            }
        }
    }
}
