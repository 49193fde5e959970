//! One attempt of one workflow: plan everything, then do one step after the other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dragonfly_core::action::{
    ActionContext, ActionError, Actions, Canceller, ImageSource, Permit, Planned, Progress, ProgressSink, Resume,
};
use dragonfly_core::secret::Mask;
use dragonfly_core::wire::{Failure, Heard, Report, ReportKind, Work, WorkStep};
use dragonfly_core::workflow::StepEvent;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::client::{CallError, Reports};
use crate::journal::Journal;

/// How often progress is told at most.
const TELL: Duration = Duration::from_secs(1);
/// How long a step that was asked to stop may take to do so.
const GRACE: Duration = Duration::from_secs(30);

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is done and the server has it in writing; leave by this action, or by reboot.
    Leave(Option<String>),
    /// A step failed, and the server knows.
    Failed(Failure),
    /// The steps make no plan; nothing was done.
    Refused(Failure),
    /// The server called it off.
    Stopped(String),
}

/// What an attempt needs.
pub struct Runner {
    /// The actions there are.
    pub actions: Actions,
    /// Where images come from.
    pub images: Arc<dyn ImageSource>,
    /// Who hears of it.
    pub reports: Arc<dyn Reports>,
    /// The log.
    pub journal: Journal,
    /// How often the server wants to hear something.
    pub heartbeat: Duration,
    /// Whether an action, by name, prepares to leave the machine.
    pub is_hand_over: fn(&str) -> bool,
    /// Notes on the disks that the machine was handed over. Blocks.
    pub handed_over: HandedOver,
}

/// What notes on the disks of a run that its machine was handed over.
pub type HandedOver = Arc<dyn Fn(&Permit) -> Result<(), ActionError> + Send + Sync>;

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("actions", &self.actions.names()).finish_non_exhaustive()
    }
}

/// Plans every step. The first failure names its step.
pub fn plan(actions: &Actions, steps: &[WorkStep]) -> Result<Vec<Planned>, Failure> {
    let mut planned = Vec::new();
    let mut problems = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match actions.plan(&step.action, &step.with) {
            Ok(plan) => planned.push(plan),
            Err(errors) => {
                problems.extend(errors.iter().map(|e| format!("step {} `{}`: {e}", index + 1, step.name)));
            }
        }
    }
    if steps.is_empty() {
        problems.push("the workflow has no steps".to_owned());
    }
    match problems.len() {
        0 => Ok(planned),
        n => {
            let message = format!("nothing was done: {n} of the steps' parameters cannot be used by this agent");
            Err(Failure { message, causes: problems, kind: None })
        }
    }
}

impl Runner {
    /// Runs an attempt to its end.
    pub async fn execute(&self, work: &Work) -> Outcome {
        let wire = Wire::new(work);
        let mask = Mask::new(&work.secrets);
        self.journal.hide(mask.clone());
        let planned = match plan(&self.actions, &work.steps) {
            Ok(planned) => planned,
            Err(failure) => {
                let failure = mask.hide_in(failure);
                self.say_failure("refused", &failure);
                let _ = self.reports.report(&wire.report(ReportKind::Refused { failure: failure.clone() })).await;
                return Outcome::Refused(failure);
            }
        };
        match self.reports.report(&wire.report(ReportKind::Began)).await {
            Ok(Heard::GoOn) => {}
            Ok(Heard::Stop { reason }) => return Outcome::Stopped(reason),
            Ok(_) => return Outcome::Stopped("the server gave an answer that this agent does not know".to_owned()),
            Err(error) => return Outcome::Stopped(crate::client::chain(&error)),
        }
        self.journal.say(format!("workflow {} attempt {}: {} steps", work.workflow, work.attempt, work.steps.len()));
        let teller = Teller::start(Arc::clone(&self.reports), wire.clone(), self.journal.clone(), self.heartbeat);
        let mut again = false;
        for (index, (step, planned)) in work.steps.iter().zip(&planned).enumerate() {
            let end = self.step(&teller, &mask, work, index, planned, &mut again).await;
            if let Some(reason) = teller.stopped() {
                self.journal.say(format!("stopped by the server: {reason}"));
                teller.finish().await;
                return Outcome::Stopped(reason);
            }
            if let Err(failure) = end {
                self.say_failure(&format!("step {} `{}` failed", index + 1, step.name), &failure);
                teller.finish().await;
                return Outcome::Failed(failure);
            }
        }
        teller.finish().await;
        match self.reports.report(&wire.report(ReportKind::HandOver)).await {
            Ok(Heard::GoOn) => {
                self.note_hand_over(&work.permit).await;
                let last = work.steps.last().map(|s| s.action.as_str()).filter(|a| (self.is_hand_over)(a));
                Outcome::Leave(last.map(str::to_owned))
            }
            Ok(Heard::Stop { reason }) => Outcome::Stopped(reason),
            Ok(_) => Outcome::Stopped("the server gave an answer that this agent does not know".to_owned()),
            Err(error) => Outcome::Stopped(crate::client::chain(&error)),
        }
    }

