//! Why a machine does what it does, in one answer.

use std::sync::Arc;

use serde::Serialize;

use super::question::{answer, denied, is_asked_about, settled, whom};
use super::{Engine, Result, found};
use crate::Mac;
use crate::boot::{BootRequest, Decision, Discovery, Fate};
use crate::cache::Owner;
use crate::clock::Timestamp;
use crate::deadline::{self, Limits, Waits};
use crate::diagnose::{Cause, Patient, diagnose};
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::resource::{Condition, Hardware, HardwareSpec, WorkflowSpec};
use crate::workflow::RunState;

/// What is said of a machine of which the engine has nothing to say.
const NEVER_REPORTED: &str = "its agent has never reported";

const BOOT: &str = "boot it from the network";
const BOOT_AGAIN: &str =
    "do what the cause asks for; if it does not go on by itself then, boot it from the network again";
const UNREACHED: &str = "put the MAC that it boots from into spec.macs (dragonfly apply): no card of it is known, and \
                         with discovery off nobody looks whose an unknown one is";
/// An order waits, and an agent is there to take it.
const GOES_ON: &str = "nothing: its agent is up, and goes on by itself";

/// Why a machine does what it does.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Its name, or the name that it would get.
    pub machine: String,
    /// What it would boot now, and why.
    pub decision: Decision,
    /// Where in its life it is; absent when it has never reported.
    pub phase: Option<Phase>,
    /// Since when.
    pub phase_since: Option<Timestamp>,
    /// The engine's own words on it.
    pub message: String,
    /// Facts beside the phase.
    pub conditions: Vec<Condition>,
    /// The workflow at work, or the last one.
    pub workflow: Option<WhyWorkflow>,
    /// When its agent was last heard, in this run of the server.
    pub agent_heard: Option<Timestamp>,
    /// What keeps it from getting on, by name, with what was seen and what to do; empty when it gets on.
    pub causes: Vec<Cause>,
    /// Who is to do something next, by when, and what is waited for.
    pub waits: Option<Waits>,
    /// Which question about its identity is open, or was answered last ([`Hardware::question`]): an answer can name it.
    pub question: Option<String>,
    /// What a person can do next.
    pub next: Vec<String>,
    /// The newest events about it, oldest first.
    pub events: Vec<Arc<Event>>,
}

/// The workflow in a [`Why`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyWorkflow {
    /// Its name.
    pub name: String,
    /// The template it runs.
    pub template: String,
    /// Its state.
    pub state: RunState,
    /// Its attempt.
    pub attempt: u32,
    /// Its own words.
    pub message: String,
    /// The step at work or the one that failed.
    pub step: Option<String>,
}

