//! Workflows that Tinkerbell's controllers carry out.
//!
//! A Workflow of theirs begins as soon as it exists, so that no authorisation stands behind it: making it is leave
//! enough, and the machine is given to it first, by a write that another one made at the same moment refuses. From then
//! on what Tinkerbell says of its Workflows decides where a machine is; also of those that somebody else made. Nothing
//! is handed to agents of ours, and nothing is failed for being late: Tinkerbell has limits of its own.

mod place;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::place::{moved, place};
use super::assign::{Asked, AssignRequest, workflow_name};
use super::{Engine, EngineError, Result};
use crate::boot::Fate;
use crate::clock::Timestamp;
use crate::coordinate::SWEEP;
use crate::deadline::{Owner, Then, Waits};
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::hardware::Overwrite;
use crate::resource::power::{POWER_ANNOTATION, PowerPolicy};
use crate::resource::{Hardware, HardwareSpec, Kind, Template, Workflow, WorkflowSpec};
use crate::store::Store as _;
use crate::store::{Key, StoreError};

/// How often every machine is compared with its Workflows, besides whenever one changes.
const PERIOD: Duration = Duration::from_secs(15);

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
        let waits =
            |owner, cause: &'static str| Some(Waits { owner, until: None, cause: cause.into(), then: Then::Tell });
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
