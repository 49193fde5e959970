//! What operators asked for and what the promise allows of it, kept from outside, by calls and their answers alone.
//!
//! Calls overlap. What was answered before another call was made comes before it; of two that overlap nobody
//! knows which came first, and either is allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// An agent that was answered so lately lives.
const ALIVE: Duration = Duration::from_secs(20);
/// How many attempts a run makes without being asked.
const ATTEMPTS: u64 = 3;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) calls: u64,
    pub(crate) cut: u64,
    pub(crate) killed: u64,
    pub(crate) granted: u64,
    pub(crate) begun: u64,
    pub(crate) wiped: u64,
    pub(crate) installed: u64,
    pub(crate) stopped: u64,
    pub(crate) refused: u64,
    pub(crate) two_leaders: u64,
    pub(crate) doubled: u64,
}

/// An assign or reimage that was accepted, or whose answer nobody knows.
#[derive(Debug)]
struct Grant {
    machine: usize,
    workflow: Option<String>,
    asked: Instant,
    /// When it was answered, or cut off.
    answered: Option<Instant>,
    all: bool,
    /// Since when nothing may begin under it, and why.
    void: Option<(Instant, &'static str)>,
    /// Which session runs each attempt that has begun.
    attempts: BTreeMap<u32, Uuid>,
    generation: Option<u64>,
}

/// Something that is so, was not so, or may be either since a call is on its way.
#[derive(Debug, Default)]
struct Word {
    is: Option<bool>,
    since: Option<Instant>,
    asking: u32,
}

impl Word {
    fn asks(&mut self) {
        (self.is, self.asking) = (None, self.asking + 1);
    }

    /// What is known once it is answered: nothing where others were asked at the same time.
    fn answered(&mut self, is: Option<bool>) {
        self.asking -= 1;
        if self.asking == 0 {
            (self.is, self.since) = (is, Some(Instant::now()));
        }
    }

    fn held_before(&self, when: Instant) -> bool {
        self.is == Some(true) && self.since.is_some_and(|since| since <= when)
    }
}

#[derive(Debug, Default)]
struct Machine {
    protected: Word,
    retries: u64,
    /// Which boot of its agent was answered of late, when it asked and when that was.
    heard: Vec<(Uuid, Instant, Instant)>,
}

#[derive(Debug)]
pub(crate) struct Oracle {
    grants: Vec<Grant>,
    machines: Vec<Machine>,
    pub(crate) seen: Seen,
    pub(crate) broken: Option<String>,
}

impl Oracle {
    pub(crate) fn new(machines: usize) -> Self {
        let machines = (0..machines).map(|_| Machine::default()).collect();
        Self { grants: Vec::new(), machines, seen: Seen::default(), broken: None }
    }

    fn breaks(&mut self, told: String) {
        self.broken.get_or_insert(told);
    }

    // Operators.

    /// An assign or reimage is asked for: it may count before it is answered.
    pub(crate) fn asks(&mut self, machine: usize, asked: Instant, all: bool) {
        let (void, attempts) = (None, BTreeMap::new());
        self.grants.push(Grant {
            machine,
            workflow: None,
            asked,
            answered: None,
            all,
            void,
            attempts,
            generation: None,
        });
    }

    /// It was answered: with its run, or with a refusal. One that was cut off stays as it was asked.
    pub(crate) fn granted(&mut self, machine: usize, asked: Instant, answer: Result<String, String>) {
        let asked_so = |g: &Grant| g.machine == machine && g.asked == asked;
        let Some(index) = self.grants.iter().position(asked_so) else { return };
        self.grants[index].answered = Some(Instant::now());
        match answer {
            Ok(workflow) => {
                self.seen.granted += 1;
                if self.machines[machine].protected.held_before(asked) {
                    self.breaks(format!("{workflow} was granted on a protected machine"));
                }
                // What began before its answer was taken for the first that was on its way.
                if let Some(other) = self.grants.iter().position(|g| g.workflow.as_deref() == Some(&*workflow)) {
                    let (left, right) = (self.grants[index].asked, self.grants[other].asked);
                    (self.grants[index].asked, self.grants[other].asked) = (right, left);
                    let answered = (self.grants[index].answered, self.grants[other].answered);
                    (self.grants[other].answered, self.grants[index].answered) = answered;
                    let all = (self.grants[index].all, self.grants[other].all);
                    (self.grants[other].all, self.grants[index].all) = all;
                } else {
                    self.grants[index].workflow = Some(workflow);
                }
                // Whatever was answered before this one was asked is superseded.
                self.voids(machine, asked, Instant::now(), "a later one was granted");
            }
            Err(_) if self.grants[index].workflow.is_none() => drop(self.grants.remove(index)),
            Err(why) => {
                let workflow = self.grants[index].workflow.clone();
                self.breaks(format!("{workflow:?} began, and who asked for it was told: {why}"));
            }
        }
    }

    /// It was cut off, and whatever it has done is done.
    pub(crate) fn cut(&mut self, machine: usize, asked: Instant) {
        let grant = self.grants.iter_mut().find(|g| g.machine == machine && g.asked == asked);
        if let Some(grant) = grant {
            grant.answered.get_or_insert(Instant::now());
        }
    }

    /// What was answered, or cut off, before `asked` is void from now on.
    fn voids(&mut self, machine: usize, asked: Instant, now: Instant, why: &'static str) {
        for grant in self.grants.iter_mut().filter(|g| g.machine == machine && g.answered.is_some_and(|at| at <= asked))
        {
            grant.void.get_or_insert((now, why));
        }
    }

