//! What an agent that asks is to do.

use std::time::Duration;

use super::proof::unproven;
use super::rules::Rule;
use super::sessions::SessionClaims;
use super::{Engine, EngineError, Result};
use crate::action::{Permit, Problem};
use crate::boot::Fate;
use crate::lifecycle::{self, PhaseEvent};
use crate::resource::hardware::Trust;
use crate::resource::workflow::AttemptFailure;
use crate::resource::{Hardware, HardwareSpec, Kind, Workflow, WorkflowSpec};
use crate::wire::{Ask, Failure, FailureKind, Orders, Work, WorkStep};
use crate::workflow::{self, RunEvent, RunState, StepState};

/// The longest that an agent may be kept waiting for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long after a power cycle an agent counts as started by it.
const CYCLED_LATELY: Duration = Duration::from_secs(15 * 60);
/// How long a step may take unless its template says.
const STEP_SECONDS: u64 = 3600;

impl Engine {
    /// What the machine of this session is to do. Waits for something to do as long as the agent asks,
    /// 30 s at most, and until it asks anew.
    ///
    /// # Errors
    /// `Unauthenticated` when the session has ended.
    pub async fn work(&self, session: &str, ask: Ask) -> Result<Orders> {
        let wait = Duration::from_secs(ask.wait_seconds.into()).min(LONGEST_WAIT);
        let deadline = tokio::time::Instant::now() + wait;
        // Hung before the first look, so that nothing falls between.
        let mut bell = self.inner.events.bell(self.session(session).await?.1.name());
        let mut turn = None;
        loop {
            // That it waits is no word of its: the connection of one that was switched off stays open.
            let (claims, machine) = self.speaker(session).await?;
            let waits =
                machine.status.authorisation.is_none() && matches!(self.decision_for(&machine).fate, Fate::Discover);
            let orders = if self.is_shared() && !waits {
                self.orders_now(session).await?
            } else {
                self.orders(&claims, &machine).await?
            };
            if !matches!(orders, Orders::Wait { .. }) || wait.is_zero() {
                return Ok(orders);
            }
            let turn = turn.get_or_insert_with(|| self.inner.waiting.turn(claims.id));
            let is_over = tokio::select! {
                biased;
                () = turn.is_over() => true,
                rung = tokio::time::timeout_at(deadline, bell.rung()) => rung.is_err(),
            };
            if is_over {
                return Ok(orders);
            }
        }
    }

    /// As [`orders`](Self::orders), by what is stored: what an agent is sent away with must not be past.
    async fn orders_now(&self, session: &str) -> Result<Orders> {
        let (claims, _) = self.speaker(session).await?;
        if let Some(machine) = self.fresh::<HardwareSpec>(&claims.machine).await?
            && let Some(authorisation) = &machine.status.authorisation
            && let Some(run) = self.fresh::<WorkflowSpec>(&authorisation.workflow).await?
        {
            self.fresh_values(&run).await?;
        }
        let (claims, machine) = self.claimed(session)?;
        self.orders(&claims, &machine).await
    }

    async fn orders(&self, claims: &SessionClaims, machine: &Hardware) -> Result<Orders> {
        // It has left, was switched off, or was there before a backup was put back: who it is now is a new question.
        if machine.status.session.as_ref().is_some_and(|session| session.ended) && self.keeps(Rule::LatestSession) {
            return Err(EngineError::Unauthenticated { why: "this session has ended; boot again" });
        }
        let decision = self.decision_for(machine);
        Ok(match decision.fate {
            Fate::Discover => Orders::Wait { reason: decision.reason },
            Fate::Local | Fate::Hold => Orders::BootLocal { reason: decision.reason },
            Fate::Chain { .. } => Orders::Reboot { reason: decision.reason },
            Fate::Image { .. } => match self.authorised(machine, self.now()) {
                Err(why) => Orders::Wait { reason: why },
                Ok(_) if let Some(why) = unproven(machine).filter(|_| self.keeps(Rule::Proven)) => {
                    self.doubt(machine.name(), &why).await?;
                    // What it was known by is not for whoever asks.
                    let name = machine.name();
                    Orders::BootLocal {
                        reason: format!(
                            "it is not certain that this is {name}; `dragonfly why {name}` tells an operator more"
                        ),
                    }
                }
                Ok(workflow) => match self.prepare(claims, machine, &workflow).await {
                    Ok(Some(work)) => Orders::Execute(Box::new(work)),
                    Ok(None) => Orders::Wait { reason: "this attempt is at work already".to_owned() },
                    Err(Unfit::For(failure)) => {
                        self.refuse(machine.name(), &workflow, failure).await?;
                        Orders::Wait { reason: "its workflow cannot be carried out".to_owned() }
                    }
                    Err(Unfit::Unproven(reason)) => Orders::Wait { reason },
                    Err(Unfit::NoProgress(reason)) => {
                        self.hold_for_want_of_progress(machine.name(), &workflow, &reason).await?;
                        Orders::BootLocal { reason }
                    }
                },
            },
        })
    }

