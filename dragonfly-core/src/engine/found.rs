//! What discovery in Proxmox clusters wrote of a machine. It keeps that with the machine, so that it changes nothing
//! that a person wrote, and does not do again what a person has undone.

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::Mac;
use crate::resource::{Condition, ConditionStatus, Hardware, condition};

/// The label with the cluster that a machine was found in.
pub const CLUSTER_LABEL: &str = "dragonfly.computer/proxmox-cluster";
/// The label with the node that its VM is on.
pub const NODE_LABEL: &str = "dragonfly.computer/proxmox-node";
/// The label with its VM's number.
pub const VMID_LABEL: &str = "dragonfly.computer/proxmox-vmid";
/// The label with its VM's name.
pub const NAME_LABEL: &str = "dragonfly.computer/proxmox-name";
/// The condition that a machine's VM does not exist any more.
pub const GONE: &str = "Gone";
/// The condition that a VM, or several, have a MAC of this machine: which of them asks when it boots is not known.
pub const DOUBLED: &str = "MacDoubled";
/// The annotation with the rest of what discovery wrote.
const ANNOTATION: &str = "dragonfly.computer/proxmox";

/// What discovery wrote into a machine, besides labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Written {
    /// The VM's UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uuid: Option<Uuid>,
    /// `spec.macs`; of a machine that somebody else wrote down, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) macs: Option<Vec<Mac>>,
    /// `spec.bmc.address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bmc: Option<Url>,
    /// `spec.hold`, until the VM is adopted or somebody releases the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hold: Option<String>,
}

impl Written {
    /// One that cannot be read is as good as none: then nothing counts as ours.
    pub(super) fn of(machine: &Hardware) -> Self {
        let text = machine.metadata.annotations.get(ANNOTATION);
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    #[cfg(feature = "proxmox")]
    pub(super) fn keep(&self, machine: &mut Hardware) {
        if *self != Self::of(machine) || !machine.metadata.annotations.contains_key(ANNOTATION) {
            let text = serde_json::json!(self).to_string();
            machine.metadata.annotations.insert(ANNOTATION.to_owned(), text);
        }
    }
}

/// Why a machine's power is not ours to change: it was found, and neither adopted nor released.
pub(super) fn not_adopted(machine: &Hardware) -> Option<String> {
    machine.spec.hold.as_ref().and_then(|_| Written::of(machine).hold)
}

fn holding<'a>(machine: &'a Hardware, kind: &str) -> Option<&'a Condition> {
    condition(&machine.status.conditions, kind).filter(|condition| condition.status == ConditionStatus::True)
}

/// Why a machine cannot be told from another.
pub(super) fn doubled(machine: &Hardware) -> Option<&str> {
    holding(machine, DOUBLED).map(|condition| &*condition.message)
}

/// Why there is nothing behind a machine.
pub(super) fn gone(machine: &Hardware) -> Option<&str> {
    holding(machine, GONE).map(|condition| &*condition.message)
}
