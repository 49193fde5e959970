//! The real engine, with one machine that is to be installed. It outlives the agent.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::boot::{BootProvider, BootRequest, Fate};
use dragonfly_core::clock::{Clock, Timestamp};
use dragonfly_core::engine::{AssignRequest, Engine, EngineError};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::hardware::Anchors;
use dragonfly_core::resource::{HardwareSpec, TemplateSpec, WorkflowSpec};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::MemoryStore;
use dragonfly_core::wire::{Ask, Heard, Hello, Orders, Report, ReportKind, Versions, Work};
use dragonfly_core::workflow::{RunState, StepEvent};

use crate::machine::{Did, Machine, STEPS};

/// What is to be done: see [`Machine`] for what each step does.
pub(crate) const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack }
spec: { interface: eth0, dhcp: full, subnet: 10.0.0.0/24, pool: { start: 10.0.0.10, end: 10.0.0.99 } }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: debian }
spec:
  actions:
    - { name: system, action: keep, with: { step: 0 } }
    - { name: hostname, action: keep, with: { step: 1 } }
    - { name: packages, action: anew, with: { step: 2 } }
    - { name: greeting, action: keep, with: { step: 3 } }
    - { name: leave, action: anew, with: { step: 4 } }
";

pub(crate) const CARD: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 17));

/// What the actions do is this test's affair.
#[derive(Debug)]
struct Anything;

impl TemplateChecker for Anything {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

/// A clock that stands still until it is turned.
#[derive(Debug, Clone)]
struct Turned(Arc<Mutex<Timestamp>>);

impl Clock for Turned {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// What the engine has agreed to hear of the steps, over all lives.
#[derive(Debug, Default)]
struct Told {
    /// Said to be done, and not begun since.
    done: [bool; STEPS],
    /// The same, in the attempt that runs.
    done_now: [bool; STEPS],
}

#[derive(Debug)]
pub(crate) struct Site {
    engine: Engine,
    clock: Turned,
    machine: Arc<Machine>,
    told: Mutex<Told>,
    /// What the agent that lives now was last told to do.
    orders: Mutex<Option<Work>>,
}

impl Site {
    /// A site whose only machine has been seen once and is to be installed.
    pub(crate) async fn new(machine: &Arc<Machine>) -> Self {
        let clock = Turned(Arc::new(Mutex::new(Timestamp::from_unix_seconds(1_767_225_600))));
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let key = SealingKey::generate().unwrap();
        let engine =
            Engine::builder(store, key, Arc::new(Anything)).clock(Arc::new(clock.clone())).build().await.unwrap();
        engine.apply(SETUP, "setup").await.unwrap();
        let site =
            Self { engine, clock, machine: Arc::clone(machine), told: Mutex::default(), orders: Mutex::default() };
        let token = site.switch_on().await.expect("a machine that nobody has seen boots the agent");
        site.hello(&token, hello()).await.unwrap();
        let request = AssignRequest { template: "debian".to_owned(), ..AssignRequest::default() };
        site.engine.assign(&CARD.to_string(), request, "operator").await.unwrap();
        site
    }

    /// The machine starts. What its agent opens a session with; nothing when it boots its own disk.
    pub(crate) async fn switch_on(&self) -> Option<String> {
        {
            // Firmware takes its time, and whoever was heard must be silent for a while.
            let mut now = self.clock.0.lock().unwrap();
            *now = now.plus(Duration::from_secs(40));
        }
        let to = Some("10.0.0.1:3000".parse().unwrap());
        let request = BootRequest { from: Some(ADDRESS), to, ..BootRequest::from_mac(CARD) };
        let fate = self.engine.decision(&request).fate;
        let identity = self.engine.identity(&request).await.unwrap();
        assert!(identity.is_some() || matches!(fate, Fate::Local), "the agent boots without an identity: {fate:?}");
        identity.map(|identity| identity.token.reveal().to_owned())
    }

    /// The key of a new session.
    pub(crate) async fn hello(&self, token: &str, hello: Hello) -> Result<dragonfly_core::wire::Welcome, EngineError> {
        self.engine.hello(token, hello, ADDRESS).await
    }

