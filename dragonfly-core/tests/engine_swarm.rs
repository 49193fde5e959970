//! Two engines on one store. Where a test does not run them, each knows of the other's writes only what it reads
//! when it must: the worst cache that there is.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dragonfly_core::Mac;
use dragonfly_core::action::{Problem, TemplateChecker};
use dragonfly_core::boot::{BootProvider as _, BootRequest};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::coordinate::{Coordinator, DHCP, Leases, POWER, SWEEP, Timing};
use dragonfly_core::engine::{AssignRequest, Engine, EngineError, ReimageRequest, Settings};
use dragonfly_core::inventory::Inventory;
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::hardware::{Anchors, Overwrite};
use dragonfly_core::resource::network::DhcpMode;
use dragonfly_core::resource::{HardwareSpec, Kind, NetworkSpec, REGION_LABEL, TemplateSpec, WorkflowSpec};
use dragonfly_core::secret::SealingKey;
use dragonfly_core::store::{MemoryStore, Selector, Store, StoreExt as _};
use dragonfly_core::testing::{GivenLeadership, ManualClock, MemoryLeases};
use dragonfly_core::wire::{Ask, Heard, Hello, Orders, Report, ReportKind, Versions, Welcome, Work};
use dragonfly_core::workflow::{RunState, StepEvent};
use tokio_util::sync::CancellationToken;

/// How long something may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Anything;

impl TemplateChecker for Anything {
    fn check(&self, _: &TemplateSpec) -> Vec<Problem> {
        Vec::new()
    }
}

const SETUP: &str = "
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
    - { name: image, action: image2disk, with: { url: 'http://10.0.0.1/debian.raw', sha256: aa } }
    - { name: leave, action: reboot }
";

const SECRET: &str = "
apiVersion: dragonfly.computer/v1
kind: Secret
metadata: { name: root }
spec: { data: { password: correct-horse } }
---
apiVersion: dragonfly.computer/v1
kind: Template
metadata: { name: debian }
spec:
  values: { password: { valueFrom: { secretRef: { name: root, key: password } } } }
  actions:
    - { name: image, action: image2disk, with: { url: 'http://10.0.0.1/debian-2.raw', sha256: aa } }
    - { name: password, action: writefile, with: { content: '{{ values.password }}' } }
    - { name: leave, action: reboot }
";

struct Site {
    store: Arc<MemoryStore>,
    key: SealingKey,
    clock: ManualClock,
}

fn mac(n: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0xab, 0xcd, n])
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

impl Site {
    async fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_unix_seconds(1_800_000_000));
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let site = Self { store, key: SealingKey::generate().unwrap(), clock };
        site.engine("setup").await.0.apply(SETUP, "test").await.unwrap();
        site
    }

    async fn engine(&self, name: &str) -> (Engine, GivenLeadership) {
        let leads = GivenLeadership::new(name);
        (self.with(Arc::new(leads.clone()), None).await, leads)
    }

    async fn with(&self, coordinator: Arc<dyn Coordinator>, region: Option<&str>) -> Engine {
        let region = region.map(str::to_owned);
        let settings = Settings { server_pin: "ab".repeat(32), region, ..Settings::default() };
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        let builder = Engine::builder(store, self.key.clone(), Arc::new(Anything)).settings(settings);
        builder.clock(Arc::new(self.clock.clone())).coordinator(coordinator).build().await.unwrap()
    }

    async fn machines(&self) -> Vec<dragonfly_core::resource::Hardware> {
        self.store.all::<HardwareSpec>(&Selector::all()).await.unwrap()
    }

    async fn machine(&self) -> dragonfly_core::resource::Hardware {
        let [one] = &self.machines().await[..] else { panic!("there is one machine") };
        one.clone()
    }

    async fn run(&self) -> dragonfly_core::resource::Workflow {
        let name = self.machine().await.status.workflow.unwrap();
        self.store.fetch::<WorkflowSpec>(&name).await.unwrap()
    }
}

async fn token(engine: &Engine, n: u8) -> String {
    let to = Some("10.0.0.1:3000".parse().unwrap());
    let request = BootRequest { from: Some(address(n)), to, ..BootRequest::from_mac(mac(n)) };
    engine.identity(&request).await.unwrap().expect("it is to boot the agent").token.reveal().to_owned()
}

fn said(n: u8, boot: u128) -> Hello {
    Hello {
        protocol: Versions::OURS,
        agent: "test".to_owned(),
        boot_id: uuid::Uuid::from_u128(boot),
        mac: mac(n),
        anchors: Anchors { macs: vec![mac(n)], serial: Some(format!("SN-000{n}X")), ..Anchors::default() },
        inventory: Inventory::default(),
        existing_os: None,
        uptime_seconds: None,
        clock_offset_seconds: None,
    }
}

