//! One site in which a history happens: the server on its store, machines, an operator, strangers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::boot::{BootProvider, BootRequest, Fate};
use dragonfly_core::clock::{Clock, Timestamp};
use dragonfly_core::engine::{AssignRequest, Engine, EngineError, ReimageRequest};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::name;
use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::resource::{CONFLICT, ConditionStatus, HardwareSpec, Kind, Workflow, WorkflowSpec, condition};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::redb::{Options, RedbStore};
use dragonfly_core::store::{Key, Part, Selector, Store, When};
use dragonfly_core::testing::{ManualClock, MemoryDisk};
use dragonfly_core::wire::{Ask, Heard, Identity, Orders, Report, ReportKind, Welcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Without;
use crate::common;
use crate::cut::CutStore;
use crate::events::{Event, MACHINES};
use crate::identity::{NOBODYS, STRANGER, Words};
use crate::machine::{Agent, Did, Machine, Run, Stage};
use crate::oracle::{Kept, Memory, Oracle, Picture, Seen, broken};

/// A site that was set up, before its first machine: every history begins here.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    disk: MemoryDisk,
    key: SealingKey,
}

/// Where a call is cut off, and whether the server dies of it.
type Cut = Option<(u32, bool, bool)>;

#[derive(Debug)]
struct Server {
    engine: Engine,
    store: RedbStore,
    cut: CutStore,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    without: Without,
    key: SealingKey,
    clock: ManualClock,
    disk: MemoryDisk,
    server: Option<Server>,
    next_cut: Cut,
    machines: [Machine; MACHINES],
    /// Every boot token that was given out: its card, and itself.
    tokens: Vec<(usize, String)>,
    /// Every session that was opened.
    sessions: Vec<Session>,
    /// Every report that was sent: its session.
    reports: Vec<(usize, Report)>,
    /// What was ordered: a workflow's uid and how many steps it has.
    orders: HashMap<String, (Uuid, usize)>,
    /// What was authorised: a workflow's steps.
    authorised: HashMap<String, Vec<Value>>,
    backups: Vec<(MemoryDisk, Memory)>,
    pictures: Vec<(MemoryDisk, Picture)>,
    oracle: Oracle,
    applied: usize,
}

/// What came of a hello.
#[derive(Debug, Clone)]
struct Session {
    /// The record that it speaks for; `None` when that is none of those that operators name.
    record: Option<usize>,
    /// Where its agent runs, and what that said.
    machine: usize,
    said: Words,
    boot: Uuid,
    key: String,
}

/// A message as the other side reads it.
fn wire<T: Serialize + DeserializeOwned>(message: &T) -> T {
    let text = serde_json::to_vec(message).expect("a message is written");
    serde_json::from_slice(&text).expect("a message that was written is read")
}

/// The record that is made for whoever boots from a card first: what operators call the machine.
fn record(card: usize) -> String {
    name::memorable(common::card(number(card))).to_lowercase()
}

/// The number of a record that operators name.
fn known_record(name: &str) -> Option<usize> {
    (0..MACHINES).find(|machine| record(*machine) == name)
}

fn number(machine: usize) -> u8 {
    machine as u8 + 1
}

fn options(clock: &ManualClock) -> Options {
    Options { clock: Arc::new(clock.clone()), log: 16, page_cache: 1 << 20, ..Options::default() }
}

impl Site {
    pub(crate) async fn new() -> Self {
        let key = SealingKey::generate().expect("there is randomness");
        let (clock, disk) = (ManualClock::default(), MemoryDisk::default());
        let store = RedbStore::open_in_memory(&disk, options(&clock)).expect("a new store opens");
        let engine = common::builder(Arc::new(store.clone()), &key, &clock).build().await.expect("an engine starts");
        engine.apply(common::SETUP, "setup").await.expect("the site is set up");
        drop(engine);
        store.close().await.expect("the store closes");
        Self { disk, key }
    }
}

impl World {
    pub(crate) async fn new(site: &Site, without: Without) -> Self {
        let mut world = Self {
            without,
            key: site.key.clone(),
            clock: ManualClock::default(),
            disk: site.disk.snapshot(),
            server: None,
            next_cut: None,
            machines: Default::default(),
            tokens: Vec::new(),
            sessions: Vec::new(),
            reports: Vec::new(),
            orders: HashMap::new(),
            authorised: HashMap::new(),
            backups: Vec::new(),
            pictures: Vec::new(),
            oracle: Oracle::new(),
            applied: 0,
        };
        // The second machine came with an operating system.
        world.machines[1].disk.data = true;
        world.machines.iter_mut().enumerate().for_each(|(n, machine)| machine.card = n);
        world.start().await;
        world
    }

