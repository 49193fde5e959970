//! What other instances did, told here: read off what they wrote, as the store's watch brings it.
//!
//! An event is told at once by the instance that acts. The others tell it when they see what it wrote, in words of the
//! object's own; that costs no write. Progress within a step, and refusals that change nothing, are told where they
//! happen alone. Each status names its writer (`status.writer`), so that nothing is told twice.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use uuid::Uuid;

use super::boot::{BOOTED, CONFLICT};
use super::found::DOUBLED;
use super::{Engine, POWERED};
use crate::deadline::OVERDUE;
use crate::event::NewEvent;
use crate::lifecycle::Phase;
use crate::resource::{
    ConditionStatus, Hardware, HardwareSpec, Kind, Metadata, Record, Workflow, WorkflowSpec, condition,
};
use crate::store::WatchEvent;
use crate::text;
use crate::timeline::{What, Whose};
use crate::workflow::{RunState, StepState};

/// How many of our own writes are remembered until the watch brings them.
const OWN: usize = 1024;

/// Writes of specs, and deletions, that were ours: nobody else's name stands on them.
#[derive(Debug, Default)]
pub(super) struct Own(Mutex<Writes>);

#[derive(Debug, Default)]
struct Writes {
    /// The version of each, or the uid that is gone.
    done: VecDeque<String>,
    under_way: usize,
    /// What the watch told while it was not known whose it is.
    unsure: Vec<(String, NewEvent)>,
}

impl Own {
    fn lock(&self) -> MutexGuard<'_, Writes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event if another is to be named for what it tells; kept while one of ours is under way that it may be.
    fn judge(&self, write: String, event: NewEvent) -> Option<NewEvent> {
        let mut writes = self.lock();
        if writes.done.contains(&write) {
            return None;
        }
        if writes.under_way == 0 {
            return Some(event);
        }
        writes.unsure.push((write, event));
        None
    }
}

/// A write of ours that is under way; dropped when it is done or given up.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    engine: Option<&'a Engine>,
}

impl Writing<'_> {
    /// That it was done.
    pub(super) fn wrote(&mut self, what: String) {
        let Some(engine) = self.engine else { return };
        let mut writes = engine.inner.own.lock();
        writes.done.push_back(what);
        if writes.done.len() > OWN {
            writes.done.pop_front();
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Some(engine) = self.engine else { return };
        let mut writes = engine.inner.own.lock();
        writes.under_way -= 1;
        if writes.under_way > 0 {
            return;
        }
        let unsure = std::mem::take(&mut writes.unsure);
        let theirs: Vec<_> = unsure.into_iter().filter(|(write, _)| !writes.done.contains(write)).collect();
        drop(writes);
        theirs.into_iter().for_each(|(_, event)| engine.pass_on(event));
    }
}

/// What events are read off, of a machine.
#[derive(Debug, Clone, Default, PartialEq)]
struct Machine {
    uid: Option<Uuid>,
    phase: Option<Phase>,
    since: Option<crate::clock::Timestamp>,
    session: Option<Uuid>,
    conditions: [Option<ConditionStatus>; CONDITIONS.len()],
    generation: u64,
    hold: Option<String>,
    protected: bool,
}

/// Conditions of which events tell, and what each is when it becomes so.
const CONDITIONS: [(&str, ConditionStatus, &str); 8] = [
    (POWERED, ConditionStatus::True, "power.changed"),
    (POWERED, ConditionStatus::False, "power.changed"),
    (CONFLICT, ConditionStatus::True, "identity.conflict"),
    (DOUBLED, ConditionStatus::True, "machine.doubled"),
    (DOUBLED, ConditionStatus::False, "machine.distinct"),
    (OVERDUE, ConditionStatus::True, "machine.overdue"),
    (BOOTED, ConditionStatus::True, "machine.booted"),
    (BOOTED, ConditionStatus::False, "machine.silent"),
];

impl Machine {
    fn of(machine: &Hardware) -> Self {
        let status = &machine.status;
        Self {
            uid: machine.metadata.uid,
            phase: status.phase,
            since: status.phase_since,
            session: status.session.as_ref().map(|session| session.id),
            conditions: CONDITIONS.map(|(kind, ..)| condition(&status.conditions, kind).map(|c| c.status)),
            generation: machine.metadata.generation,
            hold: machine.spec.hold.clone(),
            protected: machine.spec.protected,
        }
    }
}