async fn hello(engine: &Engine, n: u8, boot: u128) -> Result<Welcome, EngineError> {
    let token = token(engine, n).await;
    engine.hello(&token, said(n, boot), address(n)).await
}

async fn work(engine: &Engine, session: &str, wait_seconds: u32) -> Option<Work> {
    match engine.work(session, Ask { wait_seconds }).await.unwrap() {
        Orders::Execute(work) => Some(*work),
        _ => None,
    }
}

fn report(work: &Work, what: ReportKind) -> Report {
    let (workflow, attempt, generation) = (work.workflow.clone(), work.attempt, work.permit.generation);
    Report { workflow, attempt, generation, what }
}

fn step(index: usize, event: StepEvent) -> ReportKind {
    ReportKind::Step { index, event, progress: None, failure: None }
}

fn request() -> AssignRequest {
    AssignRequest { template: "debian".to_owned(), ..AssignRequest::default() }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waits = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

fn kinds(engine: &Engine, machine: &str) -> Vec<String> {
    engine.events().about(machine, 100).iter().map(|event| event.kind.clone()).collect()
}

#[tokio::test]
async fn one_machine_comes_of_a_card_that_registers_at_two_at_once() {
    let site = Site::new().await;
    let ((a, _), (b, _)) = (site.engine("a").await, site.engine("b").await);
    let (at_a, at_b) = (token(&a, 1).await, token(&b, 1).await);
    // The same boot at both, and then another boot at the one that knows of neither.
    let (first, second) = tokio::join!(a.hello(&at_a, said(1, 7), address(1)), b.hello(&at_b, said(1, 7), address(1)));
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    assert_eq!(site.machines().await.len(), 1);
}

#[tokio::test]
async fn a_second_agent_is_refused_while_another_instance_hears_the_first() {
    let site = Site::new().await;
    let ((a, _), (b, _)) = (site.engine("a").await, site.engine("b").await);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (a, stop) = (a.clone(), stop.clone());
        async move { a.run(stop).await }
    });
    let first = hello(&a, 1, 1).await.unwrap();
    let name = first.machine.clone();
    let busy = |answer: Result<Welcome, EngineError>| matches!(answer, Err(EngineError::Busy { .. }));
    site.clock.advance(Duration::from_secs(5));
    assert!(busy(hello(&b, 1, 2).await), "it was heard a moment ago");
    // A learns that somebody asks, and its agent's next word answers.
    let doubted =
        async || a.cache().get::<HardwareSpec>(&name).unwrap().status.session.clone().unwrap().doubt.is_some();
    until("A hears of the doubt", doubted).await;
    for _ in 0..20 {
        site.clock.advance(Duration::from_secs(20));
        work(&a, first.session.reveal(), 0).await;
        assert!(busy(hello(&b, 1, 2).await), "it lives");
        until("A hears of the doubt again", doubted).await;
    }
    // It falls silent.
    site.clock.advance(Duration::from_secs(44));
    assert!(busy(hello(&b, 1, 2).await), "for too short a time");
    site.clock.advance(Duration::from_secs(2));
    let second = hello(&b, 1, 2).await.unwrap();
    assert_eq!(second.machine, name);
    let told = work_error(&a, first.session.reveal()).await;
    assert!(matches!(told, EngineError::Unauthenticated { .. }), "{told:?}");
    stop.cancel();
    running.await.unwrap();
}

async fn work_error(engine: &Engine, session: &str) -> EngineError {
    // What it knows of the machine may be a moment old: the store is asked before an agent begins.
    let mut error = None;
    until("the first agent is told", async || {
        error = engine.work(session, Ask { wait_seconds: 0 }).await.err();
        error.is_some()
    })
    .await;
    error.unwrap()
}

