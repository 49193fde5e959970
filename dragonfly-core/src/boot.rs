//! What a machine that asks to boot is told, and why.
//!
//! [`decide`] is pure: firmware asks several times in one boot, and asking changes nothing. What
//! happened is learned from the agent's hello.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::lifecycle::Phase;
pub use crate::sighting::{Asker, DhcpAsk, Ended, Refusal, Seen, Sighting, silence};
use crate::wire::Identity;
use crate::{Mac, Source};

/// The instruction set of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// What asks: decides which boot loader can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI by TFTP.
    Uefi,
    /// UEFI by HTTP.
    UefiHttp,
}

/// A machine asks what to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRequest {
    /// The card it boots from.
    pub mac: Mac,
    /// What asks, when it said so.
    pub firmware: Option<Firmware>,
    /// Its instruction set, when it said so.
    pub arch: Option<Arch>,
    /// The address it asks from, when it has one.
    pub from: Option<IpAddr>,
    /// Our own address that it asked, when it asked by TCP: where it reaches this server.
    pub to: Option<SocketAddr>,
    /// DHCP option 97 or iPXE's `${uuid}`.
    pub smbios_uuid: Option<Uuid>,
}

impl BootRequest {
    /// A request of which only the card is known.
    pub fn from_mac(mac: Mac) -> Self {
        Self { mac, firmware: None, arch: None, from: None, to: None, smbios_uuid: None }
    }
}

/// What a machine is to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fate {
    /// Mage, to say what machine this is and wait for work.
    Discover,
    /// Mage, to run this workflow.
    Image {
        /// Its name.
        workflow: String,
    },
    /// Its own disk.
    Local,
    /// Its own disk, because something about it must be settled by a person first.
    Hold,
    /// Another boot script.
    Chain {
        /// Where that script is.
        url: Url,
    },
}

impl Fate {
    /// One word, for people and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Image { .. } => "image",
            Self::Local => "local",
            Self::Hold => "hold",
            Self::Chain { .. } => "chain",
        }
    }
}

/// A fate, its reason, and what the boot services need to carry it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// What it is to boot.
    #[serde(flatten)]
    pub fate: Fate,
    /// Why, for a person.
    pub reason: String,
    /// The machine's name, when it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Its reserved IPv4 address, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Its host name for DHCP, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its kernel console, if one was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<String>,
}

/// What the policy looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where in its life the machine is; `None` when it is unknown or never reported.
    pub phase: Option<Phase>,
    /// An agent has reported what this machine is.
    pub reported: bool,
    /// It was found with an operating system that we did not install.
    pub adopted: bool,
    /// A person's word, or the engine's, that nothing is to be done to it.
    pub hold: Option<String>,
    /// Two machines claim to be this one.
    pub conflict: Option<String>,
    /// Somebody set another boot script for it.
    pub chain: Option<Url>,
    /// The workflow that is to run, if it has an authorisation that still holds.
    pub authorised: Option<String>,
    /// Why there is none although the phase asks for one.
    pub unauthorised: Option<String>,
    /// Setting `discovery`.
    pub discovery: Discovery,
}

/// What is done with machines that nobody has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// Mage looks; a machine with an operating system is adopted and booted from its disk within a
    /// minute; a blank one waits.
    #[default]
    Local,
    /// Mage looks and waits, whatever is on the disk.
    Wait,
    /// They boot from their disk.
    Off,
}

/// The policy. First match wins; every answer carries its reason.
pub fn decide(facts: &Facts) -> (Fate, String) {
    if let Some(why) = &facts.conflict {
        return (Fate::Hold, format!("identity in conflict: {why}"));
    }
    if let Some(why) = &facts.hold {
        return (Fate::Hold, format!("held: {why}"));
    }
    if let Some(url) = &facts.chain {
        return (Fate::Chain { url: url.clone() }, "spec.chain is set".to_owned());
    }
    match facts.phase {
        None => match facts.discovery {
            Discovery::Off => (Fate::Local, "unknown machine, and discovery is off".to_owned()),
            Discovery::Local | Discovery::Wait => {
                (Fate::Discover, "nobody has seen this machine: its agent is to look at it".to_owned())
            }
        },
        Some(Phase::Registered) if facts.adopted => {
            (Fate::Local, "adopted: it carries an operating system that was there before us".to_owned())
        }
        Some(Phase::Registered) if !facts.reported => {
            (Fate::Discover, "no agent has seen this machine yet: one is to look at it".to_owned())
        }
        Some(Phase::Registered) => (Fate::Discover, "registered: its agent waits for an assignment".to_owned()),
        Some(Phase::Assigned | Phase::Provisioning) => match (&facts.authorised, &facts.unauthorised) {
            (Some(workflow), _) => {
                (Fate::Image { workflow: workflow.clone() }, format!("workflow {workflow} is authorised"))
            }
            (None, Some(why)) => (Fate::Hold, format!("not authorised: {why}")),
            (None, None) => (Fate::Hold, "not authorised: no assign or reimage stands behind this".to_owned()),
        },
        Some(Phase::Ready) => (Fate::Local, "ready: what was installed is to run".to_owned()),
        Some(Phase::Error) if !facts.reported => {
            (Fate::Discover, "in error, and no agent has seen this machine yet: one is to look at it".to_owned())
        }
        Some(Phase::Error) => (Fate::Discover, "in error: its agent waits for retry or a person".to_owned()),
        Some(Phase::Held) => (Fate::Hold, "held until a person releases it".to_owned()),
    }
}

