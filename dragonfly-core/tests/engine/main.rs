//! One machine's life through the engine, on the memory store: what agents and operators see.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod admission;
mod answers;
mod claims;
mod conflicts;
mod impostors;
mod stubborn;
mod truths;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, Progress, TemplateChecker, Unit};
use dragonfly_core::boot::{BootProvider, BootRequest};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::deadline::Owner;
use dragonfly_core::diagnose::Fault;
use dragonfly_core::engine::{AssignRequest, Engine, EngineError, ReimageRequest, Settings};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::hardware::{Anchors, ExistingOs, Overwrite};
use dragonfly_core::resource::{ConditionStatus, Hardware, HardwareSpec, Kind, TemplateSpec, WorkflowSpec};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::memory::MemoryStore;
use dragonfly_core::store::{Part, Store, StoreError, StoreExt as _, When};
use dragonfly_core::testing::ManualClock;
use dragonfly_core::wire::{Ask, Failure, Heard, Hello, Orders, Report, ReportKind, Versions, Welcome, Work};
use dragonfly_core::workflow::{RunState, StepEvent};

/// Knows three actions by name; enough for the engine, which never looks inside.
#[derive(Debug)]
struct Names;

impl TemplateChecker for Names {
    fn check(&self, template: &TemplateSpec) -> Vec<Problem> {
        let known = ["image2disk", "writefile", "reboot"];
        let wrong = template.actions.iter().enumerate().filter(|(_, a)| !known.contains(&a.action.as_str()));
        // As real checkers do, this one quotes what it does not like.
        let quoted = template.actions.iter().enumerate().filter(|(_, a)| a.with["mode"].is_string());
        let quoted = quoted.filter(|(_, a)| !a.with["mode"].as_str().is_some_and(|m| m.starts_with(['{', '[', '0'])));
        let quoted = quoted.map(|(i, a)| Problem {
            path: format!("actions[{i}].with.mode"),
            problem: format!("{} is not a mode", a.with["mode"]),
        });
        wrong
            .map(|(i, a)| Problem {
                path: format!("actions[{i}].action"),
                problem: format!("no action is called `{}`", a.action),
            })
            .chain(quoted)
            .collect()
    }
}

struct Site {
    engine: Engine,
    store: Arc<dyn Store>,
    key: SealingKey,
    clock: Arc<ManualClock>,
    logs: tempfile::TempDir,
}

const SETUP: &str = "
apiVersion: dragonfly.computer/v1
kind: Network
metadata: { name: rack }
spec: { interface: eth0, dhcp: full, subnet: 10.0.0.0/24, pool: { start: 10.0.0.10, end: 10.0.0.99 } }
---
apiVersion: dragonfly.computer/v1
kind: Secret
metadata: { name: root }
spec: { data: { password: correct-horse } }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: debian }
spec:
  values:
    role: db
    password: { valueFrom: { secretRef: { name: root, key: password } } }
  actions:
    - { name: image, action: image2disk, with: { url: /images/debian.raw, sha256: aa } }
    - { name: hostname, action: writefile, with: { content: '{{ machine.name }} {{ values.role }} {{ values.password }}' } }
    - { name: leave, action: reboot }
";

fn server() -> SocketAddr {
    "10.0.0.1:3000".parse().unwrap()
}

fn mac(n: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0xab, 0xcd, n])
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

impl Site {
    /// As a person does who looks first: lifts a hold, or says yes to what is asked.
    async fn release(&self, machine: &str, by: &str) -> Result<(), EngineError> {
        let why = self.engine.why(machine)?;
        let object = self.engine.cache().get::<HardwareSpec>(&why.machine).unwrap();
        match why.question.filter(|_| object.spec.hold.is_none() && why.phase != Some(Phase::Held)) {
            Some(question) => self.engine.release_answering(machine, &question, by).await,
            None => self.engine.release(machine, by).await,
        }
    }

    /// And says no.
    async fn deny(&self, machine: &str, by: &str) -> Result<(), EngineError> {
        let question = self.engine.why(machine)?.question.unwrap_or_default();
        self.engine.deny(machine, &question, by).await
    }

