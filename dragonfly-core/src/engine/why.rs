//! Why a machine does what it does, in one answer.

use std::sync::Arc;

use serde::Serialize;

use super::{Engine, Result};
use crate::Mac;
use crate::boot::{BootRequest, Decision};
use crate::cache::Owner;
use crate::clock::Timestamp;
use crate::event::Event;
use crate::lifecycle::Phase;
use crate::resource::{Condition, HardwareSpec, WorkflowSpec};
use crate::workflow::RunState;

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
            return Ok(Why {
                decision: self.decision(&BootRequest::from_mac(mac)),
                phase: None,
                phase_since: None,
                message: "its agent has never reported".to_owned(),
                conditions: Vec::new(),
                workflow: None,
                agent_heard: None,
                next: vec!["boot it from the network".to_owned()],
                events: self.inner.events.about(&machine, 50),
                machine,
            });
        }
        let name = self.resolve(word)?;
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
        let next = next_for(&machine);
        Ok(Why {
            decision: self.decision_for(&machine),
            phase: machine.status.phase,
            phase_since: machine.status.phase_since,
            message: machine.status.message.clone(),
            conditions: machine.status.conditions.clone(),
            workflow,
            agent_heard: self.inner.sessions.last(&name),
            next,
            events: self.inner.events.about(&name, 50),
            machine: name,
        })
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

fn next_for(machine: &crate::resource::Hardware) -> Vec<String> {
    let name = machine.name();
    let words: &[String] = &match machine.status.phase {
        None => vec!["boot it from the network".to_owned()],
        Some(Phase::Registered) => vec![format!("dragonfly assign {name} --template NAME")],
        Some(Phase::Assigned) => vec!["boot it from the network".to_owned(), format!("dragonfly abort {name}")],
        Some(Phase::Provisioning) => vec![format!("dragonfly watch {name}"), format!("dragonfly abort {name}")],
        Some(Phase::Ready) => vec![format!("dragonfly reimage {name}")],
        Some(Phase::Error) => vec![format!("dragonfly retry {name}"), format!("dragonfly abort {name}")],
        Some(Phase::Held) => vec![format!("dragonfly release {name}")],
    };
    words.to_vec()
}