    pub(crate) fn seen(&self) -> Seen {
        self.oracle.seen
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    // The server.

    async fn start(&mut self) {
        loop {
            let store = RedbStore::open_in_memory(&self.disk, options(&self.clock)).expect("the store opens again");
            let cut = CutStore::new(Arc::new(store.clone()));
            // As the server does: see `serve::start`.
            let restored = store.is_restored().await.expect("the store is read");
            let at = self.next_cut.take();
            cut.arm(at.map(|(write, after, _)| (write, after)));
            let build = common::builder(Arc::new(cut.clone()), &self.key, &self.clock)
                .restored(restored)
                .without(self.without.rule())
                .build();
            let built = tokio::select! {
                biased;
                built = build => Some(built.expect("the engine starts")),
                () = cut.silent() => None,
            };
            cut.arm(None);
            let Some(engine) = built else {
                self.oracle.seen.cut += 1;
                continue;
            };
            if restored {
                store.settle_restored().await.expect("the store is written");
            }
            self.server = Some(Server { engine, store, cut });
            return;
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the server is up between events")
    }

    fn engine(&self) -> Engine {
        self.server().engine.clone()
    }

    async fn restart(&mut self, kill: bool) {
        if kill {
            self.disk = self.disk.snapshot();
        }
        self.server = None;
        self.start().await;
    }

    /// Calls the server. `None`: the call was cut off, and nobody knows how far it came.
    async fn call<T>(
        &mut self,
        ask: impl AsyncFnOnce(Engine) -> Result<T, EngineError>,
    ) -> Option<Result<T, EngineError>> {
        let at = self.next_cut.take();
        let (engine, cut) = (self.engine(), self.server().cut.clone());
        cut.arm(at.map(|(write, after, _)| (write, after)));
        let answer = tokio::select! {
            biased;
            answer = ask(engine) => Some(answer),
            () = cut.silent() => None,
        };
        cut.arm(None);
        if let Some(Err(EngineError::Store(error))) = &answer {
            assert!(
                error.is_retryable() || matches!(error, dragonfly_core::store::StoreError::AlreadyExists { .. }),
                "{error:?}"
            );
        }
        if answer.is_none() {
            self.oracle.seen.cut += 1;
            if at.is_some_and(|(.., kill)| kill) {
                self.restart(true).await;
            } else {
                self.catch_up().await;
            }
        }
        answer
    }

    /// What the watch tells a running engine: the caller of a write is gone, the write is not.
    async fn catch_up(&self) {
        let Server { engine, store, .. } = self.server();
        let cache = engine.cache();
        for kind in Kind::ALL {
            let page = store.list(kind, &Selector::all(), 0, None).await.expect("the store is read");
            for record in &page.items {
                cache.applied_record(record).expect("what is stored is read");
            }
            let gone = |name: &str| page.items.iter().all(|record| record.metadata.name != name);
            let known: Vec<(String, String)> = match kind {
                Kind::HARDWARE => versions::<HardwareSpec>(cache),
                Kind::WORKFLOW => versions::<WorkflowSpec>(cache),
                _ => Vec::new(),
            };
            for (name, version) in known.into_iter().filter(|(name, _)| gone(name)) {
                cache.removed(&Key::new(kind, name), &version);
            }
        }
    }

    // What happens.

    /// Plays a history. The number of the event that broke the promise, and how.
    pub(crate) async fn play(&mut self, events: &[Event]) -> Result<(), (usize, crate::oracle::Broken)> {
        for (n, event) in events.iter().enumerate() {
            self.oracle.seen.events += 1;
            self.happens(*event).await.map_err(|broken| (n, broken))?;
            for machine in 0..MACHINES {
                // Whoever was said to be right is so no more once the machine's own agent has asked, or something else was
                // written down. That this ends too soon would harm nobody: that it ends is the engine's to say.
                if !self.is_answered(machine) {
                    self.oracle.asked_no_more(machine);
                }
                self.fate(machine).await.map_err(|broken| (n, broken))?;
            }
        }
        Ok(())
    }

    async fn happens(&mut self, event: Event) -> Kept {
        match event {
            Event::PowerOn { machine } => self.power_on(machine).await?,
            Event::PowerOff { machine } => self.machines[machine].agent = None,
            Event::Ask { machine } => drop(self.identity(self.machines[machine].card).await),
            Event::Agent { machine, actions, hasty } => {
                for _ in 0..actions {
                    self.agent(machine, hasty, true).await?;
                }
            }
            Event::Unheard { machine } => self.agent(machine, false, false).await?,
            Event::SlowHandOver { machine } => self.slow_hand_over(machine).await?,
            Event::Fails { machine, cause } => self.machines[machine].fails = Some(cause),
            Event::OldToken { token } if !self.tokens.is_empty() => {
                let token = token % self.tokens.len();
                let (card, text) = self.tokens[token].clone();
                let has_it = self.machines.iter().position(|m| m.card == card);
                let (machine, said) = match has_it {
                    Some(machine) => (machine, self.honest(machine)),
                    None => (STRANGER, Words::claimed(card, 0)),
                };
                self.hello(machine, said, Some(token), &text, Uuid::new_v4()).await?;
            }
            Event::ForgedToken { machine, token, how } => self.forged_token(machine, token, how).await?,
            Event::OldSession { session } if !self.sessions.is_empty() => {
                let session = session % self.sessions.len();
                if let Some(work) = self.ask_work(session).await? {
                    self.report(session, &Run::new(work), ReportKind::Began).await?;
                }
            }
            Event::Late { report } if !self.reports.is_empty() => {
                let report = report % self.reports.len();
                self.arrives(report).await?;
            }
            Event::Flood { machine } => {
                for report in 0..self.reports.len() {
                    if self.sessions[self.reports[report].0].machine == machine {
                        self.arrives(report).await?;
                    }
                }
            }
            Event::Claims { card, what, works } => self.claims(card, what, works).await?,
            Event::Swap => {
                let [a, b] = &mut self.machines;
                std::mem::swap(&mut a.card, &mut b.card);
                // Nobody does that to a machine that is on.
                (a.agent, b.agent) = (None, None);
            }
            Event::Numbers { machine, on } => self.machines[machine].no_numbers = !on,
            Event::Snapshot => self.pictures.push((self.disk.snapshot(), self.oracle.picture())),
            Event::Rollback { snapshot } if !self.pictures.is_empty() => {
                let at = if snapshot == usize::MAX { self.pictures.len() - 1 } else { snapshot % self.pictures.len() };
                let (disk, then) = &self.pictures[at];
                self.oracle.rolled_back(then);
                self.server = None;
                self.disk = disk.snapshot();
                self.start().await;
            }
            Event::Backup => {
                let disk = self.server().store.backup_to_memory().await.expect("a backup is made");
                self.backups.push((disk, self.oracle.remember()));
            }
            Event::Restore { backup } if !self.backups.is_empty() => {
                let (disk, memory) = &self.backups[backup % self.backups.len()];
                self.disk = disk.snapshot();
                self.oracle.restored(memory);
                self.server = None;
                self.start().await;
            }
            Event::Restart => self.restart(false).await,
            Event::Kill => self.restart(true).await,
            Event::Cut { write, after, kill } => self.next_cut = Some((write, after, kill)),
            Event::Clock { seconds } => {
                self.clock.set(Timestamp::from_unix_seconds(self.now().unix_seconds() + seconds));
            }
            Event::Sweep => drop(self.call(async |engine| engine.sweep().await).await),
            Event::OldToken { .. }
            | Event::OldSession { .. }
            | Event::Late { .. }
            | Event::Restore { .. }
            | Event::Rollback { .. } => {}
            operator => self.operator(operator).await?,
        }
        Ok(())
    }

    async fn operator(&mut self, event: Event) -> Kept {
        let now = self.now();
        match event {
            Event::Assign { machine, all } => {
                let overwrite = if all { Overwrite::All } else { Overwrite::Blank };
                let request = AssignRequest { template: "debian".to_owned(), overwrite, ..AssignRequest::default() };
                let answer = self.call(async |engine| engine.assign(&record(machine), request, "operator").await).await;
                let answer = self.authorised(answer);
                self.granted(machine, answer, all, true, now)?;
            }
            Event::Reimage { machine } => {
                let request = ReimageRequest { template: Some("debian".to_owned()), ..ReimageRequest::default() };
                let answer =
                    self.call(async |engine| engine.reimage(&record(machine), request, "operator").await).await;
                let answer = self.authorised(answer);
                self.granted(machine, answer, true, false, now)?;
            }
            Event::Retry { machine } => {
                match self.call(async |engine| engine.retry(&record(machine), "operator").await).await {
                    Some(Err(_)) => {}
                    answer => self.oracle.retried(machine, answer.is_some())?,
                }
            }
            Event::Abort { machine } => {
                if let Some(Ok(())) = self.call(async |engine| engine.abort(&record(machine), "operator").await).await {
                    self.oracle.aborted(machine);
                }
            }
            Event::Protect { machine, on } => {
                match self.call(async |engine| engine.protect(&record(machine), on, "operator").await).await {
                    Some(Err(_)) => {}
                    answer => self.oracle.protected(machine, answer.map(|_| on)),
                }
            }
            Event::Hold { machine } => {
                match self.call(async |engine| engine.hold(&record(machine), "wait", "operator").await).await {
                    Some(Err(_)) => {}
                    answer => {
                        self.oracle.seen.held += 1;
                        self.oracle.held(machine, answer.map(|_| true));
                    }
                }
            }
            Event::Release { machine } => {
                // He looks first: what holds it, and what is asked, are answered one by one.
                let (name, asks) = (record(machine), self.asks(machine));
                let known = self.engine().cache().get::<HardwareSpec>(&name);
                let is_held =
                    known.as_ref().is_some_and(|m| m.spec.hold.is_some() || m.status.phase == Some(Phase::Held));
                match (known.and_then(|m| m.question()), asks) {
                    (Some(question), Some(asks)) if !is_held => {
                        let answer =
                            async |engine: Engine| engine.release_answering(&name, &question, "operator").await;
                        if !matches!(self.call(answer).await, Some(Err(_))) {
                            self.oracle.settled(machine, asks);
                        }
                    }
                    _ => match self.call(async |engine| engine.release(&name, "operator").await).await {
                        Some(Err(_)) => {}
                        answer => self.oracle.held(machine, answer.map(|_| false)),
                    },
                }
            }
            Event::Deny { machine } => {
                let name = record(machine);
                let known = self.engine().cache().get::<HardwareSpec>(&name);
                let question = known.and_then(|m| m.question()).unwrap_or_default();
                if let Some(Ok(())) = self.call(async |engine| engine.deny(&name, &question, "operator").await).await {
                    self.oracle.denied(machine);
                }
            }
            Event::Delete { machine } => {
                let name = record(machine);
                match self.call(async |engine| engine.delete(Kind::HARDWARE, &name, "operator").await).await {
                    Some(Err(_)) => {}
                    answer => self.oracle.deleted(machine, answer.is_some()),
                }
            }
            Event::DeleteWorkflow { workflow } => {
                let runs = self.engine().cache().all::<WorkflowSpec>();
                if let Some(run) = runs.get(workflow % runs.len().max(1)) {
                    let name = run.name().to_owned();
                    self.call(async |engine| engine.delete(Kind::WORKFLOW, &name, "operator").await).await;
                }
            }
            Event::EditTemplate { content } => {
                let text = common::SETUP.replace("debian.raw", &format!("debian-{content}.raw"));
                self.call(async |engine| engine.apply(&text, "operator").await).await;
            }
            Event::Edit { machine, what } => self.edit(machine, what).await,
            Event::Forge { machine, how } => self.forge(machine, how).await,
            other => panic!("{other:?} is not an operator's"),
        }
        Ok(())
    }

    /// What an operator was told that his machine is to be installed with.
    fn authorised(&mut self, answer: Option<Result<Workflow, EngineError>>) -> Option<Result<String, EngineError>> {
        Some(answer?.map(|run| {
            let steps = run.spec.content.actions.iter().map(|action| step(&action.name, &action.with));
            self.authorised.insert(run.name().to_owned(), steps.collect());
            run.name().to_owned()
        }))
    }

    /// Who asks to be this machine, or was denied, as an operator is told: he looks before he says anything about it.
    fn asks(&self, machine: usize) -> Option<Words> {
        let known = self.engine().cache().get::<HardwareSpec>(&record(machine))?;
        let conflict = condition(&known.status.conditions, CONFLICT)?;
        let is_denied = ["Denied", "NotMoved"].contains(&conflict.reason.as_str());
        let is_open = conflict.status != ConditionStatus::False || is_denied;
        known.status.in_doubt.as_ref().filter(|_| is_open).and_then(|asked| Words::read(&asked.said))
    }

    /// Whether what an operator said of whoever asked waits for that one to ask again.
    fn is_answered(&self, machine: usize) -> bool {
        let known = self.engine().cache().get::<HardwareSpec>(&record(machine));
        known.is_some_and(|known| condition(&known.status.conditions, CONFLICT).is_some_and(|c| c.reason == "Settled"))
    }

    /// Of whom an edit to this spec says that he is right, where he asks: his card is added, or he says from a card of the
    /// machine's own the serial number that is corrected. Of any other the question is over.
    fn means(&self, machine: usize, spec: &Value) -> Option<Words> {
        let known = self.engine().cache().get::<HardwareSpec>(&record(machine))?;
        let asked = &known.status.in_doubt.as_ref()?.said;
        let is_denied = condition(&known.status.conditions, CONFLICT)
            .is_some_and(|c| ["Denied", "NotMoved"].contains(&c.reason.as_str()));
        let spec: HardwareSpec = serde_json::from_value(spec.clone()).expect("a spec");
        let is_added = |card: &Mac| spec.macs.contains(card) && !known.spec.macs.contains(card);
        let is_taken = |card: &Mac| known.spec.macs.contains(card) && !spec.macs.contains(card);
        let proven = known.status.proven.iter().flat_map(|proven| &proven.macs).filter(|card| !is_taken(card));
        let own: Vec<&Mac> = spec.macs.iter().chain(proven).collect();
        let was = known.status.proven.as_ref().and_then(|proven| proven.serial.as_ref());
        let is_of_serial = known.spec.serial.is_some() || was.is_some_and(|was| asked.serial.as_ref() != Some(was));
        let is_corrected =
            is_of_serial && spec.serial.is_some() && spec.serial != known.spec.serial && spec.serial == asked.serial;
        let is_meant =
            asked.macs.iter().any(is_added) || (is_corrected && asked.macs.iter().any(|card| own.contains(&card)));
        Words::read(asked).filter(|_| is_meant && !is_denied)
    }

    /// An operator writes the cards or the serial number of a machine, which may be the first that is known of it.
    async fn edit(&mut self, machine: usize, what: usize) {
        let other = 1 - machine;
        let known = self.engine().cache().get::<HardwareSpec>(&record(machine));
        let asks = self.asks(machine);
        let mut spec = known.map_or_else(|| json!({ "macs": [common::card(number(machine))] }), |m| json!(m.spec));
        let cards: Option<&[usize]> = match what {
            0 => Some(&[machine]),
            1 => Some(&[machine, other]),
            2 => Some(&[other]),
            3 => Some(&[NOBODYS]),
            _ => None,
        };
        if let Some(cards) = cards {
            let macs: Vec<_> = cards.iter().map(|card| common::card(number(*card))).collect();
            spec["macs"] = json!(macs);
        } else {
            spec["serial"] = json!(common::serial(number(if what == 4 { machine } else { other })));
        }
        let meant = self.means(machine, &spec);
        let object = json!({
            "apiVersion": "dragonfly.computer/v1",
            "kind": "Hardware",
            "metadata": { "name": record(machine) },
            "spec": spec,
        });
        let text = object.to_string();
        let answer = self.call(async |engine| engine.apply(&text, "operator").await).await;
        if !matches!(answer, Some(Err(_))) {
            if let Some(cards) = cards {
                self.oracle.has_cards(machine, cards, answer.is_some());
            }
            match meant {
                Some(meant) => self.oracle.settled(machine, meant),
                None if asks.is_some() && answer.is_some() => self.oracle.asked_no_more(machine),
                None => {}
            }
        }
    }

    fn granted(
        &mut self,
        machine: usize,
        answer: Option<Result<String, EngineError>>,
        all: bool,
        is_assign: bool,
        now: Timestamp,
    ) -> Kept {
        match answer {
            Some(Err(_)) => Ok(()),
            Some(Ok(workflow)) => self.oracle.granted(machine, Some(workflow), all, is_assign, now),
            None => self.oracle.granted(machine, None, all, is_assign, now),
        }
    }

    /// Objects that somebody writes who would like to be obeyed. Refused or taken: nothing may come of it.
    async fn forge(&mut self, machine: usize, how: usize) {
        self.applied += 1;
        let hardware = record(machine);
        let engine = self.engine();
        let known = engine.cache().get::<HardwareSpec>(&hardware);
        let current = known.as_ref().and_then(|m| m.status.workflow.clone());
        let current = current.and_then(|run| engine.cache().get::<WorkflowSpec>(&run));
        let actions = json!([{ "name": "image", "action": "image2disk", "with": { "url": "http://10.0.0.1/x" } }]);
        let spec = json!({ "hardware": hardware, "template": "debian", "content": { "actions": actions } });
        let mut object = json!({
            "apiVersion": "dragonfly.computer/v1",
            "kind": "Workflow",
            "metadata": { "name": format!("{hardware}-by-hand-{}", self.applied) },
            "spec": spec,
        });
        match (how, current, known) {
            (1, Some(run), _) => {
                object["metadata"]["uid"] = json!(run.metadata.uid);
                object["status"] = json!({ "state": "Running", "attempt": 1, "authorisationGeneration": 1 });
            }
            (2, Some(run), _) => {
                let other = record(1 - machine);
                object["metadata"]["name"] = json!(run.name());
                object["spec"]["hardware"] = json!(other);
                self.call(async |engine| engine.replace_object(object, "stranger").await).await;
                return;
            }
            // Past the server, as whoever may write where a store is shared can: the server itself takes no such edit.
            (4, Some(run), _) => {
                let store = self.server().store.clone();
                let key = Key::new(Kind::WORKFLOW, run.name());
                let Some(mut stored) = store.get(&key).await.expect("the store is read") else { return };
                stored.spec["content"]["actions"] = object["spec"]["content"]["actions"].take();
                let version = stored.metadata.resource_version.clone();
                store.put(stored, Part::Spec, When::Unchanged(version)).await.expect("the store is written");
                self.catch_up().await;
                return;
            }
            (3, Some(run), Some(known)) => {
                object["kind"] = json!("Hardware");
                object["metadata"]["name"] = json!(hardware);
                object["spec"] = json!(known.spec);
                let leave = json!({ "workflow": run.name(), "workflowUid": run.metadata.uid, "generation": 9 });
                object["status"] = json!({ "phase": "Assigned", "authorisation": leave });
            }
            _ => {}
        }
        let text = object.to_string();
        if how == 0 {
            self.call(async |engine| engine.create_object(object, "stranger").await).await;
        } else {
            self.call(async |engine| engine.apply(&text, "stranger").await).await;
        }
    }

    // Machines.

    fn request(card: usize) -> BootRequest {
        let to = Some("10.0.0.1:3000".parse().expect("an address"));
        let from = Some(common::address(number(card)));
        BootRequest { from, to, ..BootRequest::from_mac(common::card(number(card))) }
    }

    /// What the agent of a machine says of it.
    fn honest(&self, machine: usize) -> Words {
        let Machine { card, no_numbers, .. } = self.machines[machine];
        Words::honest(machine, card, !no_numbers)
    }

    /// What the machine would boot now.
    async fn fate(&mut self, machine: usize) -> Kept<Fate> {
        let card = self.machines[machine].card;
        let decided = self.engine().decide(&Self::request(card)).await.expect("a decision is made from memory");
        let fate = wire(&decided.fate);
        let image = match &fate {
            Fate::Image { workflow } => Some(workflow.as_str()),
            _ => None,
        };
        let now = self.now();
        let known = match &decided.machine {
            Some(name) => known_record(name),
            // Somebody may have said that this card is in another machine.
            None => Some(card).filter(|card| self.oracle.is_at_home(*card)),
        };
        match (known, image) {
            (Some(known), image) => self.oracle.fated(known, image, fate.word(), now)?,
            (None, Some(run)) => return broken("an operator stands behind every wipe", format!("the fate is {run}")),
            (None, None) => {}
        }
        Ok(fate)
    }

    /// The number of a fresh boot token, if there is one for this machine.
    async fn identity(&mut self, card: usize) -> Option<usize> {
        let identity = self.engine().identity(&Self::request(card)).await.expect("an identity is made from memory");
        let identity: Identity = wire(&identity?);
        self.tokens.push((card, identity.token.reveal().to_owned()));
        let now = self.now();
        Some(self.oracle.token_made(now))
    }

    async fn power_on(&mut self, machine: usize) -> Kept {
        self.machines[machine].agent = None;
        // Firmware takes its time, and an agent that was heard must be silent for a while.
        self.clock.advance(Duration::from_secs(40));
        let fate = self.fate(machine).await?;
        let token = self.identity(self.machines[machine].card).await;
        if let (Fate::Discover | Fate::Image { .. }, Some(token)) = (fate, token) {
            let agent = Agent { boot: Uuid::new_v4(), token, session: None, run: None };
            self.machines[machine].agent = Some(agent);
            self.agent(machine, false, true).await?;
        }
        Ok(())
    }

    /// The agent does the next thing. `hasty`: it goes on before it was answered, as long as it may.
    async fn agent(&mut self, machine: usize, hasty: bool, hears: bool) -> Kept {
        let Some(agent) = self.machines[machine].agent.clone() else { return Ok(()) };
        let Some(session) = agent.session else {
            let text = self.tokens[agent.token].1.clone();
            let said = self.honest(machine);
            let answer = self.hello(machine, said, Some(agent.token), &text, agent.boot).await?;
            match answer {
                Some(Ok(session)) if hears => self.change(machine, |agent| agent.session = Some(session)),
                Some(Err(())) if hears => self.machines[machine].agent = None,
                _ => {}
            }
            return Ok(());
        };
        let Some(run) = agent.run else {
            let work = self.ask_work(session).await?;
            if hears {
                self.change(machine, |agent| agent.run = work.map(Run::new));
            }
            return Ok(());
        };
        if run.outbox.is_empty() || hasty {
            match self.machines[machine].work() {
                Some(Did::Wiped { carried_data }) => {
                    let Some(grant) = run.grant else {
                        return broken("an operator stands behind every wipe", "Began was never acknowledged");
                    };
                    return self.oracle.wiped(machine, grant, carried_data);
                }
                Some(Did::Ended) => {
                    self.oracle.seen.ends_refused += 1;
                    return Ok(());
                }
                Some(Did::Refused) => {
                    self.oracle.seen.marks_refused += 1;
                    return Ok(());
                }
                Some(Did::Nothing) => return Ok(()),
                None => {}
            }
        }
        let Some(what) = run.to_tell() else {
            // It failed and said so: it asks anew.
            self.change(machine, |agent| agent.run = None);
            return Ok(());
        };
        let answer = self.report(session, &run, what.clone()).await?;
        let Some(answer) = answer.filter(|_| hears) else { return Ok(()) };
        let heard = match answer {
            Ok((Heard::GoOn, grant)) => grant,
            Ok(_) => {
                self.oracle.seen.stopped += 1;
                self.change(machine, |agent| agent.run = None);
                return Ok(());
            }
            // It asks anew, and hears then whether it still speaks for the machine.
            Err(()) => {
                self.change(machine, |agent| agent.run = None);
                return Ok(());
            }
        };
        match what {
            ReportKind::HandOver => {
                let Machine { agent, disk, .. } = &mut self.machines[machine];
                *agent = None;
                let run = &run.work;
                if disk.is_ours(run.permit.workflow_uid) {
                    self.oracle.ended_on_disk(machine, &run.workflow);
                    if self.without != Without::HandOverMark {
                        disk.hand_over();
                    }
                }
            }
            ReportKind::Began => self.change_run(machine, |run| {
                run.stage = Stage::At(0);
                run.grant = heard;
            }),
            _ => self.change_run(machine, |run| drop(run.outbox.pop_front())),
        }
        Ok(())
    }

    async fn slow_hand_over(&mut self, machine: usize) -> Kept {
        for _ in 0..20 {
            let agent = self.machines[machine].agent.as_ref();
            let Some((session, run)) = agent.and_then(|agent| agent.session.zip(agent.run.clone())) else {
                self.agent(machine, false, true).await?;
                continue;
            };
            if run.to_tell() == Some(ReportKind::HandOver) {
                let report = run.report(ReportKind::HandOver);
                self.reports.push((session, report));
                return Ok(());
            }
            self.agent(machine, false, true).await?;
        }
        Ok(())
    }

    fn change(&mut self, machine: usize, change: impl FnOnce(&mut Agent)) {
        if let Some(agent) = &mut self.machines[machine].agent {
            change(agent);
        }
    }

    fn change_run(&mut self, machine: usize, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.machines[machine].agent.as_mut().and_then(|agent| agent.run.as_mut()) {
            change(run);
        }
    }

    // The wire.

    /// Says hello. The number of the session, or a refusal; `None` when the call was cut off.
    async fn hello(
        &mut self,
        machine: usize,
        said: Words,
        token: Option<usize>,
        text: &str,
        boot: Uuid,
    ) -> Kept<Option<Result<usize, ()>>> {
        let found = self.machines.get(machine).and_then(Machine::existing_os);
        let mut hello = common::hello(number(said.card), boot, found);
        hello.anchors = said.anchors();
        let hello = wire(&hello);
        let now = self.now();
        let from = common::address(number(said.card));
        let answer = self.call(async |engine| engine.hello(text, hello, from).await).await;
        let Some(answer) = answer else {
            self.oracle.perhaps_used();
            self.oracle.perhaps_welcomed();
            return Ok(None);
        };
        let Ok(welcome) = answer else {
            self.oracle.seen.tokens_refused += 1;
            return Ok(Some(Err(())));
        };
        let Some(token) = token else {
            return broken("a boot token is the server's own", "a forged one opened a session");
        };
        let welcome: Welcome = wire(&welcome);
        let record = known_record(&welcome.machine);
        self.oracle.token_used(token, record, boot, now)?;
        if let Some(record) = record {
            self.oracle.welcomed(record, machine, said);
        }
        self.sessions.push(Session { record, machine, said, boot, key: welcome.session.reveal().to_owned() });
        Ok(Some(Ok(self.sessions.len() - 1)))
    }

    /// A stranger answers to a card, when whoever has it is silent, and says what he likes. He may ask for work.
    async fn claims(&mut self, card: usize, what: usize, works: bool) -> Kept {
        self.clock.advance(Duration::from_secs(40));
        let Some(token) = self.identity(card).await else { return Ok(()) };
        let (text, said) = (self.tokens[token].1.clone(), Words::claimed(card, what));
        match self.hello(STRANGER, said, Some(token), &text, Uuid::new_v4()).await? {
            Some(Ok(session)) => {
                self.oracle.seen.claims_believed += 1;
                if works && let Some(work) = self.ask_work(session).await? {
                    self.report(session, &Run::new(work), ReportKind::Began).await?;
                }
            }
            Some(Err(())) => self.oracle.seen.claims_refused += 1,
            None => {}
        }
        Ok(())
    }

    async fn forged_token(&mut self, machine: usize, token: usize, how: usize) -> Kept {
        let said = self.honest(machine);
        let other = self.tokens.iter().filter(|(card, _)| how == 0 || *card != said.card).map(|(_, text)| text.clone());
        let other: Vec<String> = other.collect();
        let Some(real) = other.get(token % other.len().max(1)) else { return Ok(()) };
        let forged = match how {
            // The payload is another's, the proof is real.
            0 => match (real.split_once('.'), self.tokens.iter().find(|(_, text)| text != real)) {
                (Some((_, proof)), Some((_, text))) => format!("{}.{proof}", text.split('.').next().unwrap_or("")),
                _ => return Ok(()),
            },
            // A real token of another machine.
            1 => real.clone(),
            2 => format!("{real}A"),
            _ => String::new(),
        };
        self.hello(machine, said, None, &forged, Uuid::new_v4()).await.map(drop)
    }

    /// Asks for work with a session.
    async fn ask_work(&mut self, session: usize) -> Kept<Option<dragonfly_core::wire::Work>> {
        let Session { record, machine, said, boot, key } = self.sessions[session].clone();
        let now = self.now();
        let ask = wire(&Ask { wait_seconds: 0 });
        let answer = self.call(async |engine| engine.work(&key, ask).await).await;
        let orders = match answer {
            None => return Ok(None),
            Some(Err(_)) => {
                self.leaves(machine, session);
                return Ok(None);
            }
            Some(Ok(orders)) => wire(&orders),
        };
        if let Some(record) = record {
            self.oracle.session_answered(record, boot)?;
        }
        match orders {
            Orders::Execute(work) => {
                let Some(record) = record else {
                    return broken("an operator stands behind every wipe", format!("{} is ordered", work.workflow));
                };
                self.oracle.ordered(record, &work.workflow, work.permit.generation, now)?;
                self.oracle.in_its_place(record, machine, said, "the order is Execute")?;
                let steps: Vec<Value> = work.steps.iter().map(|s| step(&s.name, &s.with)).collect();
                // Of a call that was cut off, what it meant is learned here.
                let meant = self.authorised.entry(work.workflow.clone()).or_insert_with(|| steps.clone());
                if *meant != steps {
                    return broken("nothing but what was authorised", format!("{meant:?} became {steps:?}"));
                }
                self.orders.insert(work.workflow.clone(), (work.permit.workflow_uid, work.steps.len()));
                Ok(Some(*work))
            }
            Orders::Wait { .. } => Ok(None),
            _ => {
                self.leaves(machine, session);
                Ok(None)
            }
        }
    }

    /// The agent of this session, if it is still up, has nothing more to do here.
    fn leaves(&mut self, machine: usize, session: usize) {
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.agent.take_if(|agent| agent.session == Some(session));
        }
    }

    /// Reports, and keeps what was sent: it may arrive again. What stands behind it, when it may begin.
    async fn report(
        &mut self,
        session: usize,
        run: &Run,
        what: ReportKind,
    ) -> Kept<Option<Result<(Heard, Option<usize>), ()>>> {
        self.reports.push((session, run.report(what)));
        self.arrives(self.reports.len() - 1).await
    }

    /// A report arrives at the server.
    async fn arrives(&mut self, report: usize) -> Kept<Option<Result<(Heard, Option<usize>), ()>>> {
        let (session, report) = self.reports[report].clone();
        let Session { record, machine, said: words, boot, key } = self.sessions[session].clone();
        let now = self.now();
        let said = wire(&report);
        let answer = self.call(async |engine| engine.report(&key, said).await).await;
        let hand_over = report.what == ReportKind::HandOver;
        let heard = match answer {
            None => {
                if let Some(record) = record.filter(|_| hand_over) {
                    self.oracle.handed_over(record, &report.workflow, false, true)?;
                }
                return Ok(None);
            }
            Some(Err(_)) => return Ok(Some(Err(()))),
            Some(Ok(heard)) => wire(&heard),
        };
        // Of the machines that operators name none is meant; what it reports is of nobody's authorisation.
        let Some(record) = record else { return Ok(Some(Ok((heard, None)))) };
        self.oracle.session_answered(record, boot)?;
        let mut grant = None;
        if heard == Heard::GoOn && report.what == ReportKind::Began {
            let (index, is_first) =
                self.oracle.began(record, &report.workflow, report.attempt, &boot.to_string(), now)?;
            grant = Some(index);
            // Who has begun goes on, whatever is written of the machine's cards meanwhile.
            if is_first {
                self.oracle.in_its_place(record, machine, words, "Began was acknowledged")?;
            }
        }
        if heard == Heard::GoOn && hand_over {
            let (uid, steps) = self.orders[&report.workflow];
            let finished = self.machines.get(machine).is_some_and(|m| m.disk.is_finished(uid, steps));
            self.oracle.handed_over(record, &report.workflow, true, finished)?;
        }
        Ok(Some(Ok((heard, grant))))
    }
}

/// A step as an operator may compare it. What templates fill in is not these tests' affair.
fn step(name: &str, with: &impl Serialize) -> Value {
    let with = json!(with);
    json!({ "name": name, "url": with.get("url") })
}

/// Names and versions of what an engine knows of a kind.
fn versions<S: dragonfly_core::cache::Cached>(cache: &dragonfly_core::cache::Cache) -> Vec<(String, String)> {
    let all = cache.all::<S>();
    all.iter().map(|object| (object.name().to_owned(), object.metadata.resource_version.clone())).collect()
}
