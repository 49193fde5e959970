//! Where a machine is by what Tinkerbell says of its Workflows, as a table.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::lifecycle::{self, IllegalPhase, Phase, PhaseEvent};
use crate::resource::Workflow;
use crate::resource::hardware::HardwareStatus;
use crate::workflow::RunState;

/// A machine was given to a Workflow that is not there: whoever made it has stopped, once this has passed.
const UNMADE: Duration = Duration::from_secs(60);

/// Where a machine is by what its Workflows say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) phase: Phase,
    pub(super) workflow: Option<String>,
    pub(super) message: String,
    pub(super) installed: Option<String>,
}

/// Where a machine belongs; `None` where nothing says that it is elsewhere than it was.
pub(super) fn place(machine: &HardwareStatus, runs: &[Arc<Workflow>], now: Timestamp) -> Option<Place> {
    if machine.phase == Some(Phase::Held) {
        return None;
    }
    let its = |run: &&Arc<Workflow>| machine.workflow.as_deref() == Some(run.name());
    let is_young =
        machine.phase == Some(Phase::Assigned) && machine.phase_since.is_none_or(|since| now.since(since) < UNMADE);
    if is_young && !runs.iter().any(|run| its(&run)) {
        // Whoever gave the machine to it is making it.
        return None;
    }
    // What was over before the machine was brought to where it is says nothing of it any more.
    let counts = |run: &&Arc<Workflow>| match run.status.state {
        RunState::Pending | RunState::Running => true,
        RunState::Aborted | RunState::Held => false,
        _ => its(run) || machine.phase.is_none() || run.metadata.creation_timestamp >= machine.phase_since,
    };
    // What runs is what happens to the machine; else what was asked for last.
    let made = |run: &&Arc<Workflow>| (run.metadata.creation_timestamp, run.name().to_owned());
    let running = runs.iter().filter(|run| run.status.state == RunState::Running).max_by_key(made);
    let newest = runs.iter().filter(counts).max_by_key(made);
    let Some(run) = running.or(newest) else {
        let had = machine.workflow.as_ref()?;
        let waits = matches!(machine.phase, Some(Phase::Assigned | Phase::Provisioning | Phase::Error));
        return waits.then(|| Place {
            phase: Phase::Registered,
            workflow: None,
            message: format!("its Workflow {had} is gone"),
            installed: machine.installed.clone(),
        });
    };
    let (name, template, status) = (run.name(), &run.spec.template, &run.status);
    let (phase, message) = match status.state {
        RunState::Running => (Phase::Provisioning, format!("Tinkerbell carries {template} out ({name})")),
        RunState::Succeeded => (Phase::Ready, format!("{template} is installed, by Tinkerbell ({name})")),
        RunState::Failed => (Phase::Error, format!("{name}: {}", status.message)),
        _ => (Phase::Assigned, format!("{template} is assigned ({name})")),
    };
    let installed = if phase == Phase::Ready { Some(template.clone()) } else { machine.installed.clone() };
    let is_same = machine.phase == Some(phase) && machine.workflow.as_deref() == Some(name);
    // A machine that was assigned from here says so in its own words.
    if is_same && (phase != Phase::Error || machine.message == message) {
        return None;
    }
    Some(Place { phase, workflow: Some(name.to_owned()), message, installed })
}

/// What must have happened for a machine to be there, by the table of a machine's life.
fn events(from: Option<Phase>, to: Phase, is_other: bool) -> &'static [PhaseEvent] {
    use {Phase as P, PhaseEvent as E};
    match (from, to) {
        (Some(P::Assigned | P::Provisioning), P::Provisioning) if !is_other => &[E::Began],
        (Some(P::Assigned), P::Ready) if !is_other => &[E::Began, E::HandedOver],
        (Some(P::Provisioning), P::Ready) if !is_other => &[E::HandedOver],
        (Some(P::Assigned | P::Provisioning), P::Error) if !is_other => &[E::Failed],
        // Another Workflow, or the same made anew: what was before it is over.
        (Some(P::Assigned | P::Provisioning), P::Assigned) => &[E::Aborted, E::Assigned],
        (Some(P::Assigned | P::Provisioning), P::Provisioning) => &[E::Aborted, E::Assigned, E::Began],
        (Some(P::Assigned | P::Provisioning), P::Ready) => &[E::Aborted, E::Assigned, E::Began, E::HandedOver],
        (Some(P::Assigned | P::Provisioning), P::Error) => &[E::Aborted, E::Assigned, E::Failed],
        (Some(P::Assigned | P::Provisioning | P::Error), P::Registered) => &[E::Aborted],
        (None, P::Registered) => &[E::Registered],
        (_, P::Assigned) => &[E::Assigned],
        (_, P::Provisioning) => &[E::Assigned, E::Began],
        (_, P::Ready) => &[E::Assigned, E::Began, E::HandedOver],
        (_, P::Error) => &[E::Assigned, E::Failed],
        (_, P::Registered | P::Held) => &[],
    }
}