#[tokio::test]
async fn who_hands_over_or_is_cycled_leaves_at_once_for_all() {
    let site = Site::new().await;
    let ((a, _), (b, _)) = (site.engine("a").await, site.engine("b").await);
    let first = hello(&a, 1, 1).await.unwrap();
    a.assign(&first.machine, request(), "test").await.unwrap();
    let session = first.session.reveal().to_owned();
    let mine = work(&b, &session, 0).await.expect("B carries on what A began");
    assert_eq!(b.report(&session, report(&mine, ReportKind::Began)).await.unwrap(), Heard::GoOn);
    for index in 0..mine.steps.len() {
        let engine = if index == 0 { &a } else { &b };
        for event in [StepEvent::Began, StepEvent::Succeeded] {
            assert_eq!(engine.report(&session, report(&mine, step(index, event))).await.unwrap(), Heard::GoOn);
        }
    }
    assert_eq!(a.report(&session, report(&mine, ReportKind::HandOver)).await.unwrap(), Heard::GoOn);
    assert_eq!(b.report(&session, report(&mine, ReportKind::HandOver)).await.unwrap(), Heard::GoOn, "said again");
    assert_eq!(site.machine().await.status.phase, Some(Phase::Ready));
    assert_eq!(site.run().await.status.state, RunState::Succeeded);
    // B's cache is behind: what is asked for is judged as it is.
    let refused = b.assign(&first.machine, request(), "test").await.unwrap_err();
    assert!(refused.to_string().contains("reimage"), "{refused}");
    let again = ReimageRequest { template: Some("debian".to_owned()), ..ReimageRequest::default() };
    a.reimage(&first.machine, again, "test").await.unwrap();
    // A token as old as the one that was used opens nothing.
    site.clock.advance(Duration::from_secs(1));
    let next = hello(&a, 1, 2).await;
    assert!(next.is_ok(), "its agent had left: {next:?}");
}

#[tokio::test]
async fn nothing_begins_that_was_called_off_protected_or_overtaken_elsewhere() {
    let site = Site::new().await;
    let ((a, _), (b, _)) = (site.engine("a").await, site.engine("b").await);
    let agent = hello(&a, 1, 1).await.unwrap();
    let (name, session) = (agent.machine.clone(), agent.session.reveal().to_owned());
    let begins = async |work: &Work| b.report(&session, report(work, ReportKind::Began)).await.unwrap();

    a.assign(&name, request(), "test").await.unwrap();
    let first = work(&b, &session, 0).await.unwrap();
    a.abort(&name, "test").await.unwrap();
    assert!(matches!(begins(&first).await, Heard::Stop { .. }), "it was called off at A");

    a.assign(&name, request(), "test").await.unwrap();
    // As its watch would tell it.
    b.cache().load(&*site.store).await.unwrap();
    let second = work(&b, &session, 0).await.unwrap();
    assert!(second.permit.generation > first.permit.generation);
    assert!(matches!(begins(&first).await, Heard::Stop { .. }), "another is authorised");
    a.protect(&name, true, "test").await.unwrap();
    assert!(matches!(begins(&second).await, Heard::Stop { .. }), "it is protected");
    a.protect(&name, false, "test").await.unwrap();
    a.hold(&name, "wait", "test").await.unwrap();
    assert!(matches!(begins(&second).await, Heard::Stop { .. }), "it is held");
    a.release(&name, "test").await.unwrap();
    assert_eq!(begins(&second).await, Heard::GoOn);
    // Said again, to the other one: nothing begins twice.
    assert_eq!(a.report(&session, report(&second, ReportKind::Began)).await.unwrap(), Heard::GoOn);
    assert_eq!((site.run().await.status.attempt, site.run().await.status.failures.len()), (1, 0));
}

#[tokio::test]
async fn numbers_grow_whoever_authorises() {
    let site = Site::new().await;
    let ((a, _), (b, _)) = (site.engine("a").await, site.engine("b").await);
    let agent = hello(&a, 1, 1).await.unwrap();
    b.cache().load(&*site.store).await.unwrap();
    let mut last = 0;
    for n in 0..6 {
        // B never hears of A's.
        let engine = if n % 2 == 0 { &a } else { &b };
        let run = engine.assign(&agent.machine, request(), "test").await.unwrap();
        let number = run.status.authorisation_generation;
        assert!(number > last, "{number} after {last}");
        last = number;
        let other = if n % 2 == 0 { &b } else { &a };
        assert!(other.assign(&agent.machine, request(), "test").await.is_err(), "one is under way");
        other.abort(&agent.machine, "test").await.unwrap();
    }
    let (one, two) =
        tokio::join!(a.assign(&agent.machine, request(), "test"), b.assign(&agent.machine, request(), "test"),);
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1, "{one:?} {two:?}");
}

#[tokio::test]
async fn what_was_written_elsewhere_a_moment_ago_is_what_is_installed() {
    let site = Site::new().await;
    let ((a, _), (b, _)) = (site.engine("a").await, site.engine("b").await);
    let agent = hello(&b, 1, 1).await.unwrap();
    a.apply(SECRET, "test").await.unwrap();
    let request = AssignRequest { overwrite: Overwrite::All, ..request() };
    b.assign(&agent.machine, request, "test").await.unwrap();
    // A third one knows of the machine and of nothing else.
    let work = work(&b, agent.session.reveal(), 0).await.expect("the Secret is not missing");
    assert_eq!(work.steps[0].with["url"], "http://10.0.0.1/debian-2.raw");
    assert_eq!(work.steps[1].with["content"], "correct-horse");
}