impl Engine {
    /// Why this machine (name, display name or MAC) does what it does. A MAC that nobody has seen is an
    /// answer too.
    ///
    /// # Errors
    /// `NotFound` for a name that nobody has.
    pub fn why(&self, word: &str) -> Result<Why> {
        if let Ok(mac) = word.parse::<Mac>()
            && !matches!(self.inner.cache.by_mac(mac), Owner::One(_))
        {
            let machine = self.name_of(mac);
            let decision = self.decision(&BootRequest::from_mac(mac));
            let doubled = self.doubled_card(&[mac]);
            let entries = self.inner.recorder.read(None, &[mac], 0);
            let patient = Patient { wants_agent: wants_agent(&decision), ..Patient::default() };
            let causes = diagnose(&entries, &patient, self.now());
            return Ok(Why {
                waits: None,
                decision,
                phase: None,
                phase_since: None,
                message: NEVER_REPORTED.to_owned(),
                conditions: Vec::new(),
                workflow: None,
                agent_heard: None,
                question: None,
                next: match doubled {
                    Some((_, way_out)) => vec![way_out],
                    None if causes.is_empty() => vec![BOOT.to_owned()],
                    None => vec![BOOT_AGAIN.to_owned()],
                },
                causes,
                events: self.inner.events.about(&machine, 50),
                machine,
            });
        }
        let subject = self.subject(word)?;
        if let (None, Some(card)) = (&subject.machine, subject.cards.first()) {
            return self.why(&card.to_string());
        }
        let name = subject.name;
        let machine = self.machine(&name)?;
        let workflow =
            machine.status.workflow.as_ref().and_then(|w| self.inner.cache.get::<WorkflowSpec>(w)).map(|w| {
                use crate::workflow::StepState as S;
                let step = w.status.steps.iter().find(|s| matches!(s.state, S::Running | S::Failed));
                WhyWorkflow {
                    name: w.name().to_owned(),
                    template: w.spec.template.clone(),
                    state: w.status.state,
                    attempt: w.status.attempt,
                    message: w.status.message.clone(),
                    step: step.map(|s| s.name.clone()),
                }
            });
        // What stands on two machines boots neither of them.
        let doubled = self.doubled_card(&machine.spec.macs);
        let decision = match &doubled {
            Some((card, _)) => self.decision(&BootRequest::from_mac(*card)),
            None => self.decision_for(&machine),
        };
        let causes = self.causes(&machine, &decision);
        let is_up = deadline::is_up(self.inner.sessions.last(&name), self.now());
        let mut next = next_for(&machine, is_up, !causes.is_empty());
        if !self.is_tinkerbells() && is_out_of_reach(&machine, self.inner.settings.discovery) {
            next.insert(0, UNREACHED.to_owned());
        }
        if let Some((_, way_out)) = doubled {
            next.insert(0, way_out);
        }
        Ok(Why {
            causes,
            waits: self.waits(&machine),
            decision,
            phase: machine.status.phase,
            phase_since: machine.status.phase_since,
            message: match machine.message() {
                "" if self.is_tinkerbells() => "no Workflow of Tinkerbell is known of it".to_owned(),
                "" => NEVER_REPORTED.to_owned(),
                said => said.to_owned(),
            },
            conditions: machine.status.conditions.clone(),
            workflow,
            agent_heard: self.inner.sessions.last(&name),
            question: machine.question(),
            next,
            events: self.inner.events.about(&name, 50),
            machine: name,
        })
    }

    /// The first of these cards that stands on several machines, and what a person does about it.
    fn doubled_card(&self, cards: &[Mac]) -> Option<(Mac, String)> {
        cards.iter().find_map(|card| match self.inner.cache.by_mac(*card) {
            Owner::Several(names) => {
                let all = names.join(" and ");
                let way_out = format!(
                    "{card} stands on {all}, and nothing is done with it until it stands on one: take it from spec.macs of \
                     the others (dragonfly apply), or dragonfly delete machine the one that is not meant"
                );
                Some((*card, way_out))
            }
            Owner::One(_) | Owner::Nobody => None,
        })
    }

    fn causes(&self, machine: &Hardware, decision: &Decision) -> Vec<Cause> {
        let entries = self.inner.recorder.read(Some(machine.name()), &machine.spec.macs, 0);
        let run = machine.status.workflow.as_ref().and_then(|w| self.inner.cache.get::<WorkflowSpec>(w));
        let patient = Patient {
            phase: machine.status.phase,
            phase_since: machine.status.phase_since,
            run: run.as_ref().map(|run| &run.status),
            inventory: machine.status.inventory.as_ref(),
            agent_heard: self.inner.sessions.last(machine.name()).or(machine.status.last_seen),
            wants_agent: wants_agent(decision),
        };
        diagnose(&entries, &patient, self.now())
    }

    /// Who is to do something about a machine, by when, and what is waited for; `None` when it is at rest.
    pub(super) fn waits(&self, machine: &Hardware) -> Option<Waits> {
        let is_done = matches!(machine.status.phase, Some(Phase::Error | Phase::Held)) || machine.spec.hold.is_some();
        if self.is_tinkerbells() && !is_done {
            return Self::waits_for_tinkerbell(machine);
        }
        let settings = &self.inner.settings;
        let limits = Limits { agent: settings.agent_deadline, boot: settings.boot_deadline };
        deadline::of(machine, self.inner.sessions.last(machine.name()), limits, self.now())
    }

    /// When a machine's agent was last heard, in this run of the server.
    pub fn agent_heard(&self, machine: &str) -> Option<Timestamp> {
        self.inner.sessions.last(machine)
    }

