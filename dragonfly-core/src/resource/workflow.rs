//! Workflow: one run of one template on one machine.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::template::{TemplateSpec, ValueSource};
use super::{Kind, Resource, Spec};
use crate::action::Progress;
use crate::clock::Timestamp;
use crate::wire::Failure;
use crate::workflow::{RunState, StepState};

/// One run of one template on one machine. Inert without the machine's authorisation for it.
pub type Workflow = Resource<WorkflowSpec>;

/// What is to be run, frozen when it was assigned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSpec {
    /// The machine, by name.
    pub hardware: String,
    /// The template it was made from, by name.
    pub template: String,
    /// That template's content at the time: a later edit does not change a run.
    pub content: TemplateSpec,
    /// Values given at assignment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, ValueSource>,
}

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowStatus {
    /// The state of the whole run.
    pub state: RunState,
    /// Counts tries, from 1.
    pub attempt: u32,
    /// The authorisation it runs under.
    pub authorisation_generation: u64,
    /// The agent's session that runs it, by its public id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// One entry per step, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepStatus>,
    /// When the first step began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it is in this state, for a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What made each earlier attempt fail; of very many, the first and the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<AttemptFailure>,
    /// Which of several instances wrote this last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub writer: String,
    /// The last 64 KiB of the agent's log, or less of it where there is no room.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

/// One step of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StepStatus {
    /// As in the template.
    pub name: String,
    /// Which action.
    pub action: String,
    /// How far it has come.
    pub state: StepState,
    /// The attempt of the run in which it was last begun.
    pub attempt: u32,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How much of it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Why one attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptFailure {
    /// Which attempt.
    pub attempt: u32,
    /// The step that failed; absent when no step was at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What failed.
    pub failure: Failure,
}

impl Spec for WorkflowSpec {
    const KIND: Kind = Kind::WORKFLOW;
    type Status = WorkflowStatus;

    fn written_by(status: &mut WorkflowStatus, instance: &str) {
        instance.clone_into(&mut status.writer);
    }

    fn keep_small(status: &mut WorkflowStatus) {
        super::room::keep_small(status);
    }
}
