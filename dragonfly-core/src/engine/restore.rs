//! A store that was put back from a backup. What was allowed when the backup was made may have been
//! used, called off or forbidden since, and nobody remembers: all of it is void, and the machines
//! that it was for are held until a person has looked.

use super::Result;
use crate::clock::Timestamp;
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::hardware::HardwareStatus;
use crate::resource::{ConditionStatus, HardwareSpec, WorkflowSpec, WorkflowStatus, set_condition};
use crate::store::{Selector, Store, StoreExt};
use crate::workflow::{self, RunEvent, RunState};

/// The condition that a machine is held since its state was restored.
pub(super) const RESTORED: &str = "Restored";

/// Where a state comes from that is not known to be the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// A backup that was put in place.
    Backup,
    /// Another server's export.
    Export,
}

/// Machines and workflows that were held, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldBack {
    /// Machines that had an authorisation, or a workflow under way.
    pub machines: Vec<String>,
    /// Workflows that were not at their end.
    pub workflows: Vec<String>,
}

/// Holds everything in a restored store that could destroy something. Do this before an engine
/// stands on it, or let [`EngineBuilder::restored`](super::EngineBuilder::restored) do it. Doing it
/// again, after a stop in the middle too, does what is left.
///
/// # Errors
/// Those of the store.
pub async fn hold_restored<T: Store + ?Sized>(store: &T, now: Timestamp) -> Result<HeldBack> {
    let mut held = HeldBack::default();
    // Machines first: a workflow without an authorisation is inert.
    for machine in store.all::<HardwareSpec>(&Selector::all()).await? {
        let mut changed = false;
        store
            .update_status::<HardwareSpec, super::EngineError, _>(machine.name(), |m| {
                changed = hold(&mut m.status, Past::Backup, now)?;
                Ok(())
            })
            .await?;
        if changed {
            held.machines.push(machine.name().to_owned());
        }
    }
    for run in store.all::<WorkflowSpec>(&Selector::all()).await? {
        if run.status.state.is_final() || run.status.state == RunState::Held {
            continue;
        }
        store
            .update_status::<WorkflowSpec, super::EngineError, _>(run.name(), |w| {
                hold_run(&mut w.status, Past::Backup)?;
                Ok(())
            })
            .await?;
        held.workflows.push(run.name().to_owned());
    }
    Ok(held)
}

/// Holds a workflow that was not at its end then. Whether it was not.
pub(super) fn hold_run(status: &mut WorkflowStatus, past: Past) -> Result<bool> {
    if status.state.is_final() || status.state == RunState::Held {
        return Ok(false);
    }
    status.state = workflow::next(status.state, RunEvent::Held)?;
    status.session = None;
    let words = match past {
        Past::Backup => "held: it was not at its end in the backup that was restored",
        Past::Export => "held: it was not at its end on the server that it was imported from",
    };
    words.clone_into(&mut status.message);
    Ok(true)
}

/// Voids what a machine was allowed then. Whether there was anything.
pub(super) fn hold(status: &mut HardwareStatus, past: Past, now: Timestamp) -> Result<bool> {
    // Authorisations given after the backup have numbers that it does not know, and disks bear them;
    // the time is beyond them all, and beyond those of another restore of the same backup.
    let beyond = u64::try_from(now.unix_seconds()).unwrap_or(0);
    status.authorisation_generation = status.authorisation_generation.max(beyond);
    // Nor does it know the tokens that have been used since.
    // And who spoke for the machine may have been overtaken.
    if let Some(session) = &mut status.session {
        session.ended = true;
        session.used_tokens.void(now);
    }
    let authorisation = status.authorisation.take();
    let under_way = matches!(status.phase, Some(Phase::Assigned | Phase::Provisioning | Phase::Error));
    if authorisation.is_none() && !under_way {
        return Ok(false);
    }
    let what = match authorisation.map(|a| a.workflow).or_else(|| status.workflow.clone()) {
        Some(run) => format!("{run} was authorised or under way"),
        None => "a workflow was under way".to_owned(),
    };
    let (whence, reason) = match past {
        Past::Backup => ("restored from a backup in which", "RestoredFromBackup"),
        Past::Export => ("imported from a server on which", "ImportedFromServer"),
    };
    let words = format!(
        "{whence} {what}, and what has happened since is not known; \
         look at the machine, release it, then assign or reimage it anew"
    );
    status.phase = Some(lifecycle::next(status.phase, PhaseEvent::Held)?);
    status.phase_since = Some(now);
    set_condition(&mut status.conditions, RESTORED, ConditionStatus::True, reason, &words, now);
    status.message = words;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::hardware::{Authorisation, Overwrite};

    #[test]
    fn whatever_was_allowed_is_void() {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let authorisation = Authorisation {
            workflow: "w".into(),
            workflow_uid: uuid::Uuid::from_u128(7),
            generation: 3,
            granted_at: Timestamp::UNIX_EPOCH,
            expires_at: now,
            granted_by: "t".into(),
            overwrite: Overwrite::All,
            power: Default::default(),
            used_at: None,
        };
        use Phase as P;
        let table = [
            // phase, authorised -> phase after it
            (None, false, None),
            (Some(P::Registered), false, Some(P::Registered)),
            (Some(P::Ready), false, Some(P::Ready)),
            (Some(P::Assigned), true, Some(P::Held)),
            (Some(P::Provisioning), true, Some(P::Held)),
            (Some(P::Error), true, Some(P::Held)),
            (Some(P::Error), false, Some(P::Held)),
            // Written by hand, or torn: an authorisation is never left standing.
            (Some(P::Ready), true, Some(P::Held)),
            (Some(P::Held), false, Some(P::Held)),
        ];
        for (phase, authorised, want) in table {
            let mut status = HardwareStatus {
                phase,
                authorisation: authorised.then(|| authorisation.clone()),
                authorisation_generation: 3,
                ..HardwareStatus::default()
            };
            let mut elsewhere = status.clone();
            let held = hold(&mut status, Past::Backup, now).unwrap_or_else(|e| panic!("{phase:?}: {e}"));
            assert_eq!(status.phase, want, "{phase:?}, authorised: {authorised}");
            assert_eq!(held, authorised || phase != want, "{phase:?}, authorised: {authorised}");
            assert_eq!(status.authorisation, None);
            assert_eq!(status.authorisation_generation, 1_800_000_000);
            assert_eq!(status.message.contains("backup"), held);
            let once = status.clone();
            assert!(
                !hold(&mut status, Past::Backup, now).unwrap_or(true),
                "a second time there is nothing left to hold"
            );
            assert_eq!(status, once);
            assert_eq!(hold(&mut elsewhere, Past::Export, now).ok(), Some(held));
            assert_eq!(elsewhere.message.starts_with("imported from a server on which"), held);
            assert!(!elsewhere.message.contains("backup"), "{}", elsewhere.message);
        }
    }
}
