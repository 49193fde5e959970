//! One server, one machine with its agent, one operator, on virtual time. The server can be killed
//! between any two writes to its store; everybody else does what they do in life: ask again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::boot::{BootProvider, BootRequest, Fate};
use dragonfly_core::engine::{AssignRequest, Engine, EngineError, ReimageRequest};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::{Hardware, HardwareSpec, Workflow, WorkflowSpec};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::redb::{Options, RedbStore};
use dragonfly_core::store::{MemoryStore, Selector, Store, StoreError, StoreExt};
use dragonfly_core::testing::{LimitedStore, ManualClock};
use dragonfly_core::wire::{Ask, Failure, Heard, Orders, Report, ReportKind, Work};
use dragonfly_core::workflow::{RunState, StepEvent};

use crate::common;

/// The machine's name, made from its card.
pub(crate) const MACHINE: &str = "censusablequalityparent";
/// Its card.
pub(crate) const CARD: Mac = common::card(1);
/// How often anybody asks again before the test gives up.
const PATIENCE: usize = 60;

/// Where the server's state survives.
#[derive(Debug)]
enum Disk {
    Memory(MemoryStore),
    File(PathBuf),
}

/// Everything outside the server's memory.
#[derive(Debug)]
pub(crate) struct World {
    disk: Disk,
    key: SealingKey,
    pub(crate) clock: ManualClock,
    /// How many writes each server does before it is killed; one that is not here is not killed.
    limits: VecDeque<u64>,
    server: Option<(Engine, LimitedStore)>,
    servers: Vec<LimitedStore>,
    pub(crate) kills: usize,
    agent: Agent,
    /// The disk of the machine: which workflow and attempt wrote its image, in order.
    pub(crate) imaged: Vec<(String, u32)>,
}

#[derive(Debug, Clone)]
struct Agent {
    boot_id: uuid::Uuid,
    session: Option<String>,
}

impl World {
    /// A site with its network and template, and a machine that was never switched on. Without a file
    /// for the store, it is in memory that outlives the server.
    pub(crate) async fn new(disk: Option<PathBuf>, limits: &[u64]) -> Self {
        let clock = ManualClock::default();
        let disk = match disk {
            Some(path) => Disk::File(path),
            None => Disk::Memory(MemoryStore::new(Arc::new(clock.clone()))),
        };
        let agent = Agent { boot_id: uuid::Uuid::new_v4(), session: None };
        let mut world = Self {
            disk,
            key: SealingKey::generate().expect("there is randomness"),
            clock,
            limits: VecDeque::new(),
            server: None,
            servers: Vec::new(),
            kills: 0,
            agent,
            imaged: Vec::new(),
        };
        world
            .call(async |engine| engine.apply(common::SETUP, "setup").await.map(drop))
            .await
            .expect("the site is set up");
        world.server = None;
        world.servers.clear();
        world.limits = limits.iter().copied().collect();
        world
    }

    /// The writes that all servers so far were asked for.
    pub(crate) fn writes(&self) -> u64 {
        self.servers.iter().map(LimitedStore::asked).sum()
    }

    fn store(&self) -> Arc<dyn Store> {
        match &self.disk {
            Disk::Memory(store) => Arc::new(store.clone()),
            Disk::File(path) => {
                let options = Options { clock: Arc::new(self.clock.clone()), ..Options::default() };
                Arc::new(RedbStore::open_with(path, options).expect("the killed server has let go of the file"))
            }
        }
    }

    /// The server, started if it is not at work.
    async fn engine(&mut self) -> Engine {
        loop {
            if let Some((engine, _)) = &self.server {
                return engine.clone();
            }
            let store = LimitedStore::new(self.store(), self.limits.pop_front().unwrap_or(u64::MAX));
            if matches!(self.disk, Disk::Memory(_)) {
                self.servers.push(store.clone());
            }
            let built = common::builder(Arc::new(store.clone()), &self.key, &self.clock).build().await;
            match built {
                Ok(engine) => self.server = Some((engine, store)),
                Err(error) if was_killed(&error) => self.kills += 1,
                Err(error) => panic!("the server does not start: {error:?}"),
            }
        }
    }

