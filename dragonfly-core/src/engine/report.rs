//! What agents report. Reports may come twice, late or out of order, or from an agent that no
//! longer speaks for the machine: none of these changes anything.

use serde_json::json;
use uuid::Uuid;

use super::ending::Again;
use super::proof::unproven;
use super::rules::Rule;
use super::work::{keeps_its_template, same_attempt};
use super::{Engine, Result};
use crate::action::Progress;
use crate::boot::Fate;
use crate::lifecycle::{self, Phase, PhaseEvent};
use crate::resource::workflow::{AttemptFailure, StepStatus};
use crate::resource::{Hardware, HardwareSpec, Workflow, WorkflowSpec};
use crate::text;
use crate::wire::{Failure, Heard, Report, ReportKind};
use crate::workflow::{self, RunEvent, RunState, StepChange, StepEvent, StepState};

/// The longest text of a failure that is kept, in bytes, and how many causes.
const LONGEST: usize = 4096;
const CAUSES: usize = 16;
/// Why an agent stops.
const ENDED: &str = "this session has ended; boot again";
const NOT_AUTHORISED: &str = "this workflow is no longer authorised for this machine";
pub(super) const OVERTAKEN: &str = "this attempt has been overtaken";

impl Engine {
    /// An agent says how far it has come. The answer is given when what it said is durable.
    ///
    /// # Errors
    /// `Unauthenticated` when the session has ended.
    pub async fn report(&self, session: &str, mut report: Report) -> Result<Heard> {
        let (claims, machine) = self.session(session).await?;
        let name = machine.name().to_owned();
        // It may have to wait: with no more than is kept of it.
        if let ReportKind::Refused { failure } | ReportKind::Step { failure: Some(failure), .. } = &mut report.what {
            failure.causes.truncate(CAUSES);
            failure.causes.shrink_to_fit();
        }
        let _guard = self.lock(&name).await;
        let stop = |reason: &str| Ok(Heard::Stop { reason: reason.to_owned() });
        // Read again under the lock. Of progress alone nothing is written, and it comes often.
        if !matches!(report.what, ReportKind::Step { event: StepEvent::Progressed, .. }) {
            self.fresh::<HardwareSpec>(&name).await?;
            self.fresh::<WorkflowSpec>(&report.workflow).await?;
            self.claimed(session)?;
        }
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(&name) else { return stop("the machine was deleted") };
        let handed_over = machine.status.phase == Some(Phase::Ready)
            && machine.status.workflow.as_deref() == Some(report.workflow.as_str());
        if handed_over && report.what == ReportKind::HandOver {
            // The acknowledgement was lost on its way: it stays true.
            return Ok(Heard::GoOn);
        }
        if machine.status.session.as_ref().is_some_and(|session| session.ended) && self.keeps(Rule::LatestSession) {
            return stop(ENDED);
        }
        let authorised = is_authorised(&machine, &report);
        // Without the rule, what is over is taken for what is.
        let late = self.keeps(Rule::LateReport);
        if !authorised && late {
            return stop(NOT_AUTHORISED);
        }
        let Some(run) = self.inner.cache.get::<WorkflowSpec>(&report.workflow) else {
            return stop("the workflow was deleted");
        };
        // The agent does this too; what is kept must not depend on how well it did.
        if let ReportKind::Refused { failure } | ReportKind::Step { failure: Some(failure), .. } = &mut report.what {
            let hidden = self.mask(&machine, &run).hide_in(std::mem::replace(failure, Failure::message("")));
            *failure = text::tidy(&hidden, LONGEST, text::harmless_lines);
        }
        let me = claims.id.to_string();
        if let ReportKind::Began = report.what {
            // Nothing is destroyed before this is acknowledged: the last look at whether it may.
            let decision = self.decision_for(&machine);
            if !matches!(&decision.fate, Fate::Image { workflow } if *workflow == report.workflow) {
                return stop(&decision.reason);
            }
            return self.began(&name, &run, &report, claims.id).await;
        }
        if let ReportKind::Refused { mut failure } = report.what {
            // Who may begin an attempt may say that it cannot be begun, and nobody else may.
            let is_open = matches!(run.status.state, RunState::Pending | RunState::Running);
            let may_begin = is_open && matches!(begins(&run, report.attempt, claims.id), Begins::Now { .. });
            if !may_begin && late {
                return stop(OVERTAKEN);
            }
            if unproven(&machine).is_some() && self.keeps(Rule::Proven) {
                return stop("it is not certain that this is that machine");
            }
            failure.causes.truncate(CAUSES - 1);
            failure.causes.push(keeps_its_template(&name));
            self.fail_run(&name, &run, None, failure, Again::Never).await?;
            return Ok(Heard::GoOn);
        }
        if report.attempt != run.status.attempt && late {
            return stop(OVERTAKEN);
        }
        if run.status.state != RunState::Running && late {
            return stop(&format!("the workflow is {:?}", run.status.state));
        }
        if run.status.session.as_deref() != Some(me.as_str()) && late {
            return stop("another agent runs this workflow");
        }
        match report.what {
            ReportKind::Step { index, event, progress, failure } => {
                self.step(&name, &run, index, event, progress, failure).await
            }
            ReportKind::HandOver => self.hand_over(&name, &run, claims.id).await,
            ReportKind::Began | ReportKind::Refused { .. } => Ok(Heard::GoOn),
        }
    }

