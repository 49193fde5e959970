//! The periodic pass: torn pairs are mended, silent agents and expired orders get their cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::ending::Again;
use super::settle::{Settlement, settle};
use super::{Engine, Result};
use crate::coordinate::SWEEP;
use crate::deadline::{self, ON_HOLD, OVERDUE, Owner, Then, Waits};
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, Workflow, WorkflowSpec, condition, set_condition};
use crate::wire::{Failure, FailureKind};
use crate::workflow::RunState;

/// How often the pass is made.
const PERIOD: Duration = Duration::from_secs(15);
/// An order that was not finished within this time after a workflow's creation is an orphan.
const ORPHAN: Duration = Duration::from_secs(60);
/// How many machines are written at a time, and how many in one pass: after a night without a server all of them have
/// something to be told, and those that boot come first.
const AT_ONCE: usize = 8;
const IN_ONE_PASS: usize = 2000;

impl Engine {
    /// Follows the store and makes the periodic pass until told to stop. Whoever builds the engine spawns this.
    pub async fn run(&self, cancel: CancellationToken) {
        let follow = self.follow();
        let standing = CancellationToken::new();
        let stands = self.inner.coordinator.run(self.controllers(), standing.clone());
        let sweep = async {
            let mut tick = tokio::time::interval(PERIOD);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.refresh_networks();
                if self.leads(SWEEP).is_none() {
                    continue;
                }
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "the periodic pass could not be finished; it is made again");
                }
            }
        };
        #[cfg(feature = "proxmox")]
        let clusters = self.follow_clusters();
        #[cfg(not(feature = "proxmox"))]
        let clusters = std::future::pending::<()>();
        let works = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = follow => {}
                () = sweep => {}
                () = self.follow_dhcp() => {}
                () = self.boot_the_assigned() => {}
                () = self.follow_tinkerbell() => {}
                () = self.watch_power() => {}
                () = clusters => {}
            }
            // What it leads is given up when it does none of it any more.
            standing.cancel();
        };
        tokio::join!(works, stands);
    }

    /// One pass over everything. Every change it makes is told as an event with its cause.
    ///
    /// # Errors
    /// Those of the store; what was done before stays done.
    pub async fn sweep(&self) -> Result<()> {
        if self.is_tinkerbells() {
            // Who carries workflows out has limits of its own.
            let told = self.tell_the_overdue().await;
            return self.forget_orphans().await.and(told);
        }
        // What one object's error keeps from being done is done to all others.
        let mended = self.mend().await;
        let missed = self.miss_the_silent().await;
        let judged = self.judge_anew().await;
        let told = self.tell_the_overdue().await;
        self.forget_orphans().await.and(told).and(judged).and(missed).and(mended)
    }

    /// Mends torn pairs and acts on deadlines of runs: nothing is answered before this has been done once. No run is
    /// left out for another's error.
    pub(super) async fn mend(&self) -> Result<()> {
        let mut failed = None;
        for piece in self.inner.cache.pieces::<WorkflowSpec>() {
            for run in piece.iter().filter(|run| !run.status.state.is_final()) {
                if self.leads(SWEEP).is_none() {
                    return Ok(());
                }
                if let Err(error) = self.mend_one(run).await {
                    let (run, cause) = (run.name(), &error as &dyn std::error::Error);
                    tracing::warn!(run, error = cause, "a run could not be mended; it is tried again");
                    if error.is_of_the_store() {
                        return Err(error);
                    }
                    failed.get_or_insert(error);
                }
            }
            tokio::task::yield_now().await;
        }
        failed.map_or(Ok(()), Err)
    }

    async fn mend_one(&self, run: &Workflow) -> Result<()> {
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(&run.spec.hardware) else {
            if self.is_old(run) {
                self.abort_run(run.name(), "its machine does not exist").await?;
            }
            return Ok(());
        };
        let name = machine.name().to_owned();
        let _guard = self.lock(&name).await;
        // Read again under the lock.
        let (Some(mut run), Some(mut machine)) =
            (self.inner.cache.get::<WorkflowSpec>(run.name()), self.inner.cache.get::<HardwareSpec>(&name))
        else {
            return Ok(());
        };
        if self.is_shared() {
            // Most need nothing. What does is looked at as it is stored, the machine last: whoever authorises a run
            // writes the machine after it.
            if settle(&machine.status, run.name(), run.metadata.uid, &run.status).is_none()
                && self.overrun(&machine, &run).is_none()
            {
                return Ok(());
            }
            let Some(stored) = self.fresh::<WorkflowSpec>(run.name()).await? else { return Ok(()) };
            run = stored;
            let Some(stored) = self.fresh::<HardwareSpec>(&name).await? else { return Ok(()) };
            machine = stored;
        }
        match settle(&machine.status, run.name(), run.metadata.uid, &run.status) {
            Some(Settlement::WorkflowSucceeded) => self.succeed_run(&name, run.name()).await,
            Some(Settlement::MachineError) => self.move_machine(&name, &run, PhaseEvent::Failed).await,
            Some(Settlement::MachineAssigned) => self.move_machine(&name, &run, PhaseEvent::Retried).await,
            Some(Settlement::WorkflowHeld) => self.hold_run(run.name(), &machine.status.message).await,
            // An assign that is being made looks like this for a moment.
            Some(Settlement::WorkflowAborted) if self.is_old(&run) => {
                self.abort_run(run.name(), "no assign or reimage stands behind it").await?;
                self.tell("workflow.aborted", &name, Some(run.name()), "no assign or reimage stands behind it");
                Ok(())
            }
            Some(Settlement::WorkflowAborted) | None => self.deadlines(&machine, &run).await,
        }
    }

    /// Says of every machine that waits for somebody for too long whom it waits for; takes it back when it
    /// does not wait any more.
    async fn tell_the_overdue(&self) -> Result<()> {
        let told = AtomicUsize::new(0);
        let count = &told;
        let done = self
            .of_machines(
                |machine| self.is_told_wrongly(machine),
                |machine| async move {
                    let is_overdue = self.tell_overdue(machine).await?;
                    count.fetch_add(usize::from(is_overdue), Ordering::Relaxed);
                    Ok(())
                },
            )
            .await;
        // One line however many there are: each machine's own words are its event and its condition.
        let machines = told.into_inner();
        if machines > 0 {
            tracing::info!(kind = "machine.overdue", machines, "machines wait for somebody for too long");
        }
        done
    }

    /// Does something about the machines that `want` it, those beyond [`IN_ONE_PASS`] in later passes. Several at once:
    /// a store that writes in groups writes them so. None is left out for another's error.
    pub(super) async fn of_machines<'a, F>(
        &'a self,
        wants: impl Fn(&Hardware) -> bool + Send,
        act: impl Fn(Arc<Hardware>) -> F + Send,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'a,
    {
        let (mut failed, mut left) = (None, IN_ONE_PASS);
        for piece in self.inner.cache.pieces::<HardwareSpec>() {
            if self.leads(SWEEP).is_none() {
                return Ok(());
            }
            let acts: Vec<F> = piece.into_iter().filter(|machine| wants(machine)).take(left).map(&act).collect();
            left -= acts.len();
            let mut done = stream::iter(acts).buffer_unordered(AT_ONCE);
            while let Some(result) = done.next().await {
                failed = failed.or(result.err());
            }
            tokio::task::yield_now().await;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whom a machine waits for for too long. A failure is told as one, and a silent installed system by its
    /// own condition.
    fn overdue(&self, machine: &Hardware) -> Option<Waits> {
        let now = self.now();
        self.waits(machine).filter(|w| w.is_over(now) && w.then == Then::Tell && w.owner != Owner::System)
    }

    fn is_told_wrongly(&self, machine: &Hardware) -> bool {
        self.overdue(machine).is_some() != is_told(machine) || hold_is_news(machine)
    }

    /// Whether it is overdue now, and was not before.
    async fn tell_overdue(&self, machine: Arc<Hardware>) -> Result<bool> {
        let name = machine.name();
        let _guard = self.lock(name).await;
        // Read again under the lock.
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(name).filter(|m| self.is_told_wrongly(m)) else {
            return Ok(false);
        };
        let (now, over, told) = (self.now(), self.overdue(&machine), is_told(&machine));
        let (status, words) = match &over {
            Some(waits) => (ConditionStatus::True, &*waits.cause),
            None => (ConditionStatus::False, "it does not wait any more"),
        };
        self.change_status::<HardwareSpec, _>(name, |m| {
            note_hold(m, now);
            // Else it is told in the next pass.
            if self.overdue(m) == over && over.is_some() != is_told(m) {
                set_condition(&mut m.status.conditions, OVERDUE, status, "Deadline", words, now);
            }
            Ok(())
        })
        .await?;
        let is_news = over.is_some() && !told;
        if is_news {
            self.publish("machine.overdue", name, None, words.to_owned(), serde_json::Value::Null);
        }
        Ok(is_news)
    }

    fn is_old(&self, run: &Workflow) -> bool {
        run.metadata.creation_timestamp.is_none_or(|made| self.now().since(made) > ORPHAN)
    }

    async fn move_machine(&self, name: &str, run: &Workflow, event: PhaseEvent) -> Result<()> {
        let (now, message) = (self.now(), &run.status.message);
        let (_, moved) = self
            .change_status::<HardwareSpec, _>(name, |m| {
                let its_run = m.status.authorisation.as_ref().is_some_and(|a| a.workflow == run.name());
                if its_run {
                    m.status.phase = Some(lifecycle::next(m.status.phase, event)?);
                    m.status.phase_since = Some(now);
                    message.clone_into(&mut m.status.message);
                }
                Ok(its_run)
            })
            .await?;
        if moved {
            self.tell("machine.settled", name, None, message);
        }
        Ok(())
    }

    async fn deadlines(&self, machine: &Hardware, run: &Workflow) -> Result<()> {
        let Some((failure, again)) = self.overrun(machine, run) else { return Ok(()) };
        let step = run.status.steps.iter().position(|s| s.state == crate::workflow::StepState::Running);
        self.fail_run(machine.name(), run, step, failure, again).await
    }

    /// Why a run has failed by now, if its time is over.
    fn overrun(&self, machine: &Hardware, run: &Workflow) -> Option<(Failure, Again)> {
        let now = self.now();
        let authorisation = machine.status.authorisation.as_ref()?;
        if authorisation.workflow != run.name() {
            return None;
        }
        let overdue = |kind| {
            let row = deadline::of_phase(machine.status.phase, false, false)?;
            Some((Failure { kind, ..Failure::message(row.cause) }, Again::Never))
        };
        match (machine.status.phase, run.status.state) {
            (Some(Phase::Assigned), RunState::Pending) if now >= authorisation.expires_at => overdue(None),
            (Some(Phase::Provisioning), RunState::Running | RunState::Pending) => {
                let heard = self.heard_of(machine, now);
                let deadline = run.spec.content.timeout_seconds.unwrap_or(4 * 3600);
                let started = run.status.started_at.unwrap_or(now);
                if now.since(heard) > self.inner.settings.agent_deadline {
                    overdue(Some(FailureKind::AgentSilent))
                } else if now.since(started) > Duration::from_secs(deadline) {
                    Some((Failure::message("the run took longer than the template's timeoutSeconds"), Again::Never))
                } else {
                    None
                }
            }
            _ => None,
        }
    }
}

fn is_told(machine: &Hardware) -> bool {
    condition(&machine.status.conditions, OVERDUE).is_some_and(|told| told.status == ConditionStatus::True)
}

/// Whether a person's hold has begun, changed or ended since it was noted.
fn hold_is_news(machine: &Hardware) -> bool {
    let noted = condition(&machine.status.conditions, ON_HOLD).filter(|noted| noted.status == ConditionStatus::True);
    noted.map(|noted| noted.message.as_str()) != machine.spec.hold.as_deref()
}

/// Notes since when a person holds it, or that nobody does any more.
fn note_hold(machine: &mut Hardware, now: crate::clock::Timestamp) {
    if hold_is_news(machine) {
        let (status, reason, words) = match machine.spec.hold.clone() {
            Some(words) => (ConditionStatus::True, "Held", words),
            None => (ConditionStatus::False, "Released", "nobody holds it any more".to_owned()),
        };
        set_condition(&mut machine.status.conditions, ON_HOLD, status, reason, &words, now);
    }
}