    /// One attempt, rendered for this machine; `None` when this very session has begun it already.
    async fn prepare(
        &self,
        claims: &SessionClaims,
        machine: &Hardware,
        workflow: &Workflow,
    ) -> std::result::Result<Option<Work>, Unfit> {
        let run = &workflow.status;
        let ours = run.session.as_deref() == Some(claims.id.to_string().as_str());
        if run.state == RunState::Running && ours {
            return Ok(None);
        }
        // Begun under another session: that agent is gone. What it did is verified, and it counts.
        let attempt = if run.state == RunState::Running { run.attempt + 1 } else { run.attempt };
        let most = self.inner.settings.attempts;
        if run.state == RunState::Running && attempt > most && self.keeps(Rule::RetryLimit) {
            return Err(Unfit::NoProgress(format!(
                "the machine was restarted in the middle of {most} attempts; look at its console and log, then release \
                 it and assign anew"
            )));
        }
        let authorisation =
            machine.status.authorisation.as_ref().ok_or_else(|| Failure::message("the authorisation is gone"))?;
        let filled = self
            .filled(machine, &workflow.spec.content, &workflow.spec.values, self.server_of(claims), workflow.name())
            .map_err(|problems| failure(machine.name(), &problems))?;
        if !filled.secrets.is_empty() && machine.spec.trust == Trust::Bmc {
            was_cycled_for(machine).map_err(Unfit::Unproven)?;
        }
        let steps = filled
            .content
            .actions
            .into_iter()
            .enumerate()
            .map(|(index, action)| WorkStep {
                done_before: run
                    .steps
                    .get(index)
                    .is_some_and(|s| matches!(s.state, StepState::Succeeded | StepState::Skipped)),
                timeout_seconds: action.timeout_seconds.unwrap_or(STEP_SECONDS),
                name: action.name,
                action: action.action,
                with: action.with,
            })
            .collect();
        Ok(Some(Work {
            workflow: workflow.name().to_owned(),
            attempt,
            permit: Permit {
                workflow_uid: authorisation.workflow_uid,
                generation: authorisation.generation,
                overwrite: authorisation.overwrite.clone(),
            },
            steps,
            secrets: filled.secrets,
        }))
    }

