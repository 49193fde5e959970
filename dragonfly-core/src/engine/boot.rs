//! Boot requests: facts from memory, the policy, an identity for the agent about to start.

use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;

use super::Engine;
use super::found::DOUBLED;
use super::restore::RESTORED;
use super::rules::Rule;
use super::sessions::TokenClaims;
use crate::boot::{self, BootError, BootObserver, BootProvider, BootRequest, Decision, Facts, Fate, Seen, Sighting};
use crate::cache::Owner;
use crate::clock::Timestamp;
use crate::lifecycle::Phase;
pub(super) use crate::resource::CONFLICT;
use crate::resource::{ConditionStatus, Hardware, Network, Workflow, condition};
use crate::wire::Identity;
use crate::{Mac, name};

/// The condition that a machine found with a foreign operating system carries.
pub(super) const ADOPTED: &str = "Adopted";
/// The condition that the installed system shows a sign of life.
pub(super) const BOOTED: &str = "Booted";

impl Engine {
    /// What this machine would boot now, and why.
    pub fn decision(&self, request: &BootRequest) -> Decision {
        match self.inner.cache.by_mac(request.mac) {
            Owner::Nobody if self.is_tinkerbells() => answer(Self::booted_elsewhere(), None),
            Owner::Nobody => {
                let facts = Facts { discovery: self.inner.settings.discovery, ..unknown() };
                answer(boot::decide(&facts), None)
            }
            Owner::One(machine) => self.decision_for(&machine),
            Owner::Several(names) => {
                let facts = Facts {
                    conflict: Some(format!("{} belongs to {} machines", request.mac, names.len())),
                    ..unknown()
                };
                answer(boot::decide(&facts), None)
            }
        }
    }

    /// What this machine would boot now, and why.
    pub fn decision_for(&self, machine: &Hardware) -> Decision {
        if self.is_tinkerbells() {
            return answer(Self::booted_elsewhere(), Some(machine));
        }
        answer(boot::decide(&self.facts(machine)), Some(machine))
    }

    fn facts(&self, machine: &Hardware) -> Facts {
        let status = &machine.status;
        let holds = |kind: &str| condition(&status.conditions, kind).filter(|c| c.status == ConditionStatus::True);
        let (authorised, unauthorised) = match self.authorised(machine, self.now()) {
            Ok(workflow) => (Some(workflow.name().to_owned()), None),
            Err(why) => (None, Some(why)),
        };
        Facts {
            phase: status.phase,
            reported: status.inventory.is_some(),
            adopted: holds(ADOPTED).is_some() && self.inner.settings.discovery == boot::Discovery::Local,
            hold: machine.spec.hold.clone().filter(|_| self.keeps(Rule::Hold)).or_else(|| {
                // The phase holds it; the condition says why.
                holds(RESTORED).filter(|_| status.phase == Some(Phase::Held)).map(|c| c.message.clone())
            }),
            // Whoever asks for a boot script reads it: what contradicts what is for operators, in the condition.
            conflict: holds(CONFLICT)
                .map(|_| "its identity is in conflict; `dragonfly why` tells an operator more")
                .or_else(|| holds(DOUBLED).map(|_| "it is one of several virtual machines with one address"))
                .map(str::to_owned),
            chain: machine.spec.chain.clone(),
            authorised,
            unauthorised,
            discovery: self.inner.settings.discovery,
        }
    }

    /// The workflow that may destroy what is on this machine's disks now, or why none may.
    pub(super) fn authorised(
        &self,
        machine: &Hardware,
        now: Timestamp,
    ) -> std::result::Result<std::sync::Arc<Workflow>, String> {
        use crate::workflow::RunState;
        let Some(authorisation) = &machine.status.authorisation else {
            return Err("no assign or reimage stands behind this".to_owned());
        };
        if machine.spec.protected && self.keeps(Rule::Protection) {
            return Err("it was protected after it was authorised".to_owned());
        }
        if machine.metadata.deletion_timestamp.is_some() {
            return Err("its deletion was asked for after it was authorised".to_owned());
        }
        if now >= authorisation.expires_at && self.keeps(Rule::Expiry) {
            return Err(format!("the authorisation expired at {}", authorisation.expires_at));
        }
        let Some(workflow) = self.inner.cache.get::<crate::resource::WorkflowSpec>(&authorisation.workflow) else {
            return Err(format!("workflow {} is gone", authorisation.workflow));
        };
        if workflow.metadata.uid != Some(authorisation.workflow_uid) {
            return Err(format!("workflow {} is not the one that was authorised", authorisation.workflow));
        }
        if workflow.metadata.generation > 1 && self.keeps(Rule::AsMade) {
            return Err(format!(
                "workflow {} was changed after it was made; abort it and assign anew",
                authorisation.workflow
            ));
        }
        if workflow.spec.hardware != machine.name() {
            return Err(format!("workflow {} is for another machine", authorisation.workflow));
        }
        if workflow.status.authorisation_generation != authorisation.generation {
            return Err(format!("workflow {} belongs to another authorisation", authorisation.workflow));
        }
        match workflow.status.state {
            RunState::Pending | RunState::Running => Ok(workflow),
            state => Err(format!("workflow {} is {state:?}", authorisation.workflow)),
        }
    }