    async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000)));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock) as _));
        let key = SealingKey::generate().unwrap();
        let logs = tempfile::tempdir().unwrap();
        let engine = Self::open(&store, &clock, &key, &logs).await;
        let site = Self { engine, store, key, clock, logs };
        site.engine.apply(SETUP, "test").await.unwrap();
        site
    }

    async fn open(
        store: &Arc<dyn Store>,
        clock: &Arc<ManualClock>,
        key: &SealingKey,
        logs: &tempfile::TempDir,
    ) -> Engine {
        let clock: Arc<ManualClock> = Arc::clone(clock);
        Engine::builder(Arc::clone(store), key.clone(), Arc::new(Names))
            .clock(clock)
            .logs(logs.path().to_owned())
            .settings(Settings { server_pin: "ab".repeat(32), ..Settings::default() })
            .build()
            .await
            .unwrap()
    }

    /// The same store and key under a new engine: everything in memory is gone.
    async fn restarted(self) -> Self {
        let engine = Self::open(&self.store, &self.clock, &self.key, &self.logs).await;
        Self { engine, ..self }
    }

    fn fate(&self, n: u8) -> String {
        self.engine.decision(&BootRequest::from_mac(mac(n))).fate.word().to_owned()
    }

    fn phase(&self, n: u8) -> Option<Phase> {
        let name = self.engine.resolve(&mac(n).to_string()).ok()?;
        self.engine.machines().iter().find(|m| m.name() == name)?.status.phase
    }

    /// Neither objects as they are stored or shown, nor any event, hold this text.
    async fn says_nowhere(&self, text: &str) {
        for kind in [Kind::HARDWARE, Kind::TEMPLATE, Kind::WORKFLOW, Kind::NETWORK, Kind::SECRET] {
            for record in self.engine.list(kind, &Default::default(), 0, None).await.unwrap().items {
                assert!(!record.to_json().to_string().contains(text), "{:#}", record.to_json());
            }
            for record in self.store.list(kind, &Default::default(), 0, None).await.unwrap().items {
                assert!(!record.to_json().to_string().contains(text), "{:#}", record.to_json());
            }
        }
        for event in self.engine.events().subscribe(Some(0)).replay {
            assert!(!format!("{event:?}").contains(text), "{event:?}");
        }
    }

    fn run(&self, name: &str) -> Arc<dragonfly_core::resource::Workflow> {
        self.engine.cache().get::<WorkflowSpec>(name).unwrap()
    }

    async fn token(&self, n: u8) -> Option<String> {
        let request = BootRequest { from: Some(address(n)), to: Some(server()), ..BootRequest::from_mac(mac(n)) };
        self.engine.identity(&request).await.unwrap().map(|i| i.token.reveal().to_owned())
    }

    async fn boot(&self, n: u8) -> Agent<'_> {
        // Tokens are told apart by their time.
        self.clock.advance(Duration::from_secs(40));
        let token = self.token(n).await.expect("an identity");
        let welcome = self.engine.hello(&token, hello(n), address(n)).await.unwrap();
        Agent { site: self, key: welcome.session.reveal().to_owned(), welcome }
    }
}

fn hello(n: u8) -> Hello {
    Hello {
        protocol: Versions::OURS,
        agent: "test".into(),
        boot_id: uuid::Uuid::new_v4(),
        mac: mac(n),
        anchors: Anchors {
            macs: vec![mac(n)],
            serial: Some(format!("SN-{n:04}X")),
            product: Some("P".into()),
            ..Anchors::default()
        },
        inventory: Inventory::default(),
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
    }
}

struct Agent<'a> {
    site: &'a Site,
    key: String,
    welcome: Welcome,
}

impl Agent<'_> {
    async fn orders(&self) -> Orders {
        self.site.engine.work(&self.key, Ask { wait_seconds: 0 }).await.unwrap()
    }

    async fn work(&self) -> Work {
        match self.orders().await {
            Orders::Execute(work) => *work,
            other => panic!("expected work, got {other:?}"),
        }
    }

    async fn say(&self, work: &Work, what: ReportKind) -> Heard {
        let report =
            Report { workflow: work.workflow.clone(), attempt: work.attempt, generation: work.permit.generation, what };
        self.site.engine.report(&self.key, report).await.unwrap()
    }

    async fn step(&self, work: &Work, index: usize, event: StepEvent) -> Heard {
        let failure = (event == StepEvent::Failed).then(|| Failure::message(format!("disk {index} is on fire")));
        self.say(work, ReportKind::Step { index, event, progress: None, failure }).await
    }

    async fn finish(&self, work: &Work) {
        assert_eq!(self.say(work, ReportKind::Began).await, Heard::GoOn);
        for index in 0..work.steps.len() {
            assert_eq!(self.step(work, index, StepEvent::Began).await, Heard::GoOn);
            assert_eq!(self.step(work, index, StepEvent::Succeeded).await, Heard::GoOn);
        }
        assert_eq!(self.say(work, ReportKind::HandOver).await, Heard::GoOn);
    }
}

fn assign() -> AssignRequest {
    AssignRequest { template: "debian".into(), ..AssignRequest::default() }
}

#[tokio::test]
async fn a_reserved_address_is_known_to_the_boot_services() {
    let site = Site::new().await;
    let manifest = "
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: db-1 }
spec: { macs: ['52:54:00:ab:cd:07'], dhcp: { address: 10.0.0.20 } }
";
    site.engine.apply(manifest, "op").await.unwrap();
    assert_eq!(site.engine.reserved_for("10.0.0.20".parse().unwrap()), Some(mac(7)));
    assert_eq!(site.engine.reserved_for("10.0.0.21".parse().unwrap()), None);
}

