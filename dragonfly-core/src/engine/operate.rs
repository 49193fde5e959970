//! What operators ask for of a machine: retry, abort, protect, hold, release.

use std::sync::Arc;

use super::assign::not_being_deleted;
use super::boot::ADOPTED;
use super::found::{self, DOUBLED};
use super::question::{denied, deny, is_asked_about, settle, settled, whom};
use super::restore::RESTORED;
use super::rules::Rule;
use super::{Engine, EngineError, Result};
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::{
    ConditionStatus, Hardware, HardwareSpec, Kind, TemplateSpec, WAITING, Workflow, WorkflowSpec, condition,
    set_condition,
};
use crate::workflow::{self, RunEvent, RunState};

impl Engine {
    /// Runs a failed workflow again, as a new attempt under the same authorisation: steps that were done
    /// are verified and skipped if they still hold.
    ///
    /// # Errors
    /// `Illegal` when nothing has failed or the authorisation has expired.
    pub async fn retry(&self, machine: &str, by: &str) -> Result<Workflow> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let object = self.machine_now(&name).await?;
        if object.spec.protected && self.keeps(Rule::Protection) {
            return Err(EngineError::Protected { machine: name });
        }
        not_being_deleted(&object)?;
        if object.status.phase != Some(Phase::Error) {
            return Err(EngineError::Illegal {
                why: format!("{name} has no failed workflow to retry: it is {}", phase_word(&object)),
            });
        }
        if self.is_tinkerbells() {
            return self.retry_by_tinkerbell(&object, by).await;
        }
        let authorisation =
            object.status.authorisation.as_ref().ok_or_else(|| EngineError::Illegal {
                why: format!("the authorisation of {name} is gone; assign anew"),
            })?;
        if now >= authorisation.expires_at && self.keeps(Rule::Expiry) {
            return Err(EngineError::Illegal {
                why: format!("the authorisation of {name} expired at {}; assign anew", authorisation.expires_at),
            });
        }
        let run = authorisation.workflow.clone();
        let kept = self.kept_template(&name, &run).await?;
        let (run, ()) = self
            .change_status::<WorkflowSpec, _>(&run, |w| {
                w.status.state = workflow::next(w.status.state, RunEvent::Retried)?;
                w.status.attempt += 1;
                w.status.session = None;
                w.status.ended_at = None;
                w.status.message = format!("{by} asked for another attempt{kept}");
                Ok(())
            })
            .await?;
        self.change_status::<HardwareSpec, _>(&name, |m| {
            // The sweep of another instance has done it already.
            if m.status.phase == Some(Phase::Assigned) && self.is_shared() {
                return Ok(());
            }
            m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Retried)?);
            m.status.phase_since = Some(now);
            m.status.message =
                format!("attempt {} of {} waits for the machine{kept}", run.status.attempt, run.spec.template);
            Ok(())
        })
        .await?;
        self.tell(
            "workflow.retried",
            &name,
            Some(run.name()),
            format!("{by} asked for attempt {}{kept}", run.status.attempt),
        );
        self.boot_soon(&name);
        Ok(run)
    }

    /// That a run which is tried again is not what its template says by now, and how that is installed; else nothing.
    async fn kept_template(&self, machine: &str, run: &str) -> Result<String> {
        let Some(run) = self.fresh::<WorkflowSpec>(run).await? else { return Ok(String::new()) };
        let template = &run.spec.template;
        Ok(match self.fresh::<TemplateSpec>(template).await? {
            Some(now) if now.spec == run.spec.content => String::new(),
            Some(_) => format!(
                "; it runs {template} as it was when it was assigned, and {template} has been changed since: for the new \
                 one, dragonfly abort {machine} and assign it again"
            ),
            None => format!("; it runs {template} as it was when it was assigned, and {template} is gone since"),
        })
    }

    /// Calls the workflow of a machine off. What it has written stays as it is.
    ///
    /// # Errors
    /// `Illegal` when none is under way.
    pub async fn abort(&self, machine: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let object = self.machine_now(&name).await?;
        let under_way = matches!(object.status.phase, Some(Phase::Assigned | Phase::Provisioning | Phase::Error));
        let run = object.status.workflow.clone().filter(|_| under_way);
        let Some(run) = run else {
            return Err(EngineError::Illegal {
                why: format!("{name} has no workflow under way: it is {}", phase_word(&object)),
            });
        };
        if self.is_tinkerbells() {
            return self.abort_by_tinkerbell(&object, &run, by).await;
        }
        if !self.keeps(Rule::EndsWithAbort) {
            return Ok(());
        }
        // The machine first: without its authorisation the workflow is inert.
        self.change_status::<HardwareSpec, _>(&name, |m| {
            if m.status.workflow.as_deref() != Some(&run) {
                let why = format!("{name} was given another workflow at this moment; look, and ask again");
                return Err(EngineError::Illegal { why });
            }
            let begun = m.status.authorisation.as_ref().is_some_and(|a| a.used_at.is_some());
            m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Aborted)?);
            m.status.phase_since = Some(now);
            m.status.authorisation = None;
            m.status.message = format!("{by} called {run} off");
            if begun {
                let words = "a workflow had begun: what was on its disks may be gone";
                set_condition(&mut m.status.conditions, ADOPTED, ConditionStatus::False, "WorkflowBegun", words, now);
            }
            Ok(())
        })
        .await?;
        self.abort_run(&run, &format!("called off by {by}")).await?;
        self.tell("workflow.aborted", &name, Some(&run), format!("{by} called it off"));
        Ok(())
    }

    pub(super) async fn abort_run(&self, run: &str, why: &str) -> Result<()> {
        let now = self.now();
        self.change_status::<WorkflowSpec, _>(run, |w| {
            if !w.status.state.is_final() {
                w.status.state = workflow::next(w.status.state, RunEvent::Aborted)?;
                w.status.ended_at = Some(now);
                why.clone_into(&mut w.status.message);
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Protects a machine from assign and reimage, or takes the protection back.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn protect(&self, machine: &str, on: bool, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        self.change_spec::<HardwareSpec>(&name, |m| {
            m.spec.protected = on;
            Ok(())
        })
        .await?;
        let word = if on { "protected it" } else { "took its protection back" };
        self.tell("machine.protected", &name, None, format!("{by} {word}"));
        Ok(())
    }

    /// Holds a machine: it boots from its disk and nothing is done to it until it is released.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn hold(&self, machine: &str, why: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        self.change_spec::<HardwareSpec>(&name, |m| {
            m.spec.hold = Some(why.to_owned());
            Ok(())
        })
        .await?;
        self.tell("machine.held", &name, None, format!("{by} holds it: {why}"));
        Ok(())
    }

    /// Releases a machine from a hold: a person's, one after restarts without progress, one of a machine that stands twice in
    /// a cluster. What is [asked](Hardware::question) about its identity it does not answer:
    /// [`release_answering`](Self::release_answering) does.
    ///
    /// # Errors
    /// `Illegal` when nothing holds it but a question.
    pub async fn release(&self, machine: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let object = self.machine_now(&name).await?;
        let doubled = found::doubled(&object).is_some();
        let held = object.status.phase == Some(Phase::Held);
        // An earlier version wrote conflicts without saying who asks: there is nobody to name.
        let nameless = object.conflict().is_some() && object.question().is_none();
        if object.spec.hold.is_none() && !doubled && !held && !nameless {
            let asked = object.conflict().is_some() || is_asked_about(&object) || denied(&object).is_some();
            return Err(EngineError::Illegal {
                why: match asked {
                    true => {
                        format!("an answer names its question, lest somebody else has asked since: {}", look(&name))
                    }
                    false => format!("nothing holds {name}"),
                },
            });
        }
        if object.spec.hold.is_some() {
            self.change_spec::<HardwareSpec>(&name, |m| {
                m.spec.hold = None;
                Ok(())
            })
            .await?;
        }
        self.change_status::<HardwareSpec, _>(&name, |m| {
            if nameless {
                settle(m, &format!("settled by {by}"), now);
            }
            if doubled {
                // A cluster that still says so marks it again.
                let words = format!("settled by {by}");
                set_condition(&mut m.status.conditions, DOUBLED, ConditionStatus::False, "Settled", &words, now);
            }
            if held && m.status.phase == Some(Phase::Held) {
                m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Released)?);
                m.status.phase_since = Some(now);
                m.status.authorisation = None;
                let words = format!("released by {by}");
                if condition(&m.status.conditions, RESTORED).is_some() {
                    set_condition(&mut m.status.conditions, RESTORED, ConditionStatus::False, "Released", &words, now);
                }
                m.status.message = format!("{words}; {WAITING}");
            }
            Ok(())
        })
        .await?;
        // What was held with it has nobody behind it any more. The sweep does the same after a stop here.
        let held = object.status.workflow.as_ref().filter(|_| held);
        if let Some(run) = held
            && let Some(run) = self.fresh::<WorkflowSpec>(run).await?
            && run.status.state == RunState::Held
        {
            self.abort_run(run.name(), &format!("{by} released its machine; assign or reimage anew")).await?;
        }
        self.tell("machine.released", &name, None, format!("{by} released it"));
        Ok(())
    }

    /// Says yes to this [question](Hardware::question) about a machine, and to no other that has come since: whoever asks is
    /// the machine, or has the card that was the machine's. What holds it besides holds it still.
    ///
    /// # Errors
    /// `Illegal` when this is not asked, or was not denied.
    pub async fn release_answering(&self, machine: &str, question: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let (_, said) = self
            .change_status::<HardwareSpec, _>(&name, |m| {
                is_asked_still(m, question)?;
                if !(m.conflict().is_some() || is_asked_about(m) || denied(m).is_some()) {
                    return Err(EngineError::Illegal { why: format!("that is answered already: {}", look(&name)) });
                }
                let who = whom(m);
                settle(m, &format!("settled by {by}: {who} is believed"), now);
                Ok(match m.is_seen_elsewhere() {
                    true => format!(", and said that its card was moved to {who}"),
                    false => format!(", and said so of {who}"),
                })
            })
            .await?;
        self.tell("machine.released", &name, None, format!("{by} released it{said}"));
        Ok(())
    }

    /// Says no to this [question](Hardware::question) about a machine: whoever asks is not the machine, is refused from now
    /// on, and nothing of the machine is in doubt any more. What was released is taken back, until the agent has asked again.
    ///
    /// # Errors
    /// `Illegal` when this is not asked.
    pub async fn deny(&self, machine: &str, question: &str, by: &str) -> Result<()> {
        let name = self.resolve(machine)?;
        let _guard = self.lock(&name).await;
        let now = self.now();
        let (_, (who, ended)) = self
            .change_status::<HardwareSpec, _>(&name, |m| {
                is_asked_still(m, question)?;
                if !(m.conflict().is_some() || is_asked_about(m) || settled(m).is_some()) {
                    return Err(EngineError::Illegal { why: format!("that is answered already: {}", look(&name)) });
                }
                let who = whom(m);
                deny(m, &format!("denied by {by}: it is not {who}"), now);
                Ok((who, end_session(m)))
            })
            .await?;
        if ended {
            self.inner.sessions.forget(&name);
        }
        self.tell("machine.denied", &name, None, format!("{by} denied that it is {who}"));
        Ok(())
    }

    pub(super) fn machine(&self, name: &str) -> Result<Arc<Hardware>> {
        self.inner.cache.get::<HardwareSpec>(name).ok_or_else(|| self.not_found(Kind::HARDWARE, name))
    }

    /// As [`machine`](Self::machine), as it is stored.
    pub(super) async fn machine_now(&self, name: &str) -> Result<Arc<Hardware>> {
        self.fresh::<HardwareSpec>(name).await?.ok_or_else(|| self.not_found(Kind::HARDWARE, name))
    }

    /// Whether a run is under way on a machine.
    pub(super) fn busy(machine: &Hardware) -> bool {
        matches!(machine.status.phase, Some(Phase::Assigned | Phase::Provisioning))
    }
}

/// That what a person answers is what is asked.
fn is_asked_still(machine: &Hardware, question: &str) -> Result<()> {
    let name = machine.name();
    let why = match machine.question() {
        Some(asked) if asked == question => return Ok(()),
        Some(_) => {
            format!("what is asked about {name} has changed since you looked, and nothing was done: {}", look(name))
        }
        None => format!("nobody is in doubt who asks to be {name}"),
    };
    Err(EngineError::Illegal { why })
}

fn look(name: &str) -> String {
    format!("look again with dragonfly why {name}, and answer that")
}

/// Ends the session of an agent that was denied. Whether there was one.
fn end_session(machine: &mut Hardware) -> bool {
    let denied = machine.status.in_doubt.as_ref();
    let session = machine.status.session.as_mut().filter(|session| denied.is_some_and(|d| d.said == session.said));
    session.map(|session| session.ended = true).is_some()
}

fn phase_word(machine: &Hardware) -> String {
    machine.status.phase.map_or_else(|| "not seen yet".to_owned(), |p| p.to_string())
}
