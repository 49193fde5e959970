//! What is written of a machine for what its VM is now. Only labels and fields that discovery owns are changed.

use super::ClusterSource;
use crate::Mac;
use crate::clock::Timestamp;
use crate::engine::found::{CLUSTER_LABEL, GONE, NAME_LABEL, NODE_LABEL, VMID_LABEL, Written};
use crate::engine::power::POWERED;
use crate::power::PowerState;
use crate::power::proxmox::{ADOPTED, Found};
use crate::resource::hardware::{Bmc, HardwareStatus, NameRef};
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, condition, set_condition};

/// Something to tell: the event's kind and words.
pub(super) type News = (&'static str, String);

/// A machine for a VM that is none yet; held unless its owner has adopted it.
pub(super) fn made(name: &str, found: &Found, source: &ClusterSource) -> Hardware {
    let hold = (!found.adopted).then(|| {
        format!(
            "found in Proxmox cluster {}; tag the VM `{ADOPTED}` there, or `dragonfly release {name}`, to let \
             Dragonfly manage it",
            found.cluster
        )
    });
    let spec = HardwareSpec { macs: found.macs.clone(), hold: hold.clone(), ..HardwareSpec::default() };
    let mut machine = Hardware::new(name, spec);
    Written { macs: Some(found.macs.clone()), hold, ..Written::default() }.keep(&mut machine);
    follow(&mut machine, found, source, |_| false);
    machine
}

/// Brings a machine up to its VM. `is_taken` tells MACs that belong to other machines.
pub(super) fn follow(
    machine: &mut Hardware,
    found: &Found,
    source: &ClusterSource,
    is_taken: impl Fn(Mac) -> bool,
) -> Vec<News> {
    let mut news = Vec::new();
    let mut written = Written::of(machine);
    label(machine, found, &mut news);
    if written.hold.is_some() && machine.spec.hold.is_none() {
        // Somebody released it: this is not held again.
        written.hold = None;
    }
    if found.adopted
        && let Some(hold) = written.hold.take()
    {
        // Another hold is a person's.
        if machine.spec.hold.as_ref() == Some(&hold) {
            machine.spec.hold = None;
            news.push(("machine.released", format!("its VM carries the tag `{ADOPTED}`: Dragonfly may manage it")));
        }
    }
    // While its configuration cannot be read, what was known holds.
    if found.trouble.is_none() {
        written.uuid = found.uuid;
        if let Some(old) = &mut written.macs
            && old != &found.macs
        {
            let macs = &mut machine.spec.macs;
            macs.retain(|mac| found.macs.contains(mac) || !old.contains(mac));
            let more: Vec<Mac> =
                found.macs.iter().copied().filter(|mac| !macs.contains(mac) && !is_taken(*mac)).collect();
            macs.extend(&more);
            old.retain(|mac| found.macs.contains(mac));
            old.extend(more);
        }
        let address = found.address(&source.address);
        match (&mut machine.spec.bmc, &written.bmc) {
            (None, None) => {
                let secret_ref = Some(NameRef { name: source.secret.clone() });
                machine.spec.bmc = Some(Bmc { address: address.clone(), secret_ref, boot_mode: None });
                written.bmc = Some(address);
            }
            // Still as it was written.
            (Some(bmc), Some(old)) if bmc.address == *old && bmc.address != address => {
                bmc.address = address.clone();
                written.bmc = Some(address);
            }
            // A person's, or taken away by one.
            _ => {}
        }
    }
    written.keep(machine);
    news
}

fn label(machine: &mut Hardware, found: &Found, news: &mut Vec<News>) {
    let labels = &mut machine.metadata.labels;
    let mut set = |key: &str, value: Option<String>| {
        let value = value?;
        let old = labels.insert(key.to_owned(), value.clone());
        (old.as_ref() != Some(&value)).then_some((old, value))
    };
    let cluster = set(CLUSTER_LABEL, label_value(&found.cluster));
    let vmid = set(VMID_LABEL, Some(found.vmid.to_string()));
    let node = set(NODE_LABEL, label_value(&found.node));
    // While its node does not answer a VM has no name.
    let name = set(NAME_LABEL, label_value(&found.name));
    if cluster.is_some() || vmid.is_some() {
        let Found { vmid, cluster, node, .. } = found;
        return news.push(("machine.found", format!("it is VM {vmid} of Proxmox cluster {cluster}, on {node}")));
    }
    if let Some((old, new)) = node {
        let from = old.map(|old| format!("from {old} ")).unwrap_or_default();
        news.push(("machine.moved", format!("its VM moved {from}to {new}")));
    }
    if let Some((_, new)) = name {
        news.push(("machine.renamed", format!("its VM is called {new}")));
    }
}

/// A text as the value of a label, for Kubernetes too: at most 63 letters, digits, `-`, `_` and `.`.
fn label_value(text: &str) -> Option<String> {
    let is_inner = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let value: String = text.chars().filter(is_inner).take(63).collect();
    let value = value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!value.is_empty()).then(|| value.to_owned())
}

/// Notes whether its VM runs, and that it is there. `began` is when it was looked at: what was done to it since then
/// is known better.
pub(super) fn note(status: &mut HardwareStatus, found: &Found, began: Timestamp, now: Timestamp) -> Vec<News> {
    let mut news = Vec::new();
    if is_gone(status) {
        let words = format!("VM {} is in cluster {}", found.vmid, found.cluster);
        set_condition(&mut status.conditions, GONE, ConditionStatus::False, "Found", &words, now);
        news.push(("machine.back", words));
    }
    let is_newer = status.power.as_ref().and_then(|power| power.last.as_ref()).is_some_and(|last| last.at >= began);
    let (is, reason, words) = match found.state {
        Some(PowerState::On) => (ConditionStatus::True, "Seen", "its cluster says that it is on".to_owned()),
        Some(PowerState::Off) => (ConditionStatus::False, "Seen", "its cluster says that it is off".to_owned()),
        None => (ConditionStatus::Unknown, "NodeSilent", format!("its node {} does not say", found.node)),
    };
    if !is_newer && power(status, is, reason, &words, now) {
        news.push(("power.changed", words));
    }
    news
}

/// Notes that its VM does not exist any more. Its phase, its history and whatever protects it stay.
pub(super) fn note_gone(status: &mut HardwareStatus, cluster: &str, now: Timestamp) -> Vec<News> {
    if is_gone(status) {
        return Vec::new();
    }
    let words = format!("its VM is no longer in Proxmox cluster {cluster}");
    set_condition(&mut status.conditions, GONE, ConditionStatus::True, "NotInCluster", &words, now);
    power(status, ConditionStatus::Unknown, "Gone", &words, now);
    vec![("machine.gone", words)]
}

fn is_gone(status: &HardwareStatus) -> bool {
    condition(&status.conditions, GONE).is_some_and(|gone| gone.status == ConditionStatus::True)
}

fn power(status: &mut HardwareStatus, is: ConditionStatus, reason: &str, words: &str, now: Timestamp) -> bool {
    let is_known = condition(&status.conditions, POWERED).is_some_and(|was| was.status == is && was.reason == reason);
    if !is_known {
        set_condition(&mut status.conditions, POWERED, is, reason, words, now);
    }
    !is_known
}

#[cfg(test)]
pub(super) mod tests;