#[tokio::test]
async fn an_agent_that_another_instance_hears_is_not_silent() {
    let site = Site::new().await;
    let ((a, leads), (b, _)) = (site.engine("a").await, site.engine("b").await);
    leads.give(SWEEP, 1);
    let agent = hello(&b, 1, 1).await.unwrap();
    let session = agent.session.reveal().to_owned();
    b.assign(&agent.machine, request(), "test").await.unwrap();
    let mine = work(&b, &session, 0).await.unwrap();
    b.report(&session, report(&mine, ReportKind::Began)).await.unwrap();
    let sweep = async || {
        a.cache().load(&*site.store).await.unwrap();
        a.sweep().await.unwrap();
        site.run().await.status.state
    };
    for minute in 0..40 {
        site.clock.advance(Duration::from_secs(60));
        let progress = step(0, if minute == 0 { StepEvent::Began } else { StepEvent::Progressed });
        assert_eq!(b.report(&session, report(&mine, progress)).await.unwrap(), Heard::GoOn);
        assert_eq!(sweep().await, RunState::Running, "minute {minute}");
    }
    let writes = site.machine().await.metadata.resource_version;
    b.report(&session, report(&mine, step(0, StepEvent::Progressed))).await.unwrap();
    assert_eq!(site.machine().await.metadata.resource_version, writes, "not every word is written");
    // It dies.
    for _ in 0..14 {
        site.clock.advance(Duration::from_secs(60));
        assert_eq!(sweep().await, RunState::Running);
    }
    for _ in 0..8 {
        site.clock.advance(Duration::from_secs(60));
        sweep().await;
    }
    assert_eq!(sweep().await, RunState::Failed);
    // Who does not lead fails nobody.
    leads.take(SWEEP);
}