    async fn began(&self, machine: &str, run: &Workflow, report: &Report, session: Uuid) -> Result<Heard> {
        let now = self.now();
        let attempt = report.attempt;
        match begins(run, attempt, session) {
            Begins::Now { .. } => {}
            Begins::Already => return Ok(Heard::GoOn),
            Begins::Other(reason) => return Ok(Heard::Stop { reason }),
        }
        workflow::next(run.status.state, RunEvent::Began)?;
        // The machine first: from here on the authorisation counts as used. Here is what the promise hangs on: it is
        // judged on the very state that is written, whoever has written it meanwhile.
        let (_, refused) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                if let Some(reason) = self.may_not_begin(m, report, session) {
                    return Ok(Some(reason));
                }
                m.status.phase = Some(lifecycle::next(m.status.phase, PhaseEvent::Began)?);
                m.status.phase_since = Some(now);
                m.status.last_seen = Some(now);
                m.status.message = format!("running {}, attempt {attempt}", run.spec.template);
                if let Some(authorisation) = &mut m.status.authorisation {
                    authorisation.used_at.get_or_insert(now);
                }
                Ok(None)
            })
            .await?;
        if let Some(reason) = refused {
            return Ok(Heard::Stop { reason });
        }
        let (_, refused) = self
            .change_status::<WorkflowSpec, _>(run.name(), |w| {
                let judged = if self.keeps(Rule::LastLook) { &*w } else { run };
                let taken_over = match begins(judged, attempt, session) {
                    Begins::Now { taken_over } => taken_over,
                    // The same word, told to another instance.
                    Begins::Already => return Ok(None),
                    Begins::Other(reason) => return Ok(Some(reason)),
                };
                if taken_over {
                    let step = running(w).map(|s| s.name.clone());
                    let failure = Failure::message("the machine left in the middle of this attempt");
                    w.status.failures.push(AttemptFailure { attempt: w.status.attempt, step, failure });
                }
                w.status.state = workflow::next(w.status.state, RunEvent::Began)?;
                w.status.attempt = attempt;
                w.status.session = Some(session.to_string());
                w.status.started_at.get_or_insert(now);
                w.status.message.clear();
                Ok(None)
            })
            .await?;
        if let Some(reason) = refused {
            return Ok(Heard::Stop { reason });
        }
        let words = format!("{} begins, attempt {attempt}", run.spec.template);
        self.tell("workflow.began", machine, Some(run.name()), words);
        Ok(Heard::GoOn)
    }

    /// Why this session may not begin what it reports, on a machine that is so.
    fn may_not_begin(&self, machine: &Hardware, report: &Report, session: Uuid) -> Option<String> {
        if !self.keeps(Rule::LastLook) {
            return None;
        }
        let speaks = machine.status.session.as_ref().is_some_and(|s| s.id == session);
        if !speaks && self.keeps(Rule::LatestSession) {
            return Some("a later agent speaks for this machine".to_owned());
        }
        if machine.status.session.as_ref().is_some_and(|s| s.ended) && self.keeps(Rule::LatestSession) {
            return Some(ENDED.to_owned());
        }
        if !is_authorised(machine, report) && self.keeps(Rule::LateReport) {
            return Some(NOT_AUTHORISED.to_owned());
        }
        if let Some(why) = unproven(machine).filter(|_| self.keeps(Rule::Proven)) {
            return Some(format!("it is not certain that this is {}: {why}", machine.name()));
        }
        let decision = self.decision_for(machine);
        let is_meant = matches!(&decision.fate, Fate::Image { workflow } if *workflow == report.workflow);
        (!is_meant).then_some(decision.reason)
    }

    async fn step(
        &self,
        machine: &str,
        judged: &Workflow,
        index: usize,
        event: StepEvent,
        progress: Option<Progress>,
        failure: Option<Failure>,
    ) -> Result<Heard> {
        let (now, run) = (self.now(), judged.name());
        let Some(step) = judged.status.steps.get(index) else {
            return Ok(Heard::Stop { reason: format!("there is no step {index}") });
        };
        let attempt = judged.status.attempt;
        let StepChange::To(to) = workflow::step(state_in(step, attempt), event) else { return Ok(Heard::GoOn) };
        if event == StepEvent::Progressed && state_in(step, attempt) == StepState::Running {
            if let Some(progress) = progress {
                self.note_progress(machine, run, attempt, index, &step.name, progress);
            }
            return Ok(Heard::GoOn);
        }
        if event == StepEvent::Failed {
            let failure = failure.unwrap_or_else(|| Failure::message("the agent did not say why"));
            self.fail_run(machine, judged, Some(index), failure, Again::Maybe).await?;
            return Ok(Heard::GoOn);
        }
        let last = self.take_progress(run, index);
        let (_, heard) = self
            .change_status::<WorkflowSpec, _>(run, |w| {
                if !same_attempt(w, judged) {
                    return Ok(Told::Overtaken);
                }
                // The same word, told to another instance: it was faster.
                if w.status
                    .steps
                    .get(index)
                    .is_none_or(|step| workflow::step(state_in(step, attempt), event) != StepChange::To(to))
                {
                    return Ok(Told::Before);
                }
                let tail = self.log_tail(machine, w.name(), attempt);
                if let Some(step) = w.status.steps.get_mut(index) {
                    if step.attempt != attempt {
                        *step = StepStatus {
                            name: step.name.clone(),
                            action: step.action.clone(),
                            attempt,
                            ..Default::default()
                        };
                    }
                    step.state = to;
                    step.started_at.get_or_insert(now);
                    if to != StepState::Running {
                        step.ended_at = Some(now);
                        step.progress = last.or(progress).or(step.progress);
                        if let Some(tail) = tail {
                            w.status.log_tail = tail;
                        }
                    }
                }
                // Done again, it may undo what came after it in an earlier attempt: that is to be done again as well,
                // whoever dies before it gets there.
                if to == StepState::Running {
                    let later = w.status.steps.iter_mut().skip(index + 1).filter(|step| step.attempt != attempt);
                    later.for_each(|step| step.state = StepState::Pending);
                }
                Ok(Told::Now)
            })
            .await?;
        match heard {
            Told::Now => {}
            Told::Before => return Ok(Heard::GoOn),
            Told::Overtaken => return Ok(Heard::Stop { reason: OVERTAKEN.to_owned() }),
        }
        let (kind, word) = match to {
            StepState::Succeeded => ("step.succeeded", "is done"),
            StepState::Skipped => ("step.skipped", "was done before and still holds"),
            _ => ("step.began", "begins"),
        };
        let data = json!({ "index": index, "step": step.name, "action": step.action, "attempt": attempt });
        self.tell_with(kind, machine, Some(run), format!("{} {word}", step.name), data);
        Ok(Heard::GoOn)
    }

    fn note_progress(&self, machine: &str, run: &str, attempt: u32, index: usize, step: &str, progress: Progress) {
        let mut all = self.inner.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.insert(run.to_owned(), (attempt, index, progress));
        drop(all);
        let data = json!({ "index": index, "step": step, "progress": progress, "attempt": attempt });
        let words = format!("{step}: {}", how_far(progress));
        self.tell_with("step.progress", machine, Some(run), words, data);
    }

    pub(super) fn take_progress(&self, run: &str, index: usize) -> Option<Progress> {
        let mut all = self.inner.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.remove(run).filter(|(_, at, _)| *at == index).map(|(_, _, progress)| progress)
    }

    /// How much of the step at work is done: attempt, index, progress.
    pub fn progress(&self, run: &str) -> Option<(u32, usize, Progress)> {
        self.inner.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(run).copied()
    }
}

