//! A machine as it stands in the rack: its disk, and the agent while it is up. The agent does what Mage
//! does: begins only when that was acknowledged, looks at the disk's mark before it writes, repeats
//! a report until it is answered, and does not wait for the answer with the next step.

use std::collections::{BTreeSet, VecDeque};

use dragonfly_core::resource::hardware::{ExistingOs, Overwrite};
use dragonfly_core::wire::{Failure, Report, ReportKind, Work};
use dragonfly_core::workflow::StepEvent;
use uuid::Uuid;

/// Which run has written the disk last, and under which number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    run: Uuid,
    generation: u64,
    /// The server has acknowledged that the machine was handed over with what this run has written.
    handed_over: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    /// It carries somebody's data.
    pub(crate) data: bool,
    mark: Option<Mark>,
    /// Steps of the marked run that are done.
    done: BTreeSet<usize>,
}

impl Disk {
    pub(crate) fn is_ours(&self, run: Uuid) -> bool {
        self.mark.is_some_and(|mark| mark.run == run)
    }

    /// What an agent finds on it.
    fn existing_os(&self) -> Option<ExistingOs> {
        let os = || ExistingOs { name: "Debian".into(), disk: "sda".into(), evidence: "os-release".into() };
        // A half-written disk does not boot: its first MiB comes last.
        (self.data && (self.mark.is_none() || self.done.contains(&0))).then(os)
    }

    /// Whether this run's every step is done on it.
    pub(crate) fn is_finished(&self, run: Uuid, steps: usize) -> bool {
        self.is_ours(run) && (0..steps).all(|step| self.done.contains(&step))
    }

    /// The hand-over of what was written on it was acknowledged: it says so from now on.
    pub(crate) fn hand_over(&mut self) {
        if let Some(mark) = &mut self.mark {
            mark.handed_over = true;
        }
    }

    /// Whether what this order is for was handed over, as the disk says.
    fn is_ended(&self, work: &Work) -> bool {
        let ended = |mark: Mark| mark.handed_over && work.permit.generation <= mark.generation;
        self.is_ours(work.permit.workflow_uid) && self.mark.is_some_and(ended)
    }

    /// May it be written under this order? As the agent's own actions judge.
    fn refuses(&self, work: &Work) -> Option<&'static str> {
        let ours = self.is_ours(work.permit.workflow_uid);
        if self.mark.is_some_and(|mark| mark.generation > work.permit.generation) && !ours {
            return Some("sda was written by a later run");
        }
        (self.data && !ours && work.permit.overwrite != Overwrite::All).then_some("sda carries data")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Every step is planned; nothing is done before Began is acknowledged.
    Planned,
    /// The step is to begin.
    At(usize),
    /// The step is at work.
    In(usize),
    /// Every step is done.
    Done,
    /// A step failed.
    Failed,
}

/// An attempt that the agent carries out.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) work: Work,
    pub(crate) stage: Stage,
    /// From the first step that is done again, everything after it is done again.
    again: bool,
    /// Reports that were not answered yet.
    pub(crate) outbox: VecDeque<ReportKind>,
    /// What stands behind it, as the test's model knows.
    pub(crate) grant: Option<usize>,
}

impl Run {
    pub(crate) fn new(work: Work) -> Self {
        Self { work, stage: Stage::Planned, again: false, outbox: VecDeque::new(), grant: None }
    }

    pub(crate) fn report(&self, what: ReportKind) -> Report {
        let (workflow, attempt) = (self.work.workflow.clone(), self.work.attempt);
        Report { workflow, attempt, generation: self.work.permit.generation, what }
    }

    /// What is to be told now: a report that waits, or one that the agent must have answered to go on.
    pub(crate) fn to_tell(&self) -> Option<ReportKind> {
        self.outbox.front().cloned().or(match self.stage {
            Stage::Planned => Some(ReportKind::Began),
            Stage::Done => Some(ReportKind::HandOver),
            _ => None,
        })
    }
}

/// The agent of one boot.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) boot: Uuid,
    /// Its number among all tokens.
    pub(crate) token: usize,
    /// Its number among all sessions.
    pub(crate) session: Option<usize>,
    pub(crate) run: Option<Run>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    /// The card that is in it.
    pub(crate) card: usize,
    /// Its board has lost its serial number and its UUID.
    pub(crate) no_numbers: bool,
    pub(crate) agent: Option<Agent>,
    /// The next step fails, with one of two causes.
    pub(crate) fails: Option<bool>,
}

/// What a step did to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    Nothing,
    /// Its first, destructive one.
    Wiped {
        carried_data: bool,
    },
    /// It would not: the disk is not this run's to write.
    Refused,
    /// Nor this run's any more.
    Ended,
}

impl Machine {
    pub(crate) fn existing_os(&self) -> Option<ExistingOs> {
        self.disk.existing_os()
    }

    /// The agent goes on by itself, if it need not be answered first. `None`: it must.
    pub(crate) fn work(&mut self) -> Option<Did> {
        let run = self.agent.as_mut()?.run.as_mut()?;
        let uid = run.work.permit.workflow_uid;
        let mut tell = |index, event, failure| {
            run.outbox.push_back(ReportKind::Step { index, event, progress: None, failure });
        };
        match run.stage {
            Stage::Planned | Stage::Done | Stage::Failed => None,
            Stage::At(index) if index == run.work.steps.len() => {
                run.stage = Stage::Done;
                Some(Did::Nothing)
            }
            Stage::At(index) => {
                let holds = self.disk.is_ours(uid) && self.disk.done.contains(&index);
                if run.work.steps[index].done_before && !run.again && holds {
                    tell(index, StepEvent::Skipped, None);
                    run.stage = Stage::At(index + 1);
                } else {
                    run.again = true;
                    tell(index, StepEvent::Began, None);
                    run.stage = Stage::In(index);
                }
                Some(Did::Nothing)
            }
            Stage::In(index) => {
                // Every step that writes asks this, not the first alone.
                if self.disk.is_ended(&run.work) {
                    tell(index, StepEvent::Failed, Some(Failure::message("sda was handed over by this very run")));
                    run.stage = Stage::Failed;
                    return Some(Did::Ended);
                }
                let refused = (index == 0).then(|| self.disk.refuses(&run.work)).flatten();
                if let Some(why) = refused {
                    tell(index, StepEvent::Failed, Some(Failure::message(why)));
                    run.stage = Stage::Failed;
                    return Some(Did::Refused);
                }
                let did = if index == 0 {
                    let carried_data = self.disk.data && !self.disk.is_ours(uid);
                    let mark = Mark { run: uid, generation: run.work.permit.generation, handed_over: false };
                    self.disk = Disk { data: true, mark: Some(mark), done: BTreeSet::new() };
                    Did::Wiped { carried_data }
                } else {
                    Did::Nothing
                };
                if let Some(cause) = self.fails.take() {
                    let why = if cause { "no space left on device" } else { "the source went away" };
                    tell(index, StepEvent::Failed, Some(Failure::message(why)));
                    run.stage = Stage::Failed;
                } else {
                    self.disk.done.insert(index);
                    tell(index, StepEvent::Succeeded, None);
                    run.stage = Stage::At(index + 1);
                }
                Some(did)
            }
        }
    }
}