    pub(crate) fn aborted(&mut self, machine: usize, asked: Instant) {
        // Of several that overlap, nobody knows which one it called off.
        let overlap = self.grants.iter().any(|g| g.machine == machine && g.workflow.is_none() && g.void.is_none());
        if !overlap {
            self.voids(machine, asked, Instant::now(), "it was called off");
        }
    }

    pub(crate) fn retried(&mut self, machine: usize) {
        self.machines[machine].retries += 1;
    }

    pub(crate) fn protects(&mut self, machine: usize) {
        self.machines[machine].protected.asks();
    }

    pub(crate) fn protected(&mut self, machine: usize, is: Option<bool>) {
        self.machines[machine].protected.answered(is);
    }

    // Agents.

    /// A hello was welcomed.
    pub(crate) fn welcomed(&mut self, machine: usize, boot: Uuid, asked: Instant) {
        // A word that was answered while this one asked may have come after it.
        let lives = |(other, said, answered): &(Uuid, Instant, Instant)| {
            *other != boot && *answered < asked && asked.saturating_duration_since(*said) < ALIVE
        };
        if self.machines[machine].heard.iter().any(lives) {
            self.breaks(format!("machine {machine}: a second agent was let in while the first one lives"));
        }
        self.machines[machine].heard = vec![(boot, asked, Instant::now())];
    }

    /// An agent was answered on what it said at `asked`.
    pub(crate) fn heard(&mut self, machine: usize, boot: Uuid, asked: Instant) {
        let (heard, now) = (&mut self.machines[machine].heard, Instant::now());
        heard.retain(|(_, said, _)| now.saturating_duration_since(*said) < ALIVE * 3);
        if heard.iter().all(|(is, ..)| *is == boot) {
            heard.push((boot, asked, now));
        }
    }

    /// The agent of this boot is gone, or was told to go.
    pub(crate) fn left(&mut self, machine: usize, boot: Uuid) {
        self.machines[machine].heard.retain(|(is, ..)| *is != boot);
    }

    /// That an attempt begins was acknowledged: from here on it may wipe. Whether it may overwrite data.
    pub(crate) fn began(
        &mut self,
        machine: usize,
        workflow: &str,
        attempt: u32,
        generation: u64,
        boot: Uuid,
        asked: Instant,
    ) -> bool {
        self.seen.begun += 1;
        let named = self.grants.iter().position(|g| g.workflow.as_deref() == Some(workflow));
        // Of a call that was cut off the workflow is learned here, and nobody knows of which it is: of the latest that none
        // has superseded, where there is one, and with the leave that any of them gave.
        let unnamed = |g: &Grant| g.workflow.is_none() && g.machine == machine;
        let any_all = named.is_none() && self.grants.iter().any(|g| unnamed(g) && g.all);
        let doubtful = || {
            let live = self.grants.iter().rposition(|g| unnamed(g) && g.void.is_none_or(|(at, _)| at > asked));
            live.or_else(|| self.grants.iter().position(unnamed))
        };
        let Some(index) = named.or_else(doubtful) else {
            self.breaks(format!("{workflow} began, and nobody asked for it"));
            return false;
        };
        if self.machines[machine].protected.held_before(asked) {
            self.breaks(format!("{workflow} began on a protected machine"));
        }
        let older = self.grants.iter().enumerate().any(|(n, g)| {
            n != index && g.machine == machine && g.generation.is_some_and(|number| number == generation)
        });
        if older {
            self.breaks(format!("{workflow} has number {generation}, and so has another"));
        }
        let retries = self.machines[machine].retries;
        let grant = &mut self.grants[index];
        grant.workflow = Some(workflow.to_owned());
        grant.generation = Some(generation);
        grant.all |= any_all;
        let all = grant.all;
        let mut wrong = Vec::new();
        if grant.machine != machine {
            wrong.push("it is for another machine".to_owned());
        }
        if let Some((at, why)) = grant.void.filter(|(at, _)| *at <= asked) {
            wrong.push(format!("{why} {:?} before", asked - at));
        }
        if *grant.attempts.entry(attempt).or_insert(boot) != boot {
            wrong.push("another agent runs that attempt".to_owned());
        }
        if grant.attempts.len() as u64 > ATTEMPTS + retries {
            wrong.push(format!("its attempts are {:?}, with {retries} retries", grant.attempts.keys()));
        }
        if !wrong.is_empty() {
            self.breaks(format!("machine {machine}: {workflow}, attempt {attempt}, began: {}", wrong.join("; ")));
        }
        all
    }

    /// A step of a run was reported at `asked`, and its agent was told to go on.
    pub(crate) fn went_on(&mut self, machine: usize, workflow: &str, asked: Instant) {
        let named = self.grants.iter().find(|g| g.workflow.as_deref() == Some(workflow));
        if let Some((at, why)) = named.and_then(|g| g.void).filter(|(at, _)| *at <= asked) {
            self.breaks(format!("machine {machine}: {workflow} goes on, and {why} {:?} before", asked - at));
        }
    }

    /// What is on the disk is destroyed.
    pub(crate) fn wiped(&mut self, machine: usize, carried_data: bool, all: bool) {
        self.seen.wiped += 1;
        if carried_data && !all {
            self.breaks(format!("machine {machine}: data was overwritten, and no operator had said so"));
        }
    }

    pub(crate) fn handed_over(&mut self, machine: usize, workflow: &str, finished: bool) {
        self.seen.installed += 1;
        if !finished {
            self.breaks(format!("machine {machine}: {workflow} was handed over, and its disk is not finished"));
        }
        let now = Instant::now();
        for grant in self.grants.iter_mut().filter(|g| g.workflow.as_deref() == Some(workflow)) {
            grant.void.get_or_insert((now, "it was handed over"));
        }
    }
}