fn how_far(progress: Progress) -> String {
    match progress.total {
        // What an agent says may be any number.
        Some(total) if total > 0 => {
            format!("{} %", u128::from(progress.done.min(total)) * 100 / u128::from(total))
        }
        _ => progress.done.to_string(),
    }
}

/// What a word that an attempt begins means to a run.
enum Begins {
    /// It does.
    Now { taken_over: bool },
    /// This session has said so before.
    Already,
    /// Another attempt is the one to run.
    Other(String),
}

fn begins(run: &Workflow, attempt: u32, session: Uuid) -> Begins {
    let taken_over = run.status.state == RunState::Running;
    let ours = taken_over && run.status.session.as_deref() == Some(session.to_string().as_str());
    if ours && attempt == run.status.attempt {
        return Begins::Already;
    }
    let expected = if taken_over { run.status.attempt + 1 } else { run.status.attempt };
    if attempt != expected || ours {
        return Begins::Other(format!("attempt {expected} is the one to run"));
    }
    Begins::Now { taken_over }
}

/// What became of the word on a step.
enum Told {
    Now,
    /// It was written already.
    Before,
    /// The run is at another attempt, or in other hands.
    Overtaken,
}

/// What an earlier attempt left behind is pending in this one.
fn state_in(step: &StepStatus, attempt: u32) -> StepState {
    if step.attempt == attempt { step.state } else { StepState::Pending }
}

fn is_authorised(machine: &Hardware, report: &Report) -> bool {
    let authorisation = machine.status.authorisation.as_ref();
    authorisation.is_some_and(|a| a.workflow == report.workflow && a.generation == report.generation)
}

fn running(w: &Workflow) -> Option<&StepStatus> {
    w.status.steps.iter().find(|s| s.state == StepState::Running && s.attempt == w.status.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Unit;

    #[test]
    fn progress_may_be_any_number() {
        for (done, total, words) in [
            (0, None, "0"),
            (u64::MAX, None, "18446744073709551615"),
            (7, Some(0), "7"),
            (1, Some(3), "33 %"),
            (9, Some(3), "100 %"),
            (u64::MAX, Some(u64::MAX), "100 %"),
            (u64::MAX / 2, Some(u64::MAX), "49 %"),
        ] {
            assert_eq!(how_far(Progress { done, total, unit: Unit::Bytes }), words);
        }
    }
}
