//! Why a machine does not get on: causes by name, each with what was seen and what to do.
//!
//! [`diagnose`] is pure: a timeline, what is known of the machine, and the time go in. Every cause is a
//! reading of evidence, and says what it read; where the same silence can have two causes, the words
//! say so. A machine that gets on has none.

mod boot;
mod network;
mod run;
mod second;
mod trip;
mod words;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::inventory::Inventory;
use crate::lifecycle::Phase;
use crate::resource::workflow::WorkflowStatus;
use crate::timeline::{Entry, boots};
pub use run::named as read_failure;
use trip::Trip;

/// What is wrong, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Another DHCP server answers where we are to answer alone.
    RogueDhcp,
    /// The machine takes another server's offer although ours was there.
    ForeignOffer,
    /// No boot program of ours is for this firmware and processor.
    WrongArchitecture,
    /// The boot program is not fetched by TFTP, or its packets do not arrive.
    BlockedTftp,
    /// iPXE runs and does not get at our HTTP port.
    BlockedHttp,
    /// Large packets do not get through.
    Mtu,
    /// A boot file stops far from its beginning: everything gets through, and then nothing does.
    BrokenTransfer,
    /// The agent's kernel has no driver for the network card.
    MissingDriver,
    /// The machine's clock is far off.
    WrongClock,
    /// The image is not what the template says, or not there.
    BadImage,
    /// What is to be written does not fit.
    FullDisk,
    /// The agent is silent in the middle of its work.
    DeadAgent,
    /// The agent's boot token is not good any more.
    StaleToken,
    /// Nothing at all comes from the machine, or its card has no link.
    NoLink,
    /// Firmware with Secure Boot refuses a boot program that nobody signed.
    UnsignedImage,
    /// The agent runs, has an address, and does not get at this server, or at the image's.
    ServerUnreachable,
    /// A boot file is not there.
    MissingFile,
    /// The machine restarts again and again without getting further.
    RestartLoop,
    /// No address is left in the Network's pool.
    PoolExhausted,
    /// Only machines with a reservation get an address there, and this one has none.
    NoReservation,
    /// The machine asks from an address of no provisioning Network, so it gets no boot token.
    OutsideNetworks,
    /// Another agent asks to speak for the machine while its own is heard.
    SecondAgent,
}

impl Fault {
    /// Every fault that is told by name.
    pub const ALL: [Self; 22] = [
        Self::RogueDhcp,
        Self::ForeignOffer,
        Self::WrongArchitecture,
        Self::BlockedTftp,
        Self::BlockedHttp,
        Self::Mtu,
        Self::BrokenTransfer,
        Self::MissingDriver,
        Self::WrongClock,
        Self::BadImage,
        Self::FullDisk,
        Self::DeadAgent,
        Self::StaleToken,
        Self::NoLink,
        Self::UnsignedImage,
        Self::ServerUnreachable,
        Self::MissingFile,
        Self::RestartLoop,
        Self::PoolExhausted,
        Self::NoReservation,
        Self::OutsideNetworks,
        Self::SecondAgent,
    ];