#[tokio::test]
async fn from_power_on_to_ready() {
    let site = Site::new().await;
    assert_eq!(site.fate(1), "discover", "nobody has seen it");
    let agent = site.boot(1).await;
    assert_eq!(agent.welcome.machine, "censusablequalityparent");
    assert_eq!(agent.welcome.display_name, "CensusAbleQualityParent");
    assert_eq!(site.phase(1), Some(Phase::Registered));
    assert!(matches!(agent.orders().await, Orders::Wait { .. }));

    let run = site.engine.assign("CensusAbleQualityParent", assign(), "me").await.unwrap();
    assert_eq!(site.fate(1), "image");
    let work = agent.work().await;
    let first = work.permit.generation;
    assert_eq!(work.workflow, run.name());
    assert_eq!(work.steps[0].with["url"], "https://10.0.0.1:3000/images/debian.raw");
    assert_eq!(work.steps[1].with["content"], "censusablequalityparent db correct-horse");
    agent.finish(&work).await;

    assert_eq!(site.phase(1), Some(Phase::Ready));
    assert_eq!(site.run(run.name()).status.state, RunState::Succeeded);
    for _ in 0..10 {
        assert_eq!(site.fate(1), "local");
        assert_eq!(site.token(1).await, None, "a Ready machine gets no identity");
    }
    assert_eq!(agent.say(&work, ReportKind::HandOver).await, Heard::GoOn, "a lost acknowledgement is given again");
    assert!(matches!(
        site.engine.assign("censusablequalityparent", assign(), "me").await,
        Err(EngineError::Illegal { .. })
    ));

    let again = site.engine.reimage("52:54:00:ab:cd:01", ReimageRequest::default(), "me").await.unwrap();
    assert_eq!(site.fate(1), "image");
    let second = site.boot(1).await;
    let work = second.work().await;
    assert_eq!(work.workflow, again.name());
    assert!(work.permit.generation > first, "{} after {first}", work.permit.generation);
    assert_eq!(work.permit.overwrite, Overwrite::All);
    assert!(matches!(
        agent.site.engine.work(&agent.key, Ask::default()).await,
        Err(EngineError::Unauthenticated { .. })
    ));
}

/// Disks bear the number of the run that wrote them, and the agent refuses one that is later than its own.
#[tokio::test]
async fn a_machine_that_was_deleted_and_found_anew_goes_on_counting() {
    let site = Site::new().await;
    let name = site.boot(1).await.welcome.machine;
    let mut last = 0;
    for _ in 0..3 {
        let agent = site.boot(1).await;
        site.engine.assign(&name, assign(), "me").await.unwrap();
        let work = agent.work().await;
        assert!(work.permit.generation > last, "{} after {last}", work.permit.generation);
        last = work.permit.generation;
        agent.finish(&work).await;
        site.engine.delete(Kind::HARDWARE, &name, "me").await.unwrap();
    }
}

#[tokio::test]
async fn secrets_do_not_come_back() {
    let site = Site::new().await;
    let shown = site.engine.get(Kind::SECRET, "root").await.unwrap().to_json().to_string();
    assert!(shown.contains("password") && !shown.contains("correct-horse") && !shown.contains("sealed"), "{shown}");
    let stored = site.store.get(&dragonfly_core::store::Key::new(Kind::SECRET, "root")).await.unwrap().unwrap();
    assert!(!stored.to_json().to_string().contains("correct-horse"));
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let work = agent.work().await;
    for record in site.engine.list(Kind::WORKFLOW, &Default::default(), 0, None).await.unwrap().items {
        assert!(!record.to_json().to_string().contains("correct-horse"));
    }
    // A program on the machine quotes it; an agent that takes nothing out passes it on.
    assert_eq!(work.secrets, ["correct-horse".to_owned().into()]);
    assert_eq!(agent.say(&work, ReportKind::Began).await, Heard::GoOn);
    assert_eq!(agent.step(&work, 0, StepEvent::Began).await, Heard::GoOn);
    let line = "   1.00 chpasswd: correct-horse is too simple\n";
    site.engine.log(&agent.key, 0, line.into()).await.unwrap();
    let failure = Failure {
        message: "chpasswd: \"correct-horse\" is too simple".into(),
        causes: vec!["sent correct-horse".into()],
        kind: None,
    };
    let failed = ReportKind::Step { index: 0, event: StepEvent::Failed, progress: None, failure: Some(failure) };
    agent.say(&work, failed).await;
    assert_eq!(site.engine.read_log(&agent.welcome.machine).await.unwrap(), line.replace("correct-horse", "[secret]"));
    assert!(site.run(&work.workflow).status.message.contains("[secret]"));
    site.says_nowhere("correct-horse").await;
    let unchanged = site.engine.apply(SETUP, "me").await.unwrap();
    assert!(unchanged.iter().all(|a| a.change == dragonfly_core::engine::Change::Unchanged), "{unchanged:?}");
}

#[tokio::test]
async fn a_secret_that_others_wrote_plain_is_used_and_shown_to_nobody() {
    let site = Site::new().await;
    let key = dragonfly_core::store::Key::new(Kind::SECRET, "root");
    let mut stored = site.store.get(&key).await.unwrap().unwrap();
    stored.spec = serde_json::json!({ "sealed": {}, "data": { "password": "correct-horse" } });
    let seen = When::Unchanged(stored.metadata.resource_version.clone());
    site.store.put(stored, Part::Spec, seen).await.unwrap();
    let site = site.restarted().await;
    let shown = site.engine.get(Kind::SECRET, "root").await.unwrap().spec;
    assert_eq!(shown, serde_json::json!({ "keys": ["password"] }));
    let unchanged = site.engine.apply(SETUP, "me").await.unwrap();
    assert!(unchanged.iter().all(|a| a.change == dragonfly_core::engine::Change::Unchanged), "{unchanged:?}");
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let work = agent.work().await;
    assert_eq!(work.steps[1].with["content"], "censusablequalityparent db correct-horse");
    assert_eq!(work.secrets, ["correct-horse".to_owned().into()]);
}