    /// Every machine, ordered by name.
    pub fn machines(&self) -> Vec<Arc<crate::resource::Hardware>> {
        self.inner.cache.all::<HardwareSpec>()
    }
}

fn wants_agent(decision: &Decision) -> bool {
    matches!(decision.fate, Fate::Discover | Fate::Image { .. })
}

/// Whether no boot of a machine can be told to be its own: no card of it is known, and Mage does not look at strangers.
fn is_out_of_reach(machine: &Hardware, discovery: Discovery) -> bool {
    let is_told = machine.spec.macs.is_empty() && machine.status.proven.is_none();
    is_told && discovery == Discovery::Off
}

/// What a person can do next. `is_up`: its agent is. `is_ill`: a cause is named, and what to do about it.
fn next_for(machine: &Hardware, is_up: bool, is_ill: bool) -> Vec<String> {
    let name = machine.name();
    // What holds it, and what is asked about it, are answered one by one.
    let mut holds: Vec<String> = Vec::new();
    if machine.spec.hold.is_some() || (machine.status.phase == Some(Phase::Held) && machine.conflict().is_some()) {
        holds.push(format!("dragonfly release {name}"));
    }
    if let Some(conflict) = machine.conflict() {
        holds.extend(settle(machine, conflict));
    }
    if !holds.is_empty() {
        return holds;
    }
    if found::doubled(machine).is_some() {
        return vec!["give one of the VMs another MAC, or delete the one that is a copy".to_owned()];
    }
    if found::gone(machine).is_some() {
        return vec![format!("dragonfly delete machine {name}")];
    }
    let boot = match machine.spec.bmc {
        Some(_) => format!("dragonfly power network-boot {name}"),
        None if is_ill => BOOT_AGAIN.to_owned(),
        None => BOOT.to_owned(),
    };
    let mut next = match machine.status.phase {
        None => vec![boot],
        Some(Phase::Registered) => vec![format!("dragonfly assign {name} --template NAME")],
        Some(Phase::Assigned) if is_up => vec![GOES_ON.to_owned(), format!("dragonfly abort {name}")],
        Some(Phase::Assigned) => vec![boot, format!("dragonfly abort {name}")],
        Some(Phase::Provisioning) => vec![format!("dragonfly watch {name}"), format!("dragonfly abort {name}")],
        Some(Phase::Ready) => vec![format!("dragonfly reimage {name}")],
        Some(Phase::Error) => vec![format!("dragonfly retry {name}"), format!("dragonfly abort {name}")],
        Some(Phase::Held) => vec![format!("dragonfly release {name}")],
    };
    if is_asked_about(machine) {
        next.extend(is_it(machine));
    }
    if settled(machine).is_some() {
        let deny = answer("deny", machine);
        next.push(format!(
            "{deny} takes back that a person has said yes of {}, which has not asked since",
            whom(machine)
        ));
    }
    if denied(machine).is_some() {
        let release = answer("release", machine);
        next.push(match machine.is_seen_elsewhere() {
            true => format!("{release}, if its card is in the other machine after all, and not in {name}"),
            false => format!("{release}, if it is {} after all: that was denied", whom(machine)),
        });
    }
    next
}

/// What settles a conflict about a machine's identity: what is assigned before is refused.
fn settle(machine: &Hardware, conflict: &Condition) -> Vec<String> {
    let name = machine.name();
    if machine.status.phase == Some(Phase::Provisioning) {
        return vec![format!("dragonfly watch {name}"), answer("release", machine)];
    }
    // Released, it comes back for as long as the two numbers differ; the right number settles it.
    let is_of_serial = machine.spec.serial.is_some() && conflict.message.contains("spec.serial");
    let mut next = match is_of_serial {
        true => vec!["put spec.serial right (dragonfly apply), or the right machine in its place".to_owned()],
        false => is_it(machine),
    };
    if is_of_serial && machine.is_asked_about() {
        next.push(format!("{}, if it is in its place, and not {}", answer("deny", machine), whom(machine)));
    }
    let is_under_way = matches!(machine.status.phase, Some(Phase::Assigned | Phase::Provisioning | Phase::Error));
    if is_under_way && machine.status.workflow.is_some() {
        next.push(format!("dragonfly abort {name}"));
    }
    next.push(format!("dragonfly delete machine {name}"));
    next
}

