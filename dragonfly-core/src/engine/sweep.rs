//! The periodic pass: torn pairs are mended, silent agents and expired orders get their cause.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::report::Again;
use super::settle::{Settlement, settle};
use super::{Engine, Result};
use crate::deadline::{self, OVERDUE, Owner, Then};
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::{ConditionStatus, HardwareSpec, WorkflowSpec, condition, set_condition};
use crate::wire::Failure;
use crate::workflow::RunState;

/// How often the pass is made.
const PERIOD: Duration = Duration::from_secs(15);
/// An order that was not finished within this time after a workflow's creation is an orphan.
const ORPHAN: Duration = Duration::from_secs(60);

impl Engine {
    /// Follows the store and makes the periodic pass until told to stop. Whoever builds the engine spawns this.
    pub async fn run(&self, cancel: CancellationToken) {
        let follow = self.inner.cache.follow(std::sync::Arc::clone(&self.inner.store));
        let sweep = async {
            let mut tick = tokio::time::interval(PERIOD);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.refresh_networks();
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "the periodic pass could not be finished; it is made again");
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = follow => {}
            () = sweep => {}
        }
    }

    /// One pass over everything. Every change it makes is told as an event with its cause.
    ///
    /// # Errors
    /// Those of the store; what was done before stays done.
    pub async fn sweep(&self) -> Result<()> {
        for run in self.inner.cache.all::<WorkflowSpec>() {
            if run.status.state.is_final() {
                continue;
            }
            let Some(machine) = self.inner.cache.get::<HardwareSpec>(&run.spec.hardware) else {
                if self.is_old(&run) {
                    self.abort_run(run.name(), "its machine does not exist").await?;
                }
                continue;
            };
            let name = machine.name().to_owned();
            let _guard = self.lock(&name).await;
            // Read again under the lock.
            let (Some(run), Some(machine)) =
                (self.inner.cache.get::<WorkflowSpec>(run.name()), self.inner.cache.get::<HardwareSpec>(&name))
            else {
                continue;
            };
            match settle(&machine.status, run.name(), run.metadata.uid, &run.status) {
                Some(Settlement::WorkflowSucceeded) => self.succeed_run(&name, run.name()).await?,
                Some(Settlement::MachineError) => {
                    self.move_machine(&name, PhaseEvent::Failed, &run.status.message).await?
                }
                Some(Settlement::MachineAssigned) => {
                    self.move_machine(&name, PhaseEvent::Retried, &run.status.message).await?
                }
                Some(Settlement::WorkflowHeld) => self.hold_run(run.name(), &machine.status.message).await?,
                // An assign that is being made looks like this for a moment.
                Some(Settlement::WorkflowAborted) if self.is_old(&run) => {
                    self.abort_run(run.name(), "no assign or reimage stands behind it").await?;
                    self.tell("workflow.aborted", &name, Some(run.name()), "no assign or reimage stands behind it");
                }
                Some(Settlement::WorkflowAborted) | None => self.deadlines(&name, &run).await?,
            }
        }
        self.miss_the_silent().await?;
        self.tell_the_overdue().await
    }

    /// Says of every machine that waits for somebody for too long whom it waits for; takes it back when it
    /// does not wait any more.
    async fn tell_the_overdue(&self) -> Result<()> {
        let now = self.now();
        for machine in self.machines() {
            let told =
                condition(&machine.status.conditions, OVERDUE).is_some_and(|c| c.status == ConditionStatus::True);
            // A failure is told as one, and a silent installed system by its own condition.
            let waits = self.waits(&machine);
            let over = waits.filter(|w| w.is_over(now) && w.then == Then::Tell && w.owner != Owner::System);
            if over.is_some() == told {
                continue;
            }
            let name = machine.name();
            let _guard = self.lock(name).await;
            let (status, words) = match over {
                Some(waits) => (ConditionStatus::True, waits.cause),
                None => (ConditionStatus::False, "it does not wait any more"),
            };
            self.change_status::<HardwareSpec, _>(name, |m| {
                set_condition(&mut m.status.conditions, OVERDUE, status, "Deadline", words, now);
                Ok(())
            })
            .await?;
            if over.is_some() {
                self.tell("machine.overdue", name, None, words);
            }
        }
        Ok(())
    }

    fn is_old(&self, run: &crate::resource::Workflow) -> bool {
        run.metadata.creation_timestamp.is_none_or(|made| self.now().since(made) > ORPHAN)
    }

    async fn move_machine(&self, name: &str, event: PhaseEvent, message: &str) -> Result<()> {
        let now = self.now();
        self.change_status::<HardwareSpec, _>(name, |m| {
            m.status.phase = Some(lifecycle::next(m.status.phase, event)?);
            m.status.phase_since = Some(now);
            message.clone_into(&mut m.status.message);
            Ok(())
        })
        .await?;
        self.tell("machine.settled", name, None, message);
        Ok(())
    }

    async fn deadlines(&self, name: &str, run: &crate::resource::Workflow) -> Result<()> {
        let now = self.now();
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(name) else { return Ok(()) };
        let Some(authorisation) = &machine.status.authorisation else { return Ok(()) };
        if authorisation.workflow != run.name() {
            return Ok(());
        }
        let overdue = deadline::of_phase(machine.status.phase, false, false).map(|row| (row.cause, Again::Never));
        let failure = match (machine.status.phase, run.status.state) {
            (Some(Phase::Assigned), RunState::Pending) if now >= authorisation.expires_at => overdue,
            (Some(Phase::Provisioning), RunState::Running | RunState::Pending) => {
                let heard = self.inner.sessions.last(name).or(machine.status.last_seen).unwrap_or(now);
                let deadline = run.spec.content.timeout_seconds.unwrap_or(4 * 3600);
                let started = run.status.started_at.unwrap_or(now);
                if now.since(heard) > self.inner.settings.agent_deadline {
                    overdue
                } else if now.since(started) > Duration::from_secs(deadline) {
                    Some(("the run took longer than the template's timeoutSeconds", Again::Never))
                } else {
                    None
                }
            }
            _ => None,
        };
        if let Some((why, again)) = failure {
            let step = run.status.steps.iter().position(|s| s.state == crate::workflow::StepState::Running);
            self.fail_run(name, run.name(), step, Failure::message(why), again).await?;
        }
        Ok(())
    }
}