    /// Asks the server; again when it was killed meanwhile.
    pub(crate) async fn call<T>(
        &mut self,
        ask: impl AsyncFn(&Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        loop {
            let engine = self.engine().await;
            let answer = ask(&engine).await;
            self.never_imaged_without_leave(&engine);
            match answer {
                Err(error) if was_killed(&error) => {
                    drop(engine);
                    self.server = None;
                    self.kills += 1;
                    self.clock.advance(Duration::from_secs(1));
                }
                answer => return answer,
            }
        }
    }

    /// Whatever was durable when the server was killed: the machine is imaged only while an
    /// authorisation for a workflow that waits or runs says so.
    fn never_imaged_without_leave(&self, engine: &Engine) {
        let Fate::Image { workflow } = engine.decision(&BootRequest::from_mac(CARD)).fate else { return };
        let machine = engine.cache().get::<HardwareSpec>(MACHINE).expect("a machine that is imaged is known");
        let leave = machine.status.authorisation.as_ref().expect("a machine that is imaged has an authorisation");
        let run = engine.cache().get::<WorkflowSpec>(&workflow).expect("the workflow of a machine that is imaged");
        assert_eq!((&leave.workflow, Some(leave.workflow_uid)), (&workflow, run.metadata.uid));
        assert!(!run.status.state.is_final() && run.status.state != RunState::Failed, "{:?}", run.status);
    }

    /// The operator asks until the machine has a workflow.
    pub(crate) async fn assign(&mut self) {
        let request = AssignRequest { template: "debian".to_owned(), ..AssignRequest::default() };
        let answer = self.call(async |engine| engine.assign(MACHINE, request.clone(), "operator").await).await;
        self.done_or_already(answer, &[Phase::Assigned, Phase::Provisioning]).await;
    }

    /// The operator asks until the machine is to be installed anew.
    pub(crate) async fn reimage(&mut self) {
        let answer = self.call(async |e| e.reimage(MACHINE, ReimageRequest::default(), "operator").await).await;
        self.done_or_already(answer, &[Phase::Assigned, Phase::Provisioning]).await;
    }

    /// The operator asks until there is another attempt.
    pub(crate) async fn retry(&mut self) {
        let answer = self.call(async |engine| engine.retry(MACHINE, "operator").await).await;
        self.done_or_already(answer, &[Phase::Assigned, Phase::Provisioning]).await;
    }

    /// The operator asks until nothing is under way.
    pub(crate) async fn abort(&mut self) {
        let answer = self.call(async |engine| engine.abort(MACHINE, "operator").await).await;
        self.done_or_already(answer, &[Phase::Registered]).await;
    }

    /// An operator whose first call was cut off is told "illegal" by the second when the first had done it.
    async fn done_or_already<T: std::fmt::Debug>(&mut self, answer: Result<T, EngineError>, phases: &[Phase]) {
        match answer {
            Ok(_) => {}
            Err(EngineError::Illegal { .. }) if self.kills > 0 => {
                let phase = self.machine().await.and_then(|m| m.status.phase);
                assert!(phase.is_some_and(|phase| phases.contains(&phase)), "refused although it is {phase:?}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// The machine as it is stored.
    pub(crate) async fn machine(&mut self) -> Option<Hardware> {
        self.engine().await.cache().get::<HardwareSpec>(MACHINE).map(|m| Hardware::clone(&m))
    }

    /// The machine is switched on: firmware asks, and what it is told happens. True: the agent is up.
    pub(crate) async fn power_on(&mut self) -> bool {
        self.agent = Agent { boot_id: uuid::Uuid::new_v4(), session: None };
        for _ in 0..PATIENCE {
            // Firmware takes its time, and an agent that was heard must be silent for a while.
            self.clock.advance(Duration::from_secs(40));
            let to = Some("10.0.0.1:3000".parse().expect("an address"));
            let request = BootRequest { from: Some(common::address(1)), to, ..BootRequest::from_mac(CARD) };
            let engine = self.engine().await;
            let fate = engine.decision(&request).fate;
            let identity = engine.identity(&request).await.expect("an identity is made from memory");
            drop(engine);
            let Some(identity) = identity else {
                assert!(matches!(fate, Fate::Local | Fate::Hold), "the agent boots without an identity: {fate:?}");
                return false;
            };
            let said = common::hello(1, self.agent.boot_id, None);
            let token = identity.token.reveal().to_owned();
            match self.call(async |engine| engine.hello(&token, said.clone(), common::address(1)).await).await {
                Ok(welcome) => {
                    self.agent.session = Some(welcome.session.reveal().to_owned());
                    return true;
                }
                // The token was used by the call that was cut off: it boots again.
                Err(EngineError::Forbidden { .. } | EngineError::Busy { .. }) if self.kills > 0 => {}
                Err(error) => panic!("hello: {error:?}"),
            }
        }
        panic!("the agent is never let in");
    }

    /// The agent asks for work and does it, as `script` says, until there is none. True: it has
    /// handed over and left.
    pub(crate) async fn agent_works(&mut self, script: &mut Script) -> bool {
        for _ in 0..PATIENCE {
            let Some(session) = self.agent.session.clone() else { return false };
            let orders = self.call(async |engine| engine.work(&session, Ask { wait_seconds: 0 }).await).await;
            match orders.expect("the session goes on") {
                Orders::Execute(work) => match self.run(&work, script).await {
                    Ending::Left => return true,
                    Ending::Died => return false,
                    Ending::AskAgain => {}
                },
                Orders::Wait { .. } | Orders::BootLocal { .. } => return false,
                other => panic!("unexpected orders: {other:?}"),
            }
        }
        panic!("the agent works without end");
    }

    async fn run(&mut self, work: &Work, script: &mut Script) -> Ending {
        let mut reports = vec![ReportKind::Began];
        for index in 0..work.steps.len() {
            let step = |event, failure| ReportKind::Step { index, event, progress: None, failure };
            reports.push(step(StepEvent::Began, None));
            let failure = script.failure(index);
            let failed = failure.is_some();
            reports.push(match failure {
                Some(failure) => step(StepEvent::Failed, Some(failure)),
                None => step(StepEvent::Succeeded, None),
            });
            if failed {
                break;
            }
        }
        if !matches!(reports.last(), Some(ReportKind::Step { event: StepEvent::Failed, .. })) {
            reports.push(ReportKind::HandOver);
        }
        for what in reports {
            if script.dies() {
                return Ending::Died;
            }
            let image =
                matches!(what, ReportKind::Step { index: 0, event: StepEvent::Succeeded | StepEvent::Failed, .. });
            if image {
                self.imaged.push((work.workflow.clone(), work.attempt));
            }
            let last = what == ReportKind::HandOver;
            match self.report(work, what).await {
                Heard::GoOn if last => return Ending::Left,
                Heard::GoOn => {}
                Heard::Stop { .. } => return Ending::AskAgain,
                other => panic!("unexpected answer: {other:?}"),
            }
        }
        Ending::AskAgain
    }

    async fn report(&mut self, work: &Work, what: ReportKind) -> Heard {
        let session = self.agent.session.clone().expect("an agent that works has a session");
        let generation = work.permit.generation;
        let report = Report { workflow: work.workflow.clone(), attempt: work.attempt, generation, what };
        let heard = self.call(async |engine| engine.report(&session, report.clone()).await).await;
        heard.unwrap_or_else(|error| panic!("{report:?}: {error:?}"))
    }

    /// Time passes, the periodic pass is made, and what is stored is consistent. Returns the workflows.
    pub(crate) async fn settled(&mut self) -> (Hardware, Vec<Workflow>) {
        for _ in 0..3 {
            self.clock.advance(Duration::from_secs(70));
            self.call(async |engine| engine.sweep().await).await.expect("the periodic pass is made");
        }
        // What a server that starts now reads, not what this one believes.
        self.server = None;
        let engine = self.engine().await;
        drop(engine);
        let store = self.server.as_ref().map(|(_, store)| store.clone()).expect("it was just started");
        let machine: Hardware = store.fetch(MACHINE).await.expect("the machine is stored");
        let runs: Vec<Workflow> = store.all(&Selector::all()).await.expect("the workflows are stored");
        for run in &runs {
            let leave = machine.status.authorisation.as_ref();
            let mine = leave.is_some_and(|leave| Some(leave.workflow_uid) == run.metadata.uid);
            let told = format!(
                "{}: {:?}, {:?} while the machine is {:?}",
                run.name(),
                run.status.state,
                run.status.message,
                machine.status.phase
            );
            assert!(run.status.state.is_final() || mine, "nobody stands behind {told}");
            match (machine.status.phase, mine) {
                (Some(Phase::Ready | Phase::Registered), mine) => assert!(!mine, "still authorised: {told}"),
                (Some(Phase::Error), true) => assert_eq!(run.status.state, RunState::Failed, "{told}"),
                (Some(Phase::Assigned | Phase::Provisioning), true) => {
                    assert!(matches!(run.status.state, RunState::Pending | RunState::Running), "{told}");
                }
                _ => {}
            }
        }
        (machine, runs)
    }
}

enum Ending {
    Left,
    Died,
    AskAgain,
}

fn was_killed(error: &EngineError) -> bool {
    matches!(error, EngineError::Store(StoreError::Unavailable { .. }))
}

/// What goes wrong on the machine.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Steps that fail, with their reason, in the order of attempts.
    pub(crate) failures: VecDeque<(usize, &'static str)>,
    /// The power goes before this many reports from now.
    pub(crate) dies_before: Option<usize>,
}

impl Script {
    fn failure(&mut self, step: usize) -> Option<Failure> {
        let (at, why) = *self.failures.front()?;
        (at == step).then(|| {
            self.failures.pop_front();
            Failure::message(why)
        })
    }

    fn dies(&mut self) -> bool {
        match self.dies_before {
            Some(0) => {
                self.dies_before = None;
                true
            }
            Some(left) => {
                self.dies_before = Some(left - 1);
                false
            }
            None => false,
        }
    }
}