    /// The server knows: without the note all is well as long as it does not forget.
    async fn note_hand_over(&self, permit: &Permit) {
        let (note, permit) = (Arc::clone(&self.handed_over), permit.clone());
        let noted = tokio::task::spawn_blocking(move || note(&permit)).await;
        match noted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.journal.say(format!("the hand-over is not noted: {}", crate::client::chain(&error))),
            Err(error) => self.journal.say(format!("the hand-over is not noted: {error}")),
        }
    }

    async fn step(
        &self,
        teller: &Teller,
        mask: &Mask,
        work: &Work,
        index: usize,
        planned: &Planned,
        again: &mut bool,
    ) -> Result<(), Failure> {
        let Some(step) = work.steps.get(index) else { return Ok(()) };
        let canceller = Canceller::default();
        teller.at(index, &canceller);
        let sink = Arc::new(Sink { progress: Arc::clone(&teller.progress), journal: self.journal.clone() });
        let images = Arc::clone(&self.images);
        let context = ActionContext::new(&canceller, sink, images, work.permit.clone()).with_mask(mask.clone());
        let title = format!("[{}/{}] {}", index + 1, work.steps.len(), step.name);
        if step.done_before && !*again && planned.resume() == Resume::Verify {
            teller.verifies(true);
            let holds = planned.verify(&context).await;
            teller.verifies(false);
            match holds {
                Ok(true) => {
                    self.journal.say(format!("{title}: done before, and it still holds"));
                    teller.tell(index, StepEvent::Skipped, None).await;
                    return Ok(());
                }
                Ok(false) => self.journal.say(format!("{title}: done before, but it does not hold any more")),
                Err(error) => {
                    self.journal.say(format!(
                        "{title}: cannot be verified ({}), so it is done again",
                        crate::client::chain(&error)
                    ));
                }
            }
        }
        // From the first step that is done again, everything after it is done again.
        *again = true;
        self.journal.say(format!("{title}: {}", step.action));
        teller.tell(index, StepEvent::Began, None).await;
        let started = Instant::now();
        let limit = Duration::from_secs(step.timeout_seconds.max(1));
        let run = planned.run(&context);
        tokio::pin!(run);
        let result = tokio::select! {
            result = &mut run => result,
            () = tokio::time::sleep(limit) => {
                canceller.cancel();
                let late = tokio::time::timeout(GRACE, &mut run).await;
                match late {
                    // It came to its end in the very moment that it was asked to stop.
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(_) => Err(ActionError::because(format!(
                        "`{}` was stopped after {} s; give it more with `timeoutSeconds`, or see the log for what held it up",
                        step.name,
                        limit.as_secs()
                    ))),
                }
            }
        };
        match result {
            Ok(()) => {
                self.journal.say(format!("{title}: done in {:.1} s", started.elapsed().as_secs_f64()));
                teller.tell(index, StepEvent::Succeeded, None).await;
                Ok(())
            }
            Err(error) => {
                let failure = mask.hide_in(Failure::of(&error));
                teller.tell(index, StepEvent::Failed, Some(failure.clone())).await;
                Err(failure)
            }
        }
    }

    fn say_failure(&self, what: &str, failure: &Failure) {
        self.journal.say(format!("{what}: {}", failure.message));
        for cause in &failure.causes {
            self.journal.say(format!("  because: {cause}"));
        }
    }
}

/// The names that every report of an attempt carries.
#[derive(Debug, Clone)]
struct Wire {
    workflow: String,
    attempt: u32,
    generation: u64,
}

impl Wire {
    fn new(work: &Work) -> Self {
        Self { workflow: work.workflow.clone(), attempt: work.attempt, generation: work.permit.generation }
    }

    fn report(&self, what: ReportKind) -> Report {
        Report { workflow: self.workflow.clone(), attempt: self.attempt, generation: self.generation, what }
    }
}

/// Where a step's progress and log lines go.
#[derive(Debug)]
struct Sink {
    progress: Arc<Mutex<Option<Progress>>>,
    journal: Journal,
}

