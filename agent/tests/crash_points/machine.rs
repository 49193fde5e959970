//! The machine that the agent dies on: its disk, which outlives the agent, and actions that write to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use dragonfly_core::action::{Action, ActionContext, ActionError, Actions, Resume, Unit};
use dragonfly_core::wire::Work;
use serde::Deserialize;
use tokio::sync::Notify;

/// What is on the disk, by its place.
pub(crate) type Disk = BTreeMap<String, String>;

/// What the first step brings, onto a disk that it clears.
const SYSTEM: [(&str, &str); 2] = [("system/0", "boot"), ("system/1", "root")];
/// The second step's file, and the fourth's.
const NAME: (&str, &str) = ("etc/hostname", "censusable");
const GREETING: (&str, &str) = ("etc/motd", "welcome");
/// What the third step, as packages do, puts in its place: the fourth brings ours.
const DEFAULT: &str = "a greeting of the distribution";
/// What the third step makes of what it finds on the disk.
const INITRD: &str = "initrd";
/// What of each step's work can be lost.
const WORK: [&str; STEPS - 1] = [SYSTEM[1].0, NAME.0, INITRD, GREETING.0];

/// The steps of [`crate::site::SETUP`]'s template that a retry verifies, by their place.
pub(crate) const VERIFIED: [usize; 3] = [0, 1, 3];
/// All of them.
pub(crate) const STEPS: usize = 5;

/// How the agent's work and its reports overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Every report is answered before the work goes on.
    Prompt,
    /// The server is slow: several steps are done before it hears of the first.
    Late,
}

/// What a life of the agent did to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    Verified { step: usize, holds: bool },
    Ran { step: usize },
}

#[derive(Debug, Default)]
struct State {
    disk: Disk,
    /// Of the agent that lives now: the points it came past, and where it dies.
    points: usize,
    /// The first points after something changed that survives it.
    news: Vec<usize>,
    changed: bool,
    dies_at: Option<usize>,
    dead: bool,
    death: Arc<Notify>,
    /// In memory, which does not survive: the last step has prepared the way out.
    prepared: bool,
    did: Vec<Did>,
    /// The server has acknowledged that this life's attempt begins.
    may_write: bool,
    /// What was wrong. A panic in a task of the agent's would be lost.
    faults: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) pace: Pace,
    state: Mutex<State>,
}