type Told = (&'static str, String);

/// What a status that another wrote tells.
fn status_news(before: &Machine, now: &Machine, machine: &Hardware) -> Vec<Told> {
    use Phase as P;
    let mut told: Vec<Told> = Vec::new();
    let words = || machine.status.message.clone();
    let moved = before.phase != now.phase || before.since != now.since;
    match (before.phase, now.phase) {
        (None, Some(P::Registered)) => told.push(("machine.registered", format!("registered. {}", words()))),
        (Some(P::Error), Some(P::Assigned)) => told.push(("workflow.retried", words())),
        (_, Some(P::Assigned)) if moved => told.push(("workflow.assigned", words())),
        (_, Some(P::Provisioning)) if moved => told.push(("workflow.began", words())),
        (_, Some(P::Ready)) if moved => told.push(("machine.ready", words())),
        (_, Some(P::Error)) if moved => told.push(("machine.error", words())),
        (_, Some(P::Held)) if moved => told.push(("machine.held", words())),
        (Some(P::Held), Some(P::Registered)) => told.push(("machine.released", words())),
        (Some(P::Assigned | P::Provisioning | P::Error), Some(P::Registered)) => {
            told.push(("workflow.aborted", words()));
        }
        _ if before.session != now.session => told.push(("machine.hello", "its agent is up".to_owned())),
        _ => {}
    }
    for (n, (kind, status, event)) in CONDITIONS.into_iter().enumerate() {
        if now.conditions[n] == Some(status)
            && before.conditions[n] != now.conditions[n]
            && let Some(condition) = condition(&machine.status.conditions, kind)
        {
            told.push((event, condition.message.clone()));
        }
    }
    told
}

/// What a spec that another wrote tells.
fn spec_news(before: &Machine, now: &Machine) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    match (&before.hold, &now.hold) {
        (was, Some(why)) if was.as_ref() != Some(why) => told.push(("machine.held", format!("it is held: {why}"))),
        (Some(_), None) => told.push(("machine.released", "it was released".to_owned())),
        _ => {}
    }
    if before.protected != now.protected {
        let words = if now.protected { "it was protected" } else { "its protection was taken back" };
        told.push(("machine.protected", words.to_owned()));
    }
    if told.is_empty() && before.generation != now.generation {
        told.push(("object.applied", "it was written".to_owned()));
    }
    told
}

/// What events are read off, of a run.
#[derive(Debug, Clone, Default, PartialEq)]
struct Run {
    state: RunState,
    attempt: u32,
    steps: Vec<(StepState, u32)>,
}

impl Run {
    fn of(run: &Workflow) -> Self {
        let status = &run.status;
        let steps = status.steps.iter().map(|step| (step.state, step.attempt)).collect();
        Self { state: status.state, attempt: status.attempt, steps }
    }
}

fn run_news(before: &Run, now: &Run, run: &Workflow) -> Vec<(&'static str, String, Value)> {
    let mut told = Vec::new();
    for (index, step) in run.status.steps.iter().enumerate() {
        if before.steps.get(index) == now.steps.get(index) {
            continue;
        }
        let (kind, words) = match step.state {
            StepState::Pending => continue,
            StepState::Running => ("step.began", "begins"),
            StepState::Succeeded => ("step.succeeded", "is done"),
            StepState::Skipped => ("step.skipped", "was done before and still holds"),
            StepState::Failed => ("step.failed", "failed"),
        };
        let data = json!({ "index": index, "step": step.name, "action": step.action, "attempt": step.attempt });
        told.push((kind, format!("{} {words}", step.name), data));
    }
    let failed = now.state == RunState::Failed || (before.state == RunState::Running && now.state == RunState::Pending);
    if failed && before != now && (before.state, before.attempt) != (now.state, now.attempt) {
        told.push(("workflow.failed", run.status.message.clone(), json!({ "attempt": before.attempt })));
    }
    told
}

/// What was last seen of what others may write.
#[derive(Debug, Default)]
struct Known {
    machines: HashMap<String, Machine>,
    runs: HashMap<String, Run>,
}