impl ProgressSink for Sink {
    fn report(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    fn log(&self, line: &str) {
        self.journal.note(line);
    }
}

#[derive(Debug, Default)]
struct Now {
    index: usize,
    canceller: Option<Canceller>,
    /// The step is looked at, and has not begun.
    verifies: bool,
    stop: Option<String>,
}

/// Tells the server what happens, in order, without holding up the work: ends of steps wait in a
/// queue while the server is away, progress is overtaken by later progress.
struct Teller {
    queue: mpsc::UnboundedSender<Report>,
    wire: Wire,
    now: Arc<Mutex<Now>>,
    progress: Arc<Mutex<Option<Progress>>>,
    ended: oneshot::Receiver<()>,
}

impl Teller {
    fn start(reports: Arc<dyn Reports>, wire: Wire, journal: Journal, heartbeat: Duration) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let now = Arc::new(Mutex::new(Now::default()));
        let progress = Arc::new(Mutex::new(None));
        let loop_ = TellLoop {
            reports,
            wire: wire.clone(),
            journal,
            heartbeat,
            now: Arc::clone(&now),
            progress: Arc::clone(&progress),
        };
        tokio::spawn(async move {
            loop_.run(inbox).await;
            let _ = end.send(());
        });
        Self { queue, wire, now, progress, ended }
    }

    fn at(&self, index: usize, canceller: &Canceller) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.index = index;
        now.canceller = Some(canceller.clone());
        if now.stop.is_some() {
            canceller.cancel();
        }
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn verifies(&self, verifies: bool) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).verifies = verifies;
    }

    async fn tell(&self, index: usize, event: StepEvent, failure: Option<Failure>) {
        let progress = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.queue.send(self.wire.report(ReportKind::Step { index, event, progress, failure }));
        // The order to stop may be the answer to this very report.
        tokio::task::yield_now().await;
    }

    fn stopped(&self) -> Option<String> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).stop.clone()
    }

    /// Waits until everything has been told.
    async fn finish(self) {
        drop(self.queue);
        let _ = self.ended.await;
    }
}

struct TellLoop {
    reports: Arc<dyn Reports>,
    wire: Wire,
    journal: Journal,
    heartbeat: Duration,
    now: Arc<Mutex<Now>>,
    progress: Arc<Mutex<Option<Progress>>>,
}

impl TellLoop {
    async fn run(self, mut inbox: mpsc::UnboundedReceiver<Report>) {
        let mut told: Option<(usize, Progress)> = None;
        let mut last = Instant::now();
        let mut shown = Instant::now();
        let mut tick = tokio::time::interval(TELL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                report = inbox.recv() => {
                    let Some(report) = report else { return };
                    let heard = self.reports.report(&report).await;
                    self.hear(heard);
                    last = Instant::now();
                }
                _ = tick.tick() => {
                    let (index, verifies) = {
                        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
                        (now.index, now.verifies)
                    };
                    let progress = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                    let news = progress.is_some_and(|p| told != Some((index, p)));
                    if !news && last.elapsed() < self.heartbeat / 2 {
                        continue;
                    }
                    if let Some(progress) = progress {
                        told = Some((index, progress));
                        if shown.elapsed() >= Duration::from_secs(5) {
                            self.journal.say(format!("      {}", describe(&progress)));
                            shown = Instant::now();
                        }
                    }
                    // A step that goes on counts as begun, and as done no more: were the machine to lose its power
                    // while one is verified, all of it would be done again. That the attempt has begun changes nothing.
                    let what = if verifies {
                        ReportKind::Began
                    } else {
                        ReportKind::Step { index, event: StepEvent::Progressed, progress, failure: None }
                    };
                    if let Ok(heard) = self.reports.report_once(&self.wire.report(what)).await {
                        self.hear(Ok(heard));
                    }
                    last = Instant::now();
                }
            }
        }
    }

    fn hear(&self, heard: Result<Heard, CallError>) {
        let reason = match heard {
            Ok(Heard::GoOn) => return,
            Ok(Heard::Stop { reason }) => reason,
            Ok(_) => "the server gave an answer that this agent does not know".to_owned(),
            Err(error) => crate::client::chain(&error),
        };
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(canceller) = &now.canceller {
            canceller.cancel();
        }
        now.stop.get_or_insert(reason);
    }
}

/// `512.0 MiB of 1024.0 MiB (50 %)`.
fn describe(progress: &Progress) -> String {
    use dragonfly_core::action::Unit;
    let amount = |n: u64| match progress.unit {
        Unit::Bytes => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        Unit::Items => n.to_string(),
    };
    match progress.total.filter(|t| *t > 0) {
        Some(total) => {
            let percent = u128::from(progress.done) * 100 / u128::from(total);
            format!("{} of {} ({percent} %)", amount(progress.done), amount(total))
        }
        None => amount(progress.done),
    }
}
