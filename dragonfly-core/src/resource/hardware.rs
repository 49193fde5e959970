//! Hardware: one physical or virtual machine.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::power::{PowerPolicy, PowerStatus};
use super::tokens::UsedTokens;
use super::{Condition, Kind, Resource, Spec, address};
use crate::Mac;
use crate::clock::Timestamp;
use crate::few::few;
use crate::inventory::Inventory;
use crate::lifecycle::Phase;
use crate::power::BootMode;

/// One physical or virtual machine.
pub type Hardware = Resource<HardwareSpec>;

/// What people want of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HardwareSpec {
    /// The memorable name with its capitals.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// Addresses of its network cards; the first is the one that booted first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<Mac>,
    /// The serial number (SMBIOS type 1) that it must have: it is known by it before it was seen, and an agent that
    /// tells another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// A fixed address and name, given by DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Reservation>,
    /// Its management controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<Bmc>,
    /// Kernel console, as in `console=`: `ttyS0,115200`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
    /// How much this machine must prove before a template's secrets go to it.
    #[serde(default)]
    pub trust: Trust,
    /// Refuses assign and reimage until taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
    /// A person's word that nothing is to be done to it; boots from its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Boot this iPXE script instead of anything else.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address::script")]
    #[schemars(with = "Option<String>")]
    pub chain: Option<Url>,
}

/// A fixed address for one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The address.
    pub address: IpAddr,
    /// DHCP option 12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// Where a management controller answers and whose credentials open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bmc {
    /// `ipmi://10.0.0.6`, `redfish://10.0.0.5/redfish/v1/Systems/1`; never with a password in it.
    #[serde(deserialize_with = "address::controller")]
    #[schemars(with = "String")]
    pub address: Url,
    /// A Secret with the keys `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
    /// How the controller is told to have firmware boot: `uefi` or `legacy`. What the agent saw, without; of a machine
    /// that no agent has seen, whatever its firmware is set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
}

/// Another object by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    /// `metadata.name`.
    pub name: String,
}

/// What a machine must show before it is given a template's secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// It asks from the provisioning network with the token of its boot.
    #[default]
    Network,
    /// We power-cycled it through its BMC in the last 15 minutes.
    Bmc,
    /// It proves a TPM key.
    Tpm,
}

/// What the engine knows of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HardwareStatus {
    /// Where in its life it is; absent before its agent first reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// When the phase was entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Timestamp>,
    /// Why it is in this phase, for a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Facts beside the phase.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What tells it from other machines, as its agent said it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchors: Option<Anchors>,
    /// What it said of itself when it first asked from a card of its own, or when a person last settled which machine it
    /// is; of its cards those that it booted from then. What is said later adds nothing to it: whoever speaks for a
    /// machine could give it another machine's board, one word after the other, and that machine would be installed in
    /// its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<Anchors>,
    /// Who asks, while it is in doubt who this machine is, and what is asked. Once a person has settled that, whom and what
    /// it was said of: nobody else is believed for it, and for nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<Asked>,
    /// What the agent saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// The operating system found on its disks by discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_os: Option<ExistingOs>,
    /// The workflow at work, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The template that the last finished workflow installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed: Option<String>,
    /// Leave to destroy what is on its disks; made by assign and reimage only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorisation: Option<Authorisation>,
    /// The number of the last authorisation, so that an old one never comes back. Each is beyond those before
    /// it and no less than the second (Unix time) at which it was given, for disks bear it after the record is gone.
    #[serde(skip_serializing_if = "super::is_zero")]
    pub authorisation_generation: u64,
    /// The agent's session that speaks for it, or the last one that did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionInfo>,
    /// Where its agent asked from last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// When anything was last heard from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Which of several instances wrote this last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub writer: String,
    /// What its controller was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerStatus>,
}

/// Which boot of which agent speaks for a machine. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionInfo {
    /// Its public id.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// The agent's boot.
    #[schemars(with = "String")]
    pub boot_id: Uuid,
    /// The tokens that have opened this session and those before it.
    #[serde(default)]
    pub used_tokens: UsedTokens,
    /// When the first session of this boot of the agent was opened.
    pub opened_at: Timestamp,
    /// What its agent says of the board, and the card that it booted from; of other cards nothing.
    #[serde(default)]
    pub said: Anchors,
    /// Which of the cards that it names were the machine's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<Mac>,
    /// Some of those that were another machine's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Mac>,
    /// Others' cards that it may name: a person has said that an agent that named them is right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Mac>,
    /// Another agent asked to speak for the machine, and this one is to show that it lives: its next word takes
    /// this away.
    #[schemars(with = "Option<String>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Uuid>,
    /// Its agent has left, or was switched off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// What tells one machine from another. A placeholder is left out before it gets here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Anchors {
    /// Every address of its own network cards.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "few::<1024, _, _>")]
    pub macs: Vec<Mac>,
    /// SMBIOS type 1 UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub smbios_uuid: Option<Uuid>,
    /// SMBIOS type 1 serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// SMBIOS type 1 product name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

/// What a person is asked about a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Asked {
    /// Of whom: the card that he booted from, and what he says of the board.
    #[serde(flatten)]
    pub said: Anchors,
    /// On a board without numbers of its own: which cards of other machines he says that he has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Mac>,
    /// The machines (by uid) whose board it is: asked is then if the card was moved there, and not if the board was replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub elsewhere: Vec<Uuid>,
}

/// An operating system found on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExistingOs {
    /// As it names itself: `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// The disk it is on, by kernel name: `sda`.
    pub disk: String,
    /// What it was told by: `os-release`, `boot-loader`, `efi-system-partition`.
    pub evidence: String,
}

/// Leave to destroy, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorisation {
    /// The workflow it is for, by name and uid: a workflow of the same name made later is another.
    pub workflow: String,
    /// That workflow's uid.
    #[schemars(with = "String")]
    pub workflow_uid: Uuid,
    /// Its number among this machine's authorisations.
    pub generation: u64,
    /// When it was given.
    pub granted_at: Timestamp,
    /// When it ends, used or not.
    pub expires_at: Timestamp,
    /// Who gave it.
    pub granted_by: String,
    /// Whether disks that carry data may be overwritten.
    #[serde(default)]
    pub overwrite: Overwrite,
    /// Whether the machine is booted for it.
    #[serde(default)]
    pub power: PowerPolicy,
    /// Set when its workflow has begun. A finished or failed-for-good workflow ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
}

/// Which disks that carry data may be overwritten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Overwrite {
    /// None: only blank disks are written.
    #[default]
    Blank,
    /// Those with these serial numbers or kernel names.
    Disks(Vec<String>),
    /// Any disk that the template names.
    All,
}

impl Spec for HardwareSpec {
    const KIND: Kind = Kind::HARDWARE;
    type Status = HardwareStatus;

    fn written_by(status: &mut HardwareStatus, instance: &str) {
        instance.clone_into(&mut status.writer);
    }
}