    /// Whether an address lies in a network whose machines may get a boot token.
    fn provisions(&self, from: Option<std::net::IpAddr>) -> bool {
        let Some(std::net::IpAddr::V4(from)) = from else { return false };
        self.inner.networks.borrow().iter().any(|n| n.spec.provisioning && n.spec.subnet.contains(&from))
    }

    /// Whether two addresses lie in one network whose machines may get a boot token.
    pub(super) fn same_network(&self, a: std::net::IpAddr, b: std::net::IpAddr) -> bool {
        let (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) = (a, b) else { return a == b };
        a == b
            || self
                .inner
                .networks
                .borrow()
                .iter()
                .any(|n| n.spec.provisioning && n.spec.subnet.contains(&a) && n.spec.subnet.contains(&b))
    }

    fn mint(&self, request: &BootRequest) -> Option<Identity> {
        if !matches!(self.decision(request).fate, Fate::Discover | Fate::Image { .. }) {
            return None;
        }
        if !request.mac.is_unicast() {
            return None;
        }
        if !self.provisions(request.from) {
            let why = outside(request, &self.inner.networks.borrow());
            let seen = Seen::HttpRefused { path: Seen::IDENTITY.to_owned(), status: 404, why };
            self.witness(Sighting { mac: Some(request.mac), from: request.from, seen });
            return None;
        }
        let server =
            self.inner.settings.server_url.clone().or_else(|| format!("https://{}", request.to?).parse().ok())?;
        let made_at = self.now();
        let used = match self.inner.cache.by_mac(request.mac) {
            Owner::One(machine) => {
                machine.status.session.as_ref().and_then(|session| session.used_tokens.of(request.mac))
            }
            Owner::Nobody | Owner::Several(_) => None,
        };
        let order = used.filter(|used| *used >= made_at).map(|used| used.plus(Duration::from_millis(1)));
        let claims = TokenClaims { mac: request.mac, from: request.from, server: server.clone(), made_at, order };
        let token = self.inner.tokens.sign(&claims);
        let also = self.inner.settings.also.iter().filter(|other| **other != server).cloned().collect();
        let pin = self.inner.settings.server_pin.clone();
        Some(Identity { server, also, pin, token, mac: request.mac, time: made_at })
    }

    /// The name that a machine of this card has or would get.
    pub(super) fn name_of(&self, mac: Mac) -> String {
        match self.inner.cache.by_mac(mac) {
            Owner::One(machine) => machine.name().to_owned(),
            Owner::Nobody | Owner::Several(_) => name::memorable(mac).to_lowercase(),
        }
    }
}

/// Why no machine gets an identity where this one asks from.
fn outside(request: &BootRequest, networks: &[Network]) -> String {
    let mac = request.mac;
    let Some(from) = request.from else { return format!("{mac} asked from an address that is not known") };
    let has = |n: &&Network| matches!(from, std::net::IpAddr::V4(from) if n.spec.subnet.contains(&from));
    let why = match networks.iter().find(has) {
        Some(network) => format!("Network {}, which has it, says provisioning: false", network.name()),
        None if networks.is_empty() => "no Network is served here".to_owned(),
        None => {
            let some: Vec<_> = networks.iter().take(3).map(|n| format!("{} {}", n.name(), n.spec.subnet)).collect();
            let more = if networks.len() > some.len() { ", ..." } else { "" };
            format!("no Network has it in its subnet ({}{more})", some.join(", "))
        }
    };
    format!("{mac} asked from {from}, which is in no provisioning network: {why}")
}

fn unknown() -> Facts {
    Facts {
        phase: None,
        reported: false,
        adopted: false,
        hold: None,
        conflict: None,
        chain: None,
        authorised: None,
        unauthorised: None,
        discovery: boot::Discovery::Off,
    }
}

fn answer((fate, reason): (Fate, String), machine: Option<&Hardware>) -> Decision {
    let reserved = machine.and_then(|m| m.spec.dhcp.as_ref());
    Decision {
        fate,
        reason,
        machine: machine.map(|m| m.name().to_owned()),
        address: reserved.and_then(|d| match d.address {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        }),
        hostname: reserved.and_then(|d| d.hostname.clone()),
        console: machine.and_then(|m| m.spec.console.clone()),
    }
}

#[async_trait]
impl BootProvider for Engine {
    async fn decide(&self, request: &BootRequest) -> std::result::Result<Decision, BootError> {
        Ok(self.decision(request))
    }

    async fn identity(&self, request: &BootRequest) -> std::result::Result<Option<Identity>, BootError> {
        Ok(self.mint(request))
    }

    fn reserved_for(&self, address: Ipv4Addr) -> Option<Mac> {
        let machine = self.inner.cache.reserved_for(address.into())?;
        machine.spec.macs.first().copied()
    }
}

impl BootObserver for Engine {
    fn saw(&self, sighting: Sighting) {
        self.witness(sighting);
    }
}