    /// What the machine is to do. That is compared with what was told.
    pub(crate) async fn work(&self, session: &str) -> Result<Orders, EngineError> {
        let orders = self.engine.work(session, Ask { wait_seconds: 0 }).await?;
        if let Orders::Execute(work) = &orders {
            *self.orders.lock().unwrap() = Some(Work::clone(work));
            let done = self.told.lock().unwrap().done;
            for (step, orders) in work.steps.iter().enumerate() {
                if orders.done_before != done[step] {
                    self.machine
                        .fault(format!("step {step}: told done {}, taken for {}", done[step], orders.done_before));
                }
            }
        }
        Ok(orders)
    }

    /// Takes what the agent that lived was told to do, if it came so far.
    pub(crate) fn orders(&self) -> Option<Work> {
        self.orders.lock().unwrap().take()
    }

    /// The engine hears a report. What it is told to be done must be done.
    pub(crate) async fn hear(&self, session: &str, report: Report) -> Result<Heard, EngineError> {
        let machine = &self.machine;
        match report.what {
            ReportKind::Step { index, event: StepEvent::Succeeded | StepEvent::Skipped, .. }
                if !machine.holds(index) =>
            {
                machine.fault(format!("{:?} although {:?}", report.what, machine.disk()));
            }
            ReportKind::Step { index, event: StepEvent::Skipped, .. }
                if !machine.did().contains(&Did::Verified { step: index, holds: true }) =>
            {
                machine.fault(format!("step {index} is left alone and was not verified: {:?}", machine.did()));
            }
            ReportKind::HandOver => {
                for step in (0..STEPS).filter(|step| !machine.holds(*step)) {
                    machine.fault(format!("it leaves, and step {step} does not hold: {:?}", machine.disk()));
                }
            }
            ReportKind::Step { event: StepEvent::Failed, .. } | ReportKind::Refused { .. } => {
                machine.fault(format!("{:?}", report.what));
            }
            _ => {}
        }
        let what = report.what.clone();
        let heard = self.engine.report(session, report).await?;
        machine.changed();
        if heard == Heard::GoOn {
            self.note(&what);
        }
        Ok(heard)
    }

    fn note(&self, what: &ReportKind) {
        let mut told = self.told.lock().unwrap();
        match *what {
            ReportKind::Began => {
                self.machine.may_write();
                told.done_now = [false; STEPS];
            }
            // What comes after it is to be done again as well.
            ReportKind::Step { index, event: StepEvent::Began, .. } => {
                let done_now = told.done_now;
                told.done[index..].copy_from_slice(&done_now[index..]);
            }
            ReportKind::Step { index, event: StepEvent::Succeeded | StepEvent::Skipped, .. } => {
                told.done[index] = true;
                told.done_now[index] = true;
            }
            _ => {}
        }
    }

    /// The machine is installed, as everybody sees it.
    pub(crate) fn is_installed(&self) -> bool {
        let runs: Vec<_> = self.engine.cache().all::<WorkflowSpec>().iter().map(|run| run.status.state).collect();
        let phases: Vec<_> =
            self.engine.cache().all::<HardwareSpec>().iter().map(|machine| machine.status.phase).collect();
        runs == [RunState::Succeeded] && phases == [Some(Phase::Ready)]
    }
}

/// What the agent says of its machine.
pub(crate) fn hello() -> Hello {
    Hello {
        protocol: Versions::OURS,
        agent: "test".into(),
        boot_id: uuid::Uuid::new_v4(),
        mac: CARD,
        anchors: Anchors { macs: vec![CARD], serial: Some("SN-0001X".to_owned()), ..Anchors::default() },
        inventory: Default::default(),
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
    }
}

/// The orders, if they are to execute something.
pub(crate) fn executed(orders: Orders) -> Box<Work> {
    match orders {
        Orders::Execute(work) => work,
        other => panic!("an authorised machine is told {other:?}"),
    }
}