#[tokio::test]
async fn what_is_wrong_with_a_secret_is_told_without_it() {
    let site = Site::new().await;
    let template = "
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: debian }
spec:
  values: { password: { valueFrom: { secretRef: { name: root, key: password } } } }
  actions:
    - { name: hostname, action: writefile, with: { mode: '{{ values.password }}' } }
";
    let agent = site.boot(1).await;
    site.engine.apply(template, "me").await.unwrap();
    let Err(EngineError::Invalid(problems)) = site.engine.assign(&agent.welcome.machine, assign(), "me").await else {
        panic!("a mode that is a password is not accepted");
    };
    assert_eq!(problems[0].path, "actions[0].with.mode");
    assert!(problems[0].problem.contains("Secret"), "{problems:?}");
    assert!(!format!("{problems:?}").contains("correct"), "{problems:?}");
    // Good when it was assigned, not any more when the machine asks.
    let secret = |value: &str| {
        format!(
            "apiVersion: dragonfly.computer/v1\nkind: Secret\nmetadata: {{ name: root }}\nspec: {{ data: {{ password: '{value}' }} }}\n"
        )
    };
    site.engine.apply(&secret("0644"), "me").await.unwrap();
    let run = site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    site.engine.apply(&secret("correct-horse"), "me").await.unwrap();
    assert!(matches!(agent.orders().await, Orders::Wait { .. }));
    let status = site.run(run.name()).status.clone();
    assert_eq!(status.state, RunState::Failed);
    assert!(
        status.message.contains("actions[0].with.mode") || format!("{status:?}").contains("with.mode"),
        "{status:?}"
    );
    site.says_nowhere("correct-horse").await;
}

#[tokio::test]
async fn a_token_opens_one_session_for_ten_minutes_from_its_network() {
    let site = Site::new().await;
    let outside =
        BootRequest { from: Some("192.0.2.1".parse().unwrap()), to: Some(server()), ..BootRequest::from_mac(mac(1)) };
    assert!(site.engine.identity(&outside).await.unwrap().is_none(), "no provisioning network");
    let token = site.token(1).await.unwrap();
    let from = |a: &str| a.parse::<IpAddr>().unwrap();
    let engine = &site.engine;
    let hear = |token: String, h: Hello, a: IpAddr| async move { engine.hello(&token, h, a).await };
    assert!(matches!(hear(token.clone(), hello(1), from("192.0.2.1")).await, Err(EngineError::Unproven { .. })));
    assert!(matches!(hear(token.clone(), hello(2), address(1)).await, Err(EngineError::Unproven { .. })));
    assert!(matches!(hear(format!("{token}x"), hello(1), address(1)).await, Err(EngineError::Unproven { .. })));
    assert!(matches!(
        hear(token.clone(), Hello { protocol: Versions { min: 9, max: 9 }, ..hello(1) }, address(1)).await,
        Err(EngineError::Protocol { .. })
    ));
    hear(token.clone(), hello(1), address(1)).await.unwrap();
    site.clock.advance(Duration::from_secs(60));
    assert!(matches!(hear(token.clone(), hello(1), address(1)).await, Err(EngineError::Forbidden { .. })), "used");
    let old = site.token(2).await.unwrap();
    site.clock.advance(Duration::from_secs(601));
    assert!(matches!(hear(old, hello(2), address(2)).await, Err(EngineError::Unproven { .. })), "too old");
}

#[tokio::test]
async fn a_used_token_stays_used_after_a_restart() {
    let site = Site::new().await;
    let token = site.token(1).await.unwrap();
    site.engine.hello(&token, hello(1), address(1)).await.unwrap();
    let site = site.restarted().await;
    // By then its first agent counts as silent.
    site.clock.advance(Duration::from_secs(40));
    assert!(matches!(site.engine.hello(&token, hello(1), address(1)).await, Err(EngineError::Forbidden { .. })));
}

#[tokio::test]
async fn a_second_agent_is_refused_while_the_first_is_heard() {
    let site = Site::new().await;
    let first = site.boot(1).await;
    first.orders().await;
    site.clock.advance(Duration::from_secs(5));
    let token = site.token(1).await.unwrap();
    assert!(matches!(site.engine.hello(&token, hello(1), address(1)).await, Err(EngineError::Busy { .. })));
    site.clock.advance(Duration::from_secs(31));
    let token = site.token(1).await.unwrap();
    site.engine.hello(&token, hello(1), address(1)).await.unwrap();
}

/// The faults that `why` names.
fn named(site: &Site, n: u8) -> Vec<Fault> {
    site.engine.why(&mac(n).to_string()).unwrap().causes.iter().map(|cause| cause.fault).collect()
}

