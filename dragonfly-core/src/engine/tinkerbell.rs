//! Workflows that Tinkerbell's controllers carry out.
//!
//! A Workflow of theirs begins as soon as it exists, so that no authorisation stands behind it: making it is leave
//! enough, and the machine is given to it first, by a write that another one made at the same moment refuses. From then
//! on what Tinkerbell says of its Workflows decides where a machine is; also of those that somebody else made. Nothing
//! is handed to agents of ours, and nothing is failed for being late: Tinkerbell has limits of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::operate::{Asked, AssignRequest, workflow_name};
use super::{Engine, EngineError, Result};
use crate::boot::Fate;
use crate::clock::Timestamp;
use crate::coordinate::SWEEP;
use crate::deadline::{Owner, Then, Waits};
use crate::lifecycle::{self, IllegalPhase, Phase, PhaseEvent};
use crate::resource::hardware::{HardwareStatus, Overwrite};
use crate::resource::power::{POWER_ANNOTATION, PowerPolicy};
use crate::resource::{Hardware, HardwareSpec, Kind, Template, Workflow, WorkflowSpec};
use crate::store::Store as _;
use crate::store::{Key, StoreError};
use crate::workflow::RunState;

/// How often every machine is compared with its Workflows, besides whenever one changes.
const PERIOD: Duration = Duration::from_secs(15);
/// A machine was given to a Workflow that is not there: whoever made it has stopped, once this has passed.
const UNMADE: Duration = Duration::from_secs(60);

/// Who carries workflows out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Runner {
    /// Our own agent, on a machine that this server boots.
    #[default]
    Mage,
    /// Tinkerbell's controllers and agents.
    Tinkerbell,
}

/// Wakes who follows Workflows.
#[derive(Debug, Default)]
pub(super) struct Following(Notify);

/// Where a machine is by what its Workflows say.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    phase: Phase,
    workflow: Option<String>,
    message: String,
    installed: Option<String>,
}