/// Something to be told, after it is known here.
#[derive(Debug)]
struct News {
    kind: Kind,
    name: String,
    machine: Option<String>,
    /// What its writer is known of.
    events: Vec<NewEvent>,
    /// What may be our own: the write that it is read off.
    unsigned: Vec<(String, NewEvent)>,
}

impl Engine {
    /// A write of a spec, or a deletion, begins.
    pub(super) fn writing(&self) -> Writing<'_> {
        let engine = self.is_written_elsewhere().then_some(self);
        if engine.is_some() {
            self.inner.own.lock().under_way += 1;
        }
        Writing { engine }
    }

    /// Follows the store until it closes; where others write to it, also tells what they do.
    pub(super) async fn follow(&self) {
        let store = Arc::clone(&self.inner.store);
        self.forget_logs_of_others();
        if !self.is_written_elsewhere() {
            // What happens is told by what does it. Logs go once a machine is gone, whatever deleted it.
            let look = |kind, event: &WatchEvent| match event {
                WatchEvent::Deleted(record) if kind == Kind::HARDWARE => vec![Some(record.metadata.name.clone())],
                WatchEvent::Snapshot(_) if kind == Kind::HARDWARE => vec![None],
                _ => Vec::new(),
            };
            let gone = |machine: Option<String>| match machine {
                Some(machine) => self.forget_log(&machine),
                None => self.forget_logs_of_others(),
            };
            return self.inner.cache.follow_with(store, look, gone).await;
        }
        let known = Mutex::new(self.known_now());
        let look = |kind, event: &WatchEvent| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            self.look(&mut known, kind, event)
        };
        self.inner.cache.follow_with(store, look, |news| self.learn(news)).await;
    }

    fn known_now(&self) -> Known {
        let mut known = Known::default();
        for machine in self.inner.cache.pieces::<HardwareSpec>().flatten() {
            known.machines.insert(machine.name().to_owned(), Machine::of(&machine));
        }
        for run in self.inner.cache.pieces::<WorkflowSpec>().flatten().filter(|run| !run.status.state.is_final()) {
            known.runs.insert(run.name().to_owned(), Run::of(&run));
        }
        known
    }

    fn look(&self, known: &mut Known, kind: Kind, event: &WatchEvent) -> Vec<News> {
        match event {
            WatchEvent::Applied(record) => self.look_at_object(known, record).into_iter().collect(),
            WatchEvent::Deleted(record) => self.look_at_gone(known, record).into_iter().collect(),
            WatchEvent::Snapshot(records) => {
                let mut news: Vec<News> =
                    records.iter().filter_map(|record| self.look_at_object(known, record)).collect();
                let named: BTreeMap<&str, ()> = records.iter().map(|r| (r.metadata.name.as_str(), ())).collect();
                if kind == Kind::WORKFLOW {
                    known.runs.retain(|name, _| named.contains_key(name.as_str()));
                }
                if kind == Kind::HARDWARE {
                    let gone: Vec<String> =
                        known.machines.keys().filter(|name| !named.contains_key(name.as_str())).cloned().collect();
                    for name in gone {
                        let uid = known.machines.remove(&name).and_then(|machine| machine.uid);
                        news.push(self.gone(kind, name, uid));
                    }
                }
                news
            }
        }
    }

    fn look_at_object(&self, known: &mut Known, record: &Record) -> Option<News> {
        let (kind, name) = (record.kind, record.metadata.name.clone());
        let me = self.inner.coordinator.instance();
        let (mut events, mut unsigned) = (Vec::new(), Vec::new());
        let event = |kind, machine: &str, workflow: Option<&str>, message: String, data: Value| {
            let machine = (!machine.is_empty()).then(|| machine.to_owned());
            NewEvent { kind, machine, workflow: workflow.map(str::to_owned), message, data }
        };
        let write = || version_of(kind, &record.metadata);
        let mut about = None;
        match kind {
            Kind::HARDWARE => {
                // What cannot be read is told by the cache.
                let object = record.decode::<HardwareSpec>().ok()?;
                let now = Machine::of(&object);
                let before = known.machines.insert(name.clone(), now.clone());
                // One of the same name that was made anew is another.
                let before = before.filter(|before| before.uid == now.uid).unwrap_or_default();
                let (run, writer) = (object.status.workflow.as_deref(), &object.status.writer);
                if writer != me {
                    for (kind, message) in status_news(&before, &now, &object) {
                        events.push(event(kind, &name, run, message, json!({ "instance": writer })));
                    }
                }
                for (kind, message) in spec_news(&before, &now) {
                    unsigned.push((write(), event(kind, &name, None, message, Value::Null)));
                }
                about = Some(name.clone());
            }
            Kind::WORKFLOW => {
                let object = record.decode::<WorkflowSpec>().ok()?;
                let now = Run::of(&object);
                let before = if object.status.state.is_final() {
                    known.runs.remove(&name).unwrap_or_else(|| now.clone())
                } else {
                    known.runs.insert(name.clone(), now.clone()).unwrap_or_default()
                };
                if object.status.writer != me {
                    for (kind, message, mut data) in run_news(&before, &now, &object) {
                        data["instance"] = json!(object.status.writer);
                        events.push(event(kind, &object.spec.hardware, Some(&name), message, data));
                    }
                }
                about = Some(object.spec.hardware.clone());
            }
            // Of Networks the boot services write what they do: that is told by who does it.
            _ if record.status.is_null() => {
                let message = format!("{kind} `{name}` was written");
                unsigned.push((write(), event("object.applied", "", None, message, Value::Null)));
            }
            _ => {}
        }
        Some(News { kind, name, machine: about, events, unsigned })
    }

    fn look_at_gone(&self, known: &mut Known, record: &Record) -> Option<News> {
        let (kind, name) = (record.kind, record.metadata.name.clone());
        match kind {
            Kind::HARDWARE => drop(known.machines.remove(&name)),
            Kind::WORKFLOW => drop(known.runs.remove(&name)),
            _ => {}
        }
        Some(self.gone(kind, name, record.metadata.uid))
    }

    fn gone(&self, kind: Kind, name: String, uid: Option<Uuid>) -> News {
        let machine = (kind == Kind::HARDWARE).then(|| name.clone());
        let message = format!("{kind} `{name}` was deleted");
        let event = NewEvent { kind: "object.deleted", machine: machine.clone(), message, ..NewEvent::default() };
        let unsigned = vec![(uid.unwrap_or_default().to_string(), event)];
        News { kind, name, machine, events: Vec::new(), unsigned }
    }

    /// Tells what happened elsewhere.
    fn pass_on(&self, event: NewEvent) {
        let message = text::harmless_lines(&event.message).into_owned();
        tracing::debug!(kind = event.kind, machine = event.machine, "elsewhere: {message}");
        if let Some(machine) = event.machine.as_deref()
            && self.inner.cache.get::<HardwareSpec>(machine).is_some()
        {
            let what = What::Told { kind: event.kind.into(), message: message.clone() };
            self.inner.recorder.record(Whose::Machine(machine), None, self.now(), what);
        }
        self.inner.events.publish(self.now(), NewEvent { message, ..event });
    }

    /// Acts on what is known here by now.
    fn learn(&self, news: News) {
        let News { kind, name, machine, events, unsigned } = news;
        if kind == Kind::NETWORK {
            self.refresh_networks();
        }
        if matches!(kind, Kind::HARDWARE | Kind::WORKFLOW) {
            self.follow_soon();
        }
        if kind == Kind::HARDWARE {
            match self.inner.cache.get::<HardwareSpec>(&name) {
                Some(machine) => {
                    self.inner.recorder.adopt(&name, &machine.spec.macs);
                    if machine.status.phase == Some(Phase::Assigned) && self.leads_power_of(&machine).is_some() {
                        self.boot_soon(&name);
                    }
                }
                None => {
                    self.inner.recorder.forget(&name);
                    self.forget_log(&name);
                }
            }
        }
        for event in events {
            self.pass_on(event);
        }
        for (write, event) in unsigned {
            if let Some(event) = self.inner.own.judge(write, event) {
                self.pass_on(event);
            }
        }
        // An agent of it may wait here for what was ordered elsewhere.
        if let Some(machine) = machine {
            self.inner.events.ring(&machine);
        }
    }
}

/// What names one write.
pub(super) fn version_of(kind: Kind, written: &Metadata) -> String {
    format!("{kind} {}", written.resource_version)
}