#[tokio::test]
async fn why_names_who_asks_from_outside_and_who_asks_too() {
    let site = Site::new().await;
    let from: IpAddr = "192.0.2.1".parse().unwrap();
    let outside = BootRequest { from: Some(from), to: Some(server()), ..BootRequest::from_mac(mac(1)) };
    assert!(site.engine.identity(&outside).await.unwrap().is_none());
    assert!(site.engine.hello("none", hello(1), from).await.is_err());
    assert_eq!(named(&site, 1), [Fault::OutsideNetworks]);
    let why = site.engine.why(&mac(1).to_string()).unwrap();
    assert!(why.causes[0].says.contains("192.0.2.1") && why.causes[0].says.contains("rack 10.0.0.0/24"), "{why:#?}");
    // It has come into the network.
    let agent = site.boot(1).await;
    assert_eq!(named(&site, 1), []);
    for _ in 0..3 {
        site.clock.advance(Duration::from_secs(5));
        let token = site.token(1).await.unwrap();
        assert!(site.engine.hello(&token, hello(1), address(7)).await.is_err());
        assert_eq!(named(&site, 1), [], "it may have been restarted");
    }
    site.clock.advance(Duration::from_secs(5));
    agent.orders().await;
    assert_eq!(named(&site, 1), [Fault::SecondAgent]);
    let why = site.engine.why(&mac(1).to_string()).unwrap();
    assert!(why.causes[0].says.contains("from 10.0.0.7 "), "{why:#?}");
}

#[tokio::test]
async fn a_session_survives_a_restart_of_the_server() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let work = agent.work().await;
    agent.say(&work, ReportKind::Began).await;
    agent.step(&work, 0, StepEvent::Began).await;
    let (key, welcome) = (agent.key.clone(), agent.welcome.clone());
    let site = site.restarted().await;
    let agent = Agent { site: &site, key, welcome };
    let progress = Some(Progress { done: 1, total: Some(2), unit: Unit::Bytes });
    let going_on = ReportKind::Step { index: 0, event: StepEvent::Progressed, progress, failure: None };
    assert_eq!(agent.say(&work, going_on).await, Heard::GoOn);
    for (index, event) in [(0, StepEvent::Succeeded), (1, StepEvent::Succeeded), (2, StepEvent::Succeeded)] {
        assert_eq!(agent.step(&work, index, event).await, Heard::GoOn);
    }
    assert_eq!(agent.say(&work, ReportKind::HandOver).await, Heard::GoOn);
    assert_eq!(site.phase(1), Some(Phase::Ready));
}

#[tokio::test]
async fn a_long_run_outlives_a_restart_of_the_server() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let work = agent.work().await;
    agent.say(&work, ReportKind::Began).await;
    agent.step(&work, 0, StepEvent::Began).await;
    // An image that takes an hour: its agent is heard all the time, and nothing of that is written down.
    for _ in 0..12 {
        site.clock.advance(Duration::from_secs(300));
        assert_eq!(agent.step(&work, 0, StepEvent::Progressed).await, Heard::GoOn);
        site.engine.sweep().await.unwrap();
    }
    let (key, welcome) = (agent.key.clone(), agent.welcome.clone());
    let site = site.restarted().await;
    site.engine.sweep().await.unwrap();
    assert_eq!(site.run(&work.workflow).status.state, RunState::Running);
    let agent = Agent { site: &site, key, welcome };
    assert_eq!(agent.step(&work, 0, StepEvent::Progressed).await, Heard::GoOn);
    // One that is silent from then on is missed as ever.
    site.clock.advance(Duration::from_secs(3600));
    site.engine.sweep().await.unwrap();
    assert_eq!(site.run(&work.workflow).status.state, RunState::Failed);
}

#[tokio::test]
async fn a_failure_is_tried_again_but_not_the_same_one_twice() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    let run = site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let first = agent.work().await;
    agent.say(&first, ReportKind::Began).await;
    agent.step(&first, 0, StepEvent::Succeeded).await;
    agent.step(&first, 1, StepEvent::Failed).await;
    assert_eq!(site.phase(1), Some(Phase::Assigned), "it tries again by itself");
    let why = site.engine.why(&agent.welcome.machine).unwrap();
    assert!(why.next[0].contains("by itself"), "{:?}", why.next);
    assert_eq!(why.waits.map(|waits| waits.owner), Some(Owner::Agent));
    assert!(matches!(agent.step(&first, 1, StepEvent::Succeeded).await, Heard::Stop { .. }), "a late report");
    let second = agent.work().await;
    assert_eq!(second.attempt, 2);
    assert!(second.steps[0].done_before && !second.steps[1].done_before);
    agent.say(&second, ReportKind::Began).await;
    agent.step(&second, 0, StepEvent::Skipped).await;
    agent.step(&second, 1, StepEvent::Failed).await;
    assert_eq!(site.phase(1), Some(Phase::Error), "the same cause twice");
    assert_eq!(site.fate(1), "discover");
    assert_eq!(site.run(run.name()).status.failures.len(), 2);
    assert!(matches!(agent.orders().await, Orders::Wait { .. }));

    site.engine.retry(&agent.welcome.machine, "me").await.unwrap();
    let third = agent.work().await;
    assert_eq!(third.attempt, 3);
    agent.say(&third, ReportKind::Began).await;
    for (index, event) in [(0, StepEvent::Skipped), (1, StepEvent::Succeeded), (2, StepEvent::Succeeded)] {
        agent.step(&third, index, event).await;
    }
    assert_eq!(agent.say(&third, ReportKind::HandOver).await, Heard::GoOn);
    assert_eq!(site.phase(1), Some(Phase::Ready));
}