    /// A machine that restarts again and again in the middle of what destroys is left alone: it boots its own
    /// disk, whatever is on it, until a person has looked.
    async fn hold_for_want_of_progress(&self, machine: &str, judged: &Workflow, why: &str) -> Result<()> {
        let _guard = self.lock(machine).await;
        let (now, run) = (self.now(), judged.name());
        if !self.fresh::<WorkflowSpec>(run).await?.is_some_and(|is| same_attempt(&is, judged)) {
            return Ok(());
        }
        // The machine first: once it is held nothing is written to its disks, whatever happens to us next.
        let (_, held) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                let its_run = m.status.authorisation.as_ref().is_some_and(|a| a.workflow == run);
                if its_run {
                    m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Held)?);
                    m.status.phase_since = Some(now);
                    why.clone_into(&mut m.status.message);
                }
                Ok(its_run)
            })
            .await?;
        if held {
            self.hold_run(run, why).await?;
            self.tell("machine.held", machine, Some(run), why);
        }
        Ok(())
    }

    /// Where the machine of a session reaches the server: another instance opened that session, perhaps, and may be gone.
    fn server_of(&self, claims: &SessionClaims) -> url::Url {
        let ours = self.inner.settings.server_url.clone().filter(|_| self.is_shared());
        ours.unwrap_or_else(|| claims.server.clone())
    }

    /// Holds a run whose machine is held because it restarts in the middle of it.
    pub(super) async fn hold_run(&self, run: &str, why: &str) -> Result<()> {
        self.change_status::<WorkflowSpec, _>(run, |w| {
            w.status.state = workflow::next(w.status.state, RunEvent::Held)?;
            let step = w.status.steps.iter().find(|s| s.state == StepState::Running).map(|s| s.name.clone());
            let failure = Failure::message(why).of_kind(FailureKind::Restarts);
            w.status.failures.push(AttemptFailure { attempt: w.status.attempt, step, failure });
            why.clone_into(&mut w.status.message);
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Fails a workflow that cannot be carried out on its machine. Nothing was done to it.
    async fn refuse(&self, machine: &str, workflow: &Workflow, failure: Failure) -> Result<()> {
        let _guard = self.lock(machine).await;
        self.fail_run(machine, workflow, None, failure, super::ending::Again::Never).await
    }

    /// The machine by name, in any spelling that people use: name, display name or MAC.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Illegal` when a MAC or a display name belongs to several.
    pub fn resolve(&self, word: &str) -> Result<String> {
        use crate::cache::Owner;
        let lower = word.to_lowercase();
        if self.inner.cache.get::<HardwareSpec>(&lower).is_some() {
            return Ok(lower);
        }
        if let Ok(mac) = word.parse() {
            return match self.inner.cache.by_mac(mac) {
                Owner::One(machine) => Ok(machine.name().to_owned()),
                Owner::Several(names) => Err(EngineError::Illegal {
                    why: format!("{mac} belongs to {}; name one of them", names.join(" and ")),
                }),
                Owner::Nobody => Err(EngineError::NotFound {
                    what: format!("a machine with the card {mac}"),
                    hint: "boot it from the network, or look at dragonfly get machines -o wide".to_owned(),
                }),
            };
        }
        match self.inner.cache.machine(word) {
            Owner::One(machine) => Ok(machine.name().to_owned()),
            Owner::Several(names) => Err(EngineError::Illegal {
                why: format!("{} are all displayed as `{word}`; name one of them", names.join(" and ")),
            }),
            Owner::Nobody => Err(self.not_found(Kind::HARDWARE, word)),
        }
    }
}

/// Whether a run is still at the attempt, and in the hands, that it was judged in.
pub(super) fn same_attempt(is: &Workflow, judged: &Workflow) -> bool {
    let of = |run: &Workflow| (run.metadata.uid, run.status.state, run.status.attempt, run.status.session.clone());
    of(is) == of(judged)
}

/// Why a run is not handed to an agent.
enum Unfit {
    /// It cannot be carried out; nothing was done.
    For(Failure),
    /// It was begun too often.
    NoProgress(String),
    /// The machine has not proven yet what it must for the run's secrets.
    Unproven(String),
}

impl From<Failure> for Unfit {
    fn from(failure: Failure) -> Self {
        Self::For(failure)
    }
}

/// Whether an agent's session began soon after its machine's controller had cycled it (`spec.trust: bmc`): whoever
/// only took its place on the network did not start then.
fn was_cycled_for(machine: &Hardware) -> std::result::Result<(), String> {
    let cycled = machine.status.power.as_ref().and_then(|power| power.cycled_at);
    // A session that is opened anew by the same boot of the agent is as old as that boot's first.
    let opened = machine.status.session.as_ref().map(|session| session.opened_at);
    match cycled.zip(opened).filter(|(cycled, opened)| cycled <= opened) {
        Some((cycled, opened)) if opened.since(cycled) < CYCLED_LATELY => Ok(()),
        _ => Err("its secrets go out to an agent that starts within 15 minutes after a power cycle by its controller \
                  (spec.trust: bmc); that is awaited: dragonfly power cycle"
            .to_owned()),
    }
}

/// A run keeps the template that it was made of, so whoever mends that one and asks for a retry gets the same again:
/// that is said where the failure is.
pub(super) fn keeps_its_template(machine: &str) -> String {
    format!(
        "a retry runs the template as it was assigned; for one that has been mended since, dragonfly abort {machine} and \
         assign it again"
    )
}

fn failure(machine: &str, problems: &[Problem]) -> Failure {
    Failure {
        message: format!(
            "the template cannot be carried out on this machine; nothing was written ({})",
            keeps_its_template(machine)
        ),
        causes: problems.iter().map(|p| format!("{}: {}", p.path, p.problem)).collect(),
        kind: None,
    }
}