#[tokio::test]
async fn what_happens_at_one_is_told_at_the_other_once() {
    let site = Site::new().await;
    let ((a, _), (b, _)) = (site.engine("a").await, site.engine("b").await);
    let stop = CancellationToken::new();
    let mut running = Vec::new();
    for engine in [&a, &b] {
        let (engine, stop) = (engine.clone(), stop.clone());
        running.push(tokio::spawn(async move { engine.run(stop).await }));
    }
    let agent = hello(&a, 1, 1).await.unwrap();
    let (name, session) = (agent.machine.clone(), agent.session.reveal().to_owned());
    until("B knows it", async || b.cache().get::<HardwareSpec>(&name).is_some()).await;
    // An agent that waits at B gets what is ordered at A.
    let waiting = tokio::spawn({
        let (b, session) = (b.clone(), session.clone());
        async move { work(&b, &session, 30).await }
    });
    a.assign(&name, request(), "test").await.unwrap();
    let mine = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    // It may have been asked for in the moment between two writes; then it asks again.
    let mine = match mine {
        Some(mine) => mine,
        None => work(&b, &session, 30).await.expect("it is ordered"),
    };
    b.report(&session, report(&mine, ReportKind::Began)).await.unwrap();
    for index in 0..mine.steps.len() {
        for event in [StepEvent::Began, StepEvent::Succeeded] {
            b.report(&session, report(&mine, step(index, event))).await.unwrap();
        }
    }
    b.report(&session, report(&mine, ReportKind::HandOver)).await.unwrap();
    for engine in [&a, &b] {
        until("both know the end", async || kinds(engine, &name).contains(&"machine.ready".to_owned())).await;
    }
    a.protect(&name, true, "test").await.unwrap();
    until("B knows that", async || kinds(&b, &name).contains(&"machine.protected".to_owned())).await;
    let wanted = [
        "machine.registered",
        "workflow.assigned",
        "workflow.began",
        "step.began",
        "step.succeeded",
        "machine.ready",
        "machine.protected",
    ];
    for engine in [&a, &b] {
        let told = kinds(engine, &name);
        for kind in wanted {
            let times = told.iter().filter(|told| *told == kind).count();
            let want = if kind.starts_with("step.") { mine.steps.len() } else { 1 };
            assert_eq!(times, want, "{kind} at {}: {told:?}", engine.coordinator().instance());
        }
    }
    a.delete(Kind::TEMPLATE, "debian", "test").await.unwrap();
    until("B sees it go", async || b.cache().get::<TemplateSpec>("debian").is_none()).await;
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn each_region_is_served_by_its_own_instances() {
    let site = Site::new().await;
    let (anywhere, here) = (GivenLeadership::new("a"), GivenLeadership::new("b"));
    let a = site.with(Arc::new(anywhere), None).await;
    let b = site.with(Arc::new(here.clone()), Some("fra")).await;
    let network = |name: &str, region: &str, third: u8| {
        format!(
            "{{apiVersion: dragonfly.computer/v1, kind: Network, metadata: {{name: {name}, labels: {{{REGION_LABEL}: \
             {region}}}}}, spec: {{interface: eth1, dhcp: proxy, subnet: 10.0.{third}.0/24}}}}"
        )
    };
    for text in [network("fra-1", "fra", 1), network("ams-1", "ams", 2)] {
        a.apply(&text, "test").await.unwrap();
    }
    b.cache().load(&*site.store).await.unwrap();
    let b = {
        drop(b);
        site.with(Arc::new(here), Some("fra")).await
    };
    let served = |engine: &Engine| -> Vec<String> {
        engine.networks().borrow().iter().map(|network| network.name().to_owned()).collect()
    };
    assert_eq!(served(&a), ["rack"]);
    assert_eq!(served(&b), ["fra-1", "rack"]);
    assert_eq!(b.cache().all::<NetworkSpec>().len(), 3, "it knows of them all");
    hello(&b, 1, 1).await.unwrap();
    let machine = site.machine().await;
    assert_eq!(machine.metadata.labels.get(REGION_LABEL).map(String::as_str), Some("fra"));
}

async fn leader(instances: &[(Engine, tokio::task::JoinHandle<()>)]) -> usize {
    let mut found = None;
    until("one leads", async || {
        found = instances.iter().position(|(engine, _)| engine.coordinator().leads(SWEEP).is_some());
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn when_the_leader_dies_another_goes_on() {
    let site = Site::new().await;
    let leases = Arc::new(MemoryLeases::default());
    let timing = Timing::new(Duration::from_secs(6), Duration::from_secs(2), Duration::from_secs(1)).unwrap();
    let mut instances = Vec::new();
    for name in ["a", "b", "c"] {
        let coordinator = Leases::new(Arc::clone(&leases) as _, name, timing);
        let engine = site.with(Arc::new(coordinator), Some("fra")).await;
        let task = tokio::spawn({
            let engine = engine.clone();
            async move { engine.run(CancellationToken::new()).await }
        });
        instances.push((engine, task));
    }
    // An orphan: nobody stands behind it, and it is old.
    let (engine, _) = &instances[0];
    let machine = "{apiVersion: dragonfly.computer/v1, kind: Hardware, metadata: {name: m}, spec: {serial: SN-M}}";
    engine.apply(machine, "test").await.unwrap();
    let (dead, task) = instances.swap_remove(leader(&instances).await);
    let before = dead.coordinator().leads(SWEEP);
    // Whoever leads that answers DHCP, and nobody else.
    let answer = |engine: &Engine| engine.networks().borrow().iter().any(|n| n.spec.dhcp != DhcpMode::Off);
    until("one answers DHCP", async || answer(&dead) || instances.iter().any(|(engine, _)| answer(engine))).await;
    let answering = instances.iter().filter(|(engine, _)| answer(engine)).count() + usize::from(answer(&dead));
    assert_eq!(answering, 1);
    task.abort();
    task.await.unwrap_err();
    let (engine, _) = &instances[leader(&instances).await];
    assert_eq!(dead.coordinator().leads(SWEEP), None, "it knows that by itself");
    assert!(engine.coordinator().leads(SWEEP) > before);
    let orphan = "{apiVersion: dragonfly.computer/v1, kind: Workflow, metadata: {name: w}, spec: {hardware: m, \
                  template: debian, content: {actions: []}}}";
    engine.apply(orphan, "test").await.unwrap();
    site.clock.advance(Duration::from_secs(3600));
    until("it is mended", async || {
        site.store.fetch::<WorkflowSpec>("w").await.unwrap().status.state == RunState::Aborted
    })
    .await;
    until("another answers DHCP", async || instances.iter().any(|(engine, _)| answer(engine))).await;
    for (engine, task) in instances {
        let all = engine.coordinator().led();
        assert!(
            all.keys().all(|name| [SWEEP, POWER, "power.fra", DHCP, "dhcp.fra"].contains(&name.as_str())),
            "{all:?}"
        );
        task.abort();
    }
}