#[tokio::test]
async fn a_machine_that_keeps_falling_over_is_not_imaged_for_ever() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    let run = site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    let mut attempts = 0;
    for _ in 0..10 {
        if site.fate(1) != "image" {
            break;
        }
        let agent = site.boot(1).await;
        let Orders::Execute(work) = agent.orders().await else { break };
        attempts += 1;
        assert_eq!(work.attempt, attempts);
        agent.say(&work, ReportKind::Began).await;
        agent.step(&work, 0, StepEvent::Began).await;
        // ... and the power goes.
    }
    assert_eq!(attempts, 3);
    assert_eq!(site.phase(1), Some(Phase::Held));
    assert_eq!(site.fate(1), "hold", "nothing is written to it any more, and it boots its own disk");
    assert_eq!(site.token(1).await, None);
    let held = site.run(run.name());
    assert_eq!(held.status.state, RunState::Held);
    assert!(held.status.message.contains("restarted in the middle"), "{}", held.status.message);
    let why = site.engine.why(&mac(1).to_string()).unwrap();
    assert!(why.message.contains("restarted in the middle"), "{}", why.message);
    assert_eq!(why.causes[0].fault, Fault::RestartLoop);
    // It stays held through a restart of the server and any number of passes, until somebody releases it.
    let site = site.restarted().await;
    site.clock.advance(Duration::from_secs(7200));
    site.engine.sweep().await.unwrap();
    assert_eq!((site.phase(1), site.run(run.name()).status.state), (Some(Phase::Held), RunState::Held));
    site.release(&mac(1).to_string(), "me").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert_eq!((site.phase(1), site.run(run.name()).status.state), (Some(Phase::Registered), RunState::Aborted));
}

#[tokio::test]
async fn a_timeline_holds_no_secret_that_an_agent_wrote_to_its_log() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    agent.work().await;
    site.engine.log(&agent.key, 0, "the password is correct-horse\n".into()).await.unwrap();
    let told = site.engine.timeline(&agent.welcome.machine, 0).unwrap().items;
    let line = told.iter().find(|line| line.kind == "agent.log").unwrap();
    assert!(line.message.contains("the password is") && !line.message.contains("correct-horse"), "{}", line.message);
}

#[tokio::test]
async fn whoever_is_waited_for_too_long_is_named() {
    let site = Site::new().await;
    site.boot(1).await;
    let name = mac(1).to_string();
    let overdue = |site: &Site| {
        let why = site.engine.why(&name).unwrap();
        why.conditions.iter().find(|c| c.kind == "Overdue").map(|c| (c.status, c.message.clone()))
    };
    site.engine.sweep().await.unwrap();
    assert_eq!(overdue(&site), None);
    let waits = site.engine.why(&name).unwrap().waits.unwrap();
    assert_eq!(waits.owner, Owner::Operator);
    site.clock.advance(Duration::from_secs(8 * 24 * 3600));
    site.engine.sweep().await.unwrap();
    let (status, words) = overdue(&site).unwrap();
    assert!(status == ConditionStatus::True && words.contains("assign"), "{words}");
    let told = site.engine.timeline(&name, 0).unwrap().items;
    assert_eq!(told.iter().filter(|line| line.kind == "machine.overdue").count(), 1);
    site.engine.sweep().await.unwrap();
    assert_eq!(site.engine.timeline(&name, 0).unwrap().items.len(), told.len(), "told once");
    site.engine.assign(&name, assign(), "me").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert_eq!(overdue(&site).map(|(status, _)| status), Some(ConditionStatus::False));
}

#[tokio::test]
async fn a_hold_that_nobody_settles_is_told() {
    let site = Site::new().await;
    site.boot(1).await;
    let name = mac(1).to_string();
    let is = |kind: &str| {
        let why = site.engine.why(&name).unwrap();
        why.conditions.iter().find(|c| c.kind == kind).map(|c| (c.status, c.message.clone()))
    };
    let said = |kind: &str| is(kind).map(|(status, _)| status);
    let day = Duration::from_secs(24 * 3600);
    site.engine.hold(&name, "fan", "me").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert_eq!((is("OnHold"), said("Overdue")), (Some((ConditionStatus::True, "fan".to_owned())), None));
    site.clock.advance(6 * day);
    // Another word is the same hold.
    site.engine.hold(&name, "fan and disk", "me").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert_eq!((is("OnHold").unwrap().1.as_str(), said("Overdue")), ("fan and disk", None));
    site.clock.advance(day + day);
    site.engine.sweep().await.unwrap();
    let (status, words) = is("Overdue").unwrap();
    assert!(status == ConditionStatus::True && words.contains("release it"), "{words}");
    assert!(site.engine.why(&name).unwrap().waits.unwrap().until.is_some());
    site.release(&name, "me").await.unwrap();
    site.engine.sweep().await.unwrap();
    assert_eq!(said("OnHold"), Some(ConditionStatus::False));
    // It waits for an assignment again, and has done so for eight days.
    let waits = site.engine.why(&name).unwrap().waits.unwrap();
    assert!(said("Overdue") == Some(ConditionStatus::True) && waits.cause.contains("assign"), "{waits:?}");
}