/// What a person can answer, where somebody asks to be a machine.
fn is_it(machine: &Hardware) -> Vec<String> {
    let (name, whom) = (machine.name(), whom(machine));
    let (release, deny) = (answer("release", machine), answer("deny", machine));
    // Of a conflict that an earlier version wrote it is not known who asked.
    let no = machine.is_asked_about().then(|| format!("{deny}, if not: then it boots as before"));
    if !machine.is_seen_elsewhere() {
        return [format!("{release}, if it is {whom}")].into_iter().chain(no).collect();
    }
    // Its card is on a board that is another machine's: what is asked is whether it was moved there, and not who it is.
    let other = match machine.is_unclaimed() {
        true => format!(
            "dragonfly delete machine {name}, which wrote itself down, if it is the other one that IdentityConflict names"
        ),
        false => format!(
            "if it is still in {name}, what is known of the other machine that IdentityConflict names is wrong: \
             dragonfly delete machine OTHER, and {name} is judged anew within a minute"
        ),
    };
    let release = format!(
        "{release}, if its card was taken out of it and is in that machine now: {name} loses it to that one ({whom})"
    );
    let no = no.map(|_| format!("{deny}, if somebody else asks with its card: who says this is refused then"));
    [other, release].into_iter().chain(no).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{CONFLICT, ConditionStatus, set_condition};

    #[test]
    fn a_machine_without_a_card_is_out_of_reach_where_nobody_looks() {
        let card = Mac::new([2, 0, 0, 0, 0, 1]);
        for (macs, is_proven, discovery, want) in [
            (vec![], false, Discovery::Off, true),
            (vec![card], false, Discovery::Off, false),
            (vec![], true, Discovery::Off, false),
            (vec![], false, Discovery::Local, false),
            (vec![], false, Discovery::Wait, false),
        ] {
            let spec = HardwareSpec { serial: Some("2".into()), macs, ..HardwareSpec::default() };
            let mut machine = Hardware::new("m", spec);
            machine.status.proven = is_proven.then(crate::resource::hardware::Anchors::default);
            assert_eq!(is_out_of_reach(&machine, discovery), want, "{machine:?} {discovery:?}");
        }
    }

    #[test]
    fn what_comes_next_is_what_is_not_refused() {
        let at = Timestamp::from_unix_seconds(1000);
        let apart = "serial number belongs to b and its network cards to m";
        let serial = "its serial number is 1, and spec.serial says that it must be 2";
        let (watch, abort) = ("dragonfly watch m", "dragonfly abort m");
        let delete = "dragonfly delete machine m";
        let (lone, release) = ("dragonfly release m", "dragonfly release m, if it is the agent that asks");
        let put_right = "put spec.serial right (dragonfly apply), or the right machine in its place";
        // (phase, conflict, its agent is up, a cause is named)
        type Row<'a> = (Option<Phase>, &'a str, bool, bool, &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (None, "", false, false, &[BOOT]),
            (None, "", false, true, &[BOOT_AGAIN]),
            (None, serial, false, false, &[put_right, delete]),
            (Some(Phase::Registered), "", true, false, &["dragonfly assign m --template NAME"]),
            (Some(Phase::Registered), apart, true, false, &[release, delete]),
            (Some(Phase::Assigned), "", false, false, &[BOOT, abort]),
            (Some(Phase::Assigned), "", true, false, &[GOES_ON, abort]),
            (Some(Phase::Assigned), apart, true, false, &[release, delete]),
            (Some(Phase::Provisioning), "", true, false, &[watch, abort]),
            (Some(Phase::Provisioning), apart, true, false, &[watch, lone]),
        ];
        for (phase, conflict, is_up, is_ill, want) in table {
            let mut machine = Hardware::new("m", HardwareSpec { serial: Some("2".into()), ..HardwareSpec::default() });
            machine.status.phase = *phase;
            if !conflict.is_empty() {
                set_condition(&mut machine.status.conditions, CONFLICT, ConditionStatus::True, "X", conflict, at);
            }
            assert_eq!(next_for(&machine, *is_up, *is_ill), *want, "{phase:?} {conflict}");
        }
    }
}