/// Why no decision could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// Whoever was to decide could not. Firmware asks again; silence is safe.
    #[error("no boot decision could be made")]
    Provider {
        /// The cause.
        #[source]
        source: Source,
    },
}

/// Who decides what a machine boots. Boot services ask it for every packet and script.
#[async_trait]
pub trait BootProvider: fmt::Debug + Send + Sync + 'static {
    /// What this machine is to boot. Reads memory only and changes nothing: firmware asks several
    /// times in one boot.
    async fn decide(&self, request: &BootRequest) -> Result<Decision, BootError>;

    /// A fresh identity for the agent that this machine is about to boot; `None` when its fate is
    /// not to boot the agent, or when it does not ask from a provisioning network.
    async fn identity(&self, request: &BootRequest) -> Result<Option<Identity>, BootError>;

    /// The card that an address is reserved for: nobody else is leased it. Reads memory only; asked
    /// for each address that is considered. A provider without reservations keeps this.
    fn reserved_for(&self, address: Ipv4Addr) -> Option<Mac> {
        let _ = address;
        None
    }
}

/// Who keeps the timelines.
pub trait BootObserver: fmt::Debug + Send + Sync + 'static {
    /// Never blocks and never fails.
    fn saw(&self, sighting: Sighting);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(phase: Option<Phase>) -> Facts {
        Facts {
            phase,
            reported: true,
            adopted: false,
            hold: None,
            conflict: None,
            chain: None,
            authorised: None,
            unauthorised: None,
            discovery: Discovery::Local,
        }
    }

    #[test]
    fn nothing_but_an_authorisation_images() {
        let phases = [
            None,
            Some(Phase::Registered),
            Some(Phase::Assigned),
            Some(Phase::Provisioning),
            Some(Phase::Ready),
            Some(Phase::Error),
            Some(Phase::Held),
        ];
        for phase in phases {
            for adopted in [false, true] {
                let (fate, reason) = decide(&Facts { adopted, ..facts(phase) });
                assert!(!matches!(fate, Fate::Image { .. }), "{phase:?} without authorisation");
                assert!(!reason.is_empty());
            }
            let (fate, _) = decide(&Facts { authorised: Some("w".into()), ..facts(phase) });
            let may = matches!(phase, Some(Phase::Assigned | Phase::Provisioning));
            assert_eq!(matches!(fate, Fate::Image { .. }), may, "{phase:?} with authorisation");
        }
    }

    #[test]
    fn an_agent_that_was_never_there_does_not_wait() {
        for phase in [Phase::Registered, Phase::Error] {
            let (seen, never) = (facts(Some(phase)), Facts { reported: false, ..facts(Some(phase)) });
            assert!(decide(&seen).1.contains("its agent waits"), "{phase}");
            assert!(decide(&never).1.contains("no agent has seen this machine"), "{phase}");
            assert_eq!(decide(&seen).0, decide(&never).0, "{phase}: the words differ, not the fate");
        }
    }

    #[test]
    fn each_phase_has_its_fate() {
        let table = [
            (facts(None), "discover"),
            (Facts { discovery: Discovery::Off, ..facts(None) }, "local"),
            (facts(Some(Phase::Registered)), "discover"),
            (Facts { adopted: true, ..facts(Some(Phase::Registered)) }, "local"),
            (Facts { authorised: Some("w".into()), ..facts(Some(Phase::Assigned)) }, "image"),
            (facts(Some(Phase::Assigned)), "hold"),
            (facts(Some(Phase::Ready)), "local"),
            (facts(Some(Phase::Error)), "discover"),
            (facts(Some(Phase::Held)), "hold"),
            (
                Facts { conflict: Some("two".into()), authorised: Some("w".into()), ..facts(Some(Phase::Assigned)) },
                "hold",
            ),
            (Facts { hold: Some("no".into()), authorised: Some("w".into()), ..facts(Some(Phase::Assigned)) }, "hold"),
        ];
        for (facts, want) in table {
            assert_eq!(decide(&facts).0.word(), want, "{facts:?}");
        }
    }
}