impl Machine {
    /// A machine whose disk holds something that is not ours.
    pub(crate) fn new(pace: Pace) -> Arc<Self> {
        let disk = [("system/1", "what was there before"), ("old", "and more of it")];
        let disk = disk.map(|(place, content)| (place.to_owned(), content.to_owned())).into();
        Arc::new(Self { pace, state: Mutex::new(State { disk, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn disk(&self) -> Disk {
        self.state().disk.clone()
    }

    pub(crate) fn did(&self) -> Vec<Did> {
        self.state().did.clone()
    }

    /// The points that the agent that lives now, or lived last, came past.
    pub(crate) fn points(&self) -> usize {
        self.state().points
    }

    /// Those of them before which something changed that survives the agent: dying at another is dying at the one before
    /// it, as far as anybody can tell afterwards.
    pub(crate) fn news(&self) -> Vec<usize> {
        self.state().news.clone()
    }

    pub(crate) fn changed(&self) {
        self.state().changed = true;
    }

    pub(crate) fn fault(&self, what: impl Into<String>) {
        self.state().faults.push(what.into());
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// The machine starts: only the disk is as it was. This agent dies at that point, if at any.
    pub(crate) fn start(&self, dies_at: Option<usize>) {
        let mut state = self.state();
        let kept = std::mem::take(&mut *state);
        *state = State { disk: kept.disk, faults: kept.faults, changed: true, dies_at, ..State::default() };
    }

    /// A place where the agent may die. What has come there never returns then.
    pub(crate) async fn point(&self) {
        if self.dies_here() {
            std::future::pending::<()>().await;
        }
    }

    /// As [`point`](Self::point), where somebody else stands who lives on.
    pub(crate) fn dies_here(&self) -> bool {
        let mut state = self.state();
        if !state.dead {
            state.points += 1;
            if std::mem::take(&mut state.changed) {
                let point = state.points;
                state.news.push(point);
            }
            state.dead = state.dies_at == Some(state.points);
            if state.dead {
                state.death.notify_one();
            }
        }
        state.dead
    }

    /// What the agent comes to, if it lives that long: with it, nothing of it goes on, not even to its next await.
    pub(crate) async fn until_death<T>(&self, agent: impl Future<Output = T>) -> Option<T> {
        let death = Arc::clone(&self.state().death);
        let (mut agent, mut death) = (pin!(agent), pin!(death.notified()));
        poll_fn(|cx| {
            if death.as_mut().poll(cx).is_ready() || self.state().dead {
                return Poll::Ready(None);
            }
            let end = agent.as_mut().poll(cx);
            if self.state().dead { Poll::Ready(None) } else { end.map(Some) }
        })
        .await
    }

    pub(crate) fn may_write(&self) {
        self.state().may_write = true;
    }

    /// One effect, and the points on both sides of it.
    async fn write(&self, change: impl FnOnce(&mut State)) {
        self.point().await;
        {
            let mut state = self.state();
            if !state.may_write {
                state.faults.push("something was written before the server had agreed that it begins".to_owned());
            }
            change(&mut state);
            state.changed = true;
        }
        self.point().await;
    }

    /// A file in two steps: whoever dies between them leaves it torn.
    async fn put(&self, place: &str, content: &str) {
        self.write(|state| drop(state.disk.insert(place.to_owned(), "torn".to_owned()))).await;
        self.write(|state| drop(state.disk.insert(place.to_owned(), content.to_owned()))).await;
    }

    /// Time that work takes, where time is not real.
    async fn toil(&self, cx: &ActionContext) {
        if self.pace == Pace::Late {
            cx.progress(1, Some(2), Unit::Items);
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    }

    /// Does a step.
    async fn run(&self, step: usize, cx: &ActionContext) {
        self.state().did.push(Did::Ran { step });
        self.toil(cx).await;
        match step {
            0 => {
                self.write(|state| state.disk.clear()).await;
                for (place, content) in SYSTEM {
                    self.write(|state| drop(state.disk.insert(place.to_owned(), content.to_owned()))).await;
                }
            }
            1 => self.put(NAME.0, NAME.1).await,
            2 => {
                self.write(|state| drop(state.disk.insert(GREETING.0.to_owned(), DEFAULT.to_owned()))).await;
                let made = initrd(&self.disk());
                self.put(INITRD, &made).await;
            }
            3 => self.put(GREETING.0, GREETING.1).await,
            _ => self.write(|state| state.prepared = true).await,
        }
        self.toil(cx).await;
    }

    /// Looks whether a step still holds.
    async fn verify(&self, step: usize) -> bool {
        self.point().await;
        // A disk that is slow to answer: the server waits for a sign of life meanwhile.
        if self.pace == Pace::Late {
            tokio::time::sleep(Duration::from_secs(9)).await;
            self.point().await;
        }
        // The greeting is looked for and not read, as a file system's own files are not: if it is the one of the
        // distribution again, because the third step was done again, only the order of things helps.
        let holds = if step == 3 { self.state().disk.contains_key(GREETING.0) } else { self.holds(step) };
        self.state().did.push(Did::Verified { step, holds });
        self.point().await;
        holds
    }

    /// Whether what a step is for is so, whoever made it so.
    pub(crate) fn holds(&self, step: usize) -> bool {
        let state = self.state();
        let is = |(place, content): (&str, &str)| state.disk.get(place).is_some_and(|is| is == content);
        match step {
            0 => SYSTEM.into_iter().all(is) && !state.disk.contains_key("old"),
            1 => is(NAME),
            2 => is((INITRD, &initrd(&state.disk))),
            3 => is(GREETING),
            _ => state.prepared,
        }
    }

    /// The steps whose work is on the disk, at least in part: it can be lost.
    pub(crate) fn losable(&self) -> Vec<usize> {
        let disk = self.disk();
        (0..WORK.len()).filter(|step| disk.contains_key(WORK[*step])).collect()
    }

    /// While the machine is without power, its disk loses what a step wrote.
    pub(crate) fn lose(&self, step: usize) {
        self.state().disk.remove(WORK[step]);
    }

    /// Judges what a life did with its orders: a step that was done is verified and left alone if it holds; whatever
    /// follows one that was done again is done again; what cannot be verified always is.
    pub(crate) fn judge(&self, work: &Work, died: bool) {
        let did = self.did();
        let mut left: VecDeque<Did> = did.iter().copied().collect();
        let mut again = false;
        for (step, orders) in work.steps.iter().enumerate() {
            let mut wanted = vec![Did::Ran { step }];
            if orders.done_before && !again && VERIFIED.contains(&step) {
                match left.pop_front() {
                    Some(Did::Verified { step: at, holds }) if at == step => {
                        wanted.truncate(usize::from(!holds));
                    }
                    None if died => return,
                    other => return self.fault(format!("step {step} was to be verified: {other:?} in {did:?}")),
                }
            }
            for wanted in wanted {
                again = true;
                match left.pop_front() {
                    Some(is) if is == wanted => {}
                    None if died => return,
                    other => return self.fault(format!("{wanted:?} was to come, and not {other:?} in {did:?}")),
                }
            }
        }
        if !left.is_empty() {
            self.fault(format!("{left:?} is too much in {did:?}"));
        }
    }
}

fn initrd(disk: &Disk) -> String {
    let parts: BTreeSet<_> =
        disk.iter().filter(|(place, _)| place.starts_with("system/") || *place == NAME.0).collect();
    format!("{parts:?}")
}

/// Which step of the workflow it is: that says what it does.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Params {
    step: usize,
}

/// What a retry verifies.
#[derive(Debug)]
struct Keep(Arc<Machine>);

impl Action for Keep {
    const NAME: &'static str = "keep";
    const RESUME: Resume = Resume::Verify;
    type Params = Params;

    fn check(&self, _: &Params) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn run(&self, params: Params, cx: &ActionContext) -> Result<(), ActionError> {
        self.0.run(params.step, cx).await;
        Ok(())
    }

    async fn verify(&self, params: Params, _: &ActionContext) -> Result<bool, ActionError> {
        Ok(self.0.verify(params.step).await)
    }
}

/// What a retry does again. The last of them leads out of the agent.
#[derive(Debug)]
struct Anew(Arc<Machine>);

impl Action for Anew {
    const NAME: &'static str = LEAVES;
    const RESUME: Resume = Resume::Restart;
    type Params = Params;

    fn check(&self, _: &Params) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn run(&self, params: Params, cx: &ActionContext) -> Result<(), ActionError> {
        self.0.run(params.step, cx).await;
        Ok(())
    }

    // It would be left alone if it were asked.
    async fn verify(&self, params: Params, _: &ActionContext) -> Result<bool, ActionError> {
        self.0.verify(params.step).await;
        Ok(true)
    }
}

/// The action that leads out.
pub(crate) const LEAVES: &str = "anew";

/// Both, on this machine.
pub(crate) fn actions(machine: &Arc<Machine>) -> Actions {
    Actions::new().with(Keep(Arc::clone(machine))).with(Anew(Arc::clone(machine)))
}