/// After a long night without a server every machine of a datacenter has something to be told, and those that boot
/// are not to wait for that.
#[tokio::test]
async fn a_crowd_of_overdue_machines_is_told_in_several_passes() {
    let site = Site::new().await;
    for n in 0..2500 {
        let name = format!("m{n}");
        site.store.create(&Hardware::new(&*name, HardwareSpec::default())).await.unwrap();
        let since = Some(site.engine.now());
        let registered = |machine: &mut Hardware| {
            (machine.status.phase, machine.status.phase_since) = (Some(Phase::Registered), since);
            Ok::<(), StoreError>(())
        };
        site.store.update_status(&name, registered).await.unwrap();
    }
    let site = site.restarted().await;
    site.clock.advance(Duration::from_secs(8 * 24 * 3600));
    let overdue = || {
        let machines = site.engine.machines();
        let told = |m: &&Arc<Hardware>| m.status.conditions.iter().any(|c| c.kind == "Overdue");
        machines.iter().filter(told).count()
    };
    let mut seen = vec![];
    for _ in 0..3 {
        site.engine.sweep().await.unwrap();
        seen.push(overdue());
    }
    assert_eq!(seen, [2000, 2500, 2500]);
}

#[tokio::test]
async fn a_machine_with_a_system_of_its_own_is_left_alone() {
    let site = Site::new().await;
    let os = ExistingOs { name: "Debian 12".into(), disk: "sda".into(), evidence: "os-release".into() };
    let token = site.token(1).await.unwrap();
    let welcome = site.engine.hello(&token, Hello { existing_os: Some(os), ..hello(1) }, address(1)).await.unwrap();
    let agent = Agent { site: &site, key: welcome.session.reveal().to_owned(), welcome };
    assert!(matches!(agent.orders().await, Orders::BootLocal { .. }));
    assert_eq!(site.fate(1), "local");
    let refused = site.engine.assign(&agent.welcome.machine, assign(), "me").await;
    assert!(matches!(refused, Err(EngineError::WouldDestroy { .. })), "{refused:?}");
    let knowing = AssignRequest { overwrite: Overwrite::All, ..assign() };
    site.engine.assign(&agent.welcome.machine, knowing, "me").await.unwrap();
    assert_eq!(site.fate(1), "image");
}

#[tokio::test]
async fn only_assign_authorises() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    let text = format!(
        "apiVersion: dragonfly.computer/v1\nkind: Workflow\nmetadata: {{ name: forged }}\nspec:\n  hardware: {}\n  template: debian\n  content: {{ actions: [{{ name: a, action: reboot }}] }}\nstatus: {{ state: Running }}\n",
        agent.welcome.machine
    );
    site.engine.apply(&text, "somebody").await.unwrap();
    assert_eq!(site.fate(1), "discover");
    assert!(matches!(agent.orders().await, Orders::Wait { .. }));
    // A report for it changes nothing either.
    let work = Work {
        workflow: "forged".into(),
        attempt: 1,
        permit: Default::default(),
        steps: Vec::new(),
        secrets: Vec::new(),
    };
    assert!(matches!(agent.say(&work, ReportKind::Began).await, Heard::Stop { .. }));
    site.clock.advance(Duration::from_secs(90));
    site.engine.sweep().await.unwrap();
    assert_eq!(site.run("forged").status.state, RunState::Aborted);
}

#[tokio::test]
async fn protect_abort_hold_release_delete() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    let name = agent.welcome.machine.clone();
    site.engine.protect(&name, true, "me").await.unwrap();
    assert!(matches!(site.engine.assign(&name, assign(), "me").await, Err(EngineError::Protected { .. })));
    assert!(matches!(site.engine.delete(Kind::HARDWARE, &name, "me").await, Err(EngineError::Protected { .. })));
    site.engine.protect(&name, false, "me").await.unwrap();
    let run = site.engine.assign(&name, assign(), "me").await.unwrap();
    assert!(matches!(site.engine.assign(&name, assign(), "me").await, Err(EngineError::Illegal { .. })));
    assert!(matches!(site.engine.delete(Kind::HARDWARE, &name, "me").await, Err(EngineError::Illegal { .. })));
    assert!(matches!(site.engine.delete(Kind::WORKFLOW, run.name(), "me").await, Err(EngineError::Illegal { .. })));
    let work = agent.work().await;
    agent.say(&work, ReportKind::Began).await;
    site.engine.abort(&name, "me").await.unwrap();
    assert!(matches!(agent.step(&work, 0, StepEvent::Succeeded).await, Heard::Stop { .. }));
    assert_eq!(site.fate(1), "discover");
    assert_eq!(site.run(run.name()).status.state, RunState::Aborted);
    site.engine.hold(&name, "bad fan", "me").await.unwrap();
    assert_eq!(site.fate(1), "hold");
    assert!(matches!(site.engine.assign(&name, assign(), "me").await, Err(EngineError::Illegal { .. })));
    site.release(&name, "me").await.unwrap();
    site.engine.delete(Kind::HARDWARE, &name, "me").await.unwrap();
    assert!(matches!(site.engine.work(&agent.key, Ask::default()).await, Err(EngineError::Unauthenticated { .. })));
    assert_eq!(site.fate(1), "discover");
}

