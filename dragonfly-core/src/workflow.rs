//! A run and its steps as tables: what may follow what. Terminal states are final.

use serde::{Deserialize, Serialize};

/// The state of a whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RunState {
    /// Waits for its machine's agent.
    #[default]
    Pending,
    /// An agent runs it.
    Running,
    /// Every step completed and the hand-over is durable. Final.
    Succeeded,
    /// A step failed. A retry makes it pending again, as a new attempt.
    Failed,
    /// Called off. Final.
    Aborted,
    /// Waits for a person: restored from a backup, or without progress.
    Held,
}

impl RunState {
    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Aborted)
    }
}

/// What can happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunEvent {
    /// An agent began it.
    Began,
    /// The agent handed over.
    Completed,
    /// A step, the agent or a deadline failed it.
    Failed,
    /// Somebody asked for another attempt.
    Retried,
    /// Somebody called it off.
    Aborted,
    /// It waits for a person.
    Held,
}

/// A transition that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a workflow that is {from:?} cannot be {event:?}")]
pub struct IllegalRun {
    /// Where it was.
    pub from: RunState,
    /// What was to happen.
    pub event: RunEvent,
}

/// The table of a run.
pub fn next(from: RunState, event: RunEvent) -> Result<RunState, IllegalRun> {
    use RunEvent as E;
    use RunState as S;
    match (from, event) {
        (S::Pending | S::Running, E::Began) => Ok(S::Running),
        (S::Running, E::Completed) => Ok(S::Succeeded),
        (S::Pending | S::Running, E::Failed) => Ok(S::Failed),
        (S::Failed | S::Held, E::Retried) => Ok(S::Pending),
        (S::Pending | S::Running | S::Failed | S::Held, E::Aborted) => Ok(S::Aborted),
        (S::Pending | S::Running | S::Failed | S::Held, E::Held) => Ok(S::Held),
        _ => Err(IllegalRun { from, event }),
    }
}

/// The state of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum StepState {
    /// Not begun in this attempt.
    #[default]
    Pending,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Done in an earlier attempt and found still true.
    Skipped,
    /// Failed.
    Failed,
}

/// What an agent can say of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum StepEvent {
    /// It began.
    Began,
    /// It goes on.
    Progressed,
    /// It is done.
    Succeeded,
    /// It was done before and still holds.
    Skipped,
    /// It failed.
    Failed,
}

/// What a report means for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepChange {
    /// The step is now in this state.
    To(StepState),
    /// Heard before, or overtaken by a later report: nothing changes.
    Stale,
}

/// The table of a step. Reports may come twice, late or out of order: what is overtaken is stale,
/// never an error and never a change.
pub fn step(from: StepState, event: StepEvent) -> StepChange {
    use StepEvent as E;
    use StepState as S;
    match (from, event) {
        (S::Pending, E::Began | E::Progressed) | (S::Running, E::Progressed) => StepChange::To(S::Running),
        (S::Pending | S::Running, E::Succeeded) => StepChange::To(S::Succeeded),
        (S::Pending | S::Running, E::Skipped) => StepChange::To(S::Skipped),
        (S::Pending | S::Running, E::Failed) => StepChange::To(S::Failed),
        (S::Running, E::Began) | (S::Succeeded | S::Skipped | S::Failed, _) => StepChange::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_states_are_final() {
        for event in [
            RunEvent::Began,
            RunEvent::Completed,
            RunEvent::Failed,
            RunEvent::Retried,
            RunEvent::Aborted,
            RunEvent::Held,
        ] {
            for from in [RunState::Succeeded, RunState::Aborted] {
                assert!(next(from, event).is_err(), "{from:?} {event:?}");
            }
        }
    }

    #[test]
    fn a_late_report_changes_no_finished_step() {
        for event in
            [StepEvent::Began, StepEvent::Progressed, StepEvent::Succeeded, StepEvent::Skipped, StepEvent::Failed]
        {
            for from in [StepState::Succeeded, StepState::Skipped, StepState::Failed] {
                assert_eq!(step(from, event), StepChange::Stale, "{from:?} {event:?}");
            }
        }
    }
}