    /// Its name for programs, as it is serialised.
    pub fn code(self) -> &'static str {
        match self {
            Self::RogueDhcp => "rogue-dhcp",
            Self::ForeignOffer => "foreign-offer",
            Self::WrongArchitecture => "wrong-architecture",
            Self::BlockedTftp => "blocked-tftp",
            Self::BlockedHttp => "blocked-http",
            Self::Mtu => "mtu",
            Self::BrokenTransfer => "broken-transfer",
            Self::MissingDriver => "missing-driver",
            Self::WrongClock => "wrong-clock",
            Self::BadImage => "bad-image",
            Self::FullDisk => "full-disk",
            Self::DeadAgent => "dead-agent",
            Self::StaleToken => "stale-token",
            Self::NoLink => "no-link",
            Self::UnsignedImage => "unsigned-image",
            Self::ServerUnreachable => "server-unreachable",
            Self::MissingFile => "missing-file",
            Self::RestartLoop => "restart-loop",
            Self::PoolExhausted => "pool-exhausted",
            Self::NoReservation => "no-reservation",
            Self::OutsideNetworks => "outside-networks",
            Self::SecondAgent => "second-agent",
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::RogueDhcp => "rogue DHCP server",
            Self::ForeignOffer => "foreign DHCP offer",
            Self::WrongArchitecture => "wrong architecture",
            Self::BlockedTftp => "blocked TFTP",
            Self::BlockedHttp => "blocked HTTP",
            Self::Mtu => "MTU",
            Self::BrokenTransfer => "broken transfer",
            Self::MissingDriver => "missing driver",
            Self::WrongClock => "wrong clock",
            Self::BadImage => "bad image",
            Self::FullDisk => "full disk",
            Self::DeadAgent => "dead agent",
            Self::StaleToken => "stale token",
            Self::NoLink => "no link",
            Self::UnsignedImage => "unsigned image under Secure Boot",
            Self::ServerUnreachable => "server unreachable from Mage",
            Self::MissingFile => "missing boot file",
            Self::RestartLoop => "restart loop",
            Self::PoolExhausted => "exhausted DHCP pool",
            Self::NoReservation => "no DHCP reservation",
            Self::OutsideNetworks => "outside every provisioning Network",
            Self::SecondAgent => "second agent",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a machine does not get on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// By name, for programs.
    pub fault: Fault,
    /// By name, for people.
    pub name: &'static str,
    /// What it means here.
    pub says: String,
    /// What was seen, and when.
    pub evidence: Vec<Evidence>,
    /// What to do next.
    pub next: String,
}

impl Cause {
    fn new(fault: Fault, says: impl Into<String>, next: impl Into<String>) -> Self {
        Self { fault, name: fault.name(), says: says.into(), evidence: Vec::new(), next: next.into() }
    }

    fn seen(mut self, entry: &Entry) -> Self {
        let words = format!("{}: {}", entry.kind(), entry.message());
        self.evidence.push(Evidence { time: Some(entry.time), words });
        self
    }

    fn known(mut self, words: impl Into<String>) -> Self {
        self.evidence.push(Evidence { time: None, words: words.into() });
        self
    }
}

/// One thing that a cause was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// When it happened; absent for what did not happen, and for what is known otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// What.
    pub words: String,
}

/// What is known of the machine beside its timeline.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patient<'a> {
    /// Where in its life it is.
    pub phase: Option<Phase>,
    /// Since when.
    pub phase_since: Option<Timestamp>,
    /// Its run, if it has one that is not final.
    pub run: Option<&'a WorkflowStatus>,
    /// What its agent saw, this time or an earlier one.
    pub inventory: Option<&'a Inventory>,
    /// When its agent was last heard.
    pub agent_heard: Option<Timestamp>,
    /// It is to boot the agent; else its own disk, and then silence is as it should be.
    pub wants_agent: bool,
}

/// How many boots are looked at, the newest first.
const BOOTS: usize = 4;

/// Why this machine does not get on; the nearest cause first, none when it does.
pub fn diagnose(timeline: &[Arc<Entry>], patient: &Patient<'_>, now: Timestamp) -> Vec<Cause> {
    let all = boots(timeline);
    let this_boot = all.last().copied().unwrap_or_default();
    let mut causes = run::causes(timeline, this_boot, patient, now);
    if causes.is_empty() && patient.wants_agent {
        causes = in_boots(&all, patient, now);
        causes.extend(boot::nothing_comes(timeline, patient, now).filter(|_| causes.is_empty()));
    }
    // A lying clock may be behind any of them, or behind none.
    causes.extend(run::clock(this_boot, patient).filter(|_| !causes.iter().any(|c| c.fault == Fault::WrongClock)));
    causes
}

fn in_boots(all: &[&[Arc<Entry>]], patient: &Patient<'_>, now: Timestamp) -> Vec<Cause> {
    let mut end = (now, false);
    for boot in all.iter().rev().take(BOOTS) {
        let trip = Trip::of(boot, end.0, end.1);
        let causes = boot::causes(&trip, patient);
        // A boot that came to its end says that what is before it has been overcome.
        if !causes.is_empty() || trip.greeted.is_some() {
            return causes;
        }
        if let Some(first) = boot.first() {
            end = (first.time, true);
        }
    }
    Vec::new()
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