pub(super) fn moved(
    from: Option<Phase>,
    to: Phase,
    is_other: bool,
) -> std::result::Result<Option<Phase>, IllegalPhase> {
    events(from, to, is_other).iter().try_fold(from, |phase, event| lifecycle::next(phase, *event).map(Some))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::resource::{TemplateSpec, WorkflowSpec};

    fn run(name: &str, made: i64, state: RunState) -> Arc<Workflow> {
        let spec = WorkflowSpec {
            hardware: "m".into(),
            template: "debian".into(),
            content: TemplateSpec::default(),
            values: BTreeMap::new(),
        };
        let mut run = Workflow::new(name, spec);
        run.metadata.creation_timestamp = Some(Timestamp::from_unix_seconds(made));
        run.status.state = state;
        run.status.message = "`write` failed: no space".into();
        Arc::new(run)
    }

    fn machine(phase: Option<Phase>, workflow: Option<&str>, since: i64) -> HardwareStatus {
        let phase_since = Some(Timestamp::from_unix_seconds(since));
        HardwareStatus { phase, phase_since, workflow: workflow.map(str::to_owned), ..HardwareStatus::default() }
    }

    #[test]
    fn a_machine_is_where_its_workflows_are() {
        use {Phase as P, RunState as R};
        let now = Timestamp::from_unix_seconds(1000);
        type Case<'a> = ((Option<P>, Option<&'a str>, i64), Vec<Arc<Workflow>>, Option<(P, Option<&'a str>)>);
        let table: Vec<Case<'_>> = vec![
            // What somebody made by hand is followed from any phase.
            ((None, None, 0), vec![run("a", 1, R::Pending)], Some((P::Assigned, Some("a")))),
            ((None, None, 0), vec![run("a", 1, R::Running)], Some((P::Provisioning, Some("a")))),
            ((None, None, 0), vec![run("a", 1, R::Succeeded)], Some((P::Ready, Some("a")))),
            ((Some(P::Ready), Some("a"), 0), vec![run("a", 1, R::Succeeded)], None),
            // What runs counts more than what waits, and that more than what is over.
            ((Some(P::Provisioning), Some("a"), 0), vec![run("a", 1, R::Running), run("b", 2, R::Pending)], None),
            (
                (Some(P::Ready), Some("a"), 0),
                vec![run("a", 1, R::Succeeded), run("b", 2, R::Pending)],
                Some((P::Assigned, Some("b"))),
            ),
            (
                (Some(P::Error), Some("b"), 0),
                vec![run("b", 2, R::Failed), run("a", 1, R::Running)],
                Some((P::Provisioning, Some("a"))),
            ),
            ((Some(P::Provisioning), Some("a"), 0), vec![run("a", 1, R::Failed)], Some((P::Error, Some("a")))),
            // What is gone.
            ((Some(P::Provisioning), Some("a"), 990), vec![], Some((P::Registered, None))),
            ((Some(P::Error), Some("a"), 990), vec![], Some((P::Registered, None))),
            ((Some(P::Ready), Some("a"), 0), vec![], None),
            ((None, None, 0), vec![], None),
            // One that is being made.
            ((Some(P::Assigned), Some("a"), 990), vec![], None),
            ((Some(P::Assigned), Some("a"), 100), vec![], Some((P::Registered, None))),
            ((Some(P::Assigned), Some("b"), 990), vec![run("a", 1, R::Succeeded)], None),
            ((Some(P::Held), Some("a"), 0), vec![run("a", 1, R::Running)], None),
            // What was over before.
            ((Some(P::Registered), Some("b"), 500), vec![run("a", 1, R::Succeeded)], None),
            ((Some(P::Error), Some("b"), 500), vec![run("a", 1, R::Succeeded)], Some((P::Registered, None))),
            ((Some(P::Registered), Some("b"), 500), vec![run("c", 600, R::Failed)], Some((P::Error, Some("c")))),
        ];
        for ((phase, workflow, since), runs, want) in table {
            let status = machine(phase, workflow, since);
            let got = place(&status, &runs, now);
            assert_eq!(got.as_ref().map(|p| (p.phase, p.workflow.as_deref())), want, "{phase:?} {runs:?}");
            if let Some(got) = got {
                let is_other = status.workflow != got.workflow && got.workflow.is_some();
                assert_eq!(moved(phase, got.phase, is_other), Ok(Some(got.phase)), "{phase:?}");
            }
        }
        let failed = place(&machine(Some(Phase::Provisioning), Some("a"), 0), &[run("a", 1, R::Failed)], now).unwrap();
        assert_eq!(failed.message, "a: `write` failed: no space");
    }

    #[test]
    fn every_move_goes_by_the_table_of_a_machines_life() {
        for from in [None].into_iter().chain(Phase::ALL.map(Some)).filter(|from| *from != Some(Phase::Held)) {
            for to in [Phase::Assigned, Phase::Provisioning, Phase::Ready, Phase::Error] {
                for is_other in [false, true] {
                    assert_eq!(moved(from, to, is_other), Ok(Some(to)), "{from:?} {to} {is_other}");
                }
            }
        }
    }
}