#[tokio::test]
async fn a_card_in_another_chassis_is_held_not_merged() {
    let site = Site::new().await;
    let mut a = hello(1);
    a.anchors.smbios_uuid = Some(uuid::Uuid::from_u128(0xa1a2_a3a4));
    let token = site.token(1).await.unwrap();
    site.engine.hello(&token, a, address(1)).await.unwrap();
    site.clock.advance(Duration::from_secs(60));
    let mut b = hello(1);
    b.anchors.serial = Some("SN-OTHER".into());
    b.anchors.smbios_uuid = Some(uuid::Uuid::from_u128(0xb1b2_b3b4));
    let token = site.token(1).await.unwrap();
    assert!(matches!(site.engine.hello(&token, b.clone(), address(1)).await, Err(EngineError::Busy { .. })));
    assert_eq!(site.fate(1), "hold");
    assert_eq!(site.engine.machines().len(), 1);
    let why = site.engine.why("censusablequalityparent").unwrap();
    let waits = why.waits.unwrap();
    assert_eq!(waits.owner, Owner::Operator);
    assert!(waits.cause.contains("SN-OTHER") || waits.cause.contains("UUID"), "{}", waits.cause);
    let (next, question) = (&why.next[0], why.question.unwrap());
    let answer = format!("dragonfly release censusablequalityparent --question {question}, if it is who");
    assert!(next.starts_with(&answer), "{next}");
    assert!(next.contains(&mac(1).to_string()) && next.contains("SN-OTHER"), "{next}");
    site.release("censusablequalityparent", "me").await.unwrap();
    let token = site.token(1).await.unwrap();
    site.engine.hello(&token, b, address(1)).await.unwrap();
}

#[tokio::test]
async fn a_template_is_judged_where_it_is_written_and_where_it_is_assigned() {
    let site = Site::new().await;
    let bad = SETUP.replace("action: writefile", "action: writefiel");
    let error = site.engine.apply(&bad, "me").await.unwrap_err().to_string();
    assert!(error.contains("line 21") && error.contains("writefiel"), "{error}");
    let missing = SETUP.replace("values.role", "values.rolle");
    site.engine.apply(&missing, "me").await.unwrap();
    let agent = site.boot(1).await;
    let error = site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap_err();
    assert!(matches!(&error, EngineError::Invalid(p) if p[0].path == "actions[1].with.content"), "{error:?}");
    assert_eq!(site.phase(1), Some(Phase::Registered), "nothing was begun");
}

#[tokio::test]
async fn an_expired_authorisation_authorises_nothing() {
    let site = Site::new().await;
    let agent = site.boot(1).await;
    site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
    site.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(site.fate(1), "hold");
    site.engine.sweep().await.unwrap();
    assert_eq!(site.phase(1), Some(Phase::Error));
    assert!(matches!(site.engine.retry(&agent.welcome.machine, "me").await, Err(EngineError::Illegal { .. })));
}

#[tokio::test]
async fn an_installed_system_phones_home_or_is_missed() {
    let site = Site::new().await;
    site.engine.apply(&SETUP.replace("values.role", "phoneHome"), "me").await.unwrap();
    let mut agents = Vec::new();
    for n in [1, 2] {
        let agent = site.boot(n).await;
        site.engine.assign(&agent.welcome.machine, assign(), "me").await.unwrap();
        let work = agent.work().await;
        agent.finish(&work).await;
        let text = work.steps[1].with["content"].as_str().unwrap().to_owned();
        let url = text.split(' ').nth(1).unwrap().to_owned();
        assert!(url.starts_with("http://10.0.0.1:3000/boot/phone-home/"), "{url}");
        agents.push((agent.welcome.machine.clone(), url.rsplit('/').next().unwrap().to_owned()));
    }
    let booted = |name: &str| {
        let all = site.engine.machines();
        let machine = all.iter().find(|m| m.name() == name).unwrap();
        dragonfly_core::resource::condition(&machine.status.conditions, "Booted").unwrap().status
    };
    use dragonfly_core::resource::ConditionStatus as C;
    assert_eq!(booted(&agents[0].0), C::Unknown);
    assert!(site.engine.phone_home(&format!("{}x", agents[0].1)).await.is_err());
    site.engine.phone_home(&agents[0].1).await.unwrap();
    site.clock.advance(Duration::from_secs(31 * 60));
    site.engine.sweep().await.unwrap();
    assert_eq!((booted(&agents[0].0), booted(&agents[1].0)), (C::True, C::False));
    site.engine.phone_home(&agents[1].1).await.unwrap();
    assert_eq!(booted(&agents[1].0), C::True, "late is not never");
}
