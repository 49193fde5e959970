//! How a run ends: its machine is handed over, or the attempt has failed and there is another, or not.

use serde_json::json;
use uuid::Uuid;

use super::boot::{ADOPTED, BOOTED};
use super::report::OVERTAKEN;
use super::rules::Rule;
use super::work::same_attempt;
use super::{Engine, Result};
use crate::lifecycle::{self, PhaseEvent};
use crate::resource::workflow::AttemptFailure;
use crate::resource::{ConditionStatus, HardwareSpec, Workflow, WorkflowSpec, set_condition};
use crate::wire::{Failure, Heard};
use crate::workflow::{self, RunEvent, RunState, StepState};

/// Whether a failed run tries again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// While attempts are left and the cause is a new one.
    Maybe,
    /// Only when somebody asks.
    Never,
}

impl Engine {
    pub(super) async fn hand_over(&self, machine: &str, run: &Workflow, session: Uuid) -> Result<Heard> {
        let undone =
            run.status.steps.iter().find(|s| {
                s.attempt != run.status.attempt || !matches!(s.state, StepState::Succeeded | StepState::Skipped)
            });
        if let Some(step) = undone {
            return Ok(Heard::Stop { reason: format!("step `{}` has not been reported as done", step.name) });
        }
        let now = self.now();
        // The machine first: once it is Ready it boots from its disk, whatever happens to us next.
        let (_, handed_over) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                let its_run =
                    m.status.authorisation.as_ref().is_some_and(|a| {
                        a.workflow == run.name() && a.generation == run.status.authorisation_generation
                    });
                let speaks = m.status.session.as_ref().is_some_and(|s| s.id == session);
                if !(its_run && speaks) && self.keeps(Rule::LateReport) && self.keeps(Rule::LatestSession) {
                    return Ok(false);
                }
                m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::HandedOver)?);
                m.status.phase_since = Some(now);
                m.status.last_seen = Some(now);
                if self.keeps(Rule::EndsWithSuccess) {
                    m.status.authorisation = None;
                }
                m.status.installed = Some(run.spec.template.clone());
                m.status.message = format!("{} is installed", run.spec.template);
                let conditions = &mut m.status.conditions;
                set_condition(
                    conditions,
                    BOOTED,
                    ConditionStatus::Unknown,
                    "HandedOver",
                    "the installed system has not been heard yet",
                    now,
                );
                set_condition(
                    conditions,
                    ADOPTED,
                    ConditionStatus::False,
                    "Installed",
                    "what runs on it was installed from here",
                    now,
                );
                if let Some(session) = m.status.session.as_mut() {
                    session.ended = true;
                }
                Ok(true)
            })
            .await?;
        if !handed_over {
            return Ok(Heard::Stop { reason: OVERTAKEN.to_owned() });
        }
        #[cfg(feature = "testing")]
        if !self.keeps(Rule::EndsWithSuccess) {
            self.keep_after_success(machine, run.name()).await?;
            return Ok(Heard::GoOn);
        }
        // Always, as long as late reports are stopped.
        if run.status.state == RunState::Running {
            self.succeed_run(machine, run.name()).await?;
        }
        self.inner.sessions.forget(machine);
        self.tell(
            "machine.ready",
            machine,
            Some(run.name()),
            format!("{} is installed; it boots from its disk now", run.spec.template),
        );
        Ok(Heard::GoOn)
    }

    pub(super) async fn succeed_run(&self, machine: &str, run: &str) -> Result<()> {
        let now = self.now();
        self.change_status::<WorkflowSpec, _>(run, |w| {
            w.status.state = workflow::next(w.status.state, RunEvent::Completed)?;
            w.status.ended_at = Some(now);
            "every step is done and the machine was handed over".clone_into(&mut w.status.message);
            if let Some(tail) = self.log_tail(machine, w.name(), w.status.attempt) {
                w.status.log_tail = tail;
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Writes a failure down on the workflow, then on its machine; tries again if it may.
    pub(super) async fn fail_run(
        &self,
        machine: &str,
        judged: &Workflow,
        step: Option<usize>,
        failure: Failure,
        again: Again,
    ) -> Result<()> {
        let (now, run) = (self.now(), judged.name());
        let most = self.inner.settings.attempts;
        self.take_progress(run, usize::MAX);
        let words = match failure.causes.first() {
            Some(cause) => format!("{}: {cause}", failure.message),
            None => failure.message.clone(),
        };
        let (object, retry) = self
            .change_status::<WorkflowSpec, _>(run, |w| {
                if !same_attempt(w, judged) {
                    return Ok(None);
                }
                let attempt = w.status.attempt;
                let name = step.and_then(|i| w.status.steps.get(i)).map(|s| s.name.clone());
                // The same cause twice: a third try would only cost time.
                let same =
                    w.status.failures.last().is_some_and(|f| f.failure.message == failure.message && f.step == name);
                w.status.failures.push(AttemptFailure { attempt, step: name, failure: failure.clone() });
                if let Some(at_work) = step.and_then(|i| w.status.steps.get_mut(i)) {
                    at_work.state = StepState::Failed;
                    at_work.attempt = attempt;
                    at_work.started_at.get_or_insert(now);
                    at_work.ended_at = Some(now);
                    at_work.failure = Some(failure.clone());
                }
                w.status.state = workflow::next(w.status.state, RunEvent::Failed)?;
                let retry = (again == Again::Maybe && !same && attempt < most) || !self.keeps(Rule::RetryLimit);
                w.status.message = if retry {
                    format!("attempt {attempt} failed: {words}")
                } else if same && again == Again::Maybe {
                    format!("failed twice with the same cause: {words}")
                } else {
                    format!("failed: {words}")
                };
                if let Some(tail) = self.log_tail(machine, w.name(), attempt) {
                    w.status.log_tail = tail;
                }
                if retry {
                    w.status.state = workflow::next(w.status.state, RunEvent::Retried)?;
                    w.status.attempt += 1;
                    w.status.session = None;
                } else {
                    w.status.ended_at = Some(now);
                }
                Ok(Some(retry))
            })
            .await?;
        // Somebody has written it since it was judged: what was to be said of it is past.
        let Some(retry) = retry else { return Ok(()) };
        let step = step.and_then(|i| object.status.steps.get(i)).map_or("", |s| s.name.as_str());
        let data = json!({ "step": step, "failure": failure, "retry": retry });
        self.tell_with("workflow.failed", machine, Some(run), object.status.message.clone(), data);
        self.change_status::<HardwareSpec, _>(machine, |m| {
            // Another run, if any, is not touched by this one's failure.
            if self.is_shared() && m.status.authorisation.as_ref().is_none_or(|a| a.workflow != run) {
                return Ok(());
            }
            let failed = lifecycle::next(m.status.phase, PhaseEvent::Failed)?;
            m.status.phase = Some(if retry { lifecycle::next(Some(failed), PhaseEvent::Retried)? } else { failed });
            m.status.phase_since = Some(now);
            m.status.message.clone_from(&object.status.message);
            Ok(())
        })
        .await?;
        if retry {
            let words = format!("attempt {} of {most} begins by itself", object.status.attempt);
            self.tell("workflow.retried", machine, Some(run), words);
        } else {
            self.tell("machine.error", machine, Some(run), object.status.message.clone());
        }
        Ok(())
    }
}