/// Where a machine belongs; `None` where nothing says that it is elsewhere than it was.
fn place(machine: &HardwareStatus, runs: &[Arc<Workflow>], now: Timestamp) -> Option<Place> {
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

fn moved(from: Option<Phase>, to: Phase, is_other: bool) -> std::result::Result<Option<Phase>, IllegalPhase> {
    events(from, to, is_other).iter().try_fold(from, |phase, event| lifecycle::next(phase, *event).map(Some))
}

/// What a machine was before it was given to a Workflow.
#[derive(Debug, Clone)]
struct Before {
    phase: Option<Phase>,
    since: Option<Timestamp>,
    workflow: Option<String>,
    message: String,
}

impl Engine {
    /// Whether Tinkerbell carries workflows out.
    pub(super) fn is_tinkerbells(&self) -> bool {
        self.inner.settings.runner == Runner::Tinkerbell
    }

    /// Something changed that machines may have to follow.
    pub(super) fn follow_soon(&self) {
        self.inner.following.0.notify_one();
    }

    /// Follows what Tinkerbell says of its Workflows, for as long as it is polled.
    pub(super) async fn follow_tinkerbell(&self) {
        if !self.is_tinkerbells() {
            return std::future::pending().await;
        }
        loop {
            if self.leads(SWEEP).is_some()
                && let Err(error) = self.follow_runs().await
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "machines could not be brought to where their Workflows are; it is tried again");
            }
            tokio::select! {
                () = self.inner.following.0.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Brings every machine to where its Workflows are.
    pub(super) async fn follow_runs(&self) -> Result<()> {
        let mut runs: BTreeMap<String, Vec<Arc<Workflow>>> = BTreeMap::new();
        for run in self.inner.cache.pieces::<WorkflowSpec>().flatten() {
            let name = self.machine_of(&run);
            runs.entry(name).or_default().push(run);
        }
        let none = Vec::new();
        let now = self.now();
        let mut failed = None;
        for machine in self.inner.cache.pieces::<HardwareSpec>().flatten() {
            let its = runs.get(machine.name()).unwrap_or(&none);
            if place(&machine.status, its, now).is_some()
                && let Err(error) = self.follow_one(machine.name()).await
            {
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The machine of a Workflow, which may name it by its card alone.
    fn machine_of(&self, run: &Workflow) -> String {
        match self.inner.cache.get::<HardwareSpec>(&run.spec.hardware) {
            Some(_) => run.spec.hardware.clone(),
            None => self.resolve(&run.spec.hardware).unwrap_or_default(),
        }
    }

    async fn follow_one(&self, name: &str) -> Result<()> {
        let _guard = self.lock(name).await;
        let now = self.now();
        // Looked at again under the lock: one may have been made, or taken away.
        let all = self.inner.cache.pieces::<WorkflowSpec>().flatten();
        let runs: Vec<Arc<Workflow>> = all.filter(|run| self.machine_of(run) == name).collect();
        let changed = self.change_status::<HardwareSpec, _>(name, |m| {
            let Some(place) = place(&m.status, &runs, now) else { return Ok(None) };
            let is_other = m.status.workflow != place.workflow && place.workflow.is_some();
            let phase = moved(m.status.phase, place.phase, is_other)?;
            let kind = match place.phase {
                Phase::Assigned => "workflow.assigned",
                Phase::Provisioning => "workflow.began",
                Phase::Ready => "machine.ready",
                Phase::Error => "machine.error",
                Phase::Registered | Phase::Held => "workflow.aborted",
            };
            m.status.phase = phase;
            m.status.phase_since = Some(now);
            m.status.message.clone_from(&place.message);
            m.status.installed = place.installed;
            if place.workflow.is_some() {
                m.status.workflow.clone_from(&place.workflow);
            }
            Ok(Some((kind, m.status.workflow.clone(), place.message)))
        });
        match changed.await {
            Ok((_, Some((kind, run, message)))) => self.tell(kind, name, run.as_deref(), message),
            Ok((_, None)) | Err(EngineError::NotFound { .. } | EngineError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What this server says of every boot: nothing but that another answers.
    pub(super) fn booted_elsewhere() -> (Fate, String) {
        (Fate::Local, "Tinkerbell decides what it boots; this server answers no boot requests".to_owned())
    }

    /// Whom a machine waits for.
    pub(super) fn waits_for_tinkerbell(machine: &Hardware) -> Option<Waits> {
        let waits = |owner, cause| Some(Waits { owner, until: None, cause, then: Then::Tell });
        match machine.status.phase {
            None | Some(Phase::Registered) => waits(Owner::Operator, "waits for an assignment; assign a template"),
            Some(Phase::Assigned) => waits(
                Owner::Machine,
                "waits for Tinkerbell's agent: boot the machine from the network, where Tinkerbell serves it",
            ),
            Some(Phase::Provisioning) => waits(Owner::Agent, "Tinkerbell's agent carries its workflow out"),
            Some(Phase::Ready | Phase::Error | Phase::Held) => None,
        }
    }

    /// What nobody here looks at must be allowed by name.
    pub(super) fn may_overwrite_unseen(machine: &str, overwrite: &Overwrite) -> Result<()> {
        match overwrite {
            Overwrite::All => Ok(()),
            Overwrite::Blank => Err(EngineError::WouldDestroy {
                machine: machine.to_owned(),
                what:
                    "perhaps; Tinkerbell's actions write to whatever disk the Template names and look at none before \
                       (--overwrite all)"
                        .to_owned(),
            }),
            Overwrite::Disks(_) => Err(EngineError::Illegal {
                why:
                    "Tinkerbell's actions write to whatever disk the Template names, so that no other can be kept from \
                      them: allow all (--overwrite all), or change the Template"
                        .to_owned(),
            }),
        }
    }

    /// Has Tinkerbell carry a template out on a machine that may have it. The machine's lock is held.
    pub(super) async fn hand_to_tinkerbell(
        &self,
        machine: &Hardware,
        template: &Template,
        request: AssignRequest,
        asked: Asked,
        by: &str,
    ) -> Result<Workflow> {
        let name = machine.name();
        let power = request.power.unwrap_or(self.inner.settings.power);
        let mut run = Workflow::new(
            workflow_name(name, self.now())?,
            WorkflowSpec {
                hardware: name.to_owned(),
                template: request.template.clone(),
                content: template.spec.clone(),
                values: request.values,
            },
        );
        if power == PowerPolicy::None {
            run.metadata.annotations.insert(POWER_ANNOTATION.to_owned(), "none".to_owned());
        }
        let words = format!("{} is assigned; it begins when Tinkerbell's agent asks for it", request.template);
        self.begin_run(name, run, words, |m| {
            self.may_have(m, &Overwrite::All, asked)?;
            lifecycle::next(m.status.phase, PhaseEvent::Assigned).map_err(EngineError::from)
        })
        .await
        .inspect(|run| {
            let words = format!("{by} assigned {} to it", run.spec.template);
            self.tell("workflow.assigned", name, Some(run.name()), words);
        })
    }

    /// Gives a machine to a Workflow and makes that. `next` judges the machine as it is stored.
    async fn begin_run(
        &self,
        name: &str,
        run: Workflow,
        words: String,
        next: impl Fn(&Hardware) -> Result<Phase> + Send + Sync,
    ) -> Result<Workflow> {
        let now = self.now();
        let (_, before) = self
            .change_status::<HardwareSpec, _>(name, |m| {
                let before = Before {
                    phase: m.status.phase,
                    since: m.status.phase_since,
                    workflow: m.status.workflow.clone(),
                    message: m.status.message.clone(),
                };
                m.status.phase = Some(next(m)?);
                m.status.phase_since = Some(now);
                m.status.workflow = Some(run.name().to_owned());
                m.status.message.clone_from(&words);
                Ok(before)
            })
            .await?;
        let made = self.create(&run).await;
        if made.is_err() {
            // After a stop here, whoever follows Workflows finds that there is none.
            let undone = self.change_status::<HardwareSpec, _>(name, |m| {
                if m.status.workflow.as_deref() == Some(run.name()) {
                    let Before { phase, since, workflow, message } = before.clone();
                    m.status.phase = phase;
                    m.status.phase_since = since;
                    m.status.workflow = workflow;
                    m.status.message = message;
                }
                Ok(())
            });
            undone.await.ok();
        }
        made
    }

    /// Has Tinkerbell carry a failed Workflow out again: it does that to no Workflow twice, so this is another, and the
    /// failed one goes, which would stand before it. The machine's lock is held.
    pub(super) async fn retry_by_tinkerbell(&self, machine: &Hardware, by: &str) -> Result<Workflow> {
        let name = machine.name();
        let gone = || EngineError::Illegal { why: format!("the Workflow that failed on {name} is gone; assign anew") };
        let failed = machine.status.workflow.as_deref().ok_or_else(gone)?;
        let failed = self.fresh::<WorkflowSpec>(failed).await?.ok_or_else(gone)?;
        if let Some(why) = &machine.spec.hold {
            return Err(EngineError::Illegal { why: format!("{name} is held: {why}; release it first") });
        }
        let mut run = Workflow::new(workflow_name(name, self.now())?, failed.spec.clone());
        run.spec.hardware = name.to_owned();
        run.metadata
            .annotations
            .extend(failed.metadata.annotations.get_key_value(POWER_ANNOTATION).map(|(k, v)| (k.clone(), v.clone())));
        self.remove_run(&failed).await?;
        let words = format!("{by} asked for another attempt of {}", run.spec.template);
        let next = |m: &Hardware| lifecycle::next(m.status.phase, PhaseEvent::Retried).map_err(EngineError::from);
        let run = self.begin_run(name, run, words.clone(), next).await?;
        self.tell("workflow.retried", name, Some(run.name()), words);
        Ok(run)
    }

    /// Calls the Workflow of a machine off: it is deleted. The machine's lock is held.
    pub(super) async fn abort_by_tinkerbell(&self, machine: &Hardware, run: &str, by: &str) -> Result<()> {
        let (name, now) = (machine.name(), self.now());
        if let Some(run) = self.fresh::<WorkflowSpec>(run).await? {
            self.remove_run(&run).await?;
        }
        let words =
            format!("{by} called {run} off; an action that Tinkerbell's agent has begun is finished all the same");
        self.change_status::<HardwareSpec, _>(name, |m| {
            if m.status.workflow.as_deref() == Some(run) {
                m.status.phase = moved(m.status.phase, Phase::Registered, false)?;
                m.status.phase_since = Some(now);
                m.status.message.clone_from(&words);
            }
            Ok(())
        })
        .await?;
        self.tell("workflow.aborted", name, Some(run), words);
        Ok(())
    }

    async fn remove_run(&self, run: &Workflow) -> Result<()> {
        let key = Key::new(Kind::WORKFLOW, run.name());
        let mut writing = self.writing();
        if let Some(uid) = run.metadata.uid {
            writing.wrote(uid.to_string());
        }
        // Tinkerbell writes its status all the time: it is the Workflow that is meant, not its version.
        for _ in 0..16 {
            let Some(found) = self.inner.store.get(&key).await? else { break };
            if found.metadata.uid != run.metadata.uid {
                break;
            }
            match self.inner.store.delete(&key, &found.metadata.resource_version).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {
                    self.inner.cache.removed(&key, &found.metadata.resource_version);
                    return Ok(());
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::TemplateSpec;

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
