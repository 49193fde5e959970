//! A machine and its workflow are two objects: a stop between two writes leaves them apart. Each
//! pair of writes is ordered so that one look at both tells how to bring them together again.

use uuid::Uuid;

use crate::lifecycle::Phase;
use crate::resource::hardware::HardwareStatus;
use crate::resource::workflow::WorkflowStatus;
use crate::workflow::RunState;

/// What is left to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The hand-over was made durable on the machine; the workflow is to be `Succeeded`.
    WorkflowSucceeded,
    /// The workflow failed; the machine is to be in `Error`.
    MachineError,
    /// A retry was made durable on the workflow; the machine is to be `Assigned`.
    MachineAssigned,
    /// The machine was held for want of progress; the workflow is to be `Held`.
    WorkflowHeld,
    /// Nobody stands behind the workflow; it is to be `Aborted`.
    WorkflowAborted,
}

/// Looks at a machine and a workflow that names it.
pub fn settle(machine: &HardwareStatus, name: &str, uid: Option<Uuid>, run: &WorkflowStatus) -> Option<Settlement> {
    let current = machine.workflow.as_deref() == Some(name);
    let authorised = machine.authorisation.as_ref().is_some_and(|a| a.workflow == name && Some(a.workflow_uid) == uid);
    match (machine.phase, run.state) {
        (_, RunState::Succeeded | RunState::Aborted) => None,
        (Some(Phase::Ready), RunState::Running) if current && !authorised => Some(Settlement::WorkflowSucceeded),
        (Some(Phase::Assigned | Phase::Provisioning), RunState::Failed) if authorised => Some(Settlement::MachineError),
        (Some(Phase::Error), RunState::Pending) if authorised => Some(Settlement::MachineAssigned),
        (Some(Phase::Held), RunState::Pending | RunState::Running) if authorised => Some(Settlement::WorkflowHeld),
        (_, RunState::Pending | RunState::Running | RunState::Failed) if !authorised => {
            Some(Settlement::WorkflowAborted)
        }
        // Its machine was released.
        (phase, RunState::Held) if phase != Some(Phase::Held) && !authorised => Some(Settlement::WorkflowAborted),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::resource::hardware::{Authorisation, Overwrite};

    #[test]
    fn each_torn_pair_is_mended_one_way() {
        let uid = Uuid::from_u128(7);
        let authorisation = Authorisation {
            workflow: "w".into(),
            workflow_uid: uid,
            generation: 1,
            granted_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            granted_by: "t".into(),
            overwrite: Overwrite::Blank,
            power: Default::default(),
            used_at: None,
        };
        use {Phase as P, RunState as R, Settlement as S};
        let table = [
            // phase, authorised, run -> settlement
            (P::Ready, false, R::Running, Some(S::WorkflowSucceeded)),
            (P::Provisioning, true, R::Failed, Some(S::MachineError)),
            (P::Assigned, true, R::Failed, Some(S::MachineError)),
            (P::Error, true, R::Pending, Some(S::MachineAssigned)),
            (P::Registered, false, R::Pending, Some(S::WorkflowAborted)),
            (P::Registered, false, R::Running, Some(S::WorkflowAborted)),
            (P::Assigned, true, R::Pending, None),
            (P::Provisioning, true, R::Running, None),
            (P::Error, true, R::Failed, None),
            (P::Ready, false, R::Succeeded, None),
            (P::Held, true, R::Running, Some(S::WorkflowHeld)),
            (P::Held, true, R::Pending, Some(S::WorkflowHeld)),
            (P::Held, true, R::Held, None),
            (P::Held, false, R::Held, None),
            (P::Registered, false, R::Held, Some(S::WorkflowAborted)),
            (P::Assigned, false, R::Held, Some(S::WorkflowAborted)),
        ];
        for (phase, authorised, state, want) in table {
            let machine = HardwareStatus {
                phase: Some(phase),
                workflow: Some("w".into()),
                authorisation: authorised.then(|| authorisation.clone()),
                ..HardwareStatus::default()
            };
            let run = WorkflowStatus { state, ..WorkflowStatus::default() };
            assert_eq!(settle(&machine, "w", Some(uid), &run), want, "{phase} {authorised} {state:?}");
        }
    }

    #[test]
    fn a_workflow_of_the_same_name_made_later_is_another() {
        let machine = HardwareStatus { phase: Some(Phase::Assigned), workflow: Some("w".into()), ..Default::default() };
        let run = WorkflowStatus::default();
        assert_eq!(settle(&machine, "w", Some(Uuid::from_u128(9)), &run), Some(Settlement::WorkflowAborted));
    }
}
